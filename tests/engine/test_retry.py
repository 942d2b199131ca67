"""One policy for what failed for a moment."""

import pytest

from engine.base import retry as retry_module
from engine.base.errors import Cancelled
from engine.base.retry import LONGEST_WAIT, retry


class Flaky:
    """Fails as often as it is asked to, then returns its number of calls."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise OSError(f"failure {self.calls}")
        return self.calls


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits, which end at once."""
    waits: list[float] = []
    monkeypatch.setattr(retry_module, "_sleep", lambda seconds, stopped: waits.append(seconds))
    return waits


def test_waits_double_and_are_shown(slept: list[float]) -> None:
    shown: list[float] = []
    assert retry(Flaky(7), attempts=8, wait=lambda error, backoff: backoff, before_wait=shown.append) == 8
    assert slept == shown == [1, 2, 4, 8, 16, LONGEST_WAIT, LONGEST_WAIT]


def test_what_an_error_asks_for_is_waited(slept: list[float]) -> None:
    assert retry(Flaky(2), attempts=3, first_wait=0.5, wait=lambda error, backoff: 10 * backoff) == 3
    assert slept == [5, 10]


def test_the_last_error_is_raised(slept: list[float]) -> None:
    work = Flaky(9)
    with pytest.raises(OSError, match="failure 3"):
        retry(work, attempts=3, wait=lambda error, backoff: backoff)
    assert (work.calls, len(slept)) == (3, 2)


def test_what_will_not_pass_is_not_tried_again(slept: list[float]) -> None:
    work = Flaky(9)
    with pytest.raises(OSError, match="failure 1"):
        retry(work, attempts=3, wait=lambda error, backoff: None)
    assert (work.calls, slept) == (1, [])


def test_a_stop_ends_the_wait() -> None:
    work = Flaky(9)
    with pytest.raises(Cancelled):
        retry(work, attempts=3, wait=lambda error, backoff: 1000, stopped=lambda: True)
    assert work.calls == 1


def test_what_was_cancelled_is_not_tried_again(slept: list[float]) -> None:
    def cancelled() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        retry(cancelled, attempts=3, wait=lambda error, backoff: backoff)
    assert slept == []
