"""A terminal that can go away or stop taking anything: an SSH session that drops or stalls, a window that is closed."""

import os
import select
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from textual.driver import Driver

from engine.base.log import log
from tui.terminal.straight import straight

PATIENCE = 2.0  # seconds


class Output:
    """The terminal as a file that keeps no writer waiting for long, and takes no offence once it is gone.

    Textual's own writer would wait for ever, and the app with it, or die of the first error. Here, what a terminal does
    not take within `PATIENCE` is dropped, and so is what follows until it takes something again.

    Args:
        lost: called once, from any thread, when the terminal is gone.
        awake: called, from any thread, when it takes something again: all has to be drawn anew.
    """

    def __init__(self, file: IO[str], lost: Callable[[], object], awake: Callable[[], object]) -> None:
        self._file = file
        self._lost = lost
        self._awake = awake
        self._terminal = _never_waiting(file.fileno())
        self._gone = False
        self._asleep = False

    def write(self, text: str) -> int:
        data = straight(text).encode("utf-8", "replace")
        try:
            while data and not (self._gone or self._asleep):
                try:
                    data = data[os.write(self._terminal, data) :]
                except BlockingIOError:
                    if not select.select([], [self._terminal], [], PATIENCE)[1]:
                        self._asleep = True
                        log.info("the terminal takes nothing: what follows is dropped")
                        threading.Thread(target=self._wait, name="logitlab-terminal", daemon=True).start()
        except (OSError, ValueError):  # the other end is closed, or this one is
            self._gone = True
            self._lost()
        return len(text)

    def flush(self) -> None:
        pass  # nothing is kept back

    def _wait(self) -> None:
        try:
            select.select([], [self._terminal], [])
        except (OSError, ValueError):
            return
        self._asleep = False
        log.info("the terminal takes something again")
        self._awake()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def terminal_driver(lost: Callable[[], object], awake: Callable[[], object]) -> type[Driver] | None:
    """Textual's driver for this system, with an `Output` in front of its terminal."""
    if sys.platform == "win32":
        return None
    from textual.drivers.linux_driver import LinuxDriver

    class TerminalDriver(LinuxDriver):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            assert sys.__stdout__ is not None
            # Textual would write to stderr, which may lead elsewhere.
            self._file = Output(sys.__stdout__, lost, awake)  # type: ignore[assignment]

    return TerminalDriver


def is_there() -> bool:
    """Whether there still is a terminal to read from."""
    try:
        return sys.__stdin__ is not None and sys.__stdin__.isatty()
    except (OSError, ValueError):
        return False


def _never_waiting(terminal: int) -> int:
    """The terminal opened again: what is set here is not set for the shell, which shares the one that was given."""
    try:
        return os.open(os.ttyname(terminal), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return terminal
