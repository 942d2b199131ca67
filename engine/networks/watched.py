"""The seam for looking inside a network: one forward whose parts go through a function, by name.

Blocks are counted from 0. `stream` 0 is what goes into the first block, `stream` l + 1 what block l leaves; `attention`
and `mlp` are what block l adds to it, after norms that follow them and with factors where an architecture has some.
What the function returns takes the part's place in our own networks; one that only looks returns what it was given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from engine.networks.attention import KVCache
from engine.networks.kernels import Rows
from engine.networks.summary import Summary

# One text. `stream`, `attention`, `mlp`: `[positions, hidden]`; `heads`, what goes into the projection after attention:
# `[positions, heads · head_size]`; `queries`: `[positions, heads, head_size]`; `keys`, `values`: `[key heads, length,
# head_size]`; `weights`: `[heads, positions, length]`.
Point = Literal["stream", "queries", "keys", "values", "weights", "heads", "attention", "mlp"]
Watch = Callable[[Point, int, Tensor], Tensor]

# Positions that go through at once before those that are looked at.
CHUNK = 512


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm over the last dimension, float32.

    Attributes:
        kind: `rms` (Zhang and Sennrich 2019), `layer` (Ba et al. 2016), or `none`, which changes nothing.
        gain, bias: `[hidden]`.
    """

    kind: Literal["rms", "layer", "none"]
    gain: Tensor | None = None
    bias: Tensor | None = None
    epsilon: float = 0.0

    def scale(self, x: Tensor) -> Tensor:
        """What `x` `[…, hidden]` is divided by, `[…, 1]`."""
        if self.kind == "none":
            return torch.ones_like(x[..., :1])
        centred = self.centred(x)
        return (centred.square().mean(-1, keepdim=True) + self.epsilon).sqrt()

    def centred(self, x: Tensor) -> Tensor:
        """`x` less its mean where the norm takes that off."""
        return x - x.mean(-1, keepdim=True) if self.kind == "layer" else x

    def linear(self, part: Tensor, scale: Tensor) -> Tensor:
        """What becomes of a part of a vector `[…, hidden]` while the vector's own scale is held; the bias is apart."""
        part = self.centred(part) / scale
        return part if self.gain is None else part * self.gain

    def __call__(self, x: Tensor) -> Tensor:
        y = self.linear(x, self.scale(x))
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True, slots=True)
class OutputLayer:
    """The output layer's weights: `logit = cap · tanh(factor · (row · x + bias) / cap)`.

    Attributes:
        rows: looked up by id.
        bias: `[vocabulary]`.
        cap: a soft cap on logits; `None` where there is none.
    """

    rows: Rows
    bias: Tensor | None = None
    factor: float = 1.0
    cap: float | None = None

    @torch.inference_mode()
    def linear(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `[ids, hidden]` and biases `[ids]` of some tokens, before the cap, float32, on the processor."""
        rows = self.rows(ids, torch.float32).cpu().float() * self.factor
        bias = torch.zeros(len(ids)) if self.bias is None else self.bias.cpu().float()[ids] * self.factor
        return rows, bias


@dataclass(frozen=True, slots=True)
class Projection:
    """What turns the heads of one block into what attention adds.

    Attributes:
        heads: how many there are.
        product: `[rows, heads · head_size]` → `[rows, hidden]`, in the network's type.
        norm: what follows it; `None` where that is no norm of a known kind.
        factor: of what is added.
        dtype, device: that the product takes.
    """

    heads: int
    product: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    device: torch.device
    norm: Norm | None = Norm("none")
    factor: float = 1.0

    @torch.inference_mode()
    def matrix(self, width: int) -> tuple[Tensor, Tensor]:
        """The product's weights `[heads · head_size, hidden]` and bias `[hidden]`, float32."""
        ones = torch.cat([torch.eye(width), torch.zeros(1, width)]).to(self.device, self.dtype)
        rows = self.product(ones).float().cpu()
        return rows[:-1] - rows[-1], rows[-1]


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What a network is made of, as far as it is known after a forward.

    Attributes:
        logits: the output layer after the final norm, with all that an architecture does to logits: stream
            `[rows, hidden]`, float32 → `[rows, vocabulary]`, float32.
        summary: what is said of these: of rows of the stream, ids asked for `[rows, asked]`, and how many of the
            largest; `None` where logits have to be there for it.
        norm: the final one; `None` where it is of another kind.
        output: the output layer's weights; `None` where more than a factor and a cap follows it.
        projections: one for each block; `None` for a block without attention.
        scale: what products of queries and keys are multiplied by, where weights are computed from them.
        cap: what these then stay below, softly.
        windows: for each block, up to how many positions it looks back at, its own included; empty where all do at all.
        unlike: why what blocks add is not known, in words; empty where it is.
        unseen: why attention weights are not known, in words; empty where they are.
    """

    logits: Callable[[Tensor], Tensor]
    norm: Norm | None
    output: OutputLayer | None
    projections: Sequence[Projection | None]
    scale: float = 1.0
    cap: float | None = None
    windows: Sequence[int | None] = ()
    unlike: str = ""
    unseen: str = ""
    summary: Callable[[Tensor, Tensor, int], Summary] | None = None


@dataclass(frozen=True, slots=True)
class Size:
    """What keeping all parts takes, float32.

    Attributes:
        text_bytes: for each position of the text.
        position_bytes: for each position that is looked at.
        weight_bytes: for each pair of these, where attention weights are kept.
        heads: of each block; 0 where there are none.
        head_size: of what goes into the projection after attention.
    """

    blocks: int
    hidden: int
    text_bytes: int
    position_bytes: int
    weight_bytes: int = 0
    heads: int = 0
    head_size: int = 0

    @classmethod
    def of(cls, blocks: int, hidden: int, heads: int, kv_heads: int, head_size: int, *, weights: bool) -> "Size":
        """Of a network with attention in every block.

        Args:
            weights: whether attention weights are kept; else queries and keys.
        """
        kept = (3 * blocks + 1) * hidden + (1 if weights else 2) * blocks * heads * head_size
        return cls(
            blocks,
            hidden,
            4 * blocks * kv_heads * head_size * (1 if weights else 2),
            4 * kept,
            4 * blocks * heads * weights,
            heads,
            head_size,
        )


class Watchable(Protocol):
    """A network that can be looked inside of."""

    def size(self) -> Size: ...

    def look(self, ids: Tensor, first: int, watch: Watch) -> Anatomy:
        """Run one text `[1, length]`, with `watch` for the positions from `first` on.

        Raises:
            InputError: its blocks do not pass on one stream.
        """
        ...


class OwnNetwork(Protocol):
    """One of ours."""

    def cache(self, capacity: int, padding: Sequence[int]) -> KVCache: ...
    def watched(self, ids: Tensor, cache: KVCache, watch: Watch, *, siblings: bool = False) -> object:
        """A forward whose parts go through `watch`; queries, keys and values only where it is of one text."""
        ...


def run(network: OwnNetwork, ids: Tensor, first: int, watch: Watch) -> None:
    """One text through one of our own networks; see `Watchable.look`."""

    def pass_by(point: Point, layer: int, value: Tensor) -> Tensor:
        if point == "stream":  # so that it can be ended within a block
            watch("stream", -1, value)
        return value

    cache = network.cache(ids.shape[1], [0])
    for start in range(0, first, CHUNK):
        network.watched(ids[:, start : min(start + CHUNK, first)], cache, pass_by)
    network.watched(ids[:, first:], cache, watch)


def attended(watch: Watch, block: int, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What attention of a block takes, with `watch` where it is of one text: `[lanes, …]` each."""
    if len(queries) > 1:
        return queries, keys, values
    return (
        watch("queries", block, queries[0])[None],
        watch("keys", block, keys[0])[None],
        watch("values", block, values[0])[None],
    )
