"""Named numbers as bars to the left and to the right of a middle line, with a cursor."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.message import Message
from textual.strip import Strip

from engine.base.plain import signed_bar
from tui.style.colours import ink
from tui.widgets.rows import Rows

VALUE_CELLS = 9
NAME_CELLS = 26


class SignedBars(Rows):
    """One line for each number.

    Attributes:
        bars: names and numbers.
    """

    @dataclass
    class Chosen(Message):
        """Enter on a bar."""

        index: int

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.bars: Sequence[tuple[str, float]] = ()

    def show(self, bars: Sequence[tuple[str, float]]) -> None:
        """Show other numbers."""
        self.bars = bars
        self.measure()

    @property
    def row_count(self) -> int:
        return len(self.bars)

    def choose(self) -> None:
        self.post_message(self.Chosen(self.cursor))

    def render_line(self, y: int) -> Strip:
        index, width, base = y + self.scroll_offset.y, self.scrollable_content_region.width, self.rich_style
        if index >= len(self.bars):
            return Strip.blank(width, base)
        name, value = self.bars[index]
        selected = index == self.cursor and self.has_focus
        style = base + Style(bgcolor=self.app.theme_variables["primary-muted"], bold=True) if selected else base
        most = max(abs(other) for _name, other in self.bars) or 1.0
        names = min(NAME_CELLS, max(cell_len(other) for other, _value in self.bars) + 2)
        room = max(2, (width - names - VALUE_CELLS - 1) // 2)
        left, line, right = signed_bar(value, most, room).partition("│")
        return Strip(
            [
                Segment(set_cell_size(" " + name, names), style),
                Segment(f"{value:+{VALUE_CELLS - 1}.3f} ", style),
                Segment(left, style + Style(color=ink(self.app, "wrong"))),
                Segment(line, style + Style(dim=True)),
                Segment(set_cell_size(right, room), style + Style(color=ink(self.app, "note"))),
            ]
        ).adjust_cell_length(width, style)
