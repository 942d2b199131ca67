"""Take what is on the screen home: as Markdown, JSON, CSV or SVG, into a file or the clipboard."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Label, OptionList, Static

from engine.base.errors import LogitlabError
from engine.base.files import write_text
from engine.base.language import _
from engine.export.sheet import Sheet
from tui.actions import bindings
from tui.screens import Dialog
from tui.sentences import sentence
from tui.widgets.footer import Footer
from tui.widgets.hint import Hint, say

# What terminals take of OSC 52 differs; beyond this some take nothing.
CLIPBOARD_BYTES = 75_000
CLIPBOARD_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Exportable:
    """Something to take home.

    Attributes:
        file: the beginning of its file's name.
        forms: its text by file ending, made when it is asked for.
    """

    name: str
    file: str
    forms: Mapping[str, Callable[[], str]]


def of_sheet(sheet: Sheet, file: str, picture: Callable[[], str] | None = None) -> Exportable:
    """A table of results, and a picture of them where there is one."""
    forms = {"md": sheet.to_markdown, "json": sheet.to_json, "csv": sheet.to_csv}
    return Exportable(sheet.title, file, forms if picture is None else {**forms, "svg": picture})


class ExportDialog(Dialog[str | None]):
    """Gives back a line that says what was done."""

    BINDINGS = bindings("export")

    def __init__(self, items: Sequence[Exportable]) -> None:
        super().__init__()
        self._items = items
        self._item = 0
        self._form = next(iter(items[0].forms))
        self._typed = False

    def compose(self) -> ComposeResult:
        with Vertical(id="export", classes="dialog"):
            yield OptionList(*(Text(item.name, no_wrap=True, overflow="ellipsis") for item in self._items))
            yield Static(id="export-forms")
            with Horizontal(classes="export-path"):
                yield Label(_("file"))
                yield Input(id="export-file", compact=True)
            yield Hint(id="export-says")
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#export").border_title = _("Export")
        options = self.query_one(OptionList)
        options.highlighted = 0
        options.focus()
        say(
            self,
            sentence(
                _(
                    "enter or {export.write} writes the file · {export.copy} copies to the clipboard, over SSH "
                    "too · {export.form} another form"
                )
            ),
        )
        self._show()

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        self._item = event.option_index
        forms = list(self._items[self._item].forms)
        if self._form not in forms:
            self._form = forms[0]
        self._show()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.action_write()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_write()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._typed = event.value != self._proposed()

    def action_form(self) -> None:
        """The next form of what is chosen."""
        forms = list(self._items[self._item].forms)
        self._form = forms[(forms.index(self._form) + 1) % len(forms)]
        self._show()

    def action_write(self) -> None:
        path = Path(self.query_one(Input).value.strip() or self._proposed()).expanduser()
        try:
            write_text(path, self._text())
        except LogitlabError as error:
            say(self, str(error), wrong=True)
        else:
            self.dismiss(_("Written to {path}.", path=path))

    def action_copy(self) -> None:
        text = self._text()
        size = len(text.encode())
        if size > CLIPBOARD_LIMIT:
            say(self, _("{size:,} bytes are too many for a clipboard: write a file instead", size=size), wrong=True)
            return
        self.app.copy_to_clipboard(text)
        long = _(" Some terminals take no more than 75,000.") if size > CLIPBOARD_BYTES else ""
        self.dismiss(_("Copied, {size:,} bytes.{long}", size=size, long=long))

    def _text(self) -> str:
        return self._items[self._item].forms[self._form]()

    def _proposed(self) -> str:
        return f"{self._items[self._item].file}.{self._form}"

    def _show(self) -> None:
        line = Text()
        for form in self._items[self._item].forms:
            line.append(f" {form} ", style="bold reverse" if form == self._form else "dim")
        self.query_one("#export-forms", Static).update(line)
        field = self.query_one(Input)
        if self._typed:
            path = Path(field.value)
            field.value = str(path.with_suffix(f".{self._form}")) if path.suffix else field.value
        else:
            field.value = self._proposed()
