"""Long days, compressed: a short version of each in `make test`, the long one in `make reliability`.

`RELIABILITY=long` chooses the long one; `RELIABILITY_FIGURES` names a file that every figure is added to, a JSON object
a line, from which `docs/reliability.py` makes the table of `docs/reliability.md`.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

LONG = os.environ.get("RELIABILITY") == "long"
HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before the tests that are not marked are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """At their full length these are tests marked `long` too."""
    for item in items:
        if LONG and HERE in item.path.parents:
            item.add_marker(pytest.mark.long)


def scale(short: int, long: int) -> int:
    """How many: a little in every test run, much in the long one."""
    return long if LONG else short


Figure = Callable[..., None]


@pytest.fixture
def figure() -> Figure:
    """`figure("what was tried", tried=3, survived=3, lost=0)`: one line of the table."""

    def add(what: str, **numbers: object) -> None:
        if file := os.environ.get("RELIABILITY_FIGURES"):
            with Path(file).open("a", encoding="utf-8") as out:
                out.write(json.dumps({"what": what, **numbers}) + "\n")

    return add
