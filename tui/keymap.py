"""The keys in use: those of the table, or what `keys.toml` says instead; how they are written, and what is wrong."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from textual.keys import _character_to_key

from engine.base import paths
from engine.base.language import N_, _
from tui.actions import ACTIONS, BY_IDENTITY, EVERYWHERE, WITHIN, explained, identity, is_split
from tui.actions import section as section_of
from tui.actions.action import UNBOUND, Action, Where
from tui.actions.dialogs import ACTIONS as DIALOGS
from tui.actions.dialogs import TYPING
from tui.actions.typed import TYPED, character_of, is_typed

MAX_FILE_BYTES = 100_000
# Of the keys in a line of the help: beyond this, only the first of each action.
HELP_CELLS = 24
# What a key is called on the screen, where Textual's name is not what people write.
WRITTEN = {
    "escape": "esc",
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
    "minus": "−",
    "delete": "del",
    "circumflex_accent": "^",
}
# Keys that are no character.
MOVES = frozenset(("up", "down", "left", "right", "home", "end", "pageup", "pagedown", "insert", "delete"))
NAMES = MOVES | {"backspace", "enter", "tab", "space", "escape", *(f"f{number}" for number in range(1, 25))}
# Keys that terminals send as another one, or not at all, and what to write instead.
UNSENT: Mapping[str, str] = {
    "ctrl+i": N_("a terminal sends tab for it; write tab, or take another key"),
    "ctrl+m": N_("a terminal sends enter for it; write enter, or take another key"),
    "ctrl+h": N_("a terminal sends backspace for it; write backspace, or take another key"),
    "ctrl+left_square_bracket": N_("a terminal sends esc for it; write escape, or take another key"),
    "ctrl+space": N_("a terminal sends ctrl+@ for it; write ctrl+@"),
    "ctrl+c": N_("it copies, and ends programs; take another key"),
}
# Keys that hosts take before the lab sees them.
TAKEN: Mapping[str, str] = {
    "f1": N_("GNOME Terminal and others open their own help with it; give a second key"),
    "f10": N_("GNOME Terminal and others open their menu with it; give a second key"),
    "f11": N_("GNOME Terminal and others change to the full screen with it; give a second key"),
    "ctrl+s": N_("some lines stop at it (flow control); give a second key"),
    "ctrl+q": N_("some lines take it (flow control); give a second key"),
    "ctrl+b": N_("tmux takes it; give a second key"),
    "ctrl+a": N_("screen takes it, and fields go to their beginning; give a second key"),
}
# What moving by words is sent as, and what a Mac's option key writes with digits.
OPTION = {
    "alt+b": "ctrl+left",
    "alt+f": "ctrl+right",
    **{f"alt+{one}": two for one, two in zip("1234567890", "¡™£¢∞§¶•ªº")},
}
# What lists do with them is theirs.
IN_LISTS = TYPED - {"backspace", "delete"} | {"pageup", "pagedown"}
# With these one can always leave.
LEAVING = ("lab.quit", "dialogs.leave")
CTRL_KEYS = frozenset("abcdefghijklmnopqrstuvwxyz@") | MOVES
CTRL_KEYS |= {"backslash", "right_square_bracket", "circumflex_accent", "underscore"}
CTRL_KEYS |= {f"f{number}" for number in range(1, 13)}
SHIFT_KEYS = MOVES | {"tab", "escape"}


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that is wrong with a file of keys.

    Attributes:
        at: the pane and the action, as `lab.run`; empty for the file as a whole.
        key: as it was written; empty where no single key is meant.
        says: what is wrong, and what to do.
        used: whether the key counts all the same.
    """

    at: str
    key: str
    says: str
    used: bool = False

    def __str__(self) -> str:
        return ": ".join(part for part in (f"{self.at} {self.key}".strip(), self.says) if part)


@dataclass(frozen=True, slots=True)
class Keymap:
    """The keys that a file gives to actions, by identity and Textual's names; all others have those of the table."""

    changed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def keys(self, where: Where, action: Action) -> tuple[str, ...]:
        return self.changed.get(identity(where, action), action.bound)

    def for_textual(self) -> dict[str, str]:
        """As `App.set_keymap` wants it."""
        found = {}
        for name, keys in self.changed.items():
            if not is_split(BY_IDENTITY[name][0]):
                found[name] = ",".join(keys) or UNBOUND
                continue
            typed = [key for key in keys if is_typed(key)]
            found[name] = ",".join(typed) or UNBOUND
            found[f"{name}{EVERYWHERE}"] = ",".join(key for key in keys if key not in typed) or UNBOUND
        return found


# The keys in use.

_in_use = Keymap()


def use(keymap: Keymap) -> None:
    """These keys count from now on."""
    global _in_use
    _in_use = keymap


def keys_of(where: Where, action: Action) -> tuple[str, ...]:
    """An action's keys by Textual's names."""
    return _in_use.keys(where, action)


def written(key: str, *, short: bool = False) -> str:
    """A key as people write it: `F5`, `ctrl+r` (short: `^r`), `?`, `←`."""
    *modifiers, name = key.split("+")
    if modifiers == ["alt", "shift"] and len(name) == 1:
        return f"alt+{name.upper()}"
    if name in WRITTEN:
        name = WRITTEN[name]
    elif re.fullmatch(r"f\d+", name):
        name = name.upper()
    elif name != "space" and (character := character_of(name)) is not None:
        name = character
    if short and modifiers == ["ctrl"]:
        return f"^{name}"
    return "+".join((*modifiers, name))


def keys_written(where: Where, action: Action) -> str:
    """All keys of an action, and those of its pair: `R  F5  ctrl+r`, `← →`."""
    keys = keys_of(where, action)
    if action.pair:
        (other,) = (one for one in ACTIONS[where] if one.title == action.pair)
        both = zip(keys_of(where, other), keys, strict=False)
        return "  ".join(f"{written(one)} {written(two)}" for one, two in both)
    return "  ".join(map(written, keys))


def names() -> frozenset[str]:
    """What texts may call actions whose keys they name: `lanes.branch`, and the lab's own `run` too."""
    return frozenset(BY_IDENTITY) | {action.title for action in ACTIONS["lab"]}


# The file.


def read(path: Path | None = None) -> tuple[Keymap, list[Complaint]]:
    """The keys of a file, by default the user's own, and what is wrong with it; what is right counts.

    A file that is not there changes no key.
    """
    path = paths.keys_file() if path is None else path
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            return Keymap(), [Complaint("", "", _("{path} is too long for a file of keys", path=path))]
        sections = tomllib.loads(data.decode("utf-8-sig"))
    except FileNotFoundError:
        return Keymap(), []
    except OSError as error:
        return Keymap(), [Complaint("", "", _("{path}: {reason}", path=path, reason=error.strerror))]
    except (ValueError, RecursionError) as error:
        says = _('{path} is no TOML: {error}; write [lab] and lines as run = "f5,R"', path=path, error=error)
        return Keymap(), [Complaint("", "", says)]
    return understood(sections)


def understood(sections: Mapping[str, object]) -> tuple[Keymap, list[Complaint]]:
    """What sections of a file say: keys by pane and action, and what is wrong with them."""
    complaints: list[Complaint] = []
    changed: dict[str, tuple[str, ...]] = {}
    for name, actions in sections.items():
        known = {section_of(where): where for where in ACTIONS}
        if name not in known:
            says = _("there is no such pane; there are {names}", names=", ".join(known))
            complaints.append(Complaint(f"[{name}]", "", says))
        elif not isinstance(actions, Mapping):
            complaints.append(Complaint(name, "", _("a pane is a section; write [{name}] above its lines", name=name)))
        else:
            titles = {action.title: action for action in ACTIONS[known[name]]}
            for title, value in actions.items():
                at = f"{name}.{title}"
                if title not in titles:
                    says = _("there is no such action; there are {names}", names=", ".join(titles))
                    complaints.append(Complaint(at, "", says))
                elif (keys := _keys(known[name], at, value, titles[title], complaints)) is not None:
                    changed[at] = keys
    _part(changed, complaints)
    return Keymap(changed), complaints


def _keys(where: Where, at: str, value: object, action: Action, complaints: list[Complaint]) -> tuple[str, ...] | None:
    """The keys of one line that can be used; `None` where the table's stay."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        complaints.append(Complaint(at, "", _('keys are a text as "f5,ctrl+r", or a list of texts')))
        return None
    keys: list[str] = []
    for one in filter(None, (one.strip() for one in given)):
        key = normal(one)
        says, used = _("there is no such key; see docs/keys.md for names"), False
        if key is not None:
            says, used = _taken_in_dialogs(where, key) or judge(key)
        if key in action.bound:
            says = ""
        if says:
            complaints.append(Complaint(at, one, says, used))
        if key is not None and (used or not says) and key not in keys:
            keys.append(key)
    if at == "lab.stop" and "escape" not in keys:
        keys.append("escape")
        complaints.append(Complaint(at, "escape", _("it always stops, for many texts say so; it stays"), used=True))
    if not keys and (at in LEAVING or any(one.strip() for one in given)):
        if at in LEAVING and not any(one.strip() for one in given):
            complaints.append(Complaint(at, "", _("there must be a key to leave with; give one")))
        return None
    return tuple(keys)


def _taken_in_dialogs(where: Where, key: str) -> tuple[str, bool] | None:
    """What is to be said of a key that the fields and lists of a dialog take first, and that it is not used."""
    if where in TYPING and is_typed(key):
        return _("the dialog's text field takes it; take an F-key, or one with ctrl or alt"), False
    if where in DIALOGS and key in IN_LISTS:
        return _("the dialog's list takes it; take another key"), False
    return None


def normal(key: str) -> str | None:
    """Textual's name of a key that people write, as `?`, `ctrl+[` or `F5`; `None` where there is none."""
    *modifiers, name = (*key[:-2].split("+"), "+") if key.endswith("++") else (key,) if key == "+" else key.split("+")
    modifiers = sorted(one.lower() for one in modifiers)
    if not set(modifiers) <= {"alt", "ctrl", "shift", "super", "hyper", "meta"} or not name:
        return None
    if len(name) == 1 and name.isupper() and modifiers == ["alt"]:
        modifiers, name = ["alt", "shift"], name.lower()
    elif len(name) == 1:
        name = name if name == "@" and modifiers == ["ctrl"] else _character_to_key(name)
    else:
        name = {"esc": "escape", "del": "delete", "return": "enter"}.get(name.lower(), name.lower())
        if name not in NAMES and character_of(name) is None:
            return None
    return "+".join((*modifiers, name))


def judge(key: str) -> tuple[str, bool]:
    """What is to be said of a key, and whether it can be used; nothing of most."""
    *modifiers, name = key.split("+")
    with_, letter = set(modifiers), len(name) == 1 and name.isalpha()
    if key in UNSENT:
        return _(UNSENT[key]), False
    if with_ & {"super", "hyper", "meta"}:
        return _("the desktop takes it, and few terminals send it; take ctrl or alt"), False
    if "shift" in with_ and re.fullmatch(r"f\d+", name):
        number = int(name[1:])
        says = _("many terminals send F{number} for it; take another key", number=number + 12)
        return (says if number <= 12 else _("no terminal sends it; take another key")), False
    if with_ == {"shift"} and letter:
        return _("write the capital instead: {key}", key=name.upper()), False
    if with_ == {"shift"} and name not in SHIFT_KEYS:
        return _("a terminal does not send shift with it; take another key"), False
    if "ctrl" in with_ and letter and (name.isupper() or "shift" in with_):
        return _("a terminal sends ctrl+{letter} for it; write that", letter=name.lower()), False
    if "ctrl" in with_ and name not in CTRL_KEYS:
        return _("most terminals do not send ctrl with it; take another key"), False
    if key in OPTION:
        return _("many terminals send {other} for it; give a second key", other=OPTION[key]), True
    if key in TAKEN:
        return _(TAKEN[key]), True
    return "", True


def _part(changed: dict[str, tuple[str, ...]], complaints: list[Complaint]) -> None:
    """Take keys away that another action has: one of the same pane, of one around it, or of the lab.

    Of two in the file the first keeps it; a key of the file wins over one of the table in the same pane.
    """
    keymap = Keymap(changed)
    for pane in ACTIONS:
        taken: dict[str, str] = {}
        panes: tuple[Where, ...] = ("dialogs", pane) if pane in DIALOGS and pane != "dialogs" else (pane,)
        actions = [(where, action) for where in panes for action in ACTIONS[where]]
        # What all dialogs share stays: one can always leave.
        for where, action in sorted(actions, key=lambda one: (one[0] == pane, identity(*one) not in changed)):
            name = identity(where, action)
            for key in keymap.keys(where, action):
                if key not in taken:
                    taken[key] = name
                    continue
                other = taken[key]
                if name in changed:
                    says = _("{other} has this key too; give one of them another", other=other)
                    complaints.append(Complaint(name, written(key), says))
                else:
                    says = _("{name} had this key; give it another", name=name)
                    complaints.append(Complaint(other, written(key), says, used=True))
                changed[name] = tuple(one for one in keymap.keys(where, action) if one != key)
                keymap = Keymap(changed)
    complaints.extend(_hidden(keymap))


def _hidden(keymap: Keymap) -> Iterator[Complaint]:
    """Keys of the file that do something else in a pane, or take a key from one."""
    nested: list[tuple[Where, Where]] = [(inner, outer) for inner in ACTIONS for outer in WITHIN.get(inner, ())]
    nested += [(inner, "lab") for inner in ACTIONS if inner != "lab"]
    in_dialogs = [action for action in ACTIONS["lab"] if action.in_dialogs]
    for inner, outer in nested:
        own = {key: one for one in ACTIONS[inner] for key in keymap.keys(inner, one)}
        for action in in_dialogs if outer == "lab" and inner in DIALOGS else ACTIONS[outer]:
            name = identity(outer, action)
            for key in keymap.keys(outer, action):
                if inner in DIALOGS and outer == "lab" and is_typed(key):
                    continue  # there the lab's letters are not used
                if key in own and key not in ("enter", "escape"):
                    there = identity(inner, own[key])
                    if name not in keymap.changed and there not in keymap.changed:
                        continue
                    if outer == "lab" and not is_typed(key):
                        says = _("in every pane {name} has this key; give one of them another", name=name)
                        yield Complaint(there, written(key), says, used=True)
                    else:
                        says = _("where {there} is, that has this key; give one of them another", there=there)
                        yield Complaint(name, written(key), says, used=True)


# For the command line.


def table(path: Path | None) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """All actions with their keys under a file, by default the user's own, and what is wrong with it, as plain data."""
    keymap, complaints = read(path)
    rows: list[dict[str, object]] = []
    for where, actions in ACTIONS.items():
        for action in actions:
            keys = keymap.keys(where, action)
            rows.append(
                {
                    "pane": section_of(where),
                    "action": action.title,
                    "keys": [written(key) for key in keys],
                    "names": list(keys),
                    "does": _(explained(where, action)),
                    "changed": identity(where, action) in keymap.changed,
                }
            )
    return rows, [{"at": one.at, "key": one.key, "says": one.says, "used": one.used} for one in complaints]
