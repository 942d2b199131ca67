"""Kullback-Leibler divergence of next-token distributions, in nats."""

from torch import Tensor


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """`Σ p_A (log p_A − log p_B)` of rows of log-probabilities, `[positions, vocabulary]` → `[positions]`.

    Rounding below zero, which no divergence is, becomes zero.
    """
    probabilities = first.exp()
    parts = probabilities * (first - second)
    return parts.masked_fill_(probabilities == 0, 0.0).sum(-1).clamp_min(0.0)
