"""A text of several lines, and perhaps its name, edited in a dialog."""

from collections.abc import Callable
from typing import NamedTuple

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Label, TextArea

from engine.base.errors import InputError
from engine.base.language import _
from tui.actions import bindings
from tui.screens import Dialog
from tui.sentences import sentence
from tui.widgets.footer import Footer
from tui.widgets.hint import Hint, say


class Edited(NamedTuple):
    """What was typed; empty where there was no field for it."""

    name: str
    text: str
    system: str = ""


class EditText(Dialog[Edited | None]):
    """Gives back the name, the text and the system message before it.

    Args:
        name, system: `None` where there is none to edit.
        check: raises `InputError` for what cannot be.
    """

    BINDINGS = bindings("text editor")

    def __init__(
        self,
        title: str,
        text: str,
        name: str | None = None,
        *,
        system: str | None = None,
        hint: str = "",
        check: Callable[[Edited], object] = lambda edited: None,
    ) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._name = name
        self._system = system
        self._hint = hint
        self._check = check

    def compose(self) -> ComposeResult:
        with Vertical(id="edit-text", classes="dialog"):
            if self._name is not None:
                with Horizontal(classes="edit-name"):
                    yield Label(_("name"))
                    yield Input(self._name, id="edit-name", compact=True)
            yield TextArea(self._text, id="edit-area", soft_wrap=True, tab_behavior="focus", show_line_numbers=False)
            if self._system is not None:
                yield Label(_("under the system message, in the model's chat template; empty: the text as it is"))
                yield TextArea(self._system, id="edit-system", soft_wrap=True, tab_behavior="focus")
            yield Hint(id="edit-says")
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#edit-text").border_title = self._title
        area = self.query_one("#edit-area", TextArea)
        area.move_cursor(area.document.end)
        area.focus()
        say(self, self._hint or sentence(_("{text_editor.use} uses it")))

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self._look()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._look()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.query_one("#edit-area").focus()

    def action_accept(self) -> None:
        if (edited := self._look()) is not None:
            self.dismiss(edited)

    def _look(self) -> Edited | None:
        """What was typed, if it can be used."""
        name = self.query_one("#edit-name", Input).value.strip() if self._name is not None else ""
        text = self.query_one("#edit-area", TextArea).text
        system = self.query_one("#edit-system", TextArea).text.strip() if self._system is not None else ""
        edited = Edited(name, text, system)
        try:
            self._check(edited)
        except InputError as error:
            say(self, str(error), wrong=True)
            return None
        say(self, self._hint or sentence(_("{text_editor.use} uses it")))
        return edited
