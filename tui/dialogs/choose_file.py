"""The path of a file, typed."""

from collections.abc import Callable
from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from engine.base.errors import LogitlabError
from engine.base.language import _
from tui.screens import Dialog
from tui.sentences import sentence
from tui.widgets.footer import Footer
from tui.widgets.hint import Hint, say


class ChooseFile(Dialog[Path | None]):
    """Gives back the path once `use` took it without an error."""

    def __init__(self, title: str, hint: str, use: Callable[[Path], object], path: str = "") -> None:
        super().__init__()
        self._title = title
        self._hint = hint
        self._use = use
        self._path = path

    def compose(self) -> ComposeResult:
        with Vertical(id="choose-file", classes="dialog"):
            yield Input(self._path, placeholder=_("path of a file"), id="file-path", compact=True)
            yield Hint(id="file-says")
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#choose-file").border_title = self._title
        say(self, self._hint)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        typed = event.value.strip()
        if not typed:
            say(self, sentence(_("type a path, or {dialogs.leave} to leave")), wrong=True)
            return
        path = Path(typed).expanduser()
        try:
            self._use(path)
        except LogitlabError as error:
            say(self, str(error), wrong=True)
        else:
            self.dismiss(path)
