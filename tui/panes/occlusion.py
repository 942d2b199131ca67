"""Which words mattered: the picked token's log-probability without each token before it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual import getters, work
from textual.app import ComposeResult
from textual.widgets import Static

from engine.base.language import _
from engine.generation.events import Failed
from engine.text.token import Token
from tui.panes.lane_lab import LaneLab
from tui.panes.picture import Picture
from tui.style.colours import legend, palette
from tui.widgets.signed_bars import SignedBars
from tui.widgets.token_flow import TokenFlow

if TYPE_CHECKING:
    from engine.inside.occlusion import Occlusion
    from engine.job import Job


@dataclass(frozen=True, slots=True)
class Fall:
    """How much the picked token's log-probability falls without a token, in nats, as its colour tells it."""

    fall: float


class OcclusionPicture(Picture):
    """The text before the picked token, each token coloured by what its absence takes away."""

    flow = getters.query_one(TokenFlow)
    bars = getters.query_one(SignedBars)

    def __init__(self, lab: LaneLab, pointed: Callable[[int], object]) -> None:
        super().__init__(lab, "occlusion", pointed)
        self._shown: tuple[tuple[int, ...], tuple[str, ...]] | None = None  # ids, and interventions
        self.occlusion: Occlusion | None = None

    def compose(self) -> ComposeResult:
        yield Static(classes="occlusion-title")
        yield TokenFlow(moved=self._point_at)
        yield Static(classes="occlusion-legend")
        yield SignedBars()

    def on_mount(self) -> None:
        self.flow.mode = "fall"

    def show(self, tokens: "Sequence[Token]", position: int, label: "Callable[[int], str]") -> None:
        """Show what mattered for the token after a position of a text."""
        interventions = self._lab.interventions
        before = tokens[: position + 1]
        picked = tokens[position + 1].id if position + 1 < len(tokens) else None
        asked = ((*(token.id for token in before), -1 if picked is None else picked), interventions)
        if asked == self._shown:
            return
        self.stop()
        self._shown, self.occlusion = asked, None
        self.flow.judged = ()
        if self.flow.tokens != list(tokens):
            self.flow.set_tokens(tokens)
        self.flow.cursor = position
        self.flow.refresh()
        self.bars.show(())
        self.query_one(".occlusion-legend", Static).update("")
        if any(text.startswith(("steer", "patch")) for text in interventions):
            said = _(
                "a token left out moves the positions that steering and patches are of, so there is nothing to compare"
            )
            self.query_one(".occlusion-title", Static).update(Text(said, style="dim"))
            return
        self._compute(before, picked, label)

    def stop(self) -> bool:
        """Stop computing; whether anything was."""
        stopped = super().stop()
        if stopped:
            self._shown = None
        return stopped

    def _compute(self, before: "Sequence[Token]", picked: int | None, label: "Callable[[int], str]") -> None:
        from engine.inside.occlusion import occlusion

        ids = [token.id for token in before]

        def body(model: Any, job: "Job[Any]") -> Any:
            yield occlusion(model, ids, picked, report=job.emit, cancelled=lambda: job.cancelled)

        self._job = self._lab.look(body, intervene=True)
        self._follow(self._job, before, label)

    @work(group="occlusion", exclusive=True)
    async def _follow(self, job: "Job[Any]", before: "Sequence[Token]", label: "Callable[[int], str]") -> None:
        title = self.query_one(".occlusion-title", Static)
        title.update(Text(_("leaving out each token in turn…"), style="dim"))
        self.refresh_bindings()
        async for event in job:
            if job is not self._job:
                return
            if isinstance(event, Failed):
                title.update(Text(str(event.error), style="dim"))
            elif hasattr(event, "without"):
                self.occlusion = event
                self._draw(event, before, label)
            else:
                words = _("left out {done} of {count} tokens, each in turn…", done=event.done, count=event.variants)
                title.update(Text(words, style="dim"))
        self.refresh_bindings()

    def _draw(self, found: "Occlusion", before: "Sequence[Token]", label: "Callable[[int], str]") -> None:
        self.flow.judged = [Fall(-one.change) for one in found.without]
        self.flow.refresh()
        title = Text(_("which words mattered for “{token}”", token=label(found.token)), style="bold")
        title.append("  " + _("log-probability {value:.2f} nats with all of them", value=found.log_probability))
        self.query_one(".occlusion-title", Static).update(title)
        self.query_one(".occlusion-legend", Static).update(legend("fall", palette(self.app)))
        order = sorted(found.without, key=lambda one: -abs(one.change))
        self.bars.show([(before[one.position].label, one.change) for one in order])
