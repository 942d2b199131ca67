"""Exponential decay length penalty: past some length, the end becomes more and more probable (transformers)."""

from typing import TYPE_CHECKING

from engine.base.language import N_
from engine.generation.stages.stage import Parameter, Reading, Stage

if TYPE_CHECKING:
    from torch import Tensor

MOST = 1e30  # of the factor: float32 holds no more than 3e38


def change(logits: "Tensor", reading: Reading, length_decay: float, length_decay_start: int) -> "Tensor":
    """`logit + |logit| · (factor ^ (tokens past the start) − 1)` for the tokens that end a text."""
    import torch

    past = len(reading.written) - length_decay_start
    ends = [id for id in reading.ends if id < logits.numel()]
    if past <= 0 or not ends:
        return logits
    try:
        factor = min(MOST, length_decay**past)
    except OverflowError:
        factor = MOST
    ids = torch.tensor(ends)
    scores = logits[ids]
    added = (scores.abs() * (factor - 1)).masked_fill(~scores.isfinite(), 0.0)
    return logits.index_add(0, ids, added)


STAGE = Stage(
    name="length_decay",
    title=N_("length"),
    group="penalty",
    definition="logit + |logit| · (factor ^ (tokens past the start) − 1) for tokens that end the text (transformers' "
    "exponential_decay_length_penalty)",
    explanation=N_("past its start, the end of the text becomes more probable with each token"),
    reads="written",
    change=change,
    parameters=(
        Parameter(
            name="length_decay",
            default=1.0,
            least=0.0,
            most=10.0,
            above=True,
            off=(1.0,),
            ladder=(0.9, 1.0, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5),
            label=N_("length"),
            symbol="length ",
            hint=N_("above 1: past length_decay_start tokens, the end becomes more probable by this factor each token"),
            help="Above 1: the end comes nearer with each token.",
        ),
        Parameter(
            name="length_decay_start",
            default=0,
            type=int,
            most=100_000,
            ladder=(0, 5, 10, 20, 40, 80, 160),
            label=N_("from"),
            hint=N_("from how many written tokens on length_decay acts"),
            help="From how many tokens on it does.",
        ),
    ),
)
