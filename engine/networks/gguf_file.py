"""Reading GGUF files: metadata, and tensors under the file's own names or transformers'."""

import mmap
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.constants import GGUFValueType

from engine.base.errors import LogitlabError, ModelFileError, first_line
from engine.base.language import _
from engine.networks.blocks import Blocks
from engine.networks.gguf_families import Family
from engine.networks.gguf_parts import gguf_parts

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
# Lists of so many numbers are those of a model's layers, longer ones those of a vocabulary.
SHORT = 1024
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
def in_our_words(path: Path) -> Iterator[None]:
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
    with in_our_words(path):
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


def under_transformers_names(contents: Contents, family: Family) -> Contents:
    """A file's weights by transformers' names. Raises `ModelFileError` where one has none."""
    names = _NAMES | _OTHERWISE.get(contents.architecture, {})
    tensors: dict[str, Blocks] = {}
    for tensor, blocks in contents.tensors.items():
        found = _TENSOR.fullmatch(tensor)
        if found and found["part"] in names:
            layer = f"model.layers.{found['layer']}." if found["layer"] else ""
            tensors[f"{layer}{names[found['part']]}.{found['kind']}"] = blocks
        elif tensor not in family.factors:
            raise ModelFileError(
                _(
                    "{name} holds {tensor}, which a {architecture} model does not have",
                    name=contents.path.name,
                    tensor=tensor,
                    architecture=contents.architecture,
                )
            )
    return replace(contents, tensors=tensors)
