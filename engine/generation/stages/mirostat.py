"""Mirostat 2 (Basu et al. 2020, arXiv:2007.14966): a limit on surprisal that steers the text to a wanted mean."""

import math
from typing import Any

from engine.base.language import N_
from engine.generation.stages.ordered import Ordered
from engine.generation.stages.stage import Parameter, Reading, Stage


def keep(left: Ordered, reading: Reading, mirostat_tau: float, mirostat_eta: float) -> int:
    return left.at_least(left.log_mass - reading.carried["mirostat"] * math.log(2))


def begin(config: Any) -> float:
    """μ of the first step: twice the wanted surprisal, as in llama.cpp."""
    return 2.0 * float(config.mirostat_tau)


def follow(mu: float, probability: float, config: Any) -> float:
    """μ of the next step, from the final probability of what was picked: one that is 0, as of a forced token that was
    cut, says nothing."""
    if probability <= 0:
        return mu
    return mu - float(config.mirostat_eta) * (-math.log2(probability) - float(config.mirostat_tau))


STAGE = Stage(
    name="mirostat",
    title="mirostat",
    group="truncation",
    definition="tokens of more than μ bits of surprisal go; then μ −= η · (surprisal of the pick − τ), from 2τ (Basu "
    "et al. 2020, arXiv:2007.14966; llama.cpp)",
    explanation=N_("what is more surprising than μ goes; μ follows what was picked"),
    strategies=("sample",),
    keep=keep,
    begin=begin,
    follow=follow,
    parameters=(
        Parameter(
            name="mirostat_tau",
            most=100.0,
            above=True,
            off=(None,),
            ladder=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, None),
            label="τ",
            symbol="τ ",
            hint=N_("sample only: the surprisal in bits that mirostat keeps the text at, 5 usual; empty: no mirostat"),
            help="Mirostat: surprisal in bits to keep to.",
            unlike={
                "llama.cpp": N_("mirostat of {dialect} servers drops all other stages; leave it out, or run locally")
            },
        ),
        Parameter(
            name="mirostat_eta",
            default=0.1,
            ladder=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
            label="η",
            hint=N_("how fast mirostat follows: 0.1 as published"),
            help="How fast mirostat follows.",
        ),
    ),
)
