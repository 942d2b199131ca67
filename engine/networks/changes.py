"""What is done to a network while it runs: parts switched off or held at their mean, vectors added or put in.

Our own networks run step by step for it, as where they are looked into (`watched`); `module_changes` does the same to
transformers' module by hooks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from engine.base.language import _
from engine.networks.attention import KVCache
from engine.networks.network import Network, Output
from engine.networks.watched import Anatomy, Point, Size, Watch, run

Changed = Literal["heads", "attention", "mlp", "block", "stream"]


@dataclass(frozen=True, eq=False)
class Change:
    """One thing that is done.

    Attributes:
        point: `heads` is what goes into a block's projection after attention, `attention` and `mlp` what the block adds
            to the stream, `block` the block as a whole, `stream` a row of the stream.
        layer: the block's number, or the row's, of which 0 is the embedding.
        how: `off` sets to zero, of a block it skips it; `mean` is over the positions up to each one; `add` and `put` a
            vector to the stream, or in its place.
        head: of `heads`.
        vector: `[hidden]`, float32.
        position: in the text: `add` from there on, `put` there alone.

    Vector and position may be tensors `[lanes, 1, hidden]` and `[lanes, 1]` where lanes differ.
    """

    point: Changed
    layer: int
    how: Literal["off", "mean", "add", "put"]
    head: int = 0
    vector: Tensor | None = None
    position: int | Tensor = 0


class Changeable(Protocol):
    """A network to which something can be done."""

    def size(self) -> Size: ...

    def changed(self, changes: Sequence[Change]) -> Network:
        """The same weights with changes made in each forward.

        Raises:
            InputError: a part that this network does not have, or whose share cannot be told apart.
        """
        ...


def make(change: Change, value: Tensor, positions: Tensor, heads: int, mean: Callable[[Tensor], Tensor]) -> Tensor:
    """A part of one forward with a change made, in a tensor of its own.

    Args:
        value: `[lanes, positions, width]`.
        positions: where these stand in each lane's text, `[lanes, positions]`; below zero for padding.
        mean: of `[lanes, positions, width]`.
    """
    if change.how in ("add", "put"):
        assert change.vector is not None
        vector = change.vector.to(value)
        at = change.position.to(positions.device) if isinstance(change.position, Tensor) else change.position
        here = (positions >= at if change.how == "add" else positions == at)[..., None]
        return torch.where(here, value + vector if change.how == "add" else vector.expand_as(value), value)
    if change.point != "heads":
        return torch.zeros_like(value) if change.how == "off" else mean(value)
    size = value.shape[-1] // heads
    own = slice(change.head * size, (change.head + 1) * size)
    changed = value.clone()
    changed[..., own] = 0 if change.how == "off" else mean(value[..., own])
    return changed


def running_mean(values: Tensor, real: Tensor) -> Tensor:
    """Of each position and those before it, `[lanes, positions, width]`; summed in twice the digits.

    Args:
        real: `[lanes, positions]`, which positions are not padding.
    """
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    mask = real[..., None]
    sums = torch.where(mask, values, 0).to(wide).cumsum(1)
    return (sums / mask.cumsum(1).clamp(min=1)).to(values.dtype)


def unlike(anatomy: Anatomy, changes: Sequence[Change]) -> Anatomy:
    """What a changed network is made of: where its stream is changed between blocks, their parts do not add up."""
    if not any(change.point in ("block", "stream") for change in changes):
        return anatomy
    return replace(anatomy, unlike=_("an intervention changes the stream between the parts, so they do not add up"))


class ChangedNetwork:
    """One of our own networks, with changes. See `engine.networks.Network`.

    What a mean is over lies in the cache, beside keys and values: so it is copied, rewound and chosen with them.
    """

    def __init__(self, inner: Any, changes: Sequence[Change]) -> None:
        self._inner = inner
        self._changes = tuple(changes)
        self._means = [change for change in changes if change.how == "mean"]
        self._size: Size = inner.size()
        self.path = inner.path
        self.parameters = inner.parameters
        self.vocabulary_size = inner.vocabulary_size
        self.context_length = inner.context_length

    def prepare(self) -> None:
        self._inner.prepare()

    def at_once(self, length: int, usual: int) -> int:
        return int(self._inner.at_once(length, usual))

    def cache(self, capacity: int, padding: Sequence[int]) -> KVCache:
        cache: KVCache = self._inner.cache(capacity, padding)
        for change in self._means:
            width = self._size.head_size if change.point == "heads" else self._size.hidden
            cache.more.append(torch.zeros(len(padding), 1, cache.capacity, width, device=cache.device))
        return cache

    def forward(self, ids: Tensor, cache: KVCache, *, siblings: bool = False, all_logits: bool = False) -> Output:
        return self.watched(ids, cache, lambda point, layer, value: value, siblings=siblings)

    @torch.inference_mode()
    def watched(self, ids: Tensor, cache: KVCache, watch: Watch, *, siblings: bool = False) -> Output:
        """See `engine.networks.watched`; `watch` sees the parts as they are changed."""
        lanes, count = ids.shape
        left = torch.tensor(cache.padding, device=cache.device)[:, None]
        steps = torch.arange(count, device=cache.device) * (not siblings)
        positions = cache.length + steps - left  # [lanes, positions]
        skipped = {change.layer for change in self._changes if change.point == "block"}
        before: dict[int, Tensor] = {}

        def changing(point: Point, layer: int, value: Tensor) -> Tensor:
            if point == "stream" and layer - 1 in skipped:
                value = before.pop(layer - 1)
            for change in self._changes:
                if (change.point, change.layer) == (point, layer):
                    parts = value.view(lanes, count, -1)
                    mean = self._mean(change, cache, left, siblings=siblings)
                    changed = make(change, parts, positions, self._size.heads, mean)
                    value = changed.reshape(value.shape)
            if point == "stream" and layer in skipped:
                before[layer] = value
            return watch(point, layer, value)

        output: Output = self._inner.watched(ids, cache, changing, siblings=siblings)
        return output

    def _mean(self, change: Change, cache: KVCache, left: Tensor, *, siblings: bool) -> Callable[[Tensor], Tensor]:
        def mean(values: Tensor) -> Tensor:
            kept = cache.more[self._means.index(change)][:, 0]
            start, end = cache.length, cache.length + values.shape[1]
            kept[:, start:end] = values
            real = torch.arange(end, device=cache.device) >= left  # [lanes, length + positions]
            if not siblings:
                return running_mean(kept[:, :end], real)[:, start:].to(values.dtype)
            ones = [torch.cat([kept[:, :start], kept[:, i : i + 1]], 1) for i in range(start, end)]
            return torch.cat([running_mean(one, real[:, : start + 1])[:, -1:] for one in ones], 1).to(values.dtype)

        return mean

    def size(self) -> Size:
        """See `engine.networks.watched`."""
        return self._size

    def look(self, ids: Tensor, first: int, watch: Watch) -> Anatomy:
        """See `engine.networks.watched`."""
        run(self, ids, first, watch)
        return unlike(self._inner.anatomy(), self._changes)
