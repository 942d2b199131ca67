"""Whose turn it is: work of unlike cost shares one worker's time.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): who has used least, weighted, is next. The weight is the
root of what a step costs, so the time divides as 1 / √cost: equal ones have half each, and one beside another that is
ten times as dear has three quarters. The dear one loses nothing by it: the whole takes as long in any order.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

FORGETS = 0.2  # the newest step's part of the mean cost
MOST = 4  # a step that something else held up counts as so many times the mean at most

K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound="HasSteps")


class HasSteps(Protocol):
    """Something that is given one step after the other."""

    @property
    def steps(self) -> int: ...


@dataclass
class _Share:
    """What one has had: `used` in seconds · √seconds, `cost` in seconds a step, known after two."""

    used: float
    cost: float = 0.0
    turns: int = 0


class Turns(Generic[K]):
    """Gives one of those that wait the next step, by what their steps have cost so far."""

    def __init__(self) -> None:
        self._shares: dict[K, _Share] = {}
        self._now = 0.0  # what the last one had used when it was its turn

    def next(self, waiting: Sequence[K]) -> K:
        """The one whose turn it is. One that did not wait the last time, new or back, makes up for no time before."""
        self._shares = {key: self._shares.get(key) or _Share(self._now) for key in waiting}
        key = min(waiting, key=lambda key: (self._shares[key].used, self._shares[key].turns))
        share = self._shares[key]
        self._now = share.used
        share.turns += 1
        return key

    def took(self, key: K, seconds: float) -> None:
        """The step of the one whose turn it was is over."""
        share = self._shares[key]
        if share.turns == 1:  # it may have warmed up: it counts when there is a second one to compare it with
            share.cost = seconds
            return
        if share.turns == 2:
            share.cost = min(share.cost, seconds)
        else:
            share.cost += FORGETS * (min(seconds, MOST * share.cost or seconds) - share.cost)
        share.used += (2 if share.turns == 2 else 1) * share.cost * math.sqrt(share.cost)


def furthest_behind(those: Sequence[S]) -> list[S]:
    """Those with the fewest steps: whose turn it is where all go in step; all of them, once they are level."""
    fewest = min((one.steps for one in those), default=0)
    return [one for one in those if one.steps == fewest]
