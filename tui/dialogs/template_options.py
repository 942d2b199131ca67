"""What a model's chat template reads beside the messages, a field each."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from textual.app import ComposeResult
from textual.containers import Grid, Vertical, VerticalScroll
from textual.widgets import Input, Label

from engine.base.errors import InputError
from engine.base.files import read_text
from engine.base.language import _
from engine.text.template import TODAY, Variable
from tui.screens import Dialog
from tui.widgets.footer import Footer
from tui.widgets.hint import Hint, say

MAX_FILE_BYTES = 16_000_000
FLAGS = {"yes": True, "true": True, "no": False, "false": False}


class TemplateOptions(Dialog[Mapping[str, Any] | None]):
    """Gives back the values of those that are not the template's own.

    Args:
        variables: what it reads.
        options: the values so far; those that this template does not read stay.
    """

    def __init__(self, variables: Sequence[Variable], options: Mapping[str, Any]) -> None:
        super().__init__()
        self._variables = variables
        self._options = options

    def compose(self) -> ComposeResult:
        with Vertical(id="template-options", classes="dialog"):
            with VerticalScroll(can_focus=False), Grid(id="template-fields"):
                for place, variable in enumerate(self._variables):
                    yield Label(variable.name)
                    value = written(variable, self._options[variable.name]) if variable.name in self._options else ""
                    yield Input(value, placeholder=_own(variable), id=f"option-{place}", compact=True)
            yield Hint(id="template-says")
            yield Footer()

    def on_mount(self) -> None:
        dialog = self.query_one("#template-options")
        dialog.border_title = _("Options of the chat template")
        dialog.border_subtitle = _("enter uses them") if self._variables else ""
        self._look()

    def on_descendant_focus(self) -> None:
        self._look()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._look()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            self.dismiss(self.options())
        except InputError as error:
            say(self, str(error), wrong=True)

    def options(self) -> dict[str, Any]:
        """What the fields say. Raises `InputError` naming the field that is wrong."""
        names = {variable.name for variable in self._variables}
        found = {name: value for name, value in self._options.items() if name not in names}
        for place, variable in enumerate(self._variables):
            typed = self.query_one(f"#option-{place}", Input).value
            if typed.strip():
                found[variable.name] = parsed(variable, typed)
        return found

    def _look(self) -> None:
        """Say what the field takes that has the focus, or what is wrong."""
        if not self._variables:
            say(self, _("This model's chat template reads nothing beside the messages."))
            return
        focused = self.focused
        place = int(focused.id.removeprefix("option-")) if isinstance(focused, Input) and focused.id else 0
        variable = self._variables[place]
        typed = self.query_one(f"#option-{place}", Input).value
        try:
            if typed.strip():
                parsed(variable, typed, read=False)
        except InputError as error:
            say(self, str(error), wrong=True)
        else:
            say(self, f"{variable.name}: {_takes(variable)}")


def parsed(variable: Variable, typed: str, *, read: bool = True) -> Any:
    """The value that was typed for a variable. Raises `InputError`.

    Args:
        read: a file that is named is read; else it counts as right.
    """
    name, text = variable.name, typed.strip()
    match variable.kind:
        case "flag":
            if text.lower() in FLAGS:
                return FLAGS[text.lower()]
            raise InputError(_("{name} is {value!r}; allowed: yes, no", name=name, value=text[:40]))
        case "number":
            try:
                return int(text) if text.lstrip("+-").isdigit() else float(text)
            except ValueError as error:
                raise InputError(_("{name} is {value!r}; allowed: a number", name=name, value=text[:40])) from error
        case "json":
            if text[0] not in '[{"':
                if not read:
                    return None
                text = read_text(Path(text).expanduser(), MAX_FILE_BYTES)
            try:
                return json.loads(text)
            except (ValueError, RecursionError) as error:
                raise InputError(_("{name} is no JSON: {error}", name=name, error=str(error)[:80])) from error
    return typed


def written(variable: Variable, value: Any) -> str:
    """A value as it is typed."""
    if variable.kind == "flag" and isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _own(variable: Variable) -> str:
    """What an empty field stands for."""
    if variable.default is None:
        return _("as the template has it")
    return _("as the template has it: {default}", default=written(variable, variable.default))


def _takes(variable: Variable) -> str:
    if variable.name == TODAY:
        return _("a date such as 2026-01-31; empty: today")
    match variable.kind:
        case "flag":
            return _("yes or no; empty: as the template has it")
        case "number":
            return _("a number; empty: as the template has it")
        case "json":
            return _("JSON, or the path of a file of it; empty: none")
    if variable.values:
        listed = ", ".join(variable.values)
        return _("a text; the template compares it with: {values}", values=listed)
    return _("a text; empty: as the template has it")
