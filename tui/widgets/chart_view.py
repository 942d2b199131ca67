"""A chart in the colours of the theme; its title is its first row."""

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from engine.base.chart import INKS, Chart, Row, Span, draw
from engine.base.plain import shortened
from tui.style.colours import series


class ChartView(Widget):
    """Draws whatever chart it is given in whatever room it has.

    Attributes:
        chart: what it shows.
        empty: what it says while there is nothing to show.
    """

    def __init__(self, id: str | None = None, *, can_focus: bool = False) -> None:
        super().__init__(id=id)
        self.can_focus = can_focus
        self.chart = Chart()
        self.empty = ""
        self._drawn: tuple[Chart, tuple[int, int]] | None = None
        self._rows: list[Row] = []

    def show(self, chart: Chart, empty: str = "") -> None:
        """Show another one; a quiet line where there is nothing to show."""
        self.chart, self.empty = chart, empty
        self.refresh()

    @property
    def text(self) -> str:
        """What is to be read of it, without colours."""
        return "\n".join("".join(span.text for span in row) for row in self._in(self.size.width, self.size.height))

    def _in(self, width: int, height: int) -> list[Row]:
        """Its rows in a size, drawn once."""
        if self._drawn is None or self._drawn[0] is not self.chart or self._drawn[1] != (width, height):
            self._rows = draw(self.chart, width, height)
            self._drawn = self.chart, (width, height)
        return self._rows

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        if y == 0 and self.empty and self.chart == Chart():
            look = Style(dim=True, underline=self.has_focus or None)
            return Strip([Segment(shortened(self.empty, width), base + look)]).adjust_cell_length(width, base)
        rows = self._in(width, self.size.height)
        if y >= len(rows):
            return Strip.blank(width, base)
        inks = series(self.app)
        line = [Segment(span.text, base + _style(span, inks, self.has_focus)) for span in rows[y]]
        return Strip(line).adjust_cell_length(width, base)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()


def _style(span: Span, inks: tuple[str, ...], focused: bool) -> Style:
    if span.ink == "title":
        return Style(bold=True, underline=focused or None)
    return Style.null() if span.ink == "axis" else Style(color=inks[span.ink % INKS])
