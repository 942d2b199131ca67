"""What goes on while the screen is drawn."""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVarTuple

from textual.css.query import NoMatches
from textual.dom import DOMNode

Arguments = TypeVarTuple("Arguments")


def in_background(
    owner: DOMNode, group: str, work: Callable[[*Arguments], Coroutine[Any, Any, None]], *arguments: *Arguments
) -> None:
    """Start a coroutine function, and cancel what the widget has begun in this group before."""

    # A function, not a coroutine: a worker may be cancelled before it begins, and nobody would await it.
    async def begin() -> Any:
        with suppress(NoMatches):  # the app is leaving, and so are its panes
            await work(*arguments)

    owner.run_worker(begin, group=group, exclusive=True)
