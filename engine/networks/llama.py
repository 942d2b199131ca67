"""The Llama family: Llama, SmolLM, Mistral, Qwen2, Qwen3, Gemma 1 to 3, Phi-3. As short as its papers, as fast as its
weights load.

Touvron et al. 2023 (LLaMA), with grouped queries (Ainslie et al. 2023), rotary positions (Su et al. 2021),
and, where a member has them, biases (Qwen2), norms on queries and keys (Qwen3, Gemma 3), and windows (Mistral). What
else Gemma and Phi-3 do is said in `llama_config`.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.base.language import _
from engine.networks.attention import KVCache, attend
from engine.networks.changes import Change, ChangedNetwork
from engine.networks.kernels import MANY_ROWS, Linear, RmsNorm
from engine.networks.llama_config import SLIDING, Rotation, Sizes, rotation, turning_point
from engine.networks.network import Network, Output
from engine.networks.stored import of_gated, of_normed, plus, summed
from engine.networks.turning import TurningNetwork
from engine.networks.watched import Anatomy, Norm, OutputLayer, Projection, Size, Watch, attended, run
from engine.networks.weights import Weights


@dataclass(slots=True)
class Layer:
    """One block's weights, fused; `kind` is what it looks back at."""

    kind: str
    attention_norm: RmsNorm
    qkv: Linear
    q_norm: RmsNorm | None
    k_norm: RmsNorm | None
    out: Linear
    after_attention: RmsNorm | None
    mlp_norm: RmsNorm
    gate_up: Linear
    down: Linear
    after_mlp: RmsNorm | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the tokens of one forward stand, for layers of one kind: how queries and keys turn, and what they see.

    Attributes:
        mask: from position `first` on.
    """

    lanes: int
    count: int
    cosine: Tensor
    sine: Tensor
    mask: Tensor | None
    first: int


def llama_network(config: Mapping[str, Any], weights: Weights, rope_factors: Tensor | None = None) -> Network:
    """The network of a model of the family. Args as `LlamaNetwork` takes them."""
    network = LlamaNetwork(config, weights, rope_factors)
    boundary = turning_point(config)
    return network if boundary is None else TurningNetwork(network, network.for_long_texts(config), boundary)


class LlamaNetwork:
    """See `engine.networks.Network`.

    Args:
        config: under transformers' names.
        rope_factors: what the rotary frequencies are divided by, `[head_size / 2]`.
    """

    path = "own llama"

    def __init__(self, config: Mapping[str, Any], weights: Weights, rope_factors: Tensor | None = None) -> None:
        self.sizes = Sizes.read(config)
        self.parameters = weights.parameters
        self.vocabulary_size = self.sizes.vocabulary
        self.context_length = self.sizes.context
        self._embedding = weights.rows("model.embed_tokens.weight")
        self._scale: Tensor | None = None  # rounded as embeddings are
        if (scale := self.sizes.embedding_scale) is not None:
            self._scale = torch.tensor(scale, dtype=self._embedding.dtype, device=weights.device)
        self._layers = [self._layer(weights, index, kind) for index, kind in enumerate(self.sizes.kinds)]
        self._check_shapes()
        self._device = weights.device
        self._rotations = {kind: self._placed(rotation(config, kind)) for kind in dict.fromkeys(self.sizes.kinds)}
        if rope_factors is not None:
            factors = rope_factors.to(weights.device)
            turns = self._rotations.items()
            self._rotations = {kind: Rotation(turn.frequencies / factors, turn.scale) for kind, turn in turns}
        self._partners = self._swapped_halves()
        self._norm = self._norm_of(weights, "model.norm")
        output = weights.head("model.embed_tokens.weight" if self.sizes.tied else "lm_head.weight")
        self._output = output
        self.head: Callable[[Tensor], Tensor] = output
        if (cap := self.sizes.logit_cap) is not None:
            self.head = lambda hidden: cap * torch.tanh(output(hidden) / cap)

    def _swapped_halves(self) -> Tensor | None:
        """Where heads turn in part: the place of each dimension's partner, `[head_size]`."""
        pairs = max(len(turn.frequencies) for turn in self._rotations.values())
        places = torch.arange(self.sizes.head_size, device=self._device)
        if 2 * pairs == len(places):
            return None
        return torch.cat([places[: 2 * pairs].roll(pairs), places[2 * pairs :]])

    def for_long_texts(self, config: Mapping[str, Any]) -> "LlamaNetwork":
        """The same weights, with the rotations of texts beyond the turning point."""
        network = copy.copy(self)
        network._rotations = {kind: self._placed(rotation(config, kind, long=True)) for kind in self._rotations}
        return network

    def _placed(self, turn: Rotation) -> Rotation:
        return Rotation(turn.frequencies.to(self._device), turn.scale)

    def _norm_of(self, weights: Weights, name: str) -> RmsNorm:
        return RmsNorm(weights.norm(f"{name}.weight", above_one=self.sizes.above_one), self.sizes.epsilon)

    def _check_shapes(self) -> None:
        """Before anything is as large as the configuration says: the weights must be so too."""
        sizes = self.sizes
        rows = (sizes.heads + 2 * sizes.kv_heads) * sizes.head_size
        fits = self._embedding.shape == (sizes.vocabulary, sizes.hidden) and sizes.heads > 0 and sizes.layers > 0
        with torch.inference_mode():
            if not fits or self._layers[0].qkv(self._embedding(torch.zeros(1, dtype=torch.long))).shape[-1] != rows:
                raise ValueError(_("the weights have other shapes than the configuration says"))

    def _layer(self, weights: Weights, index: int, kind: str) -> Layer:
        name = f"model.layers.{index}"
        attention, mlp = f"{name}.self_attn", f"{name}.mlp"

        def norm(part: str) -> RmsNorm:
            return self._norm_of(weights, f"{name}.{part}")

        def optional(part: str) -> RmsNorm | None:
            return norm(part) if weights.has(f"{name}.{part}.weight") else None

        def fused(whole: str, *parts: str) -> Linear:
            return weights.linear(*([whole] if weights.has(f"{whole}.weight") else parts))

        around = self.sizes.around
        return Layer(
            kind=kind,
            attention_norm=norm("input_layernorm"),
            qkv=fused(f"{attention}.qkv_proj", *(f"{attention}.{part}_proj" for part in "qkv")),
            q_norm=optional("self_attn.q_norm"),
            k_norm=optional("self_attn.k_norm"),
            out=weights.linear(f"{attention}.o_proj"),
            after_attention=norm("post_attention_layernorm") if around else None,
            mlp_norm=norm("pre_feedforward_layernorm" if around else "post_attention_layernorm"),
            gate_up=fused(f"{mlp}.gate_up_proj", f"{mlp}.gate_proj", f"{mlp}.up_proj"),
            down=weights.linear(f"{mlp}.down_proj"),
            after_mlp=norm("post_feedforward_layernorm") if around else None,
        )

    def prepare(self) -> None:
        self.forward(torch.zeros(1, MANY_ROWS, dtype=torch.long), self.cache(MANY_ROWS, [0])).logits()

    def at_once(self, length: int, usual: int) -> int:
        return usual

    def cache(self, capacity: int, padding: Sequence[int]) -> KVCache:
        sizes = self.sizes
        return KVCache(sizes.layers, sizes.kv_heads, sizes.head_size, capacity, padding, self._norm.weight)

    @torch.inference_mode()
    def forward(self, ids: Tensor, cache: KVCache, *, siblings: bool = False, all_logits: bool = False) -> Output:
        lanes, count = ids.shape
        sizes, heads = self.sizes, self.sizes.heads
        places = self._places(ids, cache, siblings=siblings)
        x = self._embedded(ids)
        for index, layer in enumerate(self._layers):
            place = places[layer.kind]
            qkv = self._queries_keys_values(layer, x, place)
            keys, values = cache.append(index, qkv[:, :, heads:], place.first)
            seen = attend(
                qkv[:, :, :heads], keys, values, place.mask, sizes.scale, sizes.attention_cap, siblings=siblings
            )
            x = self._after(x, layer, seen)
        if not siblings:
            cache.length += count
        return Output(self._norm(x).view(lanes, count, -1), self.head)

    @torch.inference_mode()
    def watched(self, ids: Tensor, cache: KVCache, watch: Watch, *, siblings: bool = False) -> Output:
        """See `engine.networks.watched`."""
        sizes, heads = self.sizes, self.sizes.heads
        places = self._places(ids, cache, siblings=siblings)
        x = watch("stream", 0, self._embedded(ids))
        for index, layer in enumerate(self._layers):
            place = places[layer.kind]
            qkv = self._queries_keys_values(layer, x, place)
            queries, keys, values = attended(watch, index, qkv[:, :, :heads], *cache.append(index, qkv[:, :, heads:]))
            keys, values = keys[:, :, place.first :], values[:, :, place.first :]
            seen = attend(queries, keys, values, place.mask, sizes.scale, sizes.attention_cap)
            x = x + watch("attention", index, self._projected(layer, watch("heads", index, seen)))
            x = x + watch("mlp", index, self._feed_forward(layer, x))
            x = watch("stream", index + 1, x)
        if not siblings:
            cache.length += ids.shape[1]
        return Output(self._norm(x).view(*ids.shape, -1), self.head)

    def size(self) -> Size:
        """See `engine.networks.watched`."""
        sizes = self.sizes
        return Size.of(sizes.layers, sizes.hidden, sizes.heads, sizes.kv_heads, sizes.head_size, weights=False)

    def look(self, ids: Tensor, first: int, watch: Watch) -> Anatomy:
        """See `engine.networks.watched`."""
        run(self, ids, first, watch)
        return self.anatomy()

    def anatomy(self) -> Anatomy:
        """See `engine.networks.watched`."""
        sizes, like = self.sizes, self._norm.weight

        def known(norm: RmsNorm | None) -> Norm:
            return Norm("none") if norm is None else Norm("rms", norm.weight.float().cpu(), None, sizes.epsilon)

        return Anatomy(
            logits=lambda stream: self.head(self._norm(stream.to(like))),
            norm=known(self._norm),
            output=OutputLayer(self._output.weights, cap=sizes.logit_cap),
            projections=[
                Projection(sizes.heads, layer.out, like.dtype, like.device, known(layer.after_attention))
                for layer in self._layers
            ],
            scale=sizes.head_size**-0.5 if sizes.scale is None else sizes.scale,
            cap=sizes.attention_cap,
            windows=[sizes.window if kind == SLIDING else None for kind in sizes.kinds],
            summary=summed(self._output, lambda stream: self._norm(stream.to(like)), sizes.logit_cap),
        )

    def changed(self, changes: Sequence[Change]) -> ChangedNetwork:
        """See `engine.networks.changes`."""
        return ChangedNetwork(self, changes)

    def _embedded(self, ids: Tensor) -> Tensor:
        x = self._embedding(ids.flatten())  # [lanes · positions, hidden]
        return x if self._scale is None else x * self._scale

    def _places(self, ids: Tensor, cache: KVCache, *, siblings: bool) -> dict[str, Place]:
        """One for each kind of layer."""
        (lanes, count), sizes = ids.shape, self.sizes
        positions = cache.positions(count, siblings=siblings)
        group, dtype = sizes.heads // sizes.kv_heads, self._embedding.dtype
        places = {}
        for kind, turn in self._rotations.items():
            window = sizes.window if kind == SLIDING else None
            mask = cache.mask(count, group, dtype, siblings=siblings, window=window)
            places[kind] = Place(lanes, count, *self._turns(positions, turn), mask, cache.first(window))
        return places

    def _queries_keys_values(self, layer: Layer, x: Tensor, place: Place) -> Tensor:
        """In one product and one rotation, values by zero: `[lanes, positions, heads + 2 · kv_heads, head_size]`."""
        heads, kv_heads, size = self.sizes.heads, self.sizes.kv_heads, self.sizes.head_size
        qkv = of_normed(layer.qkv, layer.attention_norm, x).view(place.lanes, place.count, heads + 2 * kv_heads, size)
        if layer.q_norm is not None and layer.k_norm is not None:
            queries = layer.q_norm(qkv[:, :, :heads])
            keys = layer.k_norm(qkv[:, :, heads : heads + kv_heads])
            qkv = torch.cat([queries, keys, qkv[:, :, heads + kv_heads :]], dim=2)
        swapped = qkv.roll(size // 2, -1) if self._partners is None else qkv[..., self._partners]
        return torch.addcmul(qkv * place.cosine, swapped, place.sine)

    @staticmethod
    def _projected(layer: Layer, heads: Tensor) -> Tensor:
        """What attention adds to the stream."""
        added = layer.out(heads)
        return added if layer.after_attention is None else layer.after_attention(added)

    def _feed_forward(self, layer: Layer, x: Tensor) -> Tensor:
        """What the feed-forward part adds to the stream."""
        added = of_gated(layer.down, of_normed(layer.gate_up, layer.mlp_norm, x), gelu=self.sizes.gelu)
        return added if layer.after_mlp is None else layer.after_mlp(added)

    def _after(self, x: Tensor, layer: Layer, heads: Tensor) -> Tensor:
        """The stream after a layer: what attention and the feed-forward part add, summed where they are computed."""
        if layer.after_attention is not None or layer.after_mlp is not None:
            x = x + self._projected(layer, heads)
            return x + self._feed_forward(layer, x)
        x = plus(x, layer.out, heads)
        return of_gated(layer.down, of_normed(layer.gate_up, layer.mlp_norm, x), gelu=self.sizes.gelu, added=x)

    def _turns(self, positions: Tensor, turn: Rotation) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines for every head, `[lanes, positions, heads + 2 · kv_heads, head_size]`.

        With the halves of what turns in a head swapped, `x · cos + swapped · sin` is the rotation; the sign of the
        first half is in the sine.
        """
        sizes = self.sizes
        angles = positions[:, :, None, None].float() * turn.frequencies  # [lanes, positions, 1, pairs]
        cosine, sine = angles.cos(), angles.sin()
        if turn.scale != 1:
            cosine, sine = cosine * turn.scale, sine * turn.scale
        rest = sizes.head_size - 2 * cosine.shape[-1]
        ones = [cosine.new_ones(*positions.shape, 1, rest)] if rest else []
        turned = (-1, -1, sizes.heads + sizes.kv_heads, -1)
        cosine = torch.cat([cosine, cosine, *ones], -1).expand(turned)
        sine = torch.cat([-sine, sine, *map(torch.zeros_like, ones)], -1).expand(turned)
        still = cosine.new_ones(*positions.shape, sizes.kv_heads, sizes.head_size)
        dtype = self._embedding.dtype
        return (
            torch.cat([cosine, still], dim=2).to(dtype),
            torch.cat([sine, torch.zeros_like(still)], dim=2).to(dtype),
        )
