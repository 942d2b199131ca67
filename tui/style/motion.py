"""Whether things on the screen move: cursors that blink, what slides, stages that light up in turn."""

from typing import Any

from textual import constants
from textual.app import App
from textual.widget import Widget
from textual.widgets import Input, TextArea

from engine.base import settings
from engine.base.language import _


def is_reduced(app: App[Any]) -> bool:
    """Whether nothing is to move that was not asked to."""
    return app.animation_level == "none"


def reduce(app: App[Any], reduced: bool) -> None:
    """Let things move, or not; what `TEXTUAL_ANIMATIONS` leaves out never moves."""
    app.animation_level = "none" if reduced else constants.TEXTUAL_ANIMATIONS
    if app.is_running:
        settle(app, app.focused)


def turn(app: App[Any]) -> str:
    """Let nothing move, or everything again; remembered. Returns what to say of it."""
    reduced = not settings.load().reduced_motion
    settings.change(reduced_motion=reduced)
    reduce(app, reduced)
    if not is_reduced(app):
        return _("Cursors blink and views slide again.")
    return _("Nothing blinks or slides.") + ("" if reduced else _(" TEXTUAL_ANIMATIONS says so."))


def settle(app: App[Any], focused: Widget | None) -> None:
    """Let the cursor of the field that has the focus blink, or not."""
    if isinstance(focused, (Input, TextArea)):
        focused.cursor_blink = not is_reduced(app)
        if is_reduced(app):
            focused._pause_blink(visible=True)  # a field hides its cursor when it stops blinking
