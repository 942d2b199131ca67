"""Folders of transformers models as GGUF files, by the rules of llama.cpp's own conversion script."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import torch

from tests.conftest import byte_level_tokenizer

VOCABULARY = 320


def write_family(
    model: Any, path: Path, architecture: str, settings: Mapping[str, Any], *, joined: bool = False
) -> Path:
    """A module's weights and `settings` in a file, with queries, keys and values `joined` as older scripts do."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in settings.items():
        writer.add_key_value(f"{architecture}.{key}", value, *_type(value))
    known = byte_level_tokenizer().get_vocab()
    texts = sorted(known, key=lambda text: known[text])[: config.vocab_size]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts + [f"<{index}>" for index in range(config.vocab_size - len(texts))])
    writer.add_token_merges(["a b"])
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    table = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in _separate(model.state_dict(), joined):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _dot, kind = name.rpartition(".")
        theirs = table.get_name(stem)
        assert theirs is not None, name
        writer.add_tensor(f"{theirs}.{kind}", _converted(tensor.float(), f"{theirs}.{kind}", config).numpy())
    rope = getattr(config, "rope_parameters", None) or {}
    for length in ("long", "short"):
        if factors := rope.get(f"{length}_factor"):
            writer.add_tensor(f"rope_factors_{length}.weight", torch.tensor(factors).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _type(value: Any) -> list[gguf.GGUFValueType]:
    if isinstance(value, list):
        return [gguf.GGUFValueType.ARRAY, *_type(value[0])]
    whole = isinstance(value, int) and not isinstance(value, bool)
    return [gguf.GGUFValueType.UINT32 if whole else gguf.GGUFValueType.get_type(value)]


def _separate(weights: Mapping[str, torch.Tensor], joined: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """Experts' gates and ups apart, norms of single heads together."""
    for name, tensor in weights.items():
        start, found, number = name.partition(".norms.")
        if name.endswith(".gate_up_proj"):
            for part, half in zip(("gate_proj", "up_proj"), tensor.chunk(2, dim=1), strict=True):
                yield name.replace("gate_up_proj", part) + ".weight", half.contiguous()
        elif ".experts." in name:
            yield f"{name}.weight", tensor
        elif found and number == "0.weight":
            norms = [value for other, value in weights.items() if other.startswith(f"{start}.norms.")]
            yield f"{start}.weight", torch.stack(norms)
        elif joined and ".q_proj." in name:
            parts = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            yield name.replace("q_proj", "qkv_proj"), torch.cat(parts)
        elif not found and not (joined and (".k_proj." in name or ".v_proj." in name)):
            yield name, tensor


def _converted(tensor: torch.Tensor, name: str, config: Any) -> torch.Tensor:
    kind = config.model_type
    if kind.startswith("gemma") and name.endswith("norm.weight"):
        return tensor + 1
    if kind == "gpt2" and name.endswith(("qkv.weight", "attn_output.weight", "up.weight", "down.weight")):
        return tensor.T.contiguous()
    if kind in ("llama", "granite", "smollm3", "mixtral", "olmo") and ("attn_q." in name or "attn_k." in name):
        heads = config.num_attention_heads if "attn_q" in name else config.num_key_value_heads
        return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
    if kind == "gpt_neox" and "qkv" in name:
        heads = config.num_attention_heads
        qkv = tensor.reshape(heads, 3, config.hidden_size // heads, *tensor.shape[1:])
        return torch.cat([qkv[:, part].reshape(-1, *tensor.shape[1:]) for part in range(3)])
    if kind == "falcon" and "qkv" in name:
        heads, groups = config.num_attention_heads, 1 if config.multi_query else config.num_kv_heads
        size = config.hidden_size // heads
        qkv = tensor.view(groups, heads // groups + 2, size, config.hidden_size)
        parts = (qkv[:, :-2], qkv[:, [-2]], qkv[:, [-1]])
        return torch.cat([part.reshape(-1, config.hidden_size) for part in parts])
    if "shortconv.conv" in name:
        return tensor.squeeze(1)
    return tensor


def family_settings(config: Any) -> dict[str, Any]:
    """All that llama.cpp's script writes for a configuration."""
    found = _usual(config)
    rope = getattr(config, "rope_parameters", None) or {}
    kind, head = config.model_type, config.hidden_size // config.num_attention_heads
    if kind in ("phi", "stablelm", "gpt_neox"):
        found["rope.dimension_count"] = int(rope["partial_rotary_factor"] * head)
        del found["rope.freq_base"]
    if kind in ("gpt_neox", "stablelm"):
        found["use_parallel_residual"] = bool(config.use_parallel_residual)
    match kind:
        case "gemma" | "gemma2":
            del found["rope.freq_base"]
        case "gemma3_text":
            found |= {"attention.sliding_window": config.sliding_window}
            found |= {"rope.freq_base_swa": rope["sliding_attention"]["rope_theta"]}
        case "phi3":
            found |= {"attention.sliding_window": config.sliding_window or 0}
            found |= {"rope.scaling.original_context_length": config.original_max_position_embeddings}
            found |= {"rope.dimension_count": int(rope.get("partial_rotary_factor", 1.0) * head)}
            if "long_factor" in rope:
                original = config.original_max_position_embeddings
                scale = config.max_position_embeddings / original
                found["rope.scaling.attn_factor"] = math.sqrt(1 + math.log(scale) / math.log(original))
        case "granite":
            found |= {
                "attention.scale": config.attention_multiplier,
                "embedding_scale": config.embedding_multiplier,
                "residual_scale": config.residual_multiplier,
                "logit_scale": config.logits_scaling,
            }
        case "falcon":
            found |= {"tensor_data_layout": "jploski", "feed_forward_length": 4 * config.hidden_size}
            found |= {"attention.head_count_kv": 1 if config.multi_query else config.num_kv_heads}
            del found["rope.freq_base"]
        case "cohere" | "cohere2":
            found |= {"logit_scale": config.logit_scale, "rope.scaling.type": "none"}
            if kind == "cohere2":
                found |= {"attention.sliding_window": config.sliding_window, "rope.dimension_count": head}
        case "olmo":
            found |= {"attention.layer_norm_epsilon": 1e-5}
            found |= {"attention.clamp_kqv": config.clip_qkv} if config.clip_qkv else {}
        case "mixtral":
            found |= {"vocab_size": config.vocab_size, "rope.dimension_count": head}
        case "lfm2":
            kinds = config.layer_types
            found["attention.head_count_kv"] = [0 if kind == "conv" else config.num_key_value_heads for kind in kinds]
            found |= {"vocab_size": config.vocab_size, "shortconv.l_cache": config.conv_L_cache}
    if kind == "gemma2":
        found |= {
            "attention.sliding_window": config.sliding_window,
            "attn_logit_softcapping": config.attn_logit_softcapping,
            "final_logit_softcapping": config.final_logit_softcapping,
        }
    return found


def _usual(config: Any) -> dict[str, Any]:
    """Settings of nearly all architectures (`TextModel.set_gguf_parameters`)."""
    found: dict[str, Any] = {"context_length": config.max_position_embeddings, "block_count": config.num_hidden_layers}
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention") or rope
    if rope.get("rope_type") in ("linear", "yarn"):
        found |= {"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": rope["factor"]}
    if rope.get("rope_type") == "yarn":
        found |= {"rope.scaling.original_context_length": rope["original_max_position_embeddings"]}
        found |= {f"rope.scaling.yarn_{name}": rope[name] for name in ("beta_fast", "beta_slow") if name in rope}
    if "rope_theta" in rope:
        found |= {"rope.freq_base": float(rope["rope_theta"])}
    if (size := getattr(config, "head_dim", None)) and config.model_type in HEAD_SIZES:
        found |= {"attention.key_length": size, "attention.value_length": size}
    for key, names in NAMES.items():
        values = [value for name in names if (value := getattr(config, name, None)) is not None]
        found |= {key: values[0]} if values else {}
    return found


# Those whose configurations name the size of a head.
HEAD_SIZES = ("llama", "qwen3", "gemma", "gemma2", "gemma3_text", "qwen3_moe", "cohere2", "mixtral")
NAMES = {
    "embedding_length": ["hidden_size"],
    "feed_forward_length": ["intermediate_size", "n_inner"],
    "attention.head_count": ["num_attention_heads"],
    "attention.head_count_kv": ["num_key_value_heads"],
    "attention.layer_norm_rms_epsilon": ["rms_norm_eps", "norm_eps"],
    "attention.layer_norm_epsilon": ["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"],
    "expert_count": ["num_local_experts", "num_experts"],
    "expert_used_count": ["num_experts_per_tok"],
    "expert_feed_forward_length": ["moe_intermediate_size"],
    "expert_shared_feed_forward_length": ["shared_expert_intermediate_size"],
}
