"""What is remembered of past runs, within bounds: logits of steps, and the network's state after a lane.

Neither is ever needed for a right answer: what has been let go is computed again.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from engine.networks.network import Cache

LOGITS_BYTES = 256_000_000
STATES = 6
# Keys and values of a token take tens of kilobytes, those of a large model more.
STATE_TOKENS = 8_192


@dataclass(slots=True, eq=False)
class KeptLogits:
    """The logits of one step, `[vocabulary]` float32, until they are let go."""

    row: "Tensor | None"


class LogitsMemory:
    """Whole rows of logits, the newest ones within `limit` bytes."""

    def __init__(self, limit: int = LOGITS_BYTES) -> None:
        self.limit = limit
        self.bytes = 0
        self._kept: deque[KeptLogits] = deque()

    def keep(self, row: "Tensor") -> KeptLogits:
        """Remember one more row, and let go of the oldest where there are too many."""
        kept = KeptLogits(row)
        self._kept.append(kept)
        self.bytes += row.nbytes
        while self.bytes > self.limit and len(self._kept) > 1:
            oldest = self._kept.popleft()
            if oldest.row is not None:
                self.bytes -= oldest.row.nbytes
                oldest.row = None
        return kept

    def clear(self) -> None:
        """Let go of every row."""
        for kept in self._kept:
            kept.row = None
        self._kept.clear()
        self.bytes = 0


@dataclass(slots=True, eq=False)
class LaneState:
    """What the network computed for one lane.

    Attributes:
        ids: the tokens that have been through it.
        cache: their keys and values, one lane.
        hidden: their last hidden states, `[1, padding + length, hidden]`; contrastive search only.
    """

    ids: tuple[int, ...]
    cache: "Cache"
    hidden: "Tensor | None" = None


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

    def find(self, ids: Sequence[int], *, hidden: bool) -> LaneState | None:
        """The state that knows most of the beginning of `ids`, if any knows some of it.

        Args:
            hidden: it must have hidden states, as contrastive search wants.
        """
        usable = [state for state in self._states.values() if not hidden or state.hidden is not None]
        best = max(usable, key=lambda state: common_prefix(state.ids, ids), default=None)
        if best is None or common_prefix(best.ids, ids) == 0:
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
