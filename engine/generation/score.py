"""How well a model expected a text: surprisal, rank and entropy of every token, from one pass over it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.text.tokenizer import Token

if TYPE_CHECKING:
    from engine.loading import Model
    from engine.remote import ServedModel


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


@dataclass(frozen=True, slots=True)
class Likely:
    """One token of a continuation.

    Attributes:
        rank: among all tokens at its place, from 1; `None` where a server does not tell.
        probability: given the text and the tokens before it.
    """

    token: str
    id: int
    rank: int | None
    probability: float


@dataclass(frozen=True, slots=True)
class Continuation:
    """A text that might come next, however unlikely, as a whole and token by token."""

    text: str
    tokens: tuple[Likely, ...]
    probability: float
    bits: float


def continuation(model: "Model | ServedModel", context: Sequence[int], text: str, ids: Sequence[int]) -> Continuation:
    """The probability of `ids`, which spell `text`, after `context`; raw, before any setting.

    Raises:
        InputError: the model is a server's that does not score prompts.
    """
    every = [*context, *ids]
    tokens = [Token(position, id, "", "", 0, 0, model.tokenizer.label(id)) for position, id in enumerate(every)]
    scored = list(model.score(tokens))[len(context) :]
    likely = tuple(Likely(one.token.label, one.token.id, one.rank, one.probability or 0.0) for one in scored)
    bits = sum(one.surprisal_bits or 0.0 for one in scored)
    return Continuation(text, likely, 2**-bits, bits)
