"""Contrastive decoding (Li et al. 2022, arXiv:2210.15097): a model's opinion less that of a worse one, the amateur.

Not contrastive search (Su et al. 2022), which is the strategy `contrastive` and looks at one model's hidden states.

The amateur reads the lane's own text; `engine.generation.amateur` runs it. Of the tokens whose probability is at least
`α · max p` by the lane's model (their plausibility cut, `V_head`), `log p − λ · log p_amateur` stays, and the others
are cut. λ = 1 and α = 0.1 are what the paper defines. It is not the form `(1 + β) · s − β · s_amateur` on logits of
O'Brien and Lewis 2023 (arXiv:2309.09117): that one is this one with `λ = β / (1 + β)` at the temperature
`1 / (1 + β)`. The paper's temperature of the amateur is left at 1.

Behind guidance, where there is some, `p` is what guidance makes of it. A banned token is not taken for the most
probable one, so that a ban and the cut together never leave nothing. The result is no distribution yet: the stages that
follow end in one.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.base.language import N_, _
from engine.generation.model_names import check_name, label
from engine.generation.stages.stage import Parameter, Reading, Stage

if TYPE_CHECKING:
    from torch import Tensor

# Below any log-probability that a softmax gives: an amateur that rules a token out shall not make a number infinite.
LOWEST = -1e4


def less_amateur(
    logits: "Tensor", amateur: "Tensor", weight: float, cut: float, banned: Sequence[int] = ()
) -> "Tensor":
    """A distribution less the amateur's: `log p − weight · log p_amateur`, −inf where the cut removes a token.

    Args:
        logits: `[vocabulary]`.
        amateur: `[its vocabulary]`; rows that only one of both has stand for no token, and such a token is cut.
        cut: α, from 0 for none to 1.
        banned: ids that do not count as the most probable one.
    """
    import torch

    size = min(logits.numel(), amateur.numel())
    own, other = logits.log_softmax(0), amateur.float().log_softmax(0)[:size].clamp_min(LOWEST)
    gone = [id for id in banned if id < logits.numel()]  # others are refused where they act
    allowed = own.index_fill(0, torch.tensor(gone), -math.inf) if gone else own
    least = allowed[:size].max() + math.log(cut) if cut > 0 else torch.tensor(torch.finfo(own.dtype).min)
    result = torch.full_like(own, -math.inf)
    result[:size] = torch.where(own[:size] >= least, own[:size] - weight * other, -math.inf)
    return result


def change(
    logits: "Tensor",
    reading: Reading,
    amateur: str,
    amateur_weight: float,
    amateur_cut: float,
    banned: Sequence[int],
) -> "Tensor":
    opinion = reading.beside["amateur"]
    assert opinion is not None
    return less_amateur(logits, opinion, amateur_weight, amateur_cut, banned)


def _check_amateur(field: str, value: object) -> None:
    check_name(field, value, _("a name, a hub id, a folder or a .gguf file"))


def _summary(config: Any) -> str:
    return "" if config.amateur is None else f"− {config.amateur_weight:g}·{label(config.amateur)}"


STAGE = Stage(
    name="amateur",
    title=N_("amateur"),
    group="amateur",
    definition="log p − λ · log p_amateur where p ≥ α · max p, the others are cut (Li et al. 2022, arXiv:2210.15097)",
    explanation=N_("what is plausible, less the amateur's opinion (contrastive decoding)"),
    needs=True,
    first=True,
    cuts=True,
    change=change,
    uses=("banned",),
    refused=N_("an amateur's opinion is taken off the whole distribution, which no server tells; run locally"),
    summary=_summary,
    parameters=(
        Parameter(
            name="amateur",
            type=None,
            check=_check_amateur,
            off=(None,),
            hint=N_(
                "contrastive decoding: a second model of the same vocabulary, whose opinion is taken off "
                "({lane_editor.model} chooses); gpt2@bfloat16; not contrastive search"
            ),
            help="Model[@precision] whose opinion is taken off.",
        ),
        Parameter(
            name="amateur_weight",
            default=1.0,
            most=100.0,
            ladder=(0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
            label=N_("amateur"),
            hint=N_("how much of the amateur's log-probability is taken off: 1 as published"),
            help="How much of the amateur's is taken off.",
        ),
        Parameter(
            name="amateur_cut",
            default=0.1,
            ladder=(0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0),
            label=N_("cut"),
            hint=N_("tokens below this part of the most probable one are cut before: 0.1 as published, 0 cuts none"),
            help="Cut below this part of the top one before.",
        ),
    ),
)
