"""`?`: the keys of the pane that has the focus, then the lab's."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from engine.base.language import _
from tui.actions import ACTIONS, BY_IDENTITY, EVERYWHERE, PANES
from tui.actions.action import Where
from tui.keymap import keys_written
from tui.screens import Dialog
from tui.sentences import sentence
from tui.style.colours import ink


class KeySheet(Dialog[None]):
    """All keys of some panes, the innermost first, and of the lab.

    Args:
        panes: the pane that has the focus, and those it is in.
    """

    opened_by = "keys"

    def __init__(self, panes: Sequence[Where]) -> None:
        super().__init__()
        self._panes: tuple[Where, ...] = (*panes, "lab")

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="key-sheet", classes="dialog"):
            yield Static(self._sheet())

    def on_mount(self) -> None:
        self.query_one("#key-sheet").border_title = sentence(_("Keys · {dialogs.leave} closes"))

    def _sheet(self) -> Group:
        """A title and a table a pane; as wide as the widest keys."""
        parts: list[Text | Table] = []
        rows = {where: list(key_rows(where)) for where in self._panes}
        width = max(len(keys) for pane in rows.values() for keys, _does in pane)
        for where, pane in rows.items():
            if not pane:
                continue
            parts.append(Text(("\n" if parts else "") + _(PANES[where]), style="bold underline"))
            parts.append(key_table(self.app, pane, width + 2))
        return Group(*parts)


def panes_of(ids: Iterable[str | None]) -> list[Where]:
    """The panes that keys belong to, by the identities of their bindings, each once; without the lab."""
    known = (BY_IDENTITY.get((one or "").removesuffix(EVERYWHERE)) for one in ids)
    panes = dict.fromkeys(found[0] for found in known if found is not None)
    return [where for where in panes if where != "lab"]


def key_table(app: App[Any], rows: Iterable[tuple[str, str]], width: int) -> Table:
    """Keys, in a column of a width, and what they do."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=f"bold {ink(app, 'good')}", min_width=width, no_wrap=True)
    table.add_column()
    for keys, does in rows:
        table.add_row(Text(f"  {keys}"), Text(does))
    return table


def key_rows(where: Where) -> Sequence[tuple[str, str]]:
    """Keys and what they do, a row an action; the two of a pair share one."""
    return [
        (keys, _(action.explained))
        for action in ACTIONS[where]
        if action.explained and (keys := keys_written(where, action))
    ]
