"""The prompt: what the model is given to continue."""

from textual.message import Message
from textual.widgets import TextArea


class PromptPane(TextArea):
    """An editor that tells of every change."""

    BORDER_TITLE = "Prompt"

    class Edited(Message):
        """The prompt is now `text`."""

        def __init__(self, text: str) -> None:
            self.text = text
            super().__init__()

    def __init__(self, text: str) -> None:
        super().__init__(text, id="prompt", soft_wrap=True, tab_behavior="focus", show_line_numbers=False)
        self.border_title = self.BORDER_TITLE
        self.move_cursor(self.document.end)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self.post_message(self.Edited(self.text))
