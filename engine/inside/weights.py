"""Attention weights from queries and keys."""

import torch
from torch import Tensor


def weights_from(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """`softmax(q · k · scale)`, causal (Vaswani et al. 2017); heads share keys in groups (Ainslie et al. 2023).

    Args:
        queries: of the last positions, `[positions, heads, head_size]`.
        keys: of the whole text, `[key heads, length, head_size]`.

    Returns:
        `[heads, positions, length]`, float32; head h belongs to key head `h // group`.
    """
    count, heads, _size = queries.shape
    length = keys.shape[1]
    grouped = queries.float().permute(1, 0, 2).unflatten(0, (len(keys), heads // len(keys)))
    scores = grouped @ keys.float().cpu()[:, None].mT * scale  # [key heads, group, positions, length]
    later = torch.ones(count, length, dtype=torch.bool).triu(length - count + 1)
    return scores.masked_fill(later, -torch.inf).softmax(-1).flatten(0, 1)
