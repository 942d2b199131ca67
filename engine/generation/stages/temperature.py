"""Temperature (Ackley, Hinton and Sejnowski 1985): every logit divided by T."""

from typing import TYPE_CHECKING

from engine.base.language import N_
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage

if TYPE_CHECKING:
    from torch import Tensor


def change(logits: "Tensor", reading: Reading, temperature: float) -> "Tensor":
    return logits / temperature


STAGE = Stage(
    name="temperature",
    title=N_("temperature"),
    group="temperature",
    definition="logit / T (Ackley, Hinton and Sejnowski 1985)",
    explanation=N_("below 1 sharpens, above 1 flattens"),
    keeps_order=True,
    change=change,
    sampler="temperature",
    parameters=(
        Parameter(
            name="temperature",
            default=1.0,
            most=100.0,
            above=True,
            off=(1.0,),
            ladder=(0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 1.1, 1.3, 1.5, 2.0, 3.0, 5.0),
            usual=True,
            label="T",
            symbol="T",
            hint=N_("below 1 sharpens, above 1 flattens; it never changes the order, so never a greedy choice"),
            help="Below 1 sharpens, above 1 flattens.",
            servers={name: Sent("temperature") for name in ("OpenAI", "vLLM", "llama.cpp", "llama-cpp-python")},
        ),
    ),
)
