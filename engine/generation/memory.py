"""What is remembered of past runs, within bounds: logits of steps, and the network's state after a lane.

Neither is ever needed for a right answer: what has been let go is computed again.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.generation.interventions import PLAIN, Treatment

if TYPE_CHECKING:
    from torch import Tensor

    from engine.networks.network import Cache

LOGITS_BYTES = 256_000_000
STATES = 6
# Keys and values of a token take tens of kilobytes, those of a large model more.
STATE_TOKENS = 8_192


@dataclass(slots=True, eq=False)
class KeptLogits:
    """The logits of one step, `[vocabulary]` float32, until they are let go.

    Attributes:
        others: those of the text that guidance pushes away from, where there is one.
        amateur: those of the lane's amateur, where it has one.
    """

    row: "Tensor | None"
    others: "Tensor | None" = None
    amateur: "Tensor | None" = None

    @property
    def bytes(self) -> int:
        return sum(one.nbytes for one in (self.row, self.others, self.amateur) if one is not None)

    def let_go(self) -> None:
        self.row = self.others = self.amateur = None


class LogitsMemory:
    """Whole rows of logits, the newest ones within `limit` bytes."""

    def __init__(self, limit: int = LOGITS_BYTES) -> None:
        self.limit = limit
        self.bytes = 0
        self._kept: deque[KeptLogits] = deque()

    def keep(self, row: "Tensor", others: "Tensor | None" = None, amateur: "Tensor | None" = None) -> KeptLogits:
        """Remember one more row, and let go of the oldest where there are too many.

        Args:
            others, amateur: see `KeptLogits`.
        """
        kept = KeptLogits(row, others, amateur)
        self._kept.append(kept)
        self.bytes += kept.bytes
        while self.bytes > self.limit and len(self._kept) > 1:
            oldest = self._kept.popleft()
            self.bytes -= oldest.bytes
            oldest.let_go()
        return kept

    def clear(self) -> None:
        """Let go of every row."""
        for kept in self._kept:
            kept.let_go()
        self._kept.clear()
        self.bytes = 0


@dataclass(slots=True, eq=False)
class LaneState:
    """What the network computed for one lane.

    Attributes:
        ids: the tokens that have been through it.
        cache: their keys and values, one lane.
        hidden: their last hidden states, `[1, padding + length, hidden]`; contrastive search only.
        treatment: what was done to the network meanwhile.
    """

    ids: tuple[int, ...]
    cache: "Cache"
    hidden: "Tensor | None" = None
    treatment: Treatment = PLAIN


class StateMemory:
    """The states of the last lanes."""

    def __init__(self, limit: int = STATES) -> None:
        self.limit = limit
        self._states: OrderedDict[int, LaneState] = OrderedDict()

    def keep(self, state: LaneState) -> None:
        """Remember one more, and let go of the one unused for longest."""
        self._states[id(state)] = state
        while len(self._states) > self.limit or (len(self._states) > 1 and self._tokens() > STATE_TOKENS):
            self._states.popitem(last=False)

    def find(self, ids: Sequence[int], *, hidden: bool, treatment: Treatment = PLAIN) -> LaneState | None:
        """The state that knows most of the beginning of `ids`, if any knows some of it.

        Args:
            hidden: it must have hidden states, as contrastive search wants.
            treatment: what is done to the network that goes on from it.
        """

        def known(state: LaneState) -> int:
            return min(common_prefix(state.ids, ids), state.treatment.alike(treatment))

        usable = [state for state in self._states.values() if not hidden or state.hidden is not None]
        best = max(usable, key=known, default=None)
        if best is None or known(best) == 0:
            return None
        self._states.move_to_end(id(best))
        return best

    def _tokens(self) -> int:
        return sum(len(state.ids) for state in self._states.values())

    def clear(self) -> None:
        self._states.clear()


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """How many items two sequences share from their start."""
    for index, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return index
    return min(len(a), len(b))
