"""Settings that every later session uses."""

from typing import Any

import msgspec

from engine.base import paths
from engine.base.state import keep, recall

MAX_FILE_BYTES = 100_000


class Preferences(msgspec.Struct, frozen=True):
    """Chosen once, kept in the state folder.

    Attributes:
        theme: name of the screen's theme; the default one when empty.
        greeted: whether the greeting of the first start has been shown.
        reduced_motion: whether cursors stand still and nothing slides.
        inspector_rows: height of the inspector where it was changed, by the kind of screen: `low`, `tall` or `high`.
    """

    theme: str = ""
    greeted: bool = False
    reduced_motion: bool = False
    inspector_rows: dict[str, int] = {}


def load() -> Preferences:
    """The kept settings; the defaults where there are none, or they cannot be read."""
    return recall(paths.settings(), Preferences, MAX_FILE_BYTES) or Preferences()


def change(**chosen: Any) -> None:
    """Keep new values of some fields; do nothing where the state folder cannot be written."""
    keep(paths.settings(), msgspec.structs.replace(load(), **chosen))
