"""What every key of the lab and its panes does: one table, read by bindings, footer, palette and help.

Dialogs have few keys and keep them in their own files.
"""

from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding, BindingType

from engine.base.language import N_

Where = Literal[
    "lab",
    "screen",
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
    "prompts",
    "variants",
    "timing",
    "lesson",
]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the help.

    Attributes:
        place: among the lines of its section, from 0; the table itself is in the order of the footer.
        keys: as people write them; a line may explain the keys of several actions.
    """

    place: int
    keys: str
    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """Something that a key does.

    Attributes:
        name: of the method `action_…` that does it, with arguments as Textual writes them.
        keys: by Textual's names, separated by commas.
        footer: its word in the footer; without one it is not shown there.
        display: the key as footer and palette write it, where Textual's name would not do.
        also: further keys, which the footer does not show.
        palette: its name in the palette; without one it is not found there.
        help: the line that explains it; actions that share a line have it at one of them.
        in_dialogs: whether the lab's key counts while a dialog is open too.
    """

    name: str
    keys: str
    footer: str = ""
    display: str = ""
    also: str = ""
    palette: str = ""
    help: Line | None = None
    in_dialogs: bool = False


# The charts of the Timing view, by their keys from 1 on.
CHARTS = {
    "length": N_("length"),
    "token": N_("token"),
    "cache": N_("cache"),
    "overlay": N_("overlaid"),
    "transformers": "transformers",
    "lanes": N_("lanes"),
    "latency": N_("latency"),
}

# The pictures of the Inside view, by their keys from 1 on.
PICTURES = {
    "lens": N_("lens"),
    "attention": N_("attention"),
    "attribution": N_("why this one"),
    "occlusion": N_("which words"),
}

# Whose key does what: of the whole lab, or of the pane or widget that has the focus; in the order of the footer.
ACTIONS: dict[Where, tuple[Action, ...]] = {
    "lab": (
        Action(
            "run",
            "f5",
            N_("run"),
            "F5",
            also="ctrl+r",
            palette=N_("Run both lanes"),
            help=Line(0, "F5  ctrl+r", N_("run both lanes; in Prompts the variants, in Timing the sweep")),
        ),
        Action(
            "step",
            "f6",
            N_("step"),
            "F6",
            palette=N_("One step of each lane"),
            help=Line(1, "F6 · F7 · esc", N_("one step of each lane · pause, and go on · stop")),
        ),
        Action("pause", "f7", N_("pause"), "F7", palette=N_("Pause, or go on")),
        Action("stop", "escape", N_("stop"), "esc", palette=N_("Stop")),
        Action(
            "view(1)",
            "f8",
            N_("view"),
            "F8",
            also="ctrl+pagedown",
            palette=N_("Next view"),
            help=Line(5, "F8", N_("next view: Generate, Tokens, Prompts, Timing, Inside")),
        ),
        Action("view(-1)", "ctrl+pageup"),
        Action("help", "f1", N_("help"), "F1", palette=N_("Help")),
        Action(
            "quit",
            "ctrl+q",
            N_("quit"),
            "^q",
            palette=N_("Quit"),
            help=Line(9, "ctrl+p · ctrl+q", N_("every action by name · quit")),
            in_dialogs=True,
        ),
        Action("lesson", "ctrl+l", N_("lesson"), "^l", palette=N_("Lesson: open it, go to it, close it")),
        Action("choose_model", "f2", N_("model"), "F2", palette=N_("Choose the model")),
        Action(
            "edit(0)",
            "f3",
            N_("edit A"),
            "F3",
            palette=N_("Edit lane A"),
            help=Line(3, "F3 · F4 · F2", N_("edit lane A · edit lane B · choose the model")),
        ),
        Action("edit(1)", "f4", N_("edit B"), "F4", palette=N_("Edit lane B")),
        Action(
            "pace",
            "f9",
            N_("pace"),
            "F9",
            palette=N_("Change the pace"),
            help=Line(2, "F9", N_("pace: 20, 5, 2, 1 tokens a second, full speed")),
        ),
        Action(
            "export",
            "ctrl+s",
            N_("export"),
            "^s",
            palette=N_("Export what is on the screen: Markdown, JSON, CSV, SVG"),
            help=Line(6, "ctrl+s", N_("export what is on the screen: Markdown, JSON, CSV, SVG; file or clipboard")),
        ),
        Action(
            "sessions",
            "ctrl+o",
            N_("sessions"),
            "^o",
            palette=N_("Sessions: open another, or begin a new one"),
            help=Line(7, "ctrl+o", N_("sessions: all is saved as you go; open another, begin a new one")),
        ),
        Action(
            "chat",
            "ctrl+t",
            N_("chat"),
            "^t",
            palette=N_("Wrap the prompt in the chat template"),
            help=Line(4, "ctrl+t", N_("give the prompt as a message in the model's chat template")),
        ),
        Action(
            "app.focus_next",
            "tab",
            help=Line(8, "tab  shift+tab", N_("next pane, previous pane")),
            in_dialogs=True,
        ),
        Action("app.focus_previous", "shift+tab", in_dialogs=True),
    ),
    "screen": (
        Action(
            "zoom",
            "z",
            N_("zoom"),
            also="alt+z",
            palette=N_("Make this pane the whole screen, or go back"),
            help=Line(10, "z  alt+z", N_("the pane as the whole screen, and back; alt+z where letters are typed")),
        ),
    ),
    "tokens": (Action("colour", "c", N_("colour")),),
    "lanes": (
        Action(
            "branch",
            "b",
            N_("branch"),
            palette=N_("Branch: go on from the token under the cursor with any text"),
            help=Line(1, "b", N_("go on from that token with any text instead")),
        ),
        Action(
            "branches",
            "t",
            N_("branches"),
            palette=N_("Branches of the lane"),
            help=Line(2, "t", N_("all branches of the lane: show, compare, delete")),
        ),
        Action(
            "sample_many",
            "m",
            N_("sample many"),
            palette=N_("Sample many continuations"),
            help=Line(3, "m", N_("draw many continuations from there")),
        ),
        Action(
            "colour",
            "c",
            N_("colour"),
            palette=N_("Colour tokens by the next measure"),
            help=Line(4, "c", N_("colour tokens by probability, rank, entropy or surprisal")),
        ),
        Action(
            "inspector",
            "i",
            N_("inspector"),
            palette=N_("Show or hide the inspector"),
            help=Line(6, "i", N_("show or hide the inspector")),
        ),
        Action(
            "split(2)",
            "greater_than_sign",
            display=">",
            palette=N_("Inspector: higher"),
            help=Line(8, "< >", N_("the inspector lower, higher; it stays so")),
        ),
        Action("split(-2)", "less_than_sign", display="<", palette=N_("Inspector: lower")),
        Action(
            "undo",
            "u,ctrl+z",
            N_("undo"),
            "u",
            palette=N_("Undo"),
            help=Line(7, "u · r", N_("undo · redo")),
        ),
        Action("redo", "r,ctrl+y", N_("redo"), "r", palette=N_("Redo")),
        Action(
            "lock",
            "l",
            N_("lock cursors"),
            palette=N_("Move both cursors together, or not"),
            help=Line(5, "l", N_("move both lanes' cursors together")),
        ),
    ),
    "token flow": (
        Action(
            "move(-1)",
            "left",
            help=Line(0, "← → ↑ ↓", N_("look at a token: the inspector shows what it was chosen from")),
        ),
        Action("move(1)", "right"),
        Action("move_line(-1)", "up"),
        Action("move_line(1)", "down"),
        Action("jump(0)", "home"),
        Action("jump(-1)", "end"),
    ),
    "inspector": (
        Action(
            "stage(1)",
            "s",
            N_("stage"),
            palette=N_("Next stage in the inspector"),
            help=Line(1, "s", N_("walk the stages: raw, penalty, temperature, truncation, pick")),
        ),
        Action("stage(-1)", "S"),
        Action(
            "knob(-1)",
            "left",
            help=Line(2, "← →  + −", N_("choose a knob, turn it: the bars follow at once, nothing is run")),
        ),
        Action("knob(1)", "right", N_("knob")),
        Action("turn(1)", "plus,equals_sign", N_("+")),
        Action("turn(-1)", "minus,underscore", N_("−")),
        Action("reset", "0", N_("as it ran"), palette=N_("Inspector: back to how the step ran")),
        Action(
            "apply",
            "a",
            N_("use for lane"),
            palette=N_("Use the inspector's settings for the lane"),
            help=Line(3, "a · 0", N_("use the knobs for the lane · back to how it ran")),
        ),
        Action(
            "filter",
            "slash",
            N_("find"),
            palette=N_("Find a token by text or id"),
            help=Line(4, "/", N_("find any token by text or id")),
        ),
        Action(
            "bias(1)",
            "f",
            N_("favour"),
            palette=N_("Favour the candidate"),
            help=Line(5, "f · d · x", N_("favour, disfavour, ban the candidate")),
        ),
        Action("bias(-1)", "d", N_("disfavour"), palette=N_("Disfavour the candidate")),
        Action("ban", "x", N_("ban"), palette=N_("Ban the candidate, or allow it again")),
    ),
    "candidates": (
        Action(
            "move(-1)",
            "up",
            help=Line(0, "↑ ↓  enter", N_("any candidate of the vocabulary; enter goes on with it")),
        ),
        Action("move(1)", "down"),
        Action("page(-1)", "pageup"),
        Action("page(1)", "pagedown"),
        Action("go(0)", "home"),
        Action("go(-1)", "end"),
        Action("choose", "enter", N_("branch with this")),
    ),
    "inside": (
        *(Action(f"picture('{name}')", str(number)) for number, name in enumerate(PICTURES, start=1)),
        Action(
            "next_picture",
            "p",
            N_("picture"),
            help=Line(0, N_("1 to 4 · p"), N_("lens, attention, why this token, which words mattered · the next one")),
        ),
        Action(
            "lock",
            "l",
            N_("both lanes"),
            help=Line(1, "l · o", N_("both lanes side by side, for the same position · the other lane")),
        ),
        Action("other", "o", N_("other lane")),
    ),
    "grid": (
        Action(
            "move(0, -1)",
            "left",
            help=Line(2, "← → ↑ ↓", N_("another position · another layer, head or part")),
        ),
        Action("move(0, 1)", "right"),
        Action("move(1, 0)", "up"),
        Action("move(-1, 0)", "down"),
        Action("page(1)", "pageup"),
        Action("page(-1)", "pagedown"),
        Action("jump(0)", "home"),
        Action("jump(-1)", "end"),
    ),
    "bars": (
        Action("move(-1)", "up"),
        Action("move(1)", "down"),
        Action("page(-1)", "pageup"),
        Action("page(1)", "pagedown"),
        Action("go(0)", "home", also="ctrl+home"),
        Action("go(-1)", "end", also="ctrl+end"),
        Action("choose", "enter"),
    ),
    "lens": (
        Action(
            "measure",
            "c",
            N_("colour"),
            help=Line(3, "c · r", N_("lens: colour by probability, entropy, rank · the chart by rank")),
        ),
        Action("rank", "r", N_("chart by rank")),
        Action(
            "track",
            "t",
            N_("follow a token"),
            help=Line(4, "t", N_("lens: follow any token through the layers; attribution: compare any two")),
        ),
    ),
    "attention": (
        Action(
            "kind",
            "w",
            N_("whose weights"),
            help=Line(5, "w · v · x", N_("attention: head, means, rollout · by what it moves · the first token")),
        ),
        Action("by_value", "v", N_("by value")),
        Action("first", "x", N_("first token")),
        Action("measure", "c", N_("colour")),
    ),
    "attribution": (
        Action(
            "order",
            "s",
            N_("order"),
            help=Line(6, "s · enter", N_("attribution: by size or in the order of layers · a layer's heads")),
        ),
        Action("tokens", "t", N_("two tokens")),
    ),
    "prompts": (
        Action("add", "a", N_("add")),
        Action(
            "edit",
            "enter,e",
            help=Line(0, "enter · a · o", N_("edit a prompt, add one, open a file of one a line; paste adds lines")),
        ),
        Action("remove", "delete,backspace", N_("remove")),
        Action("move(-1)", "K,ctrl+up", help=Line(1, "K J · del", N_("move up or down · remove"))),
        Action("move(1)", "J,ctrl+down"),
        Action("open", "o", N_("open file")),
        Action(
            "use",
            "g",
            N_("to the prompt"),
            help=Line(2, "g · k", N_("make it the lab's prompt · count with other models' tokenizers too")),
        ),
        Action("tokenizers", "k", N_("tokenizers")),
    ),
    "variants": (
        Action(
            "add",
            "v",
            N_("add variant"),
            help=Line(3, "v · e · s", N_("add a variant, edit it · run the variants with another seed")),
        ),
        Action("edit", "e"),
        Action("remove", "delete,backspace"),
        Action("again", "s", N_("another seed")),
    ),
    "timing": (
        *(Action(f"chart('{name}')", str(number)) for number, name in enumerate(CHARTS, start=1)),
        Action(
            "table",
            "0",
            help=Line(
                0,
                N_("1 to 7 · 0"),
                N_("charts: length, token, cache, overlaid, transformers, lanes, latency · the table"),
            ),
        ),
        Action(
            "older(1)",
            "left_square_bracket",
            help=Line(1, "[ ] · del", N_("older and newer measurements · forget the one on screen")),
        ),
        Action("older(-1)", "right_square_bracket"),
        Action("remove", "delete"),
    ),
    "lesson": (
        Action("turn(-1)", "left,p,pageup", N_("back"), "←"),
        Action("turn(1)", "right,n,pagedown,space", N_("next"), "→"),
        Action("do", "d", N_("do it")),
        Action("hint", "h", N_("hint")),
        Action("practise", "e", N_("exercise")),
    ),
}

# The help's sections, and whose keys each explains.
SECTIONS: dict[str, tuple[Where, ...]] = {
    N_("Everywhere"): ("lab", "screen"),
    N_("In a lane"): ("token flow", "lanes"),
    N_("In the inspector"): ("candidates", "inspector"),
    N_("In Prompts"): ("prompts", "variants"),
    N_("In Timing"): ("timing",),
    N_("In Inside"): ("inside", "grid", "lens", "attention", "attribution"),
}

# The same keys as sentences, below the lists that have no footer of theirs.
HINTS = {
    "prompts": N_(
        "enter edits · a adds, paste adds lines, o opens a file · del removes · K J move · g to the prompt · "
        "k tokenizers"
    ),
    "variants": N_(
        "F5 runs them · enter shows all of it · s once more with another seed · v adds a variant, e edits, del removes"
    ),
}

# The palette's names, by action.
PALETTE = {action.name: action.palette for actions in ACTIONS.values() for action in actions if action.palette}

# The lab's keys that do nothing while a dialog is open: there the dialog's own count.
NOT_IN_DIALOGS = frozenset(action.name.split("(")[0] for action in ACTIONS["lab"] if not action.in_dialogs)


def bindings(where: Where) -> list[BindingType]:
    """The keys of a pane as Textual wants them.

    The lab's own have priority, so that none is taken by what has the focus, and what is typed right after a tab goes
    where the tab went.
    """
    found: list[BindingType] = []
    for action in ACTIONS[where]:
        found.append(
            Binding(
                action.keys,
                action.name,
                action.footer,
                show=bool(action.footer),
                key_display=action.display or None,
                priority=where == "lab",
            )
        )
        if action.also:
            found.append(Binding(action.also, action.name, show=False, priority=where == "lab"))
    return found


def lines(section: str) -> list[Line]:
    """A section's lines of the help, in their order."""
    found = [line for where in SECTIONS[section] for action in ACTIONS[where] if (line := action.help) is not None]
    return sorted(found, key=lambda line: line.place)
