"""η-cutoff (Hewitt, Manning and Liang 2022): ε-cutoff, and lower where the model is unsure."""

import math

from engine.base.language import N_
from engine.generation.stages.ordered import Ordered
from engine.generation.stages.stage import Parameter, Reading, Stage


def keep(left: Ordered, reading: Reading, eta_cutoff: float) -> int:
    least = min(math.log(eta_cutoff), 0.5 * math.log(eta_cutoff) - left.entropy_nats)
    return left.at_least(left.log_mass + least)


STAGE = Stage(
    name="eta_cutoff",
    title=N_("η-cutoff"),
    group="truncation",
    definition="tokens less probable than min(ε, √ε · exp(−entropy)) go (Hewitt, Manning and Liang 2022, "
    "arXiv:2210.15191)",
    explanation=N_("what is less probable than η goes, and η is lower where the model is unsure"),
    keep=keep,
    parameters=(
        Parameter(
            name="eta_cutoff",
            above=True,
            off=(None,),
            ladder=(None, 0.0001, 0.0003, 0.0006, 0.002, 0.004, 0.01, 0.1),
            label="η",
            symbol="η ",
            hint=N_("drop tokens less probable than this, fewer where the model is unsure: 0.0003 as published"),
            help="As ε, lower where the model is unsure.",
        ),
    ),
)
