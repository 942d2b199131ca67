"""Classifier-free guidance: the prompt's distribution, pushed away from that of another prompt.

`log p = s · (log p_prompt − log p_other) + log p_other`, with s the scale (Ho and Salimans 2022; of text Sanchez et al.
2023). Both are log-softmaxes over the whole vocabulary, as in transformers' processor, so that the result is no
distribution yet: the stages that follow end in one. The other text is the negative prompt or, without one, the prompt's
last token, and after it what the lane writes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine.base.errors import Cancelled, ContextError, InputError
from engine.base.language import _
from engine.generation.config import GenerationConfig
from engine.generation.intervening import Treated, treated
from engine.generation.interventions import Treatment
from engine.networks.network import Cache, Network
from engine.text.tokenizer import Tokenizer

CHUNK = 512


@dataclass(frozen=True, eq=False)
class Guiding:
    """Of one lane: the other prompt's ids, and the network that its text goes through."""

    ids: tuple[int, ...]
    treated: Treated

    @property
    def treatment(self) -> Treatment:
        return self.treated.treatment


@dataclass(eq=False)
class Guide:
    """The other texts of a batch's lanes, all of which are guided.

    Attributes:
        logits: for each lane's next token, `[lanes, vocabulary]`, float32, on the processor.
    """

    treated: Treated
    cache: Cache
    logits: Tensor

    def step(self, last: Tensor) -> None:
        """The lanes' newest tokens, `[lanes, 1]`."""
        self.logits = self.treated.network.forward(last, self.cache).logits().float().cpu()

    def keep(self, rows: Sequence[int]) -> None:
        """Of these lanes alone."""
        self.cache, self.logits = self.cache.gather(rows), self.logits[rows]


def guiding(
    config: GenerationConfig,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    limit: int,
    treat: Callable[[tuple[str, ...], tuple[int, ...]], Treated],
) -> Guiding | None:
    """How a lane is guided; `None` where it is not.

    Args:
        prompt: ids of the lane's prompt.
        limit: how many tokens the lane writes behind it, at most.
        treat: the network under interventions, for a prompt's ids. A patch is of the lane's own prompt alone.

    Raises:
        InputError: a negative prompt without a token.
        ContextError: it does not fit the context, with what is to be written.
    """
    if config.guidance_scale == 1:
        return None
    ids = tuple(prompt[-1:])
    if config.negative_prompt is not None:
        ids = tuple(tokenizer.encode_ids(config.negative_prompt))
        if not ids:
            raise InputError(_("the negative prompt is empty; type at least one character"))
    done = tuple(one for one in config.interventions if not one.startswith("patch"))
    how = treat(done, ids)
    context_length = how.network.context_length
    if len(ids) + limit > context_length:
        raise ContextError(
            _(
                "the negative prompt's {count:,} tokens and {max_new_tokens:,} new ones exceed the context of "
                "{context_length:,}; shorten it",
                count=len(ids),
                max_new_tokens=limit,
                context_length=context_length,
            )
        )
    return Guiding(ids, how)


@torch.inference_mode()
def begin_guide(
    guides: Sequence[Guiding],
    written: Sequence[Sequence[int]],
    room: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> Guide:
    """Send the other texts of some lanes through the network.

    Args:
        written: what each lane has written behind it.
        room: positions that the lanes will still need.

    Raises:
        Cancelled: `cancelled`, asked before each part, returned True.
    """
    texts = [(*guide.ids, *ids) for guide, ids in zip(guides, written, strict=True)]
    longest = max(map(len, texts))
    padding = [longest - len(text) for text in texts]
    network = guides[0].treated.network
    ids = torch.tensor([[0] * pad + list(text) for text, pad in zip(texts, padding)])
    cache = network.cache(longest + room, padding)
    return Guide(guides[0].treated, cache, through(network, ids, cache, cancelled))


def through(network: Network, ids: Tensor, cache: Cache, cancelled: Callable[[], bool]) -> Tensor:
    """Logits behind some ids `[lanes, positions]`, `[lanes, vocabulary]`, float32; raises as `begin_guide` does."""
    length = cache.length + ids.shape[1]
    chunk = network.at_once(length, CHUNK)
    for first in range(0, ids.shape[1], chunk):
        if cancelled():
            raise Cancelled
        output = network.forward(ids[:, first : first + chunk], cache)
    return output.logits().float().cpu()


@torch.inference_mode()
def others_after(
    network: Network, tokenizer: Tokenizer, config: GenerationConfig, prompt: Sequence[int], written: Sequence[int]
) -> Tensor | None:
    """Logits of the text that a lane is pushed away from, `[vocabulary]`; `None` where it is not guided.

    Args:
        network: without what the configuration does to it.
        prompt: ids of the lane's prompt, and `written` what follows it.

    Raises:
        InputError, ContextError: as `guiding`.
    """
    found = guiding(config, tokenizer, prompt, len(written), partial(treated, network, tokenizer))
    return None if found is None else begin_guide([found], [written], 0).logits[0]
