"""All sessions that were saved, to go on with one."""

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable

from engine.base.clock import minute
from engine.base.errors import LogitlabError
from engine.base.language import N_, _
from engine.base.plain import one_line
from engine.sessions import store as sessions
from engine.sessions.store import Listed
from tui.actions import bindings
from tui.screens import Dialog
from tui.sentences import sentence
from tui.style.colours import ink
from tui.widgets.footer import Footer
from tui.widgets.hint import Hint, say

WIDTHS = ((N_("saved"), 16), (N_("model"), 22), (N_("prompt"), 44), (N_("size"), 9))
# Where there is no room for all of that, of the model and the prompt.
NARROW = {"model": 14, "prompt": 20}
BORDERS = 4


class SessionsDialog(Dialog[str | None]):
    """Gives back the name of the session to open, an empty text for a new one."""

    BINDINGS = bindings("sessions")

    def __init__(self, current: str | None) -> None:
        super().__init__()
        self._current = current
        self._listed: list[Listed] = []
        self._sure: str | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="sessions", classes="dialog"):
            yield DataTable[Text](id="sessions-table", cursor_type="row")
            yield Hint(id="sessions-says")
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#sessions").border_title = _("Sessions")
        table = self.query_one(DataTable)
        wide = self.app.size.width >= sum(width + 2 for _title, width in WIDTHS) + BORDERS
        for title, width in WIDTHS:
            table.add_column(_(title), width=width if wide else NARROW.get(title, width))
        self._fill()
        table.focus()

    def _fill(self) -> None:
        table = self.query_one(DataTable)
        table.clear()
        self._listed = sessions.listed()
        for one in self._listed:
            here = "● " if one.name == self._current else ""
            saved = minute(one.saved) or one.name
            prompt = one_line(one.problem or one.prompt)
            table.add_row(
                Text(saved),
                Text(one.model, style="dim", no_wrap=True, overflow="ellipsis"),
                Text(
                    here + prompt,
                    style=ink(self.app, "wrong") if one.problem else "",
                    no_wrap=True,
                    overflow="ellipsis",
                ),
                Text(f"{one.size / 1000:,.0f} kB".rjust(9), style="dim"),
            )
        say(
            self,
            _("● is the one that is open.") if self._listed else _("There are none yet: what you do here is saved."),
        )

    def _chosen(self) -> Listed | None:
        row = self.query_one(DataTable).cursor_row
        return self._listed[row] if 0 <= row < len(self._listed) else None

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.action_open()

    def action_open(self) -> None:
        chosen = self._chosen()
        if chosen is None:
            return
        if chosen.problem:
            say(self, chosen.problem, wrong=True)
        else:
            self.dismiss(chosen.name if chosen.name != self._current else None)

    def action_new(self) -> None:
        self.dismiss("")

    def action_delete(self) -> None:
        chosen = self._chosen()
        if chosen is None:
            return
        if chosen.name == self._current:
            say(self, sentence(_("This one is open: {sessions.new} begins another first.")), wrong=True)
        elif self._sure != chosen.name:
            self._sure = chosen.name
            say(self, sentence(_("{sessions.delete} once more deletes it for good.")), wrong=True)
        else:
            try:
                sessions.remove(chosen.name)
            except LogitlabError as error:
                say(self, str(error), wrong=True)
            else:
                self._fill()
