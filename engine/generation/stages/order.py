"""The order in which a configuration's stages act: one that has a name, or one that names its stages."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.base.errors import ConfigError
from engine.base.language import _
from engine.generation.ranges import is_list
from engine.generation.stages.registry import BY_NAME, STAGES
from engine.generation.stages.stage import Stage

FIELD = "order"
Chain = tuple[tuple[Stage, Mapping[str, Any]], ...]
# A configuration is asked for its chain in every step. It is found by its identity: a hash of all settings takes longer
# than some stages.
MOST_CHAINS = 256
_CHAINS: dict[int, tuple[Any, Chain]] = {}
_FIRST = tuple(stage for stage in STAGES if stage.first)
_OTHERS = tuple(stage.name for stage in STAGES if not stage.first)
# Each names the stages that its program has. llama.cpp: `samplers` of `common_params_sampling` in common/common.h.
# vLLM: `Sampler` in vllm/v1/sample/sampler.py, whose min-p is a logits processor before top-k and top-p, and
# `apply_penalties` in vllm/model_executor/layers/utils.py.
ORDERS: Mapping[str, tuple[str, ...]] = {
    "transformers": _OTHERS,
    "llama.cpp": (
        *("repetition_penalty", "frequency_penalty", "presence_penalty", "dry", "top_n_sigma", "top_k", "typical_p"),
        *("top_p", "min_p", "xtc", "temperature"),
    ),
    "vllm": (
        *("repetition_penalty", "frequency_penalty", "presence_penalty", "temperature", "min_p", "top_k", "top_p"),
    ),
}


def checked_order(value: Any) -> tuple[str, ...]:
    """The names of an order, or of the stages in it, as a configuration holds them; none is transformers' order.

    Args:
        value: a list of names, or a text that they stand in.

    Raises:
        ConfigError: an unknown name, a stage twice, or one that comes first in every order.
    """
    texts = [value] if isinstance(value, str) else value
    if not is_list(texts) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(FIELD, value, _known())
    names = tuple(name for text in texts for name in re.split(r"[\s,]+", text) if name)
    for name in names:
        if name in ORDERS and len(names) > 1:
            raise ConfigError(FIELD, " ".join(names), _("{name} alone, or names of stages", name=name))
        if name in BY_NAME and BY_NAME[name].first:
            raise ConfigError(FIELD, name, _("an order without it: {name} comes first in every order", name=name))
        if name not in ORDERS and name not in BY_NAME:
            raise ConfigError(FIELD, name, _known())
        if names.count(name) > 1:
            raise ConfigError(FIELD, " ".join(names), _("each stage once, and {name} is named twice", name=name))
    return () if names == ("transformers",) else names


def check_complete(config: Any) -> None:
    """Raise `ConfigError` where a stage is set that the configuration's order leaves out."""
    names = _names(config.order)
    for stage in STAGES:
        if not stage.first and stage.name not in names and stage.acts(config):
            allowed = _("an order that names {name} too, because it is set, or {name} left unset", name=stage.name)
            raise ConfigError(FIELD, " ".join(config.order), allowed)


def ordered(order: Sequence[str]) -> tuple[Stage, ...]:
    """All stages that can act in an order, in that order."""
    return (*_FIRST, *(BY_NAME[name] for name in _names(order)))


def chain_of(config: Any) -> Chain:
    """The stages that act under a configuration, in its order, each with what its function takes."""
    known = _CHAINS.get(id(config))
    if known is not None and known[0] is config:
        return known[1]
    chain = tuple((stage, stage.settings(config)) for stage in ordered(config.order) if stage.acts(config))
    if len(_CHAINS) >= MOST_CHAINS:
        _CHAINS.clear()
    _CHAINS[id(config)] = config, chain
    return chain


def reads_text(config: Any) -> bool:
    """Whether a stage reads the prompt or what is written."""
    return any(stage.reads != "nothing" for stage, _settings in chain_of(config))


def samplers(order: Sequence[str]) -> list[str]:
    """The names of llama-server's samplers, in an order of ours."""
    return list(dict.fromkeys(stage.sampler for stage in ordered(order) if stage.sampler))


def _names(order: Sequence[str]) -> Sequence[str]:
    if len(order) == 1 and order[0] in ORDERS:
        return ORDERS[order[0]]
    return order or _OTHERS


def _known() -> str:
    return _("{orders}, or names of stages: {stages}", orders=", ".join(ORDERS), stages=" ".join(_OTHERS))
