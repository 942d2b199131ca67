"""Products with weights as they lie in a file, and in the same call what a network does around a product.

A step of a small network is hundreds of small operators, each of which costs a microsecond to call whatever it does:
where the product is our own, the norm before it, the gate, and the sum with the stream are computed in it.
"""

import warnings
from collections.abc import Callable, Sequence

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from gguf.constants import GGMLQuantizationType as GGML
from torch import Tensor

from engine.networks import operators
from engine.networks.blocks import Blocks
from engine.networks.kernels import MANY_ROWS, Head, Linear, RmsNorm, fast_bfloat16
from engine.networks.summary import Summary

# A matrix of a GGUF file, or floats `[out, in]`.
Matrix = Blocks | Tensor
FLOATS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class Stored:
    """Products with matrices below each other, `[rows, in]` → `[rows, all outs]`, float32; weights are not rounded.

    Args:
        matrices: in encodings that the operator takes, all of the same width.
        wide: makes a dense copy for many rows; without it the matrices as they lie serve all.
    """

    def __init__(
        self, matrices: Sequence[Matrix], bias: Tensor | None, wide: Callable[[], Linear] | None = None
    ) -> None:
        self._matrices = [one if isinstance(one, Tensor) else _in_order(one) for one in matrices]
        self._kinds = [operators.ENCODINGS[_encoding(matrix)] for matrix in matrices]
        self._bias = None if bias is None else bias.float()
        self._make_wide = None if all(map(serves_many_rows, matrices)) else wide
        self._wide: Linear | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return self.joined(x)

    def joined(
        self, x: Tensor, *, norm: RmsNorm | None = None, gate: int = operators.NO_GATE, added: Tensor | None = None
    ) -> Tensor:
        """The product of `norm(x)`, or of gate and up `[rows, 2 · in]`; plus `added`."""
        if self._make_wide is not None and len(x) >= MANY_ROWS:
            if self._wide is None:
                self._wide = self._make_wide()
            x = x if norm is None else norm(x)
            x = x if gate == operators.NO_GATE else opened(x, gelu=gate == operators.GELU)
            y = self._wide(x.to(torch.bfloat16)).float()
            return y if added is None else added + y
        weight, epsilon = (None, 0.0) if norm is None else (norm.weight, norm.epsilon)
        return operators.product(
            x, self._matrices, self._kinds, bias=self._bias, norm=weight, epsilon=epsilon, gate=gate, added=added
        )

    def sums_up(self) -> bool:
        """Whether `summary` is here, for one matrix without a bias."""
        return operators.used().sums_up and len(self._matrices) == 1 and self._bias is None

    def summary(self, x: Tensor, asked: Tensor, top: int, cap: float | None) -> Summary:
        """What is said of the product of `[rows, in]`, capped softly: see `operators.summary`."""
        return operators.summary(x, self._matrices[0], self._kinds[0], asked, top, cap)


class Rounded:
    """A product that wants bfloat16, in a network of float32."""

    def __init__(self, linear: Linear) -> None:
        self._linear = linear

    def __call__(self, x: Tensor) -> Tensor:
        return self._linear(x.to(torch.bfloat16)).float()


def takes(matrix: Matrix) -> bool:
    """Whether our operator multiplies with a matrix."""
    kind = _encoding(matrix)
    if kind not in operators.used().encodings or len(matrix.shape) != 2:
        return False
    return matrix.shape[1] % gguf.GGML_QUANT_SIZES[GGML[kind]][0] == 0


def serves_many_rows(matrix: Matrix) -> bool:
    """Whether our operator is as good for many rows as a dense copy: where no hardware multiplies bfloat16, always."""
    return not fast_bfloat16() or _encoding(matrix) in operators.used().for_many_rows


def _encoding(matrix: Matrix) -> str:
    """ggml's name."""
    return FLOATS.get(matrix.dtype, "") if isinstance(matrix, Tensor) else matrix.type.name


def _in_order(blocks: Blocks) -> Tensor:
    """A view of the file, or a copy where rows lie in another order there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the file cannot be written to
        return torch.from_numpy(np.ascontiguousarray(blocks.data))


def of_normed(linear: Linear, norm: RmsNorm, x: Tensor) -> Tensor:
    """`linear(norm(x))`."""
    return linear.joined(x, norm=norm) if isinstance(linear, Stored) else linear(norm(x))


def of_gated(linear: Linear, gate_up: Tensor, *, gelu: bool, added: Tensor | None = None) -> Tensor:
    """`linear(activation(gate) · up)`, plus `added`.

    Args:
        gate_up: `[rows, 2 · in]`.
        gelu: whether the activation is GELU's tanh form rather than SiLU.
    """
    if isinstance(linear, Stored):
        return linear.joined(gate_up, gate=operators.GELU if gelu else operators.SILU, added=added)
    y = linear(opened(gate_up, gelu=gelu))
    return y if added is None else added + y


def plus(stream: Tensor, linear: Linear, x: Tensor) -> Tensor:
    """`stream + linear(x)`."""
    return linear.joined(x, added=stream) if isinstance(linear, Stored) else stream + linear(x)


def summed(
    head: Head, normed: Callable[[Tensor], Tensor], cap: float | None = None
) -> Callable[[Tensor, Tensor, int], Summary] | None:
    """`engine.networks.watched.Anatomy.summary` of an output layer behind a norm; `None` where it cannot be."""
    product = head.product
    if not isinstance(product, Stored) or not product.sums_up():
        return None
    return lambda stream, asked, top: product.summary(normed(stream), asked, top, cap)


def opened(gate_up: Tensor, *, gelu: bool) -> Tensor:
    """`activation(gate) · up`."""
    gate, up = gate_up.chunk(2, -1)
    return (F.gelu(gate, approximate="tanh") if gelu else F.silu(gate)) * up
