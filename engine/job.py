"""One piece of work in its thread, whose events come back to the event loop."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Generic, TypeVar

from engine.base.errors import Cancelled
from engine.base.machine import as_ours
from engine.generation.events import Failed

# Least time from one frame to the next of what is drawn as it goes on: what the screen takes, the network lacks.
FRAME_SECONDS = 1 / 20

T = TypeVar("T")
Body = Callable[["Job[Any]"], Iterator[Any]]


class Job(Generic[T]):
    """Work in the worker thread: an async iterator of its events, with pause, step and cancel.

    All methods may be called from any thread; iterate in the event loop that created it.
    """

    def __init__(
        self, body: Body, loop: asyncio.AbstractEventLoop, meanwhile: Callable[[], bool] = lambda: False
    ) -> None:
        self._body = body
        self._loop = loop
        self._meanwhile = meanwhile  # does a little of what else is asked; whether there is more
        self._iterator: Iterator[Any] | None = None
        self._events: deque[T | Failed] = deque()
        self._awake = asyncio.Event()
        self._control = threading.Condition()
        self._paused = False
        self._permits = 0
        self._step_seconds = 0.0
        self._kept_in_step = False
        self._due = 0.0
        self._woken = False
        self._cancelled = False
        self._done = False

    @property
    def done(self) -> bool:
        """Whether the worker is through with it; events may still be waiting to be read."""
        return self._done

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    @property
    def in_step(self) -> bool:
        """Whether every lane is to get as many tokens: stepped by hand, at a pace, or where that is asked for."""
        return self._paused or self._step_seconds > 0 or self._kept_in_step

    def pause(self) -> None:
        """Stop before the next step; takes effect within one step."""
        with self._control:
            self._paused = True

    def resume(self) -> None:
        with self._control:
            self._paused = False
            self._permits = 0
            self._control.notify_all()

    def step(self) -> None:
        """Pause, and let one step of every lane through; while some are behind, one of each of those."""
        with self._control:
            self._paused = True
            self._permits += 1
            self._control.notify_all()

    def cancel(self) -> None:
        """End the job; takes effect within one step."""
        with self._control:
            self._cancelled = True
            self._control.notify_all()

    def pace(self, steps_per_second: float | None) -> None:
        """Take no more steps a second than this; `None` for as many as the machine can."""
        with self._control:
            self._step_seconds = 1 / steps_per_second if steps_per_second else 0.0
            self._due = min(self._due, time.monotonic() + self._step_seconds)
            self._control.notify_all()

    def keep_in_step(self, wanted: bool) -> None:
        """Let lanes that are behind catch up, then all take each step together; or each at its own pace again."""
        self._kept_in_step = wanted

    def wake(self) -> None:
        """Something else was asked of the worker: it need not wait for the next step."""
        with self._control:
            self._woken = True
            self._control.notify_all()

    def proceed(self) -> bool:
        """Asked by the worker before each step: blocks while paused or ahead of the pace, False once cancelled."""
        while True:
            more = self._meanwhile()
            with self._control:
                if self._cancelled:
                    return False
                if self._paused and self._permits:
                    self._permits -= 1
                    break
                wait = None if self._paused else self._due - time.monotonic()
                if wait is not None and wait <= 0:
                    break
                if not more and not self._woken:
                    self._control.wait(wait)
                self._woken = False
        self._due = time.monotonic() + self._step_seconds
        return True

    def emit(self, event: T | Failed) -> None:
        """Called by the worker: hand one event over without waiting."""
        self._events.append(event)
        self._wake()

    async def frames(self, seconds: float = FRAME_SECONDS) -> AsyncIterator[list[T | Failed]]:
        """All events that have gathered, each time there are any, until the job is done.

        Args:
            seconds: least time from one frame to the next, for readers that draw.
        """
        while await self._any_event():
            yield [self._events.popleft() for _ in range(len(self._events))]
            await asyncio.sleep(seconds)

    async def __aiter__(self) -> AsyncIterator[T | Failed]:
        while await self._any_event():
            yield self._events.popleft()

    async def _any_event(self) -> bool:
        """Wait for an event; False once the job is done and all of them are read."""
        while not self._events:
            if self._done:
                return bool(self._events)
            # Clear, then look again: what the worker added before the clear did not wake us, what comes after will.
            self._awake.clear()
            if not self._events and not self._done:
                await self._awake.wait()
        return True

    def run(self) -> None:
        """The worker's part."""
        while self.advance():
            pass

    def advance(self) -> bool:
        """The worker's part, up to the next event; False once there is nothing left to do."""
        try:
            if self._iterator is None:
                self._iterator = iter(self._body(self)) if not self._cancelled else iter(())
            self.emit(next(self._iterator))
            return True
        except (Cancelled, StopIteration):
            pass
        except Exception as error:  # whatever happens in the worker becomes an event
            self.emit(Failed(None, as_ours(error)))
        self._done = True
        self._wake()
        return False

    def _wake(self) -> None:
        if not self._awake.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._awake.set)
