"""The first start: what this is, which model it runs, and how to begin."""

from collections.abc import Callable
from typing import Literal

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from engine.base.language import N_, _
from engine.models.catalog import Entry
from tui.actions import bindings, lent
from tui.screens import Dialog
from tui.sentences import sentence
from tui.style.colours import ink
from tui.widgets.footer import Footer

WHAT = N_(
    "A language model continues a text one token at a time. Here you watch it: the tokens it reads, the probability "
    "of everything it could write next, and two ways of choosing, side by side."
)
KEYS = (
    ("{run}", N_("runs both lanes on the prompt that is there, or on yours")),
    (
        "{next_pane}  {token_flow.previous} {token_flow.next}",
        N_("go to a pane, look at each token and at what else could have come"),
    ),
    (
        "{prompt.leave}",
        N_(
            "leaves the prompt: {letter:lane_a} and {letter:lane_b} go to the lanes, {letter:prompt} "
            "back, {letter:keys} shows keys"
        ),
    ),
    ("{lesson}", N_("opens the lesson, from tokens to what happens inside")),
    ("{help}", N_("explains the pane you are in, and every key")),
    ("{palette}", N_("finds every action by name")),
    ("{quit}", N_("leaves; all is saved as you go")),
)


Wish = Literal["run", "lesson", "help"]


class Greeting(Dialog[Wish | None]):
    """Gives back what to begin with, if anything. What is typed meanwhile goes to `typed`, and is not lost.

    Args:
        entry: the model that is on its way.
        typed: takes what is typed or pasted.
    """

    BINDINGS = [
        *bindings("greeting"),
        *lent({"run": "begin('run')", "lesson": "begin('lesson')", "help": "begin('help')"}),
    ]

    def __init__(self, entry: Entry, typed: Callable[[str], object]) -> None:
        super().__init__()
        self._entry = entry
        self._typed = typed

    def compose(self) -> ComposeResult:
        with Vertical(id="greeting", classes="dialog"):
            yield Static(self._text(fetching=not self._entry.cached), id="greeting-says")
            yield Footer()

    def on_mount(self) -> None:
        self.query_one("#greeting").border_title = _("Welcome to logitlab")

    def arrive(self) -> None:
        """The model is there."""
        self.query_one("#greeting-says", Static).update(self._text(fetching=False))

    def action_begin(self, wish: Wish | None = None) -> None:
        self.dismiss(wish)

    def on_key(self, event: events.Key) -> None:
        if event.is_printable and event.character is not None:
            event.stop()
            self._typed(event.character)
            self.action_begin()

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        self._typed(event.text)
        self.action_begin()

    def _text(self, *, fetching: bool) -> Text:
        entry = self._entry
        text = Text(_(WHAT) + "\n\n")
        text.append(entry.title, style="bold")
        facts = [f"{entry.size / 1e6:,.0f} MB"] if entry.size else []
        facts += [entry.license, _(entry.source)] if entry.kind != "server" else []
        text.append("".join(f" · {fact}" for fact in facts), style="dim")
        text.append(f"\n{_where(entry, fetching)}\n\n")
        for key, does in KEYS:
            text.append(f"{sentence(key):<10}", style=f"bold {ink(self.app, 'good')}")
            text.append(f"{sentence(_(does))}\n")
        return text


def _where(entry: Entry, fetching: bool) -> str:
    if entry.kind == "server":
        return _("It runs on that server: prompts and settings are sent there, and nowhere else.")
    if fetching:
        return _("It is being fetched now, once; then it runs on this machine, and nothing you type leaves it.")
    return _("It runs on this machine; nothing you type leaves it.")
