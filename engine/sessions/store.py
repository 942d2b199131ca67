"""The files of sessions: one each in the state folder, locked by one lab at a time, replaced whole at each save."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from engine.base import paths
from engine.base.errors import InputError, LogitlabError, MachineError
from engine.base.files import PRIVATE, read_text, write_text
from engine.base.language import _
from engine.sessions.session import MAX_FILE_BYTES, Session, SessionModel, read, to_json

# A partial file this old was left by a lab that was killed.
STALE_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Listed:
    """A session in the list; `size` in bytes; `problem` says why it cannot be opened, empty where it can."""

    name: str
    path: Path
    saved: str
    model: str
    prompt: str
    size: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Head:
    version: int
    saved: str = ""
    prompt: str = ""
    model: SessionModel | None = None


class SessionFile:
    """A session's file, locked by this lab until `close`."""

    def __init__(self, path: Path) -> None:
        """Raises `InputError` where another lab has locked the file, `MachineError` where it cannot be written."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = FileLock(path.with_suffix(".lock"), timeout=0, mode=PRIVATE)
            self._lock.acquire()
        except Timeout as error:
            raise InputError(
                _("session {name} is open in another lab; close it there, or begin another", name=path.stem)
            ) from error
        except OSError as error:
            why = error.strerror or error
            raise MachineError(
                _("sessions cannot be saved in {parent}: {why}; set LOGITLAB_STATE_DIR", parent=path.parent, why=why)
            ) from error

    @property
    def name(self) -> str:
        return self.path.stem

    def save(self, session: Session) -> None:
        """Replace the file's contents, which stay whole until the new ones are. Raises `MachineError`."""
        write_text(self.path, to_json(session), mode=PRIVATE)

    def close(self) -> None:
        self._lock.release()
        with suppress(OSError):
            self.path.with_suffix(".lock").unlink()


def open_listed(path: Path) -> tuple[SessionFile, Session]:
    """Lock and read a session of the list. Raises `InputError`, and locks nothing, where it cannot be opened."""
    held = SessionFile(path)
    try:
        return held, read(path)
    except InputError:
        held.close()
        raise


def begin() -> SessionFile:
    """A new session's file, named after the time; the first save creates it. Raises `MachineError`."""
    name = datetime.now().strftime("%Y-%m-%d_%H%M%S")
    for number in range(1, 1000):
        path = paths.sessions_dir() / f"{name}{'' if number == 1 else f'-{number}'}.json"
        if not path.exists():
            with suppress(InputError):  # another lab began one in the same second
                return SessionFile(path)
    raise MachineError(_("there are a thousand sessions of {name}; wait a second", name=name))


def newest() -> Path | None:
    """The session that was saved last; `None` where there is none."""
    files = [(modified, path) for path in _files() if (modified := _modified(path)) is not None]
    return max(files)[1] if files else None


def listed() -> list[Listed]:
    """All sessions, the newest first."""
    found = []
    for path in sorted(_files(), key=lambda path: _modified(path) or 0.0, reverse=True):
        try:
            text = read_text(path, MAX_FILE_BYTES)
            head = msgspec.json.decode(text, type=_Head)
            title = head.model.title if head.model is not None else ""
            found.append(Listed(path.stem, path, head.saved, title, head.prompt, len(text.encode())))
        except (LogitlabError, msgspec.MsgspecError, RecursionError) as error:
            found.append(Listed(path.stem, path, "", "", "", 0, problem=str(error)))
    return found


def find(name: str) -> Path:
    """A session's file by its name in the list, or by its path. Raises `InputError`."""
    for path in (paths.sessions_dir() / f"{name}.json", Path(name)):
        with suppress(OSError, ValueError):
            if path.is_file() and (path.parent == paths.sessions_dir() or path == Path(name)):
                return path
    raise InputError(
        _("no session {name!r}; see logitlab sessions list, or give the path of a session's file", name=name)
    )


def is_listed(path: Path) -> bool:
    """Whether a file is in the list; other files are opened as a copy and never changed."""
    return path.resolve().parent == paths.sessions_dir().resolve()


def remove(name: str) -> None:
    """Delete a session of the list. Raises `InputError` where it is missing, or a lab has it open."""
    path = find(name)
    if not is_listed(path):
        raise InputError(_("{name} is a file of your own; delete it yourself", name=name))
    held = SessionFile(path)
    try:
        path.unlink()
    except OSError as error:
        raise MachineError(_("cannot delete {path}: {reason}", path=path, reason=error.strerror)) from error
    finally:
        held.close()


def sweep() -> None:
    """Delete partial files that killed labs have left."""
    now = datetime.now().timestamp()
    with suppress(OSError):
        for path in paths.sessions_dir().glob(".*.json.*"):
            with suppress(OSError):
                if now - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()


def _files() -> list[Path]:
    try:
        return [path for path in paths.sessions_dir().glob("*.json") if not path.name.startswith(".")]
    except OSError:
        return []


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
