"""Heat maps and bars as SVG for print: vector cells with the tokens in them, a scale beside them, nothing but SVG 1.1.

Light grounds with dark letters, and hues that part without colour vision and in grey. Every letter stands in a column
as wide as on a terminal, so that wide characters stay in their cells whatever font draws them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape

from engine.base import plain

# ColorBrewer's Blues, and its orange and blue around grey (Brewer and Harrower).
SEQUENTIAL = ("#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b")
DIVERGING = ("#b35806", "#fdb863", "#f7f7f7", "#92c5de", "#2166ac")
MISSING = "#ffffff"

FONT = "DejaVu Sans Mono, Noto Sans Mono CJK JP, Menlo, Consolas, monospace"
SIZE = 11
ADVANCE = 6.6  # of one column
LINE = 18  # height of a cell
MARGIN = 12
WIDEST = 14  # columns of a token; longer ones end in …
WIDEST_OF_MANY = 8  # of a token in a grid of many columns
MANY = 20
FLOW_COLUMNS = 96  # of a text in lines
BAR = 220  # length of the longest bar, to either side

Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Scale:
    """What a colour says.

    Attributes:
        name: of the measure, with its unit.
        most: where the colour is fullest; a diverging scale runs from `-most`, another one from 0.
        show: a value as text.
    """

    name: str
    most: float
    show: Callable[[float], str] = plain.percent
    diverging: bool = False

    def place(self, value: float) -> float:
        """Where a value stands on the scale, from 0 to 1."""
        if self.most <= 0:
            return 0.5 if self.diverging else 0.0
        share = (value / self.most + 1) / 2 if self.diverging else value / self.most
        return min(max(share, 0.0), 1.0)

    def colour(self, value: float | None) -> str:
        """As `#rrggbb`; white for a value that is missing."""
        if value is None:
            return MISSING
        return between(DIVERGING if self.diverging else SEQUENTIAL, self.place(value))


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its value on the scale, what stands in it, and whether a frame marks it."""

    value: float | None
    text: str = ""
    marked: bool = False


def between(stops: Sequence[str], share: float) -> str:
    """A colour between evenly spaced ones, `share` from 0 to 1."""
    place = share * (len(stops) - 1)
    index = min(int(place), len(stops) - 2)
    rest = place - index
    pair = zip(_rgb(stops[index]), _rgb(stops[index + 1]))
    return "#" + "".join(f"{round(a + (b - a) * rest):02x}" for a, b in pair)


def ink(ground: str) -> str:
    """Black or white, whichever is read better on a colour (relative luminance of WCAG 2)."""
    linear = [(c / 255 / 12.92) if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in _rgb(ground)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#ffffff"


def grid_svg(
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    scale: Scale,
    notes: Sequence[str] = (),
    *,
    column_title: str = "",
    row_title: str = "",
) -> str:
    """Cells in rows, the first row at the top, with names of columns below and of rows to the left."""
    most = WIDEST if len(columns) <= MANY else WIDEST_OF_MANY
    rows = [(name, [replace(cell, text=fitted(cell.text, most)) for cell in cells]) for name, cells in rows]
    widest = max((plain.cells(cell.text) for _name, cells in rows for cell in cells), default=0)
    width = max(LINE, (widest + 1) * ADVANCE)
    left = MARGIN + ADVANCE * (max((plain.cells(name) for name, _cells in rows), default=0) + 1)
    left += LINE if row_title else 0
    top = _top(title, notes)
    names = [fitted(name) for name in columns]
    upright = any(plain.cells(name) * ADVANCE > width for name in names)
    below: float = ADVANCE * max(map(plain.cells, names), default=0) + 6 if upright else LINE
    parts = []
    for index, (name, cells) in enumerate(rows):
        y = top + index * LINE
        parts.append(_text(left - 5, y + LINE / 2, name, anchor="end"))
        parts += [_cell(left + place * width, y, width, cell, scale) for place, cell in enumerate(cells)]
    # Frames lie over all cells, else the neighbours' edges would hide half of them.
    parts += [
        _frame(left + place * width, top + index * LINE, width)
        for index, (_name, cells) in enumerate(rows)
        for place, cell in enumerate(cells)
        if cell.marked
    ]
    bottom: float = top + len(rows) * LINE
    for place, name in enumerate(names):
        x = left + (place + 0.5) * width
        parts.append(
            _text(x, bottom + 6, name, anchor="end", turned=True)
            if upright
            else _text(x, bottom + LINE / 2, name, anchor="middle")
        )
    bottom += below
    if column_title:
        parts.append(_text(left + len(columns) * width / 2, bottom + LINE / 2, column_title, anchor="middle"))
        bottom += LINE
    if row_title:
        parts.append(_text(MARGIN + 4, top + len(rows) * LINE / 2, row_title, anchor="middle", turned=True))
    return _document(title, notes, parts, left + len(columns) * width, bottom, scale)


def flow_svg(title: str, cells: Sequence[Cell], scale: Scale, notes: Sequence[str] = ()) -> str:
    """The tokens of a text in lines, each in a cell of its own."""
    top, x, y = _top(title, notes), float(MARGIN), float(_top(title, notes))
    right, parts, frames = 0.0, [], []
    for cell in cells:
        width = (plain.cells(fitted(cell.text)) + 1) * ADVANCE
        if x > MARGIN and x + width > MARGIN + FLOW_COLUMNS * ADVANCE:
            x, y = float(MARGIN), y + LINE + 4
        parts.append(_cell(x, y, width, cell, scale))
        if cell.marked:
            frames.append(_frame(x, y, width))
        x += width
        right = max(right, x)
    return _document(title, notes, parts + frames, right, (y if cells else top) + LINE, scale)


def bars_svg(title: str, bars: Sequence[tuple[str, float]], scale: Scale, notes: Sequence[str] = ()) -> str:
    """Signed bars from a common line, the first at the top, each with its name and its value."""
    top = _top(title, notes)
    left = MARGIN + ADVANCE * (max((plain.cells(name) for name, _value in bars), default=0) + 1)
    number = ADVANCE * (max((len(scale.show(value)) for _name, value in bars), default=0) + 1)
    middle = left + number + BAR
    parts = []
    for index, (name, value) in enumerate(bars):
        y = top + index * LINE
        length = BAR * abs(2 * scale.place(value) - 1)
        x = middle if value >= 0 else middle - length
        parts.append(_text(left - 5, y + LINE / 2, name, anchor="end"))
        parts.append(_rectangle(x, y + 2, length, LINE - 4, scale.colour(scale.most if value >= 0 else -scale.most)))
        anchor = ("start", 4.0) if value >= 0 else ("end", -4.0)
        end = middle + (length if value >= 0 else -length)
        parts.append(_text(end + anchor[1], y + LINE / 2, scale.show(value), anchor=anchor[0]))
    bottom = top + len(bars) * LINE
    parts.append(
        f'<line x1="{middle:g}" y1="{top}" x2="{middle:g}" y2="{bottom}" stroke="#000000" stroke-width="0.8"/>'
    )
    return _document(title, notes, parts, middle + BAR + number, bottom, None)


def fitted(text: str, width: int = WIDEST) -> str:
    """A label on one line of at most `width` columns, of characters that XML can hold."""
    shown = "".join("�" if char in "\ufffe\uffff" else char for char in plain.one_line(text))
    if plain.cells(shown) <= width:
        return shown
    while plain.cells(shown) > width - 1:
        shown = shown[:-1]
    return f"{shown}…"


def _rgb(colour: str) -> Rgb:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _top(title: str, notes: Sequence[str]) -> int:
    """Where the picture begins, below its title and notes."""
    return MARGIN + LINE * (1 + len(notes)) + 8


def _cell(x: float, y: float, width: float, cell: Cell, scale: Scale) -> str:
    ground = scale.colour(cell.value)
    box = _rectangle(x, y, width, LINE, ground, ' stroke="#d0d0d0" stroke-width="0.5"')
    if not cell.text:
        return box
    return box + _text(x + width / 2, y + LINE / 2, fitted(cell.text), anchor="middle", fill=ink(ground))


def _frame(x: float, y: float, width: float) -> str:
    style = 'fill="none" stroke="#d62728" stroke-width="1.6"'
    return f'<rect x="{x + 1:g}" y="{y + 1:g}" width="{width - 2:g}" height="{LINE - 2}" {style}/>'


def _rectangle(x: float, y: float, width: float, height: float, fill: str, more: str = "") -> str:
    return f'<rect x="{x:.6g}" y="{y:.6g}" width="{width:.6g}" height="{height:g}" fill="{fill}"{more}/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", fill: str = "#000000", turned: bool = False) -> str:
    """A line of text whose middle is at `y`; turned, it runs upwards."""
    length = plain.cells(text) * ADVANCE
    size = f' textLength="{length:.6g}" lengthAdjust="spacingAndGlyphs"' if length else ""
    x, y = (x + SIZE * 0.35, y) if turned else (x, y + SIZE * 0.35)
    turn = f' transform="rotate(-90 {x:.6g} {y:.6g})"' if turned else ""
    text = escape(text, quote=False)
    return f'<text x="{x:.6g}" y="{y:.6g}" text-anchor="{anchor}" fill="{fill}"{size}{turn}>{text}</text>'


def _legend(scale: Scale, y: float) -> list[str]:
    """The scale's colours from end to end, with its name."""
    ends = (-scale.most, scale.most) if scale.diverging else (0.0, scale.most)
    steps, width = 24, 6
    low, high = (scale.show(end) for end in ends)
    x = MARGIN + ADVANCE * (plain.cells(low) + 1)
    parts = [_text(MARGIN, y + LINE / 2, low)]
    for step in range(steps):
        value = ends[0] + (ends[1] - ends[0]) * (step + 0.5) / steps
        parts.append(_rectangle(x + step * width, y + 3, width + 0.2, LINE - 6, scale.colour(value)))
    parts.append(_text(x + steps * width + ADVANCE, y + LINE / 2, f"{high}  {fitted(scale.name, 80)}"))
    return parts


def _document(
    title: str, notes: Sequence[str], parts: Sequence[str], right: float, bottom: float, scale: Scale | None
) -> str:
    head = [_text(MARGIN, MARGIN + LINE / 2, fitted(title, 120))]
    lines = [fitted(note, 160) for note in notes]
    head += [_text(MARGIN, MARGIN + LINE * (n + 0.5), note, fill="#555555") for n, note in enumerate(lines, start=1)]
    legend = [] if scale is None else _legend(scale, bottom + 8)
    widest = max(map(plain.cells, (fitted(title, 120), *lines)))
    if scale is not None:
        bottom += 8 + LINE
        widest = max(widest, 24 + plain.cells(fitted(scale.name, 80)) + 2 * 8 + 4)
    width, height = max(right, MARGIN + widest * ADVANCE) + MARGIN, bottom + MARGIN
    style = f'font-family="{FONT}" font-size="{SIZE}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.6g}" height="{height:.6g}" '
            f'viewBox="0 0 {width:.6g} {height:.6g}" xml:space="preserve" {style}>',
            f"<title>{escape(fitted(title, 400), quote=False)}</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *head,
            *parts,
            *legend,
            "</svg>\n",
        )
    )
