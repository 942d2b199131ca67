"""Presence penalty (OpenAI's API): the same number off the logit of every token that was written."""

from typing import TYPE_CHECKING

from engine.base.language import N_
from engine.generation.stages.penalised import less_written
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage

if TYPE_CHECKING:
    from torch import Tensor


def change(logits: "Tensor", reading: Reading, presence_penalty: float, penalty_window: int | None) -> "Tensor":
    return less_written(logits, reading, penalty_window, 0.0, presence_penalty)


UNLIKE = N_("a presence or frequency penalty of {dialect} servers reads the prompt too; leave it out, or run locally")

STAGE = Stage(
    name="presence_penalty",
    title=N_("presence"),
    group="penalty",
    definition="the penalty is taken off the logit of every token that was written (OpenAI's API; vLLM)",
    explanation=N_("what was written becomes less probable, how often it was plays no part"),
    reads="written",
    change=change,
    uses=("penalty_window",),
    sampler="penalties",
    parameters=(
        Parameter(
            name="presence_penalty",
            default=0.0,
            least=-2.0,
            most=2.0,
            off=(0.0,),
            ladder=(-2.0, -1.0, -0.5, 0.0, 0.2, 0.5, 1.0, 1.5, 2.0),
            label=N_("presence"),
            symbol="pres ",
            hint=N_("taken off the score of each token that was written, once; the prompt is not read"),
            help="Off each token that was written, once.",
            servers={"OpenAI": Sent("presence_penalty"), "vLLM": Sent("presence_penalty")},
            unlike={"llama.cpp": UNLIKE},
        ),
    ),
)
