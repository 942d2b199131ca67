"""What somebody chose for every session to come."""

from contextlib import suppress
from typing import Any

import msgspec

from engine import paths
from engine.errors import LogitlabError
from engine.files import PRIVATE, read_text, write_text

MAX_FILE_BYTES = 100_000


class Settings(msgspec.Struct, frozen=True):
    """Chosen once, kept in the state folder.

    Attributes:
        theme: name of the colours; the lab's own when empty.
        greeted: whether the lab has introduced itself.
    """

    theme: str = ""
    greeted: bool = False


def load() -> Settings:
    """What was chosen; the defaults where nothing was, or it cannot be read."""
    with suppress(LogitlabError, msgspec.MsgspecError):
        return msgspec.json.decode(read_text(paths.settings(), MAX_FILE_BYTES), type=Settings)
    return Settings()


def change(**chosen: Any) -> None:
    """Remember other values of some fields; silently not, where the state folder cannot be written."""
    settings = msgspec.structs.replace(load(), **chosen)
    with suppress(LogitlabError, OSError):
        paths.state_dir().mkdir(parents=True, exist_ok=True)
        write_text(paths.settings(), msgspec.json.encode(settings).decode(), mode=PRIVATE)
