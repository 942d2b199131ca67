"""What goes on while the screen is drawn."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVarTuple

from textual.dom import DOMNode

Arguments = TypeVarTuple("Arguments")


def in_background(
    owner: DOMNode, group: str, work: Callable[[*Arguments], Coroutine[Any, Any, None]], *arguments: *Arguments
) -> None:
    """Start a coroutine function, and cancel what the widget has begun in this group before.

    It is called by its worker: one that is cancelled before it begins would leave a coroutine that nobody awaits.
    """
    begin: Callable[[], Any] = partial(work, *arguments)
    owner.run_worker(begin, group=group, exclusive=True)
