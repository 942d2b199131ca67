"""Logits of which the most probable ones are sorted, as deep as somebody asks."""

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

# How many of the most probable tokens are sorted first. Where a cut lies deeper, all whose logit is so far below
# the highest one are sorted; the last resort is the whole vocabulary.
HEAD = 64
REACHES = (9.0, 11.0, 14.0, math.inf)


class Head:
    """The order of the most probable tokens, which logits share that differ by a stage that keeps the order.

    Attributes:
        ids: the most probable ones, in order, `[sorted so far]`.
    """

    def __init__(self, logits: "Tensor", shared: "Head | None" = None) -> None:
        self.logits = logits
        # The head that holds the ids; `None` for itself: a reference to itself would keep the tensors until gc ran.
        self._holder: Head | None = None if shared is None else shared._holder or shared
        self._ids: Tensor | None = None
        self._values: Tensor | None = None

    @property
    def ids(self) -> "Tensor":
        known = (self._holder or self)._ids
        return self.sort(HEAD) if known is None else known

    @property
    def values(self) -> "Tensor":
        """Their logits, `[sorted so far]`."""
        ids = self.ids
        if self._values is None or self._ids is not ids:
            self._ids, self._values = ids, self.logits[ids]
        return self._values

    def knows(self, count: int, other: "Head") -> bool:
        """Whether so many are sorted already, in an order that is another head's too."""
        return (self._holder or self) is (other._holder or other) and count <= len(self.ids)

    def sort(self, count: int) -> "Tensor":
        """Sort so many, and give their ids."""
        head = self.logits.topk(min(count, self.logits.numel()))
        self._set(head.values, head.indices)
        return head.indices

    def sort_deeper(self) -> None:
        """Sort all that lie within the next reach of the most probable one."""
        ids = self.ids
        for reach in REACHES:
            within = (self.logits >= self.values[0] - reach).nonzero()[:, 0]
            if len(within) > len(ids):
                head = self.logits[within].sort(descending=True, stable=True)
                self._set(head.values, within[head.indices])
                return

    def _set(self, values: "Tensor", ids: "Tensor") -> None:
        self._values, self._ids = values, ids
        if self._holder is not None:
            self._holder._ids, self._holder._values = ids, None


class Left(Protocol):
    """What a stage left: see `engine.generation.distribution.Level`."""

    @property
    def head(self) -> Head: ...
    @property
    def kept(self) -> int | None: ...
    @property
    def log_mass(self) -> "Tensor": ...
    @property
    def entropy_bits(self) -> float: ...


class Ordered:
    """The tokens that the cuts so far left, the most probable first, for a stage that keeps the first of them.

    Attributes:
        head: of the logits.
        kept: how many are left; all of the vocabulary, or as many as are sorted at most.

    """

    def __init__(self, level: Left) -> None:
        self._level = level
        self.head = level.head
        self.kept = self.head.logits.numel() if level.kept is None else level.kept

    @property
    def all_sorted(self) -> bool:
        return self.kept <= len(self.head.ids)

    @property
    def highest(self) -> "Tensor":
        """The logit of the most probable one, of no dimension."""
        return self.head.values[0]

    def sorted(self, count: int) -> "Tensor":
        """The logits of the most probable ones, `[count or more, as far as they are left]`."""
        if count > len(self.head.ids) and not self.all_sorted:
            self.head.sort(count)
        return self.head.values[: self.kept]

    def probabilities(self) -> "Tensor":
        """Of those that are sorted, among all that are left, `[sorted]`."""
        values = self.head.values[: self.kept]
        mass = values.logsumexp(0) if self.all_sorted else self.log_mass
        return (values - mass).exp()

    @property
    def logits(self) -> "Tensor":
        """Of all that are left, in any order, `[left]`; −inf for tokens that a mask cut."""
        return self.head.logits if self._level.kept is None else self.head.values[: self.kept]

    @property
    def log_mass(self) -> "Tensor":
        """Logsumexp of all that are left."""
        return self._level.log_mass

    @property
    def entropy_nats(self) -> float:
        """Of what is left."""
        return self._level.entropy_bits * math.log(2)

    def at_least(self, floor: "Tensor") -> int:
        """How many are left whose logit is not below `floor`; one at least."""
        while not self.all_sorted and self.head.values[-1] >= floor:
            self.head.sort(8 * len(self.head.ids))
        return max(1, int((self.head.values[: self.kept] >= floor).sum()))

    def sort_deeper(self) -> None:
        self.head.sort_deeper()
