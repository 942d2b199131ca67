"""What somebody chose for every session to come."""

from typing import Any

import msgspec

from engine.base import paths
from engine.base.state import keep, recall

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
    return recall(paths.settings(), Settings, MAX_FILE_BYTES) or Settings()


def change(**chosen: Any) -> None:
    """Remember other values of some fields; silently not, where the state folder cannot be written."""
    keep(paths.settings(), msgspec.structs.replace(load(), **chosen))
