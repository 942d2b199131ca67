"""Keys and values of our own networks, and attention over them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.networks import operators

# Up to so many new positions attention is computed in the cache's own type, beyond that in the queries'.
FEW = 64


class KVCache:
    """Preallocated keys and values, one tensor a layer.

    Args:
        layers: how many.
        heads: key/value heads.
        capacity: positions there is room for.
        padding: positions at the left of each lane that hold nothing.
    """

    def __init__(
        self, layers: int, heads: int, head_size: int, capacity: int, padding: Sequence[int], like: Tensor
    ) -> None:
        # Keys fill the first half of dimension 1, values the second: both are written by one copy.
        shape = (len(padding), 2 * heads, capacity, head_size)
        self.device = like.device
        # On the CPU attention of a single position reads float32 a third faster than bfloat16.
        dtype = torch.float32 if like.device.type == "cpu" else like.dtype
        self.layers = [like.new_empty(shape, dtype=dtype) for _ in range(layers)]
        self.more: list[Tensor] = []  # what else is kept of positions, `[lanes, 1, capacity, width]`: see `changes`
        self.heads = heads
        self.capacity = capacity
        self.padding = tuple(padding)
        self.length = 0

    rewindable = True
    takes_drafts = True

    @property
    def kept(self) -> list[Tensor]:
        """All that is kept of positions, which are dimension 2 of each."""
        return [*self.layers, *self.more]

    def gather(self, lanes: Sequence[int], capacity: int | None = None) -> "KVCache":
        padding = [self.padding[lane] for lane in lanes]
        first = self.layers[0]
        room = max(capacity or self.capacity, self.length)
        other = KVCache(len(self.layers), self.heads, first.shape[-1], room, padding, first)
        other.length = self.length
        other.more = [one.new_zeros(len(lanes), 1, room, one.shape[-1]) for one in self.more]
        for target, source in zip(other.kept, self.kept, strict=True):
            for row, lane in enumerate(lanes):
                target[row, :, : self.length] = source[lane, :, : self.length]
        return other

    def truncate(self, length: int) -> None:
        self.length = min(self.length, length)

    def choose(self, siblings: Sequence[int]) -> None:
        rows = torch.arange(len(siblings), device=self.device)
        chosen = self.length + torch.tensor(siblings, device=self.device)
        for one in self.kept:
            one[rows, :, self.length] = one[rows, :, chosen]
        self.length += 1

    def positions(self, count: int, *, siblings: bool) -> Tensor:
        """Where `count` new tokens stand in each lane's text, `[lanes, count]`."""
        steps = torch.arange(count, device=self.device) * (not siblings)
        left = torch.tensor(self.padding, device=self.device)[:, None]
        return (self.length + steps - left).clamp(min=0)

    def first(self, window: int | None) -> int:
        """The first position that new tokens see where they see up to `window` positions, their own included."""
        return max(0, self.length + 1 - window) if window else 0

    def mask(
        self, count: int, group: int, dtype: torch.dtype, *, siblings: bool, window: int | None = None
    ) -> Tensor | None:
        """What `count` new tokens see from position `first(window)` on, additive,
        `[lanes, 1, group · count, length + count - first]`; `None` for all.

        The queries of a group of heads that share keys are laid out as further positions.
        """
        if count == 1 and not any(self.padding):
            return None
        dtype = self.layers[0].dtype if count <= FEW else dtype  # see `attend`
        # On a GPU it is made there: for a long text it is as large as the weights of a layer.
        itself = torch.eye(count, dtype=torch.bool, device=self.device)
        ones = torch.ones(len(self.padding), count, self.length + count, dtype=torch.bool, device=self.device)
        seen = ones.clone()
        seen[:, :, self.length :] = itself if siblings else ones[0, :, :count].tril()
        if window and not siblings and self.length + count > window:
            seen &= ones[0].triu(self.length + 1 - window)
        for lane, padding in enumerate(self.padding):
            seen[lane, :, : max(0, min(padding, self.length + count))] = False
            if padding > self.length:  # a token of padding sees itself, so that no row is empty
                seen[lane, :, self.length :] |= itself
        seen = seen[: None if any(self.padding) else 1, :, self.first(window) :]
        mask = torch.zeros(seen.shape, dtype=dtype, device=self.device).masked_fill(~seen, torch.finfo(dtype).min)
        return mask.repeat(1, group, 1)[:, None]

    def append(self, layer: int, new: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """Add a layer's new keys and values, and give all of them from position `first` on.

        Args:
            new: keys then values of the new positions, `[lanes, positions, 2 · kv_heads, head_size]`.

        Returns:
            Keys and values, each `[lanes, kv_heads, length + positions - first, head_size]`.
        """
        kept = self.layers[layer]
        total = self.length + new.shape[1]
        # Unlike a slice, which is empty beyond the end and takes one position without a word, this raises there.
        kept.narrow(2, self.length, new.shape[1]).copy_(new.transpose(1, 2))
        keys, values = kept[:, :, first:total].chunk(2, 1)
        return keys, values


class FixedStep:
    """A cache as one decoding step sees it with shapes that stay the same from step to step.

    A CUDA graph replays exactly the same kernels on the same memory: the position is therefore a tensor, and
    attention goes over the whole capacity under a mask. Stands in for a `KVCache` in a network's `forward`.
    """

    def __init__(self, cache: KVCache) -> None:
        self.layers = cache.layers
        self.padding = cache.padding
        self.length = 0  # counted by the caller, in `position`
        self.position = torch.full((1,), cache.length, device=cache.device)
        self._left = torch.tensor(cache.padding, device=cache.device)[:, None]
        self._columns = torch.arange(cache.capacity, device=cache.device)
        self.clear(cache.length)

    def place(self, length: int, padding: Sequence[int]) -> None:
        """Hold another text from here on: `length` positions, `padding` of them at the left of each lane."""
        self.padding = tuple(padding)
        self._left.copy_(torch.tensor(self.padding)[:, None])
        self.clear(length)

    def clear(self, length: int) -> None:
        """What lies behind the text is masked, but still must be a number."""
        for layer in self.layers:
            layer[:, :, length:] = 0

    def positions(self, count: int, *, siblings: bool) -> Tensor:
        return (self.position - self._left).clamp(min=0)

    def first(self, window: int | None) -> int:
        return 0

    def mask(self, count: int, group: int, dtype: torch.dtype, *, siblings: bool, window: int | None = None) -> Tensor:
        dtype = self.layers[0].dtype
        seen = (self._columns >= self._left) & (self._columns <= self.position)  # [lanes, capacity]
        if window:
            seen &= self._columns > self.position - window
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
        return mask[:, None, None].expand(-1, 1, group, -1)

    def append(self, layer: int, new: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        kept = self.layers[layer]
        kept.index_copy_(2, self.position, new.transpose(1, 2).to(kept.dtype))
        keys, values = kept.chunk(2, 1)
        return keys, values


class TracedStep:
    """A cache as one decoding step sees it while it is traced: the position is a tensor, so that it stays an input.

    Args:
        layers: the cache's.
        position: where the new tokens go, a whole number.
        padding: of each lane, `[lanes]`; `None` where there is none.
    """

    def __init__(self, layers: Sequence[Tensor], position: Tensor, padding: Tensor | None) -> None:
        self.layers = layers
        self.position = position
        self.length = 0  # counted by the caller, in `position`
        self._end = position + 1
        self._padding = padding

    def positions(self, count: int, *, siblings: bool) -> Tensor:
        if self._padding is None:
            return self.position.expand(len(self.layers[0]), 1)
        return (self.position - self._padding)[:, None].clamp(min=0)

    def first(self, window: int | None) -> Tensor | int:
        return (self._end - window).clamp(min=0) if window else 0

    def mask(
        self, count: int, group: int, dtype: torch.dtype, *, siblings: bool, window: int | None = None
    ) -> Tensor | None:
        if self._padding is None:
            return None
        columns = torch.arange(self.first(window), self._end)  # type: ignore[call-overload]
        hidden = columns < self._padding[:, None]  # [lanes, length + 1 - first]
        dtype = self.layers[0].dtype
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)
        return mask[:, None, None].expand(-1, 1, group, -1)

    def append(self, layer: int, new: Tensor, first: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        kept = self.layers[layer]
        kept.narrow(2, self.position, 1).copy_(new.transpose(1, 2))
        keys, values = kept[:, :, first : self._end].chunk(2, 1)
        return keys, values


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scale: float | None = None,
    cap: float | None = None,
    *,
    siblings: bool = False,
) -> Tensor:
    """Attention of new positions over all positions.

    Args:
        queries: `[lanes, positions, heads, head_size]`.
        keys, values: `[lanes, kv_heads, length, head_size]`.
        mask: as `KVCache.mask` gives it.
        scale: of queries times keys; by default one over the root of a head's size.
        cap: what these then stay below, softly.
        siblings: whether the new positions stand in each other's place, and see themselves alone of all new ones.

    Returns:
        `[lanes · positions, heads · head_size]`.
    """
    lanes, count, heads, size = queries.shape
    kv_heads = keys.shape[1]
    # Float32 keys serve few positions as they are; for many, arithmetic in the queries' type is faster.
    dtype = queries.dtype
    if count <= FEW:
        queries = queries.to(keys.dtype)
    else:
        keys, values = keys.to(dtype), values.to(dtype)
    # Heads that share keys are further positions of one head; a single new token needs no reordering for that.
    shared = queries.view(lanes, count, kv_heads, heads // kv_heads, size)
    shared = shared[:, 0] if count == 1 else shared.permute(0, 2, 3, 1, 4).reshape(lanes, kv_heads, -1, size)
    if (count == 1 or siblings) and cap is None and operators.takes_attention(shared, keys):
        apart = count if siblings else 0
        seen = operators.attention(shared, keys, values, mask, size**-0.5 if scale is None else scale, apart).to(dtype)
    elif cap is None:
        seen = F.scaled_dot_product_attention(shared, keys, values, attn_mask=mask, scale=scale).to(dtype)
    else:
        seen = _capped(shared, keys, values, mask, size**-0.5 if scale is None else scale, cap).to(dtype)
    if count > 1:
        seen = seen.view(lanes, kv_heads, -1, count, size).permute(0, 3, 1, 2, 4)
    return seen.reshape(lanes * count, heads * size)


def _capped(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, cap: float) -> Tensor:
    """Attention whose logits stay between `-cap` and `cap` (Gemma 2), for which torch has no operator."""
    logits = cap * torch.tanh(queries @ keys.transpose(2, 3) * (scale / cap))
    logits = logits if mask is None else logits + mask
    return logits.softmax(-1, dtype=torch.float32).to(values.dtype) @ values
