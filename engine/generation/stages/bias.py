"""Biases and bans: a number added to single tokens' logits, −inf for those that never come."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.base.errors import ConfigError, InputError
from engine.base.language import N_, _
from engine.generation.ranges import is_id, is_list, is_number
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage

if TYPE_CHECKING:
    from torch import Tensor

MAX_BIAS = 100.0


def change(
    logits: "Tensor", reading: Reading, logit_bias: Sequence[tuple[int, float]], banned: Sequence[int]
) -> "Tensor":
    """Raises `InputError` for an id that the vocabulary lacks, or where nothing is left that is not banned."""
    import torch

    pairs = [*logit_bias, *((id, -math.inf) for id in banned)]
    ids = torch.tensor([id for id, _bias in pairs])
    size = logits.numel()
    if int(ids.max()) >= size:
        raise InputError(
            _("token {id:,} cannot be biased: the vocabulary has {size:,} entries", id=int(ids.max()), size=size)
        )
    result = logits.index_add(0, ids, torch.tensor([bias for _id, bias in pairs]))
    if banned and bool(result.isneginf().all()):
        if bool(logits.isneginf().any()):
            raise InputError(_("every token that could come there is banned; allow at least one"))
        raise InputError(_("every token is banned; allow at least one"))
    return result


def _check_biases(field: str, value: Any) -> None:
    allowed = _(
        "pairs of a token id and a number from {least:g} to {most:g}, such as [[2240, -3.0]]",
        least=-MAX_BIAS,
        most=MAX_BIAS,
    )
    if not is_list(value):
        raise ConfigError(field, value, allowed)
    for pair in value:
        if not is_list(pair) or len(pair) != 2 or not is_id(pair[0]):
            raise ConfigError(field, value, allowed)
        if not is_number(pair[1]) or abs(pair[1]) > MAX_BIAS:
            raise ConfigError(field, value, allowed)


def _check_banned(field: str, value: Any) -> None:
    if not is_list(value) or not all(map(is_id, value)):
        raise ConfigError(field, value, _("a list of token ids"))


def _summary(config: Any) -> str:
    count = len(config.logit_bias) + len(config.banned)
    return f"±{count}" if count else ""


STAGE = Stage(
    name="bias",
    title=N_("biases"),
    group="penalty",
    definition="a bias is added to a token's logit; −∞ for a banned one",
    explanation=N_("biases are added, banned tokens never come"),
    first=True,
    cuts=True,
    rule="banned",
    change=change,
    summary=_summary,
    parameters=(
        Parameter(
            name="logit_bias",
            default=(),
            type=None,
            check=_check_biases,
            off=((),),
            hint=N_(
                "ID=NUMBER, several separated by spaces: added to a token's score ({inspector.favour} and "
                "{inspector.disfavour} in the inspector)"
            ),
            help="TOKEN=NUMBER, added; repeatable.",
            servers={name: Sent("logit_bias") for name in ("OpenAI", "vLLM", "llama.cpp", "llama-cpp-python")},
        ),
        Parameter(
            name="banned",
            default=(),
            type=None,
            check=_check_banned,
            off=((),),
            hint=N_("ids of tokens that never come, separated by spaces ({inspector.ban} in the inspector)"),
            help="A token that never comes; repeatable.",
            option="--ban",
            servers={name: Sent("logit_bias") for name in ("OpenAI", "vLLM", "llama.cpp", "llama-cpp-python")},
        ),
    ),
)
