"""What every key of the lab and its panes does: one table, read by bindings, footer, palette and help.

Dialogs have few keys and keep them in their own files.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding, BindingType

from engine.base.language import N_

Where = Literal[
    "lab",
    "prompt",
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
            "stop",
            "escape",
            N_("stop"),
            palette=N_("Stop"),
            rank=0,
        ),
        Action(
            "run",
            "f5",
            N_("run"),
            also="ctrl+r",
            palette=N_("Run both lanes"),
            help=Line(0, "{run}", N_("run both lanes; in Prompts the variants, in Timing the sweep")),
            letter="R",
        ),
        Action(
            "step",
            "f6",
            N_("step"),
            palette=N_("One step of each lane"),
            help=Line(1, "{step} · {pause} · {stop}", N_("one step of each lane · pause, and go on · stop")),
            letter="N",
            rank=7,
        ),
        Action("pause", "f7", N_("pause"), palette=N_("Pause, or go on"), letter="W", rank=1),
        Action(
            "pace",
            "f9",
            N_("pace"),
            palette=N_("Change the pace"),
            help=Line(2, "{pace}", N_("pace: 20, 5, 2, 1 tokens a second, full speed")),
            letter="T",
            rank=9,
        ),
        Action(
            "go('a')",
            "alt+shift+a",
            N_("lane A"),
            also="alt+a",
            palette=N_("Go to lane A"),
            help=Line(
                11,
                "{lane_a} · {lane_b} · {inspector} · {prompt}",
                N_("go to lane A · lane B · the inspector · the prompt; with alt from text fields too"),
            ),
            letter="A",
            called="lane_a",
            rank=8,
        ),
        Action(
            "go('b')",
            "alt+shift+b",
            N_("lane B"),
            also="alt+b",
            palette=N_("Go to lane B"),
            letter="B",
            called="lane_b",
            rank=8,
        ),
        Action(
            "go('inspector')",
            "alt+shift+i",
            N_("inspector"),
            also="alt+i",
            palette=N_("Go to the inspector"),
            letter="I",
            called="inspector",
            rank=8,
        ),
        Action(
            "go('prompt')",
            "alt+shift+p",
            N_("prompt"),
            also="alt+p",
            palette=N_("Go to the prompt"),
            letter="P,enter",
            called="prompt",
            rank=7,
        ),
        Action(
            "view(1)",
            "f8",
            N_("view"),
            also="ctrl+pagedown",
            palette=N_("Next view"),
            help=Line(5, "{next_view}", N_("next view: Generate, Tokens, Prompts, Timing, Inside")),
            letter="V",
            called="next_view",
            rank=5,
        ),
        Action(
            "view(-1)",
            "ctrl+pageup",
            palette=N_("Previous view"),
            help=Line(6, "{previous_view}", N_("the view before")),
            letter="comma",
            called="previous_view",
        ),
        Action(
            "open('timing')",
            UNBOUND,
            palette=N_("Timing: how long generation takes"),
            help=Line(7, "{timing} · {inside}", N_("Timing (durations) · Inside (under the hood)")),
            letter="D",
            called="timing",
        ),
        Action(
            "open('inside')",
            UNBOUND,
            palette=N_("Inside: where a lane's logits come from"),
            letter="U",
            called="inside",
        ),
        Action(
            "edit(0)",
            "f3",
            N_("edit A"),
            palette=N_("Edit lane A"),
            help=Line(3, "{edit_a} · {edit_b} · {model}", N_("edit lane A · edit lane B · choose the model")),
            letter="E",
            called="edit_a",
            rank=7,
        ),
        Action("edit(1)", "f4", N_("edit B"), palette=N_("Edit lane B"), letter="F", called="edit_b", rank=7),
        Action("choose_model", "f2", N_("model"), palette=N_("Choose the model"), letter="M", called="model", rank=7),
        Action(
            "chat",
            "ctrl+t",
            N_("chat"),
            palette=N_("Wrap the prompt in the chat template"),
            help=Line(4, "{chat}", N_("give the prompt as a message in the model's chat template")),
            letter="C",
            rank=9,
        ),
        Action(
            "lesson",
            "ctrl+l",
            N_("lesson"),
            palette=N_("Lesson: open it, go to it, close it"),
            letter="L",
            rank=6,
        ),
        Action(
            "export",
            "ctrl+s",
            N_("export"),
            palette=N_("Export what is on the screen: Markdown, JSON, CSV, SVG"),
            help=Line(8, "{export}", N_("export what is on the screen: Markdown, JSON, CSV, SVG; file or clipboard")),
            letter="X",
            rank=8,
        ),
        Action(
            "sessions",
            "ctrl+o",
            N_("sessions"),
            palette=N_("Sessions: open another, or begin a new one"),
            help=Line(9, "{sessions}", N_("sessions: all is saved as you go; open another, begin a new one")),
            letter="O",
            rank=9,
        ),
        Action(
            "zoom",
            "alt+z",
            N_("zoom"),
            palette=N_("Make this pane the whole screen, or go back"),
            help=Line(12, "{zoom}", N_("the pane as the whole screen, and back")),
            letter="z,Z",
            rank=8,
        ),
        Action(
            "app.focus_next",
            "tab",
            help=Line(10, "{next_pane} · {previous_pane}", N_("next pane, previous pane")),
            in_dialogs=True,
            called="next_pane",
            does=N_("Next pane"),
        ),
        Action(
            "app.focus_previous",
            "shift+tab",
            in_dialogs=True,
            called="previous_pane",
            does=N_("Previous pane"),
        ),
        Action(
            "quit",
            "ctrl+q",
            N_("quit"),
            palette=N_("Quit"),
            help=Line(13, "{palette} · {quit}", N_("every action by name · quit")),
            in_dialogs=True,
            letter="Q",
            rank=9,
        ),
        Action(
            "command_palette",
            "ctrl+p",
            N_("palette"),
            in_dialogs=True,
            letter="colon",
            called="palette",
            does=N_("Every action by name"),
            always=True,
        ),
        Action("help", "f1", N_("help"), palette=N_("Help"), letter="H", always=True),
        Action(
            "key_sheet",
            UNBOUND,
            N_("keys"),
            palette=N_("Keys: of the pane, and of the lab"),
            help=Line(12, "{keys} · {help}", N_("the keys of the pane, outside text fields · this help, everywhere")),
            letter="question_mark",
            called="keys",
            always=True,
        ),
    ),
    "prompt": (
        Action(
            "leave",
            "escape",
            N_("lanes"),
            does=N_("Leave the prompt for lane A, or for the pane that had the focus"),
            rank=0,
        ),
    ),
    "tokens": (Action("colour", "c", N_("colour"), does=N_("Colour tokens by the next measure")),),
    "lanes": (
        Action(
            "branch",
            "b",
            N_("branch"),
            palette=N_("Branch: go on from the token under the cursor with any text"),
            help=Line(1, "{branch}", N_("go on from that token with any text instead")),
            rank=2,
        ),
        Action(
            "branches",
            "t",
            N_("branches"),
            palette=N_("Branches of the lane"),
            help=Line(2, "{branches}", N_("all branches of the lane: show, compare, delete")),
        ),
        Action(
            "sample_many",
            "m",
            N_("sample many"),
            palette=N_("Sample many continuations"),
            help=Line(3, "{sample_many}", N_("draw many continuations from there")),
            rank=3,
        ),
        Action(
            "colour",
            "c",
            N_("colour"),
            palette=N_("Colour tokens by the next measure"),
            rank=5,
            help=Line(4, "{colour}", N_("colour tokens by probability, rank, entropy or surprisal")),
        ),
        Action(
            "inspector",
            "i",
            N_("inspector"),
            palette=N_("Show or hide the inspector"),
            rank=9,
            called="show_inspector",
            help=Line(6, "{show_inspector}", N_("show or hide the inspector")),
        ),
        Action(
            "split(-2)",
            "less_than_sign",
            palette=N_("Inspector: lower"),
            called="lower",
            help=Line(8, "{lower} {higher}", N_("the inspector lower, higher; it stays so")),
        ),
        Action("split(2)", "greater_than_sign", palette=N_("Inspector: higher"), called="higher"),
        Action(
            "undo",
            "u,ctrl+z",
            N_("undo"),
            palette=N_("Undo"),
            help=Line(7, "{undo} · {redo}", N_("undo · redo")),
        ),
        Action("redo", "r,ctrl+y", N_("redo"), palette=N_("Redo")),
        Action(
            "lock",
            "l",
            N_("lock cursors"),
            palette=N_("Move both cursors together, or not"),
            help=Line(5, "{lock}", N_("move both lanes' cursors together")),
        ),
    ),
    "token flow": (
        Action(
            "move(-1)",
            "left",
            help=Line(
                0,
                "{previous} {next} {line_up} {line_down}",
                N_("look at a token: the inspector shows what it was chosen from"),
            ),
            called="previous",
        ),
        Action("move(1)", "right", N_("look"), called="next", pair="previous", does=N_("Another token"), rank=2),
        Action("move_line(-1)", "up", called="line_up"),
        Action("move_line(1)", "down", called="line_down", pair="line_up", does=N_("A line up or down")),
        Action("jump(0)", "home", called="first"),
        Action("jump(-1)", "end", called="last", pair="first", does=N_("The first, the last")),
    ),
    "inspector": (
        Action(
            "stage(1)",
            "s",
            N_("stage"),
            palette=N_("Next stage in the inspector"),
            called="next_stage",
            rank=2,
            help=Line(1, "{next_stage}", N_("walk the stages: raw, penalty, temperature, truncation, pick")),
        ),
        Action("stage(-1)", "S", called="previous_stage", does=N_("Previous stage in the inspector")),
        Action(
            "knob(-1)",
            "left",
            help=Line(
                2,
                "{previous_knob} {next_knob} · {more} {less}",
                N_("choose a knob, turn it: the bars follow at once, nothing is run"),
            ),
            called="previous_knob",
        ),
        Action(
            "knob(1)",
            "right",
            N_("knob"),
            called="next_knob",
            pair="previous_knob",
            does=N_("Choose a knob"),
            rank=3,
        ),
        Action("turn(1)", "plus,equals_sign", called="more"),
        Action(
            "turn(-1)", "minus,underscore", N_("turn"), called="less", pair="more", does=N_("Turn the knob"), rank=3
        ),
        Action("reset", "0", N_("as it ran"), palette=N_("Inspector: back to how the step ran"), rank=0),
        Action(
            "apply",
            "a",
            N_("use for lane"),
            palette=N_("Use the inspector's settings for the lane"),
            rank=0,
            help=Line(3, "{apply} · {reset}", N_("use the knobs for the lane · back to how it ran")),
        ),
        Action(
            "filter",
            "slash",
            N_("find"),
            palette=N_("Find a token by text or id"),
            called="find",
            rank=2,
            help=Line(4, "{find}", N_("find any token by text or id")),
        ),
        Action(
            "bias(1)",
            "f",
            N_("favour"),
            palette=N_("Favour the candidate"),
            called="favour",
            help=Line(5, "{favour} · {disfavour} · {ban}", N_("favour, disfavour, ban the candidate")),
        ),
        Action("bias(-1)", "d", N_("disfavour"), palette=N_("Disfavour the candidate"), called="disfavour"),
        Action("ban", "x", N_("ban"), palette=N_("Ban the candidate, or allow it again")),
    ),
    "candidates": (
        Action("choose", "enter", N_("branch with this"), does=N_("Go on with the candidate instead"), rank=2),
        Action(
            "move(-1)",
            "up",
            help=Line(
                0,
                "{up} {down} · {choose}",
                N_("any candidate of the vocabulary; enter goes on with it, or opens the rest"),
            ),
            called="up",
        ),
        Action("move(1)", "down", called="down", pair="up", does=N_("Another candidate")),
        Action("page(-1)", "pageup", called="page_up"),
        Action("page(1)", "pagedown", called="page_down", pair="page_up", does=N_("A page up or down")),
        Action("go(0)", "home", called="first"),
        Action("go(-1)", "end", called="last", pair="first", does=N_("The first, the last")),
    ),
    "inside": (
        *(
            Action(f"picture('{name}')", str(number), called=name, does=PICTURES[name])
            for number, name in enumerate(PICTURES, start=1)
        ),
        Action(
            "next_picture",
            "p",
            N_("picture"),
            does=N_("The next picture"),
            rank=2,
            help=Line(
                0,
                "{lens} … {occlusion} · {next_picture}",
                N_("lens, attention, why this token, which words mattered · the next one"),
            ),
        ),
        Action(
            "lock",
            "l",
            N_("both lanes"),
            does=N_("Both lanes side by side, or one"),
            rank=3,
            help=Line(1, "{lock} · {other}", N_("both lanes side by side, for the same position · the other lane")),
        ),
        Action("other", "o", N_("other lane"), does=N_("The other lane"), rank=3),
    ),
    "grid": (
        Action(
            "move(0, -1)",
            "left",
            help=Line(2, "{left} {right} {up} {down}", N_("another position · another layer, head or part")),
            called="left",
        ),
        Action("move(0, 1)", "right", called="right", pair="left", does=N_("Another position")),
        Action("move(1, 0)", "up", called="up"),
        Action("move(-1, 0)", "down", called="down", pair="up", does=N_("Another layer, head or part")),
        Action("page(1)", "pageup", called="page_up"),
        Action("page(-1)", "pagedown", called="page_down", pair="page_up", does=N_("A page up or down")),
        Action("jump(0)", "home", called="first"),
        Action("jump(-1)", "end", called="last", pair="first", does=N_("The first, the last")),
    ),
    "bars": (
        Action("move(-1)", "up", called="up"),
        Action("move(1)", "down", called="down", pair="up", does=N_("Another row")),
        Action("page(-1)", "pageup", called="page_up"),
        Action("page(1)", "pagedown", called="page_down", pair="page_up", does=N_("A page up or down")),
        Action("go(0)", "home,ctrl+home", called="first"),
        Action("go(-1)", "end,ctrl+end", called="last", pair="first", does=N_("The first, the last")),
        Action("choose", "enter", does=N_("What the row is made of")),
    ),
    "lens": (
        Action(
            "measure",
            "c",
            N_("colour"),
            does=N_("Colour by the next measure"),
            help=Line(3, "{measure} · {rank}", N_("lens: colour by probability, entropy, rank · the chart by rank")),
        ),
        Action("rank", "r", N_("chart by rank"), does=N_("The chart by rank, or by probability")),
        Action(
            "track",
            "t",
            N_("follow a token"),
            does=N_("Follow any token through the layers"),
            help=Line(4, "{track}", N_("lens: follow any token through the layers; attribution: compare any two")),
        ),
    ),
    "attention": (
        Action(
            "kind",
            "w",
            N_("whose weights"),
            does=N_("Weights of a head, their means, the rollout"),
            help=Line(
                5,
                "{kind} · {by_value} · {first}",
                N_("attention: head, means, rollout · by what it moves · the first token"),
            ),
        ),
        Action("by_value", "v", N_("by value"), does=N_("Weigh by what is moved, or not")),
        Action("first", "x", N_("first token"), does=N_("With the first token, or without")),
        Action("measure", "c", N_("colour"), does=N_("Colour by the next measure")),
    ),
    "attribution": (
        Action(
            "order",
            "s",
            N_("order"),
            does=N_("By size, or in the order of layers"),
            help=Line(6, "{order} · enter", N_("attribution: by size or in the order of layers · a layer's heads")),
        ),
        Action("tokens", "t", N_("two tokens"), does=N_("Compare any two tokens")),
    ),
    "prompts": (
        Action(
            "edit",
            "enter,e",
            N_("edit"),
            does=N_("Edit the prompt"),
            rank=1,
            help=Line(
                0,
                "{edit} · {add} · {open}",
                N_("edit a prompt, add one, open a file of one a line; paste adds lines"),
            ),
        ),
        Action("add", "a", N_("add"), does=N_("Add a prompt"), rank=2),
        Action(
            "use",
            "g",
            N_("to the prompt"),
            does=N_("Make it the lab's prompt"),
            rank=2,
            help=Line(
                2, "{use} · {tokenizers}", N_("make it the lab's prompt · count with other models' tokenizers too")
            ),
        ),
        Action("open", "o", N_("open file"), does=N_("Open a file of one prompt a line")),
        Action("remove", "delete,backspace", N_("remove"), does=N_("Remove the prompt")),
        Action(
            "move(-1)",
            "K,ctrl+up",
            called="up",
            help=Line(1, "{up} · {down} · {remove}", N_("move up or down · remove")),
        ),
        Action("move(1)", "J,ctrl+down", called="down", pair="up", does=N_("Move the prompt up or down")),
        Action("tokenizers", "k", N_("tokenizers"), does=N_("Count with other models' tokenizers too")),
    ),
    "variants": (
        Action(
            "add",
            "v",
            N_("add variant"),
            does=N_("Add a variant"),
            rank=2,
            help=Line(3, "{add} · {edit} · {again}", N_("add a variant, edit it · run the variants with another seed")),
        ),
        Action("edit", "e", N_("edit"), does=N_("Edit the variant"), rank=2),
        Action("again", "s", N_("another seed"), does=N_("Run the variants with another seed"), rank=3),
        Action("remove", "delete,backspace", N_("remove"), does=N_("Remove the variant")),
    ),
    "timing": (
        *(
            Action(f"chart('{name}')", str(number), called=f"chart_{name}", does=CHARTS[name])
            for number, name in enumerate(CHARTS, start=1)
        ),
        Action(
            "table",
            "0",
            does=N_("The table"),
            help=Line(
                0,
                "{chart_length} … {chart_latency} · {table}",
                N_("charts: length, token, cache, overlaid, transformers, lanes, latency · the table"),
            ),
        ),
        Action(
            "older(1)",
            "left_square_bracket",
            called="older",
            help=Line(1, "{older} {newer} · {remove}", N_("older and newer measurements · forget the one on screen")),
        ),
        Action(
            "older(-1)",
            "right_square_bracket",
            N_("measurement"),
            called="newer",
            pair="older",
            does=N_("An older or a newer measurement"),
            rank=3,
        ),
        Action("remove", "delete", does=N_("Forget the measurement on screen")),
    ),
    "lesson": (
        Action("do", "d", N_("do it"), does=N_("Do it in the lab"), rank=1),
        Action("turn(-1)", "left,p,pageup", called="back"),
        Action(
            "turn(1)",
            "right,n,pagedown,space",
            N_("turn"),
            called="next",
            pair="back",
            does=N_("Turn the page"),
            rank=2,
        ),
        Action("hint", "h", N_("hint"), does=N_("A hint"), rank=2),
        Action("practise", "e", N_("exercise"), does=N_("What the model says to the exercise"), rank=2),
    ),
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

# The same keys as sentences, below the lists that have no footer of theirs.
HINTS: dict[Where, str] = {
    "prompts": N_(
        "{edit} edits · {add} adds, paste adds lines, {open} opens a file · {remove} removes · {up} {down} move · "
        "{use} to the prompt · {tokenizers} tokenizers"
    ),
    "variants": N_(
        "F5 runs them · enter shows all of it · {again} once more with another seed · {add} adds a variant, "
        "{edit} edits, {remove} removes"
    ),
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
