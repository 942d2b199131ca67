"""The prompt: what the model is given to continue."""

from dataclasses import dataclass

from textual.binding import Binding
from textual.message import Message
from textual.widgets import TextArea

from engine.base.language import _
from tui.actions import bindings


class PromptPane(TextArea, inherit_bindings=False):
    """An editor that tells of every change."""

    # The editor's own F6 and F7 (select line, select all) belong to the lab.
    BINDINGS = [
        *(binding for binding in TextArea.BINDINGS if isinstance(binding, Binding) and binding.key not in ("f6", "f7")),
        *bindings("prompt"),
    ]

    @dataclass
    class Edited(Message):
        """The prompt is now `text`."""

        text: str

    class Left(Message):
        """The focus is to go to another pane."""

    class Above(Message):
        """The cursor went up from the first line."""

    def __init__(self, text: str) -> None:
        super().__init__(text, id="prompt", soft_wrap=True, tab_behavior="focus", show_line_numbers=False)
        self.border_title = _("Prompt")
        self.move_cursor(self.document.end)

    def show(self, text: str) -> None:
        """Another prompt, with the cursor at its end."""
        if text != self.text:
            self.text = text
            self.move_cursor(self.document.end)

    def action_leave(self) -> None:
        self.post_message(self.Left())

    def action_cursor_up(self, select: bool = False) -> None:
        if not select and self.navigator.is_first_wrapped_line(self.cursor_location):
            self.post_message(self.Above())
        else:
            super().action_cursor_up(select)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self.post_message(self.Edited(self.text))
