"""Where the Generate view's room is split between lanes and inspector: two keys move it, and it is remembered."""

from textual.widget import Widget

from engine.base import settings

# Rows below which a lane, and the inspector, would show nothing of use; with their borders.
LEAST_LANES = 4
LEAST_INSPECTOR = 6
# The kinds of screens that remember a height each: classes of the screen, without their dash.
HEIGHTS = ("high", "tall", "low")


class Split:
    """How many rows the inspector takes of a view that it shares with the lanes.

    Until they are changed, the style sheet says how many, by the height of the screen.
    """

    def __init__(self, view: Widget, lanes: Widget, inspector: Widget) -> None:
        self._view = view
        self._lanes = lanes
        self._inspector = inspector
        self._rows = dict(settings.load().inspector_rows)

    def move(self, by: int) -> None:
        """Give the inspector more rows, or with a number below zero the lanes."""
        if not self._inspector.display:
            return
        before, most = self._inspector.outer_size.height, self._room - LEAST_LANES
        rows = max(LEAST_INSPECTOR, min(most, before + by))
        if most >= LEAST_INSPECTOR and rows != before:
            self._rows[self._height] = rows
            settings.change(inspector_rows=self._rows)
            self.apply()

    def apply(self) -> None:
        """Bring both to the remembered sizes, as far as there is room."""
        rows = self._rows.get(self._height) if self._inspector.display else None
        # The inspector takes what the lanes leave: a number of rows would hold where it is the whole screen too.
        lanes = None if rows is None else max(LEAST_LANES, self._room - max(LEAST_INSPECTOR, rows))
        self._lanes.styles.height = lanes
        self._inspector.styles.height = None if rows is None else "1fr"

    @property
    def _height(self) -> str:
        return next((name for name in HEIGHTS if self._view.screen.has_class(f"-{name}")), "low")

    @property
    def _room(self) -> int:
        """Rows that lanes and inspector share."""
        others = [one for one in self._view.children if one.display and one not in (self._lanes, self._inspector)]
        return self._view.size.height - sum(one.outer_size.height for one in others)
