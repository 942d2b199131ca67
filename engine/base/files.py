"""Small files, read whole within a limit and written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.base.errors import InputError, MachineError
from engine.base.language import _

PRIVATE = 0o600


def read_text(path: Path, limit: int) -> str:
    """A UTF-8 file of at most `limit` bytes.

    Raises:
        InputError: the file does not exist, is larger, or is not UTF-8 text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise InputError(_("cannot read {path}: {reason}", path=path, reason=error.strerror or error)) from error
    except ValueError as error:  # a name with a zero byte
        raise InputError(_("cannot read {path!s}: {error}", path=path, error=error)) from error
    if len(data) > limit:
        size = path.stat().st_size
        raise InputError(
            _("{path} has {size:,} bytes; at most {limit:,} can be read", path=path, size=size, limit=limit)
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            _("{path} is not UTF-8 text (byte {start:,}); convert it first", path=path, start=error.start + 1)
        ) from error
    if "\0" in text:
        raise InputError(
            _(
                "{path} is a binary file (byte {byte:,} is zero); give a text file",
                path=path,
                byte=text.index(chr(0)) + 1,
            )
        )
    return text


def write_text(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write a file whole or not at all. Raises `MachineError`.

    Args:
        mode: permissions; `None` means what the user's umask allows.
    """
    with written_whole(path, mode=mode) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def written_whole(path: Path, *, mode: int | None = None) -> Iterator[Path]:
    """A file beside `path` to write into: it replaces `path` at the end, or is deleted after an error.

    Raises:
        MachineError: the file cannot be written.
    """
    partial = None
    try:
        descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(descriptor)
        yield Path(partial)
        os.chmod(partial, 0o666 & ~_umask() if mode is None else mode)
        os.replace(partial, path)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise MachineError(_("cannot write {path}: {why}; choose another place", path=path, why=why)) from error
    finally:
        if partial is not None:
            with suppress(OSError):
                os.unlink(partial)


def check_writable(*files: Path | None, read: Sequence[Path] = ()) -> None:
    """Raise where `write_text` could not write all of these, so that an error comes before the work, not after it.

    Args:
        read: files that the same work reads.

    Raises:
        InputError: two of them are one file, or one is read too.
        MachineError: one cannot be written.
    """
    paths = [path for path in files if path is not None]
    for number, path in enumerate(paths):
        _check_writable(path)
        if path.resolve() in [one.resolve() for one in paths[:number]]:
            raise InputError(_("{path} would be written twice; give each file another name", path=path))
        if path.resolve() in [one.resolve() for one in read]:
            raise InputError(_("{path} is read, and would be written over; write to another file", path=path))


def _check_writable(path: Path) -> None:
    folder = path.parent
    if path.is_dir():
        raise MachineError(_("cannot write {path}: it is a folder; give a file name", path=path))
    if not folder.is_dir():
        raise MachineError(
            _(
                "cannot write {path}: there is no folder {folder}; make it, or choose another place",
                path=path,
                folder=folder,
            )
        )
    if not os.access(folder, os.W_OK):
        raise MachineError(
            _("cannot write {path}: the folder {folder} is read-only; choose another place", path=path, folder=folder)
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
