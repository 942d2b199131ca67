"""What a position looks at: attention weights, what they move, and how they run through the layers.

A weight is no cause: occlusion and switching a head off show those. Weights on the first token are often large and move
nothing (a sink); `by_value` shows what is moved.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from engine.base.errors import Cancelled, InputError
from engine.base.language import _
from engine.inside.record import Record

# Rollout goes through all pairs of positions of every layer.
MOST_ROLLED = 1_024


@dataclass(frozen=True, slots=True)
class Attention:
    """How much one position looks at each position of the text.

    Attributes:
        at: the position that looks.
        kind: weights of one `head`, the `mean` of a layer's heads, the mean of `all` layers' heads, or `rollout`.
        layer, head: `None` where they do not apply.
        by_value: `‖α · v W_O‖` in place of the weight α.
        weights: one for each position of the text, 0 for later ones; `None` for the first token where it is left out.
    """

    at: int
    kind: Literal["head", "mean", "all", "rollout"]
    layer: int | None
    head: int | None
    by_value: bool
    weights: tuple[float | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """What `attention --json` has beside `model` and `tokens`."""
        return {"layer": self.layer, "head": self.head, "at": self.at, "weights": list(self.weights)}


@dataclass(frozen=True, slots=True)
class HeadLook:
    """Where one head looks from one position.

    Attributes:
        first, previous: weight on the text's first token, and on the one before.
        entropy_bits: how spread its weights are.
    """

    first: float
    previous: float
    entropy_bits: float


@torch.inference_mode()
def attention(
    record: Record,
    at: int,
    *,
    layer: int | None = None,
    head: int | None = None,
    rollout: bool = False,
    by_value: bool = False,
    leave_first: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
) -> Attention:
    """What the position `at` looks at: one head, the mean of a layer, of all layers, or rollout.

    By value as Kobayashi et al. 2020, rollout as Abnar and Zuidema 2020.

    Args:
        at: a position of the text, below zero from its end.
        layer, head: one head; a layer alone is the mean of its heads, neither the mean of all.
        leave_first: without the text's first token; the other numbers stay as they are.
        cancelled: asked for each layer; True ends with `Cancelled`.

    Raises:
        InputError: a position, layer or head that does not exist or is not kept, or an architecture without attention.
        Cancelled: `cancelled` returned True.
    """
    place = record.at(at)
    if rollout and (layer is not None or head is not None or by_value):
        raise InputError(_("rollout is of all layers, and of weights alone; leave out layer, head and by value"))
    if head is not None and layer is None:
        raise InputError(_("a head belongs to a layer; give the layer too"))
    kind: Literal["head", "mean", "all", "rollout"]
    if rollout:
        kind, weights = "rollout", _rollout(record, place, cancelled)
    elif layer is not None:
        rows = _looks(record, layer, place, by_value=by_value)
        kind, weights = ("mean", rows.mean(0)) if head is None else ("head", rows[_head(rows, layer, head)])
    else:
        means = []
        for one in range(record.blocks):
            if cancelled():
                raise Cancelled
            if record.sees(one):
                means.append(_looks(record, one, place, by_value=by_value).mean(0))
        if not means:
            raise InputError(record.unseen)
        kind, weights = "all", torch.stack(means).mean(0)
    values: list[float | None] = weights.tolist()
    if leave_first:
        values[0] = None
    return Attention(place + record.first_position, kind, layer, head, by_value, tuple(values))


@torch.inference_mode()
def attention_map(
    record: Record,
    at: int,
    *,
    leave_first: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[tuple[HeadLook, ...], ...]:
    """Where every head looks from the position `at`: a tuple for each layer, empty for one without attention.

    Args:
        leave_first: `previous` and `entropy_bits` of the weights on all but the text's first token, made to sum to one.

    Raises:
        InputError, Cancelled: as `attention`.
    """
    place = record.at(at)
    position = place + record.first_position
    found: list[tuple[HeadLook, ...]] = []
    for layer in range(record.blocks):
        if cancelled():
            raise Cancelled
        if not record.sees(layer):
            found.append(())
            continue
        weights = _looks(record, layer, place, by_value=False)  # [heads, length]
        first = weights[:, 0].clone()
        if leave_first:
            weights[:, 0] = 0
            weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-30)
        previous = weights[:, position - 1] if position else torch.zeros(len(weights))
        entropy = -torch.special.xlogy(weights, weights).sum(-1) / math.log(2)
        rows = (first.tolist(), previous.tolist(), entropy.clamp_min(0).tolist())
        found.append(tuple(HeadLook(*one) for one in zip(*rows)))
    if not any(found):
        raise InputError(record.unseen)
    return tuple(found)


def _looks(record: Record, layer: int, place: int, *, by_value: bool) -> Tensor:
    """Weights of one row of a layer, or what they move, `[heads, length]`."""
    weights = record.weights(layer, slice(place, place + 1))[:, 0]
    return weights * _value_norms(record, layer, len(weights)) if by_value else weights


def _value_norms(record: Record, layer: int, heads: int) -> Tensor:
    """`‖v W_O‖` of every head and position, `[heads, length]`."""
    values = record.values(layer)
    projection = record.projection(layer)
    size = values.shape[-1]
    if projection is None or heads % len(values):
        raise InputError(_("what layer {layer} weighs is not known", layer=layer))
    matrix, _bias = projection.matrix(heads * size)
    # ‖v W‖² = v (W Wᵀ) vᵀ, which is small: [heads, head_size, head_size].
    parts = matrix.unflatten(0, (heads, size)).double()
    squares = parts @ parts.mT
    shared = values.double().repeat_interleave(heads // len(values), dim=0)  # [heads, length, head_size]
    return ((shared @ squares) * shared).sum(-1).clamp_min(0).sqrt().float()


def _rollout(record: Record, place: int, cancelled: Callable[[], bool]) -> Tensor:
    """Rows of mean weights with the identity, made to sum to one, multiplied through the layers, `[length]`."""
    length = place + 1
    if record.first_position or length > MOST_ROLLED:
        raise InputError(
            _(
                "rollout goes through at most {most:,} tokens, all of them kept, and this text has {count:,}; shorten "
                "it, or look at a layer",
                most=MOST_ROLLED,
                count=record.first_position + length,
            )
        )
    row = torch.zeros(len(record.ids))
    row[place] = 1
    for layer in range(record.blocks - 1, -1, -1):
        if cancelled():
            raise Cancelled
        mean = record.weights(layer, slice(0, length)).mean(0)[:, :length]
        row[:length] = row[:length] @ ((mean + torch.eye(length)) / (mean.sum(-1, keepdim=True) + 1))
    return row


def _head(rows: Tensor, layer: int, head: int) -> int:
    if not 0 <= head < len(rows):
        raise InputError(
            _(
                "there is no head {head}: layer {layer} of this model has heads 0 to {last}",
                head=head,
                layer=layer,
                last=len(rows) - 1,
            )
        )
    return head
