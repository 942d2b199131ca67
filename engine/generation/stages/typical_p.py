"""Locally typical sampling (Meister et al. 2022): tokens whose surprisal is far from the entropy go."""

import math
from typing import TYPE_CHECKING

from engine.base.language import N_
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage

if TYPE_CHECKING:
    from torch import Tensor


def change(logits: "Tensor", reading: Reading, typical_p: float) -> "Tensor":
    log_probabilities = logits.log_softmax(0)
    probabilities = log_probabilities.exp()
    entropy = -(log_probabilities * probabilities).nansum()
    distance = (-log_probabilities - entropy).abs()
    nearest = distance.sort()
    cumulative = probabilities[nearest.indices].cumsum(0)
    last = min(int((cumulative < typical_p).sum()), logits.numel() - 1)
    return logits.masked_fill(distance > nearest.values[last], -math.inf)


STAGE = Stage(
    name="typical_p",
    title=N_("typical"),
    group="truncation",
    definition=(
        "tokens whose surprisal is nearest the entropy stay, up to mass p (Meister et al. 2022, arXiv:2202.00666)"
    ),
    explanation=N_("what is as surprising as usual stays"),
    strategies=("sample",),
    cuts=True,
    change=change,
    sampler="typ_p",
    parameters=(
        Parameter(
            name="typical_p",
            above=True,
            off=(None, 1.0),
            ladder=(0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99, None),
            usual=True,
            label="typical",
            symbol="typical ",
            hint=N_("sample only: keep tokens of typical surprisal, up to mass p"),
            help="Keep typical tokens up to this mass.",
            servers={"llama.cpp": Sent("typical_p", 1.0)},
        ),
    ),
)
