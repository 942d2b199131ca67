"""The logit lens: what the output layer would say after each block, at each position."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich.cells import set_cell_size
from rich.text import Text
from textual import getters, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from engine.base.chart import Chart, Series
from engine.base.language import _
from engine.base.plain import bar, percent
from engine.generation.events import Failed
from tui.actions import bindings
from tui.panes.lane_lab import LaneLab
from tui.panes.picture import LookedAt, Picture, first_token
from tui.style.colours import SCALES, palette
from tui.widgets.chart_view import ChartView
from tui.widgets.grid import Cell, Grid

Measure = Literal["probability", "entropy", "rank"]

if TYPE_CHECKING:
    from engine.inside.lens import Lens, LensCell, LensRow, Track
    from engine.job import Job

# What the ground of a cell tells.
MEASURES: tuple[Measure, ...] = ("probability", "entropy", "rank")  # named in `tui.style.colours`
CELL_WIDTH = 9
BEST = 10
MOST_FOLLOWED = 5


class LensPicture(Picture):
    """Layers from bottom to top, positions from left to right; beside them a cell's best tokens and their way up.

    Attributes:
        lens: as far as it is computed.
        measure: what the ground of a cell tells, one of `MEASURES`.
    """

    BINDINGS = bindings("lens")

    grid = getters.query_one(Grid)

    def __init__(self, lab: LaneLab, pointed: Callable[[int], object]) -> None:
        super().__init__(lab, "lens", pointed)
        self._seen: LookedAt | None = None
        self._decided: Sequence[int | None] = ()
        self.measure: Measure = MEASURES[0]
        self._by_rank = False
        self._followed: tuple[int, ...] = ()
        self._tracing: Job[Any] | None = None
        self._tracks: tuple[Track, ...] = ()
        self._charted: tuple[Track, ...] = ()
        self._traced: tuple[object, ...] | None = None
        self.lens: Lens | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(classes="lens-room"):
            yield Grid(CELL_WIDTH, self._go, folds=True)
            with Vertical(classes="lens-side"):
                yield Static(classes="lens-cell")
                yield ChartView()
        yield Static(classes="lens-line")

    @property
    def whole(self) -> "Lens | None":
        """The lens, once all of its rows are computed."""
        lens = self.lens
        return lens if lens is not None and len(lens.rows) == lens.blocks + 1 else None

    def show(self, seen: LookedAt | None) -> None:
        """Show another text, or another position of the same."""
        before, self._seen = self._seen, seen
        if seen is None:
            self.stop()
            self.lens = None
            self.grid.show((), (), self._cell)
        elif before is None or before.record is not seen.record or self.lens is None:
            self._compute(seen)
        else:
            self.grid.point(self.grid.cursor[0], seen.place)
        self._describe()

    def _compute(self, seen: LookedAt) -> None:
        from engine.inside.lens import Lens, lens_rows

        record = seen.record
        self.stop()
        self.lens = Lens(record.blocks, {})
        self._decided = ()
        labels = [token.label for token in seen.tokens[record.first_position :]]
        rows = [str(row) for row in range(record.blocks + 1)]
        self.grid.show(rows, labels, self._cell, (record.blocks, seen.place))
        self._job = self._lab.look(lambda model, job: lens_rows(record, top=BEST, cancelled=lambda: job.cancelled))
        self._follow(self._job, self.lens)

    def _trace(self) -> None:
        """The way of the chosen tokens, or of those that are on top somewhere, through the layers at the cursor."""
        from engine.inside.lens import trajectory

        cell, seen = self._cell_at(*self.grid.cursor), self._seen
        if cell is None or seen is None:
            return
        position = cell.position
        wanted = (seen.record, position, self._followed)
        if wanted == self._traced or not self.query_one(".lens-side").display:
            return
        self._traced = wanted
        if self._tracing is not None:
            self._tracing.cancel()
        followed = self._followed or None

        def body(model: object, job: "Job[Any]") -> "Iterator[tuple[Track, ...]]":
            yield trajectory(seen.record, position, followed, cancelled=lambda: job.cancelled)

        self._tracing = self._lab.look(body)
        self._follow_trace(self._tracing)

    @work(group="trace", exclusive=True)
    async def _follow_trace(self, job: "Job[Any]") -> None:
        async for event in job:
            if job is not self._tracing:
                return
            if isinstance(event, Failed):
                self.notify(str(event.error), severity="warning", markup=False)
            else:
                self._tracks = event
                self._chart()

    def _chart(self) -> None:
        """Draw the tracks: rows from left to right, probability or rank upwards."""
        if self._seen is None:
            return
        worst = max((one.rank for track in self._tracks for one in track.said), default=1)
        tens = max(1, math.ceil(math.log10(worst)))
        series = []
        for ink, track in enumerate(self._tracks):
            values = [-math.log10(one.rank) if self._by_rank else 100 * one.probability for one in track.said]
            series.append(Series(self._seen.label(track.id), ink, list(enumerate(values))))
        if self._by_rank:
            ranks = [(-float(place), f"{10**place:,}") for place in range(tens, -1, -1)]
            chart = Chart(_("rank by layer"), _("layer"), series, y_ticks=ranks)
        else:
            chart = Chart(_("probability by layer"), _("layer"), series, y=(0, 100), unit=" %")
        self.query_one(ChartView).show(chart)
        self._charted = self._tracks

    @work(group="lens", exclusive=True)
    async def _follow(self, job: "Job[LensRow]", lens: "Lens") -> None:
        async for frame in job.frames():
            for event in frame:
                if isinstance(event, Failed):
                    self.notify(str(event.error), severity="warning", markup=False)
                else:
                    lens.rows[event.row] = event
            if lens is not self.lens:
                return
            self._decided = lens.decided_at
            self.grid.refresh()
            self._describe()

    def on_resize(self) -> None:
        self.grid.folds = self.screen.has_class("-low")
        self.grid.refresh()

    # A cell.

    def _cell(self, row: int, column: int) -> Cell:
        cell = self._cell_at(row, column)
        if cell is None:
            return Cell("…", faint=True)
        colours = palette(self.app)
        scale = SCALES[self.measure]
        value = {
            "probability": 1 - cell.top[0].probability,
            "entropy": cell.entropy_bits,
            "rank": float(cell.final.rank),
        }[self.measure]
        label = self._seen.label(cell.top[0].id) if self._seen is not None else ""
        marked = column < len(self._decided) and self._decided[column] == row
        return Cell(label, colours.bins(self.measure)[scale.bin(value)], marked)

    def _cell_at(self, row: int, column: int) -> "LensCell | None":
        if self.lens is None or self._seen is None:
            return None
        return self.lens.cell(row, column + self._seen.record.first_position)

    def _describe(self) -> None:
        """The cell under the cursor: its best tokens, and their way through the rows."""
        row, column = self.grid.cursor
        cell = self._cell_at(row, column)
        side, line = self.query_one(".lens-cell", Static), self.query_one(".lens-line", Static)
        if cell is None or self._seen is None or self.lens is None:
            side.update("", layout=False)
            line.update("", layout=False)
            return
        token = self._seen.tokens[cell.position]
        where = _("layer {row} of {last} · after “{token}”", row=row, last=self.lens.blocks, token=token.label)
        text = Text(where, style="bold", no_wrap=True, overflow="ellipsis")
        decided = self._decided[column] if column < len(self._decided) else None
        if decided is not None:
            text.append(
                "\n" + _("decided at layer {row} · entropy {bits:.1f} bits", row=decided, bits=cell.entropy_bits)
            )
        short = Text(f"{where}  ", no_wrap=True, overflow="ellipsis")
        most = cell.top[0].probability
        for one in cell.top:
            label = self._seen.label(one.id)
            text.append(f"\n{one.rank:>3} {set_cell_size(label, 14)} {percent(one.probability):>8} ")
            text.append(bar(one.probability, most, 10))
            short.append(f" {label} ", style="bold")
            short.append(percent(one.probability), style="dim")
        side.update(text, layout=False)
        line.update(short, layout=False)
        self.call_after_refresh(self._trace)  # its products would hold up the frame

    # Keys.

    def _go(self, row: int, column: int) -> None:
        if self._seen is not None:  # it comes back through `show`, for both lanes where both are looked at
            self._point_at(column + self._seen.record.first_position)

    def action_measure(self) -> None:
        """Colour cells by the next measure."""
        self.measure = MEASURES[(MEASURES.index(self.measure) + 1) % len(MEASURES)]
        self.grid.refresh()
        self._describe()

    def action_rank(self) -> None:
        """The chart by rank, or by probability."""
        self._by_rank = not self._by_rank
        if self._tracks:
            self._chart()

    def action_track(self) -> None:
        """Follow other tokens through the layers."""
        from tui.dialogs.texts import TextsDialog

        fields = [_("token {number}", number=number) for number in range(1, MOST_FOLLOWED + 1)]
        followed = [self._seen.label(id) for id in self._followed] if self._seen is not None else []
        hints = [_("now “{token}”", token=label) for label in followed] + [""] * (MOST_FOLLOWED - len(followed))
        title, hint = _("Follow tokens"), _("A space in front begins a new word. All empty: those that are on top.")
        self.app.push_screen(TextsDialog(title, list(zip(fields, hints)), hint, self._follow_tokens))

    def _follow_tokens(self, texts: Sequence[str]) -> None:
        tokenizer = self._tokenizer
        self._followed = tuple(dict.fromkeys(first_token(self, tokenizer, text) for text in texts if text))
        self._describe()
