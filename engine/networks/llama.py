"""The Llama family: Llama, SmolLM, Mistral, Qwen2, Qwen3. As short as its papers, as fast as its weights load.

Touvron et al. 2023 (LLaMA), with grouped queries (Ainslie et al. 2023), rotary positions (Su et al. 2021),
and, where a member has them, biases (Qwen2) and norms on queries and keys (Qwen3).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.base.language import _
from engine.networks.attention import KVCache, attend
from engine.networks.kernels import MANY_ROWS, Head, Linear, RmsNorm
from engine.networks.network import Output
from engine.networks.watched import Anatomy, Norm, OutputLayer, Projection, Size, Watch, run
from engine.networks.weights import Weights

COVERED = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a `config.json` says about the shape of a model."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    epsilon: float
    vocabulary: int
    context: int
    tied: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Sizes":
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            epsilon=config.get("rms_norm_eps", 1e-6),
            vocabulary=config["vocab_size"],
            context=config.get("max_position_embeddings", 2048),
            tied=config.get("tie_word_embeddings", False),
        )


@dataclass(slots=True)
class Layer:
    """One block's weights, fused."""

    attention_norm: RmsNorm
    qkv: Linear
    q_norm: RmsNorm | None
    k_norm: RmsNorm | None
    out: Linear
    mlp_norm: RmsNorm
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Place:
    """Where the tokens of one forward stand: how their queries and keys turn, and what they see."""

    lanes: int
    count: int
    cosine: Tensor
    sine: Tensor
    mask: Tensor | None


def uncovered(config: Mapping[str, Any]) -> str | None:
    """Why this model is not exactly what `LlamaNetwork` computes, or `None` if it is."""
    if config.get("model_type") not in COVERED:
        return _("architecture {name}", name=config.get("model_type"))
    if config.get("hidden_act", "silu") != "silu":
        return _("activation {name}", name=config["hidden_act"])
    window = config.get("sliding_window")
    windowed = config.get("use_sliding_window", config["model_type"] == "mistral")
    if windowed and window and window < config.get("max_position_embeddings", 0):
        return _("a sliding window of {window:,}", window=window)
    if _rope(config)[0] not in ("default", "linear", "llama3"):
        return _("rotary positions of type {name}", name=_rope(config)[0])
    if config.get("quantization_config"):
        return _("quantised safetensors")
    return None


def _rope(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Type and parameters of the rotary positions, from either generation of `config.json`."""
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    found.setdefault("rope_theta", config.get("rope_theta", 10_000.0))
    return found.get("rope_type") or found.get("type") or "default", found


def rotary_frequencies(config: Mapping[str, Any], head_size: int) -> Tensor:
    """Radians a position, one for each pair of dimensions, `[head_size / 2]`, float32."""
    kind, rope = _rope(config)
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_size, 2, dtype=torch.int64).float() / head_size)
    if kind == "linear":
        return frequencies / rope["factor"]
    if kind == "llama3":  # Llama 3.1: long wavelengths are stretched, short ones kept, those between blended
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * kept + frequencies / rope["factor"] * (1 - kept)
    return frequencies


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
        self._layers = [self._layer(weights, f"model.layers.{index}") for index in range(self.sizes.layers)]
        self._check_shapes()
        self._frequencies = rotary_frequencies(config, self.sizes.head_size).to(weights.device)
        if rope_factors is not None:
            self._frequencies = self._frequencies / rope_factors.to(weights.device)
        self._norm = RmsNorm(weights.tensor("model.norm.weight"), self.sizes.epsilon)
        self.head: Head = weights.head("model.embed_tokens.weight" if self.sizes.tied else "lm_head.weight")

    def _check_shapes(self) -> None:
        """Before anything is as large as the configuration says: the weights must be so too."""
        sizes = self.sizes
        rows = (sizes.heads + 2 * sizes.kv_heads) * sizes.head_size
        fits = self._embedding.shape == (sizes.vocabulary, sizes.hidden) and sizes.heads > 0 and sizes.layers > 0
        with torch.inference_mode():
            if not fits or self._layers[0].qkv(self._embedding(torch.zeros(1, dtype=torch.long))).shape[-1] != rows:
                raise ValueError(_("the weights have other shapes than the configuration says"))

    def _layer(self, weights: Weights, name: str) -> Layer:
        def norm(part: str) -> RmsNorm:
            return RmsNorm(weights.tensor(f"{name}.{part}.weight"), self.sizes.epsilon)

        def optional(part: str) -> RmsNorm | None:
            return norm(part) if weights.has(f"{name}.{part}.weight") else None

        attention, mlp = f"{name}.self_attn", f"{name}.mlp"
        return Layer(
            attention_norm=norm("input_layernorm"),
            qkv=weights.linear(f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj"),
            q_norm=optional("self_attn.q_norm"),
            k_norm=optional("self_attn.k_norm"),
            out=weights.linear(f"{attention}.o_proj"),
            mlp_norm=norm("post_attention_layernorm"),
            gate_up=weights.linear(f"{mlp}.gate_proj", f"{mlp}.up_proj"),
            down=weights.linear(f"{mlp}.down_proj"),
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
        place = self._place(ids, cache, siblings=siblings)
        x = self._embedding(ids.flatten())  # [lanes · positions, hidden]
        for index, layer in enumerate(self._layers):
            qkv = self._queries_keys_values(layer, x, place)
            keys, values = cache.append(index, qkv[:, :, self.sizes.heads :])
            x = x + layer.out(attend(qkv[:, :, : self.sizes.heads], keys, values, place.mask))
            x = x + self._feed_forward(layer, x)
        if not siblings:
            cache.length += count
        return Output(self._norm(x).view(lanes, count, -1), self.head)

    @torch.inference_mode()
    def watched(self, ids: Tensor, cache: KVCache, watch: Watch) -> Output:
        """See `engine.networks.watched`."""
        place = self._place(ids, cache, siblings=False)
        x = watch("stream", 0, self._embedding(ids.flatten()))
        for index, layer in enumerate(self._layers):
            qkv = self._queries_keys_values(layer, x, place)
            keys, values = cache.append(index, qkv[:, :, self.sizes.heads :])
            queries = watch("queries", index, qkv[0, :, : self.sizes.heads])[None]
            keys, values = watch("keys", index, keys[0])[None], watch("values", index, values[0])[None]
            heads = watch("heads", index, attend(queries, keys, values, place.mask))
            x = x + watch("attention", index, layer.out(heads))
            x = x + watch("mlp", index, self._feed_forward(layer, x))
            x = watch("stream", index + 1, x)
        cache.length += ids.shape[1]
        return Output(self._norm(x).view(*ids.shape, -1), self.head)

    def size(self) -> Size:
        """See `engine.networks.watched`."""
        sizes = self.sizes
        return Size.of(sizes.layers, sizes.hidden, sizes.heads, sizes.kv_heads, sizes.head_size, weights=False)

    def look(self, ids: Tensor, first: int, watch: Watch) -> Anatomy:
        """See `engine.networks.watched`."""
        run(self, ids, first, watch)
        like = self._norm.weight
        return Anatomy(
            logits=lambda stream: self.head(self._norm(stream.to(like))),
            norm=Norm("rms", like.float().cpu(), None, self.sizes.epsilon),
            output=OutputLayer(self.head.weights),
            projections=[Projection(self.sizes.heads, layer.out, like.dtype, like.device) for layer in self._layers],
            scale=self.sizes.head_size**-0.5,
        )

    def _place(self, ids: Tensor, cache: KVCache, *, siblings: bool) -> Place:
        count, sizes = ids.shape[1], self.sizes
        cosine, sine = self._rotation(cache.positions(count, siblings=siblings))
        mask = cache.mask(count, sizes.heads // sizes.kv_heads, self._embedding.dtype, siblings=siblings)
        return Place(len(ids), count, cosine, sine, mask)

    def _queries_keys_values(self, layer: Layer, x: Tensor, place: Place) -> Tensor:
        """In one product and one rotation, values by zero: `[lanes, positions, heads + 2 · kv_heads, head_size]`."""
        heads, kv_heads, size = self.sizes.heads, self.sizes.kv_heads, self.sizes.head_size
        qkv = layer.qkv(layer.attention_norm(x)).view(place.lanes, place.count, heads + 2 * kv_heads, size)
        if layer.q_norm is not None and layer.k_norm is not None:
            queries = layer.q_norm(qkv[:, :, :heads])
            keys = layer.k_norm(qkv[:, :, heads : heads + kv_heads])
            qkv = torch.cat([queries, keys, qkv[:, :, heads + kv_heads :]], dim=2)
        return torch.addcmul(qkv * place.cosine, qkv.roll(size // 2, -1), place.sine)

    @staticmethod
    def _feed_forward(layer: Layer, x: Tensor) -> Tensor:
        gate, up = layer.gate_up(layer.mlp_norm(x)).chunk(2, -1)
        return layer.down(F.silu(gate) * up)

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines for every head, `[lanes, positions, heads + 2 · kv_heads, head_size]`.

        With the halves of a head swapped by `roll`, `x · cos + swapped · sin` is the rotation; the sign of the
        first half is in the sine.
        """
        sizes = self.sizes
        angles = positions[:, :, None, None].float() * self._frequencies  # [lanes, positions, 1, head_size / 2]
        turned = (-1, -1, sizes.heads + sizes.kv_heads, -1)
        cosine = torch.cat([angles.cos(), angles.cos()], -1).expand(turned)
        sine = torch.cat([-angles.sin(), angles.sin()], -1).expand(turned)
        still = cosine.new_ones(*positions.shape, sizes.kv_heads, sizes.head_size)
        dtype = self._embedding.dtype
        return (
            torch.cat([cosine, still], dim=2).to(dtype),
            torch.cat([sine, torch.zeros_like(still)], dim=2).to(dtype),
        )
