"""What another model thinks of a text, position by position: the lanes' models read the same tokens."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.base.errors import ContextError, InputError
from engine.base.language import _
from engine.models.local import with_network
from engine.models.model import Model
from engine.text.vocabularies import why_apart


@dataclass(frozen=True, slots=True)
class Opinion:
    """Of one token of a text, the model that wrote it against the other.

    Attributes:
        kl: `Σ p (log p − log q)` over the vocabulary, `p` of the model that wrote and `q` of the other, in nats.
        difference: `log q − log p` of the token that stands there, in nats; negative where the other finds it
            less likely.
        other_probability: `q` of that token.
    """

    kl: float
    difference: float
    other_probability: float

    @property
    def doubt(self) -> float:
        """By how many nats the other finds the token less likely."""
        return max(0.0, -self.difference)


def opinions(
    wrote: Model, other: Model, ids: Sequence[int], *, cancelled: Callable[[], bool] = lambda: False
) -> list[Opinion | None]:
    """What another model thinks of each token of a text; `None` of a first one, which nothing comes before.

    Raises:
        InputError: there is one model, one of them is behind a server, or their vocabularies differ.
        ContextError: the text is longer than one of them holds.
        Cancelled: `cancelled` returned True.
    """
    from engine.inside.difference import Reader, Windows, difference

    if wrote is other:
        raise InputError(_("both lanes have the same model: give one another to compare them"))
    refusal = _("another model's opinion needs all of its numbers, which no server tells; choose local models")
    models = [with_network(model, refusal) for model in (wrote, other)]
    if apart := why_apart(wrote.tokenizer, other.tokenizer):
        raise InputError(apart)
    most = min(model.network.context_length for model in models)
    if len(ids) > most:
        raise ContextError(
            _("the text has {count:,} tokens, one of the models holds {most:,}", count=len(ids), most=most)
        )
    highest = min(model.network.vocabulary_size for model in models)
    if any(id >= highest for id in ids):
        raise InputError(_("the text has a token that one of the models does not have"))
    found: list[Opinion | None] = [None] * len(ids)
    if len(ids) < 2:
        return found
    readers = [Reader(model.facts.title, model.network) for model in models]
    whole = Windows(len(ids), len(ids))
    read = difference(readers, ids, whole, cancelled=cancelled)
    assert read.kl is not None
    own, theirs = (one.log_probability for one in read.expected)
    for place, kl, p, q in zip(read.places.tolist(), read.kl.tolist(), own.tolist(), theirs.tolist()):
        found[place] = Opinion(kl, q - p, math.exp(q))
    return found
