"""Blocks of a GGUF file: their exact values, and as 4-bit groups where that is what they are.

torch decodes the common encodings, ten times as fast as the gguf library, which decodes the rest. The layouts are
ggml's (`ggml-common.h`, `ggml-quants.c`). Bytes come as `[rows, blocks, bytes of a block]`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType as GGML
from torch import Tensor

GROUP = 32
# Few enough that a part's float32 values stay in a processor's cache.
NUMBERS_AT_ONCE = 250_000
# Parts begin at multiples of so many rows, as packed 4-bit blocks do.
ROWS = 64


@dataclass(frozen=True)
class Blocks:
    """A tensor as it lies in the file.

    Attributes:
        type: ggml's name of the encoding, such as `Q4_1`, or `F32`.
        shape: of the decoded tensor, torch's order.
        stored: memory-mapped; `[rows, bytes of a row]` for quantised types, else the numbers.
        paired_heads: heads whose rows lie in llama.cpp's rotary order, pairs side by side; `data` has transformers'.
    """

    type: GGML
    shape: tuple[int, ...]
    stored: np.ndarray = field(repr=False)
    paired_heads: int = 0

    @property
    def data(self) -> np.ndarray:
        """The bytes or numbers in the order of transformers' rows."""
        if not self.paired_heads:
            return self.stored
        rows = self.stored.reshape(
            self.paired_heads, self.shape[0] // self.paired_heads // 2, 2, *self.stored.shape[1:]
        )
        return rows.swapaxes(1, 2).reshape(self.stored.shape)

    def dequantize(self) -> Tensor:
        """The exact values, float32, by the gguf library."""
        values = gguf.quants.dequantize(np.ascontiguousarray(self.data), self.type)
        return torch.from_numpy(np.array(values, dtype=np.float32)).reshape(self.shape)


def dequantize(blocks: Blocks, dtype: torch.dtype = torch.float32) -> Tensor:
    """The exact values, rounded once to `dtype`; row by row, so that no float32 copy of a large tensor exists."""
    if len(blocks.shape) < 2:
        return exact(blocks).to(dtype)
    values = torch.empty(blocks.shape, dtype=dtype)
    start = 0
    for part in parts(blocks):
        values[start : start + len(part.stored)] = exact(part)
        start += len(part.stored)
    return values


def parts(blocks: Blocks) -> Iterator[Blocks]:
    """A tensor a few rows at a time."""
    data, width = blocks.data, math.prod(blocks.shape[1:])
    count = max(1, NUMBERS_AT_ONCE // width // ROWS) * ROWS
    for start in range(0, len(data), count):
        rows = data[start : start + count]
        yield Blocks(blocks.type, (len(rows), *blocks.shape[1:]), rows)


def exact(blocks: Blocks) -> Tensor:
    """The values of a tensor or part whose rows are in order, float32."""
    if blocks.type in (GGML.F32, GGML.F16):
        return torch.from_numpy(np.array(blocks.data)).float().reshape(blocks.shape)
    if blocks.type not in DECODERS:
        return blocks.dequantize()
    rows = blocks.data.reshape(-1, blocks.stored.shape[-1])
    return decode(torch.from_numpy(np.array(rows)), blocks.type).reshape(blocks.shape)


def decode(stored: Tensor, kind: GGML) -> Tensor:
    """Rows of one of `DECODERS`' encodings, `[rows, bytes of a row]`, as float32 `[rows, in]`."""
    size = gguf.GGML_QUANT_SIZES[kind][1]
    return DECODERS[kind](stored.unflatten(-1, (-1, size))).flatten(1)


def four_bit(blocks: Blocks) -> tuple[Tensor, Tensor, Tensor]:
    """Of a part in Q4_0, Q4_1 or Q4_K, exactly: values 0 … 15 `[out, in]`, scales and minima `[out, in / 32]`."""
    rows = torch.from_numpy(np.array(blocks.stored))
    raw = rows.view(len(rows), -1, gguf.GGML_QUANT_SIZES[blocks.type][1])
    values, scales, minima = FOUR_BIT[blocks.type](raw)
    return values.reshape(blocks.shape), scales.flatten(1), minima.flatten(1)


# Every 16-bit float by its bits, for a trace cannot look at bits as another type. By numpy: torch would start threads.
_BITS = np.arange(1 << 16, dtype=np.uint16)
HALVES = torch.from_numpy(_BITS.view(np.float16).astype(np.float32))
# What the nibbles of IQ4_NL and IQ4_XS stand for.
_CURVE = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
IQ4 = torch.from_numpy(np.array(_CURVE, dtype=np.float32))
BFLOATS = torch.from_numpy((_BITS.astype(np.uint32) << 16).view(np.float32))


def _signed(data: Tensor) -> Tensor:
    """Bytes as whole numbers from -128 to 127."""
    return (data ^ 128).to(torch.int16) - 128


def _half(raw: Tensor, start: int) -> Tensor:
    """A float16 factor of each block as float32, `[rows, blocks, 1]`."""
    if not torch.jit.is_tracing():
        return raw[:, :, start : start + 2].contiguous().view(torch.float16).float()
    return HALVES[raw[:, :, start : start + 1].int() | (raw[:, :, start + 1 : start + 2].int() << 8)]


def _grouped(values: Tensor, scales: Tensor) -> Tensor:
    """Values of a block `[rows, blocks, n]` by group, `[rows, blocks, groups, n / groups]`."""
    return values.unflatten(-1, (scales.shape[-1], -1))


def _nibbles(data: Tensor) -> Tensor:
    """Of each 16 or 32 bytes the low halves, then the high ones."""
    return torch.cat([data & 15, data >> 4], dim=-1)


def _bits(data: Tensor, groups: int) -> Tensor:
    """Bits 0 … groups - 1 of each byte, one group after the other, `[rows, blocks, groups · bytes]`."""
    shifts = torch.arange(groups, dtype=torch.uint8)[:, None]
    return ((data[:, :, None] >> shifts) & 1).flatten(2)


def _q4_0(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scales = _half(raw, 0)
    return _nibbles(raw[:, :, 2:]), scales, -8 * scales


def _q4_1(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _nibbles(raw[:, :, 4:]), _half(raw, 0), _half(raw, 2)


def _fifth_bit(raw: Tensor) -> Tensor:
    """Of Q5_0 and Q5_1: bit i of four bytes is element i's fifth."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return ((raw[:, :, :, None] >> shifts) & 1).flatten(2) << 4


def _bfloat16(raw: Tensor) -> Tensor:
    return BFLOATS[raw[:, :, 0].int() | (raw[:, :, 1].int() << 8)]


def _q5_0(raw: Tensor) -> Tensor:
    values = (_nibbles(raw[:, :, 6:]) | _fifth_bit(raw[:, :, 2:6])).float() - 16
    return _half(raw, 0) * values


def _q5_1(raw: Tensor) -> Tensor:
    return _half(raw, 0) * (_nibbles(raw[:, :, 8:]) | _fifth_bit(raw[:, :, 4:8])) + _half(raw, 2)


def _q8_0(raw: Tensor) -> Tensor:
    return _signed(raw[:, :, 2:]) * _half(raw, 0)


def _six_bits(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Of Q4_K and Q5_K: scales and minima of a block's 8 groups, `[rows, blocks, 8]`."""
    packed = raw[:, :, 4:16]
    first, second, third = packed[:, :, :4], packed[:, :, 4:8], packed[:, :, 8:]
    scales = torch.cat([first & 63, (third & 15) | ((first >> 6) << 4)], dim=-1)
    minima = torch.cat([second & 63, (third >> 4) | ((second >> 6) << 4)], dim=-1)
    return _half(raw, 0) * scales, _half(raw, 2) * minima


def _q4_k(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scales, minima = _six_bits(raw)
    return _nibbles(raw[:, :, 16:].unflatten(-1, (4, 32))).flatten(2), scales, -minima


def _q5_k(raw: Tensor) -> Tensor:
    scales, minima = _six_bits(raw)
    fifth = _bits(raw[:, :, 16:48], 8) << 4
    values = _nibbles(raw[:, :, 48:].unflatten(-1, (4, 32))).flatten(2) | fifth
    return scales[..., None] * _grouped(values, scales) - minima[..., None]


def _q6_k(raw: Tensor) -> Tensor:
    low = _nibbles(raw[:, :, :128].unflatten(-1, (2, 64)))  # [rows, blocks, 2, 128]
    high = _pairs(raw[:, :, 128:192])
    values = (low | (high << 4)).flatten(2).float() - 32
    scales = _half(raw, 208) * _signed(raw[:, :, 192:208])
    return scales[..., None] * _grouped(values, scales)


def _pairs(data: Tensor) -> Tensor:
    """Two bits each: of each 32 bytes the lowest pairs, then those above, `[rows, blocks, halves, 128]`."""
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]
    return ((data.unflatten(-1, (-1, 1, 32)) >> shifts) & 3).flatten(3)


def _q2_k(raw: Tensor) -> Tensor:
    factors = raw[:, :, :16]
    scales, minima = _half(raw, 80) * (factors & 15), _half(raw, 82) * (factors >> 4)
    values = _pairs(raw[:, :, 16:80]).flatten(2)
    return scales[..., None] * _grouped(values, scales) - minima[..., None]


def _q3_k(raw: Tensor) -> Tensor:
    packed = raw[:, :, 96:108]
    low, top = packed[:, :, :8], packed[:, :, 8:]
    high = torch.cat([(top >> shift) & 3 for shift in (0, 2, 4, 6)], dim=-1)  # [rows, blocks, 16]
    scales = _half(raw, 108) * ((torch.cat([low & 15, low >> 4], dim=-1) | (high << 4)).float() - 32)
    values = _pairs(raw[:, :, 32:96]).flatten(2).float() + 4 * _bits(raw[:, :, :32], 8) - 4
    return scales[..., None] * _grouped(values, scales)


def _iq4_nl(raw: Tensor) -> Tensor:
    return _half(raw, 0) * IQ4[_nibbles(raw[:, :, 2:]).int()]


def _iq4_xs(raw: Tensor) -> Tensor:
    """8 scales of 6 bits, less 32: their lower four bits lie in four bytes, the upper two of all in two."""
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8)
    upper = ((raw[:, :, 2:4, None] >> shifts) & 3).flatten(2)  # [rows, blocks, 8]
    lower = torch.stack([raw[:, :, 4:8] & 15, raw[:, :, 4:8] >> 4], dim=-1).flatten(2)
    scales = _half(raw, 0) * ((lower | (upper << 4)).float() - 32)
    values = IQ4[_nibbles(raw[:, :, 8:].unflatten(-1, (8, 16))).flatten(2).int()]
    return scales[..., None] * _grouped(values, scales)


def _affine(split: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]) -> Callable[[Tensor], Tensor]:
    def values_of(raw: Tensor) -> Tensor:
        values, scales, minima = split(raw)
        return _grouped(values, scales) * scales[..., None] + minima[..., None]

    return values_of


FOUR_BIT: dict[GGML, Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]] = {
    GGML.Q4_0: _q4_0,
    GGML.Q4_1: _q4_1,
    GGML.Q4_K: _q4_k,
}
DECODERS: dict[GGML, Callable[[Tensor], Tensor]] = {
    **{kind: _affine(split) for kind, split in FOUR_BIT.items()},
    GGML.BF16: _bfloat16,
    GGML.Q5_0: _q5_0,
    GGML.Q5_1: _q5_1,
    GGML.Q8_0: _q8_0,
    GGML.Q2_K: _q2_k,
    GGML.Q3_K: _q3_k,
    GGML.Q5_K: _q5_k,
    GGML.Q6_K: _q6_k,
    GGML.IQ4_NL: _iq4_nl,
    GGML.IQ4_XS: _iq4_xs,
}
