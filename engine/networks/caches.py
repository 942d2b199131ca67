"""What is kept of lanes that go through transformers' module, in the way that the door found safe for it.

The lanes of one cache are in one or several parts; those of a part go through the module together.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DummyLayer, DynamicCache, DynamicLayer

from engine.networks.ways import Way


@dataclass
class Part:
    """Lanes that go through the module together.

    Attributes:
        ids: all that have been through it, `[lanes, length]`, padding included.
        padding: positions of padding at the left of each lane.
        inner: what the module keeps of them; `None` where nothing is kept, or what was kept is of no use any more:
            the whole text then goes through it again.
    """

    ids: Tensor
    padding: tuple[int, ...]
    inner: Any = None

    @property
    def lanes(self) -> int:
        return len(self.padding)

    @property
    def length(self) -> int:
        return self.ids.shape[1]

    @property
    def longest(self) -> int:
        """Tokens of the longest lane, without padding."""
        return self.length - min(self.padding)

    def select(self, lanes: Sequence[int], *, copied: bool = True) -> "Part":
        """A part of these lanes; may repeat or leave out some.

        Args:
            copied: whether this part stays as it is; else what it keeps goes over into the new one.
        """
        inner = self.inner
        if inner is not None:
            inner = copy.deepcopy(inner) if copied else inner
            if list(lanes) != list(range(self.lanes)):
                _select(inner, torch.tensor(lanes))  # which serves layers on any device
        return Part(self.ids[list(lanes)], tuple(self.padding[lane] for lane in lanes), inner)

    def truncate(self, length: int) -> None:
        """Forget everything after the first `length` positions."""
        if length >= self.length:
            return
        if self.inner is not None:
            if can_crop(self.inner) and length > 0:
                self.inner.crop(length - self.length)
            else:
                self.inner = None
        self.ids = self.ids[:, :length]

    def choose(self, siblings: Sequence[int], ids: Tensor) -> None:
        """After siblings went through as positions: keep one in each lane.

        Args:
            ids: the chosen ones, `[lanes, 1]`.
            siblings: their places among those that went through.
        """
        rows = torch.arange(len(siblings))
        chosen = self.length + torch.tensor(siblings)
        extra = 0
        for layer in self.inner.layers:
            if type(layer) is DynamicLayer and layer.is_initialized:
                extra = layer.keys.shape[2] - self.length
                for states in (layer.keys, layer.values):
                    states[:, :, self.length] = states[rows, :, chosen]
        self.inner.crop(1 - extra)
        self.ids = torch.cat([self.ids, ids], dim=1)


def _select(inner: Any, lanes: Tensor) -> None:
    if type(inner) is DynamicCache:  # `batch_select_indices` knows keys and values alone, this states as well
        inner.reorder_cache(lanes)
    else:  # an architecture's own
        inner.batch_select_indices(lanes)


def can_crop(inner: Any) -> bool:
    """Whether every layer keeps one state for every position, and nothing that runs over all of them."""
    return type(inner) is DynamicCache and all(type(layer) in (DynamicLayer, DummyLayer) for layer in inner.layers)


def has_positions(inner: Any) -> bool:
    """Whether some layer looks back at single positions; a state that runs over all of them has left padding behind."""
    return any(isinstance(layer, DynamicLayer) for layer in inner.layers)


class TransformersCache:
    """Parts under the protocol's verbs; see `engine.networks.Cache`.

    Attributes:
        offered: siblings that have been through, `[lanes, siblings]`, until one is chosen.
        expanded: for siblings that went through as lanes of their own, the parts that hold them.
    """

    def __init__(self, parts: Sequence[Part], padding: Sequence[int], length: int, way: Way) -> None:
        self.parts = list(parts)
        self.padding = tuple(padding)
        self.length = length
        self.way = way
        self.offered: Tensor | None = None
        self.expanded: list[Part | list[Part] | None] | None = None

    @classmethod
    def empty(cls, padding: Sequence[int], way: Way, device: torch.device) -> "TransformersCache":
        def part(pads: Sequence[int]) -> Part:
            return Part(torch.zeros(len(pads), 0, dtype=torch.long, device=device), tuple(pads))

        together = way.rows == "padded" or (way.rows == "equal" and not any(padding)) or len(padding) == 1
        if together and (way.rows == "padded" or not any(padding)):
            return cls([part(padding)], padding, 0, way)
        return cls([part([0]) for _ in padding], padding, 0, way)

    rewindable = True

    @property
    def takes_drafts(self) -> bool:
        """Without a cache the whole text goes through at each step anyway."""
        if not self.way.cached:
            return True
        return self.way.chunks and all(part.inner is None or can_crop(part.inner) for part in self.parts)

    def gather(self, lanes: Sequence[int], capacity: int | None = None) -> "TransformersCache":
        homes = [(index, row) for index, part in enumerate(self.parts) for row in range(part.lanes)]
        wanted = [homes[lane] for lane in lanes]
        parts = []
        for index, run in groupby(wanted, key=lambda home: home[0]):
            rows = [row for _, row in run]
            if self.way.rows == "single":
                parts += [self.parts[index].select([row]) for row in rows]
            else:
                parts.append(self.parts[index].select(rows))
        return TransformersCache(parts, [self.padding[lane] for lane in lanes], self.length, self.way)

    def truncate(self, length: int) -> None:
        for start, part in self.starts():
            part.truncate(max(0, length - start))
        self.length = min(self.length, length)

    def choose(self, siblings: Sequence[int]) -> None:
        assert self.offered is not None, "choose follows a forward of siblings"
        row = 0
        for index, part in enumerate(self.parts):
            chosen = list(siblings[row : row + part.lanes])
            ids = self.offered[torch.arange(row, row + part.lanes), chosen][:, None]
            expanded = None if self.expanded is None else self.expanded[index]
            if isinstance(expanded, Part):
                count = self.offered.shape[1]
                rows = [lane * count + which for lane, which in enumerate(chosen)]
                self.parts[index] = expanded.select(rows, copied=False)
            elif expanded is not None:
                self.parts[index] = expanded[chosen[0]]
            elif part.inner is None:
                part.ids = torch.cat([part.ids, ids], dim=1)
            else:
                part.choose(chosen, ids)
            row += part.lanes
        self.length += 1
        self.offered = self.expanded = None

    def starts(self) -> list[tuple[int, Part]]:
        """Each part with the position of the cache at which its first id stands: a lane alone holds no padding."""
        found, row = [], 0
        for part in self.parts:
            found.append((self.padding[row] - part.padding[0], part))
            row += part.lanes
        return found
