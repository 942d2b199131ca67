"""What stages carry from step to step, and what they draw for one."""

from collections.abc import Mapping
from typing import Any

from engine.generation.stages.order import chain_of


def carried_at(
    config: Any, index: int, before: Mapping[str, float] | None = None, probability: float | None = None
) -> dict[str, float]:
    """A number for each stage of a configuration that has one, at a step.

    Args:
        index: of the step, from 0.
        before: what the step before had; nothing at the first.
        probability: of the token that was picked there, in what it was picked from.
    """
    found = {}
    for stage, _settings in chain_of(config):
        if stage.draws is not None:
            found[stage.name] = stage.draws(config.seed or 0, index)
        elif stage.begin is not None and stage.follow is not None:
            if before is None or stage.name not in before or probability is None:
                found[stage.name] = stage.begin(config)
            else:
                found[stage.name] = stage.follow(before[stage.name], probability, config)
    return found
