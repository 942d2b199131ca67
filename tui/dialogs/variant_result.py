"""What a variant wrote: all of its text, token by token."""

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from engine.base.language import _, counted
from engine.base.plain import number, percent, safe
from engine.sessions.session import VariantResult
from tui.actions import bindings
from tui.screens import Dialog
from tui.sentences import key
from tui.style.colours import ink
from tui.widgets.footer import Footer
from tui.widgets.token_flow import TokenFlow


class VariantResultDialog(Dialog[None]):
    """The prompt as it was put, the text, and each token with its probability."""

    BINDINGS = bindings("variant result")

    def __init__(self, result: VariantResult) -> None:
        super().__init__()
        self._result = result

    def compose(self) -> ComposeResult:
        with Vertical(id="variant-result", classes="dialog"):
            system = _("system: {text}", text=self._result.system) + "\n" if self._result.system else ""
            yield Static(Text(safe(system + self._result.prompt), style="dim"), id="variant-prompt")
            yield TokenFlow(moved=self._show_step, id="variant-tokens")
            yield Static(id="variant-detail")
            yield Footer()

    def on_mount(self) -> None:
        result = self._result
        self.query_one("#variant-result").border_title = Text(f"{result.variant} · {result.config.summary}")
        flow = self.query_one(TokenFlow)
        flow.judged = result.steps
        flow.set_tokens([step.token for step in result.steps])
        flow.focus()
        said = counted(
            "{count} token in, {written} out · {previous} {next} look at one",
            "{count} tokens in, {written} out · {previous} {next} look at one",
            result.prompt_tokens,
            written=len(result.steps),
            previous=key("token_flow.previous"),
            next=key("token_flow.next"),
        )
        self.query_one("#variant-detail", Static).update(Text(said, style="dim"))

    def _show_step(self, index: int) -> None:
        step = self._result.steps[index]
        said = Text(f"“{step.token.label}”", style=f"bold {ink(self.app, 'warning')}")
        said.append(
            _("  id {id} · {probability} when it was picked", id=step.token.id, probability=percent(step.probability)),
            style="",
        )
        said.append(
            _(
                " · {raw_probability} and rank {rank} as the model gave it",
                raw_probability=percent(step.raw_probability),
                rank=number(step.rank),
            )
        )
        self.query_one("#variant-detail", Static).update(said)

    def action_colour(self) -> None:
        flow = self.query_one(TokenFlow)
        flow.mode = "tokens" if flow.mode == "probability" else "probability"
