"""Top-h (Potraghloo et al. 2025): the most probable tokens stay while their entropy is within a part of the whole."""

from engine.base.language import N_
from engine.generation.stages.ordered import Ordered
from engine.generation.stages.stage import Parameter, Reading, Stage

MOST = 100  # tokens that are looked at, as in transformers


def keep(left: Ordered, reading: Reading, top_h: float) -> int:
    """Of the hundred most probable ones, whose probabilities are taken to sum to one."""
    log_probabilities = left.sorted(MOST)[:MOST].log_softmax(0)
    terms = -(log_probabilities.exp() * log_probabilities)
    terms = terms.masked_fill(log_probabilities.isneginf(), 0.0)
    inside = (terms.cumsum(0) <= top_h * terms.sum()) & ~log_probabilities.isneginf()
    return max(1, int(inside.sum()))


STAGE = Stage(
    name="top_h",
    title=N_("top-h"),
    group="truncation",
    definition="of the 100 most probable tokens those stay whose summed −p·log p is within h of the whole sum "
    "(Potraghloo et al. 2025, arXiv:2509.02510)",
    explanation=N_("the most probable stay while their entropy is within h of the whole"),
    keep=keep,
    parameters=(
        Parameter(
            name="top_h",
            above=True,
            off=(None,),
            ladder=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, None),
            label="top-h",
            symbol="h",
            hint=N_("keep the most probable while their entropy is within this part of the whole: 0.4 as published"),
            help="Keep the most probable up to this part of the entropy.",
        ),
    ),
)
