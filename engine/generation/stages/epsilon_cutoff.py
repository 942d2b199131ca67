"""ε-cutoff (Hewitt, Manning and Liang 2022): tokens less probable than ε go."""

import math

from engine.base.language import N_
from engine.generation.stages.ordered import Ordered
from engine.generation.stages.stage import Parameter, Reading, Stage


def keep(left: Ordered, reading: Reading, epsilon_cutoff: float) -> int:
    return left.at_least(left.log_mass + math.log(epsilon_cutoff))


STAGE = Stage(
    name="epsilon_cutoff",
    title=N_("ε-cutoff"),
    group="truncation",
    definition="tokens less probable than ε go (Hewitt, Manning and Liang 2022, arXiv:2210.15191)",
    explanation=N_("what is less probable than ε goes"),
    keep=keep,
    parameters=(
        Parameter(
            name="epsilon_cutoff",
            above=True,
            off=(None,),
            ladder=(None, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
            label="ε",
            symbol="ε ",
            hint=N_("drop tokens less probable than this: 0.0003 to 0.0009 as published"),
            help="Drop tokens less probable than this.",
        ),
    ),
)
