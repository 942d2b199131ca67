"""How well a model expected a text: surprisal, rank and entropy of every token, from one pass over it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.text.conversation import Conversation
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


@dataclass(frozen=True, slots=True)
class MessageTotal:
    """One message of a conversation: the tokens that come from it."""

    message: int
    role: str
    total: Total


@dataclass(frozen=True, slots=True)
class ConversationTotals:
    """A conversation, message by message.

    Attributes:
        answers: all messages of the assistant's together.
        template: the tokens that come from no message, but from the template.
    """

    messages: tuple[MessageTotal, ...]
    answers: Total
    template: Total

    def to_dict(self) -> dict[str, Any]:
        """The part of `score --json` that a conversation adds."""
        return {
            "messages": [{"message": one.message, "role": one.role} | _of(one.total) for one in self.messages],
            "answers": _of(self.answers),
            "template": _of(self.template),
        }


def by_message(
    scores: Sequence[Scored], messages: Sequence[int | None], conversation: Conversation
) -> ConversationTotals:
    """Bits and perplexity of each message.

    Args:
        messages: the message that each token comes from, as `Rendered.messages`.
    """
    own: list[list[Scored]] = [[] for _message in conversation.messages]
    rest: list[Scored] = []
    for scored, message in zip(scores, messages, strict=True):
        (rest if message is None else own[message]).append(scored)
    roles = [message.role for message in conversation.messages]
    answers = [scored for scores, role in zip(own, roles) if role == "assistant" for scored in scores]
    return ConversationTotals(
        tuple(MessageTotal(place, role, total(scores)) for place, (role, scores) in enumerate(zip(roles, own))),
        total(answers),
        total(rest),
    )


def _of(whole: Total) -> dict[str, Any]:
    return {
        "tokens": whole.tokens,
        "bits": whole.bits,
        "mean_bits": whole.mean_bits,
        "perplexity": whole.perplexity,
    }
