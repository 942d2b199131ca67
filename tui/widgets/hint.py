"""One line, or a few, in which a pane or a dialog says what to do, or what is wrong."""

from rich.text import Text
from textual.dom import DOMNode
from textual.widgets import Static

from tui.style.colours import ink


class Hint(Static):
    """Where it is said; each pane and dialog that says things holds one."""


def say(where: DOMNode, text: str, *, wrong: bool = False) -> None:
    """Say something in a pane or dialog: quietly, or loudly where something is wrong."""
    where.query_one(Hint).update(Text(text, style=f"bold {ink(where.app, 'wrong')}" if wrong else "dim"))
