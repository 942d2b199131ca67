"""Whether things on the screen move: cursors that blink, what slides, stages that light up in turn."""

from typing import Any

from textual import constants
from textual.app import App
from textual.widget import Widget
from textual.widgets import Input, TextArea


def is_reduced(app: App[Any]) -> bool:
    """Whether nothing is to move that was not asked to."""
    return app.animation_level == "none"


def reduce(app: App[Any], reduced: bool) -> None:
    """Let things move, or not; what `TEXTUAL_ANIMATIONS` leaves out never moves."""
    app.animation_level = "none" if reduced else constants.TEXTUAL_ANIMATIONS
    if app.is_running:
        settle(app, app.focused)


def settle(app: App[Any], focused: Widget | None) -> None:
    """Let the cursor of the field that has the focus blink, or not."""
    if isinstance(focused, (Input, TextArea)):
        focused.cursor_blink = not is_reduced(app)
        if is_reduced(app):
            focused._pause_blink(visible=True)  # a field hides its cursor when it stops blinking
