"""Lanes of several models as one run: each model's go through it together, and the models take turns."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Finished, Started
from engine.generation.fair import Turns, furthest_behind
from engine.text.token import Token


class Going(Protocol):
    """Lanes of one model that take each step together."""

    def __hash__(self) -> int: ...

    @property
    def steps(self) -> int:
        """How many tokens the run has given each of them; of a server's, the one that has fewest."""
        ...

    @property
    def over(self) -> bool:
        """Whether all of them have ended."""
        ...

    def ready(self, seconds: float) -> bool:
        """Whether a step would not wait for anybody; waits for that so many seconds at most."""
        ...

    def step(self) -> Iterator[Event]:
        """One token more for each."""
        ...

    def rest(self) -> None:
        """The run is paused."""
        ...

    def stop(self) -> Iterator[Event]:
        """End them where they are."""
        ...


class Entered(Protocol):
    """Lanes of one model before they begin."""

    @property
    def prompts(self) -> Mapping[int, tuple[Token, ...]]:
        """By the lane's number in the run."""
        ...

    @property
    def configs(self) -> Mapping[int, GenerationConfig]:
        """Likewise; complete, with seeds."""
        ...

    def begin(self, waited: float) -> Generator[Event, None, Sequence[Going]]:
        """Send their texts through the model; returns what goes on, nothing where it was cancelled.

        Args:
            waited: seconds since the run began, in which others' texts went through their models.
        """
        ...

    def close(self) -> None:
        """Nobody waits for them any more."""
        ...


def together(
    entered: Sequence[Entered],
    *,
    proceed: Callable[[], bool],
    cancelled: Callable[[], bool],
    in_step: Callable[[], bool],
    paused: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """One run of all that entered; for the arguments see `loop.generate`."""
    prompts = {lane: prompt for one in entered for lane, prompt in one.prompts.items()}
    configs = {lane: config for one in entered for lane, config in one.configs.items()}
    order = sorted(configs)
    yield Started(tuple(prompts[lane] for lane in order), tuple(configs[lane] for lane in order))
    began = time.perf_counter()
    going: list[Going] = []
    try:
        for place, one in enumerate(entered):
            found = yield from one.begin(time.perf_counter() - began)
            going += found
            if not found:  # it was cancelled
                yield from _stop(going)
                yield from (Finished(lane, "cancelled") for later in entered[place + 1 :] for lane in later.configs)
                return
        yield from take_turns(going, proceed=proceed, cancelled=cancelled, in_step=in_step, paused=paused)
    finally:
        for one in entered:
            one.close()


def take_turns(
    going: Sequence[Going],
    *,
    proceed: Callable[[], bool],
    cancelled: Callable[[], bool],
    in_step: Callable[[], bool],
    paused: Callable[[], bool],
) -> Iterator[Event]:
    """Again and again, lanes get one token more: those whose turn it is, or all in step."""
    turns: Turns[Going] = Turns()
    while going:
        if paused():
            for one in going:
                one.rest()
        if not proceed():
            yield from _stop(going)
            return
        if in_step():
            for one in furthest_behind(going):
                yield from one.step()
        elif ready := _ready(going, cancelled):
            one = turns.next(ready)
            yield from timed(one.step(), partial(turns.took, one))
        going = [one for one in going if not one.over]


WAIT_SECONDS = 0.02  # for one server, before another is asked


def _ready(going: Sequence[Going], cancelled: Callable[[], bool]) -> list[Going]:
    """Those that could take a step now, where none can as soon as one can; none where the run is cancelled first."""
    ready = [one for one in going if one.ready(0)]
    while not ready and not cancelled():
        ready = [one for one in going if one.ready(WAIT_SECONDS)]
    return ready


def _stop(going: Sequence[Going]) -> Iterator[Event]:
    for one in going:
        yield from one.stop()


def timed(events: Iterator[Event], took: Callable[[float], object]) -> Iterator[Event]:
    """Pass events on; `took` is told the seconds that making them took, without those of their reader."""
    seconds, began = 0.0, time.perf_counter()
    for event in events:
        seconds += time.perf_counter() - began
        yield event
        began = time.perf_counter()
    took(seconds + time.perf_counter() - began)
