"""What lists that draw themselves row by row have in common: a cursor, its keys, and the mouse."""

from textual import events
from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView

from tui.actions import bindings


class Rows(ScrollView, can_focus=True):
    """Rows below a head that stays; a subclass says how many there are and draws them.

    Attributes:
        cursor: the chosen row, from 0.
        pitch: lines from one row to the next; those after a row's first are blank.
    """

    DEFAULT_CSS = "Rows { overflow-x: hidden; }"
    BINDINGS = bindings("bars")
    HEAD = 0  # rows of the head

    cursor: reactive[int] = reactive(0)

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.pitch = 1

    @property
    def row_count(self) -> int:
        raise NotImplementedError

    def choose(self) -> None:
        """Enter on the chosen row, or a click on it."""

    def measure(self) -> None:
        """Take in how many rows there are now."""
        self.cursor = max(0, min(self.cursor, self.row_count - 1))
        self.virtual_size = Size(self.scrollable_content_region.width, self.row_count * self.pitch + self.HEAD)
        self.refresh()

    def row_at(self, y: int) -> int | None:
        """The row in a line of the widget; `None` for its head, between rows and below them."""
        row, blank = divmod(y - self.HEAD + self.scroll_offset.y, self.pitch)
        return row if y >= self.HEAD and not blank and row < self.row_count else None

    @property
    def _room(self) -> int:
        """Rows that are seen at once."""
        return max(1, (self.scrollable_content_region.height - self.HEAD) // self.pitch)

    def watch_cursor(self, before: int, now: int) -> None:
        for row in (before, now):
            self.refresh_lines(row * self.pitch + self.HEAD, 1)
        top = self.scroll_offset.y / self.pitch
        if not top <= now < top + self._room:
            first = now if now < top else now - self._room + 1
            self.scroll_to(y=first * self.pitch, animate=False)

    def action_move(self, by: int) -> None:
        self.cursor = max(0, min(self.row_count - 1, self.cursor + by))

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self._room - 1))

    def action_go(self, index: int) -> None:
        self.cursor = max(0, index % self.row_count if self.row_count else 0)

    def action_choose(self) -> None:
        if self.row_count:
            self.choose()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        row = self.row_at(offset.y) if offset is not None else None
        if row is None:
            return
        if row == self.cursor and event.chain > 1:
            self.choose()
        self.cursor = row

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self) -> None:
        self.measure()
