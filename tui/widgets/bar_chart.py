"""A list that is a chart: a row a thing, its numbers as bars with the number at the end, and further numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.segment import Segment
from rich.style import Style
from textual.message import Message
from textual.strip import Strip

from engine.base.plain import UNKNOWN, at_right, bar, cells, shortened
from tui.style.colours import series
from tui.widgets.rows import Rows

# The least that a label, a bar and the head of a column have.
LABEL = 12
BAR = 8
TITLE = 10
GAP = 2

Ink = int | Literal["quiet"]


@dataclass(frozen=True, slots=True)
class Column:
    """Numbers of one kind, a row each.

    Attributes:
        title: its head.
        values: in the order of the rows; `None` where a number is not known.
        ink: the colour of its bars, a series' number or a quiet one; `None` for numbers without bars.
        form: Python's format of a number.
        always: it stays where room is short, if only as numbers.
    """

    title: str
    values: Sequence[float | None]
    ink: Ink | None = None
    form: str = ","
    always: bool = False

    def number(self, row: int) -> str:
        value = self.values[row]
        return UNKNOWN if value is None else format(value, self.form)

    @property
    def widest(self) -> int:
        """Cells of its longest number."""
        known = [value for value in self.values if value is not None]
        return max((len(format(end(known), self.form)) for end in (min, max)), default=1) if known else 1


@dataclass(frozen=True, slots=True)
class Room:
    """What a width is spent on, in cells.

    Attributes:
        index: of the rows' numbers.
        widths: of the columns; 0 for those that have no room.
        bars: of the longest bar of each column; 0 where there are only numbers.
    """

    index: int
    label: int
    widths: tuple[int, ...]
    bars: tuple[int, ...]


class BarChart(Rows):
    """Rows of a label, bars and numbers below a head.

    Labels have the room that they need before bars grow and before further columns come. Bars share a scale, and so do
    all quiet ones, so that those of several columns can be compared.
    """

    HEAD = 1

    @dataclass
    class Highlighted(Message):
        """The cursor came to a row."""

        row: int

    @dataclass
    class Selected(Message):
        """Enter on a row."""

        row: int

    def __init__(self, title: str, id: str | None = None) -> None:
        super().__init__(id=id)
        self.title = title
        self.labels: Sequence[str] = ()
        self.columns: Sequence[Column] = ()
        self._most: tuple[float, ...] = ()
        self._needs = 0
        self._spent: tuple[int, Room] | None = None

    @property
    def row_count(self) -> int:
        return len(self.labels)

    def show(self, labels: Sequence[str], columns: Sequence[Column]) -> None:
        """Show these rows: as many labels as each column has values."""
        self.labels, self.columns = labels, columns
        self._needs = max((len(label) if label.isascii() else cells(label) for label in labels), default=0)
        greatest = [max((value for value in one.values if value is not None), default=0.0) for one in columns]
        self._most = tuple(
            max(most for other, most in zip(columns, greatest) if _same_scale(one, other)) for one in columns
        )
        self._spent = None
        self.measure()

    def choose(self) -> None:
        self.post_message(self.Selected(self.cursor))

    def watch_cursor(self, before: int, now: int) -> None:
        super().watch_cursor(before, now)
        self.post_message(self.Highlighted(now))

    # Room.

    def room(self, width: int) -> Room:
        """How a width is spent."""
        if self._spent is None or self._spent[0] != width:
            self._spent = width, self._spend(width)
        return self._spent[1]

    def _spend(self, width: int) -> Room:
        columns, index = self.columns, len(f"{self.row_count:,}")
        numbers = [one.widest for one in columns]
        least = [max(number, min(cells(one.title), TITLE)) for one, number in zip(columns, numbers)]
        barred = [max(plain, BAR + 1 + number) for plain, number in zip(least, numbers)]
        widths = [0] * len(columns)
        left = width - index - 3  # a blank before it, one after it, one at the end of the row

        def spend(place: int, wanted: int, keep: int) -> None:
            """Give a column its room, if no less than `keep` is left to the labels."""
            nonlocal left
            more = wanted - widths[place] + (0 if widths[place] else GAP)
            if left - more >= keep:
                widths[place] = wanted
                left -= more

        with_bars = [place for place, one in enumerate(columns) if one.ink is not None]
        for place, one in enumerate(columns):
            if one.always:
                spend(place, least[place], LABEL)
        for place in with_bars[:1]:
            spend(place, barred[place], LABEL)
        label = max(LABEL, min(left, max(self._needs, cells(self.title))))
        for place, one in enumerate(columns):
            if not one.always:
                spend(place, least[place], label)
        for place in with_bars[1:]:
            if widths[place]:
                spend(place, barred[place], label)
        grown = [place for place in with_bars if widths[place] >= barred[place]]
        for done, place in enumerate(grown):
            more = max(0, left - label) // (len(grown) - done)
            widths[place] += more
            left -= more
        bars = [widths[place] - 1 - numbers[place] if place in grown else 0 for place in range(len(columns))]
        shared = [
            min(bars[other] for other in grown if _same_scale(columns[place], columns[other])) if place in grown else 0
            for place in range(len(columns))
        ]
        return Room(index, max(1, min(label, width - index - 3)), tuple(widths), tuple(shared))

    # Drawing.

    def render_line(self, y: int) -> Strip:
        width, base = self.scrollable_content_region.width, self.rich_style
        room = self.room(width)
        if y < self.HEAD:
            return self._head(room, base + Style(bold=True, bgcolor=self.app.theme_variables["panel"]), width)
        row = self.row_at(y)
        return Strip.blank(width, base) if row is None else self._row(row, room, base, width)

    def _head(self, room: Room, style: Style, width: int) -> Strip:
        texts = [f" {'':>{room.index}} {_fitted(self.title, room.label)}"]
        for one, wide, bars in zip(self.columns, room.widths, room.bars):
            if wide:
                title = shortened(one.title, wide)
                texts.append(" " * GAP + (_fitted(title, wide) if bars else at_right(title, wide)))
        return Strip([Segment("".join(texts), style)]).adjust_cell_length(width, style)

    def _row(self, row: int, room: Room, base: Style, width: int) -> Strip:
        chosen = row == self.cursor
        ground = self.app.theme_variables["primary-muted" if self.has_focus else "panel"]
        style = base + Style(bgcolor=ground, bold=self.has_focus or None) if chosen else base
        inks, quiet = series(self.app), style + Style(dim=True)
        line = [
            Segment(f" {row + 1:>{room.index},} ", quiet),
            Segment(_fitted(self.labels[row], room.label), style),
        ]
        for one, most, wide, bars in zip(self.columns, self._most, room.widths, room.bars):
            if not wide:
                continue
            number, value = one.number(row), one.values[row]
            line.append(Segment(" " * GAP, style))
            if not bars:
                line.append(Segment(at_right(number, wide), style))
                continue
            drawn = bar(value or 0, most, bars)
            colour = quiet if one.ink == "quiet" else style + Style(color=inks[one.ink or 0], bold=False)
            line += [Segment(drawn, colour), Segment(f"{' ' if drawn else ''}{number}", style)]
            line.append(Segment(" " * (wide - cells(drawn) - cells(number) - bool(drawn)), style))
        return Strip(line).adjust_cell_length(width, style)


def _same_scale(one: Column, other: Column) -> bool:
    return (one.ink is None) == (other.ink is None) and (one.ink == "quiet") == (other.ink == "quiet")


def _fitted(text: str, width: int) -> str:
    text = shortened(text, width)
    return text + " " * (width - cells(text))
