"""A few short texts, each in a field of its own."""

from collections.abc import Callable, Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, Label

from engine.base.errors import LogitlabError
from tui.screens import Dialog
from tui.widgets.footer import Footer
from tui.widgets.hint import Hint, say


class TextsDialog(Dialog[None]):
    """Hands over what was typed into each field, empty where nothing was; it stays open where that cannot be used.

    Args:
        fields: a name, and what an empty one stands for.
        hint: what to do.
        use: takes the texts, or raises `LogitlabError`, which is said here.
    """

    def __init__(
        self,
        title: str,
        fields: Sequence[tuple[str, str]],
        hint: str,
        use: Callable[[Sequence[str]], object],
    ) -> None:
        super().__init__()
        self._title = title
        self._fields = fields
        self._hint = hint
        self._use = use

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
        try:
            self._use([field.value for field in self.query(Input)])
        except LogitlabError as error:
            say(self, str(error), wrong=True)
        else:
            self.dismiss(None)
