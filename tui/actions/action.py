"""What an action is: its keys, its names, and its line of the help."""

from dataclasses import dataclass
from typing import Literal

Where = Literal[
    "lab",
    "prompt",
    "messages",
    "tokens",
    "lanes",
    "token flow",
    "inspector",
    "candidates",
    "inside",
    "grid",
    "bars",
    "lens",
    "attention",
    "attribution",
    "patching",
    "prompts",
    "variants",
    "timing",
    "lesson",
    "dialogs",
    "lane editor",
    "export",
    "sessions",
    "models",
    "branches",
    "variant result",
    "text editor",
    "help",
    "greeting",
]


# The key of an action that has none: no terminal sends it.
UNBOUND = "no_key"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the help.

    Attributes:
        place: among the lines of its section, from 0; the table itself is in the order of the key sheet.
        keys: of the actions that the line explains, by their names in braces: `{undo} · {redo}`.
    """

    place: int
    keys: str
    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """Something that a key does.

    Attributes:
        name: of the method `action_…` that does it, with arguments as Textual writes them.
        keys: by Textual's names, separated by commas; the first is the one that the footer shows.
        footer: its word in the footer; without one it is not shown there.
        also: further keys, of the lab only.
        palette: its name in the palette; without one it is not found there.
        help: the line that explains it; actions that share a line have it at one of them.
        in_dialogs: whether the lab's key counts while a dialog is open too.
        letter: the lab's keys where nothing is typed, separated by commas.
        called: its name in `keys.toml`, where the method's would not do.
        does: what it does, in the key sheet and the table of keys; by default its name in the palette.
        pair: the action, by its name, whose key is shown before its own: `← →`.
        rank: among those that can do something, in the footer: the lowest come first.
        always: whether it stands at the footer's right, whatever has the focus.
    """

    name: str
    keys: str
    footer: str = ""
    also: str = ""
    palette: str = ""
    help: Line | None = None
    in_dialogs: bool = False
    letter: str = ""
    called: str = ""
    does: str = ""
    pair: str = ""
    rank: int = 4
    always: bool = False

    @property
    def title(self) -> str:
        """Its name in `keys.toml`."""
        return self.called or self.name.split("(")[0].rpartition(".")[2]

    @property
    def explained(self) -> str:
        """What it does, not yet in the language in use."""
        return self.does or self.palette or self.footer

    @property
    def bound(self) -> tuple[str, ...]:
        """All its keys, by Textual's names, the first ways first."""
        found = (*self.letter.split(","), *self.keys.split(","), *self.also.split(","))
        return tuple(key for key in found if key and key != UNBOUND)
