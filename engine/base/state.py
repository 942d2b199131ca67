"""Small things kept for later in the state folder: what cannot be read is forgotten, what cannot be written is not."""

from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.base.errors import LogitlabError
from engine.base.files import PRIVATE, read_text, write_text

T = TypeVar("T")


def recall(path: Path, kind: type[T], limit: int) -> T | None:
    """What a file of at most `limit` bytes holds; `None` where it is not there, or cannot be read as that."""
    with suppress(LogitlabError, msgspec.MsgspecError):
        return msgspec.json.decode(read_text(path, limit), type=kind)
    return None


def keep(path: Path, value: Any, *, mode: int | None = PRIVATE) -> bool:
    """Put a value in place of what the file held. Returns whether it could be written, and complains of nothing.

    Args:
        mode: permissions; its owner's alone, or what the user's mask leaves when `None`.
    """
    with suppress(LogitlabError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, msgspec.json.encode(value).decode(), mode=mode)
        return True
    return False
