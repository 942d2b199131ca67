"""Trying again what failed for a moment: one policy for downloads and for the jobs of a batch."""

import time
from collections.abc import Callable
from typing import TypeVar

from engine.base.errors import Cancelled

T = TypeVar("T")

LONGEST_WAIT = 30.0  # seconds
POLL_SECONDS = 0.05


def retry(
    work: Callable[[], T],
    *,
    attempts: int,
    wait: Callable[[Exception, float], float | None],
    first_wait: float = 1.0,
    before_wait: Callable[[float], None] = lambda seconds: None,
    stopped: Callable[[], bool] = lambda: False,
) -> T:
    """Call `work` until it succeeds, at most `attempts` times.

    Args:
        wait: seconds until another attempt is worth it, given the error and the seconds that doubling proposes:
            `first_wait`, then twice as many, at most `LONGEST_WAIT`. `None` where no attempt is worth it.
        before_wait: called with the seconds of each wait, to show them.
        stopped: asked during a wait; True ends it with `Cancelled`.

    Returns:
        What `work` returned.

    Raises:
        Cancelled: `work` raised it, or `stopped` returned True.
        Exception: what the last attempt raised.
    """
    for attempt in range(attempts - 1):
        try:
            return work()
        except Cancelled:
            raise
        except Exception as error:
            seconds = wait(error, min(first_wait * 2.0**attempt, LONGEST_WAIT))
            if seconds is None:
                raise
        before_wait(seconds)
        _sleep(seconds, stopped)
    return work()


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if stopped():
            raise Cancelled
        time.sleep(min(left, POLL_SECONDS))
