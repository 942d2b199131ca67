"""Choose a model: what is here, what can be fetched, or anything by name."""

from pathlib import Path

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import DataTable, Input, Static
from textual.worker import get_current_worker

from engine.base.errors import Cancelled, LogitlabError, ModelNameError
from engine.base.language import _
from engine.models import catalog
from tui.screens import Dialog
from tui.style.colours import ink
from tui.widgets.footer import Footer


class ModelPicker(Dialog[str | None]):
    """Gives back a name for `--model`, or nothing.

    What is typed is a name; arrows move over the list all the same, and enter without a name takes the row.
    """

    AUTO_FOCUS = "#picker-name"
    BINDINGS = [
        Binding("up", "move('cursor_up')", show=False),
        Binding("down", "move('cursor_down')", show=False),
        Binding("pageup", "move('page_up')", show=False),
        Binding("pagedown", "move('page_down')", show=False),
        Binding("enter", "choose", "load", priority=False),
        Binding("escape", "dismiss_none", "cancel", priority=True),
    ]

    def __init__(self, current: str | None, cache_dir: Path | None) -> None:
        super().__init__()
        self._current = current
        self._cache_dir = cache_dir
        self._entries: list[catalog.Entry] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="picker", classes="dialog"):
            yield DataTable[Text](id="picker-table", cursor_type="row", zebra_stripes=True)
            yield Input(
                placeholder=_("or a Hugging Face id, a folder, a .gguf file, http://server:port"),
                id="picker-name",
                select_on_focus=False,
            )
            yield Static(id="picker-says")
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#picker").border_title = _("Model")
        table = self.query_one(DataTable)
        table.can_focus = False
        for title in (_("model"), "", _("size"), _("licence"), _("from")):
            table.add_column(title, key=title or "state")
        table.loading = True
        self._list()

    @work(thread=True, exit_on_error=False)
    def _list(self) -> None:
        entries = catalog.available(self._cache_dir)
        self.app.call_from_thread(self._show, entries)

    def _show(self, entries: list[catalog.Entry]) -> None:
        if not self.is_mounted:
            return
        self._entries = entries
        table = self.query_one(DataTable)
        table.loading = False
        for entry in entries:
            mark = "●" if entry.name == self._current else " "
            state = _("served") if entry.kind == "server" else _("here") if entry.cached else _("to fetch")
            size = f"{entry.size / 1e6:,.0f} MB" if entry.size else ""
            title = entry.title if entry.kind == "server" else entry.name
            row = (f"{mark} {title}", state, size, entry.license, _(entry.source))
            table.add_row(*(Text(value) for value in row))

    def action_move(self, how: str) -> None:
        getattr(self.query_one(DataTable), f"action_{how}")()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.dismiss(self._entries[event.cursor_row].name)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        name = event.value.strip()
        if not name:
            if self._entries:
                self.dismiss(self._entries[self.query_one(DataTable).cursor_row].name)
            return
        try:
            catalog.find(name, self._cache_dir)
        except ModelNameError as error:
            self._complain(error)
            return
        if catalog.is_address(name) and "#" not in name:
            self._says(Text(_("asking {name} what it serves…", name=name), style="dim"))
            self._ask(name)
        else:
            self.dismiss(name)

    @work(thread=True, exit_on_error=False, exclusive=True)
    def _ask(self, address: str) -> None:
        """What a server serves: one model is taken at once, of several one is chosen."""
        from engine.remote.connect import served_models

        worker = get_current_worker()
        try:
            names = served_models(address, cancelled=lambda: worker.is_cancelled)
        except (LogitlabError, Cancelled) as error:
            self.app.call_from_thread(self._complain, error)
            return
        self.app.call_from_thread(self._offer, address, names)

    def _offer(self, address: str, names: list[str]) -> None:
        if not self.is_mounted:
            return
        entries = [catalog.find(f"{address}#{name}", self._cache_dir) for name in names]
        if len(entries) == 1:
            self.dismiss(entries[0].name)
            return
        self._says(Text(_("{address} serves these", address=address), style="dim"))
        self.query_one(DataTable).clear()
        self.query_one(Input).value = ""
        self._show(entries)

    def _complain(self, error: Exception) -> None:
        self._says(Text(str(error), style=f"bold {ink(self.app, 'wrong')}"))

    def _says(self, what: Text) -> None:
        if self.is_mounted:
            self.query_one("#picker-says", Static).update(what)

    def action_dismiss_none(self) -> None:
        self.dismiss(None)
