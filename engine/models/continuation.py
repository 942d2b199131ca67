"""The probability of a text that might come next."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.models.model import Model
from engine.text.token import Token


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


def continuation(model: Model, context: Sequence[int], text: str, ids: Sequence[int]) -> Continuation:
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
