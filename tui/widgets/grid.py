"""A grid of short texts on coloured ground with a cursor: layers by positions, layers by heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from tui.actions import bindings


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell shows.

    Attributes:
        colour: of its ground.
        marked: underlined and bold, for where something happens.
        faint: it says little.
    """

    text: str = ""
    colour: str | None = None
    marked: bool = False
    faint: bool = False


EMPTY = Cell()


class Grid(Widget, can_focus=True):
    """Rows with labels under a header; both stay while the cells move below the cursor.

    Only the cells that can be seen are asked for. Rows are drawn from the last one on top to the first.

    Args:
        moved: called with row and column when the cursor goes to a cell by key or by mouse; what it changes is drawn in
            the same frame.
        folds: see `shown_rows`.

    Attributes:
        cursor: row and column.
    """

    BINDINGS = bindings("grid")

    def __init__(
        self, cell_width: int, moved: Callable[[int, int], object], *, folds: bool = False, id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self._moved = moved
        self.cell_width = cell_width
        self.folds = folds
        self.cursor = (0, 0)
        self._rows: Sequence[str] = ()
        self._columns: Sequence[str] = ()
        self._cell: Callable[[int, int], Cell] = lambda row, column: EMPTY
        self._label_width = 1
        self._top = 0  # places of rows above the first one that is drawn
        self._left = 0

    def show(
        self,
        rows: Sequence[str],
        columns: Sequence[str],
        cell: Callable[[int, int], Cell],
        cursor: tuple[int, int] | None = None,
    ) -> None:
        """Show other cells.

        Args:
            rows, columns: their labels.
            cell: gives each by its row and column, when it is drawn.
        """
        self._rows, self._columns, self._cell = rows, columns, cell
        self._label_width = max((cell_len(label) for label in rows), default=0) + 1
        self.point(*(cursor or self.cursor))
        self.refresh()

    def point(self, row: int, column: int) -> None:
        """Put the cursor on a cell without telling anybody."""
        row = max(0, min(len(self._rows) - 1, row))
        column = max(0, min(len(self._columns) - 1, column))
        before = self.cursor
        if (row, column) != before:
            self.cursor = (row, column)
            if self.folds and row != before[0]:
                self.refresh()
            else:
                shown = self.shown_rows()
                lines = {0, *(shown.index(changed) + 1 for changed in {before[0], row} if changed in shown)}
                self.refresh(*(Region(0, line, self.size.width, 1) for line in lines))
        self._follow()

    # Which rows and columns can be seen.

    @property
    def _height(self) -> int:
        return max(1, self.size.height - 1)

    @property
    def _count(self) -> int:
        """Columns that have room."""
        return max(1, (self.size.width - self._label_width) // self.cell_width)

    def shown_rows(self) -> list[int]:
        """The rows that are drawn, from top to bottom.

        A folded grid shows every n-th row, the last one, and the cursor's.
        """
        count, height = len(self._rows), self._height
        if not count:
            return []
        if not self.folds or count <= height:
            first = count - 1 - self._top
            return list(range(first, max(-1, first - height), -1))
        step = -(-(count - 1) // (height - 1)) if height > 1 else count
        rows = set(range(count - 1, -1, -step))
        if self.cursor[0] not in rows:
            # In place of the nearest one, so that there is room for all; never of the last.
            rows.discard(min(rows - {count - 1}, key=lambda row: abs(row - self.cursor[0]), default=-1))
            rows.add(self.cursor[0])
        return sorted(rows, reverse=True)[:height]

    def _follow(self) -> None:
        """Move what is seen so that the cursor is in it."""
        row, column = self.cursor
        place = len(self._rows) - 1 - row
        top = max(0, min(self._top, len(self._rows) - self._height))
        top = min(top, place) if place < top + self._height else place - self._height + 1
        left = max(0, min(self._left, len(self._columns) - self._count))
        left = min(left, column) if column < left + self._count else column - self._count + 1
        if (top, left) != (self._top, self._left):
            self._top, self._left = top, left
            self.refresh()

    # Drawing.

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        columns = range(self._left, min(len(self._columns), self._left + self._count))
        if y == 0:
            quiet = base + Style(dim=True)
            line = [Segment(" " * self._label_width, quiet)]
            for column in columns:
                style = base + Style(bold=True) if column == self.cursor[1] else quiet
                line.append(Segment(self._fitted(self._columns[column]), style))
            return Strip(line).extend_cell_length(width, base).crop(0, width)
        rows = self.shown_rows()
        if y > len(rows):
            return Strip.blank(width, base)
        row = rows[y - 1]
        style = base + Style(bold=True) if row == self.cursor[0] else base + Style(dim=True)
        line = [Segment(self._rows[row].rjust(self._label_width - 1) + " ", style)]
        for column in columns:
            cell = self._cell(row, column)
            pointed = (row, column) == self.cursor
            line.append(Segment(self._fitted(cell.text), base + _style(cell, pointed, self.has_focus)))
        return Strip(line).extend_cell_length(width, base).crop(0, width)

    def _fitted(self, text: str) -> str:
        """A text in a cell's width, with a blank at its end."""
        room = self.cell_width - 1
        return set_cell_size(text if cell_len(text) <= room else set_cell_size(text, room - 1) + "…", room) + " "

    # Moving the cursor.

    def action_move(self, rows: int, columns: int) -> None:
        shown = self.shown_rows()
        row = self.cursor[0]
        if rows and self.folds and row in shown:
            place = max(0, min(len(shown) - 1, shown.index(row) - rows))
            row = shown[place]
        else:
            row += rows
        self._go(row, self.cursor[1] + columns)

    def action_page(self, by: int) -> None:
        self._go(self.cursor[0] + by * max(1, self._height - 1), self.cursor[1])

    def action_jump(self, column: int) -> None:
        self._go(self.cursor[0], column % max(1, len(self._columns)))

    def _go(self, row: int, column: int) -> None:
        if self._rows and self._columns:
            self.point(row, column)
            self._moved(*self.cursor)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        rows = self.shown_rows()
        if offset is None or not 1 <= offset.y <= len(rows) or offset.x < self._label_width:
            return
        self._go(rows[offset.y - 1], self._left + (offset.x - self._label_width) // self.cell_width)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_move(-1, 0)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_move(1, 0)

    def on_resize(self) -> None:
        self._top = self._left = 0  # what is seen depends on the cursor and the size, not on sizes before
        self._follow()
        self.refresh()  # it was drawn with the size before the cursor was followed

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()


@cache
def _style(cell: Cell, pointed: bool, focused: bool) -> Style:
    if pointed:
        return Style(reverse=True, bold=True, underline=not focused or None)
    return Style(bgcolor=cell.colour, bold=cell.marked or None, underline=cell.marked or None, dim=cell.faint or None)
