"""The process that fetches from the hub, as its parent sees it: a job goes in, lines of JSON come out."""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import IO, Any

from engine.base.errors import Cancelled

WATCH_SECONDS = 0.1


class HubProcess:
    """`python -m engine.models.hub JOB`, for the length of a `with`; it ends at once, even while the hub is silent."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "engine.models.hub", json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
        )
        assert self._process.stdout is not None
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        # A thread, because no system waits for a pipe and a clock in the same way.
        self._reader = threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True)
        self._reader.start()

    def __enter__(self) -> "HubProcess":
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()
        self._complaints.close()

    def lines(self, cancelled: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Each line that it writes, until it writes no more. Raises `Cancelled` once `cancelled` returns True."""
        while True:
            if cancelled():
                raise Cancelled
            try:
                line = self._lines.get(timeout=WATCH_SECONDS)
            except Empty:
                continue
            if line is None:
                return
            yield json.loads(line)

    def last_complaint(self) -> str:
        """The last line on its standard error, empty where there is none; ends the process."""
        self._end()
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()


def _read(stream: IO[str], lines: "SimpleQueue[str | None]") -> None:
    """Put each line of a stream into a queue, then `None`."""
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)
