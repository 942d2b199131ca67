"""What every key of the lab and its panes does: one table, read by bindings, footer, palette and help.

A file a view holds the lines of its panes.
Dialogs have few keys and keep them in their own files.
"""

import re
from collections.abc import Iterator

from textual.binding import Binding, BindingType

from engine.base.language import N_
from tui.actions import generate, inside, inspector, lab, lesson, prompts, timing
from tui.actions.action import UNBOUND, Action, Where

# Whose key does what: of the whole lab, or of the pane or widget that has the focus; in the order of the footer.
ACTIONS: dict[Where, tuple[Action, ...]] = {
    **lab.ACTIONS,
    **generate.ACTIONS,
    **inspector.ACTIONS,
    **inside.ACTIONS,
    **prompts.ACTIONS,
    **timing.ACTIONS,
    **lesson.ACTIONS,
}

# The help's sections, and whose keys each explains.
SECTIONS: dict[str, tuple[Where, ...]] = {
    N_("Everywhere"): ("lab",),
    N_("In a lane"): ("token flow", "lanes"),
    N_("In the inspector"): ("candidates", "inspector"),
    N_("In Prompts"): ("prompts", "variants"),
    N_("In Timing"): ("timing",),
    N_("In Inside"): ("inside", "grid", "lens", "attention", "attribution"),
}

# A pane's name in the key sheet.
PANES: dict[Where, str] = {
    "lab": N_("The lab"),
    "prompt": N_("Prompt"),
    "tokens": N_("Tokens"),
    "lanes": N_("Lanes"),
    "token flow": N_("Along the tokens"),
    "inspector": N_("Inspector"),
    "candidates": N_("Candidates"),
    "inside": N_("Inside"),
    "grid": N_("Cells"),
    "bars": N_("Bars"),
    "lens": N_("Lens"),
    "attention": N_("Attention"),
    "attribution": N_("Why this one"),
    "prompts": N_("Prompts"),
    "variants": N_("Variants"),
    "timing": N_("Timing"),
    "lesson": N_("Lesson"),
}

# What a pane is in: the keys of all of these work there, its own first.
WITHIN: dict[Where, tuple[Where, ...]] = {
    "token flow": ("tokens", "lanes"),
    "candidates": ("inspector", "lanes"),
    "inspector": ("lanes",),
    "grid": ("lens", "attention", "inside"),
    "bars": ("attribution", "inside"),
    "lens": ("inside",),
    "attention": ("inside",),
    "attribution": ("inside",),
}

# The palette's names, by action.
PALETTE = {action.name: action.palette for actions in ACTIONS.values() for action in actions if action.palette}

# The lab's keys that do nothing while a dialog is open: there the dialog's own count.
NOT_IN_DIALOGS = frozenset(action.name.split("(")[0] for action in ACTIONS["lab"] if not action.in_dialogs)


def section(where: Where) -> str:
    """A pane's name in `keys.toml`."""
    return where.replace(" ", "_")


def identity(where: Where, action: Action) -> str:
    """By which Textual's keymap knows an action, and we the action of a binding."""
    return f"{section(where)}.{action.title}"


# Every action by its identity.
BY_IDENTITY = {identity(where, action): (where, action) for where, actions in ACTIONS.items() for action in actions}
# Marks the identity of those of the lab's keys that text fields do not take either.
EVERYWHERE = "!"


def bindings(where: Where) -> list[BindingType]:
    """The keys of a pane as Textual wants them.

    The lab's own have priority where nothing can be typed with them, so that none is taken by what has the focus, and
    what is typed right after a tab goes where the tab went. Its letters have none: a pane's own come first, and text
    fields take them.
    """
    found: list[BindingType] = []
    for action in ACTIONS[where]:
        known_as = identity(where, action)
        show = bool(action.footer)
        if where != "lab":
            found.append(Binding(action.keys, action.name, action.footer, show=show, id=known_as))
            continue
        everywhere = ",".join(filter(None, (action.keys, action.also)))
        found.append(Binding(action.letter or UNBOUND, action.name, action.footer, show=show, id=known_as))
        found.append(
            Binding(everywhere, action.name, action.footer, show=show, priority=True, id=f"{known_as}{EVERYWHERE}")
        )
    return found


def named(text: str) -> Iterator[str]:
    """The actions that a text names in braces."""
    yield from re.findall(r"\{(\w+)\}", text)
