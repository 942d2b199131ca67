"""The time of day, as it is written down and as it is shown."""

from datetime import datetime


def now() -> str:
    """ISO 8601 to the second, with the offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def minute(at: str) -> str:
    """What `now` gave, for people: to the minute, as `2026-01-02 03:04`."""
    return at[:16].replace("T", " ")
