"""A network under the interventions of a lane: files are read, other prompts run, and all is checked against it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from engine.base.errors import Cancelled, ContextError, InputError
from engine.base.language import _, counted
from engine.generation.interventions import PLAIN, Intervention, Treatment, interventions
from engine.networks.changes import Change, Changeable
from engine.networks.control_vector import direction
from engine.networks.network import Network
from engine.networks.watched import Point, Size, Watchable
from engine.text.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Treated:
    """A network as a lane runs it, and by what its states are kept."""

    network: Network
    treatment: Treatment = PLAIN


def treated(network: Network, tokenizer: Tokenizer, texts: Sequence[str], prompt: Sequence[int]) -> Treated:
    """A network under a configuration's interventions; itself where there are none.

    Args:
        prompt: ids of the lane's prompt: steering acts behind it, and a patch is of its positions.

    Raises:
        InputError: a part that the network lacks, a file that cannot be used, or a prompt of another length.
    """
    if not texts:
        return Treated(network)
    found = interventions(texts)
    size = cast(Watchable, network).size()
    for one in found:
        _check(one, size)
    changes = [_change(one, network, tokenizer, prompt, size) for one in found]
    vectors = [change.vector for change in changes if change.vector is not None]
    treatment = replace(Treatment.of(texts, len(prompt)), vectors=_digest(vectors))
    return Treated(cast(Changeable, network).changed(changes), treatment)


def _check(one: Intervention, size: Size) -> None:
    """Raise `InputError` for a layer or head that is not there."""
    row = one.kind in ("steer", "patch")
    last = size.blocks if row else size.blocks - 1
    if one.layer > last:
        raise InputError(
            _(
                "“{text}”: there is no layer {layer}: this model has layers 0 to {last}",
                text=str(one),
                layer=one.layer,
                last=last,
            )
            + (_(", of which 0 is the embedding") if row else "")
        )
    if one.kind == "head" and one.head >= size.heads:
        raise InputError(
            _(
                "“{text}”: there is no head {head}: the layers of this model have heads 0 to {last}",
                text=str(one),
                head=one.head,
                last=size.heads - 1,
            )
        )


def _change(one: Intervention, network: Network, tokenizer: Tokenizer, prompt: Sequence[int], size: Size) -> Change:
    how: Literal["off", "mean"] = "mean" if one.mean else "off"
    match one.kind:
        case "head":
            return Change("heads", one.layer, how, head=one.head)
        case "attention" | "mlp":
            return Change(one.kind, one.layer, how)
        case "block":
            return Change("block", one.layer, "off")
        case "steer":
            vector = direction(Path(one.file).expanduser(), one.layer, size.hidden)
            return Change("stream", one.layer, "add", vector=one.strength * vector, position=len(prompt))
        case "patch":
            position = one.position + len(prompt) if one.position < 0 else one.position
            vector = _patched(one, position, network, tokenizer, prompt)
            return Change("stream", one.layer, "put", vector=vector, position=position)


def _patched(one: Intervention, position: int, network: Network, tokenizer: Tokenizer, prompt: Sequence[int]) -> Tensor:
    """The other prompt's row of the stream at the position, `[hidden]`."""
    other = tokenizer.encode_ids(one.prompt)
    if len(other) != len(prompt):
        raise InputError(
            _(
                "“{text}”: the other prompt's tokens are {other:,}, the lane's {own:,}; a patch wants as many in both",
                text=str(one),
                other=len(other),
                own=len(prompt),
            )
        )
    if not 0 <= position < len(prompt):
        raise InputError(
            counted(
                "“{text}”: there is no position {position}: the prompt has {count:,} token",
                "“{text}”: there is no position {position}: the prompt has {count:,} tokens",
                len(prompt),
                text=str(one),
                position=one.position,
            )
        )
    if len(other) > network.context_length:
        raise ContextError(
            _(
                "the prompt has {prompt_tokens:,} tokens, the model's context holds {context_length:,}; shorten the "
                "prompt",
                prompt_tokens=len(other),
                context_length=network.context_length,
            )
        )
    return stream_from(network, other, position)[one.layer, 0]


@torch.inference_mode()
def stream_from(
    network: Network, ids: Sequence[int], first: int, cancelled: Callable[[], bool] = lambda: False
) -> Tensor:
    """All rows of the stream at the positions of a text from `first` on, `[rows, positions, hidden]`, float32.

    Raises:
        InputError: it has no single stream of vectors.
        Cancelled: `cancelled`, asked within each block, returned True.
    """
    kept: dict[int, Tensor] = {}

    def keep(point: Point, layer: int, value: Tensor) -> Tensor:
        if cancelled():
            raise Cancelled
        if point == "stream" and layer >= 0:
            kept[layer] = value.to("cpu", torch.float32, copy=True)
        return value

    cast(Watchable, network).look(torch.tensor([list(ids)]), first, keep)
    return torch.stack([kept[row] for row in sorted(kept)])


def _digest(vectors: Sequence[Tensor]) -> str:
    if not vectors:
        return ""
    return hashlib.sha256(b"".join(vector.numpy().tobytes() for vector in vectors)).hexdigest()
