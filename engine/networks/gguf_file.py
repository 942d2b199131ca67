"""Reading GGUF files of the llama family: metadata, and tensors under transformers' names."""

import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.constants import GGUFValueType
from torch import Tensor

from engine.base.errors import LogitlabError, ModelFileError, first_line
from engine.base.language import _
from engine.networks.blocks import Blocks

# GGUF architecture → transformers' model type.
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TENSOR = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<part>\w+)\.(?P<kind>weight|bias)")


@dataclass(frozen=True)
class GgufFile:
    """One file, opened.

    Attributes:
        metadata: scalars and strings; arrays of strings only as their length.
        tensors: under transformers' names for the architecture.
        header_bytes: size of all that precedes the tensor data.
        rope_factors: what the rotary frequencies are divided by, if the file says so, `[head_dim / 2]`.
        mapped: the whole file.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Blocks]
    header_bytes: int
    rope_factors: Tensor | None
    mapped: np.memmap = field(repr=False)

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])

    @property
    def quantized(self) -> bool:
        """Whether any weight takes fewer bits than a float."""
        return any(blocks.stored.dtype == np.uint8 for blocks in self.tensors.values())

    @property
    def encoding(self) -> str:
        """How most of the weights are encoded, such as `Q4_1`."""
        sizes: dict[str, int] = {}
        for blocks in self.tensors.values():
            sizes[blocks.type.name] = sizes.get(blocks.type.name, 0) + int(np.prod(blocks.shape))
        return max(sizes, key=lambda name: sizes[name])

    @property
    def size(self) -> int:
        return int(self.mapped.nbytes)

    def let_go(self) -> None:
        """Take no memory for what has been read so far; it can be read again."""
        memory = getattr(self.mapped, "_mmap", None)
        if isinstance(memory, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            memory.madvise(mmap.MADV_DONTNEED)

    def config(self) -> dict[str, Any]:
        """The model's sizes under transformers' names (`LlamaConfig` and its kin)."""
        heads = self._number("attention.head_count")
        hidden = self._number("embedding_length")
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": self._number("rope.freq_base", 10_000.0)}
        if self.metadata.get(f"{self.architecture}.rope.scaling.type") == "linear":
            rope = rope | {"rope_type": "linear", "factor": self._number("rope.scaling.factor")}
        return {
            "model_type": ARCHITECTURES[self.architecture],
            "hidden_size": hidden,
            "intermediate_size": self._number("feed_forward_length"),
            "num_hidden_layers": self._number("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._number("attention.head_count_kv", heads),
            "head_dim": self._number("attention.key_length", hidden // heads),
            "rms_norm_eps": self._number("attention.layer_norm_rms_epsilon"),
            "max_position_embeddings": self._number("context_length"),
            "rope_parameters": rope,
            "vocab_size": self.tensors["model.embed_tokens.weight"].shape[0],
            "tie_word_embeddings": "lm_head.weight" not in self.tensors,
            "attention_bias": "model.layers.0.self_attn.q_proj.bias" in self.tensors,
            "bos_token_id": self.metadata.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.metadata.get("tokenizer.ggml.eos_token_id"),
        }

    def _number(self, key: str, default: Any = None) -> Any:
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise ModelFileError(
                _(
                    "{name} lacks {architecture}.{key}; it is no complete model file",
                    name=self.path.name,
                    architecture=self.architecture,
                    key=key,
                )
            )
        return value


class _Reader(gguf.GGUFReader):
    """gguf's reader without a Python object for each of a vocabulary's 100,000 strings (2.4 s → 0.1 s)."""

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        if GGUFValueType(raw_type) != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        item_type, count = struct.unpack_from("<IQ", self.data, orig_offs)
        end = orig_offs + 12
        remaining = len(self.data) - end
        if item_type == GGUFValueType.STRING:
            if count > remaining // 8:
                raise ValueError(_("an array is longer than the file"))
            for _item in range(count):
                end += 8 + struct.unpack_from("<Q", self.data, end)[0]
        else:
            scalar = self.gguf_scalar_to_np[GGUFValueType(item_type)]
            end += count * np.dtype(scalar).itemsize
        if end > len(self.data):
            raise ValueError(_("an array is longer than the file"))
        return end - orig_offs, [np.array([count])], [0], [GGUFValueType.UINT64]


def open_gguf(path: Path) -> GgufFile:
    """Open a file of the llama family.

    Raises:
        ModelFileError: it is no GGUF file, damaged, or of another architecture.
    """
    try:
        file = _open(path)
        file.config()
        return file
    except LogitlabError:
        raise
    except OSError as error:
        raise ModelFileError(_("cannot read {path}: {reason}", path=path, reason=error.strerror or error)) from error
    except Exception as error:  # the reader checks nothing: a damaged file shows as any error
        raise ModelFileError(
            _("{path} is not a usable GGUF file ({error}); fetch it again", path=path, error=first_line(error))
        ) from error


def _open(path: Path) -> GgufFile:
    reader = _Reader(path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ModelFileError(
            _(
                "{name} is of architecture {architecture!r}; GGUF files of {names} can be read",
                name=path.name,
                architecture=architecture,
                names=", ".join(ARCHITECTURES),
            )
        )
    scaling = metadata.get(f"{architecture}.rope.scaling.type")
    if scaling not in (None, "none", "linear"):
        raise ModelFileError(
            _(
                "{name} scales its rotary positions by {scaling!r}, which cannot be read from GGUF yet",
                name=path.name,
                scaling=scaling,
            )
        )
    heads = {
        "q_proj": metadata.get(f"{architecture}.attention.head_count"),
        "k_proj": metadata.get(f"{architecture}.attention.head_count_kv"),
    }
    tensors: dict[str, Blocks] = {}
    factors = None
    for tensor in reader.tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        blocks = Blocks(tensor.tensor_type, shape, tensor.data)
        if tensor.name == "rope_freqs.weight":
            factors = blocks.dequantize()
            continue
        name = _transformers_name(tensor.name)
        if name is None:
            raise ModelFileError(
                _(
                    "{name} holds {tensor}, which a {architecture} model does not have",
                    name=path.name,
                    tensor=tensor.name,
                    architecture=architecture,
                )
            )
        part = name.split(".")[-2]
        if architecture == "llama" and (count := heads.get(part)):
            blocks = replace(blocks, paired_heads=int(count))
        tensors[name] = blocks
    if "model.embed_tokens.weight" not in tensors:
        raise ModelFileError(_("{name} holds no embeddings; it is no complete model file", name=path.name))
    return GgufFile(path, metadata, tensors, int(reader.data_offset), factors, reader.data)


def _transformers_name(name: str) -> str | None:
    found = _TENSOR.fullmatch(name)
    if not found or found["part"] not in _NAMES:
        return None
    layer = f"model.layers.{found['layer']}." if found["layer"] else ""
    return f"{layer}{_NAMES[found['part']]}.{found['kind']}"
