"""GGUF files of architectures that no network of ours computes, for transformers' module.

What llama.cpp reads of a file is said here by architecture: which settings become which of a configuration's, and in
what its tensors differ from the module's. Tensors' names come from gguf's own table. A setting or tensor that is not
read is an error that names it. Each architecture has been compared with llama.cpp (`tests/engine/test_gguf_llama_cpp`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gguf
from torch import Tensor

from engine.base.errors import ModelFileError
from engine.base.language import _
from engine.networks.blocks import Blocks, dequantize
from engine.networks.complete import check_names

Config = dict[str, Any]

# Settings -> a configuration's names, of nearly all architectures.
_COMMON = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
_SLIDING = {"attention.sliding_window": "sliding_window"}
_CAPPED = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
# What says nothing that the tensors or the other settings do not say.
_IDLE = {"vocab_size", "rope.scaling.finetuned", "attention.causal"}


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        model_type: transformers' name.
        settings: its own, beside the usual ones.
        constants: of the configuration, which llama.cpp takes as given.
        changes: what else its settings say, given the configuration so far.
        paired: queries and keys lie in llama.cpp's rotary order.
        norms_above_one: norms' weights are stored with one added.
        transposed: tensors that lie the other way round.
    """

    model_type: str
    settings: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    changes: Callable[[Config], Config] = lambda config: {}
    paired: bool = False
    norms_above_one: bool = False
    transposed: tuple[str, ...] = ()


def _gemma_scale(config: Config, largest: int) -> Config:
    """Queries are scaled by the size of a head, in the largest model by that of a share of the hidden state."""
    share = config["hidden_size"] // config["num_attention_heads"]
    return {"query_pre_attn_scalar": share if config["num_hidden_layers"] == largest else config["head_dim"]}


def _gemma3(config: Config) -> Config:
    window = config.get("sliding_window", 0)
    layers = config["num_hidden_layers"]
    kinds = ["sliding_attention" if window and (index + 1) % 6 else "full_attention" for index in range(layers)]
    rope = {
        "full_attention": {"rope_type": "default", "rope_theta": config.pop("rope_theta", 10_000.0)},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    }
    if (factor := config.pop("rope_factor", None)) not in (None, 1):
        rope["full_attention"] |= {"rope_type": "linear", "factor": factor}
    return _gemma_scale(config, 62) | {
        "layer_types": kinds,
        "rope_parameters": rope,
    }


FAMILIES: dict[str, Family] = {
    "gemma2": Family(
        "gemma2", _SLIDING | _CAPPED, changes=lambda config: _gemma_scale(config, 46), norms_above_one=True
    ),
    "gemma3": Family(
        "gemma3_text",
        _SLIDING | {"final_logit_softcapping": "final_logit_softcapping", "rope.scaling.factor": "rope_factor"},
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
    "phi3": Family("phi3", {"rope.scaling.original_context_length": "original_max_position_embeddings"} | _SLIDING),
    "gpt2": Family(
        "gpt2",
        {"attention.layer_norm_epsilon": "layer_norm_epsilon", "feed_forward_length": "n_inner"},
        changes=lambda config: {"n_positions": config.pop("max_position_embeddings")},
        transposed=("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight"),
    ),
    "smollm3": Family(
        "smollm3",
        changes=lambda config: {
            "no_rope_layers": [int((index + 1) % 4 != 0) for index in range(config["num_hidden_layers"])]
        },
        paired=True,
    ),
    "olmo2": Family("olmo2"),
    "starcoder2": Family(
        "starcoder2",
        {"attention.layer_norm_epsilon": "norm_epsilon"},
        constants={"use_bias": True, "sliding_window": None},
    ),
}


def family_config(metadata: Mapping[str, Any], tensors: Mapping[str, Blocks], name: str) -> Config:
    """A configuration under transformers' names.

    Args:
        name: of the file.

    Raises:
        ModelFileError: a setting cannot be followed, or is missing.
    """
    architecture = str(metadata["general.architecture"])
    family = FAMILIES[architecture]
    settings = {key.partition(".")[2]: key for key in metadata if key.startswith(f"{architecture}.")}
    names = {**_COMMON, **family.settings}
    config: Config = {"model_type": family.model_type, **family.constants}

    def refuse(key: str) -> ModelFileError:
        return ModelFileError(
            _(
                "{name} sets {key} to {value}, which cannot be followed; choose another file",
                name=name,
                key=f"{architecture}.{key}",
                value=metadata.get(f"{architecture}.{key}"),
            )
        )

    for key, value in ((key, metadata[whole]) for key, whole in settings.items()):
        if key in names:
            config[names[key]] = value
    for key in ("block_count", "embedding_length", "attention.head_count", "context_length"):
        if key not in settings:
            raise ModelFileError(
                _(
                    "{name} lacks {architecture}.{key}; it is no complete model file",
                    name=name,
                    architecture=architecture,
                    key=key,
                )
            )
    lists = [key for key in settings if isinstance(metadata[settings[key]], list)]
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelFileError(_("{name} holds no embeddings; it is no complete model file", name=name))
    head = config["hidden_size"] // config["num_attention_heads"]
    size = config.get("head_dim", head)
    if "head_dim" not in config:
        config["head_dim"] = head
    config |= family.changes(config)
    config |= {
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": None,
    }
    if (theta := config.pop("rope_theta", None)) is not None:
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    fixed = {
        "rope.dimension_count": (size,),
        "attention.value_length": (size,),
        "rope.scaling.type": ("none", *(["linear"] if "rope.scaling.factor" in names else [])),
        "rope.scaling.attn_factor": (1,),
        "expert_count": (0,),
        "expert_used_count": (0,),
        "attention.max_alibi_bias": (0,),
        "attention.clamp_kqv": (0,),
    }
    for key, whole in settings.items():
        known = key in names or key in _IDLE or metadata[whole] in fixed.get(key, ())
        if not known or key in lists:
            raise refuse(key)
    if family.model_type == "phi3":
        _phi3(config, refuse)
    return config


def _phi3(config: Config, refuse: Callable[[str], ModelFileError]) -> None:
    """llama.cpp does not follow its windows: a text within one is computed as it is meant."""
    window = config.pop("sliding_window", 0) or 0
    if 0 < window < config["max_position_embeddings"]:
        config["sliding_window"] = window
    else:
        config["sliding_window"] = None
    if (
        config.get("original_max_position_embeddings", config["max_position_embeddings"])
        != config["max_position_embeddings"]
    ):
        raise refuse("rope.scaling.original_context_length")


def family_state(
    names: Mapping[str, tuple[int, ...]], architecture: str, config: Config, tensors: Mapping[str, Blocks], dtype: Any
) -> dict[str, Tensor]:
    """A module's weights, by its names.

    Args:
        names: of the module's weights, with their shapes.

    Raises:
        ModelFileError: one is missing in the file, of another shape, or left over.
    """
    family = FAMILIES[architecture]
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    layers = config["num_hidden_layers"]
    table = gguf.get_tensor_name_map(arch, layers)
    state: dict[str, Tensor] = {}
    taken: set[str] = set()
    missing = []
    for name, shape in names.items():
        stem, _dot, kind = name.rpartition(".")
        theirs = table.get_name(stem) or table.get_name(f"model.{stem}")
        key = f"{theirs}.{kind}"
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        if theirs is None or key not in tensors:
            missing.append(name)
            continue
        taken.add(key)
        value = dequantize(_ordered(tensors[key], key, family, config))
        if family.norms_above_one and key.endswith("norm.weight"):
            value = value - 1
        if key.endswith(family.transposed) and family.transposed:
            value = value.T.contiguous()
        if tuple(value.shape) != shape:
            raise ModelFileError(
                _(
                    "{name} has the shape {here} and the configuration wants {wanted}",
                    name=key,
                    here=str(tuple(value.shape)),
                    wanted=str(shape),
                )
            )
        state[name] = value.to(dtype)
    check_names(missing, [key for key in tensors if key not in taken])
    if config["tie_word_embeddings"] and "lm_head.weight" in names:
        embedding = next(name for name in state if table.get_name(name.rpartition(".")[0]) == "token_embd")
        state["lm_head.weight"] = state[embedding]
    return state


def _ordered(blocks: Blocks, key: str, family: Family, config: Config) -> Blocks:
    if not family.paired or not key.endswith(("attn_q.weight", "attn_k.weight")):
        return blocks
    heads = config["num_attention_heads" if "attn_q" in key else "num_key_value_heads"]
    return Blocks(blocks.type, blocks.shape, blocks.stored, paired_heads=heads)
