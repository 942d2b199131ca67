"""Frequency penalty (OpenAI's API): a number off a token's logit for every time that it was written."""

from typing import TYPE_CHECKING

from engine.base.language import N_
from engine.generation.stages.penalised import less_written
from engine.generation.stages.presence_penalty import UNLIKE
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage

if TYPE_CHECKING:
    from torch import Tensor


def change(logits: "Tensor", reading: Reading, frequency_penalty: float, penalty_window: int | None) -> "Tensor":
    return less_written(logits, reading, penalty_window, frequency_penalty, 0.0)


STAGE = Stage(
    name="frequency_penalty",
    title=N_("frequency"),
    group="penalty",
    definition="the penalty, times how often a token was written, is taken off its logit (OpenAI's API; vLLM)",
    explanation=N_("the more often it was written, the less probable it becomes"),
    reads="written",
    change=change,
    uses=("penalty_window",),
    sampler="penalties",
    parameters=(
        Parameter(
            name="frequency_penalty",
            default=0.0,
            least=-2.0,
            most=2.0,
            off=(0.0,),
            ladder=(-2.0, -1.0, -0.5, 0.0, 0.2, 0.5, 1.0, 1.5, 2.0),
            label=N_("frequency"),
            symbol="freq ",
            hint=N_("taken off a token's score for every time that it was written; the prompt is not read"),
            help="Off a token each time that it was written.",
            servers={"OpenAI": Sent("frequency_penalty"), "vLLM": Sent("frequency_penalty")},
            unlike={"llama.cpp": UNLIKE},
        ),
    ),
)
