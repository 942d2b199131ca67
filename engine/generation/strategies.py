"""How the next token is picked from a distribution."""

import torch
from torch import Tensor


def sample(probabilities: Tensor, generator: torch.Generator) -> int:
    """The index of one draw from `[n]` probabilities, by inverting the cumulative distribution.

    Uses one uniform number per draw, so a lane's text depends on its seed alone.
    """
    return inverted(probabilities, draw(generator))


def inverted(probabilities: Tensor, uniform: Tensor) -> int:
    """The index at which the cumulative distribution of `[n]` weights passes a number of [0, 1), float64."""
    cumulative = probabilities.double().cumsum(0)
    drawn = torch.searchsorted(cumulative, uniform.to(cumulative.device) * cumulative[-1], right=True)
    return int(drawn.clamp(max=probabilities.numel() - 1))


def draw(generator: torch.Generator) -> Tensor:
    """One uniform number of [0, 1), float64: what each token of a lane takes from its generator."""
    return torch.rand((), generator=generator, dtype=torch.float64)


def contrastive_scores(
    probabilities: Tensor, candidates: Tensor, context: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """Contrastive search (Su et al. 2022, *A Contrastive Framework for Neural Text Generation*).

    Args:
        probabilities: of the candidates, `[k]`.
        candidates: last hidden state of each candidate placed after the context, `[k, hidden]`.
        context: last hidden states of all tokens so far, `[length, hidden]`.
        alpha: weight of the degeneration penalty.

    Returns:
        The scores `(1 − α) p − α similarity` and the similarities, the highest cosine to
        any context token, both `[k]`.
    """
    similarity = (unit(candidates) @ unit(context).T).amax(dim=1)
    return (1 - alpha) * probabilities - alpha * similarity, similarity


def unit(vectors: Tensor) -> Tensor:
    """Rows of `[n, hidden]` scaled to length one."""
    return vectors / vectors.norm(dim=-1, keepdim=True)
