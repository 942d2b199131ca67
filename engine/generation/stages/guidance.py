"""Classifier-free guidance: what is done with the other text's logits. `engine.generation.guidance` runs that text."""

import math
from typing import TYPE_CHECKING

from engine.base.errors import ConfigError
from engine.base.language import N_, _
from engine.generation.stages.stage import Parameter, Reading, Stage

if TYPE_CHECKING:
    from torch import Tensor


def guided(logits: "Tensor", others: "Tensor", scale: float) -> "Tensor":
    """Logits pushed away from another text's, `[vocabulary]` each: `s · (log p − log p_other) + log p_other`."""
    own, other = logits.log_softmax(0), others.float().log_softmax(0)
    return (scale * (own - other) + other).masked_fill(own.isneginf(), -math.inf)  # what is cut stays cut, at any scale


def change(logits: "Tensor", reading: Reading, guidance_scale: float, negative_prompt: str | None) -> "Tensor":
    others = reading.beside["guidance"]
    assert others is not None
    return guided(logits, others, guidance_scale)


def _check_negative(field: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigError(field, value, _("a text that is not empty (or none)"))


STAGE = Stage(
    name="guidance",
    title=N_("guidance"),
    group="guidance",
    definition="s · (log p − log p_other) + log p_other (Ho and Salimans 2022; of text Sanchez et al. 2023)",
    explanation=N_("pushed away from the negative prompt's, by its scale"),
    needs=True,
    first=True,
    change=change,
    refused=N_("guidance runs two texts step by step, which no server does; run locally"),
    parameters=(
        Parameter(
            name="guidance_scale",
            default=1.0,
            most=100.0,
            off=(1.0,),
            ladder=(0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0),
            label="cfg",
            symbol="cfg ",
            hint=N_("above 1 pushes the distribution away from the negative prompt's; it runs beside the lane"),
            help="Above 1 pushes away from the negative prompt.",
        ),
        Parameter(
            name="negative_prompt",
            type=None,
            check=_check_negative,
            hint=N_("what guidance pushes away from; empty: the prompt's last token; \\n is a line break"),
            help="What guidance pushes away from.",
        ),
    ),
)
