"""Two configurations generating side by side."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.geometry import Region
from textual.widgets import Static

from engine.base.language import _, counted
from engine.generation.branches import parting_of_texts, step_at
from engine.generation.config import GenerationConfig
from engine.generation.events import Beamed, FinishReason, Stepped, Survived, ended
from engine.generation.result import drafted, timing
from engine.text.thinking import open_mark, thinking_tokens
from engine.text.token import Token
from tui.panes.drafts import draft_words
from tui.panes.lane_states import NAMES
from tui.sentences import key
from tui.style.colours import OPINIONS
from tui.widgets.entropy_line import EntropyLine, scale_of
from tui.widgets.token_flow import TokenFlow

# Tokens at a prompt's end among which the mark of thinking is that an answer begins in.
LONGEST_MARK = 16


class LanePane(Vertical):
    """One lane: its text as it grows, its configuration in the title, its speed below.

    Args:
        pointed: called with the lane and the step that its cursor goes to.
    """

    _only_below = False

    def __init__(self, lane: int, config: GenerationConfig, pointed: Callable[[int, int], object]) -> None:
        super().__init__(id=f"lane-{NAMES[lane].lower()}", classes="lane")
        self.lane = lane
        self._pointed = pointed
        self.config = config
        self.steps: list[Stepped] = []
        self.reason: FinishReason | None = None
        self.prefill_seconds = 0.0
        self.running = False
        self._wrote = config  # what is shown
        self.opinions: Sequence[object] = ()  # the other lane's model's, of each step
        self._first = 0  # steps that were there before the run
        self._limit = config.max_new_tokens
        self._title = ""
        self.note = ""  # what is to be said of the run
        self._previewed = False  # tokens are shown that are no steps yet
        self.search: Beamed | None = None  # the newest round of the beam search that writes
        self.survivors: list[Survived] = []  # its beams beside the best, once it is over
        self.folded = False  # whether of thinking only its length is shown
        self.opened: str | None = None  # the mark of thinking that the prompt ends with

    def compose(self) -> ComposeResult:
        yield Static(
            _(
                "{run} runs · {key} edits this configuration",
                key=key("edit_b" if self.lane else "edit_a"),
                run=key("run"),
            ),
            classes="hint",
        )
        yield TokenFlow(moved=self._point_at)
        yield EntropyLine()

    def on_mount(self) -> None:
        self.tell()
        self.watch(self.query_one(TokenFlow), "cursor", self._mark)

    def _mark(self, cursor: int | None) -> None:
        self.query_one(EntropyLine).cursor = cursor

    def configure(self, config: GenerationConfig) -> None:
        """Show another configuration; what is written stays, and how far it was to go."""
        self.config = config
        self.tell()

    def start(
        self, config: GenerationConfig, steps: Sequence[Stepped], limit: int, prompt: Sequence[Token] = ()
    ) -> None:
        """Begin a run that is empty, or goes on after some steps, until there are `limit`."""
        self.note = ""
        self.show(config, steps, None, limit, prompt=prompt, running=True, first=len(steps))

    def show(
        self,
        config: GenerationConfig,
        steps: Sequence[Stepped],
        reason: FinishReason | None,
        limit: int,
        prefill: float = 0.0,
        *,
        prompt: Sequence[Token] = (),
        running: bool = False,
        first: int = 0,
    ) -> None:
        """Show a continuation of a prompt as it is; `first` is the step from which on its speed is counted."""
        self._first = first
        self.opened = open_mark("".join(token.piece for token in prompt[-LONGEST_MARK:]))
        self.config, self.steps, self.reason, self.running = config, list(steps), reason, running
        self._previewed, self.search, self.survivors = False, None, []
        self._limit, self._wrote = limit, config
        self.prefill_seconds = prefill
        flow = self.query_one(TokenFlow)
        self.opinions = ()
        flow.judged, flow.marked = self.steps, None
        if flow.cursor is not None and flow.cursor >= len(self.steps):
            flow.cursor = None
        flow.set_tokens([step.token for step in self.steps])
        self._think()
        begun = bool(steps) or reason is not None or running
        focused = flow.has_focus or self.has_focus
        self.can_focus = not begun  # where there are no tokens to go to, keys still belong to the lane
        self.set_class(begun, "begun")
        if focused:
            (flow if begun else self).focus()
        self.tell()

    def extend(self, steps: list[Stepped]) -> None:
        """Add steps at the end."""
        self.steps += steps
        if self._previewed:
            self._previewed = False
            self.query_one(TokenFlow).set_tokens([step.token for step in self.steps])
            self._think()
            return
        self._think()
        self.query_one(TokenFlow).extend([step.token for step in steps])

    def _think(self) -> None:
        """Show as such what is thinking; folded once it has ended, where that is wanted."""
        found = thinking_tokens([step.token.piece for step in self.steps], self.opened)
        ended = [one for one in found if one.stop < len(self.steps) or not self.running]
        self.query_one(TokenFlow).think(found, ended if self.folded else ())

    @property
    def thinks(self) -> bool:
        """Whether there is thinking in what it wrote."""
        return bool(thinking_tokens([step.token.piece for step in self.steps], self.opened))

    def fold(self, folded: bool) -> None:
        """Show of thinking only how long it is, or all of it."""
        self.folded = folded
        self._think()

    def preview(self, found: Beamed) -> None:
        """Show the best text of a beam search, which another may still take the place of."""
        self._previewed, self.search = True, found
        running = sum(beam.state == "running" for beam in found.beams)
        if (best := found.leader) is not None:
            self.note = counted(
                "round {round}, {count} beam, {score:.2f}",
                "round {round}, {count} beams, {score:.2f}",
                running,
                round=found.round,
                score=best.score,
            )
        self.query_one(TokenFlow).set_tokens([*(step.token for step in self.steps), *found.best])
        self.tell()

    @property
    def written(self) -> int:
        """How many steps the run has added."""
        return len(self.steps) - self._first

    @property
    def cursor(self) -> int | None:
        """The step that is looked at."""
        return self.query_one(TokenFlow).cursor

    def point(self, index: int | None) -> None:
        """Look at a step without telling anybody."""
        self.query_one(TokenFlow).cursor = None if index is None or index >= len(self.steps) else index

    def judge(self, opinions: Sequence[object]) -> None:
        """What the other lane's model thinks of each step."""
        self.opinions = opinions
        self.colour(self.query_one(TokenFlow).mode)

    def colour(self, mode: str) -> None:
        """Colour the tokens by a mode of `tui.style.colours`."""
        flow = self.query_one(TokenFlow)
        flow.judged = self.opinions if mode in OPINIONS else self.steps
        flow.mode = mode
        flow.refresh()

    def finish(self, reason: FinishReason) -> None:
        self.reason, self.running = reason, False
        self._think()
        self.tell()

    @property
    def tokens_per_second(self) -> float:
        """Of its last tokens, as they appear: what other lanes do between them counts."""
        return timing(self.prefill_seconds, self.steps[self._first :][-40:])["tokens_per_second"]

    def _point_at(self, index: int) -> None:
        if index < len(self.steps):
            self._pointed(self.lane, index)

    def on_entropy_line_pointed(self, event: EntropyLine.Pointed) -> None:
        event.stop()
        flow = self.query_one(TokenFlow)
        flow.cursor = event.index
        flow.focus()
        self._point_at(event.index)

    def tell(self) -> None:
        """Bring title and numbers up to date."""
        title = f"{NAMES[self.lane]} · {self.config.summary}"
        if title != self._title:
            self._title = title
            self.border_title = Text(title)
        written = self.steps[self._first :]
        below = [f"{len(self.steps)}/{self._limit}"] if self.steps or self.reason else []
        if self.running and not written and not self._previewed:
            below = [_("reading the prompt…")]
        if len(written) > 1:
            below.append(_("{rate:.0f} tokens/s", rate=timing(self.prefill_seconds, written)["tokens_per_second"]))
        if self.note:
            below.append(self.note)
        elif self._wrote.draft is not None and self.steps:
            below.append(draft_words(drafted(self.steps)))
        if self.reason:
            below.append(ended(self.reason))
        wrote = self._wrote
        if self.steps and (wrote.model, wrote.precision) != (self.config.model, self.config.precision):
            below.append(_("written by {model}", model=wrote.model_label or _("the lab's model")))
        with self._drawing_only_below():
            self.border_subtitle = Text(" · ".join(below))

    @contextmanager
    def _drawing_only_below(self) -> Iterator[None]:
        """A new title makes Textual draw the whole lane again; its last row is enough."""
        self._only_below = True
        yield
        self._only_below = False

    def refresh(self, *regions: Region, **what: bool) -> Self:
        if self._only_below and not regions:
            regions = (Region(-1, self.size.height, self.outer_size.width, 1),)
        return super().refresh(*regions, **what)


class LanesPane(Horizontal):
    """Lanes A and B.

    Args:
        pointed: called with the lane and the step that a cursor goes to.

    Attributes:
        parted: the first step at which they differ, if they have parted: lane A's, where texts are compared.
        by_text: their vocabularies differ, so that texts are compared and not tokens.
        locked: both cursors stand at the same step, or where the texts are as long, and the lanes write in step.
    """

    parted: int | None = None
    by_text = False
    locked = False

    def __init__(self, configs: Sequence[GenerationConfig], pointed: Callable[[int, int], object]) -> None:
        super().__init__(id="lanes")
        self._pointed = pointed
        self.lanes = (LanePane(0, configs[0], self._point), LanePane(1, configs[1], self._point))
        self._alike = 0

    def compose(self) -> ComposeResult:
        yield from self.lanes

    def compare(self) -> None:
        """Mark where the lanes part, and draw their entropies on one scale."""
        self._draw_entropies()
        a, b = self.lanes
        found = parting_of_texts(a.steps, b.steps) if self.by_text else self._parting()
        self.parted = None if found is None else found[0]
        for lane, place in zip(self.lanes, (None, None) if found is None else found):
            flow = lane.query_one(TokenFlow)
            if flow.marked != place:
                flow.mark(place)

    def _parting(self) -> tuple[int, int] | None:
        """The step of each with which their tokens part."""
        a, b = self.lanes
        # Steps are only added, so a parting that was found stays until a lane begins anew.
        start = self._alike if min(len(a.steps), len(b.steps)) >= self._alike else 0
        place = start
        while place < min(len(a.steps), len(b.steps)) and a.steps[place].token.id == b.steps[place].token.id:
            place += 1
        self._alike = place
        return (place, place) if place < min(len(a.steps), len(b.steps)) else None

    def beside(self, lane: int, index: int | None) -> int | None:
        """The other lane's step that stands beside one of a lane."""
        if index is None or not self.by_text:
            return index
        before = sum(len(step.token.text) for step in self.lanes[lane].steps[:index])
        return step_at(self.lanes[1 - lane].steps, before)

    def _draw_entropies(self) -> None:
        drawn = [lane.query_one(EntropyLine) for lane in self.lanes]
        values = [[step.entropy_bits for step in lane.steps] for lane in self.lanes]
        end = scale_of([value for lane in values for value in lane])
        for line, lane in zip(drawn, values):
            line.show(lane, end)

    def begin_anew(self) -> None:
        """Another continuation is shown: what was alike may not be."""
        self._alike = 0
        self.compare()

    def colour(self, mode: str) -> None:
        """Colour both lanes' tokens by a mode of `tui.style.colours`."""
        for lane in self.lanes:
            lane.colour(mode)

    def _point(self, lane: int, index: int) -> None:
        """With locked cursors the other lane goes along."""
        if self.locked:
            self.lanes[1 - lane].point(self.beside(lane, index))
        self._pointed(lane, index)

    def bring_together(self, lane: int) -> None:
        """With locked cursors, put the other lane's where that of `lane` stands, once it is written so far."""
        other = self.lanes[1 - lane]
        if self.locked and other.cursor is None:
            other.point(self.beside(lane, self.lanes[lane].cursor))

    @property
    def rates(self) -> dict[str, float]:
        """Tokens a second of each lane that has a rate, by its name."""
        found = {NAMES[lane.lane]: lane.tokens_per_second for lane in self.lanes if lane.running or lane.reason}
        return {name: rate for name, rate in found.items() if rate}
