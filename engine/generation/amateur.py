"""The amateur of a lane, a second model that reads along: see `engine.generation.stages.amateur`."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from engine.base.errors import ContextError, InputError
from engine.base.language import _
from engine.generation.config import GenerationConfig
from engine.generation.guidance import Guiding, begin_guide
from engine.generation.intervening import Treated
from engine.generation.memory import StateMemory
from engine.networks.network import Network


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
