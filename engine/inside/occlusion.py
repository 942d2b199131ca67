"""Which tokens of a text mattered: the picked token's log-probability with each one left out (Li et al. 2016)."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from engine.base.errors import Cancelled, ContextError, InputError
from engine.base.language import _
from engine.inside.tokens import check_tokens
from engine.models.model import Model
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.models.local import LocalModel
    from engine.networks.network import Network

# Tokens that go through a network at once; several variants of a text share what stands before the first gap in them.
TOKENS_AT_ONCE = 256
VARIANTS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Without:
    """The picked token's log-probability with one token of the text left out, in nats.

    Attributes:
        position: of the token that is left out.
        change: against the whole text; below zero where the token spoke for the picked one.
    """

    position: int
    log_probability: float
    change: float


@dataclass(frozen=True, slots=True)
class Occlusion:
    """All variants of a text.

    Attributes:
        token: the picked token's id.
        log_probability: after the whole text, in nats.
        without: one for each position.
    """

    token: int
    log_probability: float
    without: tuple[Without, ...]

    def to_dict(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """What `occlude --json` has beside `model` and `tokens`."""
        return {
            "token": {"id": self.token, "text": tokenizer.label(self.token)},
            "log_probability": self.log_probability,
            "without": [
                {"position": one.position, "log_probability": one.log_probability, "change": one.change}
                for one in self.without
            ],
        }


@dataclass(frozen=True, slots=True)
class Occluding:
    """Some of a text's variants have been through."""

    done: int
    variants: int


def occlusion(
    model: Model,
    ids: Sequence[int],
    token: int | None = None,
    *,
    report: Callable[[Occluding], None] = lambda occluding: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Occlusion:
    """Leave out each token of a text in turn.

    Args:
        ids: of the text before the picked token.
        token: the picked one; the most probable one when `None`, which a model behind a server cannot be asked for.
        report: called as variants have been through.
        cancelled: asked between the parts of a pass; True ends with `Cancelled`.

    Raises:
        InputError: a text of fewer than two tokens, a token that the vocabulary lacks, or a server that scores no
            prompts, or takes none as token ids.
        ContextError: the text does not fit the context.
        Cancelled: `cancelled` returned True.
    """
    if not ids:
        raise InputError(_("the text is empty; type at least one character"))
    if not model.capabilities.network:
        _check_served(model)
    if len(ids) < 2:
        raise InputError(_("a text of one token has none to leave out; type more"))
    if model.capabilities.network:
        network = cast("LocalModel", model).network
        size, context_length = network.vocabulary_size, network.context_length
    else:
        size, context_length = model.capabilities.vocabulary_size, model.capabilities.context_length
    if token is not None and size:
        check_tokens([token], size)
    if context_length and len(ids) > context_length:
        raise ContextError(
            _(
                "the text has {count:,} tokens, the model's context holds {context_length:,}; shorten it",
                count=len(ids),
                context_length=context_length,
            )
        )
    if model.capabilities.network:
        token, base, rest = _local(network, list(ids), token, cancelled)
    else:
        token, base, rest = _served(model, list(ids), token, cancelled)
    found: list[Without] = []
    for position, value in rest:
        found.append(Without(position, value, value - base))
        report(Occluding(len(found), len(ids)))
    return Occlusion(token, base, tuple(found))


Variants = tuple[int, float, Iterator[tuple[int, float]]]


def _local(network: "Network", ids: list[int], token: int | None, cancelled: Callable[[], bool]) -> Variants:
    """The picked token, its log-probability, and that of each variant."""
    import torch

    def run(rows: list[list[int]], cache: Any) -> torch.Tensor:
        """Log-probabilities after rows of one length, `[rows, vocabulary]`."""
        usual = max(1, TOKENS_AT_ONCE // len(rows))
        at_once = network.at_once(cache.length + len(rows[0]), usual)
        texts = torch.tensor(rows)
        for first in range(0, texts.shape[1], at_once):
            if cancelled():
                raise Cancelled
            output = network.forward(texts[:, first : first + at_once], cache)
        return output.logits().float().log_softmax(-1).cpu()

    with torch.inference_mode():
        whole = network.cache(len(ids), [0])
        base = run([ids], whole)[0]
    picked = int(base.argmax()) if token is None else token

    def variants() -> Iterator[tuple[int, float]]:
        for first in range(0, len(ids), VARIANTS_AT_ONCE):
            gaps = range(first, min(first + VARIANTS_AT_ONCE, len(ids)))
            shared = min(first, len(ids) - 2)
            rows = [[id for place, id in enumerate(ids[shared:], shared) if place != gap] for gap in gaps]
            with torch.inference_mode():
                if shared:
                    cache = whole.gather([0] * len(gaps), len(ids))
                    cache.truncate(shared)
                else:
                    cache = network.cache(len(ids), [0] * len(gaps))
                values = run(rows, cache)[:, picked].tolist()
            yield from zip(gaps, values)

    return picked, float(base[picked]), variants()


def _check_served(model: Model) -> None:
    if not model.capabilities.prompt_scores:
        raise InputError(_("{dialect} servers do not score prompts; run locally", dialect=model.capabilities.dialect))
    if not model.capabilities.token_ids:
        raise InputError(
            _(
                "{dialect} servers take no token ids, and a text with a gap is cut otherwise; run locally",
                dialect=model.capabilities.dialect,
            )
        )


def _served(model: Model, ids: list[int], token: int | None, cancelled: Callable[[], bool]) -> Variants:
    """The same by a server's scores of prompts."""
    if token is None:
        raise InputError(_("name the token whose probability is to be looked at"))

    def score(before: list[int]) -> float:
        if cancelled():
            raise Cancelled
        *_others, last = model.score([_token(model.tokenizer, id, place) for place, id in enumerate([*before, token])])
        if last.surprisal_bits is None:
            raise InputError(_("this server sent no score of the last token"))
        return -last.surprisal_bits * math.log(2)

    return token, score(ids), ((gap, score([*ids[:gap], *ids[gap + 1 :]])) for gap in range(len(ids)))


def _token(tokenizer: Tokenizer, id: int, position: int) -> Token:
    """A token by its id alone, as a server is sent it."""
    return Token(position, id, tokenizer.piece(id), "", 0, 0, tokenizer.label(id))
