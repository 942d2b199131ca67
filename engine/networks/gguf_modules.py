"""Configuration, and weights for transformers' module, from a GGUF file of one of `FAMILIES`.

Tensors' names come from gguf's own table. A setting or tensor that is not read is an error that names it.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import gguf
import torch
from torch import Tensor

from engine.base.errors import ModelFileError
from engine.base.language import _
from engine.networks.blocks import Blocks, dequantize
from engine.networks.complete import check_names
from engine.networks.gguf_families import COMMON, Config, Family, Tensors

# What says nothing that the tensors or the other settings do not say.
_IDLE = {
    "vocab_size",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "tensor_data_layout",
    "pooling_type",
}
# What a module does not have, with the values at which that makes no difference.
_FIXED: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.scale": (0,),
    "attention.sliding_window": (0,),
    "expert_count": (0,),
    "expert_gating_func": (1,),  # softmax
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "expert_shared_count": (0,),
    "expert_used_count": (0,),
    "expert_weights_scale": (0, 1),
    "leading_dense_block_count": (0,),
    "logit_scale": (0, 1),
    "nextn_predict_layers": (0,),
    "rope.scaling.attn_factor": (1,),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (1,),
    "rope.scaling.yarn_log_multiplier": (0,),
    "use_parallel_residual": (False,),
}
_NEEDED = ("block_count", "embedding_length", "attention.head_count", "context_length")
_ONE_NORM = re.compile(r"(?P<stem>.+)\.norms\.(?P<head>\d+)\.weight")


class _Settings:
    """A file's settings of its architecture; those that nobody asked for are refused."""

    def __init__(self, metadata: Mapping[str, Any], name: str) -> None:
        self.architecture = str(metadata["general.architecture"])
        start = f"{self.architecture}."
        self.values = {key.removeprefix(start): _one(value) for key, value in metadata.items() if key.startswith(start)}
        self._name = name

    def number(self, key: str, default: Any = None) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise ModelFileError(
                _(
                    "{name} lacks {architecture}.{key}; it is no complete model file",
                    name=self._name,
                    architecture=self.architecture,
                    key=key,
                )
            )
        return value

    def refuse(self, key: str) -> NoReturn:
        raise ModelFileError(
            _(
                "{name} sets {key} to {value}, which cannot be followed; choose another file",
                name=self._name,
                key=f"{self.architecture}.{key}",
                value=self.values.get(key),
            )
        )


def _one(value: Any) -> Any:
    """A list that is the same for every layer as one value."""
    return value[0] if isinstance(value, list) and value and all(other == value[0] for other in value) else value


def family_config(metadata: Mapping[str, Any], tensors: Tensors, family: Family, name: str) -> Config:
    """A configuration under transformers' names.

    Args:
        name: of the file.

    Raises:
        ModelFileError: a setting cannot be followed, or is missing.
    """
    settings = _Settings(metadata, name)
    names = {**COMMON, **family.settings}
    layer_norm = "attention.layer_norm_epsilon"
    norm = layer_norm if layer_norm in {**family.settings, **family.fixed} else "attention.layer_norm_rms_epsilon"
    experts = [key for key in ("expert_count", "expert_used_count") if key in family.settings]
    for key in (*_NEEDED, norm, *experts):
        settings.number(key)
    config: Config = {"model_type": family.model_type, **family.constants}
    config |= {names[key]: value for key, value in settings.values.items() if key in names}
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelFileError(_("{name} holds no embeddings; it is no complete model file", name=name))
    if config["num_hidden_layers"] > len(tensors):  # before anything is written out layer by layer
        settings.refuse("block_count")
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    size = config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    read = {*names, *_IDLE}
    if family.rotary:
        config["rope_parameters"] = _rope(settings, family, size, read)
    fits = {"attention.value_length": (size,)}
    if (window := settings.values.get("attention.sliding_window", 0)) >= config["max_position_embeddings"]:
        fits["attention.sliding_window"] = (window,)
    _refuse_others(settings, family, fits, read)
    if family.model_type == "phi3":
        _check_phi3(settings, tensors)
    config |= family.changes(config, tensors)
    return config | {
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": None,
    }


def _refuse_others(settings: _Settings, family: Family, more: Mapping[str, tuple[Any, ...]], read: set[str]) -> None:
    fixed = {**_FIXED, **more, **family.fixed}
    for key, value in settings.values.items():
        known = key in read or any(_is(value, fit) for fit in fixed.get(key, ()))
        if not known or (isinstance(value, list) and key not in family.lists):
            settings.refuse(key)


def _is(value: Any, fit: Any) -> bool:
    """Whether they are equal; the file's numbers have 32 bits."""
    if isinstance(value, float) and isinstance(fit, float):
        return math.isclose(value, fit, rel_tol=1e-6)
    return bool(value == fit)


def _rope(settings: _Settings, family: Family, size: int, read: set[str]) -> Config:
    """The rotary positions; what a file does not say is as in llama.cpp. Adds the settings that it takes to `read`."""
    read |= {"rope.freq_base", "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor"}
    rope: Config = {"rope_type": "default", "rope_theta": settings.number("rope.freq_base", 10_000.0)}
    turned = settings.number("rope.dimension_count", size)
    if family.partial:
        rope["partial_rotary_factor"] = turned / size
    if int(size * (turned / size)) != turned or (turned != size and not family.partial):
        settings.refuse("rope.dimension_count")
    factor = settings.number("rope.scaling.factor", 0) or 1
    kind = settings.number("rope.scaling.type", "linear")
    if kind == "none" or (kind == "linear" and factor == 1) or (kind == "longrope" and kind in family.scalings):
        return rope
    if kind not in family.scalings:
        settings.refuse("rope.scaling.type" if "rope.scaling.type" in settings.values else "rope.scaling.factor")
    rope |= {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        rope["original_max_position_embeddings"] = settings.number("rope.scaling.original_context_length")
        for name in ("beta_fast", "beta_slow"):
            key = f"rope.scaling.yarn_{name}"
            if key in settings.values:
                rope[name] = settings.values[key]
                read.add(key)
    return rope


def _check_phi3(settings: _Settings, tensors: Tensors) -> None:
    """Raise where only a part of the factors for long texts is there."""
    context, original = settings.number("context_length"), "rope.scaling.original_context_length"
    if "rope_factors_long.weight" in tensors and "rope_factors_short.weight" in tensors:
        settings.number("rope.scaling.attn_factor")
        settings.number(original)
    elif settings.number(original, context) != context:
        settings.refuse(original)
    elif settings.values.get("rope.scaling.attn_factor", 1) != 1:
        settings.refuse("rope.scaling.attn_factor")
    elif settings.values.get("rope.scaling.type") == "longrope":
        settings.refuse("rope.scaling.type")


def family_state(
    names: Mapping[str, tuple[int, ...]],
    family: Family,
    architecture: str,
    config: Config,
    tensors: Tensors,
    dtype: Any,
) -> dict[str, Tensor]:
    """A module's weights, by its names.

    Args:
        names: of the module's weights, with their shapes.
        architecture: by the file's name.

    Raises:
        ModelFileError: one is missing in the file, of another shape, or left over.
    """
    find = _finder(architecture, config["num_hidden_layers"])
    state: dict[str, Tensor] = {}
    taken = set(family.factors)
    missing = []
    heads = [name for name in names if name == "lm_head.weight" or find(name) == "output.weight"]
    for name, shape in names.items():
        if config["tie_word_embeddings"] and name in heads:
            continue
        found = _places(name, find, config, tensors)
        if not all(key in tensors for key, _part in found):
            if name.endswith(family.may_lack):
                state[name] = torch.zeros(shape, dtype=dtype)
            else:
                missing.append(name)
            continue
        taken |= {key for key, _part in found}
        parts = [_plain(tensors[key], key, family, config, dtype)[part] for key, part in found]
        value = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        if _without_ones(value.shape) != _without_ones(shape):
            raise ModelFileError(
                _(
                    "{name} has the shape {here} and the configuration wants {wanted}",
                    name=found[0][0],
                    here=str(tuple(value.shape)),
                    wanted=str(shape),
                )
            )
        state[name] = value.reshape(shape).contiguous()
    check_names(missing, [key for key in tensors if key not in taken])
    if config["tie_word_embeddings"]:
        embedding = next(name for name in state if find(name) == "token_embd.weight")
        state |= dict.fromkeys(heads, state[embedding])
    return state


def _finder(architecture: str, layers: int) -> Callable[[str], str]:
    """From a name of the module's weights to that in the file, by gguf's table."""
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    table = gguf.get_tensor_name_map(arch, layers)

    def find(name: str) -> str:
        stem, _dot, kind = (name, ".", "weight") if ".experts." in name else name.rpartition(".")
        return f"{table.get_name(stem) or table.get_name(f'model.{stem}')}.{kind}"

    return find


def _places(name: str, find: Callable[[str], str], config: Config, tensors: Tensors) -> list[tuple[str, Any]]:
    """Tensors of the file that are a weight of the module, side by side, and which part of each."""
    if name.endswith(".experts.gate_up_proj"):
        return [(find(name.replace("gate_up_proj", part)), slice(None)) for part in ("gate_proj", "up_proj")]
    if one := _ONE_NORM.fullmatch(name):
        return [(find(f"{one['stem']}.weight"), int(one["head"]))]
    key = find(name)
    start, dot, kind = key.partition(".attn_")
    joined = f"{start}.attn_qkv.{kind.partition('.')[2]}"
    if dot and kind[:2] in ("q.", "k.", "v.") and key not in tensors and joined in tensors:
        size = config["head_dim"]
        rows = [size * config["num_attention_heads"], *[size * config["num_key_value_heads"]] * 2]
        index = "qkv".index(kind[0])
        return [(joined, slice(sum(rows[:index]), sum(rows[: index + 1])))]
    return [(key, slice(None))]


def in_order(tensors: Tensors, family: Family, config: Config) -> Tensors:
    """A file's tensors, queries and keys in the rotary order of transformers' modules."""
    if not family.paired:
        return tensors
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    return {
        key: replace(blocks, paired_heads=heads[part]) if (part := key.split(".")[-2]) in heads else blocks
        for key, blocks in tensors.items()
    }


def _plain(blocks: Blocks, key: str, family: Family, config: Config, dtype: Any) -> Tensor:
    """One tensor of the file as the module has it."""
    if family.norms_above_one and key.endswith("norm.weight"):
        return (dequantize(blocks) - 1).to(dtype)
    if len(blocks.shape) > 2:  # experts, one below the other, so that few are unpacked at once
        flat = Blocks(blocks.type, (math.prod(blocks.shape[:-1]), blocks.shape[-1]), _flat(blocks))
        return dequantize(flat, dtype).reshape(blocks.shape)
    value = dequantize(blocks, dtype)
    return family.arranged(key, value.T if key.endswith(family.transposed) else value, config)


def _flat(blocks: Blocks) -> Any:
    return blocks.stored.reshape(-1, blocks.stored.shape[-1])


def _without_ones(shape: Any) -> list[int]:
    return [size for size in shape if size != 1]
