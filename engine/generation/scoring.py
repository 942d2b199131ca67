"""The pass over a text that scores each of its tokens."""

import math
from collections.abc import Iterator, Sequence

import torch

from engine.base.errors import ContextError, InputError
from engine.base.language import _
from engine.generation.score import Scored
from engine.networks.network import Network
from engine.text.token import Token

# Positions whose scores over the whole vocabulary are in memory at once.
SCORED_AT_ONCE = 64


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
    at_once = network.at_once(len(tokens) - 1, SCORED_AT_ONCE)
    for first in range(0, len(tokens) - 1, at_once):
        chunk = ids[:, first : min(first + at_once, len(tokens) - 1)]
        logits = network.forward(chunk, cache, all_logits=True).all_logits()[0].float().cpu()  # [positions, vocabulary]
        for start in range(0, len(logits), SCORED_AT_ONCE):
            after = first + start + 1
            following = tokens[after : min(after + SCORED_AT_ONCE, first + 1 + len(logits))]
            yield from _scored(following, logits[start : start + len(following)])


def _scored(following: Sequence[Token], logits: torch.Tensor) -> Iterator[Scored]:
    """Tokens with the logits they come from, `[tokens, vocabulary]`."""
    log_probabilities = logits.log_softmax(-1)
    entropies = -(log_probabilities.exp() * log_probabilities).nansum(-1) / math.log(2)
    own = log_probabilities.gather(1, torch.tensor([[token.id] for token in following]))  # [tokens, 1]
    ranks = (log_probabilities > own).sum(-1) + 1
    for token, log_probability, rank, entropy in zip(following, own[:, 0].tolist(), ranks.tolist(), entropies.tolist()):
        yield Scored(token, math.exp(log_probability), rank, -log_probability / math.log(2), max(0.0, entropy))
