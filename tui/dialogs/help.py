"""F1: what is on the screen and which keys work."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from engine.base.language import N_, _
from tui.actions import SECTIONS, bindings
from tui.dialogs.key_sheet import key_table
from tui.screens import Dialog
from tui.sentences import help_rows, sentence

INTRODUCTION = N_(
    "A language model continues a text one token at a time. Type a prompt, see the tokens it "
    "becomes, press {run}, and watch two configurations continue it side by side.\n"
)
# What F1 says first: three sentences about the pane that has the focus, by its id, the innermost that has any.
HERE = {
    "prompt": (
        N_(
            "This is the prompt: the text that the model is given to continue. Every key cuts it into "
            "tokens anew, which are shown below. {run} lets both lanes continue it."
        )
    ),
    "tokens": (
        N_(
            "These are the prompt's tokens, the pieces that the model reads instead of letters or "
            "words. {token_flow.previous} {token_flow.next} go from one to the next, and its id and "
            "bytes are shown. {tokens.colour} colours them by how much they surprised the model."
        )
    ),
    "lane-a": (
        N_(
            "Lane A continues the prompt under its own configuration, which {edit_a} edits. "
            "{token_flow.previous} {token_flow.next} look at what it wrote, token by token, and the "
            "inspector shows what each was chosen from. {lanes.branch} goes on from there with another "
            "text."
        )
    ),
    "lane-b": (
        N_(
            "Lane B continues the prompt under its own configuration, which {edit_b} edits. "
            "{token_flow.previous} {token_flow.next} look at what it wrote, token by token, and the "
            "inspector shows what each was chosen from. {lanes.branch} goes on from there with another "
            "text."
        )
    ),
    "inspector": (
        N_(
            "The inspector shows every token that could have come at this step, before and after each "
            "stage. {inspector.previous_knob} {inspector.next_knob} and {inspector.more} "
            "{inspector.less} turn the settings, and the bars follow without a run. {candidates.choose} "
            "on a candidate goes on with it."
        )
    ),
    "token-table": (
        N_(
            "The prompt's tokens as a table: position, id, piece, and the bytes each stands for. Its cursor is "
            "that of the coloured tokens. Words are not tokens, and here you see why."
        )
    ),
    "prompts": (
        N_(
            "A list of prompts and how long they are; the bars follow the cursor. {prompts.edit} edits "
            "one, {prompts.add} adds one, {prompts.open} opens a file of one a line, and what you paste "
            "becomes prompts. {prompts.use} makes one the lab's prompt."
        )
    ),
    "variants": (
        N_(
            "The lab's prompt put in several ways, run at once under lane B's configuration with {run}. "
            "enter shows all that one of them wrote, token by token. {variants.again} runs them with "
            "another seed, and both results stay."
        )
    ),
    "timing": (
        N_(
            "How long generation takes for several output lengths; {run} or enter measures. "
            "{timing.chart_length} to {timing.chart_latency} choose the chart, {timing.table} the "
            "table, {timing.older} and {timing.newer} an earlier measurement. All measurements are "
            "kept."
        )
    ),
    "lesson": (
        N_(
            "The lesson: read, predict, then {lesson.do} does it in the lab. {lesson.back} "
            "{lesson.next} turn the pages, {lesson.hint} shows a hint. {lesson} goes between lesson and "
            "lab, and closes it."
        )
    ),
}
SIGNS = N_(
    "Signs in tokens: · space, ⏎ line break, ⇥ tab, ⍽ no-break space, □ wide space, ⁀ joiner, ¦ non-joiner, ◌ under a "
    "mark that stands on no letter. ⟨E6⟩ is a byte: a part of a character, which stands above its parts, or what would "
    "steer the terminal."
)
TWO_THINGS = N_(
    "Greedy takes the most probable token each time; temperature cannot change that, for it never "
    "changes the order. Contrastive search is deterministic too: of its k candidates it takes the one "
    "that is probable and unlike what is already written. Only sampling uses chance."
)


TYPING = N_(
    "Letters are for where nothing is typed. In the prompt and other text fields they type: "
    "there {run} and the other F-keys, ctrl and alt do the same, and {prompt.leave} leaves."
)
# So that all sections' keys stand in one column.
KEYS_CELLS = 22


class Help(Dialog[None]):
    """What the focused pane is, then every key.

    Args:
        focused: ids of the focused widget and of those it is in, the innermost first.
    """

    BINDINGS = bindings("help")

    opened_by = "help"

    def __init__(self, focused: Sequence[str] = ()) -> None:
        super().__init__()
        self._here = next((sentence(_(HERE[id])) for id in focused if id in HERE), "")

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help", classes="dialog"):
            yield Static(opening(self._here))
            yield Static(all_keys(self.app))

    def on_mount(self) -> None:
        self.query_one("#help").border_title = sentence(_("Help · {dialogs.leave} closes"))


def opening(here: str) -> Text:
    """What the lab is; `here` about the focused pane first."""
    text = Text(here + "\n\n" if here else "", style="bold")
    return text.append(sentence(_(INTRODUCTION)).rstrip(), style="not bold")


def all_keys(app: App[Any]) -> Group:
    """Every section's keys, then what is to be known of them and of the strategies."""
    parts: list[Text | Table] = []
    for section in SECTIONS:
        parts.append(Text(f"\n{_(section)}", style="bold underline"))
        parts.append(key_table(app, help_rows(section), KEYS_CELLS))
    return Group(*parts, Text("\n" + sentence(_(TYPING)) + "\n\n" + _(SIGNS) + "\n\n" + _(TWO_THINGS)))
