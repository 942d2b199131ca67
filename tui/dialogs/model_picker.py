"""Choose a model: what is here, what was used, what can be fetched, or anything by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable, Input, Static
from textual.worker import get_current_worker

from engine.base.errors import Cancelled, LogitlabError, ModelNameError
from engine.base.language import _
from engine.base.machine import free_memory
from engine.base.plain import cells, shortened
from engine.models import catalog
from tui.actions import bindings
from tui.screens import Dialog
from tui.sentences import key
from tui.style.colours import ink
from tui.widgets.footer import Footer

WIDE = 112  # columns; a narrower screen has state and licence in the line below alone
# Columns for a name, on a narrower screen and on a wide one: long paths are cut here, and stand whole below.
NAME_CELLS = (32, 40)
GIGA = 1e9

T = TypeVar("T")


class ModelPicker(Dialog[str | None]):
    """Gives back a name for `--model`, or nothing.

    What is typed narrows the list down, and enter takes the row that is marked. What no row has, or what is written as
    an id, a path or an address is written, is a name by itself.

    Args:
        current: the model that is loaded.
        in_memory: whether models run in this machine's own memory, so that what is free there counts.
    """

    AUTO_FOCUS = "#picker-name"
    BINDINGS = bindings("models")

    def __init__(self, current: str | None, cache_dir: Path | None, *, in_memory: bool = True) -> None:
        super().__init__()
        self._current = current
        self._cache_dir = cache_dir
        self._free = free_memory() if in_memory else None
        self._all: list[catalog.Entry] = []
        self._entries: list[catalog.Entry] = []  # those that are shown
        self._wide = True
        self._moved = False  # a row was pointed at since something was typed

    def compose(self) -> ComposeResult:
        with Vertical(id="picker", classes="dialog"):
            yield DataTable[Text](id="picker-table", cursor_type="row", zebra_stripes=True)
            yield Input(
                placeholder=_("search, or a Hugging Face id, a folder, a .gguf file, http://server:port"),
                id="picker-name",
                select_on_focus=False,
            )
            yield Static(id="picker-says")
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#picker").border_title = _("Model")
        table = self.query_one(DataTable)
        table.can_focus = False
        self._wide = self.app.size.width >= WIDE
        titles = (_("model"), "", _("for"), _("size"), _("memory"), _("licence"))
        for title in self._fitting(titles):
            table.add_column(title, key=title or "state")
        table.loading = True
        self._list()

    @work(thread=True, exit_on_error=False)
    def _list(self) -> None:
        entries = catalog.offered(self._cache_dir)
        self.app.call_from_thread(self._offer_all, entries)

    def _offer_all(self, entries: Sequence[catalog.Entry]) -> None:
        """Make these what can be chosen."""
        if self.is_mounted:
            self._all = list(entries)
            self.query_one(DataTable).loading = False
            self._narrow()

    def _narrow(self) -> None:
        """Show what has all words that are typed; everything, where nothing has."""
        words = self.query_one(Input).value.lower().split()
        found = [entry for entry in self._all if all(word in _searched(entry) for word in words)]
        shown = found or self._all
        if shown != self._entries or not self.query_one(DataTable).row_count:
            self._entries = shown
            table = self.query_one(DataTable)
            table.clear()
            for entry in shown:
                table.add_row(*self._fitting(self._row(entry)))
        self._describe()

    def _fitting(self, cells: Sequence[T]) -> list[T]:
        """The cells of a row that there is room for."""
        return [cell for place, cell in enumerate(cells) if self._wide or place not in (1, len(cells) - 1)]

    def _row(self, entry: catalog.Entry) -> tuple[Text, ...]:
        mark = "●" if entry.name == self._current else " "
        title = entry.title if entry.kind == "server" else entry.name
        room = catalog.room(entry, self._free)
        return (
            Text(f"{mark} {shortened(title, self._name_cells)}"),
            Text(_state(entry)),
            Text(_(catalog.TUNED[entry.tuned])),
            Text(("" if entry.cached or entry.kind != "hub" else "≈ ") + _size(entry.size), justify="right"),
            Text(_(catalog.ROOMS[room]), style=f"bold {ink(self.app, 'wrong')}" if room == "none" else ""),
            Text(catalog.licence(entry)),
        )

    def _takes_typed(self) -> bool:
        """Whether enter takes what is typed as a name, and not the row that is marked."""
        name = self.query_one(Input).value.strip()
        if not name or not self._entries:
            return bool(name)
        if self._moved:
            return False
        searched = any(all(word in _searched(entry) for word in name.lower().split()) for entry in self._all)
        return not searched or name[0] in "./~" or any(part in name for part in ("/", "\\", ".gguf"))

    def _describe(self) -> None:
        """What enter would load, what it takes, and what is to be done first."""
        name = self.query_one(Input).value.strip()
        if self._takes_typed():
            self._says(
                Text(
                    _("enter loads {name}; {down} takes a row of the list instead", name=name, down=key("models.down")),
                    style="dim",
                )
            )
        elif entry := self._marked:
            self._says(Text(self._facts(entry), style="dim"))

    def _facts(self, entry: catalog.Entry) -> str:
        parts = [] if self._wide else [_state(entry)]
        if cells(entry.name) > self._name_cells:
            parts.insert(0, entry.name)
        if entry.parameters:
            parts.append(_("{count} parameters", count=_many(entry.parameters)))
        if entry.license != "unknown":
            parts.append(_("licence {license}", license=entry.license))
        if entry.gated and not entry.cached:
            parts.append(_("gated: accept its terms on the hub and set HF_TOKEN first"))
        if entry.weights and self._free is not None:
            parts.append(
                _(
                    "takes {float32:.1f} GB, {bfloat16:.1f} GB in bfloat16; {free:.1f} GB are free",
                    float32=4 * entry.weights / GIGA,
                    bfloat16=2 * entry.weights / GIGA,
                    free=self._free / GIGA,
                )
            )
        return " · ".join([*parts, _(entry.source)])

    @property
    def _name_cells(self) -> int:
        return NAME_CELLS[self._wide]

    @property
    def _marked(self) -> catalog.Entry | None:
        """The model of the row that is marked."""
        row = self.query_one(DataTable).cursor_row
        return self._entries[row] if 0 <= row < len(self._entries) else None

    def action_move(self, how: str) -> None:
        getattr(self.query_one(DataTable), f"action_{how}")()
        self._moved = True
        self._describe()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._moved = False
        if self._all:
            self._narrow()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        self._describe()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.dismiss(self._entries[event.cursor_row].name)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_choose()

    def action_choose(self) -> None:
        """Load the model of the row that is marked, or the one whose name is typed."""
        name = self.query_one(Input).value.strip()
        if not self._takes_typed():
            if (entry := self._marked) is not None:
                self.dismiss(entry.name)
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
        with self.prevent(Input.Changed):
            self.query_one(Input).value = ""
        self._offer_all(entries)
        self.query_one("#picker").border_subtitle = Text(_("{address} serves these", address=address))

    def _complain(self, error: Exception) -> None:
        self._says(Text(str(error), style=f"bold {ink(self.app, 'wrong')}"))

    def _says(self, what: Text) -> None:
        if self.is_mounted:
            self.query_one("#picker-says", Static).update(what)


def _state(entry: catalog.Entry) -> str:
    return _("served") if entry.kind == "server" else _("here") if entry.cached else _("to fetch")


def _searched(entry: catalog.Entry) -> str:
    """What the words that are typed are looked for in."""
    words = (entry.name, entry.title, entry.license, _(catalog.TUNED[entry.tuned]), entry.tuned)
    return " ".join(words).lower()


def _size(size: int) -> str:
    """Bytes in seven columns at most."""
    return "" if not size else f"{size / GIGA:.1f} GB" if size >= GIGA else f"{size / 1e6:.0f} MB"


def _many(parameters: int) -> str:
    """A number of parameters as cards write it: 135M, 1.2B."""
    return f"{parameters / 1e9:.1f}B" if parameters >= 999_500_000 else f"{parameters / 1e6:.0f}M"
