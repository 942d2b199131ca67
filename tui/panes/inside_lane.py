"""A lane's text in the view Inside: recorded once, and looked at in five ways."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual import getters, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import ContentSwitcher, Static

from engine.base.language import _
from engine.generation.events import Failed
from engine.lab import Lab
from engine.text.token import Token, drawn
from engine.text.tokenizer import Tokenizer
from tui.panes.attention import AttentionPicture
from tui.panes.attribution import AttributionPicture
from tui.panes.lane_lab import LaneLab, LaneText
from tui.panes.lane_states import NAMES
from tui.panes.lens import LensPicture
from tui.panes.occlusion import OcclusionPicture
from tui.panes.patching import PatchingPicture
from tui.panes.picture import LookedAt
from tui.sentences import sentence
from tui.widgets.grid import Grid
from tui.widgets.signed_bars import SignedBars
from tui.widgets.token_flow import TokenFlow

if TYPE_CHECKING:
    from engine.inside.record import Record
    from engine.job import Job

# What has the focus when a picture opens.
FIRST = {"lens": Grid, "attention": TokenFlow, "attribution": SignedBars, "occlusion": TokenFlow, "patching": Grid}


class InsideLane(Vertical):
    """One lane's text, looked at.

    Args:
        pointed: called with the lane and the position that its cursor goes to.
    """

    pictures = getters.query_one(ContentSwitcher)
    lens = getters.query_one(LensPicture)
    attention = getters.query_one(AttentionPicture)
    attribution = getters.query_one(AttributionPicture)
    occlusion = getters.query_one(OcclusionPicture)
    patching = getters.query_one(PatchingPicture)

    def __init__(self, lab: Lab, lane: int, pointed: Callable[[int, int], object]) -> None:
        super().__init__(id=f"inside-{NAMES[lane].lower()}", classes="inside-lane")
        self.lane = lane
        self._pointed = pointed
        self.tokens: Sequence[Token] = ()
        self.position = 0
        self.record: Record | None = None
        self._lab = LaneLab(lab)
        self._job: Job[Any] | None = None
        self._refusal = ""

    def compose(self) -> ComposeResult:
        yield Static(classes="inside-head")
        yield Static(classes="inside-why")
        with ContentSwitcher(initial=f"lens-{self.lane}"):
            for name, picture in (
                ("lens", LensPicture),
                ("attention", AttentionPicture),
                ("attribution", AttributionPicture),
                ("occlusion", OcclusionPicture),
                ("patching", PatchingPicture),
            ):
                with Vertical(id=f"{name}-{self.lane}", classes="inside-room"):
                    yield picture(self._lab, self._point)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Of the model that is looked into."""
        return self._lab.tokenizer

    # What is looked at.

    def look(self, text: LaneText, position: int, picture: str) -> None:
        """Look at a position of a text in one way; the text is recorded where it, or what read it, is another."""
        tokens = text.tokens
        self.pictures.current = f"{picture}-{self.lane}"
        if self._lab.turn_to(text.config, text.prompt):
            self.forget()
        if [token.id for token in tokens] != [token.id for token in self.tokens] or (
            tokens and self.record is None and not self.busy and not self._refusal
        ):
            self.forget()
            self.tokens = list(tokens)
            if tokens:
                self._job = self._lab.record([token.id for token in tokens])
                self._follow(self._job)
                self.refresh_bindings()
        self.position = max(0, min(position, len(tokens) - 1))
        self.draw()

    def forget(self) -> None:
        """The text, or the model, is another one."""
        self.stop()
        self.record, self.tokens, self._refusal = None, (), ""
        self._clear()

    @property
    def busy(self) -> bool:
        return (self._job is not None and not self._job.done) or self.occlusion.busy or self.patching.busy

    def stop(self) -> bool:
        """Stop what is computed; whether anything was."""
        pictures = (self.lens, self.attention, self.attribution, self.occlusion, self.patching)
        stopped = [picture.stop() for picture in pictures]
        job, self._job = self._job, None
        if job is not None and not job.done:
            job.cancel()
            self._refusal = sentence(_("stopped; {inside.next_picture} or another key looks again"))
            return True
        return any(stopped)

    @work(group="record", exclusive=True)
    async def _follow(self, job: "Job[Any]") -> None:
        head = self.query_one(".inside-why", Static)
        async for event in job:
            if job is not self._job:
                return
            if isinstance(event, Failed):
                self._refusal = str(event.error)
            elif hasattr(event, "done"):
                words = _("looking: layer {done} of {count}…", done=event.done, count=event.blocks)
                head.update(Text(words, style="dim"))
            else:
                self.record, self._refusal = event, ""
        if job is self._job:
            self.draw()
        self.refresh_bindings()  # there is nothing to stop any more

    @property
    def part(self) -> str | None:
        """What is under the cursor, as an intervention names it: a head, an attention or a feed-forward."""
        if self.record is None:
            return None
        return getattr(self, self.picture).part if self.picture in ("attention", "attribution") else None

    # Drawing.

    @property
    def picture(self) -> str:
        return (self.pictures.current or "lens-0").rsplit("-", 1)[0]

    def draw(self) -> None:
        """Bring the open picture up to date."""
        self._head()
        why = self.query_one(".inside-why", Static)
        if self.picture == "occlusion" and self.tokens:
            why.display = False
            self.occlusion.show(self.tokens, self.position, self._label)
            return
        why.display = self.record is None
        if self.record is None:
            empty = sentence(_("Type a prompt above, or run the lanes: {run}."))
            words = self._refusal or (_("looking…") if self.tokens else empty)
            why.update(Text(words, style="dim"))
            self._clear()
            return
        if self.picture == "patching" and self._lab.interventions:
            why.display = True
            why.update(
                Text(_("the map is of the model without interventions; look at a lane without any"), style="dim")
            )
            self.patching.show(None)
            return
        position = max(self.position, self.record.first_position)
        seen = LookedAt(self.tokens, position, self.record, self._label)
        getattr(self, self.picture).show(seen)

    def _clear(self) -> None:
        for picture in (self.lens, self.attention, self.attribution, self.patching):
            picture.show(None)

    def _label(self, id: int) -> str:
        tokenizer = self._lab.tokenizer
        return drawn(tokenizer.label(id)) if tokenizer is not None else str(id)

    def _head(self) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f" {NAMES[self.lane]} ", style="bold reverse")
        if self.tokens:
            token, place = self.tokens[self.position], self.position
            line.append(
                " "
                + _(
                    "after “{token}”, position {place} of {count}",
                    token=drawn(token.label),
                    place=place,
                    count=len(self.tokens),
                )
            )
            if place + 1 < len(self.tokens):
                line.append(" → ", style="dim")
                line.append(f"“{drawn(self.tokens[place + 1].label)}”", style="bold")
            if self.record is not None and self.record.first_position:
                line.append("  " + _("the last {count:,} positions are kept", count=len(self.record.positions)), "dim")
            if self._lab.interventions:
                line.append("  " + _("under {interventions}", interventions="; ".join(self._lab.interventions)), "bold")
        self.query_one(".inside-head", Static).update(line, layout=False)

    def focus_picture(self) -> None:
        """Give the keys to the open picture."""
        getattr(self, self.picture).query_one(FIRST[self.picture]).focus()

    def _point(self, position: int) -> None:
        self._pointed(self.lane, position)
