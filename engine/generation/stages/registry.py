"""Every stage, in the order in which transformers applies its own; those of ours alone stand where they were put.

A new one is a file beside this, its fields in `GenerationConfig`, and its name here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.generation.stages import (
    amateur,
    bias,
    dry,
    epsilon_cutoff,
    eta_cutoff,
    frequency_penalty,
    grammar,
    guidance,
    length_decay,
    min_p,
    mirostat,
    no_repeat_ngram,
    presence_penalty,
    repetition_penalty,
    temperature,
    top_h,
    top_k,
    top_n_sigma,
    top_p,
    typical_p,
    xtc,
)
from engine.generation.stages.stage import Parameter, Stage

STAGES: tuple[Stage, ...] = (
    grammar.STAGE,
    guidance.STAGE,
    amateur.STAGE,
    bias.STAGE,
    repetition_penalty.STAGE,
    frequency_penalty.STAGE,
    presence_penalty.STAGE,
    dry.STAGE,
    no_repeat_ngram.STAGE,
    length_decay.STAGE,
    temperature.STAGE,
    top_h.STAGE,
    top_n_sigma.STAGE,
    top_k.STAGE,
    top_p.STAGE,
    min_p.STAGE,
    typical_p.STAGE,
    epsilon_cutoff.STAGE,
    eta_cutoff.STAGE,
    xtc.STAGE,
    mirostat.STAGE,
)
BY_NAME: Mapping[str, Stage] = {stage.name: stage for stage in STAGES}
PARAMETERS: Mapping[str, Parameter] = {one.name: one for stage in STAGES for one in stage.parameters}

# The order of a lane's title.
_SUMMARISED = ("grammar", "truncation", "guidance", "amateur", "temperature", "penalty")


def usual_knobs() -> dict[str, Parameter]:
    """The parameters that the inspector always has knobs for."""
    return {name: one for name, one in PARAMETERS.items() if one.usual}


def knobs_of(configs: Sequence[Any]) -> dict[str, Parameter]:
    """The further knobs of stages in which some configuration sets one; stages that need others' logits have none."""
    found: dict[str, Parameter] = {}
    for stage in STAGES:
        further = [one for one in stage.parameters if not one.usual]
        if not stage.needs and any(getattr(config, one.name) != one.default for config in configs for one in further):
            found |= {one.name: one for one in further if one.ladder}
    return found


def summaries(config: Any) -> Iterator[tuple[str, str]]:
    """Each stage's name and its part of a lane's title, where it has one."""
    for group in _SUMMARISED:
        for stage in STAGES:
            if stage.group == group and (text := stage.summarised(config)):
                yield stage.name, text


def wanted(config: Any) -> list[str]:
    """Settings that a configuration's stages use and that are not as they are by default."""
    used = [name for stage in STAGES if stage.is_on(config) for name in stage.settings(config)]
    values = {name: getattr(config, name) for name in dict.fromkeys(used) if name in PARAMETERS}
    return [
        name
        for name, value in values.items()
        if value != PARAMETERS[name].default and value not in (PARAMETERS[name].off or ())
    ]


def supported(server: str) -> frozenset[str]:
    """Settings of stages that a kind of server takes."""
    return frozenset(name for name, one in PARAMETERS.items() if server in one.servers)


def sent(server: str, config: Any, *, truncations: bool) -> dict[str, Any]:
    """The fields of a request that hold what the stages take, but for biases, which each server writes in its way.

    Args:
        truncations: whether those that only cut tokens are sent, which greedy decoding does without.
    """
    body = {}
    for stage in STAGES:
        if stage.group == "truncation" and not truncations:
            continue
        for one in stage.parameters:
            value = getattr(config, one.name)
            if server not in one.servers or stage.first or (value == one.default and not one.usual):
                continue  # what a server may not know is not sent where nothing asks for it
            body[one.servers[server].field] = one.servers[server].off if value is None else value
    return body
