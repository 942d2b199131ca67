"""Tiny random models of the families that looking inside is tried with, made once for all tests."""

from collections.abc import Callable
from pathlib import Path

from engine.models.local import LocalModel

TEXT = "the sky above the city looked calm, but rain asked the robot library"
# Through our own networks where they cover it, else through transformers' module.
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("llama", {}),
    "gpt2": ("gpt2", {}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", {}),
    "gemma3": ("gemma3_text", {}),
    "gpt-neox": ("gpt_neox", {}),
    "gpt-neox in turn": ("gpt_neox", {"use_parallel_residual": False}),
    "olmo2": ("olmo2", {}),
    "mistral": ("mistral", {}),
    "phi3": ("phi3", {"pad_token_id": 0}),
    "granite": ("granite", {"residual_multiplier": 0.22, "logits_scaling": 8.0, "embedding_multiplier": 12.0}),
    "cohere": ("cohere", {}),
    "opt": ("opt", {}),
    "bloom": ("bloom", {}),
    "falcon": ("falcon", {}),
    "gptj": ("gptj", {}),
    "phi": ("phi", {}),
    "qwen2_moe": ("qwen2_moe", {}),
}
Folders = Callable[[str], Path]
Models = Callable[[str], LocalModel]
# As OPT 350m.
NARROW: dict[str, tuple[str, dict[str, object]]] = {
    "narrow opt": ("opt", {"word_embed_proj_dim": 32, "do_layer_norm_before": False})
}
OWN = ("llama", "gpt2", "qwen3", "mistral", "gemma2", "gemma3", "phi3")


def ids_of(model: LocalModel, text: str = TEXT) -> tuple[int, ...]:
    return tuple(model.tokenizer.encode_ids(text))
