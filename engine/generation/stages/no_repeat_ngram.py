"""No-repeat n-grams (Paulus, Xiong and Socher 2017): no n tokens in a row come twice."""

import math
from typing import TYPE_CHECKING

from engine.base.language import N_
from engine.generation.stages.stage import Parameter, Reading, Stage

if TYPE_CHECKING:
    from torch import Tensor


def change(logits: "Tensor", reading: Reading, no_repeat_ngram: int) -> "Tensor":
    """As transformers does: the prompt counts too."""
    text, size = reading.text, no_repeat_ngram
    assert text is not None
    if len(text) < size:
        return logits
    windows = text.unfold(0, size, 1)  # [windows, size]
    again = (windows[:, :-1] == text[len(text) + 1 - size :]).all(1)
    banned = windows[again, -1]
    return logits.index_fill(0, banned[banned < logits.numel()], -math.inf)


STAGE = Stage(
    name="no_repeat_ngram",
    title=N_("n-grams"),
    group="penalty",
    definition="a token that would end n tokens that stand in the text already is cut (Paulus et al. 2017, "
    "arXiv:1705.04304)",
    explanation=N_("what would repeat n tokens in a row never comes"),
    reads="text",
    cuts=True,
    change=change,
    parameters=(
        Parameter(
            name="no_repeat_ngram",
            type=int,
            least=1,
            most=1000,
            off=(None,),
            ladder=(None, 1, 2, 3, 4, 5, 8),
            label="n-gram",
            symbol="n-gram ",
            hint=N_("no n tokens in a row come twice, the prompt's among them; empty: they may"),
            help="Never repeat so many tokens in a row.",
        ),
    ),
)
