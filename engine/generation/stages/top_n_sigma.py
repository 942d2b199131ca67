"""Top-nσ (Tang et al. 2024): tokens more than n standard deviations of the logits below the highest go."""

from engine.base.language import N_
from engine.generation.stages.ordered import Ordered
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage


def keep(left: Ordered, reading: Reading, top_n_sigma: float) -> int:
    """σ is that of the finite logits that are left: one that is cut says nothing of the others."""
    logits = left.logits
    sigma = logits[logits.isfinite()].std(correction=0)
    return left.at_least(left.highest - top_n_sigma * sigma)


STAGE = Stage(
    name="top_n_sigma",
    title=N_("top-nσ"),
    group="truncation",
    definition="logits below max − n·σ go, σ the standard deviation of the finite logits that are left (Tang et al. "
    "2024, arXiv:2411.07641)",
    explanation=N_("what lies n standard deviations below the best goes"),
    keep=keep,
    sampler="top_n_sigma",
    parameters=(
        Parameter(
            name="top_n_sigma",
            most=100.0,
            above=True,
            off=(None,),
            ladder=(0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, None),
            label="nσ",
            symbol="nσ ",
            hint=N_("keep scores within n standard deviations of the highest; no temperature changes what stays"),
            help="Keep scores within so many standard deviations.",
            servers={"llama.cpp": Sent("top_n_sigma", -1.0)},
        ),
    ),
)
