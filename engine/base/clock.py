"""The date and time, as files hold it and as the screen shows it."""

from datetime import datetime


def now() -> str:
    """The present time in ISO 8601, to the second, with the offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def minute(at: str) -> str:
    """A time that `now` returned, for people: to the minute, as `2026-01-02 03:04`."""
    return at[:16].replace("T", " ")
