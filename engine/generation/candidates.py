"""Candidates of a step in plain numbers, as events and panes carry them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from engine.generation.distribution import Distribution
from engine.generation.events import Candidate
from engine.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Contrast:
    """What contrastive search found for its candidates, `[k]` each."""

    ids: Tensor
    similarity: Tensor
    scores: Tensor


def describe(
    stage: Distribution, tokenizer: Tokenizer, count: int, contrast: Contrast | None = None
) -> tuple[Candidate, ...]:
    """The `count` most probable tokens by raw rank, with what the settings did to each.

    For contrastive search, all its candidates, in rank order, with their scores.
    """
    if contrast is None:
        ids = stage.most_probable(count)
        ranked = stage.penalised is stage.raw
        return candidates(stage, tokenizer, ids, range(1, len(ids) + 1) if ranked else None)
    return candidates(
        stage,
        tokenizer,
        contrast.ids,
        similarity=contrast.similarity.tolist(),
        scores=contrast.scores.tolist(),
    )


def candidates(
    stage: Distribution,
    tokenizer: Tokenizer,
    ids: Tensor,
    ranks: Sequence[int] | None = None,
    *,
    similarity: Sequence[float | None] | None = None,
    scores: Sequence[float | None] | None = None,
) -> tuple[Candidate, ...]:
    """These tokens, `[n]` ids, in the order given.

    Args:
        ranks: of the tokens in the raw distribution, where they are known already.
    """
    ids_list = ids.tolist()
    nothing = [None] * len(ids_list)
    raw = stage.raw_probability(ids).tolist()
    pushed = stage.guided_probability(ids).tolist() if stage.acted("guidance") else nothing
    less = nothing if stage.less_amateur is stage.guided else stage.less_amateur_probability(ids).tolist()
    plain = stage.penalised is stage.raw
    penalised = raw if plain else stage.penalised_probability(ids).tolist()
    tempered = penalised if stage.tempered is stage.penalised else stage.tempered_probability(ids).tolist()
    final = stage.probability(ids).tolist()
    levels = [(level.stage.name, level.probability(ids).tolist()) for level in stage.levels if level.stage is not None]
    removed = stage.cut_by(ids)
    ranks = stage.ranks(ids) if ranks is None else ranks
    return tuple(
        Candidate(
            rank=ranks[index],
            id=id,
            text=tokenizer.label(id),
            raw_probability=raw[index],
            penalised_probability=penalised[index],
            tempered_probability=tempered[index],
            probability=final[index],
            cut_by=removed[index],
            similarity=(similarity or nothing)[index],
            score=(scores or nothing)[index],
            guided_probability=pushed[index],
            minus_amateur_probability=less[index],
            by_stage={name: values[index] for name, values in levels},
        )
        for index, id in enumerate(ids_list)
    )
