"""The palette: every action by name, with its key."""

from collections.abc import Iterator, Mapping
from functools import partial

from textual.app import App, SystemCommand
from textual.dom import DOMNode

from engine.base.language import N_, _
from tui import keymap
from tui.actions import ACTIONS
from tui.actions.action import Where

# Actions without a key: what they are called, and what is said of them.
KEYLESS = {
    "change_theme": (N_("Theme"), N_("colours: dark, light, high contrast, safe for colour blindness")),
    "reduce_motion": (N_("Reduced motion"), N_("no blinking, no sliding, or both again; remembered")),
    "linear": (N_("Linear: each event as a line"), N_("plain lines for screen readers, and back")),
}


def commands(app: App[None], panes: Mapping[Where, DOMNode]) -> Iterator[SystemCommand]:
    """What can be done in the app and in some of its panes."""
    for name, (title, says) in KEYLESS.items():
        yield SystemCommand(_(title), _(says), partial(app.run_action, name))
    for where, node in {"lab": app, **panes}.items():
        for action in ACTIONS[where]:
            if action.palette:
                keys = keymap.keys_written(where, action)
                does = partial(app.run_action, action.name, node)
                yield SystemCommand(_(action.palette), _("key {key}", key=keys) if keys else "", does)
