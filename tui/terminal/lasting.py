"""An app that ends whole, whatever ends it: a signal, a terminal that is closed or stalls, an error nobody foresaw."""

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any, Generic

from textual import events
from textual.app import ReturnType
from textual.filter import LineFilter

from engine.base import log
from tui.terminal.driver import is_there, terminal_driver
from tui.terminal.harmless import Harmless
from tui.terminal.in_order import InOrderApp
from tui.terminal.typed import typed

WATCH_SECONDS = 1.0
HARMLESS = Harmless()
HANGUP = 1  # the signal, where there is one


class LastingApp(InOrderApp[ReturnType], Generic[ReturnType], inherit_bindings=False):
    """An app that takes all that a terminal delivers, writes nothing that would steer it, and outlives its faults.

    Attributes:
        crash: the error that was not foreseen, and ended the app.
    """

    def __init__(self) -> None:
        super().__init__(driver_class=terminal_driver(self._lost, self._awake))
        self.crash: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving = False

    def watch_terminal(self) -> None:
        """Leave when a signal says so or the terminal is closed, from now on."""
        self._loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                number = getattr(signal, name)
                self._loop.add_signal_handler(number, self._leave, number)
        if not self.is_headless:
            self.set_interval(WATCH_SECONDS, self._look_for_terminal)

    def exit(self, *arguments: Any, **options: Any) -> None:
        self._leaving = True
        self.workers.cancel_all()  # what goes on would look for panes that are gone
        super().exit(*arguments, **options)

    async def on_event(self, event: events.Event) -> None:
        await super().on_event(typed(event))

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), HARMLESS]

    def _lost(self) -> None:
        """The terminal cannot be written to any more; called by the thread that writes."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._leave, HANGUP)

    def _awake(self) -> None:
        """The terminal takes something again, after some was dropped; called by a thread that waited for it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: self.refresh(layout=True))

    def _look_for_terminal(self) -> None:
        """A closed terminal does not always send SIGHUP, so it is polled."""
        if not is_there():
            self._leave(HANGUP)

    def _leave(self, number: int) -> None:
        """A signal says to go: restore the terminal and end with the code shells expect."""
        if not self._leaving:
            self.exit(return_code=128 + number)

    def _handle_exception(self, error: Exception) -> None:
        """An error that was not foreseen: write it down, and leave with the terminal whole.

        Textual's own way is to print all it knows, the prompt among it; `--debug` and tests go that way.
        """
        log.crash(error)
        if os.environ.get("LOGITLAB_DEBUG") or self.is_headless:
            super()._handle_exception(error)
            return
        if self.crash is None:
            self.crash = error
            self.exit(return_code=1)
