"""GGUF files of all architectures that can be read, under transformers' names, for its modules and our network.

What llama.cpp reads of a file is said here by architecture: which settings become which of a configuration's, and in
what its tensors differ from the module's. Each has been compared with llama.cpp (`tests/engine/test_gguf_families`).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.base.errors import ModelFileError
from engine.base.language import _
from engine.networks.blocks import Blocks

Config = dict[str, Any]
Tensors = Mapping[str, Blocks]

# Settings -> a configuration's names, of nearly all architectures.
COMMON = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_LAYER_NORM = {"attention.layer_norm_epsilon": "layer_norm_eps"}
_SLIDING = {"attention.sliding_window": "sliding_window"}
_PATTERN = {"attention.sliding_window_pattern": "sliding_window_pattern"}
_CAPPED = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_EXPERTS = {"expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"}
_EXPERT_SIZE = {"expert_feed_forward_length": "moe_intermediate_size"}
_SHARED_SIZE = {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"}


def _nothing(_config: Config, _tensors: Tensors) -> Config:
    return {}


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        model_type: transformers' name.
        settings: its own, beside the usual ones.
        constants: of the configuration, which llama.cpp takes as given.
        fixed: settings that the module does not have, with the values at which that makes no difference.
        lists: settings that may differ from layer to layer.
        changes: what else its settings and tensors say, given the configuration so far.
        arranged: a tensor of the file, by its name, in the module's order.
        architecture: the file's name of it, where that is also another family's.
        scalings: of the rotary positions, that it may have.
        rotary: whether it has rotary positions.
        partial: whether they may turn a part of each head.
        paired: queries and keys lie in llama.cpp's rotary order.
        norms_above_one: norms' weights are stored with one added.
        factors: tensors that are no weights, but what the frequencies of rotary positions are divided by.
        may_lack: endings of the module's biases that are zero where a file lacks them.
        transposed: tensors that lie the other way round.
    """

    model_type: str
    settings: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    lists: Collection[str] = ()
    changes: Callable[[Config, Tensors], Config] = _nothing
    arranged: Callable[[str, Tensor, Config], Tensor] = lambda key, value, config: value
    architecture: str = ""
    scalings: tuple[str, ...] = ()
    rotary: bool = True
    partial: bool = False
    paired: bool = False
    norms_above_one: bool = False
    factors: tuple[str, ...] = ()
    may_lack: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()


def family_of(metadata: Mapping[str, Any], name: str) -> Family:
    """A file's family. Raises `ModelFileError` where it has none.

    Args:
        name: of the file.
    """
    architecture = str(metadata.get("general.architecture"))
    if architecture == "llama" and metadata.get("llama.expert_count"):
        return FAMILIES["mixtral"]
    if architecture not in FAMILIES or FAMILIES[architecture].architecture:
        raise ModelFileError(
            _(
                "{name} is of architecture {architecture!r}; GGUF files of {names} can be read",
                name=name,
                architecture=metadata.get("general.architecture"),
                names=", ".join(FAMILIES),
            )
        )
    return FAMILIES[architecture]


def _gemma_scale(config: Config, largest: int) -> Config:
    """Queries are scaled by the size of a head, in the largest model by that of a share of the hidden state."""
    share = config["hidden_size"] // config["num_attention_heads"]
    return {"query_pre_attn_scalar": share if config["num_hidden_layers"] == largest else config["head_dim"]}


def _kinds(config: Config, period: int) -> list[str]:
    """Each layer's attention; every so many layers one sees all."""
    pattern = config.pop("sliding_window_pattern", period)
    window = config.get("sliding_window", 0)
    if not isinstance(pattern, list):
        pattern = [bool((index + 1) % pattern) if pattern else False for index in range(config["num_hidden_layers"])]
    return ["sliding_attention" if window and slides else "full_attention" for slides in pattern]


def _gemma3(config: Config, _tensors: Tensors) -> Config:
    near = config.pop("near_theta", 10_000.0)
    return _gemma_scale(config, 62) | {
        "layer_types": _kinds(config, 6),
        "rope_parameters": {
            "full_attention": config["rope_parameters"],
            "sliding_attention": {"rope_type": "default", "rope_theta": near},
        },
    }


def _phi3(config: Config, tensors: Tensors) -> Config:
    """llama.cpp does not follow its windows: a text within one is computed as it is meant."""
    window = config.pop("sliding_window", 0) or 0
    config["sliding_window"] = window if 0 < window < config["max_position_embeddings"] else None
    factors = [tensors.get(f"rope_factors_{length}.weight") for length in ("long", "short")]
    found = [blocks.dequantize().tolist() for blocks in factors if blocks is not None]
    scale = config.pop("longrope_scale", None)
    if len(found) < len(factors):
        return {}
    original = config.get("original_max_position_embeddings", config["max_position_embeddings"])
    return {
        "rope_parameters": config["rope_parameters"]
        | {"rope_type": "longrope", "long_factor": found[0], "short_factor": found[1], "attention_factor": scale}
        | {"original_max_position_embeddings": original}
    }


def _biased(_config: Config, tensors: Tensors) -> Config:
    return {"attention_bias": "blk.0.attn_q.bias" in tensors, "mlp_bias": "blk.0.ffn_down.bias" in tensors}


def _stablelm(_config: Config, tensors: Tensors) -> Config:
    return {
        "use_parallel_residual": "blk.0.ffn_norm.weight" not in tensors,
        "qk_layernorm": "blk.0.attn_q_norm.weight" in tensors,
        "use_qkv_bias": "blk.0.attn_q.bias" in tensors,
    }


def _falcon(config: Config, tensors: Tensors) -> Config:
    groups = config.pop("num_key_value_heads")
    del config["head_dim"]
    return {
        "num_kv_heads": groups,
        "multi_query": groups == 1,
        "new_decoder_architecture": groups > 1,
        "num_ln_in_parallel_attn": 2 if "blk.0.attn_norm_2.weight" in tensors else 1,
    }


def _lfm2(config: Config, _tensors: Tensors) -> Config:
    """Layers without keys are convolutions."""
    counts = config["num_key_value_heads"]
    counts = counts if isinstance(counts, list) else [counts] * config["num_hidden_layers"]
    return {
        "layer_types": ["full_attention" if count else "conv" for count in counts],
        "num_key_value_heads": max(counts),
        "norm_eps": config.pop("rms_norm_eps"),
    }


def _by_expert(config: Config, tensors: Tensors) -> Config:
    """Sizes that older files do not say."""
    experts, shared = tensors.get("blk.0.ffn_gate_exps.weight"), tensors.get("blk.0.ffn_gate_shexp.weight")
    found = {}
    if experts is not None:
        found["moe_intermediate_size"] = config.get("moe_intermediate_size") or experts.shape[1]
    if shared is not None:
        found["shared_expert_intermediate_size"] = config.get("shared_expert_intermediate_size") or shared.shape[0]
    return found | {"qkv_bias": "blk.0.attn_q.bias" in tensors}


def _head_by_head(key: str, value: Tensor, config: Config) -> Tensor:
    """Each head's query, key and value side by side, from all queries, all keys, all values."""
    if "attn_qkv" not in key:
        return value
    return value.unflatten(0, (3, config["num_attention_heads"], -1)).transpose(0, 1).flatten(0, 2)


def _group_by_group(key: str, value: Tensor, config: Config) -> Tensor:
    """Each group's queries, then its key and value, from all queries, all keys, all values."""
    if "attn_qkv" not in key:
        return value
    heads, groups = config["num_attention_heads"], config["num_kv_heads"]
    size = config["hidden_size"] // heads
    parts = value.split([heads * size, groups * size, groups * size])
    return torch.cat([part.unflatten(0, (groups, -1, size)) for part in parts], dim=1).flatten(0, 2)


FAMILIES: dict[str, Family] = {
    "llama": Family(
        "llama",
        scalings=("linear", "yarn"),
        changes=_biased,
        paired=True,
        factors=("rope_freqs.weight",),
        may_lack=("o_proj.bias",),
    ),
    "qwen2": Family("qwen2", scalings=("linear", "yarn")),
    "qwen3": Family("qwen3", scalings=("linear", "yarn"), changes=_biased),
    "gemma": Family("gemma", norms_above_one=True),
    "gemma2": Family(
        "gemma2",
        _SLIDING | _CAPPED,
        fixed={"attention.sliding_window_pattern": (2,)},
        changes=lambda config, tensors: _gemma_scale(config, 46),
        norms_above_one=True,
    ),
    "gemma3": Family(
        "gemma3_text",
        _SLIDING
        | _PATTERN
        | {"final_logit_softcapping": "final_logit_softcapping", "rope.freq_base_swa": "near_theta"},
        lists=_PATTERN,
        scalings=("linear",),
        changes=_gemma3,
        norms_above_one=True,
    ),
    "granite": Family(
        "granite",
        {
            "attention.scale": "attention_multiplier",
            "embedding_scale": "embedding_multiplier",
            "residual_scale": "residual_multiplier",
            "logit_scale": "logits_scaling",
        },
        paired=True,
    ),
    "phi2": Family("phi", _LAYER_NORM, partial=True),
    "phi3": Family(
        "phi3",
        {
            "rope.scaling.original_context_length": "original_max_position_embeddings",
            "rope.scaling.attn_factor": "longrope_scale",
        }
        | _SLIDING,
        scalings=("longrope",),
        partial=True,
        changes=_phi3,
        factors=("rope_factors_long.weight", "rope_factors_short.weight"),
    ),
    "gpt2": Family(
        "gpt2",
        {"attention.layer_norm_epsilon": "layer_norm_epsilon", "feed_forward_length": "n_inner"},
        changes=lambda config, tensors: {"n_positions": config.pop("max_position_embeddings")},
        rotary=False,
        transposed=("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight"),
    ),
    "gptneox": Family(
        "gpt_neox",
        _LAYER_NORM | {"use_parallel_residual": "use_parallel_residual"},
        partial=True,
        arranged=_head_by_head,
    ),
    "falcon": Family(
        "falcon",
        {"attention.layer_norm_epsilon": "layer_norm_epsilon", "feed_forward_length": "ffn_hidden_size"},
        constants={"alibi": False, "bias": False, "parallel_attn": True},
        changes=_falcon,
        arranged=_group_by_group,
    ),
    "stablelm": Family(
        "stablelm",
        _LAYER_NORM,
        fixed={"use_parallel_residual": (True, False)},  # the tensors say it
        partial=True,
        changes=_stablelm,
    ),
    "smollm3": Family(
        "smollm3",
        changes=lambda config, tensors: {
            "no_rope_layers": [int((index + 1) % 4 != 0) for index in range(config["num_hidden_layers"])]
        },
        paired=True,
    ),
    "olmo": Family(
        "olmo",
        {"attention.clamp_kqv": "clip_qkv"},
        fixed={"attention.layer_norm_epsilon": (1e-5,)},
        changes=lambda config, tensors: {"clip_qkv": config.get("clip_qkv") or None},
        paired=True,
    ),
    "olmo2": Family("olmo2"),
    "olmoe": Family("olmoe", _EXPERTS, constants={"norm_topk_prob": False}),
    "starcoder2": Family(
        "starcoder2",
        {"attention.layer_norm_epsilon": "norm_epsilon"},
        constants={"use_bias": True, "sliding_window": None},
    ),
    "command-r": Family(
        "cohere",
        _LAYER_NORM | {"logit_scale": "logit_scale"},
        changes=lambda config, tensors: {"use_qk_norm": "blk.0.attn_q_norm.weight" in tensors},
    ),
    "cohere2": Family(
        "cohere2",
        _LAYER_NORM | _SLIDING | _PATTERN | {"logit_scale": "logit_scale"},
        lists=_PATTERN,
        changes=lambda config, tensors: {"layer_types": _kinds(config, 4)},
    ),
    "mixtral": Family(
        "mixtral",
        {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"},
        architecture="llama",
        scalings=("linear", "yarn"),
        paired=True,
    ),
    "qwen2moe": Family(
        "qwen2_moe",
        _EXPERTS | _EXPERT_SIZE | _SHARED_SIZE,
        constants={"norm_topk_prob": False},
        scalings=("linear", "yarn"),
        changes=_by_expert,
    ),
    "qwen3moe": Family(
        "qwen3_moe",
        _EXPERTS | _EXPERT_SIZE,
        constants={"norm_topk_prob": True},
        scalings=("linear", "yarn"),
        changes=_by_expert,
    ),
    "lfm2": Family(
        "lfm2",
        {"shortconv.l_cache": "conv_L_cache"},
        constants={"block_auto_adjust_ff_dim": False, "conv_bias": False},
        lists=("attention.head_count_kv",),
        changes=_lfm2,
    ),
}
