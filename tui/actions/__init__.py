"""What every key of the lab and its panes does: one table, read by bindings, footer, palette and help.

A file a view holds the lines of its panes, one those of all dialogs.
"""

import re
from collections.abc import Iterator, Mapping

from textual.binding import Binding, BindingType

from engine.base.language import N_
from tui.actions import dialogs, generate, inside, inspector, lab, lesson, messages, prompts, timing
from tui.actions.action import UNBOUND, Action, Where
from tui.actions.typed import is_typed

# Whose key does what: of the whole lab, of the pane or widget that has the focus, or of a dialog; in the order of the
# footer.
ACTIONS: dict[Where, tuple[Action, ...]] = {
    **lab.ACTIONS,
    **messages.ACTIONS,
    **generate.ACTIONS,
    **inspector.ACTIONS,
    **inside.ACTIONS,
    **prompts.ACTIONS,
    **timing.ACTIONS,
    **lesson.ACTIONS,
    **dialogs.ACTIONS,
}

# The help's sections, and whose keys each explains.
SECTIONS: dict[str, tuple[Where, ...]] = {
    N_("Everywhere"): ("lab",),
    N_("In the messages"): ("messages",),
    N_("In a lane"): ("token flow", "lanes"),
    N_("In the inspector"): ("candidates", "inspector"),
    N_("In Prompts"): ("prompts", "variants"),
    N_("In Timing"): ("timing",),
    N_("In Inside"): ("inside", "grid", "lens", "attention", "attribution", "patching"),
}

# A pane's name in the key sheet.
PANES: dict[Where, str] = {
    "lab": N_("The lab"),
    "prompt": N_("Prompt"),
    "messages": N_("Messages"),
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
    "patching": N_("Where it is held"),
    "prompts": N_("Prompts"),
    "variants": N_("Variants"),
    "timing": N_("Timing"),
    "lesson": N_("Lesson"),
    "dialogs": N_("Every dialog"),
    "lane editor": N_("The settings of a lane"),
    "export": N_("Export"),
    "sessions": N_("Sessions"),
    "models": N_("Models"),
    "branches": N_("Branches"),
    "variant result": N_("What a variant wrote"),
    "text editor": N_("A text"),
    "help": N_("Help"),
    "greeting": N_("Greeting"),
}

# What a pane is in: the keys of all of these work there, its own first.
WITHIN: dict[Where, tuple[Where, ...]] = {
    "token flow": ("tokens", "lanes", "variant result"),
    "candidates": ("inspector", "lanes"),
    "inspector": ("lanes",),
    "grid": ("lens", "attention", "patching", "inside"),
    "bars": ("attribution", "inside"),
    "lens": ("inside",),
    "attention": ("inside",),
    "attribution": ("inside",),
    "patching": ("inside",),
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


def explained(where: Where, action: Action) -> str:
    """What an action does, or what the two of a pair do; not yet in the language in use."""
    return action.explained or next(one.explained for one in ACTIONS[where] if one.pair == action.title)


# Every action by its identity.
BY_IDENTITY = {identity(where, action): (where, action) for where, actions in ACTIONS.items() for action in actions}
# Marks the identity of those of the lab's and dialogs' keys that text fields do not take.
EVERYWHERE = "!"


def bindings(where: Where) -> list[BindingType]:
    """The keys of a pane or a dialog as Textual wants them.

    The lab's and dialogs' have priority where nothing can be typed with them, so that none is taken by what has the
    focus, and what is typed right after a tab goes where the tab went. Their letters have none: a pane's own come
    first, and text fields take them.
    """
    found: list[BindingType] = []
    for action in ACTIONS[where]:
        if is_split(where):
            found += _split(where, action, action.name)
        else:
            show = bool(action.footer)
            found.append(Binding(action.keys, action.name, action.footer, show=show, id=identity(where, action)))
    return found


def lent(titles: Mapping[str, str]) -> list[BindingType]:
    """The lab's keys that text fields do not take, for what a dialog does with them: its methods, by actions."""
    actions = {action.title: action for action in ACTIONS["lab"]}
    found = [binding for title, does in titles.items() for binding in _split("lab", actions[title], does)]
    return [binding for binding in found if binding.priority]


def is_split(where: Where) -> bool:
    """Whether text fields take some keys of an action and others not, so that each kind has a binding."""
    return where == "lab" or where in dialogs.ACTIONS


def _split(where: Where, action: Action, does: str) -> Iterator[Binding]:
    show, known_as = bool(action.footer), identity(where, action)
    typed = [key for key in action.bound if is_typed(key) and where not in dialogs.LISTS]
    others = [key for key in action.bound if key not in typed]
    if typed or where not in dialogs.TYPING:
        yield Binding(",".join(typed) or UNBOUND, does, action.footer, show=show, id=known_as)
    others_known_as = f"{known_as}{EVERYWHERE}"
    yield Binding(",".join(others) or UNBOUND, does, action.footer, show=show, priority=True, id=others_known_as)


def named(text: str) -> Iterator[str]:
    """The actions that a text names in braces."""
    yield from re.findall(r"\{(\w+)\}", text)
