"""The one thread that owns models and tensors: jobs one after the other, and small work between the steps of a run.

The worker never waits for the reader of its events, and the reader is woken once for all events that have gathered
since it last looked.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from engine.job import Body, Job

# How long nothing is to be done before the worker does what can wait.
IDLE_SECONDS = 0.3


class Worker:
    """Works through jobs in the order in which they are handed over.

    Args:
        idle: called in the worker while `waiting` says that something can wait, and nothing else is to be done.

    Attributes:
        running: the run that was begun last; another run ends it.
    """

    def __init__(self, waiting: Callable[[], bool], idle: Callable[[], object]) -> None:
        self._waiting = waiting
        self._idle = idle
        self.running: Job[Any] | None = None
        self._asked: deque[Job[Any]] = deque()
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="logitlab-worker", daemon=True)
        self.thread.start()

    def start(self, body: Body, *, paused: bool = False) -> Job[Any]:
        """A job after those that were handed over before."""
        job: Job[Any] = Job(body, asyncio.get_running_loop(), self._serve)
        if paused:
            job.pause()
        self._jobs.put(job)
        return job

    def run(self, body: Body, *, paused: bool = False) -> Job[Any]:
        """A job that ends the run before it."""
        self.cancel()
        self.running = self.start(body, paused=paused)
        return self.running

    def ask(self, body: Body) -> Job[Any]:
        """Work that is done between the steps of a run, if one goes on."""
        job: Job[Any] = Job(body, asyncio.get_running_loop())
        self._asked.append(job)
        self._jobs.put(_SERVE)
        if self.running is not None:
            self.running.wake()
        return job

    @property
    def is_asked(self) -> bool:
        """Whether work that was asked for is not done yet."""
        return bool(self._asked)

    def cancel(self) -> None:
        """End the run, if there is one."""
        if self.running is not None:
            self.running.cancel()

    async def close(self, seconds: float) -> None:
        """Take no more jobs, and wait for the last one at most so long."""
        self._jobs.put(None)
        await asyncio.to_thread(self.thread.join, seconds)

    def _serve(self) -> bool:
        """Do a little of what is asked, in the worker; whether there is more."""
        if self._asked and not self._asked[0].advance():
            self._asked.popleft()
        return bool(self._asked)

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            if job is _SERVE:
                while self._serve():
                    pass
            else:
                job.run()

    def _next_job(self) -> Job[Any] | None:
        """Wait for a job; what can wait is done only when there is nothing else to do for a moment."""
        if self._waiting():
            try:
                return self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                self._idle()
                return _SERVE
        return self._jobs.get()


# In the queue of jobs: something is asked.
_SERVE: Any = object()
