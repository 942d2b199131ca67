"""F1: what is on the screen and which keys work."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Static

from engine.base.language import N_, _
from tui.actions import SECTIONS, lines
from tui.screens import Dialog
from tui.style.colours import ink

INTRODUCTION = N_(
    "A language model continues a text one token at a time. Type a prompt, see the tokens it becomes, "
    "press F5, and watch two configurations continue it side by side.\n"
)
# What F1 says first: three sentences about the pane that has the focus, by its id, the innermost that has any.
HERE = {
    "prompt": (
        N_(
            "This is the prompt: the text that the model is given to continue. Every key cuts it into tokens "
            "anew, which are shown below. F5 lets both lanes continue it."
        )
    ),
    "tokens": (
        N_(
            "These are the prompt's tokens, the pieces that the model reads instead of letters or words. ← → go "
            "from one to the next, and its id and bytes are shown. c colours them by how much they surprised the "
            "model."
        )
    ),
    "lane-a": (
        N_(
            "Lane A continues the prompt under its own configuration, which F3 edits. ← → look at what it wrote, "
            "token by token, and the inspector shows what each was chosen from. b goes on from there with "
            "another text."
        )
    ),
    "lane-b": (
        N_(
            "Lane B continues the prompt under its own configuration, which F4 edits. ← → look at what it wrote, "
            "token by token, and the inspector shows what each was chosen from. b goes on from there with "
            "another text."
        )
    ),
    "inspector": (
        N_(
            "The inspector shows every token that could have come at this step, before and after each stage. ← → "
            "and + − turn the settings, and the bars follow without a run. enter on a candidate goes on with it."
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
            "A list of prompts and how long they are; the bars follow the cursor. enter edits one, a adds one, o "
            "opens a file of one a line, and what you paste becomes prompts. g makes one the lab's prompt."
        )
    ),
    "variants": (
        N_(
            "The lab's prompt put in several ways, run at once under lane B's configuration with F5. enter shows "
            "all that one of them wrote, token by token. s runs them with another seed, and both results stay."
        )
    ),
    "timing": (
        N_(
            "How long generation takes for several output lengths; F5 or enter measures. 1 to 7 choose the "
            "chart, 0 the table, [ and ] an earlier measurement. All measurements are kept."
        )
    ),
    "lesson": (
        N_(
            "The lesson: read, predict, then d does it in the lab. ← → turn the pages, h shows a hint. ctrl+l "
            "goes between lesson and lab, and closes it."
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


class Help(Dialog[None]):
    """What the focused pane is, then every key.

    Args:
        focused: ids of the focused widget and of those it is in, the innermost first.
    """

    BINDINGS = [Binding("escape,f1,q,enter", "dismiss", "close")]

    def __init__(self, focused: Sequence[str] = ()) -> None:
        super().__init__()
        self._here = next((_(HERE[id]) for id in focused if id in HERE), "")

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help", classes="dialog"):
            yield Static(help_text(self.app, self._here))

    def on_mount(self) -> None:
        self.query_one("#help").border_title = _("Help · esc closes")


def help_text(app: App[Any], here: str = "") -> Text:
    """All of it; `here` about the focused pane first."""
    text = Text(here + "\n\n" if here else "", style="bold")
    text.append(_(INTRODUCTION), style="not bold")
    for section in SECTIONS:
        text.append(f"\n{_(section)}\n", style="bold underline")
        for line in lines(section):
            text.append(f"  {line.keys:<16}", style=f"bold {ink(app, 'good')}")
            text.append(f" {_(line.text)}\n")
    text.append("\n" + _(SIGNS) + "\n")
    return text.append("\n" + _(TWO_THINGS))
