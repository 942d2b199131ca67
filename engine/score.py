"""How well a model expected a text: surprisal, rank and entropy of every token, from one pass over it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import ContextError, InputError
from engine.language import _
from engine.networks import Network
from engine.tokens import Token

if TYPE_CHECKING:
    from engine.loading import Model
    from engine.remote import ServedModel

# Positions whose scores over the whole vocabulary are in memory at once.
CHUNK = 64


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


@torch.inference_mode()
def score(network: Network, tokens: Sequence[Token]) -> Iterator[Scored]:
    """Score each token from all before it; the first one has no score.

    Raises:
        InputError: there are no tokens.
        ContextError: there are more than the context holds.
    """
    if not tokens:
        raise InputError(_("the text is empty; type at least one character"))
    if len(tokens) > network.context_length:
        raise ContextError(
            _(
                "the text has {count:,} tokens, the model's context holds {context_length:,}; shorten it",
                count=len(tokens),
                context_length=network.context_length,
            )
        )
    yield Scored(tokens[0])
    ids = torch.tensor([[token.id for token in tokens]])
    cache = network.cache(len(tokens), [0])
    for first in range(0, len(tokens) - 1, CHUNK):
        chunk = ids[:, first : min(first + CHUNK, len(tokens) - 1)]
        logits = network.forward(chunk, cache, all_logits=True).all_logits()[0].float().cpu()  # [positions, vocabulary]
        log_probabilities = logits.log_softmax(-1)
        entropies = -(log_probabilities.exp() * log_probabilities).nansum(-1) / math.log(2)
        following = tokens[first + 1 : first + 1 + len(logits)]
        own = log_probabilities.gather(1, torch.tensor([[token.id] for token in following]))  # [positions, 1]
        ranks = (log_probabilities > own).sum(-1) + 1
        for token, log_probability, rank, entropy in zip(
            following, own[:, 0].tolist(), ranks.tolist(), entropies.tolist()
        ):
            yield Scored(token, math.exp(log_probability), rank, -log_probability / math.log(2), max(0.0, entropy))


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
