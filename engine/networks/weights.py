"""Where a network's weights come from: a GGUF file or safetensors, under transformers' names."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType as GGML
from torch import Tensor

from engine.base.errors import ModelFileError
from engine.networks.gguf_file import Blocks, GgufFile
from engine.networks.kernels import GROUP, Int4, Linear, concatenated, dense, int4_works

ROWS_AT_ONCE = 2048

# Weights of up to so many numbers may be kept in two layouts, one for few rows and one for many.
ROOMY = 400_000_000


class Weights(Protocol):
    """Weights by name, in the precision the network runs in.

    Attributes:
        dtype: of activations, and of everything that is not kept in fewer bits.
        device: where tensors are placed.
        parameters: how many there are.
        low_bit: whether products keep the file's own few bits.
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

    def linear(self, *names: str) -> Linear:
        """One product for the named layers (without `.weight`) stacked along their outputs."""
        ...


class SafetensorsWeights(Weights):
    """Safetensors files, memory-mapped."""

    def __init__(
        self,
        files: Sequence[Path],
        dtype: torch.dtype,
        prefix: str,
        *,
        device: str = "cpu",
        read: Callable[[str], None],
    ) -> None:
        from safetensors import safe_open

        self.dtype = dtype
        self.device = device
        self.low_bit = False
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

    def tensor(self, name: str) -> Tensor:
        key = self._key(name)
        if key is None:
            raise ModelFileError(f"the weights lack {name}; the model is not complete")
        self._read(name)
        self._taken.add(key)
        return self._files[key].get_tensor(key).to(self.device, self.dtype)  # type: ignore[attr-defined]

    def linear(self, *names: str) -> Linear:
        biases = [self.tensor(f"{name}.bias") if self.has(f"{name}.bias") else None for name in names]
        return dense(
            torch.cat([self.tensor(f"{name}.weight") for name in names]), concatenated(biases), roomy=self.roomy
        )

    def _key(self, name: str) -> str | None:
        """Checkpoints of the bare trunk leave out the prefix (`model.`, `transformer.`)."""
        for key in (name, name.removeprefix(self._prefix)):
            if key in self._files:
                return key
        return None


class GgufWeights(Weights):
    """An open GGUF file; 4-bit blocks stay 4-bit when `native`."""

    def __init__(
        self, file: GgufFile, dtype: torch.dtype, *, native: bool, device: str = "cpu", read: Callable[[str], None]
    ) -> None:
        self.dtype = dtype
        self.device = device
        self._tensors: Mapping[str, Blocks] = file.tensors
        self.low_bit = native and int4_works()
        self._read = read
        self.parameters = sum(int(np.prod(blocks.shape)) for blocks in file.tensors.values())

    def has(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise ModelFileError(f"the file lacks {name}; the model is not complete")
        self._read(name)
        return dequantize(self._tensors[name], self.dtype).to(self.device)

    def linear(self, *names: str) -> Linear:
        biases = [self.tensor(f"{name}.bias") if self.has(f"{name}.bias") else None for name in names]
        bias = concatenated(biases)
        if self.low_bit and all(self._is_4bit(name) for name in names):
            parts = [_nibbles(self._tensors[f"{name}.weight"]) for name in names]
            for name in names:
                self._read(name)
            values, scales, minima = (torch.cat(part) for part in zip(*parts))
            return Int4(values, scales, minima, bias, roomy=self.roomy)
        return dense(torch.cat([self.tensor(f"{name}.weight") for name in names]), bias, roomy=self.roomy)

    def _is_4bit(self, name: str) -> bool:
        blocks = self._tensors.get(f"{name}.weight")
        # The packed operator wants outputs in multiples of 16.
        return blocks is not None and blocks.type in (GGML.Q4_0, GGML.Q4_1) and blocks.shape[0] % 16 == 0


def dequantize(blocks: Blocks, dtype: torch.dtype = torch.float32) -> Tensor:
    """The exact values, rounded once to `dtype`; row by row, so that no float32 copy of a large tensor exists."""
    rows = len(blocks.data)
    if len(blocks.shape) < 2 or rows <= ROWS_AT_ONCE:
        return _dequantize(blocks).to(dtype).reshape(blocks.shape)
    values = torch.empty(blocks.shape, dtype=dtype)
    for start in range(0, rows, ROWS_AT_ONCE):
        part = blocks.data[start : start + ROWS_AT_ONCE]
        values[start : start + len(part)] = _dequantize(Blocks(blocks.type, (len(part), *blocks.shape[1:]), part))
    return values


def _dequantize(blocks: Blocks) -> Tensor:
    """float32; torch for the common encodings, which is ten times faster, gguf for the rest."""
    if blocks.type in (GGML.Q4_0, GGML.Q4_1):
        values, scales, minima = _nibbles(blocks)
        grouped = values.reshape(*scales.shape, GROUP) * scales[:, :, None] + minima[:, :, None]
        return grouped.reshape(blocks.shape)
    if blocks.type == GGML.Q8_0:
        scales, data = _split(blocks, 1)
        return (data.view(torch.int8) * scales[:, :, :1]).reshape(blocks.shape)
    if blocks.type in (GGML.F32, GGML.F16):
        return torch.from_numpy(np.array(blocks.data)).float()
    return blocks.dequantize()


def _nibbles(blocks: Blocks) -> tuple[Tensor, Tensor, Tensor]:
    """Q4_0 and Q4_1: values 0 … 15 `[out, in]`, scales and minima `[out, in / 32]`, float32.

    A block's 16 bytes hold elements 0 … 15 in their low and 16 … 31 in their high halves.
    """
    has_minima = blocks.type == GGML.Q4_1
    factors, data = _split(blocks, 2 if has_minima else 1)
    values = torch.cat([data & 15, data >> 4], dim=-1).reshape(blocks.shape)
    scales = factors[:, :, 0]
    return values, scales, factors[:, :, 1] if has_minima else -8 * scales


def _split(blocks: Blocks, factors: int) -> tuple[Tensor, Tensor]:
    """A block's leading float16 factors as float32 `[rows, groups, factors]`, and its bytes after them."""
    rows = len(blocks.data)
    size = gguf.GGML_QUANT_SIZES[blocks.type][1]
    raw = torch.from_numpy(np.array(blocks.data)).reshape(rows, -1, size)
    heads = raw[:, :, : 2 * factors].contiguous().view(torch.float16).float()
    return heads, raw[:, :, 2 * factors :].contiguous()
