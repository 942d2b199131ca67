"""One protocol for every network: token ids in, hidden states and logits out.

Only this package knows about architectures. Lanes are rows of one batch; prompts of
different lengths are padded on the left, so all rows share one cache length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Output:
    """What one forward gives.

    Attributes:
        hidden: last hidden states after the final norm, `[lanes, positions, hidden]`.
        logits: `[lanes, positions, vocabulary]`, or `[lanes, 1, vocabulary]` when only the
            last position was asked for.
    """

    hidden: Tensor
    logits: Tensor


class Cache(Protocol):
    """Keys and values of the tokens that have been through a network.

    Attributes:
        length: positions held, padding included.
        padding: positions of padding at the left of each lane.
    """

    length: int
    padding: tuple[int, ...]

    def gather(self, lanes: Sequence[int]) -> "Cache":
        """A cache whose lane i is this cache's lane `lanes[i]`; may repeat or leave out lanes."""
        ...

    def truncate(self, length: int) -> None:
        """Forget everything after the first `length` positions."""
        ...

    def choose(self, siblings: Sequence[int]) -> None:
        """After a forward of siblings: keep, in each lane, the given one as the next position."""
        ...


class Network(Protocol):
    """A causal language model.

    Attributes:
        path: which implementation runs, in words for the status line.
        parameters: number of weights.
    """

    path: str
    parameters: int
    vocabulary_size: int
    context_length: int

    def cache(self, capacity: int, padding: Sequence[int]) -> Cache:
        """An empty cache for `len(padding)` lanes and at most `capacity` positions."""
        ...

    def forward(
        self, ids: Tensor, cache: Cache, *, siblings: bool = False, all_logits: bool = False
    ) -> Output:
        """Run `ids` `[lanes, positions]` after what `cache` holds, and add them to it.

        Args:
            siblings: the positions are alternatives for the one next position; each sees the
                cache and itself. The caller then keeps one with `cache.choose`.
            all_logits: logits for every position instead of the last (siblings: always every).
        """
        ...
