"""Lanes of several models in one run: those of one model share its batches, and the models take turns."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Start
from engine.generation.together import together
from engine.models.model import Model

if TYPE_CHECKING:
    from engine.generation.amateur import Amateur
    from engine.generation.drafts import DraftModel


def generate(
    models: Sequence[Model],
    prompts: Sequence[str | Start],
    configs: Sequence[GenerationConfig],
    *,
    candidates: int = 20,
    proceed: Callable[[], bool] = lambda: True,
    cancelled: Callable[[], bool] = lambda: False,
    paused: Callable[[], bool] = lambda: False,
    in_step: Callable[[], bool] = lambda: False,
    others: Callable[[Model], dict[str, Any]] = lambda model: {},
    amateurs: "Sequence[Amateur | None]" = (),
    drafts: "Sequence[DraftModel | None]" = (),
) -> Iterator[Event]:
    """Continue each prompt with the model and under the configuration beside it; see `Model.generate`.

    Args:
        models: one for each configuration; a model that several lanes name is there several times.
        prompts: one for each configuration, or one for all, a text where the models' tokens differ.
        others: what one model's lanes are given besides: `others` of `Model.generate`.
        amateurs, drafts: one for each configuration that has one, see `engine.models.amateurs`; by default none has.
    """
    how: dict[str, Any] = {"candidates": candidates, "cancelled": cancelled, "paused": paused, "in_step": in_step}
    distinct = {id(model): model for model in models}
    if len(distinct) <= 1:
        for model in distinct.values():
            theirs = _given(amateurs, drafts, range(len(configs)))
            return model.generate(prompts, configs, proceed=proceed, **how, **others(model), **theirs)
    given = list(prompts) * len(configs) if len(prompts) == 1 else list(prompts)
    entered = []
    for model in distinct.values():
        numbers = [lane for lane, one in enumerate(models) if one is model]
        texts, wanted = [given[lane] for lane in numbers], [configs[lane] for lane in numbers]
        theirs = _given(amateurs, drafts, numbers)
        entered.append(model.enter(texts, wanted, numbers=numbers, **how, **others(model), **theirs))
    return together(entered, proceed=proceed, cancelled=cancelled, in_step=in_step, paused=paused)


def _given(
    amateurs: "Sequence[Amateur | None]", drafts: "Sequence[DraftModel | None]", lanes: Sequence[int]
) -> dict[str, Any]:
    """The second models of some lanes, where they have any."""
    both = {"amateurs": amateurs, "drafts": drafts}
    theirs = {name: [all_of[lane] for lane in lanes] for name, all_of in both.items() if all_of}
    return {name: some for name, some in theirs.items() if any(some)}
