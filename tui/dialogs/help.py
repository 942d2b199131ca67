"""F1: what is on the screen and which keys work."""

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

INTRODUCTION = (
    "A language model continues a text one token at a time. Type a prompt, see the tokens it becomes, press F5, "
    "and watch two configurations continue it side by side.\n"
)
KEYS = {
    "Everywhere": (
        ("F5  ctrl+r", "run both lanes; in Prompts the variants, in Timing the sweep"),
        ("F6 · F7 · esc", "one step of each lane · pause, and go on · stop"),
        ("F9", "pace: 20, 5, 2, 1 tokens a second, full speed"),
        ("F3 · F4 · F2", "edit lane A · edit lane B · choose the model"),
        ("ctrl+t", "give the prompt as a message in the model's chat template"),
        ("F8", "next view: Generate, Tokens, Prompts, Timing"),
        ("ctrl+s", "export what is on the screen: Markdown, JSON, CSV, SVG; file or clipboard"),
        ("ctrl+o", "sessions: all is saved as you go; open another, begin a new one"),
        ("tab  shift+tab", "next pane, previous pane"),
        ("ctrl+p · ctrl+q", "every action by name · quit"),
    ),
    "In a lane": (
        ("← → ↑ ↓", "look at a token: the inspector shows what it was chosen from"),
        ("b", "go on from that token with any text instead"),
        ("t", "all branches of the lane: show, compare, delete"),
        ("m", "draw many continuations from there"),
        ("c", "colour tokens by probability, rank, entropy or surprisal"),
        ("l", "move both lanes' cursors together"),
        ("i", "show or hide the inspector"),
        ("u · r", "undo · redo"),
    ),
    "In the inspector": (
        ("↑ ↓  enter", "any candidate of the vocabulary; enter goes on with it"),
        ("s", "walk the stages: raw, penalty, temperature, truncation, pick"),
        ("← →  + −", "choose a knob, turn it: the bars follow at once, nothing is run"),
        ("a · 0", "use the knobs for the lane · back to how it ran"),
        ("/", "find any token by text or id"),
        ("f · d · x", "favour, disfavour, ban the candidate"),
    ),
    "In Prompts": (
        ("enter · a · o", "edit a prompt, add one, open a file of one a line; paste adds lines"),
        ("K J · del", "move up or down · remove"),
        ("g · k", "make it the lab's prompt · count with other models' tokenizers too"),
        ("v · e · s", "add a variant, edit it · run the variants with another seed"),
    ),
    "In Timing": (
        ("1 to 5 · 0", "charts: by length, each token, cache, overlaid, transformers · the table"),
        ("[ ] · del", "older and newer measurements · forget the one on screen"),
    ),
}
TWO_THINGS = (
    "Greedy takes the most probable token each time; temperature cannot change that, for it never changes the order. "
    "Contrastive search is deterministic too: of its k candidates it takes the one that is probable and unlike what "
    "is already written. Only sampling uses chance."
)


class Help(ModalScreen[None]):
    BINDINGS = [Binding("escape,f1,q,enter", "dismiss", "close")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help", classes="dialog"):
            yield Static(help_text())

    def on_mount(self) -> None:
        self.query_one("#help").border_title = "Help · esc closes"


def help_text() -> Text:
    """All of it."""
    text = Text(INTRODUCTION)
    for section, keys in KEYS.items():
        text.append(f"\n{section}\n", style="bold underline")
        for key, does in keys:
            text.append(f"  {key:<16}", style="bold #9ece6a")
            text.append(f" {does}\n")
    return text.append("\n" + TWO_THINGS)
