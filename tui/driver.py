"""A terminal that can go away: an SSH session that drops, a window that is closed."""

import sys
from collections.abc import Callable
from typing import IO, Any

from textual.driver import Driver


class Forgiving:
    """A file that takes no offence once its terminal is gone: the writer goes on, and the app is told once.

    Textual's writer would die of the first error, and whoever writes next would wait for it for ever.
    """

    def __init__(self, file: IO[str], lost: Callable[[], object]) -> None:
        self._file = file
        self._lost = lost
        self._gone = False

    def write(self, text: str) -> int:
        return self._try(self._file.write, text) or len(text)

    def flush(self) -> None:
        self._try(self._file.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def _try(self, what: Callable[..., Any], *arguments: Any) -> Any:
        if self._gone:
            return None
        try:
            return what(*arguments)
        except (OSError, ValueError):  # the other end is closed, or this one is
            self._gone = True
            self._lost()
            return None


def terminal_driver(lost: Callable[[], object]) -> type[Driver] | None:
    """Textual's driver for this system, whose app is told by `lost`, from any thread, that its terminal is gone."""
    if sys.platform == "win32":
        return None
    from textual.drivers.linux_driver import LinuxDriver

    class TerminalDriver(LinuxDriver):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._file = Forgiving(self._file, lost)  # type: ignore[assignment, arg-type]

    return TerminalDriver


def is_there() -> bool:
    """Whether there still is a terminal to read from."""
    try:
        return sys.__stdin__ is not None and sys.__stdin__.isatty()
    except (OSError, ValueError):
        return False
