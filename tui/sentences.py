"""Texts that name keys: they name actions, in braces, and get the keys that these have now."""

import re
from collections.abc import Iterator

from rich.cells import cell_len

from engine.base.language import _
from tui.actions import ACTIONS, BY_IDENTITY, SECTIONS, explained
from tui.actions import section as section_of
from tui.actions.action import Where
from tui.actions.prompts import HINTS
from tui.actions.typed import is_typed
from tui.keymap import keys_of, written

# Of the keys in a line of the help: beyond this, only the first of each action.
HELP_CELLS = 24
# An action by its pane and name, of the lab by its name alone.
PLACE = re.compile(r"\{(?:(key|letter):)?((?:\w+\.)?\w+)\}")


def key(name: str, *, short: bool = False) -> str:
    """The key of an action, of the lab one that works in text fields too; what it does, where it has none.

    Args:
        name: `lanes.branch`; of the lab's actions `run` is enough.
        short: as `^p`, where room is short.
    """
    where, action = BY_IDENTITY[name if "." in name else f"lab.{name}"]
    keys = keys_of(where, action)
    if where == "lab":
        keys = tuple(sorted(keys, key=is_typed))
    return written(keys[0], short=short) if keys else f"“{_(explained(where, action))}”"


def letter(name: str) -> str:
    """The key of an action where nothing is typed."""
    keys = keys_of(*BY_IDENTITY[name if "." in name else f"lab.{name}"])
    return written(keys[0]) if keys else key(name)


def sentence(text: str, where: Where = "lab") -> str:
    """A text with the keys of the actions that it names: `{run}`, `{lanes.branch}`, and those of `where` by name alone.

    `{letter:lane_a}` is the key where nothing is typed. What names no action stays as it is.
    """

    def said(found: re.Match[str]) -> str:
        kind, name = found.groups()
        known = next((one for one in (f"{section_of(where)}.{name}", f"lab.{name}", name) if one in BY_IDENTITY), "")
        return found[0] if not known else letter(known) if kind == "letter" else key(known)

    return PLACE.sub(said, text)


def keyed(text: str) -> str:
    """A text of a lesson, whose braces need not be keys: only `{key:run}` and `{letter:lane_a}` are."""
    return PLACE.sub(lambda found: sentence(found[0]) if found[1] else found[0], text)


def hint(where: Where) -> str:
    """The keys of a list as a sentence."""
    return sentence(_(HINTS[where]), where)


def help_rows(title: str) -> Iterator[tuple[str, str]]:
    """A section's lines of the help, in their order: keys, and what they do."""
    found = [(line, where) for where in SECTIONS[title] for action in ACTIONS[where] if (line := action.help)]
    for line, where in sorted(found, key=lambda one: one[0].place):
        keys = _listed(line.keys, where, all_keys=True)
        if cell_len(keys) > HELP_CELLS:
            keys = _listed(line.keys, where)
        yield keys, sentence(_(line.text), where)


def _listed(text: str, where: Where, *, all_keys: bool = False) -> str:
    """The keys of a pane's actions in a row."""

    def keys(found: re.Match[str]) -> str:
        given = [written(one) for one in keys_of(*BY_IDENTITY[f"{section_of(where)}.{found[2]}"])]
        return " ".join(given if all_keys else given[:1]) or "–"

    return PLACE.sub(keys, text)
