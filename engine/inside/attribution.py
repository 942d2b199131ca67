"""Direct logit attribution (Elhage et al. 2021): what each part of the network adds to one logit over another.

The final norm's scale is held as it is, so that what is left is linear in the parts: their shares add up to the
difference of the logits. It is the direct way only; what a part does through later parts is in their shares.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from engine.base.errors import InputError
from engine.base.language import _
from engine.inside.record import Record
from engine.inside.tokens import check_tokens
from engine.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Part:
    """One part and its share of the difference.

    Attributes:
        layer, head: `None` where they do not apply.
    """

    kind: Literal["embedding", "attention", "mlp", "head", "bias"]
    layer: int | None
    head: int | None
    share: float

    @property
    def name(self) -> str:
        """As in `attribute --json`: `embedding`, `attention 3`, `mlp 3`, `head 3.5`, `bias`."""
        if self.layer is None:
            return self.kind
        return f"{self.kind} {self.layer}" if self.head is None else f"{self.kind} {self.layer}.{self.head}"


@dataclass(frozen=True, slots=True)
class Logit:
    """A token and its logit."""

    id: int
    value: float


@dataclass(frozen=True, slots=True)
class Attribution:
    """Where the difference of two logits comes from.

    Attributes:
        at: the position whose answer it is.
        a, b: the two tokens, with the logits that the model's own weights give in float32, before a soft cap where
            there is one. Lanes on small weights round what goes into the output layer too: theirs differ a little.
        cap: the soft cap on this model's logits; `None` where it has none.
        parts: in the order of layers.
        remainder: the difference less the sum of the shares: rounding.
    """

    at: int
    a: Logit
    b: Logit
    cap: float | None
    parts: tuple[Part, ...]

    @property
    def difference(self) -> float:
        return self.a.value - self.b.value

    @property
    def sum(self) -> float:
        return sum(part.share for part in self.parts)

    @property
    def remainder(self) -> float:
        return self.difference - self.sum

    def to_dict(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """What `attribute --json` has beside `model` and `tokens`; `cap` where a soft cap comes after the logits."""

        def token(logit: Logit) -> dict[str, Any]:
            return {"id": logit.id, "text": tokenizer.label(logit.id), "logit": logit.value}

        return {
            "a": token(self.a),
            "b": token(self.b),
            "difference": self.difference,
            "parts": [{"name": part.name, "share": part.share} for part in self.parts],
            "remainder": self.remainder,
            **({} if self.cap is None else {"cap": self.cap}),
        }


@torch.inference_mode()
def first_and_second(record: Record, at: int, picked: int | None = None) -> tuple[int, int]:
    """The picked token at a position, the most probable one when `None`, and the most probable one beside it."""
    logits = record.logits(record.stream[-1, record.at(at)][None])[0]
    check_tokens([] if picked is None else [picked], len(logits))
    first, second = logits.topk(2).indices.tolist()
    a = first if picked is None else picked
    return a, second if a == first else first


@torch.inference_mode()
def attribution(record: Record, at: int, a: int, b: int, *, layer: int | None = None) -> Attribution:
    """The shares of embedding, every block's attention and feed-forward, and biases in `logit_a − logit_b`.

    Args:
        at: a position of the text, below zero from its end.
        layer: its attention is given head by head.

    Raises:
        InputError: a position, token or layer that does not exist, or an architecture whose parts do not add up.
    """
    place = record.at(at)
    if layer is not None:
        record.block(layer)
    norm, output = record.norm, record.output
    if record.attention is None or record.mlp is None:
        raise InputError(record.unlike)
    if norm is None or output is None:
        raise InputError(_("what stands before this model's output layer is no norm of a known kind"))
    stream = record.stream[-1, place]  # [hidden]
    row = record.logits(stream[None])[0]
    check_tokens([a, b], len(row))
    rows, biases = output.linear(torch.tensor([a, b]))
    direction, scale = rows[0] - rows[1], norm.scale(stream)

    def share(part: Tensor) -> float:
        return float(norm.linear(part, scale).double() @ direction.double())

    parts = [Part("embedding", None, None, share(record.stream[0, place]))]
    for block in range(record.blocks):
        if block == layer:
            heads, rest = _heads(record, block, place)
            parts += [Part("head", block, index, share(head)) for index, head in enumerate(heads)]
            if rest is not None:
                parts.append(Part("bias", block, None, share(rest)))
        else:
            parts.append(Part("attention", block, None, share(record.attention[block, place])))
        parts.append(Part("mlp", block, None, share(record.mlp[block, place])))
    bias = float(biases[0] - biases[1])
    if norm.bias is not None:
        bias += float(norm.bias.double() @ direction.double())
    if norm.bias is not None or output.bias is not None:
        parts.append(Part("bias", None, None, bias))
    values = (rows @ norm(stream) + biases).tolist()
    return Attribution(
        place + record.first_position, Logit(a, values[0]), Logit(b, values[1]), output.cap, tuple(parts)
    )


def _heads(record: Record, block: int, place: int) -> tuple[Tensor, Tensor | None]:
    """What each head of a block adds, `[heads, hidden]`, and what its projection's biases add, if it has some."""
    kept, projection = record.heads[block], record.projection(block)
    if kept is None or projection is None or projection.norm is None:
        raise InputError(record.unseen or _("what the heads of layer {layer} add cannot be told apart", layer=block))
    z = kept[place]
    matrix, bias = projection.matrix(len(z))
    heads = torch.einsum(
        "hs,hsd->hd", z.unflatten(0, (projection.heads, -1)), matrix.unflatten(0, (projection.heads, -1))
    )
    norm = projection.norm
    scale = norm.scale(heads.sum(0) + bias)
    added = norm.linear(heads, scale) * projection.factor
    rest = norm.linear(bias, scale) * projection.factor
    if norm.bias is not None:
        rest = rest + norm.bias * projection.factor
    return added, rest if bool(rest.any()) else None
