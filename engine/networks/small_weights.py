"""Products with a GGUF file's weights in about as few bits as the file has, and what they take in memory.

Where our own operator is in use (`operators`), matrices in the encodings it takes stay as they lie, floats too. Else
Q4_0, Q4_1 and Q4_K are 4-bit groups of 32, each with a scale and a minimum: they stay exactly that, their scales
rounded to bfloat16, for so torch's operator takes them. All other encodings become 8-bit rows with one scale each; a
matrix whose outliers would make that too coarse becomes 8-bit groups of 32.
"""

import math
import warnings
from collections.abc import Callable, Sequence

import gguf
import torch
from gguf.constants import GGMLQuantizationType as GGML
from torch import Tensor

from engine.networks import operators
from engine.networks.blocks import DECODERS, FOUR_BIT, GROUP, ROWS, Blocks, decode, dequantize, exact, four_bit, parts
from engine.networks.kernels import (
    Int4,
    Int8,
    Int8Rows,
    Joined,
    Linear,
    Sliced,
    concatenated,
    dense,
    eight_bit,
    fast_bfloat16,
    int4_works,
    int8_rows_work,
    int8_works,
    pack_four_bit,
)
from engine.networks.stored import Rounded, Stored, serves_many_rows, takes

# Root mean square of the rounding over that of the weights, for a matrix in 8-bit rows. Q8_0 itself rounds by 0.5 %,
# Q6_K by 2 %, Q4_K by 8 %; rows of normally distributed weights are rounded by 0.9 %.
COARSEST = 0.02

# What the forms take, bytes a weight.
FOUR, FOUR_ROOMY, EIGHT, BFLOAT16 = 0.625, 2.625, 1.05, 2.0


def work() -> bool:
    """Whether the products with few bits are here and right."""
    return int4_works()


def linear(weights: Sequence[Blocks], biases: Sequence[Tensor | None], *, roomy: bool, ours: bool = True) -> Linear:
    """One product for several matrices side by side; float32 in and out where it is our operator's, else bfloat16.

    Args:
        roomy: whether weights may be kept a second time, for many rows.
        ours: whether our own operator may be used.
    """
    if ours and all(map(takes, weights)):
        again = roomy and all(map(_has_wide, weights))
        return Stored(weights, concatenated(biases), _wide(weights, concatenated(biases)) if again else None)
    if all(map(_stays_four_bit, weights)) and all(blocks.shape[0] % ROWS == 0 for blocks in weights[:-1]):
        return _four_bits(weights, concatenated(biases), roomy=roomy)
    if not any(map(_stays_four_bit, weights)):
        return _eight_bits(weights, concatenated(biases))
    return Joined([linear([blocks], [bias], roomy=roomy, ours=False) for blocks, bias in zip(weights, biases)])


def linear_of_float32(weights: Sequence[Blocks], biases: Sequence[Tensor | None], *, roomy: bool) -> Linear:
    """`linear` with float32 in and out, whichever it is."""
    product = linear(weights, biases, roomy=roomy)
    return product if isinstance(product, Stored) else Rounded(product)


def output(blocks: Blocks) -> tuple[Linear, bool]:
    """The product of the output layer, of float32 or bfloat16, and whether it rounds, so that the most probable outputs
    want computing again."""
    if takes(blocks):
        return Stored([blocks], None), False
    if not (int8_works() or int8_rows_work()):
        return Rounded(dense(dequantize(blocks, torch.bfloat16), roomy=False)), True
    values, scales, _error = _rows([blocks])
    return Int8(values, scales) if int8_works() else Rounded(Int8Rows(values, scales)), True


def _has_wide(blocks: Blocks) -> bool:
    """Whether many rows may be multiplied with a bfloat16 copy, which would round floats."""
    return blocks.type.name not in operators.FLOATS


def _stays_four_bit(blocks: Blocks) -> bool:
    # The packed operator wants outputs in multiples of 16.
    return blocks.type in FOUR_BIT and blocks.shape[0] % 16 == 0


def _four_bits(weights: Sequence[Blocks], bias: Tensor | None, *, roomy: bool) -> Linear:
    rows, width = sum(blocks.shape[0] for blocks in weights), weights[0].shape[1]
    packed = torch.empty(rows, width // 2, dtype=torch.uint8)
    factors = torch.empty(width // GROUP, rows, 2, dtype=torch.bfloat16)
    start = 0
    for blocks in weights:
        for part in parts(blocks):
            some = slice(start, start + part.shape[0])
            packed[some], factors[:, some] = pack_four_bit(*four_bit(part))
            start += part.shape[0]

    return Int4(packed, factors, bias, _wide(weights, bias) if roomy else None)


def _wide(weights: Sequence[Blocks], bias: Tensor | None) -> Callable[[], Linear]:
    return lambda: dense(torch.cat([dequantize(blocks, torch.bfloat16) for blocks in weights]), bias)


def _eight_bits(weights: Sequence[Blocks], bias: Tensor | None) -> Linear:
    if int8_rows_work():
        values, scales, error = _rows(weights)
        if error <= COARSEST:
            return Int8Rows(values, scales, bias)
        rows, width = values.shape
        if rows % 16 == 0 and width % GROUP == 0:
            return _sliced(weights, bias)
    return dense(torch.cat([dequantize(blocks, torch.bfloat16) for blocks in weights]), bias, roomy=False)


def _rows(weights: Sequence[Blocks]) -> tuple[Tensor, Tensor, float]:
    """8-bit rows of matrices below each other, their scales, and the error that the rounding makes: see `COARSEST`."""
    shape = sum(blocks.shape[0] for blocks in weights), weights[0].shape[1]
    values, scales = torch.empty(shape, dtype=torch.int8), torch.empty(shape[0], dtype=torch.bfloat16)
    squares, start = 0.0, 0
    for blocks in weights:
        for part in map(exact, parts(blocks)):
            some = slice(start, start + len(part))
            squares += float(torch.linalg.vector_norm(part)) ** 2
            values[some], scales[some] = eight_bit(part)
            start += len(part)
    rounding = float(scales.float().square().sum()) * shape[1] / 12
    return values, scales, math.sqrt(rounding / squares) if squares else 0.0


def _sliced(weights: Sequence[Blocks], bias: Tensor | None) -> Linear:
    values, scales = [], []
    for blocks in weights:
        for part in map(exact, parts(blocks)):
            groups = part.unflatten(-1, (-1, GROUP))
            scale = (groups.abs().amax(-1) / 127).clamp(min=1e-12)
            values.append((groups / scale[:, :, None]).round_().to(torch.int8).flatten(1))
            scales.append(scale)
    return Sliced(torch.cat(values), torch.cat(scales), bias)


class FileRows:
    """Rows decoded from the file when they are looked up; they take no memory that the system could not take back."""

    KINDS = frozenset((*DECODERS, GGML.F16, GGML.F32))

    def __init__(self, blocks: Blocks, dtype: torch.dtype) -> None:
        self.shape = blocks.shape
        self.dtype = dtype
        self.device = torch.device("cpu")
        self._kind = blocks.type
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the file cannot be written to
            self._stored = torch.from_numpy(blocks.data)

    def __call__(self, ids: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        stored = self._stored[ids.flatten()]
        rows = (decode(stored, self._kind) if self._kind in DECODERS else stored).to(dtype or self.dtype)
        return rows if ids.dim() == 1 else rows.unflatten(0, ids.shape)


def bytes_of(name: str, blocks: Blocks, *, roomy: bool) -> float:
    """What a tensor will take in memory."""
    numbers = math.prod(blocks.shape)
    if len(blocks.shape) == 1:
        return 4 * numbers
    eight = EIGHT if int8_rows_work() else BFLOAT16
    size, width = gguf.GGML_QUANT_SIZES[blocks.type]
    if takes(blocks) and name != "model.embed_tokens.weight":
        again = roomy and name != "lm_head.weight" and _has_wide(blocks) and not serves_many_rows(blocks)
        return numbers * (width / size + BFLOAT16 * again)
    if name == "model.embed_tokens.weight":
        return numbers * (width / size if blocks.type in FileRows.KINDS else BFLOAT16)
    if _stays_four_bit(blocks) and name != "lm_head.weight":
        return numbers * (FOUR_ROOMY if roomy and fast_bfloat16() else FOUR)  # see `Int4`
    return numbers * eight
