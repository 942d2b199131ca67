"""Go on from a token of a lane with any text instead of what was picked."""

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, Static

from engine.base.language import _
from tui.screens import Dialog
from tui.sentences import sentence
from tui.widgets.footer import Footer
from tui.widgets.hint import Hint, say


class BranchDialog(Dialog[str | None]):
    """Gives back the text to go on with.

    Args:
        lane: its letter.
        before: what the lane has written before the fork.
        instead_of: the token that was picked there.
    """

    def __init__(self, lane: str, before: str, instead_of: str) -> None:
        super().__init__()
        self._lane = lane
        self._before = before
        self._instead_of = instead_of

    def compose(self) -> ComposeResult:
        with Vertical(id="branch", classes="dialog"):
            before = self._before if len(self._before) < 60 else "…" + self._before[-60:]
            yield Static(
                Text(_("{before}▏ instead of “{instead_of}”", before=before, instead_of=self._instead_of), style="dim"),
                id="branch-before",
            )
            yield Input(
                placeholder=_("what comes instead; begin with a space for a new word"), id="branch-text", compact=True
            )
            yield Hint(id="branch-says")
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#branch").border_title = _("Lane {lane} goes on with", lane=self._lane)
        say(self, sentence(_("Enter goes on from here; the old continuation stays as a branch ({lanes.branches}).")))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value:
            self.dismiss(event.value)
        else:
            say(self, sentence(_("Type at least one character, or {dialogs.leave} to leave all as it is.")), wrong=True)
