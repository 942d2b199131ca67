"""A run that is stepped, then let go, then cancelled."""

from collections.abc import Callable

from engine.generation.events import Event, Failed, Finished, Stepped
from engine.job import Job
from engine.lab import Lab


async def load(lab: Lab, name: str) -> None:
    """Load a model, which must not fail."""
    assert not [event async for event in lab.load(name) if isinstance(event, Failed)]


async def step_then_cancel(
    job: Job[Event], *, cancelled_after: int, stepped: Callable[[], None] = lambda: None
) -> list[Stepped]:
    """Three steps of a paused run, then on until so many tokens are there; what came is given back.

    Args:
        stepped: called after the three steps.
    """
    got: list[Stepped] = []
    job.step()
    async for event in job:
        assert not isinstance(event, Failed), event.error
        if isinstance(event, Stepped):
            got.append(event)
            if len(got) < 3:
                job.step()
            elif len(got) == 3:
                stepped()
                job.resume()
            elif len(got) == cancelled_after:
                job.cancel()
        elif isinstance(event, Finished):
            assert event.reason == "cancelled"
    return got
