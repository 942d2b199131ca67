"""The Inside view: where a lane's logits come from, looked at in four ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual import getters, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import ContentSwitcher, Static

from engine.base.language import N_, _
from engine.generation.events import Failed
from engine.lab import Lab
from engine.text.token import Token
from tui.actions import PICTURES, bindings
from tui.panes.attention import AttentionPicture
from tui.panes.attribution import AttributionPicture
from tui.panes.lane_states import NAMES
from tui.panes.lens import LensPicture
from tui.panes.occlusion import OcclusionPicture
from tui.panes.picture import LookedAt
from tui.widgets.grid import Grid
from tui.widgets.hint import Hint, say
from tui.widgets.signed_bars import SignedBars
from tui.widgets.token_flow import TokenFlow

if TYPE_CHECKING:
    from engine.inside.record import Record
    from engine.job import Job

# What each picture must not be read as.
CAVEATS = {
    "lens": N_("What the output layer would say to this vector, not what the model thinks."),
    "attention": N_("A weight is no cause: what matters, 4 measures. v shows what a weight moves."),
    "attribution": N_("The direct way to the logits only, with the final norm's scale held as it is."),
    "occlusion": N_("A measured cause: the text is run once more without each token."),
}
# What has the focus when a picture opens.
FIRST = {"lens": Grid, "attention": TokenFlow, "attribution": SignedBars, "occlusion": TokenFlow}


@dataclass(frozen=True, slots=True)
class LaneText:
    """What a lane has so far.

    Attributes:
        tokens: of its prompt and of what is written.
        prompt: how many of them are the prompt's.
        cursor: the written token that is pointed at, if one is.
    """

    tokens: Sequence[Token]
    prompt: int
    cursor: int | None = None

    @property
    def position(self) -> int:
        """The last token read before the one that is looked at: the one under the cursor, or the newest."""
        written = len(self.tokens) - self.prompt
        index = written - 1 if self.cursor is None else self.cursor
        return max(0, self.prompt + index - 1 if written else self.prompt - 1)


class InsideLane(Vertical):
    """One lane's text, looked at."""

    pictures = getters.query_one(ContentSwitcher)
    lens = getters.query_one(LensPicture)
    attention = getters.query_one(AttentionPicture)
    attribution = getters.query_one(AttributionPicture)
    occlusion = getters.query_one(OcclusionPicture)

    @dataclass
    class Pointed(Message):
        """The cursor of a lane is at another position."""

        lane: int
        position: int

    def __init__(self, lab: Lab, lane: int) -> None:
        super().__init__(id=f"inside-{NAMES[lane].lower()}", classes="inside-lane")
        self.lane = lane
        self.tokens: Sequence[Token] = ()
        self.position = 0
        self.record: Record | None = None
        self._lab = lab
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
            ):
                with Vertical(id=f"{name}-{self.lane}", classes="inside-room"):
                    yield picture(self._lab)

    # What is looked at.

    def look(self, tokens: Sequence[Token], position: int, picture: str) -> None:
        """Look at a position of a text in one way; the text is recorded where it is another."""
        self.pictures.current = f"{picture}-{self.lane}"
        if [token.id for token in tokens] != [token.id for token in self.tokens] or (
            tokens and self.record is None and not self.busy and not self._refusal
        ):
            self.forget()
            self.tokens = list(tokens)
            if tokens:
                self._job = self._lab.record([token.id for token in tokens])
                self._follow(self._job)
        self.position = max(0, min(position, len(tokens) - 1))
        self.draw()

    def forget(self) -> None:
        """The text, or the model, is another one."""
        self.stop()
        self.record, self.tokens, self._refusal = None, (), ""
        self._clear()

    @property
    def busy(self) -> bool:
        return self._job is not None and not self._job.done

    def stop(self) -> bool:
        """Stop what is computed; whether anything was."""
        stopped = [picture.stop() for picture in (self.lens, self.attention, self.attribution, self.occlusion)]
        job, self._job = self._job, None
        if job is not None and not job.done:
            job.cancel()
            self._refusal = _("stopped; p or another key looks again")
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
            empty = _("Type a prompt above, or run the lanes: F5.")
            words = self._refusal or (_("looking…") if self.tokens else empty)
            why.update(Text(words, style="dim"))
            self._clear()
            return
        position = max(self.position, self.record.first_position)
        seen = LookedAt(self.tokens, position, self.record, self._label)
        getattr(self, self.picture).show(seen)

    def _clear(self) -> None:
        for picture in (self.lens, self.attention, self.attribution):
            picture.show(None)

    def _label(self, id: int) -> str:
        tokenizer = self._lab.tokenizer
        return tokenizer.label(id) if tokenizer is not None else str(id)

    def _head(self) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f" {NAMES[self.lane]} ", style="bold reverse")
        if self.tokens:
            token, place = self.tokens[self.position], self.position
            line.append(
                " "
                + _(
                    "after “{token}”, position {place} of {count}",
                    token=token.label,
                    place=place,
                    count=len(self.tokens),
                )
            )
            if place + 1 < len(self.tokens):
                line.append(" → ", style="dim")
                line.append(f"“{self.tokens[place + 1].label}”", style="bold")
            if self.record is not None and self.record.first_position:
                line.append("  " + _("the last {count:,} positions are kept", count=len(self.record.positions)), "dim")
        self.query_one(".inside-head", Static).update(line)

    def focus_picture(self) -> None:
        """Give the keys to the open picture."""
        getattr(self, self.picture).query_one(FIRST[self.picture]).focus()

    # Messages of the pictures.

    def _point(self, position: int) -> None:
        self.post_message(self.Pointed(self.lane, position))

    def on_lens_picture_pointed(self, event: LensPicture.Pointed) -> None:
        event.stop()
        self._point(event.position)

    def on_attention_picture_pointed(self, event: AttentionPicture.Pointed) -> None:
        event.stop()
        self._point(event.position)

    def on_occlusion_picture_pointed(self, event: OcclusionPicture.Pointed) -> None:
        event.stop()
        self._point(event.position)


class InsidePane(Vertical):
    """Lens, attention, attribution and occlusion of one lane, or of both.

    Attributes:
        picture: which of them.
        lane: whose text is looked at.
        both: whether both lanes are.
        opened: whether the view was open once.
    """

    BINDINGS = bindings("inside")

    @dataclass
    class Pointed(Message):
        """A lane is looked at at another position of its text."""

        lane: int
        position: int

    class Wanted(Message):
        """The lanes' texts are wanted anew."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(id="inside")
        self.picture = "lens"
        self.lane = 0
        self.both = False
        self.opened = False
        self._mounting = False
        self._wanted: tuple[str, int | None] | None = None
        self._texts: Sequence[LaneText] = (LaneText((), 0), LaneText((), 0))
        self.lanes = (InsideLane(lab, 0), InsideLane(lab, 1))

    async def open(self) -> None:
        """Mount what the view is made of, once: the lab's first frame does not wait for it."""
        if not self._mounting:
            self._mounting = True
            await self.mount(
                Static(id="inside-pictures"), Horizontal(*self.lanes, id="inside-lanes"), Hint(id="inside-says")
            )
            self.opened = True

    @property
    def running(self) -> bool:
        return any(lane.busy for lane in self.lanes)

    def stop(self) -> bool:
        """Stop what is computed; whether anything was."""
        stopped = [lane for lane in self.lanes if self.opened and lane.stop()]
        for lane in stopped:
            lane.draw()
        return bool(stopped)

    def forget(self) -> None:
        """Another model is there."""
        if self.opened:
            for lane in self.lanes:
                lane.forget()

    def show(self, texts: Sequence[LaneText], lane: int) -> None:
        """Look at what the lanes have so far, one of them where not both are shown."""
        same = [one.id for one in texts[lane].tokens] == [one.id for one in self.lanes[lane].tokens]
        self._texts, self.lane = texts, lane
        if self.opened:
            stays = same and texts[lane].cursor is None and texts[lane].tokens
            self._draw(self.lanes[lane].position if stays else texts[lane].position)
            if self._wanted is not None:
                self.look(*self._wanted)

    def look(self, picture: str, position: int | None = None) -> None:
        """Open a picture, at a position of the text."""
        self._wanted = None if self.opened else (picture, position)
        if not self.opened:
            return
        self.picture = picture
        self._draw(self.lanes[self.lane].position if position is None else position)
        self.focus_picture()

    def focus_picture(self) -> None:
        """Give the keys to the open picture."""
        self.lanes[self.lane].focus_picture()

    def _draw(self, position: int) -> None:
        self.set_class(self.both, "both")
        for one in self.lanes:
            one.display = self.both or one.lane == self.lane
            if one.display:
                one.look(self._texts[one.lane].tokens, position, self.picture)
        self._tell()

    def _tell(self) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        for number, (name, title) in enumerate(PICTURES.items(), start=1):
            style = "bold reverse" if name == self.picture else "dim"
            line.append(f" {number} {_(title)} ", style=style)
            line.append(" ")
        self.query_one("#inside-pictures", Static).update(line)
        say(self, _(CAVEATS[self.picture]))

    def on_inside_lane_pointed(self, event: InsideLane.Pointed) -> None:
        event.stop()
        self.lane = event.lane
        for one in self.lanes:
            if one.display:
                one.look(self._texts[one.lane].tokens, event.position, self.picture)
        self.post_message(self.Pointed(event.lane, event.position))

    def possible(self, action: str) -> bool:
        """Whether an action can do something now."""
        return action not in ("other", "lock") or all(text.tokens for text in self._texts)

    # Keys.

    def action_picture(self, name: str) -> None:
        self.look(name)

    def action_next_picture(self) -> None:
        names = list(PICTURES)
        self.look(names[(names.index(self.picture) + 1) % len(names)])

    def action_lock(self) -> None:
        """Both lanes side by side, or one."""
        self.both = not self.both
        self._draw(self.lanes[self.lane].position)
        self.focus_picture()

    def action_other(self) -> None:
        """The other lane's text."""
        position = self.lanes[self.lane].position
        self.lane = 1 - self.lane
        self._draw(position)
        self.focus_picture()
