"""Matrix products with weights packed once, and the check that each packed operator is right here.

The packed operators are private to torch, so each is probed with a small known product before it
is used; one that is absent or wrong is replaced by `F.linear`, and `notes()` says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 32

# From this many rows on, dense bfloat16 is faster than 4-bit weights, which cost the same unpacking again for
# every four rows. These two limits, and FEW_ROWS, come from `benchmarks/kernels.py`, which prints the table.
MANY_ROWS = 16

# Up to so many rows, a float32 product with the weights as they lie reads memory 1.5 times as fast as oneDNN's layout.
FEW_ROWS = 2

# oneDNN lays weights out for a number of rows. A layout for 8 serves 1 to 40 rows; one for a single row takes
# twice as long as it for 2 rows of float32.
PACKED_FOR_ROWS = 8


class Linear(Protocol):
    """`y = x Wᵀ + b` for `x` `[rows, in]`, with the weights in whatever form is fastest."""

    def __call__(self, x: Tensor) -> Tensor: ...


@dataclass(slots=True)
class Packed:
    """Float weights in oneDNN's blocked layout."""

    weight: Tensor  # packed
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


@dataclass(slots=True)
class Plain:
    """Float weights as they are."""

    weight: Tensor  # [out, in]
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Float32:
    """float32 weights on the CPU: as they are for few rows; packed for more, a second copy made when first needed.

    Args:
        roomy: whether there may be a second copy; without it the weights as they are serve all.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, roomy: bool) -> None:
        self._weight = weight
        self._bias = bias
        self._roomy = roomy
        self._wide: Linear | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._roomy and len(x) > FEW_ROWS:
            if self._wide is None:
                self._wide = Packed(pack(self._weight), self._bias)
            return self._wide(x)
        # A matrix-vector product is slower than one with two columns.
        columns = x if len(x) > 1 else torch.cat([x, x])
        y = torch.mm(self._weight, columns.t()).t()[: len(x)].contiguous()
        return y if self._bias is None else y + self._bias


class Int4:
    """4-bit weights in groups of 32 along the input, for few rows; a dense copy for many, made when first needed.

    Args:
        packed, factors: see `pack_four_bit`.
        wide: makes the dense copy; without it 4-bit serves all.
    """

    def __init__(
        self, packed: Tensor, factors: Tensor, bias: Tensor | None, wide: Callable[[], Linear] | None = None
    ) -> None:
        self._packed = packed
        self._factors = factors
        self._bias = bias
        # Without bfloat16 in hardware a dense product takes four times as long as this one, at 40 rows too.
        self._make_wide = wide if fast_bfloat16() else None
        self._wide: Linear | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._make_wide is not None and len(x) >= MANY_ROWS:
            if self._wide is None:
                self._wide = self._make_wide()
            return self._wide(x)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self._packed, GROUP, self._factors)
        return y if self._bias is None else y + self._bias


class Int8:
    """8-bit weights with one scale for each output, for the output layer of low-bit models.

    The operator multiplies 8-bit whole numbers. An input is therefore given as two rows, its 8 leading bits and
    the 8 that follow, so that only the weights are rounded.

    Args:
        values, scales: see `eight_bit`.
    """

    def __init__(self, values: Tensor, scales: Tensor) -> None:
        self._packed = torch.ops.onednn.qlinear_prepack(values, None)
        self._scales = scales.float()
        self._zeros = torch.zeros(len(scales), dtype=torch.int32)
        self._one = torch.tensor(1.0)
        self._middle = torch.tensor(128, dtype=torch.int32)
        self._low = torch.tensor(1 / 254)

    def __call__(self, x: Tensor) -> Tensor:
        """`[rows, in]` → `[rows, out]`, float32."""
        unit = x.float().abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127  # [rows, 1]
        exact = x.float() / unit
        high = exact.round()
        low = (exact - high) * 254
        bytes_ = torch.cat([high, low.round()]).add_(128).to(torch.uint8)
        y = torch.ops.onednn.qlinear_pointwise(
            bytes_, self._one, self._middle, self._packed, self._scales, self._zeros,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return torch.addcmul(y[: len(x)], y[len(x) :], self._low).mul_(unit)


class Int8Rows:
    """8-bit weights with one scale for each output, as they lie; for few rows.

    Args:
        values, scales: see `eight_bit`.
    """

    def __init__(self, values: Tensor, scales: Tensor, bias: Tensor | None = None) -> None:
        self._values = values
        self._scales = scales
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        y = torch.ops.aten._weight_int8pack_mm(x, self._values, self._scales)
        return y if self._bias is None else y + self._bias


class Sliced:
    """8-bit weights in groups of 32 as two 4-bit products, of their leading and of their following bits.

    Args:
        values: `[out, in]`, int8.
        scales: `[out, in / 32]`, float32.
    """

    def __init__(self, values: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        halves = torch.cat([(values >> 4) + 8, values & 15], dim=1)
        steps = torch.cat([16 * scales, scales], dim=1)
        minima = torch.cat([-128 * scales, torch.zeros_like(scales)], dim=1)
        self._product = Int4(*pack_four_bit(halves, steps, minima), bias)

    def __call__(self, x: Tensor) -> Tensor:
        return self._product(torch.cat([x, x], dim=-1))


@dataclass(slots=True)
class Joined:
    """Products of one input whose weights have several forms, outputs side by side."""

    parts: Sequence[Linear]

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], dim=-1)


def pack_four_bit(values: Tensor, scales: Tensor, minima: Tensor) -> tuple[Tensor, Tensor]:
    """Weights `value · scale + minimum` for `Int4`: packed `[out, in / 2]`, and factors `[in / 32, out, 2]`.

    Args:
        values: `[out, in]`, 0 … 15. Rows are packed in blocks of 64 or 32, so that packed parts of whole blocks
            may be put below each other.
        scales, minima: `[out, in / 32]`, float32.
    """
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.to(torch.int32), 1)
    # The operator computes (value − 8) · scale + zero.
    pairs = torch.stack([scales, minima + 8 * scales], dim=-1).to(torch.bfloat16)
    return packed, pairs.transpose(0, 1).contiguous()


def eight_bit(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `[out, in]` as int8 and one bfloat16 scale each, `[out]`."""
    largest = weight.abs().amax(1).clamp(min=1e-12)
    # Upwards, so that the largest value is at most 127 of the rounded scale.
    scales = (largest * (1.004 / 127)).to(torch.bfloat16)
    return weight.mul(1 / scales.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8), scales


def pack(weight: Tensor) -> Tensor:
    """A float weight `[out, in]` in oneDNN's layout."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR_ROWS)


def dense(weight: Tensor, bias: Tensor | None = None, *, roomy: bool = True) -> Linear:
    """The fastest correct product with float weights `[out, in]` on this machine.

    Args:
        roomy: whether a second copy of the weights may be kept.
    """
    if weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16) and packed_works(weight.dtype):
        if weight.dtype == torch.float32:
            return Float32(weight, bias, roomy=roomy)
        return Packed(pack(weight), bias)
    return Plain(weight, bias)


@cache
def packed_works(dtype: torch.dtype) -> bool:
    """Whether oneDNN's packed product is here and right for `dtype`."""

    def product(x: Tensor, weight: Tensor) -> Tensor:
        return Packed(pack(weight.to(dtype)), None)(x.to(dtype))

    return _right(product, 1e-4 if dtype == torch.float32 else 2e-2)


@cache
def int4_works() -> bool:
    """Whether the 4-bit product is here and right."""

    def product(x: Tensor, weight: Tensor) -> Tensor:
        values = (weight * 2 + 8).round().clamp(0, 15).to(torch.uint8)
        groups = (len(weight), weight.shape[1] // GROUP)
        scales, minima = torch.full(groups, 0.5), torch.full(groups, -4.0)
        packed, factors = pack_four_bit(values, scales, minima)
        parts = [pack_four_bit(values[some], scales[some], minima[some])[0] for some in (slice(0, 64), slice(64, None))]
        if not torch.equal(torch.cat(parts), packed):
            raise RuntimeError("parts are packed otherwise")
        return Int4(packed, factors, None)(x.to(torch.bfloat16))

    return _right(product, 2e-2, rounded=True)


@cache
def int8_works() -> bool:
    """Whether the 8-bit product is here, in hardware, and right."""
    if not getattr(torch.cpu, "_is_vnni_supported", lambda: False)():
        return False
    return _right(lambda x, weight: Int8(*eight_bit(weight))(x), 2e-2)


@cache
def int8_rows_work() -> bool:
    """Whether the product with 8-bit weights and bfloat16 inputs is here and right."""
    return _right(lambda x, weight: Int8Rows(*eight_bit(weight))(x.to(torch.bfloat16)), 2e-2)


def _right(product: Callable[[Tensor, Tensor], Tensor], tolerance: float, *, rounded: bool = False) -> bool:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 64, generator=generator).clamp(-4, 3.5)
    if rounded:
        weight = (weight * 2).round() / 2
    try:
        for rows in (1, 3, 5):
            x = torch.randn(rows, 64, generator=generator).to(torch.bfloat16).float()
            expected = x @ weight.T
            got = product(x, weight).float()
            if not torch.allclose(got, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())):
                return False
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return True


@cache
def fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def notes() -> list[str]:
    """Which products run here, one line each."""
    packed = {name: packed_works(getattr(torch, name)) for name in ("float32", "bfloat16")}
    lines = [f"{name}: {'oneDNN, packed' if works else 'F.linear'}" for name, works in packed.items()]
    lines.append(f"4-bit: {'int4 in groups of 32' if int4_works() else 'dequantised to bfloat16'}")
    lines.append(f"8-bit: {'int8 with a scale for each row' if int8_rows_work() else 'dequantised to bfloat16'}")
    lines.append(f"output layer of low-bit models: {'8-bit' if int8_works() or int8_rows_work() else 'bfloat16'}")
    lines.append(f"bfloat16 in hardware: {'yes' if fast_bfloat16() else 'no'}")
    return lines


class Rows(Protocol):
    """Rows of a matrix `[count, width]`, such as embeddings, wherever they lie."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def __call__(self, ids: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """`[…]` → `[…, width]`, in the rows' own `dtype` or another."""
        ...


class DenseRows:
    """Rows of a tensor, by default in its own `dtype`."""

    def __init__(self, weight: Tensor, dtype: torch.dtype | None = None) -> None:
        self.weight = weight
        self.shape, self.dtype, self.device = tuple(weight.shape), dtype or weight.dtype, weight.device

    def __call__(self, ids: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return self.weight[ids.to(self.device)].to(dtype or self.dtype)


class Head:
    """The output layer: logits over the vocabulary, float32.

    A bfloat16 product rounds logits to steps of 0.125, which makes neighbours tie, and an 8-bit one rounds the
    weights; the most probable ones are therefore computed again in float32.

    Args:
        linear: the product.
        weights: its weights, exactly.
        refined: whether what the product gives is rounded.

    Attributes:
        weights: as above.
    """

    REFINED = 64

    def __init__(self, linear: Linear, weights: Rows, *, refined: bool) -> None:
        self._linear = linear
        self.weights = weights
        self._rows = weights if refined else None

    @classmethod
    def dense(cls, weight: Tensor, *, roomy: bool = True) -> "Head":
        """Of float weights `[vocabulary, hidden]`."""
        return cls(dense(weight, roomy=roomy), DenseRows(weight), refined=weight.dtype == torch.bfloat16)

    @property
    def product(self) -> Linear | None:
        """What gives the logits, where nothing is computed again."""
        return self._linear if self._rows is None else None

    def __call__(self, hidden: Tensor) -> Tensor:
        """`[rows, hidden]` → `[rows, vocabulary]`."""
        logits = self._linear(hidden).float()
        if self._rows is not None:
            top = logits.topk(min(self.REFINED, logits.shape[-1]), sorted=False).indices  # [rows, refined]
            exact = (hidden.float()[:, None] * self._rows(top, torch.float32)).sum(-1)
            logits.scatter_(1, top, exact)
        return logits


class RmsNorm:
    """Root-mean-square norm (Zhang and Sennrich 2019) over the last dimension.

    torch has a fused CPU kernel for the layer norm but not for this one. Of a vector followed by its
    negative the mean is zero, so the layer norm of the two is the RMS norm of the one, in half the time;
    that pays for the few rows of decoding.
    """

    FEW = 4

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        self.weight = weight
        self.epsilon = epsilon
        self._signs = torch.tensor([[1.0], [-1.0]]).to(weight)
        self._twice = weight.expand(2, -1).contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        if x.dim() == 2 and len(x) <= self.FEW and x.device.type == "cpu":
            return F.layer_norm(x[:, None] * self._signs, self._twice.shape, self._twice, None, self.epsilon)[
                :, 0
            ].contiguous()
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


def concatenated(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Biases of fused products; `None` where there are none."""
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None
