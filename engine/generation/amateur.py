"""Contrastive decoding (Li et al. 2022, arXiv:2210.15097): a model's opinion less that of a worse one, the amateur.

Not contrastive search (Su et al. 2022), which is the strategy `contrastive` and looks at one model's hidden states.

The amateur reads the lane's own text. Of the tokens whose probability is at least `α · max p` by the lane's model
(their plausibility cut, `V_head`), `log p − λ · log p_amateur` stays, and the others are cut. λ = 1 and α = 0.1 are
what the paper defines. It is not the form `(1 + β) · s − β · s_amateur` on logits of O'Brien and Lewis 2023
(arXiv:2309.09117): that one is this one with `λ = β / (1 + β)` at the temperature `1 / (1 + β)`. The paper's
temperature of the amateur is left at 1.

Behind guidance, where there is some, `p` is what guidance makes of it. A banned token is not taken for the most
probable one, so that a ban and the cut together never leave nothing. The result is no distribution yet: the stages that
follow end in one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.base.errors import ContextError, InputError
from engine.base.language import _
from engine.generation.config import GenerationConfig
from engine.generation.guidance import Guiding, begin_guide
from engine.generation.intervening import Treated
from engine.generation.memory import StateMemory
from engine.networks.network import Network

# Below any log-probability that a softmax gives: an amateur that rules a token out shall not make a number infinite.
LOWEST = -1e4


@dataclass(frozen=True, eq=False)
class Amateur:
    """The second model of a lane, whose vocabulary is the lane's: see `engine.models.amateurs`.

    Attributes:
        states: what it still knows of texts, where that is kept.
    """

    network: Network
    title: str
    states: StateMemory | None = None


@dataclass(frozen=True, eq=False)
class Reading(Guiding):
    """Of one lane: its amateur, which reads the lane's own text."""

    amateur: Amateur


def less_amateur(logits: Tensor, amateur: Tensor, weight: float, cut: float, banned: Sequence[int] = ()) -> Tensor:
    """A distribution less the amateur's: `log p − weight · log p_amateur`, −inf where the cut removes a token.

    Args:
        logits: `[vocabulary]`.
        amateur: `[its vocabulary]`; rows that only one of both has stand for no token, and such a token is cut.
        cut: α, from 0 for none to 1.
        banned: ids that do not count as the most probable one.
    """
    size = min(logits.numel(), amateur.numel())
    own, other = logits.log_softmax(0), amateur.float().log_softmax(0)[:size].clamp_min(LOWEST)
    gone = [id for id in banned if id < logits.numel()]  # others are refused where they act
    allowed = own.index_fill(0, torch.tensor(gone), -math.inf) if gone else own
    least = allowed[:size].max() + math.log(cut) if cut > 0 else torch.tensor(torch.finfo(own.dtype).min)
    result = torch.full_like(own, -math.inf)
    result[:size] = torch.where(own[:size] >= least, own[:size] - weight * other, -math.inf)
    return result


def reading(
    config: GenerationConfig,
    amateur: Amateur | None,
    prompt: Sequence[int],
    limit: int,
    behind: Sequence[int] = (),
) -> Reading | None:
    """How the amateur of a lane reads along; `None` where the lane has none.

    Args:
        amateur: as it is loaded for the lane.
        prompt: ids of the lane's prompt.
        limit: how many tokens the lane writes behind it, at most.
        behind: ids that are there already, or will come whatever the strategy would pick.

    Raises:
        InputError: the configuration names one and none is loaded, or the text has a token that it does not know.
        ContextError: the text does not fit its context.
    """
    if config.amateur is None:
        return None
    if amateur is None:
        raise InputError(_("the amateur {name} is not loaded here; leave it out", name=config.amateur))
    most = amateur.network.context_length
    if len(prompt) + limit > most:
        raise ContextError(
            _(
                "the prompt's {count:,} tokens and {max_new_tokens:,} new ones exceed the amateur's context of "
                "{context_length:,}; shorten it, or choose another amateur",
                count=len(prompt),
                max_new_tokens=limit,
                context_length=most,
            )
        )
    if unknown := [id for id in (*prompt, *behind) if id >= amateur.network.vocabulary_size]:
        raise InputError(
            _(
                "the amateur {name} does not know token {id:,} of the text; leave it out",
                name=amateur.title,
                id=unknown[0],
            )
        )
    return Reading(tuple(prompt), Treated(amateur.network), amateur)


def amateur_after(
    config: GenerationConfig, amateur: Amateur | None, prompt: Sequence[int], written: Sequence[int]
) -> Tensor | None:
    """The amateur's logits of the token after a text, `[its vocabulary]`; `None` where a lane has none.

    Raises as `reading` does.
    """
    found = reading(config, amateur, prompt, len(written), written)
    return None if found is None else begin_guide([found], [written], 0).logits[0]
