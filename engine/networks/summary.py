"""What is said of logits: the largest ones, how others stand among them, and how spread they are."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Rows that are summed up at once: what a processor's cache holds takes a quarter of the time.
IN_CACHE = 16


@dataclass(frozen=True, slots=True)
class Summary:
    """Of logits `[rows, vocabulary]`.

    Attributes:
        values, ids: the largest ones in order, `[rows, top]`.
        own: those asked for, `[rows, asked]`.
        above: how many are larger than each of these, `[rows, asked]`.
        log_mass: the logarithm of the sum of their exponentials, `[rows]`.
        nats: the entropy of their softmax, `[rows]`.
    """

    values: Tensor
    ids: Tensor
    own: Tensor
    above: Tensor
    log_mass: Tensor
    nats: Tensor

    @classmethod
    def of(cls, logits: Tensor, asked: Tensor, top: int) -> "Summary":
        """Of logits that are there.

        Args:
            asked: ids, `[rows, asked]`.
        """
        parts = [cls._of(*some, top) for some in zip(logits.split(IN_CACHE), asked.split(IN_CACHE), strict=True)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__slots__))

    @classmethod
    def _of(cls, logits: Tensor, asked: Tensor, top: int) -> "Summary":
        values, ids = logits.topk(min(top, logits.shape[-1]))
        own = logits.gather(1, asked)
        above = torch.stack([torch.count_nonzero(logits > column[:, None], dim=-1) for column in own.T], 1)
        highest = logits.amax(-1, keepdim=True)
        below = logits - highest
        weights = below.exp()
        mass = weights.sum(-1)
        nats = mass.log() - torch.linalg.vecdot(weights, below) / mass
        return cls(values, ids, own, above, highest[:, 0] + mass.log(), nats)
