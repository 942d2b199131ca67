"""The candidates of one step as rows with bars, to any depth of the vocabulary; only what is seen is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.base.language import _
from engine.base.plain import bar, percent
from engine.generation.events import Candidate
from engine.text.token import drawn
from tui.actions import bindings

if TYPE_CHECKING:
    from engine.generation.step_view import StepView

RULES = {"top_k": "top-k", "top_p": "top-p", "min_p": "min-p", "typical_p": "typical"}
LABEL_CELLS = 14
PAGE = 24


class CandidateList(ScrollView, can_focus=True):
    """Rows of `before → after` for each candidate; `after` is the stage that is looked at."""

    BINDINGS = bindings("candidates")

    cursor: reactive[int] = reactive(0)
    stage: reactive[str] = reactive("pick")

    @dataclass
    class Chosen(Message):
        """The lane is to go on with this candidate."""

        candidate: Candidate

    def __init__(self) -> None:
        super().__init__(id="candidates")
        self._inspection: StepView | None = None
        self._found: Sequence[Candidate] | None = None
        self._pages: dict[int, tuple[Candidate, ...]] = {}
        self._picked: int | None = None
        self._forced = False
        self._choice: int | None = None
        self._colour = ""

    def show(
        self,
        inspection: "StepView | None",
        *,
        found: Sequence[Candidate] | None = None,
        picked: int | None = None,
        forced: bool = False,
        colour: str = "",
    ) -> None:
        """Show another step, or the same under other settings.

        Args:
            found: only these candidates, as a filter found them.
            picked: the token that came of the step; `forced` if a person chose it.
            colour: of the bars.
        """
        self._inspection, self._found, self._pages = inspection, found, {}
        self._picked, self._forced, self._colour = picked, forced, colour or self._colour
        choice = inspection.choice if inspection is not None else None
        self._choice = choice.id if choice is not None else None
        self.virtual_size = Size(self.scrollable_content_region.width, len(self))
        self.cursor = max(0, min(self.cursor, len(self) - 1))
        self.refresh()

    def __len__(self) -> int:
        if self._found is not None:
            return len(self._found)
        return len(self._inspection) if self._inspection is not None else 0

    def __bool__(self) -> bool:
        return True

    @property
    def selected(self) -> Candidate | None:
        return self.row(self.cursor)

    def row(self, index: int) -> Candidate | None:
        """The candidate in a row."""
        if self._inspection is None or not 0 <= index < len(self):
            return None
        if self._found is not None:
            return self._found[index]
        page = index // PAGE
        if page not in self._pages:
            self._pages[page] = self._inspection.at(page * PAGE, (page + 1) * PAGE)
        return self._pages[page][index % PAGE]

    # Drawing.

    def render_line(self, y: int) -> Strip:
        index = y + self.scroll_offset.y
        width = self.scrollable_content_region.width
        candidate = self.row(index)
        base = self.rich_style
        if candidate is None or self._inspection is None:
            return Strip.blank(width, base)
        selected = index == self.cursor and self.has_focus
        style = base + Style(bgcolor=self.app.theme_variables["primary-muted"], bold=True) if selected else base
        return Strip(self._segments(candidate, width, style)).extend_cell_length(width, style).crop(0, width)

    def _segments(self, candidate: Candidate, width: int, base: Style) -> list[Segment]:
        cut = candidate.cut_by is not None and self.stage in ("truncation", "pick")
        cut = cut or (candidate.cut_by == "banned" and self.stage != "raw")
        picked = self._picks and candidate.id == self._picked
        name = base + Style(bold=picked or None, strike=cut or None, dim=cut or None)
        dim, bright = base + Style(dim=True), base + Style(color=self._colour or None)
        first = self.row(0) or candidate
        single = self.stage == "raw" or first.raw_probability is None
        before = self.stage if single else "raw"
        most = at_stage(first, before) if self._found is None else 1.0
        notes = 28 if self._inspection is not None and self._inspection.config.strategy == "contrastive" else 19
        room = width - 8 - LABEL_CELLS - 10 - notes - (0 if single else 12)
        cells = max(3, room if single else room // 2)
        segments = [
            Segment(f"{candidate.rank:>6,} ", dim),
            Segment(set_cell_size(drawn(candidate.text), LABEL_CELLS), name),
            Segment(f" {percent(at_stage(candidate, before)):>7} ", base),
            Segment(set_cell_size(bar(at_stage(candidate, before), most, cells), cells), bright if single else dim),
        ]
        if not single:
            after = at_stage(candidate, self.stage)
            top = max(most, at_stage(first, self.stage))
            segments += [
                Segment(" → ", dim),
                Segment(f"{percent(after):>7} ", name if not cut else dim),
                Segment(set_cell_size(bar(min(after, top), top, cells), cells), bright),
            ]
        return [*segments, Segment(" " + self._note(candidate), base + Style(bold=picked or None, dim=cut or None))]

    def _note(self, candidate: Candidate) -> str:
        """What is to be said of a candidate at the stage that is looked at."""
        assert self._inspection is not None
        config = self._inspection.config
        notes = []
        if self.stage != "raw" and (bias := config.bias_of(candidate.id)):
            notes.append(_("⊘ banned") if candidate.id in config.banned else f"{bias:+g}")
        if self.stage in ("truncation", "pick") and candidate.cut_by in RULES:
            assert candidate.cut_by is not None
            notes.append(f"✂ {RULES[candidate.cut_by]} {getattr(config, candidate.cut_by):g}")
        if self._picks:
            if candidate.id == self._picked:
                notes.append(_("◀ yours") if self._forced else _("◀ picked"))
            elif candidate.id == self._choice:
                notes.append(_("◁ would be picked"))
            if candidate.score is not None:
                notes.insert(0, f"sim {candidate.similarity:.2f} → {candidate.score:+.3f}")
        return " ".join(notes)

    @property
    def _picks(self) -> bool:
        """Whether the pick is looked at, or is not among the stages that there are."""
        return self.stage == "pick" or (self._inspection is not None and "pick" not in self._inspection.stages)

    # Moving.

    def watch_stage(self) -> None:
        self.refresh()

    def watch_cursor(self, before: int, now: int) -> None:
        for index in (before, now):
            self.refresh_lines(index, 1)
        top, height = self.scroll_offset.y, self.scrollable_content_region.height
        if not top <= now < top + height:
            self.scroll_to(y=now if now < top else now - height + 1, animate=False)

    def action_move(self, by: int) -> None:
        self.cursor = max(0, min(len(self) - 1, self.cursor + by))

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self.scrollable_content_region.height - 1))

    def action_go(self, index: int) -> None:
        self.cursor = max(0, index % len(self) if len(self) else 0)

    def action_choose(self) -> None:
        if (candidate := self.selected) is not None:
            self.post_message(self.Chosen(candidate))

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        if (offset := event.get_content_offset(self)) is not None:
            self.cursor = max(0, min(len(self) - 1, offset.y + self.scroll_offset.y))

    def on_resize(self) -> None:
        self.virtual_size = Size(self.scrollable_content_region.width, len(self))


def at_stage(candidate: Candidate, stage: str) -> float:
    """A candidate's probability after a stage."""
    after = {
        "raw": candidate.raw_probability,
        "penalty": candidate.penalised_probability,
        "temperature": candidate.tempered_probability,
    }.get(stage, candidate.probability)
    return 0.0 if after is None else after
