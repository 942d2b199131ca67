"""Where a network's weights come from: a GGUF file or safetensors, under transformers' names."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from engine.base.errors import ModelFileError
from engine.base.language import _
from engine.networks import small_weights
from engine.networks.blocks import Blocks, dequantize
from engine.networks.gguf_file import Contents
from engine.networks.kernels import DenseRows, Head, Linear, Rows, concatenated, dense
from engine.networks.stored import Stored, takes

# Weights of up to so many numbers may be kept in two layouts, one for few rows and one for many.
ROOMY = 400_000_000
# A low-bit file may take several times its size in memory where it has at most so many bytes.
ROOMY_FILE = 100_000_000
# What decoding, packing and single steps take beside the weights.
WORKING = 100_000_000


class Weights(Protocol):
    """Weights by name, in the precision the network runs in.

    Attributes:
        dtype: of activations, and of everything that is not kept in fewer bits.
        device: where tensors are placed.
        parameters: how many there are.
        low_bit: whether products keep the file's own bits, fewer than float32's.
        roomy: whether they are few enough to be kept in two layouts.
    """

    dtype: torch.dtype
    device: str
    parameters: int
    low_bit: bool

    @property
    def roomy(self) -> bool:
        return self.parameters <= ROOMY

    def has(self, name: str) -> bool: ...

    def tensor(self, name: str) -> Tensor:
        """One tensor, as it is used outside products."""
        ...

    def norm(self, name: str, *, above_one: bool) -> Tensor:
        """What a norm multiplies by.

        Args:
            above_one: whether that is one more than what folders hold; GGUF files hold it all.
        """
        return self.tensor(name)

    def rows(self, name: str) -> Rows:
        """A matrix whose rows are looked up."""
        return DenseRows(self.tensor(name))

    def head(self, name: str) -> Head:
        """The output layer."""
        return Head.dense(self.tensor(name), roomy=self.roomy)

    def linear(self, *names: str) -> Linear:
        """One product for the named layers (without `.weight`) stacked along their outputs."""
        ...


class SafetensorsWeights(Weights):
    """Safetensors files, memory-mapped; when `native`, products use their floats as they lie: see `stored`."""

    def __init__(
        self,
        files: Sequence[Path],
        dtype: torch.dtype,
        prefix: str,
        *,
        native: bool = False,
        device: str = "cpu",
        read: Callable[[str], None],
    ) -> None:
        from safetensors import safe_open

        self.dtype = dtype
        self.device = device
        self.low_bit = native
        self._read = read
        self._prefix = prefix
        self._files: dict[str, object] = {}
        self.parameters = 0
        self._taken: set[str] = set()
        for path in files:
            file = safe_open(path, framework="pt")
            for name in file.keys():  # noqa: SIM118 (not a dict)
                self._files[name] = file
                self.parameters += int(np.prod(file.get_slice(name).get_shape()))

    @property
    def unread(self) -> list[str]:
        """Names of weights that nothing has asked for."""
        return [name for name in self._files if name not in self._taken]

    def has(self, name: str) -> bool:
        return self._key(name) is not None

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        return self._as_it_lies(name).to(self.device, dtype or self.dtype)

    def rows(self, name: str) -> Rows:
        return DenseRows(self._as_it_lies(name), self.dtype) if self.low_bit else super().rows(name)

    def head(self, name: str) -> Head:
        if self.low_bit and takes(weight := self._as_it_lies(name)):
            return Head(Stored([weight], None), self.rows(name), refined=False)
        return super().head(name)

    def norm(self, name: str, *, above_one: bool) -> Tensor:
        return (self.tensor(name, torch.float32) + 1).to(self.dtype) if above_one else self.tensor(name)

    def linear(self, *names: str) -> Linear:
        biases = [self.tensor(f"{name}.bias") if self.has(f"{name}.bias") else None for name in names]
        if self.low_bit and all(map(takes, lying := [self._as_it_lies(f"{name}.weight") for name in names])):
            return Stored(lying, concatenated(biases))
        return dense(
            torch.cat([self.tensor(f"{name}.weight") for name in names]), concatenated(biases), roomy=self.roomy
        )

    def _as_it_lies(self, name: str) -> Tensor:
        """A view of the file, in its own precision."""
        key = self._key(name)
        if key is None:
            raise ModelFileError(_("the weights lack {names}; the model is not complete", names=name))
        self._read(name)
        self._taken.add(key)
        return self._files[key].get_tensor(key)  # type: ignore[attr-defined]

    def _key(self, name: str) -> str | None:
        """Checkpoints of the bare trunk leave out the prefix (`model.`, `transformer.`); where a model has other parts
        beside its text part, the names say which, in files of today and of earlier versions."""
        trunk = name.removeprefix(self._prefix)
        for key in (name, trunk, f"{self._prefix}language_model.{trunk}", f"language_model.{name}"):
            if key in self._files:
                return key
        return None


class GgufWeights(Weights):
    """A GGUF file under transformers' names; when `native`, products keep about as few bits as its blocks: see
    `small_weights`."""

    def __init__(
        self, file: Contents, dtype: torch.dtype, *, native: bool, device: str = "cpu", read: Callable[[str], None]
    ) -> None:
        self.dtype = dtype
        self.device = device
        self._file = file
        self._tensors: Mapping[str, Blocks] = file.tensors
        self.low_bit = native and small_weights.work()
        self._read = read
        self._taken: set[str] = set()
        self.parameters = sum(math.prod(blocks.shape) for blocks in file.tensors.values())
        self._roomy = self.parameters <= ROOMY and (not self.low_bit or _roomy(file))

    @property
    def unread(self) -> list[str]:
        """Names of weights that nothing has asked for."""
        return [name for name in self._tensors if name not in self._taken]

    @property
    def roomy(self) -> bool:
        return self._roomy

    def has(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str) -> Tensor:
        values = dequantize(self._blocks(name), self.dtype).to(self.device)
        self._file.let_go()
        return values

    def rows(self, name: str) -> Rows:
        blocks = self._blocks(name)
        if self.low_bit and blocks.type in small_weights.FileRows.KINDS:
            return small_weights.FileRows(blocks, self.dtype)
        return DenseRows(self.tensor(name))

    def head(self, name: str) -> Head:
        if not self.low_bit:
            return Head.dense(self.tensor(name), roomy=self.roomy)
        product, rounded = small_weights.output(self._blocks(name))
        return Head(product, self.rows(name), refined=rounded)

    def linear(self, *names: str) -> Linear:
        biases = [self.tensor(f"{name}.bias") if self.has(f"{name}.bias") else None for name in names]
        weights = [self._blocks(f"{name}.weight") for name in names]
        if self.low_bit:
            of_type = small_weights.linear_of_float32 if self.dtype == torch.float32 else small_weights.linear
            product = of_type(weights, biases, roomy=self.roomy)
        else:
            matrix = torch.cat([dequantize(blocks, self.dtype).to(self.device) for blocks in weights])
            product = dense(matrix, concatenated(biases), roomy=self.roomy)
        self._file.let_go()
        return product

    def _blocks(self, name: str) -> Blocks:
        if name not in self._tensors:
            raise ModelFileError(_("the file lacks {name}; the model is not complete", name=name))
        if name not in self._taken:
            self._read(name)
        self._taken.add(name)
        return self._tensors[name]


def _roomy(file: Contents) -> bool:
    numbers = sum(math.prod(blocks.shape) for blocks in file.tensors.values())
    return numbers <= ROOMY and file.size <= ROOMY_FILE


def native_bytes(file: Contents) -> int:
    """About what a file's weights take in memory in about their own precision, and while they are compared."""
    roomy, tied = _roomy(file), "lm_head.weight" not in file.tensors
    needed: dict[str, float] = {}
    compared = 0
    for name, blocks in file.tensors.items():
        needed[name] = small_weights.bytes_of(name, blocks, roomy=roomy)
        if ".layers." not in name or re.match(r"model\.layers\.[01]\.", name):
            compared += 4 * math.prod(blocks.shape)
    embedding = file.tensors.get("model.embed_tokens.weight")
    if tied and embedding is not None:
        needed["lm_head.weight"] = small_weights.bytes_of("lm_head.weight", embedding, roomy=roomy)
        if takes(embedding) and embedding.type in small_weights.FileRows.KINDS:  # both are the same bytes of the file
            needed["model.embed_tokens.weight"] = 0
    return int(max(sum(needed.values()), compared)) + WORKING
