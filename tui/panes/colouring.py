"""How the lanes' tokens are coloured, and what the other lane's model thinks of them."""

from collections.abc import Callable

from engine.base.language import _
from engine.lab import Lab
from tui.panes.inspector import Inspector
from tui.panes.lane_states import NAMES
from tui.panes.lane_texts import LaneTexts
from tui.panes.lanes import LanesPane
from tui.panes.opinion import OtherOpinion, next_disagreement
from tui.style.colours import MODES, OPINIONS


class Colouring:
    """The measure that tokens are coloured by.

    Args:
        coloured: called once there is another measure.
        changed: called where what is inspected is to be shown anew.
        look_at: points at a step of a lane.
        failed: called with why the other lane's model could not read them.

    Attributes:
        mode: one of `tui.style.colours.MODES`, or of `OPINIONS`.
        opinion: what asks the other lane's model.
    """

    def __init__(
        self,
        lab: Lab,
        pane: LanesPane,
        *,
        inspector: Callable[[], Inspector],
        texts: LaneTexts,
        coloured: Callable[[], object],
        changed: Callable[[], object],
        look_at: Callable[[int, int], object],
        failed: Callable[[Exception], object],
    ) -> None:
        self._pane = pane
        self._coloured = coloured
        self._changed = changed
        self._look_at = look_at
        self._failed = failed
        self._jump: tuple[int, int] | None = None  # to a disagreement, once there are opinions: the lane, and how far
        self.mode = MODES[0]
        self.opinion = OtherOpinion(
            lab,
            pane.lanes,
            inspector,
            text_of=texts.ids_of,
            config_of=texts.config_of,
            came=self._came,
            failed=self._without_opinion,
        )

    @property
    def compares(self) -> bool:
        """Whether tokens are coloured by what the other lane's model thinks."""
        return self.mode in OPINIONS

    def turn(self, *, opinions: bool) -> None:
        """The next measure of surprise; then the other model's opinion, where there is another and it may be asked."""
        modes = (*MODES, *OPINIONS) if opinions and self.opinion.possible() else MODES
        self._colour(modes[(modes.index(self.mode) + 1) % len(modes)] if self.mode in modes else modes[0])

    def compare(self) -> None:
        """By what the other lane's model thinks, or as before."""
        self._colour(MODES[0] if self.compares else OPINIONS[0])

    def ask(self) -> None:
        """Ask the other lane's model again, where it is compared with."""
        if self.compares:
            self.opinion.ask()

    def judged(self, lane: int) -> bool:
        """Whether there are opinions of a lane's tokens."""
        return self.compares and bool(self._pane.lanes[lane].opinions)

    def go(self, lane: int, by: int) -> None:
        """To the next place of a lane where its model and the other's disagree most, once that is known."""
        if not self.judged(lane):
            self._jump = lane, by
            self._colour(OPINIONS[0])
            return
        pane = self._pane.lanes[lane]
        place = next_disagreement(pane.opinions, pane.cursor, by)
        if place is None:
            self._pane.notify(_("The models agree everywhere in lane {lane}.", lane=NAMES[lane]))
            return
        self._look_at(lane, place)
        if self._pane.locked:
            self._pane.lanes[1 - lane].point(self._pane.beside(lane, place))

    def _came(self, lane: int) -> None:
        if self._jump is not None and self._jump[0] == lane:
            (_lane, by), self._jump = self._jump, None
            self.go(lane, by)

    def _without_opinion(self, error: Exception) -> None:
        """The other's opinion cannot be had: say why, once, and colour as before."""
        self._jump = None
        if self.compares:
            self._colour(MODES[0])
            self._failed(error)

    def _colour(self, mode: str) -> None:
        before, self.mode = self.mode, mode
        self._pane.colour(mode)
        self._coloured()
        if mode in OPINIONS and before not in OPINIONS:
            self.opinion.ask()
            self._changed()
        elif mode not in OPINIONS:
            self.opinion.leave()
