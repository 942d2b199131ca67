"""Where the Generate view's room is split between lanes and inspector: two keys move it, and it is remembered."""

from textual.widget import Widget

from engine.base import settings
from tui.panes.inspector import Inspector
from tui.panes.lanes import LanesPane

# Rows below which a lane, and the inspector, would show nothing of use; with their borders.
LEAST_LANES = 4
LEAST_INSPECTOR = 6
# The kinds of screens that remember a height each: classes of the screen, without their dash.
HEIGHTS = ("high", "tall", "low")


class Split:
    """How many rows the inspector takes.

    Until they are changed, the style sheet says how many, by the height of the screen.

    Args:
        pane: what holds lanes and inspector.
    """

    def __init__(self, pane: Widget) -> None:
        self._pane = pane
        self._rows = dict(settings.load().inspector_rows)

    def move(self, by: int) -> None:
        """Give the inspector more rows, or with a number below zero the lanes."""
        inspector = self._inspector
        if not inspector.display:
            return
        most = self._room - LEAST_LANES
        rows = max(LEAST_INSPECTOR, min(most, inspector.outer_size.height + by))
        if most >= LEAST_INSPECTOR and rows != inspector.outer_size.height:
            self._rows[self._height] = rows
            settings.change(inspector_rows=self._rows)
            self.apply()

    def apply(self) -> None:
        """Bring both to the remembered sizes, as far as there is room."""
        pane = self._pane
        rows = self._rows.get(self._height) if self._inspector.display else None
        lanes = pane.query_one(LanesPane)
        # The inspector takes what the lanes leave: a number of rows would hold where it is the whole screen too.
        lanes.styles.height = None if rows is None else max(LEAST_LANES, self._room - max(LEAST_INSPECTOR, rows))
        self._inspector.styles.height = None if rows is None else "1fr"

    @property
    def _inspector(self) -> Inspector:
        return self._pane.query_one(Inspector)

    @property
    def _height(self) -> str:
        return next((name for name in HEIGHTS if self._pane.screen.has_class(f"-{name}")), "low")

    @property
    def _room(self) -> int:
        """Rows that lanes and inspector share."""
        pane = self._pane
        others = [one for one in pane.children if one.display and not isinstance(one, LanesPane)]
        return pane.size.height - sum(one.outer_size.height for one in others if one is not self._inspector)
