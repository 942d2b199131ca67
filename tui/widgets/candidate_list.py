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
from engine.generation.events import Candidate, Stage
from engine.generation.stages.registry import STAGES
from engine.text.token import drawn
from tui.actions import bindings
from tui.sentences import sentence
from tui.style.colours import field_ground

if TYPE_CHECKING:
    from engine.generation.step_view import StepView

# What a cut is called, and the setting that made it.
RULES = {
    stage.cut_rule: (stage.parameters[0].label, stage.parameters[0].name)
    for stage in STAGES
    if stage.group == "truncation"
}
RANK_CELLS = 6
LABEL_CELLS = 14
PAGE = 24
# Columns from which there is room for two candidates side by side, and what parts them.
TWO_COLUMNS = 160
GAP = 2
# The long tail is folded after this many candidates, or after as many as can be seen, where those are enough.
HEAD = 40
ENOUGH = 24


class CandidateList(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows of `before → after` for each candidate; `after` is the stage that is looked at.

    Where there is room, the right half goes on where the left one ends. The row after the first candidates sums up the
    rest, and opens it. A picked token that is out of sight stands in the last line.

    Attributes:
        cursor: the row that is pointed at.
        unfolded: whether the rest can be seen.
    """

    BINDINGS = bindings("candidates")

    cursor: reactive[int] = reactive(0)
    stage: reactive[Stage] = reactive("pick")

    @dataclass
    class Chosen(Message):
        """The lane is to go on with this candidate."""

        candidate: Candidate

    def __init__(self) -> None:
        super().__init__(id="candidates")
        self._inspection: StepView | None = None
        self._found: Sequence[Candidate] | None = None
        self._pages: dict[int, tuple[Candidate, ...]] = {}
        self._masses: dict[Stage, float] = {}
        self._picked: Candidate | None = None
        self._picked_place: int | None = None
        self._forced = False
        self._guessed: int | None = None
        self._choice: int | None = None
        self._colour = ""
        self._other: StepView | None = None  # what another model expected there
        self._other_colour = ""
        self._head = HEAD
        self.unfolded = False

    def show(
        self,
        inspection: "StepView | None",
        *,
        found: Sequence[Candidate] | None = None,
        picked: int | None = None,
        forced: bool = False,
        guessed: int | None = None,
        colour: str = "",
    ) -> None:
        """Show another step, or the same under other settings.

        Args:
            found: only these candidates, as a filter found them.
            picked: the token that came of the step; `forced` if a person chose it.
            guessed: the token that the draft guessed.
            colour: of the bars.
        """
        same = inspection is not None and self._inspection is not None and inspection.step is self._inspection.step
        self.unfolded = self.unfolded and same
        if not same:
            self._other = None
        self._inspection, self._found, self._pages, self._masses = inspection, found, {}, {}
        self._forced, self._guessed, self._colour = forced, guessed, colour or self._colour
        choice = inspection.choice if inspection is not None else None
        self._choice = choice.id if choice is not None else None
        known = inspection.of([picked]) if inspection is not None and picked is not None else ()
        self._picked = known[0] if known else None
        self._picked_place = self._place(self._picked)
        self._measure()
        self.cursor = max(0, min(self.cursor, len(self) - 1))
        self.refresh()

    def beside(self, other: "StepView | None", colour: str = "") -> None:
        """Show, in place of a stage, what another model of the same vocabulary expected, with bars of one scale.

        Args:
            other: `None` for the stages again.
        """
        self._other, self._other_colour = other, colour
        self.refresh()

    def _others(self, candidate: Candidate) -> float:
        """What the other model gives a candidate."""
        assert self._other is not None
        known = self._other.of([candidate.id]) if candidate.id < len(self._other) else ()
        return (known[0].raw_probability or 0.0) if known else 0.0

    # Rows: a candidate each, and one for the rest.

    def __len__(self) -> int:
        """Rows to scroll over."""
        if not self._folds:
            return self._count
        return self._count + 1 if self.unfolded else self._head + 1

    def __bool__(self) -> bool:
        return True

    @property
    def _count(self) -> int:
        """Candidates that can be looked at."""
        if self._found is not None:
            return len(self._found)
        return len(self._inspection) if self._inspection is not None else 0

    @property
    def _folds(self) -> bool:
        return self._found is None and self._count > self._head + 1

    @property
    def selected(self) -> Candidate | None:
        """The candidate under the cursor; `None` on the row that sums up the rest."""
        return self._candidate(self.cursor)

    def row(self, place: int) -> Candidate | None:
        """The candidate at a place of what is looked at, from 0, whether its row is folded or not."""
        if self._inspection is None or not 0 <= place < self._count:
            return None
        if self._found is not None:
            return self._found[place]
        page = place // PAGE
        if page not in self._pages:
            self._pages[page] = self._inspection.at(page * PAGE, (page + 1) * PAGE)
        return self._pages[page][place % PAGE]

    def _candidate(self, row: int) -> Candidate | None:
        if not self._folds or row < self._head:
            return self.row(row)
        return self.row(row - 1) if self.unfolded and row > self._head else None

    def _row_of(self, place: int | None) -> int | None:
        """The row of the candidate at a place; `None` where it is folded away."""
        if place is None or not self._folds or place < self._head:
            return place
        return place + 1 if self.unfolded else None

    def _place(self, wanted: Candidate | None) -> int | None:
        """Where a candidate is in what is looked at; `None` where it is not."""
        if wanted is None:
            return None
        if self._found is not None:
            return next((place for place, one in enumerate(self._found) if one.id == wanted.id), None)
        return None if self._inspection is None else self._inspection.place(wanted)

    # What can be seen.

    @property
    def columns(self) -> int:
        """Candidates side by side."""
        return 2 if self.scrollable_content_region.width >= TWO_COLUMNS else 1

    @property
    def _height(self) -> int:
        return max(1, self.scrollable_content_region.height)

    def _pinned(self, top: int) -> bool:
        """Whether the last line is the picked token's, which could not be seen below row `top`."""
        if self._picked is None or self._height < 2:
            return False
        row = self._row_of(self._picked_place)
        return row is None or not top <= row < top + self.columns * self._height

    def _lines(self, top: int) -> int:
        """Lines of rows, beneath row `top`."""
        return self._height - self._pinned(top)

    def _measure(self) -> None:
        """Fold after what can be seen, and make room to scroll over the rest."""
        room = self.columns * self._height - 1
        if self._picked_place is None or self._picked_place >= room:
            room -= self.columns
        self._head = room if room >= ENOUGH else HEAD
        rows, lines = len(self), self._lines(0)
        height = rows - self.columns * (self._height - 1) + self._height if rows > self.columns * lines else lines
        size = Size(self.scrollable_content_region.width, height)
        if size != self.virtual_size:
            self.virtual_size = size
            self._refresh_scrollbars()  # where there is nothing to scroll over any more, the bar would stay

    def on_resize(self) -> None:
        self._measure()
        self.cursor = max(0, min(self.cursor, len(self) - 1))

    # Drawing.

    def render_line(self, y: int) -> Strip:
        width, base, top = self.scrollable_content_region.width, self.rich_style, self.scroll_offset.y
        if self._inspection is None:
            return Strip.blank(width, base)
        if self._pinned(top) and y == self._height - 1:
            return self._pin(width)
        lines, columns = self._lines(top), self.columns
        each = (width - GAP * (columns - 1)) // columns
        strips = []
        for column in range(columns):
            strips.append(self._draw_row(top + column * lines + y, each))
            if column < columns - 1:
                strips.append(Strip([Segment(" " * GAP, base)], GAP))
        return Strip.join(strips).extend_cell_length(width, base).crop(0, width)

    def _draw_row(self, row: int, width: int) -> Strip:
        base = self.rich_style
        if not 0 <= row < len(self):
            return Strip.blank(width, base)
        selected = row == self.cursor and self.has_focus
        style = base + Style(bgcolor=self.app.theme_variables["primary-muted"], bold=True) if selected else base
        candidate = self._candidate(row)
        segments = self._rest(style, width) if candidate is None else self._segments(candidate, width, style)
        return Strip(segments).extend_cell_length(width, style).crop(0, width)

    def _pin(self, width: int) -> Strip:
        """The picked token, wherever it is."""
        assert self._picked is not None
        style = self.rich_style + Style(bgcolor=field_ground(self.app))
        each = (width - GAP * (self.columns - 1)) // self.columns
        segments = self._segments(self._picked, each, style)
        return Strip(segments).crop(0, each).extend_cell_length(width, style).crop(0, width)

    def _segments(self, candidate: Candidate, width: int, base: Style) -> list[Segment]:
        cut = self._is_cut(candidate)
        picked = self._picked is not None and candidate.id == self._picked.id
        name = base + Style(bold=picked or None, strike=cut or None, dim=cut or None)
        note = Segment(" " + self._note(candidate), base + Style(bold=picked or None, dim=cut or None))
        measured = []
        between = " → " if self._other is None else " │ "
        for column, (before, value, most, cells) in enumerate(self._measures(candidate, width)):
            style = base if before or self._other else name if not cut else base + Style(dim=True)
            bars = base + (Style(dim=True) if before and not self._other else Style(color=self._colour or None))
            if column and self._other:
                bars = base + Style(color=self._other_colour or None)
            measured += [Segment(between, base + Style(dim=True))] if column else [Segment(" ", base)]
            measured += [Segment(f"{percent(value):>7} ", style), Segment(_bar(value, most, cells), bars)]
        rank = Segment(f"{candidate.rank:>{RANK_CELLS},} ", base + Style(dim=True))
        return [rank, Segment(set_cell_size(drawn(candidate.text), LABEL_CELLS), name), *measured, note]

    def _measures(self, candidate: Candidate, width: int) -> list[tuple[bool, float, float, int]]:
        """What is drawn of a candidate: whether it is what was before, its probability, the most, cells of the bar."""
        first = self.row(0) or candidate
        if self._other is not None:
            cells, best = self._bar_cells(width), self._other.at(0, 1)
            most = max([first.raw_probability or 0.0, *(one.raw_probability or 0.0 for one in best)])
            return [
                (True, candidate.raw_probability or 0.0, most, cells),
                (False, self._others(candidate), most, cells),
            ]
        stages: list[Stage] = [self.stage] if self._single else ["raw", self.stage]
        cells = self._bar_cells(width)
        most = 1.0 if self._found is not None else first.after(stages[0]) or 0.0
        found = [(len(stages) > 1, candidate.after(stages[0]) or 0.0, most, cells)]
        if len(stages) > 1:
            after = candidate.after(self.stage) or 0.0
            top = max(most, first.after(self.stage) or 0.0)
            found.append((False, after, top, cells))
        return found

    def _rest(self, base: Style, width: int) -> list[Segment]:
        """The row that sums up what comes after the first candidates."""
        assert self._inspection is not None
        stages: list[Stage] = [self.stage] if self._single else ["raw", self.stage]
        blank = " " * (self._bar_cells(width))
        label = _("{count:,} more", count=self._count - self._head)
        drawn = [Segment(f"{'▾' if self.unfolded else '▸':>{RANK_CELLS}} {set_cell_size(label, LABEL_CELLS)} ", base)]
        for column, stage in enumerate(stages):
            if stage not in self._masses:
                self._masses[stage] = self._inspection.mass(self._head, stage)
            if column and self._other is not None:
                shown = [one for place in range(self._head) if (one := self.row(place)) is not None]
                rest = max(0.0, 1.0 - sum(map(self._others, shown)))
                drawn.append(Segment(f" │ {percent(rest):>7} {blank}", base))
                continue
            drawn.append(Segment(f"{' → ' if column else ''}{percent(self._masses[stage]):>7} {blank}", base))
        note = sentence(_("{candidates.choose} folds them") if self.unfolded else _("{candidates.choose} opens them"))
        return [*drawn, Segment(f" {note}", base + Style(dim=True))]

    @property
    def _single(self) -> bool:
        """Whether there is one number to a candidate: nothing comes before the raw ones, or they are not known."""
        if self._other is not None:
            return False
        first = self.row(0)
        return self.stage == "raw" or first is None or first.raw_probability is None

    def _bar_cells(self, width: int) -> int:
        notes = 28 if self._inspection is not None and self._inspection.config.strategy == "contrastive" else 19
        room = width - 8 - LABEL_CELLS - 10 - notes - (0 if self._single else 12)
        return max(3, room if self._single else room // 2)

    def _is_cut(self, candidate: Candidate) -> bool:
        """Whether a stage up to the one that is looked at has cut it."""
        return candidate.cut_by is not None and self.stage != "raw" and not candidate.after(self.stage)

    def _note(self, candidate: Candidate) -> str:
        """What is to be said of a candidate at the stage that is looked at."""
        assert self._inspection is not None
        config = self._inspection.config
        notes = []
        if self.stage != "raw" and (bias := config.bias_of(candidate.id)):
            notes.append(_("⊘ banned") if candidate.id in config.banned else f"{bias:+g}")
        if where := self._inspection.touched(candidate.id, self.stage):
            notes.append(_("↻ written") if where == "written" else _("↻ in the prompt"))
        if self._is_cut(candidate) and candidate.cut_by in RULES:
            name, setting = RULES[candidate.cut_by or ""]
            notes.append(f"✂ {_(name)} {getattr(config, setting):g}")
        if candidate.cut_by == "grammar" and self._is_cut(candidate):
            notes.append(_("✂ grammar"))
        if candidate.cut_by == "amateur" and self._is_cut(candidate):
            notes.append(_("✂ cut {cut:g}", cut=config.amateur_cut))
        if self._picked is not None and candidate.id == self._picked.id:
            notes.append(_("◀ yours") if self._forced else _("◀ picked"))
            if candidate.id == self._guessed:
                notes.append(_("⇉ guessed"))
        elif candidate.id == self._guessed:
            notes.append(_("⇉ guessed, not taken"))
        elif self._other is not None and any(one.id == candidate.id for one in self._other.at(0, 1)):
            notes.append(_("◁ the other's first"))
        elif self._picks and candidate.id == self._choice:
            notes.append(_("◁ would be picked"))
        if self._picks and candidate.score is not None:
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
        top = self.scroll_offset.y
        lines = self._lines(top)
        for row in (before, now):
            if top <= row < top + self.columns * lines:
                self.refresh_lines(top + (row - top) % lines, 1)
        if now < top:
            self.scroll_to(y=now, animate=False)
        elif now >= top + self.columns * lines:
            top = now - self.columns * self._height + 1
            if self._pinned(top):
                top = now - self.columns * (self._height - 1) + 1
            self.scroll_to(y=top, animate=False)

    def action_move(self, by: int) -> None:
        self.cursor = max(0, min(len(self) - 1, self.cursor + by))

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self._height - 1))

    def action_go(self, index: int) -> None:
        self.cursor = max(0, index % len(self) if len(self) else 0)

    def action_choose(self) -> None:
        """Go on with the candidate; on the row of the rest, open that or fold it."""
        if (candidate := self.selected) is not None:
            self.post_message(self.Chosen(candidate))
        elif self._folds:
            self.unfolded = not self.unfolded
            self._measure()
            self.refresh()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        top = self.scroll_offset.y
        lines = self._lines(top)
        if offset.y < lines:
            column = offset.x * self.columns // max(1, self.scrollable_content_region.width)
            self.cursor = max(0, min(len(self) - 1, top + column * lines + offset.y))


def _bar(value: float, most: float, cells: int) -> str:
    return set_cell_size(bar(value, most, cells), cells)
