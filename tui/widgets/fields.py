"""Settings as a row of fields, and the stages of a step as tabs; each one line of text, as wide as there is room."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from engine.base.language import _

LIT = "bold reverse"  # the chosen one, without colours too
SHORT_SCALE = 5
GONE = "…"
FEW_TABS = 5  # are shown whatever there is to say
# Blanks within a tab and beside the arrows, from a width on.
TAB_FORMS = ((150, (" ", " ")), (100, ("", " ")), (0, ("", "")))
VALUE_CELLS = 8  # of a value in its field, at most
SCALE = re.compile("[−─●]")  # what a scale begins with


@dataclass(frozen=True, slots=True)
class Field:
    """A setting that can be turned.

    Attributes:
        ladder: the values that it is turned to; `None` is off.
        turned: whether it is not what the step ran with.
    """

    name: str
    value: float | None
    ladder: Sequence[float | None]
    turned: bool = False


def value_text(value: float | None) -> str:
    """A setting's value as it is written in its field."""
    return _("off") if value is None else format(value, "g")


def rung(value: float | None, ladder: Sequence[float | None]) -> int:
    """The place of a value on its ladder, or of the nearest one that is on it."""
    if value is None:
        return ladder.index(None)
    return min((abs(step - value), place) for place, step in enumerate(ladder) if step is not None)[1]


def scale(value: float | None, ladder: Sequence[float | None], cells: int) -> str:
    """A line with a knob where a value stands between the ends of its ladder.

    >>> scale(0.5, (0.0, 0.25, 0.5, 0.75, 1.0), 5)
    '──●──'
    """
    place = round(rung(value, ladder) * (cells - 1) / (len(ladder) - 1))
    return "─" * place + "●" + "─" * (cells - 1 - place)


def fields_line(fields: Sequence[Field], chosen: int, width: int, *, ground: str, changed: str) -> Text:
    """The fields, and behind them the scale of the chosen one.

    Where room is short the scale shrinks first, then the fields, and at last those far from the chosen one go.

    Args:
        ground: of the fields, a colour.
        changed: the colour of a value that has not run yet.
    """
    one = fields[chosen]
    ends = [value_text(end) for end in (one.ladder[0], one.ladder[-1])]
    full = scale(one.value, one.ladder, len(one.ladder))
    short = scale(one.value, one.ladder, SHORT_SCALE)
    for padding, gap, measure in (
        (" ", "  ", f"− {ends[0]} {full} {ends[1]} +"),
        (" ", " ", f"{ends[0]} {full} {ends[1]}"),
        (" ", " ", full),
        ("", " ", full),
        ("", " ", short),
    ):
        drawn = [_field(field, field is one, padding, ground, changed) for field in fields]
        line = Text(gap).join([Text(), *drawn, Text(measure, style="bold")])
        if line.cell_len <= width:
            return line
    return _near(drawn, chosen, Text(" " + short, style="bold"), width)


def _field(field: Field, lit: bool, padding: str, ground: str, changed: str) -> Text:
    text = Text(f"{field.name} ", style="bold" if lit else "dim")
    style = LIT if lit else f"bold {changed} on {ground}" if field.turned else f"not dim on {ground}"
    return text.append(f"{padding}{value_text(field.value)}{padding}", style=style)


def _near(drawn: Sequence[Text], chosen: int, measure: Text, width: int) -> Text:
    """The chosen field and those beside it that have room, between dots."""
    first = last = chosen

    def line() -> Text:
        left, right = GONE if first else "", GONE if last < len(drawn) - 1 else ""
        return Text(" ").join([Text(left), *drawn[first : last + 1], Text(right)]).append_text(measure)

    best = line()
    grown = True
    while grown:
        grown = False
        for by in (1, -1):
            before = first, last
            first, last = (first, min(len(drawn) - 1, last + 1)) if by > 0 else (max(0, first - 1), last)
            if (first, last) != before and line().cell_len <= width:
                best, grown = line(), True
            else:
                first, last = before
    best.truncate(width, overflow="ellipsis")
    return best


def tabs_line(
    names: Sequence[str], current: int, known: Sequence[int], width: int, *, ground: str, beside: int = 0
) -> Text:
    """Tabs that lead from one to the next, the current one lit; narrower where there is less room.

    Args:
        known: those that can be looked at.
        width: of the whole line, in which something may be said behind them.
        ground: of the tabs, a colour.
        beside: cells of what is said; many tabs make room for it, those far from the current one first.
    """
    padding, apart = next(form for least, form in TAB_FORMS if width >= least)
    first, last = 0, len(names) - 1
    line = _tabs(names, first, last, current, known, padding, apart, ground)
    while last - first >= FEW_TABS and line.cell_len + beside > width:
        first, last = (first, last - 1) if last - current > current - first else (first + 1, last)
        line = _tabs(names, first, last, current, known, padding, apart, ground)
    return line


def _tabs(
    names: Sequence[str],
    first: int,
    last: int,
    current: int,
    known: Sequence[int],
    padding: str,
    apart: str,
    ground: str,
) -> Text:
    line = Text(" ")
    if first:
        line.append(f"{GONE}{apart}›{apart}", style="dim")
    for index in range(first, last + 1):
        line.append(f"{apart}›{apart}" if index > first else "", style="dim")
        style = LIT if index == current else f"on {ground}" if index in known else "dim strike"
        line.append(f"{padding}{names[index]}{padding}", style=style)
    if last < len(names) - 1:
        line.append(f"{apart}›{apart}{GONE}", style="dim")
    return line.append("  ")


def place_at(line: str, names: Sequence[str], column: int) -> int | None:
    """Which of the names that follow each other in a line stands, with what belongs to it, at a column.

    >>> place_at(" T 0.7  top-k off", ("T", "top-k"), 4)
    0
    """
    begins: list[int | None] = []
    start = 0
    for name in names:
        found = line.find(name, start)
        begins.append(cell_len(line[:found]) if found >= 0 else None)
        start = max(start, found + len(name)) if found >= 0 else start
    here = [place for place, begin in enumerate(begins) if begin is not None and begin <= column]
    if not here:
        return None
    begin, end = begins[here[-1]], cell_len(SCALE.split(line, maxsplit=1)[0])
    assert begin is not None
    return here[-1] if column < min(end, begin + cell_len(names[here[-1]]) + VALUE_CELLS) else None
