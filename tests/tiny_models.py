"""A random model of every causal architecture that the installed transformers has, in its smallest configuration."""

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VOCABULARY = 320
LAYERS = 4
# Before any weight is drawn, the sizes that were not set are counted: a default of 256 experts fills a machine.
MOST_PARAMETERS = 12_000_000

# Under every name that configurations have for them; where one architecture wants another size, `CHANGES` has it.
SIZES: dict[str, Any] = {
    **dict.fromkeys(["vocab_size", "vocab_size_per_layer_input", "n_vocab", "decoder_vocab_size"], VOCABULARY),
    **dict.fromkeys(
        ["hidden_size", "d_model", "n_embd", "embedding_size", "word_embed_proj_dim", "emb_dim", "embedding_dim"], 64
    ),
    **dict.fromkeys(["input_embedding_size", "output_embedding_size", "attention_hidden_size", "lru_width"], 64),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks", "decoder_layers"], LAYERS),
    **dict.fromkeys(["encoder_layers", "num_encoder_layers", "num_decoder_layers", "depth"], 2),
    **dict.fromkeys(
        ["num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "attention_heads"], 4
    ),
    **dict.fromkeys(["encoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads"], 4),
    **dict.fromkeys(["num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads", "num_query_groups"], 2),
    **dict.fromkeys(["swa_num_attention_heads", "linear_num_heads", "linear_num_value_heads"], 4),
    "linear_num_key_heads": 2,
    **dict.fromkeys(
        ["head_dim", "swa_head_dim", "d_head", "kv_channels", "attention_head_size", "attention_head_dim"], 16
    ),
    **dict.fromkeys(["linear_head_dim", "linear_key_head_dim", "linear_value_head_dim", "v_head_dim"], 16),
    **dict.fromkeys(["qk_rope_head_dim", "rotary_dim", "index_head_dim", "d_rel", "gated_norm_rank"], 8),
    **dict.fromkeys(["qk_nope_head_dim", "global_head_dim"], 16),
    "qk_head_dim": 24,
    **dict.fromkeys(["q_lora_rank", "kv_lora_rank", "o_lora_rank", "adapter_rank", "laurel_rank", "hc_lowrank"], 16),
    **dict.fromkeys(
        ["intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "n_inner", "ffn_hidden_size"], 96
    ),
    **dict.fromkeys(["dense_intermediate_size", "intermediate_size_mlp", "shared_intermediate_size", "dff"], 96),
    **dict.fromkeys(["feed_forward_size", "d_inner", "dim_ff", "block_multiple_of", "router_hidden_size"], 96),
    **dict.fromkeys(
        ["moe_intermediate_size", "shared_expert_intermediate_size", "shared_experts_intermediate_size"], 32
    ),
    **dict.fromkeys(["moe_shared_expert_intermediate_size", "expert_ffn_hidden_size"], 32),
    **dict.fromkeys(["num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "zero_expert_num"], 4),
    **dict.fromkeys(["num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"], 2),
    **dict.fromkeys(["n_shared_experts", "num_shared_experts", "moe_num_shared_experts"], 1),
    **dict.fromkeys(["n_group", "topk_group", "num_expert_group", "first_k_dense_replace", "num_dense_layers"], 1),
    **dict.fromkeys(["hc_mult", "hc_count", "o_groups"], 2),
    # Of few heads that choose among earlier tokens, all are often below zero: then rounding chooses.
    **dict.fromkeys(["index_n_heads", "indexer_n_heads"], 16),
    "index_topk": 24,
    **dict.fromkeys(["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "model_max_length"], 2048),
    **dict.fromkeys(["context_length", "max_target_positions", "max_source_positions"], 2048),
    **dict.fromkeys(["sliding_window", "sliding_window_size", "attention_window_size", "attention_chunk_size"], 24),
    **dict.fromkeys(["window_size", "local_attention", "local_attention_window_len"], 24),
    **dict.fromkeys(["state_size", "mamba_d_state", "ssm_state_size"], 8),
    **dict.fromkeys(["mamba_n_heads", "n_mamba_heads", "mamba_num_heads"], 8),
    **dict.fromkeys(["mamba_d_head", "mamba_head_dim", "mamba_headdim"], 16),
    **dict.fromkeys(["mamba_n_groups", "n_groups", "mamba_ngroups"], 2),
    **dict.fromkeys(["mamba_chunk_size", "chunk_size"], 16),
    **dict.fromkeys(["mamba_dt_rank", "time_step_rank"], 8),
    "mamba_d_ssm": 128,
    **dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"], 0),
    **dict.fromkeys(["sep_token_id", "cls_token_id", "eod_token_id"], 0),
    "initializer_range": 0.2,
    "init_std": 0.2,
    "hidden_size_per_layer_input": 8,
    "ngram_vocab_size_base": 400,
    "ple_embed_dim": 16,
    "num_nextn_predict_layers": 0,
    "num_kv_shared_layers": 1,
    # Of the parts that see and hear, which are saved and never run.
    **dict.fromkeys(["out_hidden_size", "embed_dim", "vision_output_dim", "projector_input_dim", "adapter_in_dim"], 64),
    **dict.fromkeys(["projector_output_dim", "adapter_out_dim", "projection_dim", "adapter_input_size"], 64),
}
NORM = re.compile(r"(norm|ln)[^.]*\.weight$")
PERIODS = ("attn_layer_period", "global_attn_every_n_layers", "expert_layer_period", "layer_group_size")

ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
MROPE = ROPE | {"mrope_section": [2, 3, 3]}
QUANTIZED = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "num_embeddings": 32}

CHANGES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "bert-generation": {"is_decoder": True},
    "blt": {
        "encoder_hash_byte_group_vocab": 40,
        "encoder_config": {"hidden_size_global": 64},
        "decoder_config": {"hidden_size_global": 64},
    },
    "chameleon": {"vocabulary_map": {"<image>": 300, "IMGIMGA": 301}, "vq_config": QUANTIZED},
    "cohere_compass_text": {"layer_types": ["full_attention"] * LAYERS, "rope_parameters": {"full_attention": ROPE}},
    "dbrx": {"attn_config": {"rope_theta": 10_000.0, "kv_n_heads": 2, "clip_qkv": 8}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": {
        "qk_rope_head_dim": 8,
        "head_dim": 24,
        "swa_head_dim": 24,
        "swa_qk_nope_head_dim": 16,
        **dict.fromkeys(["swa_num_attention_heads", "swa_num_key_value_heads"], 4),
        **dict.fromkeys(["swa_q_lora_rank", "swa_kv_lora_rank", "swa_v_head_dim"], 16),
    },
    "emu3": {"vocabulary_map": {"<image>": 300, "<|visual token 000000|>": 301}, "vq_config": QUANTIZED},
    "glm4v_moe_text": {"rope_parameters": ROPE | {"mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "jamba": {"attn_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"head_dim": 8},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 16},
    "nemotron": {"head_dim": 16, "num_key_value_heads": 2},
    **{f"{kind}_text": {"rope_parameters": MROPE} for kind in ("glm4v", "glm46v", "glm_ocr", "paddleocr_vl")},
    **{f"{kind}_text": {"rope_parameters": MROPE} for kind in ("qwen2_vl", "qwen2_5_vl", "cosmos3_edge")},
    "qwen2_5_omni_text": {"rope_parameters": MROPE},
    "qwen3_vl_text": {"rope_parameters": MROPE | {"mrope_section": [4, 2, 2]}},
    "qwen3_vl_moe_text": {"rope_parameters": MROPE | {"mrope_section": [4, 2, 2]}},
    "qwen4_exp_text": {"indexer_n_heads": 16, "indexer_kv_heads": 1, "indexer_head_dim": 16}
    | {"indexer_budget": 24, "indexer_compress_ratio": 4},
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [16, 48], "axial_pos_shape": [32, 64]}
    | {"attn_layers": ["local"] * LAYERS},
    "roc_bert": {"shape_vocab_size": 50, "pronunciation_vocab_size": 50},
    "step3p5": {"sliding_window": 24},
    "zamba": {"attention_hidden_size": 128, "attention_head_dim": 32, "n_mamba_heads": 2, "num_key_value_heads": 4}
    | {"layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {
        "attention_hidden_size": "default",
        "num_key_value_heads": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zaya": {"num_experts_per_tok": 1},
}


# Refused by their configuration alone: what writes sound, and what guesses tokens for another model.
SOUND = ("musicgen", "musicgen_melody")
NOTHING_BY_LAYER = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
HELPERS = {
    "gemma4_assistant": {"text_config": NOTHING_BY_LAYER | {"num_hidden_layers": 2, "num_kv_shared_layers": 2}},
    "gemma4_unified_assistant": {},
}


def causal_architectures() -> dict[str, str]:
    """Model type -> name of the class that transformers runs it with as a causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def more_than_text() -> dict[str, str]:
    """Model type -> name of the class that takes pictures or sound beside text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

    return dict(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)


def tiny_config(kind: str, **changes: Any) -> Any:
    """The smallest configuration of an architecture; raises what transformers raises where it finds none."""
    import transformers

    return _shrunk(transformers.CONFIG_MAPPING[kind], CHANGES.get(kind, {}) | changes)


def _shrunk(config_class: Any, changes: Mapping[str, Any]) -> Any:
    accepted = inspect.signature(config_class.__init__).parameters
    default = config_class()
    given: dict[str, Any] = {}
    for name, value in SIZES.items():
        if name in config_class.attribute_map or isinstance(getattr(config_class, name, None), property):
            continue
        if _has(default, name):
            given[name] = value
    if "kv_lora_rank" in given:  # latent attention: every head has keys, which turn in `qk_rope_head_dim` dimensions
        given |= {"num_key_value_heads": given["num_attention_heads"], "head_dim": "default"}
    for name in PERIODS:
        if isinstance(getattr(default, name, None), int):
            given[name] = 2
    for name in ("layer_types", "layers_block_type", "mlp_layer_types", "indexer_types"):
        if (kinds := list(dict.fromkeys(getattr(default, name, None) or []))) and name in accepted:
            given[name] = (kinds * LAYERS)[:LAYERS]
    for name in config_class.sub_configs or {}:
        part = getattr(default, name, None)
        if part is not None and not isinstance(part, dict):
            own = CHANGES.get(type(part).model_type, {}) | changes.get(name, {})
            given[name] = _shrunk(type(part), own).to_dict()
    given |= {name: value for name, value in changes.items() if name not in (config_class.sub_configs or {})}
    return config_class(**{name: value for name, value in given.items() if value != "default"})


def _has(config: Any, name: str) -> bool:
    """Whether a configuration sets a size; those of a layer's own are asked of the layer."""
    try:
        return getattr(config, name, None) is not None
    except Exception:
        return True


def tiny_model(kind: str, **changes: Any) -> Any:
    """A random model of an architecture, small enough for any machine.

    Raises:
        MemoryError: a size that is not set makes it too large.
    """
    import torch
    import transformers

    config = tiny_config(kind, **changes)
    model_class = getattr(transformers, (causal_architectures() | more_than_text())[kind])
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in model_class(config).parameters())
    if parameters > MOST_PARAMETERS:
        raise MemoryError(f"{kind} would have {parameters:,} weights")
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1 and (name.endswith(".bias") or NORM.search(name)):
                weight.add_(torch.randn_like(weight), alpha=0.2)  # gains of 1 and biases of 0 would hide errors
    return model


def save_model(folder: Path, kind: str, **changes: Any) -> Path:
    """Write a random model of an architecture, with a tokenizer, as `save_pretrained` does."""
    import torch
    from safetensors.torch import save_file

    from tests.conftest import byte_level_tokenizer

    folder.mkdir(exist_ok=True)
    if kind in SOUND or kind in HELPERS:  # known by their configuration; the rest is not looked at
        save_file({"x": torch.zeros(2)}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": kind} | HELPERS.get(kind, {})))
    else:
        try:
            tiny_model(kind, **changes).save_pretrained(folder, safe_serialization=True)
        except ImportError:  # of what its other parts need: they are left out
            _save_text_part(folder, tiny_config(kind, **changes))
    byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _save_text_part(folder: Path, config: Any) -> None:
    """Write a model's configuration, and of its weights the text part's."""
    from safetensors.torch import save_file

    part = tiny_model(config.text_config.model_type)
    config.text_config = part.config
    config.save_pretrained(folder)
    weights = part.state_dict()
    if part.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    names = {name: name.replace("model.", "model.language_model.", 1) for name in weights}
    save_file({names[name]: weight.clone() for name, weight in weights.items()}, folder / "model.safetensors")
