"""What a configuration says of a model of the Llama family, and in what its other members differ from Llama.

Gemma (Gemma Team 2024), Gemma 2 and Gemma 3 (2025) scale embeddings and queries, put norms around each part of a
block, and look back a few tokens only in most layers; Phi-3 (Abdin et al. 2024) turns its heads in part, and
otherwise in long texts (LongRoPE, Ding et al. 2024).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.base.language import _

GEMMAS = ("gemma", "gemma2", "gemma3_text")
COVERED = ("llama", "mistral", "qwen2", "qwen3", *GEMMAS, "phi3")
# More than any model has: what a damaged file says is not written out layer by layer.
MOST_LAYERS = 10_000
# What a layer looks back at, by transformers' names.
FULL, SLIDING = "full_attention", "sliding_attention"

_GEMMA_SIZES = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
# What configurations may leave out, as transformers fills it in.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 4096},
    "qwen2": {"sliding_window": 4096},
    "qwen3": {"sliding_window": 4096},
    "gemma": {"head_dim": 256, "max_position_embeddings": 8192, "tie_word_embeddings": True},
    "gemma2": _GEMMA_SIZES
    | {"max_position_embeddings": 8192, "vocab_size": 256_000}
    | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3_text": _GEMMA_SIZES | {"max_position_embeddings": 131_072, "vocab_size": 262_208},
    "phi3": {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "original_max_position_embeddings": 4096},
}


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a Gemma 3 that sees pictures, the part that reads text; any other configuration as it is."""
    if config.get("model_type") != "gemma3":
        return config
    # The whole model ties its output layer by its own word, and does not cap its logits.
    tied = {"tie_word_embeddings": config.get("tie_word_embeddings", True)}
    return {**config.get("text_config", {}), "model_type": "gemma3_text", "final_logit_softcapping": None} | tied


def filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with what it leaves out."""
    text = text_config(config)
    return {**_DEFAULTS.get(str(text.get("model_type")), {}), **text}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a configuration says about the shape of a model.

    Attributes:
        kinds: what each layer looks back at.
        window: up to how many positions a layer looks back at where it slides, its own included.
        scale: of queries times keys; `None` for that of the size of a head.
        attention_cap, logit_cap: what these stay below, softly.
        embedding_scale: what embeddings are multiplied by.
        gelu: whether the feed-forward gate is a GELU, else a SiLU.
        around: whether attention and feed-forward have a norm after them as well.
        above_one: whether norms multiply by one more than the weights that a folder holds.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    epsilon: float
    vocabulary: int
    context: int
    tied: bool
    kinds: tuple[str, ...]
    window: int | None
    scale: float | None
    attention_cap: float | None
    logit_cap: float | None
    embedding_scale: float | None
    gelu: bool
    around: bool
    above_one: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Sizes":
        config = filled(config)
        kind, heads = config["model_type"], config["num_attention_heads"]
        scaled, gemma = kind in ("gemma2", "gemma3_text"), kind in GEMMAS
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=_head_size(config),
            epsilon=config.get("rms_norm_eps", 1e-6),
            vocabulary=config["vocab_size"],
            context=config.get("max_position_embeddings", 2048),
            tied=config.get("tie_word_embeddings", False),
            kinds=_kinds(config),
            window=config.get("sliding_window"),
            scale=config["query_pre_attn_scalar"] ** -0.5 if scaled else None,
            attention_cap=config.get("attn_logit_softcapping") if kind == "gemma2" else None,
            logit_cap=config.get("final_logit_softcapping") if scaled else None,
            embedding_scale=config["hidden_size"] ** 0.5 if gemma else None,
            gelu=gemma,
            around=scaled,
            above_one=gemma,
        )


def uncovered(config: Mapping[str, Any]) -> str | None:
    """Why this model is not exactly what `LlamaNetwork` computes, or `None` if it is."""
    config = filled(config)
    kind = config.get("model_type")
    if kind not in COVERED:
        return _("architecture {name}", name=kind)
    name = "hidden_act" if kind not in GEMMAS or kind == "gemma" else "hidden_activation"
    usual = ("gelu_pytorch_tanh", "gelu")[: 2 if kind == "gemma" else 1] if kind in GEMMAS else ("silu",)
    if (activation := config.get(name, usual[0])) not in usual:
        return _("activation {name}", name=activation)
    if config.get("use_bidirectional_attention"):
        return _("attention to what follows")
    if others := set(_kinds(config)) - {FULL, SLIDING}:
        return _("layers of type {name}", name=", ".join(sorted(map(str, others))))
    known = ("default", "longrope") if kind == "phi3" else ("default", "linear", "llama3")
    for each in sorted({FULL, *_kinds(config)}):
        scaling, rope = _rope(config, each)
        if scaling not in known or (kind == "phi3" and _turned(config, rope) % 2):
            return _("rotary positions of type {name}", name=scaling)
    if config.get("quantization_config"):
        return _("quantised safetensors")
    return None


def shallow(config: Mapping[str, Any], layers: int, window: int) -> dict[str, Any]:
    """The configuration of the first layers alone, of each kind that a model has, with a smaller window."""
    text = text_config(config)
    few: dict[str, Any] = {**text, "num_hidden_layers": min(layers, text["num_hidden_layers"])}
    kinds = list(dict.fromkeys(_kinds(filled(config)))) if text.get("model_type") in COVERED else []
    if SLIDING in kinds:
        few["sliding_window"] = min(window, filled(config)["sliding_window"])
    if len(kinds) > 1:
        few["layer_types"] = (kinds * layers)[: few["num_hidden_layers"]]
    return few


def _head_size(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _kinds(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What each layer looks back at."""
    kind, layers = config["model_type"], range(min(MOST_LAYERS, config.get("num_hidden_layers", 0)))
    if kind in ("llama", "gemma") or not config.get("sliding_window"):
        return (FULL,) * len(layers)
    if kind in ("mistral", "phi3"):
        return (SLIDING,) * len(layers)
    if kind in ("qwen2", "qwen3"):
        if not config.get("use_sliding_window"):
            return (FULL,) * len(layers)
        slides = [index >= config.get("max_window_layers", 28) for index in layers]
    else:
        period = 2 if kind == "gemma2" else config.get("sliding_window_pattern", 6)
        slides = [bool((index + 1) % period) for index in layers]
    return tuple(config.get("layer_types") or [SLIDING if each else FULL for each in slides])[: len(layers)]


def _rope(config: Mapping[str, Any], kind: str) -> tuple[str, dict[str, Any]]:
    """Type and parameters of a layer's rotary positions, from either generation of `config.json`."""
    if config["model_type"] == "gemma3_text":
        found = dict((config.get("rope_parameters") or {}).get(kind) or {})
        if kind == FULL:
            found |= config.get("rope_scaling") or {}
        base = config.get("rope_theta", 1e6) if kind == FULL else config.get("rope_local_base_freq", 1e4)
    else:
        found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
        base = config.get("rope_theta", 10_000.0)
    found.setdefault("rope_theta", base)
    if config["model_type"] == "phi3":
        found.setdefault("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    return found.get("rope_type") or found.get("type") or "default", found


def _turned(config: Mapping[str, Any], rope: Mapping[str, Any]) -> int:
    """How many dimensions of a head turn."""
    part = rope.get("partial_rotary_factor", 1.0) if config["model_type"] == "phi3" else 1.0
    return int(_head_size(config) * part)


def turning_point(config: Mapping[str, Any]) -> int | None:
    """Up to how many tokens rotary positions are those of short texts; `None` where the length changes nothing."""
    config = filled(config)
    if config["model_type"] != "phi3" or _rope(config, FULL)[0] != "longrope":
        return None
    original = int(config["original_max_position_embeddings"])
    return original if original < config["max_position_embeddings"] else None


@dataclass(frozen=True, slots=True)
class Rotation:
    """How a kind of layer turns queries and keys.

    Attributes:
        frequencies: radians a position, one for each pair of dimensions that turn, float32.
        scale: of what turns.
    """

    frequencies: Tensor
    scale: float = 1.0


def rotation(config: Mapping[str, Any], kind: str, *, long: bool = False) -> Rotation:
    """The rotation of a kind of layer.

    Args:
        long: for a text beyond the `turning_point`.
    """
    config = filled(config)
    scaling, rope = _rope(config, kind)
    turned = _turned(config, rope)
    exponents = torch.arange(0, turned, 2, dtype=torch.int64).float() / turned
    frequencies = 1.0 / rope["rope_theta"] ** exponents
    if scaling == "linear":
        return Rotation(frequencies / rope["factor"])
    if scaling == "llama3":  # Llama 3.1: long wavelengths are stretched, short ones kept, those between blended
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return Rotation(frequencies * kept + frequencies / rope["factor"] * (1 - kept))
    if scaling == "longrope":
        original = config["original_max_position_embeddings"]
        stretched = rope.get("factor") or config["max_position_embeddings"] / original
        scale = rope.get("attention_factor")
        if scale is None:
            scale = math.sqrt(1 + math.log(stretched) / math.log(original)) if stretched > 1 else 1.0
        factors = torch.tensor(rope["long_factor" if long else "short_factor"], dtype=torch.float32)
        return Rotation(1.0 / (factors * rope["rope_theta"] ** exponents), scale)
    return Rotation(frequencies)
