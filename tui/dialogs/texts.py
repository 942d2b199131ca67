"""A few short texts, each in a field of its own."""

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, Label

from tui.screens import Dialog
from tui.widgets.footer import Footer
from tui.widgets.hint import Hint, say


class TextsDialog(Dialog[Sequence[str] | None]):
    """Gives back what was typed into each field, empty where nothing was.

    Args:
        fields: a name, and what an empty one stands for.
        hint: what to do.
    """

    def __init__(self, title: str, fields: Sequence[tuple[str, str]], hint: str) -> None:
        super().__init__()
        self._title = title
        self._fields = fields
        self._hint = hint

    def compose(self) -> ComposeResult:
        with Vertical(id="texts", classes="dialog"):
            for name, empty in self._fields:
                yield Label(name)
                yield Input(placeholder=empty, compact=True)
            yield Hint()
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#texts").border_title = self._title
        say(self, self._hint)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss([field.value for field in self.query(Input)])
