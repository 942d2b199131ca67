"""The probability of a given continuation."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.models.model import Model
from engine.text.token import Token


@dataclass(frozen=True, slots=True)
class Likely:
    """One token of a continuation.

    Attributes:
        rank: among all tokens at its place, from 1; `None` where a server does not send it.
        probability: given the text and the tokens before it.
    """

    token: str
    id: int
    rank: int | None
    probability: float


@dataclass(frozen=True, slots=True)
class Continuation:
    """A given continuation, likely or not: its probability as a whole, its surprisal in bits, and each token."""

    text: str
    tokens: tuple[Likely, ...]
    probability: float
    bits: float


def continuation(model: Model, context: Sequence[int], text: str, ids: Sequence[int]) -> Continuation:
    """The raw probability of `ids`, the tokens of `text`, after `context`, before any setting acts.

    Raises:
        InputError: the model runs on a server that does not score prompts.
    """
    every = [*context, *ids]
    tokens = [Token(position, id, "", "", 0, 0, model.tokenizer.label(id)) for position, id in enumerate(every)]
    scored = list(model.score(tokens))[len(context) :]
    likely = tuple(Likely(one.token.label, one.token.id, one.rank, one.probability or 0.0) for one in scored)
    bits = sum(one.surprisal_bits or 0.0 for one in scored)
    return Continuation(text, likely, 2**-bits, bits)
