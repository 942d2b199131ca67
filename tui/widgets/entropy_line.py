"""How undecided the model was along a lane: one row of blocks, with the cursor's place marked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from engine.base.language import _

LEVELS = "▁▂▃▄▅▆▇█"
UNKNOWN = "·"
LEAST_SCALE = 4


def scale_of(values: Sequence[float | None]) -> int:
    """The end of a scale from 0 that holds these bits, an even number."""
    most = max((value for value in values if value is not None), default=0.0)
    return max(LEAST_SCALE, 2 * math.ceil(most / 2))


def levels(values: Sequence[float | None], end: float, each: int) -> str:
    """A block for every `each` values, as high as the highest of them; a dot where none is known.

    >>> levels([0.0, 4.0, None, 2.0], 4, 1)
    '▁█·▅'
    """
    drawn = []
    for start in range(0, len(values), each):
        known = [value for value in values[start : start + each] if value is not None]
        drawn.append(LEVELS[min(len(LEVELS) - 1, int(max(known) / end * len(LEVELS)))] if known else UNKNOWN)
    return "".join(drawn)


class EntropyLine(Widget):
    """The entropies of a lane's steps, from its first to its newest.

    Where there are more steps than columns, each column stands for several and shows the highest.

    Attributes:
        cursor: the step that is marked.
    """

    cursor: reactive[int | None] = reactive(None)

    @dataclass
    class Pointed(Message):
        """A step was clicked on."""

        index: int

    def __init__(self) -> None:
        super().__init__()
        self._values: Sequence[float | None] = ()
        self._end = LEAST_SCALE

    def show(self, values: Sequence[float | None], end: int) -> None:
        """Show the entropies of all steps, in bits, on a scale from 0 to `end`."""
        if (values, end) != (self._values, self._end):
            self._values, self._end = values, end
            self.refresh()

    def render_line(self, y: int) -> Strip:
        base, quiet = self.rich_style, self.rich_style + Style(dim=True)
        each = self._each
        title, scale = self._around(each)
        blocks = levels(self._values, self._end, each)
        segments = [Segment(title, quiet)]
        if self.cursor is not None and self.cursor < len(self._values):
            place = self.cursor // each
            segments += [
                Segment(blocks[:place], base),
                Segment(blocks[place], base + Style(reverse=True)),
                Segment(blocks[place + 1 :], base),
            ]
        else:
            segments.append(Segment(blocks, base))
        segments.append(Segment(scale, quiet))
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def _around(self, each: int) -> tuple[str, str]:
        """What stands before and behind the line, with so many steps to a column."""
        scale = _(" 0 to {end} bits", end=self._end)
        return _("entropy "), scale if each == 1 else scale + _(", max of {count}", count=each)

    @property
    def _each(self) -> int:
        """Steps to a column."""
        count, each = len(self._values), 1
        while (room := self.size.width - sum(map(cell_len, self._around(each)))) > 0 and room * each < count:
            each = max(each + 1, -(-count // room))
        return each

    def on_click(self, event: events.Click) -> None:
        index = (event.x - cell_len(_("entropy "))) * self._each
        if 0 <= index < len(self._values):
            self.post_message(self.Pointed(index))
