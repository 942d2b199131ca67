"""XTC, exclude top choices (p-e-w 2024, in text-generation-webui and llama.cpp): at times the best candidates go."""

import math
import random
from typing import TYPE_CHECKING

from engine.base.language import N_
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage

if TYPE_CHECKING:
    from torch import Tensor


def draw(seed: int, index: int) -> float:
    """The number of [0, 1) that a step decides with, of a lane's seed and the step's place alone.

    So going on, branching and undo find the same one, and the draws of tokens stay as they are without XTC.
    """
    return random.Random(f"xtc {seed} {index}").random()


def change(logits: "Tensor", reading: Reading, xtc_probability: float, xtc_threshold: float) -> "Tensor":
    """Of the tokens of the threshold or more, all but the least probable one go; one alone stays."""
    if reading.carried["xtc"] > xtc_probability:
        return logits
    probabilities = logits.softmax(0)
    above = (probabilities >= xtc_threshold).nonzero()[:, 0]
    if len(above) < 2:
        return logits
    stays = probabilities[above].argmin()
    return logits.index_fill(0, above[above != above[stays]], -math.inf)


STAGE = Stage(
    name="xtc",
    title="XTC",
    group="truncation",
    definition="with the probability, all tokens of the threshold or more go but the least probable one of them (p-e-w "
    "2024; llama.cpp)",
    explanation=N_("at times, all of the best but one go"),
    strategies=("sample",),
    cuts=True,
    draws=draw,
    change=change,
    sampler="xtc",
    parameters=(
        Parameter(
            name="xtc_probability",
            default=0.0,
            off=(0.0,),
            ladder=(0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
            label="XTC",
            symbol="xtc ",
            hint=N_("sample only: how often the most probable tokens are left out; 0 never, 0.5 usual"),
            help="How often the most probable tokens are left out.",
            servers={"llama.cpp": Sent("xtc_probability")},
        ),
        Parameter(
            name="xtc_threshold",
            default=0.1,
            most=0.5,
            ladder=(0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
            label=N_("threshold"),
            hint=N_("XTC leaves out tokens of this probability or more, but for the least probable one of them"),
            help="Probability from which XTC leaves tokens out.",
            servers={"llama.cpp": Sent("xtc_threshold")},
        ),
    ),
)
