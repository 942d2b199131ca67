"""Folders of transformers models as GGUF files, by the rules of llama.cpp's own conversion script."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import torch

from tests.conftest import byte_level_tokenizer

VOCABULARY = 320


def write_family(model: Any, path: Path, architecture: str, settings: Mapping[str, Any]) -> Path:
    """A module's weights and `settings` in a file."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in settings.items():
        kind = gguf.GGUFValueType.UINT32 if isinstance(value, int) else gguf.GGUFValueType.get_type(value)
        writer.add_key_value(f"{architecture}.{key}", value, kind)
    known = byte_level_tokenizer().get_vocab()
    texts = sorted(known, key=lambda text: known[text])[: config.vocab_size]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts + [f"<{index}>" for index in range(config.vocab_size - len(texts))])
    writer.add_token_merges(["a b"])
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    table = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _dot, kind = name.rpartition(".")
        theirs = table.get_name(stem)
        assert theirs is not None, name
        writer.add_tensor(
            f"{theirs}.{kind}", _converted(tensor.float(), f"{theirs}.{kind}", architecture, config).numpy()
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _converted(tensor: torch.Tensor, name: str, architecture: str, config: Any) -> torch.Tensor:
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return tensor + 1
    if architecture == "gpt2" and name.endswith(("qkv.weight", "attn_output.weight", "up.weight", "down.weight")):
        return tensor.T.contiguous()
    if architecture in ("granite", "smollm3") and ("attn_q." in name or "attn_k." in name):
        heads = config.num_attention_heads if "attn_q" in name else config.num_key_value_heads
        return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
    return tensor


def usual(config: Any) -> dict[str, Any]:
    """Settings of nearly all architectures."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    found = {
        "context_length": config.max_position_embeddings,
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "attention.head_count": config.num_attention_heads,
        "feed_forward_length": getattr(config, "intermediate_size", 4 * config.hidden_size),
    }
    if config.model_type == "gpt2":
        return found | {"attention.layer_norm_epsilon": config.layer_norm_epsilon}
    rope = config.rope_parameters
    theta = (rope.get("full_attention") or rope)["rope_theta"]
    found |= {"attention.head_count_kv": config.num_key_value_heads, "rope.freq_base": float(theta)}
    found |= {"rope.dimension_count": head, "attention.key_length": head, "attention.value_length": head}
    if config.model_type == "starcoder2":
        return found | {"attention.layer_norm_epsilon": config.norm_epsilon}
    return found | {"attention.layer_norm_rms_epsilon": config.rms_norm_eps}


def family_settings(config: Any) -> dict[str, Any]:
    """All that llama.cpp's script writes for a configuration."""
    found = usual(config)
    window = getattr(config, "sliding_window", None)
    match config.model_type:
        case "gemma2":
            found |= {
                "attention.sliding_window": window,
                "attn_logit_softcapping": config.attn_logit_softcapping,
                "final_logit_softcapping": config.final_logit_softcapping,
            }
        case "gemma3_text":
            found |= {"attention.sliding_window": window}
        case "phi3":
            found |= {"attention.sliding_window": window or 0}
            found |= {"rope.scaling.original_context_length": config.original_max_position_embeddings}
        case "granite":
            found |= {
                "attention.scale": config.attention_multiplier,
                "embedding_scale": config.embedding_multiplier,
                "residual_scale": config.residual_multiplier,
                "logit_scale": config.logits_scaling,
            }
    return found
