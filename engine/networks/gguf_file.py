"""Reading GGUF files of the llama family: metadata, and tensors under transformers' names."""

import mmap
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import gguf
import numpy as np
from gguf.constants import GGUFValueType
from torch import Tensor

from engine.base.errors import LogitlabError, ModelFileError, first_line
from engine.base.language import _
from engine.networks.blocks import Blocks
from engine.networks.gguf_families import FAMILIES
from engine.networks.gguf_parts import gguf_parts

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
# What the same parts are called in other architectures.
_AROUND = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_OTHERWISE = {
    "gemma2": _AROUND,
    "gemma3": _AROUND,
    "phi3": {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
}
_NO_WEIGHTS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
# Lists of so many numbers are those of a model's layers, longer ones those of a vocabulary.
SHORT = 1024
# Settings that change nothing of what a model computes, or that the tensors say again.
_IDLE = {"vocab_size", "context_length", "tensor_data_layout", "rope.scaling.finetuned", "pooling_type"}
# Those that would, with the values at which they do not.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "use_parallel_residual": (False,),
    "attention.causal": (True,),
    "attention.max_alibi_bias": (0,),
    "attention.clamp_kqv": (0,),
    "attention.scale": (0,),
    "logit_scale": (0, 1),
    "rope.scaling.attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (1,),
    "rope.scaling.yarn_attn_factor": (1,),
}
_TENSOR = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<part>\w+)\.(?P<kind>weight|bias)")


@dataclass(frozen=True)
class Contents:
    """What lies in a file, or in its parts.

    Attributes:
        metadata: numbers, strings and short lists of numbers; other lists only as their length.
        tensors: under the file's own names.
        header_bytes: size of all that precedes the tensor data.
        mapped: the whole file, or its parts.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Blocks]
    header_bytes: int
    mapped: Sequence[np.memmap] = field(repr=False)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(part.nbytes for part in self.mapped)

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

    def let_go(self) -> None:
        """Take no memory for what has been read so far; it can be read again."""
        for part in self.mapped:
            memory = getattr(part, "_mmap", None)
            if isinstance(memory, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                memory.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class GgufFile(Contents):
    """A file of the llama family, its tensors under transformers' names.

    Attributes:
        rope_factors: what the rotary frequencies are divided by, if the file says so, `[head_dim / 2]`.
    """

    rope_factors: Tensor | None
    _read: set[str] = field(default_factory=lambda: {"rope.scaling.type", "rope.scaling.original_context_length"})

    def config(self) -> dict[str, Any]:
        """The model's sizes under transformers' names (`LlamaConfig` and its kin)."""
        heads = self._number("attention.head_count")
        hidden = self._number("embedding_length")
        head_size = self._number("attention.key_length", hidden // heads)
        config = {
            "model_type": ARCHITECTURES[self.architecture],
            "hidden_size": hidden,
            "intermediate_size": self._number("feed_forward_length"),
            "num_hidden_layers": self._number("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._number("attention.head_count_kv", heads),
            "head_dim": head_size,
            "rms_norm_eps": self._number("attention.layer_norm_rms_epsilon"),
            "max_position_embeddings": self._number("context_length"),
            "rope_parameters": self._rope(),
            "vocab_size": self.tensors["model.embed_tokens.weight"].shape[0],
            "tie_word_embeddings": "lm_head.weight" not in self.tensors,
            "attention_bias": "model.layers.0.self_attn.q_proj.bias" in self.tensors,
            "bos_token_id": self.metadata.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.metadata.get("tokenizer.ggml.eos_token_id"),
        }
        if config["model_type"] == "llama":
            config["mlp_bias"] = "model.layers.0.mlp.down_proj.bias" in self.tensors
        for key, fits in (
            ("rope.dimension_count", (head_size,)),
            ("attention.value_length", (head_size,)),
            *_HARMLESS.items(),
        ):
            if self._number(key, fits[0]) not in fits:
                self._refuse(key)
        window = self._number("attention.sliding_window", config["max_position_embeddings"])
        if 0 < window < config["max_position_embeddings"]:
            self._refuse("attention.sliding_window")
        self._refuse_unread()
        return config

    def _rope(self) -> dict[str, Any]:
        """Base and scaling of the rotary positions, under transformers' names."""
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": self._number("rope.freq_base", 10_000.0)}
        kind = self.metadata.get(f"{self.architecture}.rope.scaling.type", "linear")  # as in llama.cpp
        factor = self._number("rope.scaling.factor", 0) or 1.0
        if kind == "linear" and factor == 1:
            return rope
        if kind == "linear":
            return rope | {"rope_type": "linear", "factor": factor}
        if kind == "yarn":
            original = self._number("rope.scaling.original_context_length")
            rope |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
            for name in ("beta_fast", "beta_slow"):
                if (value := self._number(f"rope.scaling.yarn_{name}", needed=False)) is not None:
                    rope[name] = value
            return rope
        if kind != "none":
            self._refuse("rope.scaling.type")
        return rope

    def _refuse_unread(self) -> None:
        """Raise `ModelFileError` for a setting of the architecture that nothing has looked at."""
        for key in self.metadata:
            start, dot, name = key.partition(".")
            if dot and start == self.architecture and name not in self._read and name not in _IDLE:
                self._refuse(name)

    def _refuse(self, key: str) -> NoReturn:
        raise ModelFileError(
            _(
                "{name} sets {key} to {value}, which cannot be followed; choose another file",
                name=self.path.name,
                key=f"{self.architecture}.{key}",
                value=self.metadata.get(f"{self.architecture}.{key}"),
            )
        )

    def _number(self, key: str, default: Any = None, *, needed: bool = True) -> Any:
        self._read.add(key)
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if isinstance(value, list):
            if len(set(value)) != 1:
                self._refuse(key)
            value = value[0]
        if value is None and needed:
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
        elif count <= SHORT and GGUFValueType(item_type) in self.gguf_scalar_to_np:
            return super()._get_field_parts(orig_offs, raw_type)
        else:
            scalar = self.gguf_scalar_to_np[GGUFValueType(item_type)]
            end += count * np.dtype(scalar).itemsize
        if end > len(self.data):
            raise ValueError(_("an array is longer than the file"))
        return end - orig_offs, [np.array([count])], [0], [GGUFValueType.UINT64]


@contextmanager
def _in_our_words(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes the reader raise, which checks nothing, into `ModelFileError`."""
    try:
        yield
    except LogitlabError:
        raise
    except OSError as error:
        raise ModelFileError(_("cannot read {path}: {reason}", path=path, reason=error.strerror or error)) from error
    except Exception as error:
        raise ModelFileError(
            _("{path} is not a usable GGUF file ({error}); fetch it again", path=path, error=first_line(error))
        ) from error


def open_contents(path: Path) -> Contents:
    """Open a file of any architecture. Raises `ModelFileError` for one that is damaged or not complete."""
    with _in_our_words(path):
        readers = _readers(path)
        metadata = {name: field.contents() for name, field in readers[0].fields.items()}
        tensors = {
            tensor.name: Blocks(tensor.tensor_type, tuple(int(size) for size in reversed(tensor.shape)), tensor.data)
            for reader in readers
            for tensor in reader.tensors
        }
        if len(tensors) < int(metadata.get("split.tensors.count", 0)):
            raise ModelFileError(_("{name} lacks tensors in its other parts; fetch them again", name=path.name))
        return Contents(path, metadata, tensors, int(readers[0].data_offset), [reader.data for reader in readers])


def _readers(path: Path) -> list["_Reader"]:
    """One for each of a file's parts."""
    files = gguf_parts(path)
    readers = [_Reader(file) for file in files]
    field = readers[0].fields.get("split.count")
    if (count := int(field.contents()) if field else 1) > 1 and count != len(files):
        raise ModelFileError(
            _(
                "{name} is a part of {count}, which are named NAME-00001-of-{count:05}.gguf and so on; name it so",
                name=path.name,
                count=count,
            )
        )
    return readers


def open_gguf(path: Path) -> GgufFile:
    """Open a file of the llama family. Raises as `open_contents` and `llama_file` do."""
    return llama_file(open_contents(path))


def llama_file(contents: Contents) -> GgufFile:
    """The same as a file of the llama family. Raises `ModelFileError` where it is of another one, or not complete."""
    with _in_our_words(contents.path):
        file = _llama_file(contents)
        file.config()
        return file


def _llama_file(contents: Contents) -> GgufFile:
    path, metadata = contents.path, contents.metadata
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ModelFileError(
            _(
                "{name} is of architecture {architecture!r}; GGUF files of {names} can be read",
                name=path.name,
                architecture=architecture,
                names=", ".join([*ARCHITECTURES, *FAMILIES]),
            )
        )
    heads = {
        "q_proj": metadata.get(f"{architecture}.attention.head_count"),
        "k_proj": metadata.get(f"{architecture}.attention.head_count_kv"),
    }
    tensors = dict(under_transformers_names(contents).tensors)
    for name, blocks in tensors.items():
        if architecture == "llama" and (count := heads.get(name.split(".")[-2])):
            tensors[name] = replace(blocks, paired_heads=int(count[0] if isinstance(count, list) else count))
    turns = contents.tensors.get("rope_freqs.weight")
    factors = None if turns is None else turns.dequantize()
    if "model.embed_tokens.weight" not in tensors:
        raise ModelFileError(_("{name} holds no embeddings; it is no complete model file", name=path.name))
    return GgufFile(path, metadata, tensors, contents.header_bytes, contents.mapped, factors)


def under_transformers_names(contents: Contents) -> Contents:
    """A file's weights by transformers' names. Raises `ModelFileError` where one has none."""
    names = _NAMES | _OTHERWISE.get(contents.architecture, {})
    tensors: dict[str, Blocks] = {}
    for tensor, blocks in contents.tensors.items():
        found = _TENSOR.fullmatch(tensor)
        if found and found["part"] in names:
            layer = f"model.layers.{found['layer']}." if found["layer"] else ""
            tensors[f"{layer}{names[found['part']]}.{found['kind']}"] = blocks
        elif tensor not in _NO_WEIGHTS:
            raise ModelFileError(
                _(
                    "{name} holds {tensor}, which a {architecture} model does not have",
                    name=contents.path.name,
                    tensor=tensor,
                    architecture=contents.architecture,
                )
            )
    return replace(contents, tensors=tensors)
