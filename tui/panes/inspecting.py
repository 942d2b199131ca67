"""Which step the inspector shows: its logits as they are remembered, or computed once more."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.base.language import _
from engine.generation.events import Failed, Start, Stepped
from engine.job import Job
from engine.lab import Lab
from tui.background import in_background
from tui.panes.inspector import Inspector
from tui.panes.lane_texts import LaneTexts
from tui.panes.lanes import LanePane
from tui.panes.opinion import OtherOpinion

if TYPE_CHECKING:
    from engine.generation.inspection import Inspection


class StepInspection:
    """Brings steps of the lanes into the inspector.

    Args:
        inspector: gives it, once it is mounted.
        beside: whether the other lane's model is asked of a step too.
    """

    def __init__(
        self,
        lab: Lab,
        lanes: Sequence[LanePane],
        inspector: Callable[[], Inspector],
        texts: LaneTexts,
        opinion: OtherOpinion,
        *,
        beside: Callable[[], bool],
    ) -> None:
        self._lab = lab
        self._lanes = lanes
        self._inspector = inspector
        self._texts = texts
        self._opinion = opinion
        self._beside = beside

    def show(self, lane: int, index: int) -> None:
        """Show a step of a lane, at once or as soon as its logits are there again."""
        inspector, step = self._inspector(), self._lanes[lane].steps[index]
        context, prompt = self._texts.ids_before(lane, index)
        config = self._texts.config_at(lane, index)
        if self._beside():
            branch = self._texts.shown(lane)
            begun = () if branch is None else tuple(branch.prompt)
            self._opinion.inspect(lane, step, Start(begun, tuple(context[prompt:])))
        inspection = self._lab.inspect(step, context, config)
        if inspection is not None:
            inspector.show(inspection, lane, step)
        else:
            inspector.wait(_("computing this step's logits again…"))
            job = self._lab.recall(step, context, config, prompt)
            in_background(inspector, "recall", self._recall, lane, step, job)

    def newest(self, lane: int) -> int | None:
        """The last step of a lane that nobody points into; `None` where one is pointed at, or the inspector hidden."""
        pane = self._lanes[lane]
        if pane.cursor is None and pane.steps and self._inspector().is_on_screen:
            return len(pane.steps) - 1
        return None

    async def _recall(self, lane: int, step: Stepped, job: "Job[Inspection]") -> None:
        async for inspection in job:
            if isinstance(inspection, Failed):
                self._inspector().wait(str(inspection.error))
            else:
                self._inspector().show(inspection, lane, step)
