"""What a network is: the protocol that every architecture fills."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Result(Protocol):
    """What one forward gives.

    Attributes:
        hidden: last hidden states after the final norm, `[lanes, positions, hidden]`.
    """

    @property
    def hidden(self) -> Tensor: ...

    def logits(self, positions: Sequence[int] | int = -1) -> Tensor:
        """Logits at one position of each lane, `[lanes, vocabulary]`, float32."""
        ...

    def all_logits(self) -> Tensor:
        """Logits at every position, `[lanes, positions, vocabulary]`, float32."""
        ...


@dataclass(frozen=True, slots=True)
class Output:
    """What our own networks give. Logits are computed only for the positions somebody asks for.

    Attributes:
        hidden: last hidden states after the final norm, `[lanes, positions, hidden]`.
        head: hidden states `[rows, hidden]` → logits `[rows, vocabulary]`.
    """

    hidden: Tensor
    head: Callable[[Tensor], Tensor]

    def logits(self, positions: Sequence[int] | int = -1) -> Tensor:
        if isinstance(positions, int):
            return self.head(self.hidden[:, positions])
        return self.head(self.hidden[torch.arange(len(positions)), list(positions)])

    def all_logits(self) -> Tensor:
        return self.head(self.hidden.flatten(0, 1)).unflatten(0, self.hidden.shape[:2])


class Cache(Protocol):
    """Keys and values of the tokens that have been through a network.

    Attributes:
        length: positions held, padding included.
        padding: positions of padding at the left of each lane.
        rewindable: whether `truncate` works; a cache that forgets early positions cannot go back.
        takes_drafts: whether several tokens may go through at once, and back, for less than they cost one by one.
    """

    @property
    def length(self) -> int: ...

    @property
    def padding(self) -> tuple[int, ...]: ...

    @property
    def rewindable(self) -> bool: ...

    @property
    def takes_drafts(self) -> bool: ...

    def gather(self, lanes: Sequence[int], capacity: int | None = None) -> "Cache":
        """A cache whose lane i is this cache's lane `lanes[i]`; may repeat or leave out lanes.

        Args:
            capacity: room for so many positions; as much as here when `None`.
        """
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

    def prepare(self) -> None:
        """Do now what the first large forward would otherwise wait for."""
        ...

    def at_once(self, length: int, usual: int) -> int:
        """How many positions of a text of `length` are to go through at once: `usual`, or more where parts differ."""
        ...

    def cache(self, capacity: int, padding: Sequence[int]) -> Cache:
        """An empty cache for `len(padding)` lanes and at most `capacity` positions."""
        ...

    def forward(self, ids: Tensor, cache: Any, *, siblings: bool = False, all_logits: bool = False) -> Result:
        """Run `ids` `[lanes, positions]` after what `cache` holds, and add them to it.

        Args:
            siblings: the positions are alternatives for the one next position; each sees the
                cache and itself. The caller then keeps one with `cache.choose`.
            all_logits: more than the last position's logits will be asked for.
        """
        ...
