"""F1: what is on the screen and which keys work."""

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Markdown

TEXT = """\
A language model continues a text one **token** at a time. Type a prompt, see the tokens it
becomes, press **F5**, and watch two configurations continue it side by side.

| key | does |
|---|---|
| F5 / ctrl+r | run both lanes (in Timing: measure) |
| F6 | one step of each lane |
| F7 | pause, and go on |
| esc | stop |
| F3, F4 | edit the configuration of lane A, of lane B |
| F2 | choose the model |
| F8 | next view: Generate, Tokens, Timing |
| tab, shift+tab | next pane, previous pane |
| ← → ↑ ↓ | in tokens and lanes: look at one token |
| ctrl+p | every action by name |
| ctrl+q | quit |

**Greedy** takes the most probable token each time; temperature cannot change that, for it never
changes the order. **Contrastive search** is deterministic too: of its k candidates it takes the one
that is probable *and* unlike what is already written. Only **sampled** uses chance.
"""


class Help(ModalScreen[None]):
    BINDINGS = [Binding("escape,f1,q,enter", "dismiss", "close")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help", classes="dialog"):
            yield Markdown(TEXT)

    def on_mount(self) -> None:
        self.query_one("#help").border_title = "Help · esc closes"
