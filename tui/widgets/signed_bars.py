"""Named numbers as bars to the left and to the right of a middle line, with a cursor."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.base.plain import signed_bar
from tui.actions import bindings
from tui.style.colours import ink

VALUE_CELLS = 9
NAME_CELLS = 26


class SignedBars(ScrollView, can_focus=True):
    """One line for each number.

    Attributes:
        bars: names and numbers.
    """

    BINDINGS = bindings("bars")

    cursor: reactive[int] = reactive(0)

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
        self.cursor = max(0, min(self.cursor, len(bars) - 1))
        self.virtual_size = Size(self.scrollable_content_region.width, len(bars))
        self.refresh()

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

    def watch_cursor(self, before: int, now: int) -> None:
        for index in (before, now):
            self.refresh_lines(index, 1)
        top, height = self.scroll_offset.y, self.scrollable_content_region.height
        if not top <= now < top + height:
            self.scroll_to(y=now if now < top else now - height + 1, animate=False)

    def action_move(self, by: int) -> None:
        self.cursor = max(0, min(len(self.bars) - 1, self.cursor + by))

    def action_go(self, index: int) -> None:
        self.cursor = max(0, index % len(self.bars) if self.bars else 0)

    def action_choose(self) -> None:
        if self.bars:
            self.post_message(self.Chosen(self.cursor))

    def on_click(self, event: events.Click) -> None:
        if (offset := event.get_content_offset(self)) is not None and self.bars:
            self.cursor = max(0, min(len(self.bars) - 1, offset.y + self.scroll_offset.y))

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self) -> None:
        self.virtual_size = Size(self.scrollable_content_region.width, len(self.bars))
