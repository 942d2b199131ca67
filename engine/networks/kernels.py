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

# From this many rows on, dense bfloat16 is faster than 4-bit weights, which cost the same unpacking again
# for every four rows. benchmarks/decode.py --kernels prints the products that gave this number.
MANY_ROWS = 8


# oneDNN lays weights out for a number of rows. A layout for 8 serves 1 to 40 rows; one for a single row takes
# twice as long as it for 2 rows of float32.
PACKED_FOR_ROWS = 8


class Linear(Protocol):
    """`y = x Wᵀ + b` for `x` `[rows, in]`, with the weights in whatever form is fastest."""

    def __call__(self, x: Tensor) -> Tensor: ...


@dataclass(slots=True)
class Dense:
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


class Int4:
    """4-bit weights in groups of 32 along the input, for few rows; a dense copy for many, made when first needed.

    Args:
        values: `[out, in]`, 0 … 15.
        scales, minima: `[out, in / 32]`, float32: a weight is `value · scale + minimum`.
    """

    def __init__(self, values: Tensor, scales: Tensor, minima: Tensor, bias: Tensor | None) -> None:
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.to(torch.int32), 1)
        # The operator computes (value − 8) · scale + zero.
        pairs = torch.stack([scales, minima + 8 * scales], dim=-1)
        self._scales = pairs.transpose(0, 1).contiguous().to(torch.bfloat16)  # [in / 32, out, 2]
        self._bias = bias
        self._nibbles = values[:, ::2] | (values[:, 1::2] << 4)
        self._exact = scales.half(), minima.half()
        self._wide: Linear | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[0] >= MANY_ROWS:
            return self._dense()(x)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self._packed, GROUP, self._scales)
        return y if self._bias is None else y + self._bias

    def _dense(self) -> Linear:
        if self._wide is None:
            scales, minima = self._exact
            values = torch.stack([self._nibbles & 15, self._nibbles >> 4], dim=-1).reshape(len(scales), -1, GROUP)
            weight = values * scales.float()[:, :, None] + minima.float()[:, :, None]
            self._wide = dense(weight.flatten(1).to(torch.bfloat16), self._bias)
        return self._wide


def dense(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The fastest correct product with float weights `[out, in]` on this machine."""
    if weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16) and packed_works(weight.dtype):
        return Dense(torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR_ROWS), bias)
    return Plain(weight, bias)


@cache
def packed_works(dtype: torch.dtype) -> bool:
    """Whether oneDNN's packed product is here and right for `dtype`."""

    def product(x: Tensor, weight: Tensor) -> Tensor:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), PACKED_FOR_ROWS)
        return torch.ops.mkldnn._linear_pointwise(x.to(dtype), packed, None, "none", [], "")

    return _right(product, 1e-4 if dtype == torch.float32 else 2e-2)


@cache
def int4_works() -> bool:
    """Whether the 4-bit product is here and right."""

    def product(x: Tensor, weight: Tensor) -> Tensor:
        values = (weight * 2 + 8).round().clamp(0, 15).to(torch.uint8)
        groups = (len(weight), weight.shape[1] // GROUP)
        layer = Int4(values, torch.full(groups, 0.5), torch.full(groups, -4.0), None)
        return layer(x.to(torch.bfloat16))

    return _right(product, 2e-2, rounded=True)


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
    lines.append(f"bfloat16 in hardware: {'yes' if fast_bfloat16() else 'no'}")
    return lines


class Head:
    """The output layer: logits over the vocabulary, float32.

    A bfloat16 product rounds logits to steps of 0.125, which makes neighbours tie; the most probable
    ones are therefore computed again in float32.
    """

    REFINED = 128

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight  # [vocabulary, hidden]
        self._linear = dense(weight)

    def __call__(self, hidden: Tensor) -> Tensor:
        """`[rows, hidden]` → `[rows, vocabulary]`."""
        logits = self._linear(hidden).float()
        if self._weight.dtype == torch.bfloat16:
            top = logits.topk(min(self.REFINED, logits.shape[-1]), sorted=False).indices  # [rows, refined]
            exact = torch.einsum("rd,rkd->rk", hidden.float(), self._weight[top].float())
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
        self._weight = weight
        self._epsilon = epsilon
        self._signs = torch.tensor([[1.0], [-1.0]]).to(weight)
        self._twice = weight.expand(2, -1).contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        if x.dim() == 2 and len(x) <= self.FEW and x.device.type == "cpu":
            return F.layer_norm(x[:, None] * self._signs, self._twice.shape, self._twice, None, self._epsilon)[
                :, 0
            ].contiguous()
        return F.rms_norm(x, self._weight.shape, self._weight, self._epsilon)


def concatenated(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Biases of fused products; `None` where there are none."""
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None
