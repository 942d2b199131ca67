"""Temperature (Ackley, Hinton and Sejnowski 1985): every logit divided by T, which may follow the entropy."""

import math
from typing import TYPE_CHECKING, Any

from engine.base.language import N_
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 1e-4  # of a dynamic temperature, which may reach 0


def dynamic(left: "Tensor", temperature: float, reach: float, exponent: float) -> float:
    """`low + (high − low) · (entropy / highest entropy of as many tokens) ^ exponent`, as llama.cpp has it.

    Args:
        left: logits, `[vocabulary]`, −inf for tokens that are cut: these do not count.
        reach: how far low and high are from the temperature; neither goes below 0.
    """
    possible = left[left > -math.inf]
    if len(possible) < 2:
        return temperature
    log_probabilities = possible.log_softmax(0)
    entropy = float(-(log_probabilities.exp() * log_probabilities).sum()) / math.log(len(possible))
    low, high = max(0.0, temperature - reach), temperature + reach
    return max(LEAST, low + (high - low) * max(0.0, min(1.0, entropy)) ** exponent)


def change(
    logits: "Tensor", reading: Reading, temperature: float, dynatemp_range: float, dynatemp_exponent: float
) -> "Tensor":
    if dynatemp_range:
        assert reading.left is not None
        temperature = dynamic(reading.left(), temperature, dynatemp_range, dynatemp_exponent)
    return logits / temperature


def _summary(config: Any) -> str:
    if config.dynatemp_range:
        return f"T{config.temperature:g}±{config.dynatemp_range:g}"
    return f"T{config.temperature:g}" if config.temperature != 1 else ""


STAGE = Stage(
    name="temperature",
    title=N_("temperature"),
    group="temperature",
    definition="logit / T (Ackley, Hinton and Sejnowski 1985); with a range, T is between T − range and T + range, the "
    "higher the entropy is (kalomaze 2023; llama.cpp)",
    explanation=N_("below 1 sharpens, above 1 flattens"),
    keeps_order=True,
    change=change,
    summary=_summary,
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
            hint=N_("below 1 sharpens, above 1 flattens; it never changes the order, so never a greedy choice"),
            help="Below 1 sharpens, above 1 flattens.",
            servers={name: Sent("temperature") for name in ("OpenAI", "vLLM", "llama.cpp", "llama-cpp-python")},
        ),
        Parameter(
            name="dynatemp_range",
            default=0.0,
            most=100.0,
            off=(0.0,),
            ladder=(0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5),
            label="±T",
            hint=N_("how far the temperature goes down where the model is sure, and up where it is not; 0: it stays"),
            help="How far the temperature follows the entropy.",
            servers={"llama.cpp": Sent("dynatemp_range")},
        ),
        Parameter(
            name="dynatemp_exponent",
            default=1.0,
            most=10.0,
            above=True,
            ladder=(0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0),
            label="±T^",
            hint=N_("above 1 the dynamic temperature rises late, below 1 early"),
            help="Above 1 it follows late, below 1 early.",
            servers={"llama.cpp": Sent("dynatemp_exponent")},
        ),
    ),
)
