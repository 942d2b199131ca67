"""The other lane's model on what a lane has written: asked when it is to be seen, and where they disagree most."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from engine.generation.config import GenerationConfig
from engine.generation.events import Failed, Start, Stepped
from engine.job import Job
from engine.lab import Lab
from tui.background import in_background
from tui.panes.inspector import Inspector
from tui.panes.lanes import LanePane

if TYPE_CHECKING:
    from engine.inside.opinion import Opinion
    from engine.models.model import Model


class OtherOpinion:
    """Asks each lane's text of the other lane's model, and keeps what comes of it in the lanes.

    Args:
        text_of: the ids of a lane's text, and how many of them are the prompt's.
        config_of: names the model that wrote a lane.
        came: called with a lane whose tokens are judged now.
        failed: called with the reason why they cannot be.
    """

    def __init__(
        self,
        lab: Lab,
        lanes: Sequence[LanePane],
        inspector: Callable[[], Inspector],
        *,
        text_of: Callable[[int], tuple[Sequence[int], int]],
        config_of: Callable[[int], GenerationConfig],
        came: Callable[[int], object],
        failed: Callable[[Exception], object],
    ) -> None:
        self._lab = lab
        self._lanes = lanes
        self._inspector = inspector
        self._text_of = text_of
        self._config_of = config_of
        self._came = came
        self._failed = failed

    def _configs(self, lane: int) -> list[GenerationConfig]:
        """The lane's own, and the other's."""
        return [self._config_of(lane), self._config_of(1 - lane)]

    def possible(self) -> bool:
        """Whether the lanes were written by two models."""
        models = [self._lab.model_of(self._config_of(lane)) for lane in (0, 1)]
        return None not in models and models[0] is not models[1]

    def ask(self) -> None:
        """Let each lane's text be read by both models."""
        for lane in self._lanes:
            ids, prompt = self._text_of(lane.lane)
            if lane.steps:
                job = self._lab.compare(_reading(ids), self._configs(lane.lane), ids[:prompt])
                in_background(lane, "opinion", self._judge, lane, job, prompt)

    async def _judge(self, lane: LanePane, job: Job[Any], prompt: int) -> None:
        steps = list(lane.steps)
        async for found in job:
            if isinstance(found, Failed):
                self._failed(found.error)
            elif lane.steps == steps:
                lane.judge(found[prompt:])
                self._came(lane.lane)

    def inspect(self, lane: int, step: Stepped, start: Start) -> None:
        """Show what the other model expected beside what the step was chosen from."""

        other = self._config_of(1 - lane)

        def body(model: "Model", _job: Job[Any]) -> Iterator[Any]:
            yield model.inspect(start, GenerationConfig(interventions=other.interventions))

        job = self._lab.look(body, other)
        in_background(self._lanes[lane], "beside", self._beside, job, step)

    def leave(self) -> None:
        """Show what a step was chosen from alone again, whatever is still on its way."""
        for lane in self._lanes:
            lane.workers.cancel_group(lane, "beside")
        self._inspector().alone()

    async def _beside(self, job: Job[Any], step: Stepped) -> None:
        async for found in job:
            if not isinstance(found, Failed):
                self._inspector().beside(found, step)


def _reading(ids: Sequence[int]) -> "Callable[[Sequence[Model], Job[Any]], Iterator[list[Opinion | None]]]":
    def body(models: "Sequence[Model]", job: Job[Any]) -> "Iterator[list[Opinion | None]]":
        from engine.inside.opinion import opinions

        wrote, other = models
        yield opinions(wrote, other, ids, cancelled=lambda: job.cancelled)

    return body


def next_disagreement(opinions: Sequence[object], cursor: int | None, by: int) -> int | None:
    """The place that follows the one at the cursor, largest divergence first; the first of all from anywhere else."""
    judged = [(getattr(one, "kl", None) or 0.0, place) for place, one in enumerate(opinions)]
    order = [place for kl, place in sorted(judged, key=lambda one: (-one[0], one[1])) if kl > 0]
    if not order:
        return None
    return order[(order.index(cursor) + by) % len(order)] if cursor in order else order[0]
