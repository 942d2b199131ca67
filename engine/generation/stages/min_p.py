"""Min-p (Nguyen et al. 2024): tokens below p times the most probable one go."""

import math

from engine.base.language import N_
from engine.generation.stages.ordered import Ordered
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage


def keep(left: Ordered, reading: Reading, min_p: float) -> int:
    return left.at_least(left.highest + math.log(min_p))


STAGE = Stage(
    name="min_p",
    title=N_("min-p"),
    group="truncation",
    definition="tokens less probable than p times the most probable one go (Nguyen et al. 2024, arXiv:2407.01082)",
    explanation=N_("what is far less probable than the best goes"),
    keep=keep,
    sampler="min_p",
    parameters=(
        Parameter(
            name="min_p",
            off=(None, 0.0),
            ladder=(None, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
            usual=True,
            label="min-p",
            symbol="min-p ",
            hint=N_("drop tokens less probable than p times the best one"),
            help="Drop tokens below this part of the top one.",
            servers={name: Sent("min_p", 0.0) for name in ("vLLM", "llama.cpp", "llama-cpp-python")},
        ),
    ),
)
