"""GPT-2 (Radford et al. 2019): learned positions, layer norms, one head for everything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.base.language import _
from engine.networks.attention import KVCache, attend
from engine.networks.changes import Change, ChangedNetwork
from engine.networks.kernels import MANY_ROWS, Head, Linear, dense
from engine.networks.network import Output
from engine.networks.stored import summed
from engine.networks.watched import Anatomy, Norm, OutputLayer, Projection, Size, Watch, attended, run
from engine.networks.weights import Weights


@dataclass(slots=True)
class Layer:
    """One block's weights."""

    attention_norm: tuple[Tensor, Tensor]
    qkv: Linear
    out: Linear
    mlp_norm: tuple[Tensor, Tensor]
    up: Linear
    down: Linear


def uncovered(config: Mapping[str, Any]) -> str | None:
    """Why this model is not exactly what `Gpt2Network` computes, or `None` if it is."""
    if config.get("model_type") != "gpt2":
        return _("architecture {name}", name=config.get("model_type"))
    if config.get("activation_function", "gelu_new") != "gelu_new":
        return _("activation {name}", name=config["activation_function"])
    for flag, usual in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("reorder_and_upcast_attn", False),
        ("add_cross_attention", False),
    ):
        if config.get(flag, usual) != usual:
            return f"{flag}: {config[flag]}"
    return None


class Gpt2Network:
    """See `engine.networks.Network`."""

    path = "own gpt2"

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        self._heads: int = config["n_head"]
        self._hidden: int = config["n_embd"]
        self._epsilon: float = config.get("layer_norm_epsilon", 1e-5)
        self.parameters = weights.parameters
        self.vocabulary_size: int = config["vocab_size"]
        self.context_length: int = config.get("n_positions", 1024)
        self._tokens = weights.tensor("transformer.wte.weight")
        self._positions = weights.tensor("transformer.wpe.weight")
        self._layers = [self._layer(weights, f"transformer.h.{index}") for index in range(config["n_layer"])]
        self._norm = _pair(weights, "transformer.ln_f")
        head = self._tokens if config.get("tie_word_embeddings", True) else weights.tensor("lm_head.weight")
        self.head = Head.dense(head, roomy=weights.roomy)

    @staticmethod
    def _layer(weights: Weights, name: str) -> Layer:
        def linear(part: str) -> Linear:  # GPT-2 keeps its weights as [in, out]
            weight = weights.tensor(f"{name}.{part}.weight").T.contiguous()
            return dense(weight, weights.tensor(f"{name}.{part}.bias"), roomy=weights.roomy)

        return Layer(
            attention_norm=_pair(weights, f"{name}.ln_1"),
            qkv=linear("attn.c_attn"),
            out=linear("attn.c_proj"),
            mlp_norm=_pair(weights, f"{name}.ln_2"),
            up=linear("mlp.c_fc"),
            down=linear("mlp.c_proj"),
        )

    def prepare(self) -> None:
        self.forward(torch.zeros(1, MANY_ROWS, dtype=torch.long), self.cache(MANY_ROWS, [0])).logits()

    def at_once(self, length: int, usual: int) -> int:
        return usual

    def cache(self, capacity: int, padding: Sequence[int]) -> KVCache:
        return KVCache(len(self._layers), self._heads, self._hidden // self._heads, capacity, padding, self._tokens)

    @torch.inference_mode()
    def forward(self, ids: Tensor, cache: KVCache, *, siblings: bool = False, all_logits: bool = False) -> Output:
        lanes, count = ids.shape
        heads = self._heads
        mask = cache.mask(count, 1, self._tokens.dtype, siblings=siblings)
        x = self._embedded(ids, cache, siblings=siblings)
        for index, layer in enumerate(self._layers):
            qkv = self._queries_keys_values(layer, x, ids)
            keys, values = cache.append(index, qkv[:, :, heads:])
            x = x + layer.out(attend(qkv[:, :, :heads], keys, values, mask, siblings=siblings))
            x = x + self._feed_forward(layer, x)
        if not siblings:
            cache.length += count
        return Output(self._normed(x, self._norm).view(lanes, count, -1), self.head)

    @torch.inference_mode()
    def watched(self, ids: Tensor, cache: KVCache, watch: Watch, *, siblings: bool = False) -> Output:
        """See `engine.networks.watched`."""
        heads = self._heads
        mask = cache.mask(ids.shape[1], 1, self._tokens.dtype, siblings=siblings)
        x = watch("stream", 0, self._embedded(ids, cache, siblings=siblings))
        for index, layer in enumerate(self._layers):
            qkv = self._queries_keys_values(layer, x, ids)
            queries, keys, values = attended(watch, index, qkv[:, :, :heads], *cache.append(index, qkv[:, :, heads:]))
            seen = watch("heads", index, attend(queries, keys, values, mask))
            x = x + watch("attention", index, layer.out(seen))
            x = x + watch("mlp", index, self._feed_forward(layer, x))
            x = watch("stream", index + 1, x)
        if not siblings:
            cache.length += ids.shape[1]
        return Output(self._normed(x, self._norm).view(*ids.shape, -1), self.head)

    def size(self) -> Size:
        """See `engine.networks.watched`."""
        heads = self._heads
        return Size.of(len(self._layers), self._hidden, heads, heads, self._hidden // heads, weights=False)

    def look(self, ids: Tensor, first: int, watch: Watch) -> Anatomy:
        """See `engine.networks.watched`."""
        run(self, ids, first, watch)
        return self.anatomy()

    def anatomy(self) -> Anatomy:
        """See `engine.networks.watched`."""
        gain, bias = self._norm
        return Anatomy(
            logits=lambda stream: self.head(self._normed(stream.to(gain), self._norm)),
            norm=Norm("layer", gain.float().cpu(), bias.float().cpu(), self._epsilon),
            output=OutputLayer(self.head.weights),
            projections=[Projection(self._heads, layer.out, gain.dtype, gain.device) for layer in self._layers],
            scale=(self._hidden // self._heads) ** -0.5,
            summary=summed(self.head, lambda stream: self._normed(stream.to(gain), self._norm)),
        )

    def changed(self, changes: Sequence[Change]) -> ChangedNetwork:
        """See `engine.networks.changes`."""
        return ChangedNetwork(self, changes)

    def _embedded(self, ids: Tensor, cache: KVCache, *, siblings: bool) -> Tensor:
        """Tokens and positions, `[lanes · positions, hidden]`."""
        positions = cache.positions(ids.shape[1], siblings=siblings)
        return (self._tokens[ids.to(self._tokens.device)] + self._positions[positions]).flatten(0, 1)

    def _queries_keys_values(self, layer: Layer, x: Tensor, ids: Tensor) -> Tensor:
        """`[lanes, positions, 3 · heads, head_size]`."""
        return layer.qkv(self._normed(x, layer.attention_norm)).view(*ids.shape, 3 * self._heads, -1)

    def _feed_forward(self, layer: Layer, x: Tensor) -> Tensor:
        return layer.down(F.gelu(layer.up(self._normed(x, layer.mlp_norm)), approximate="tanh"))

    def _normed(self, x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return F.layer_norm(x, (self._hidden,), norm[0], norm[1], self._epsilon)


def _pair(weights: Weights, name: str) -> tuple[Tensor, Tensor]:
    return weights.tensor(f"{name}.weight"), weights.tensor(f"{name}.bias")
