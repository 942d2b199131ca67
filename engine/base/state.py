"""Small values in files of the state folder. A file that cannot be read or written is no error: it is left out."""

from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.base.errors import LogitlabError
from engine.base.files import PRIVATE, read_text, write_text

T = TypeVar("T")


def recall(path: Path, kind: type[T], limit: int) -> T | None:
    """The value in a JSON file of at most `limit` bytes; `None` where the file is missing or holds something else."""
    with suppress(LogitlabError, msgspec.MsgspecError):
        return msgspec.json.decode(read_text(path, limit), type=kind)
    return None


def keep(path: Path, value: Any, *, mode: int | None = PRIVATE) -> bool:
    """Write a value into a JSON file, in place of the former one. Returns whether it could be written.

    Args:
        mode: permissions; `None` means what the user's umask allows.
    """
    with suppress(LogitlabError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, msgspec.json.encode(value).decode(), mode=mode)
        return True
    return False
