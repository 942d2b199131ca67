"""How well a model expected a text: surprisal, rank and entropy of every token, from one pass over it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engine.text.token import Token


@dataclass(frozen=True, slots=True)
class Scored:
    """One token of a text, as the model expected it from those before it.

    Attributes:
        probability: `None` for the first token, which nothing comes before.
        rank: from 1.
        surprisal_bits: −log2 of the probability.
        entropy_bits: of the distribution it came from.
    """

    token: Token
    probability: float | None = None
    rank: int | None = None
    surprisal_bits: float | None = None
    entropy_bits: float | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """A whole text: `tokens` of it have a score; `perplexity` is 2 to the mean surprisal, `None` without any."""

    tokens: int
    bits: float
    perplexity: float | None

    @property
    def mean_bits(self) -> float | None:
        return self.bits / self.tokens if self.tokens else None


def total(scores: Iterable[Scored]) -> Total:
    """The text's bits and perplexity."""
    bits = [scored.surprisal_bits for scored in scores if scored.surprisal_bits is not None]
    return Total(len(bits), sum(bits), 2 ** (sum(bits) / len(bits)) if bits else None)


def to_dict(scored: Scored) -> dict[str, Any]:
    """One row of `score --json`."""
    return {
        "position": scored.token.position,
        "id": scored.token.id,
        "text": scored.token.label,
        "probability": scored.probability,
        "rank": scored.rank,
        "surprisal_bits": scored.surprisal_bits,
        "entropy_bits": scored.entropy_bits,
    }
