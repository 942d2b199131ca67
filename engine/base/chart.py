"""Charts in terminal cells: curves, points with their spread and bars, on axes with round ticks.

A chart is data; `draw` makes rows of text of it, whose colours are left to the one that shows them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Literal

from engine.base.plain import at_right, bar, cells, shortened
from engine.base.ticks import Ticks, ticks

# A series' number, from 0; or what is no series: the title, and axes with what is written at them.
Ink = int | Literal["title", "axis"]
Point = tuple[float, float]

MARKS = "●■▲◆○□"  # a form a series too, for eyes and terminals without colours
INKS = len(MARKS)
ROWS_A_TICK = 3
BETWEEN_LABELS = 6
LEAST_BAR = 4
MOST_SPARED = 2  # rows that a plot goes without, so that its ticks are as far from one another
LEAST_COLUMNS, LEAST_ROWS = 8, 4  # below them a plot would say nothing
ROWS_FOR_NAME = 12  # a plot this high names its x axis in a row below, a lower one in the axis


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a row, in one colour."""

    text: str
    ink: Ink


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers of one kind.

    Attributes:
        name: in the legend; nameless ones are not in it.
        ink: its colour, and the form of its points.
        line: is drawn from one point to the next.
        points: are marked.
        spreads: places on the x axis, each with its least and its greatest value.
    """

    name: str
    ink: int
    line: Sequence[Point] = ()
    points: Sequence[Point] = ()
    spreads: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: a label, a bar and its number as people read it."""

    label: str
    value: float
    number: str
    ink: int


@dataclass(frozen=True, slots=True)
class Chart:
    """Either series over an axis, or bars.

    Attributes:
        x_name: what the x axis counts; its ticks are whole.
        y: the range that is shown; a curve that leaves it is cut. All that is given where it is `None`.
        unit: is written after the numbers of the y axis.
        y_ticks: values with their labels, in place of round ones; the range reaches from the first to the last.
    """

    title: str = ""
    x_name: str = ""
    series: Sequence[Series] = ()
    bars: Sequence[Bar] = ()
    y: tuple[float, float] | None = None
    unit: str = ""
    y_ticks: Sequence[tuple[float, str]] = ()


Row = list[Span]


def draw(chart: Chart, width: int, height: int) -> list[Row]:
    """The chart as `height` rows of at most `width` cells."""
    if width < 1 or height < 1:
        return [[] for _row in range(max(0, height))]
    rows = [[Span(shortened(chart.title, width), "title")]]
    if width < LEAST_COLUMNS:
        pass
    elif chart.bars:
        rows += _bars(chart.bars, width)
        if (more := len(rows) - height) > 0:
            rows[height - 1 :] = [[Span(f"⋮ +{more + 1:,}", "axis")]]
    elif any(one.line or one.points for one in chart.series):
        named = [one for one in chart.series if one.name]
        if len(named) > 1 and height > 6:
            rows += _legend(named, width, max(1, height // 5))
        if height - len(rows) >= LEAST_ROWS:
            rows += _plot(chart, width, height - len(rows))
    return (rows + [[] for _row in range(height)])[:height]


def _legend(named: Sequence[Series], width: int, most: int) -> list[Row]:
    """Marks and names, in as many rows as they take, at most so many."""
    entries: list[Row] = []
    used: list[int] = []
    for one in named:
        name = shortened(one.name, max(1, width - 2))
        needs = cells(name) + 2
        if not entries or used[-1] + 3 + needs > width:
            entries.append([])
            used.append(0)
        if entries[-1]:
            entries[-1].append(Span("   ", "axis"))
            used[-1] += 3
        entries[-1] += [Span(MARKS[one.ink % INKS], one.ink), Span(f" {name}", "axis")]
        used[-1] += needs
    if len(entries) > most:
        entries[most - 1].append(Span(" …"[: width - used[most - 1]], "axis"))
    return entries[:most]


def _bars(bars: Sequence[Bar], width: int) -> Iterator[Row]:
    """A row each; labels have the room that they need, as far as there is some."""
    most = max(one.value for one in bars)
    numbers = max(cells(one.number) for one in bars)
    labels = min(max(cells(one.label) for one in bars), max(1, width - numbers - 2 - LEAST_BAR))
    room = max(1, width - labels - numbers - 2)
    for one in bars:
        label = at_right(shortened(one.label, labels), labels)
        yield [Span(f"{label} ", "axis"), Span(bar(one.value, most, room), one.ink), Span(f" {one.number}", "axis")]


def _plot(chart: Chart, width: int, height: int) -> list[Row]:
    """Curves and points in a frame of two axes: `height` rows with those of the x axis."""
    points = list(_points(chart.series))
    named_below = bool(chart.x_name) and height >= ROWS_FOR_NAME
    rows = height - 2 - named_below
    x_range = _range(x for x, _y in points)
    if chart.y_ticks:
        y_places, y_labels = [value for value, _label in chart.y_ticks], [label for _value, label in chart.y_ticks]
        while len(y_labels) > 2 and 2 * (len(y_labels) - 1) >= rows:
            half = 2 if len(y_labels) % 2 else len(y_labels) - 1  # both ends stay
            y_places, y_labels = y_places[::half], y_labels[::half]
    else:
        least, most = chart.y or _range(y for _x, y in points)
        found = ticks(least, most, 1 + max(1, (rows - 1) // ROWS_A_TICK))
        y_places, y_labels = list(found.values), [label + chart.unit for label in found.labels]
    if (rest := (rows - 1) % (len(y_places) - 1)) <= MOST_SPARED:
        rows -= rest
    margin = max(map(cells, y_labels))
    columns = width - margin - 2
    if columns < LEAST_COLUMNS:
        return []
    grid = _Grid(columns, rows, x_range, (y_places[0], y_places[-1]))
    for one in chart.series:
        for before, after in pairwise(one.line):
            grid.line(before, after, one.ink)
    for one in chart.series:
        marked = one.points or one.line[-1:]  # a curve that is named ends in its mark
        for x, low, high in one.spreads:
            grid.spread(x, low, high, one.ink)
        if one.points or one.name:
            for x, y in marked:
                grid.mark(x, y, MARKS[one.ink % INKS], one.ink)
    named = {grid.row(value): label for value, label in zip(y_places, y_labels)}
    drawn: list[Row] = [[] for _row in range(height - 2 - named_below - rows)]
    for row in range(rows):
        side = f"{at_right(named[row], margin)} ┤" if row in named else f"{' ' * margin} │"
        drawn.append([Span(side, "axis"), *grid.spans(row)])
    below = _x_axis(grid, "" if named_below else chart.x_name, margin)
    return [*drawn, *below, *([[Span(at_right(shortened(chart.x_name, width), width), "axis")]] if named_below else [])]


def _x_axis(grid: "_Grid", name: str, margin: int) -> list[Row]:
    """The line with its ticks, a name in it, and the labels below."""
    found = _x_ticks(grid.x, grid.columns)
    least, most = grid.x
    placed = [(grid.column(x), label) for x, label in zip(found.values, found.labels) if least <= x <= most]
    line = ["─"] * grid.columns
    below = ""
    for column, label in placed:
        line[column] = "┬"
        # Under its tick, as far as neither the one before nor the end of the row is in the way.
        start = min(margin + 2 + column - len(label) // 2, margin + 2 + grid.columns - len(label))
        if not below or start > len(below):
            below += " " * (start - len(below)) + label
    text = f" {shortened(name, grid.columns // 3)} "
    if name:
        start = grid.columns - 2 - cells(text)
        line[start : start + cells(text)] = [text]
    return [[Span(f"{' ' * margin} └{''.join(line)}", "axis")], [Span(below, "axis")]]


def _x_ticks(span: tuple[float, float], columns: int) -> Ticks:
    """As many as have room for their labels."""
    for most in range(max(3, columns // BETWEEN_LABELS), 3, -1):
        found = ticks(*span, most, whole=True)
        widest = max(map(len, found.labels))
        if len(found.labels) * (widest + BETWEEN_LABELS) <= columns:
            return found
    return ticks(*span, 3, whole=True)


def _points(series: Sequence[Series]) -> Iterator[Point]:
    """All that is to be seen of them."""
    for one in series:
        yield from one.line
        yield from one.points
        for x, low, high in one.spreads:
            yield from ((x, low), (x, high))


def _range(values: Iterable[float]) -> tuple[float, float]:
    """With zero, from the least to the greatest; up to one where all are zero."""
    found = [0.0, *values]
    least, most = min(found), max(found)
    return (least, most) if least < most else (0.0, 1.0)


@dataclass(slots=True)
class _Grid:
    """Cells with braille dots for curves, two by four a cell, and whole cells for points above them.

    A place on an axis is in one column or row whatever is drawn there, so a point stands on its spread.
    """

    columns: int
    rows: int
    x: tuple[float, float]
    y: tuple[float, float]
    _dots: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)  # (row, column): dots, ink
    _marks: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)

    def column(self, x: float) -> int:
        return round(_share(x, self.x) * (self.columns - 1))

    def row(self, y: float) -> int:
        """From the top."""
        return self.rows - 1 - round(_share(y, self.y) * (self.rows - 1))

    def mark(self, x: float, y: float, char: str, ink: int) -> None:
        """A point, if it is in the range."""
        if self.x[0] <= x <= self.x[1] and self.y[0] <= y <= self.y[1]:
            self._marks[self.row(y), self.column(x)] = char, ink

    def spread(self, x: float, low: float, high: float, ink: int) -> None:
        """From least to most: a line with ends, where it is longer than a point."""
        if not self.x[0] <= x <= self.x[1]:
            return
        top, bottom = self.row(min(high, self.y[1])), self.row(max(low, self.y[0]))
        for row in range(top, bottom + 1) if top < bottom else ():
            self._marks[row, self.column(x)] = {top: "┬", bottom: "┴"}.get(row, "│"), ink

    def line(self, before: Point, after: Point, ink: int) -> None:
        """Column of dots by column, so that it takes as long as the chart is wide, however far it leaves the range."""
        (x0, y0), (x1, y1) = sorted((before, after))
        left, right = self._dot_x(x0), self._dot_x(x1)
        for dot in range(max(0, left), min(self.columns * 2 - 1, right) + 1):
            if right == left:
                ends = y0, y1
            else:
                shares = [min(1.0, max(0.0, (dot + side - left) / (right - left))) for side in (-0.5, 0.5)]
                ends = y0 + (y1 - y0) * shares[0], y0 + (y1 - y0) * shares[1]
            low, high = sorted(ends)
            if high < self.y[0] or low > self.y[1]:
                continue
            for level in range(self._dot_y(max(low, self.y[0])), self._dot_y(min(high, self.y[1])) + 1):
                self._dot(dot, level, ink)

    def spans(self, row: int) -> Iterator[Span]:
        """A row, pieces of one colour together."""
        found = []
        for column in range(self.columns):
            dots, ink = self._dots.get((row, column), (0, 0))
            found.append(self._marks.get((row, column), (chr(0x2800 + dots) if dots else " ", ink)))
        for ink, piece in groupby(found, key=lambda one: one[1]):
            yield Span("".join(char for char, _ink in piece), ink)

    # A mark is in the middle of its cell; dots are placed so that a curve meets it there.

    def _dot_x(self, x: float) -> int:
        return round(_share(x, self.x) * (self.columns - 1) * 2)

    def _dot_y(self, y: float) -> int:
        """From the bottom."""
        return round(_share(y, self.y) * (self.rows - 1) * 4 + 1.5)

    def _dot(self, x: int, level: int, ink: int) -> None:
        row, column = self.rows - 1 - level // 4, x // 2
        if not 0 <= row < self.rows:
            return
        bit = (0x40, 0x04, 0x02, 0x01)[level % 4] if x % 2 == 0 else (0x80, 0x20, 0x10, 0x08)[level % 4]
        dots, _ink = self._dots.get((row, column), (0, ink))
        self._dots[row, column] = dots | bit, ink


def _share(value: float, span: tuple[float, float]) -> float:
    """Where a value is in a range, from 0 to 1."""
    least, most = span
    return (value - least) / (most - least) if most > least else 0.0
