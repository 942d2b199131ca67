"""Screens whose keys are named in the language in use, and shown while they can do something."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, Protocol, runtime_checkable

from textual import events
from textual.css.query import NoMatches
from textual.geometry import Size
from textual.screen import ActiveBinding, ModalScreen, Screen, ScreenResultType
from textual.widget import Widget

from engine.base.language import _
from tui.actions import ACTIONS, bindings
from tui.actions.action import UNBOUND
from tui.keymap import keys_of
from tui.sentences import sentence

# Panes that can be the whole screen, by their ids; the innermost that holds the focus is.
ZOOMED = frozenset(
    {
        "prompt",
        "messages",
        "tokens",
        "lane-a",
        "lane-b",
        "inspector",
        "loop",
        "token-table",
        "prompts",
        "variants",
        "timing-table",
        "timing-chart",
        "inside-a",
        "inside-b",
        "lesson",
    }
)


# The least length and the class of each kind of size.
Breakpoints = Sequence[tuple[int, str]]


@runtime_checkable
class HasPossibleActions(Protocol):
    """Something with keys that says which of its actions can do something now."""

    def possible(self, action: str) -> bool: ...


def take_size(screen: Screen[Any], size: Size, columns: Breakpoints, rows: Breakpoints) -> None:
    """Have the classes of a size before anything is mounted, so that nothing is styled for another size first."""
    for length, breakpoints in ((size.width, columns), (size.height, rows)):
        reached = [name for least, name in sorted(breakpoints) if length >= least]
        screen.add_class(*reached[-1:], update=False)


class LabScreen(Screen[None]):
    """The lab's own screen; one of its panes can be all of it."""

    ESCAPE_TO_MINIMIZE = False  # escape stops what goes on first

    def on_screen_resume(self, event: events.ScreenResume) -> None:
        event.refresh_styles = False  # everything was styled when it was mounted, and is when what it shows changes

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        try:
            return _in_language(super().active_bindings)
        except NoMatches:  # the footer asks while the panes are still being made, and once more when they are there
            return {}

    @property
    def can_zoom(self) -> bool:
        """Whether the focus is in a pane that can be the whole screen."""
        return self._pane is not None

    def zoom(self) -> None:
        """Make the pane that has the focus the whole screen, or go back."""
        if self.maximized is not None:
            self.minimize()
        elif self._pane is not None:
            self.maximized = self._pane
        else:
            self.notify(sentence(_("Nothing here can be the whole screen: {next_pane} goes to a pane.")))

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """The pane that the focus went to is the whole screen then."""
        if self.maximized is not None and not event.widget.is_in_maximized_view:
            self.maximized = self._pane

    @property
    def _pane(self) -> Widget | None:
        """The pane that has the focus, where it can be the whole screen."""
        holders = self.focused.ancestors_with_self if self.focused is not None else ()
        return next((one for one in holders if isinstance(one, Widget) and one.id in ZOOMED), None)


class Dialog(ModalScreen[ScreenResultType], Generic[ScreenResultType]):
    """A screen over the lab's.

    Attributes:
        opened_by: the action of the lab whose keys close it again, by its name.
    """

    BINDINGS = bindings("dialogs")

    opened_by: ClassVar[str] = ""

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        return _in_language(super().active_bindings)

    def on_compose(self) -> None:
        """Its size is known, and its widgets are about to be mounted."""
        app = self.app
        take_size(self, app.size, app.HORIZONTAL_BREAKPOINTS or (), app.VERTICAL_BREAKPOINTS or ())
        app.stylesheet.update_nodes([self])

    def on_screen_resume(self, event: events.ScreenResume) -> None:
        event.refresh_styles = False  # as the lab's screen

    def action_leave(self) -> None:
        """Close it, and give back nothing."""
        self.dismiss(None)

    def on_key(self, event: events.Key) -> None:
        if any(action.title == self.opened_by and event.key in keys_of("lab", action) for action in ACTIONS["lab"]):
            event.stop()
            self.action_leave()


def _in_language(bindings: dict[str, ActiveBinding]) -> dict[str, ActiveBinding]:
    """The same keys, named in the language in use, which is chosen after the classes have written the names down.

    Keys that can do nothing now are not shown; pressed all the same, they say why.
    """
    found = {}
    for key, active in bindings.items():
        if key == UNBOUND:
            continue
        node, binding = active.node, active.binding
        show = binding.show and (not isinstance(node, HasPossibleActions) or node.possible(binding.action))
        found[key] = active._replace(binding=replace(binding, description=_(binding.description), show=show))
    return found
