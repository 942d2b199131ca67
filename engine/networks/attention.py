"""Keys and values of our own networks, and attention over them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


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
        self.layers = [like.new_empty(shape) for _ in range(layers)]
        self.heads = heads
        self.capacity = capacity
        self.padding = tuple(padding)
        self.length = 0

    def gather(self, lanes: Sequence[int]) -> "KVCache":
        padding = [self.padding[lane] for lane in lanes]
        first = self.layers[0]
        other = KVCache(len(self.layers), self.heads, first.shape[-1], self.capacity, padding, first)
        other.length = self.length
        for target, source in zip(other.layers, self.layers):
            for row, lane in enumerate(lanes):
                target[row, :, : self.length] = source[lane, :, : self.length]
        return other

    def truncate(self, length: int) -> None:
        self.length = min(self.length, length)

    def choose(self, siblings: Sequence[int]) -> None:
        rows = torch.arange(len(siblings))
        chosen = self.length + torch.tensor(siblings)
        for layer in self.layers:
            layer[rows, :, self.length] = layer[rows, :, chosen]
        self.length += 1

    def positions(self, count: int, *, siblings: bool) -> Tensor:
        """Where `count` new tokens stand in each lane's text, `[lanes, count]`."""
        steps = torch.zeros(count, dtype=torch.long) if siblings else torch.arange(count)
        return (self.length + steps - torch.tensor(self.padding)[:, None]).clamp(min=0)

    def mask(self, count: int, group: int, dtype: torch.dtype, *, siblings: bool) -> Tensor | None:
        """What `count` new tokens see, additive, `[lanes, 1, group · count, length + count]`; `None` for all.

        The queries of a group of heads that share keys are laid out as further positions.
        """
        if count == 1 and not any(self.padding):
            return None
        own = torch.eye(count, dtype=torch.bool) if siblings else torch.ones(count, count, dtype=torch.bool).tril()
        seen = torch.ones(len(self.padding), count, self.length + count, dtype=torch.bool)
        seen[:, :, self.length :] = own
        for lane, padding in enumerate(self.padding):
            seen[lane, :, : max(0, min(padding, self.length + count))] = False
            if padding > self.length:  # a token of padding sees itself, so that no row is empty
                seen[lane, :, self.length :] |= torch.eye(count, dtype=torch.bool)
        if not any(self.padding):
            seen = seen[:1]
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        return mask.repeat(1, group, 1)[:, None]


def attend(queries: Tensor, new: Tensor, layer: Tensor, length: int, mask: Tensor | None) -> Tensor:
    """Add new keys and values to a layer's cache and attend over all of it.

    Args:
        queries: `[lanes, positions, heads, head_size]`.
        new: keys then values of the new positions, `[lanes, positions, 2 · kv_heads, head_size]`.
        layer: the layer's cache, `[lanes, 2 · kv_heads, capacity, head_size]`.
        length: positions the cache held before.
        mask: as `KVCache.mask` gives it.

    Returns:
        `[lanes · positions, heads · head_size]`.
    """
    lanes, count, heads, size = queries.shape
    kv_heads = layer.shape[1] // 2
    total = length + count
    layer[:, :, length:total] = new.transpose(1, 2)
    # Heads that share keys are further positions of one head; a single new token needs no reordering for that.
    shared = queries.view(lanes, count, kv_heads, heads // kv_heads, size)
    shared = shared[:, 0] if count == 1 else shared.permute(0, 2, 3, 1, 4).reshape(lanes, kv_heads, -1, size)
    keys, values = layer[:, :, :total].chunk(2, 1)
    seen = F.scaled_dot_product_attention(shared, keys, values, attn_mask=mask)
    if count > 1:
        seen = seen.view(lanes, kv_heads, -1, count, size).permute(0, 3, 1, 2, 4)
    return seen.reshape(lanes * count, heads * size)
