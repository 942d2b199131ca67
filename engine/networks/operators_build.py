"""Compile `operators.cpp` for this machine and measure it: `python -m engine.networks.operators_build FOLDER`.

It runs in the background, as the least urgent process on the machine, and leaves a library and what was measured of it
in the folder. Where that cannot be, it leaves the reason.
"""

import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock, Timeout
from gguf.constants import GGMLQuantizationType as GGML
from torch import Tensor

from engine.base.errors import first_line
from engine.base.state import keep
from engine.networks import operators, small_weights
from engine.networks.blocks import Blocks, dequantize
from engine.networks.kernels import dense
from engine.networks.operators import BLOCKS, ENCODINGS, LIBRARY, MEASURED, Measured
from engine.networks.summary import Summary

# Norm of a product's error over its norm: 16-bit activations give 5e-5, bfloat16 gives 2e-3.
TOLERANCE = 5e-4
FLOAT_TOLERANCE = 1e-5
ATTENTION_TOLERANCE = 1e-5
SHAPE = (1536, 768)
ROWS = (1, 2, 4)
MANY = 40
LENGTH = 1024
VOCABULARY = 16_000
TOP = 10
SUMMED = ("values", "own", "log_mass", "nats")
REPEATS = 15


def main(where: Path) -> None:
    """Make the operators in a folder, unless another process is at it."""
    where.mkdir(parents=True, exist_ok=True)
    with suppress(Timeout), FileLock(where / "lock", blocking=False):
        if (where / MEASURED).exists():
            return
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory(dir=where) as building:
            try:
                made = compiled(Path(building))
                torch.ops.load_library(made)
                found = measure()
                made.chmod(0o700)
                made.replace(where / LIBRARY)
            except Exception as error:  # whatever compiler and torch say: it is kept, and torch's operators serve
                found = Measured(why_not=first_line(error))
        keep(where / MEASURED, found)


def compiled(building: Path) -> Path:
    """The library, made in a folder by torch's loader of extensions. Raises what it raises."""
    from torch.utils import cpp_extension

    for source in operators.SOURCES:
        shutil.copy(source, building)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # ninja's
    cpp_extension.load(
        "operators",
        [str(building / operators.SOURCE.name)],
        extra_cflags=list(operators.flags()),
        build_directory=str(building),
        is_python_module=False,
    )
    return building / LIBRARY


def measure() -> Measured:
    """Compare the loaded operators with torch's: see `Measured`."""
    products = {name: speed for name in ENCODINGS if (speed := _product(GGML[name]))}
    many = {name: _many(GGML[name]) for name in BLOCKS if name in products}
    return Measured(products, many, _attention(), _summary())


def _product(kind: GGML) -> float:
    """How many times as fast as torch's our product is, over one, two and four rows; 0 where it is wrong."""
    blocks = random_blocks(kind, SHAPE)
    exact = dequantize(blocks).double()
    stored = torch.from_numpy(blocks.data)
    floats = kind.name in operators.FLOATS
    theirs = dense(exact.float()) if floats else small_weights.linear([blocks], [None], roomy=False, ours=False)
    speeds = []
    for rows in ROWS:
        x = torch.randn(rows, SHAPE[1], generator=torch.Generator().manual_seed(rows))
        expected = x.double() @ exact.T
        got = operators.product(x, [stored], [ENCODINGS[kind.name]])
        tolerance = FLOAT_TOLERANCE if floats else TOLERANCE
        if not float((got - expected).norm()) <= tolerance * float(expected.norm()):
            return 0.0
        ours = partial(operators.product, x, [stored], [ENCODINGS[kind.name]])
        speeds.append(_speed(ours, partial(theirs, x if floats else x.to(torch.bfloat16))))
    return round(math.prod(speeds) ** (1 / len(speeds)), 2)


def _many(kind: GGML) -> float:
    """How many times as fast as with a dense bfloat16 copy our product is, over many rows."""
    blocks = random_blocks(kind, SHAPE)
    stored, theirs = torch.from_numpy(blocks.data), dense(dequantize(blocks, torch.bfloat16))
    x = torch.randn(MANY, SHAPE[1], generator=torch.Generator().manual_seed(MANY))
    ours = partial(operators.product, x, [stored], [ENCODINGS[kind.name]])
    return round(_speed(ours, lambda: theirs(x.to(torch.bfloat16)).float()), 2)


def _attention() -> float:
    kept = torch.randn(1, 6, LENGTH + 8, 64, generator=torch.Generator().manual_seed(0))
    keys, values = kept[:, :, :LENGTH].chunk(2, 1)
    queries = torch.randn(1, 3, 3, 64, generator=torch.Generator().manual_seed(1))
    scale = 64**-0.5
    expected = F.scaled_dot_product_attention(queries.double(), keys.double(), values.double(), scale=scale)
    got = operators.attention(queries, keys, values, None, scale)
    if not float((got - expected.reshape(1, -1)).abs().max()) <= ATTENTION_TOLERANCE:
        return 0.0
    return round(
        _speed(
            lambda: operators.attention(queries, keys, values, None, scale),
            lambda: F.scaled_dot_product_attention(queries, keys, values, scale=scale),
        ),
        2,
    )


def _summary() -> float:
    blocks = random_blocks(GGML.Q8_0, (VOCABULARY, SHAPE[1]))
    stored, kind = torch.from_numpy(blocks.data), ENCODINGS["Q8_0"]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(MANY, SHAPE[1], generator=generator) / SHAPE[1] ** 0.5
    asked = torch.randint(VOCABULARY, (MANY, 2), generator=generator)

    def ours() -> Summary:
        return operators.summary(x, stored, kind, asked, TOP, None)

    def theirs() -> Summary:
        return Summary.of(operators.product(x, [stored], [kind]), asked, TOP)

    got, expected = ours(), theirs()
    close = (torch.allclose(getattr(got, name), getattr(expected, name), rtol=1e-5, atol=1e-5) for name in SUMMED)
    if not all(close) or not torch.equal(got.above, expected.above):
        return 0.0
    return round(_speed(lambda: ours().nats, lambda: theirs().nats), 2)


def random_blocks(kind: GGML, shape: tuple[int, int]) -> Blocks:
    """A matrix of random blocks whose scales are numbers, or of random floats."""
    rng = np.random.default_rng(0)
    if kind.name in operators.FLOATS:
        return Blocks(kind, shape, gguf.quants.quantize(rng.standard_normal(shape, dtype=np.float32), kind))
    size, width = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (shape[0], shape[1] // size, width), dtype=np.uint8)
    factors = (rng.standard_normal((*data.shape[:2], 2)) * 0.02).astype(np.float16).view(np.uint8)
    both = 4 if kind in (GGML.Q4_1, GGML.Q5_1, GGML.Q2_K, GGML.Q4_K, GGML.Q5_K) else 2
    start = width - both if kind in (GGML.Q2_K, GGML.Q3_K, GGML.Q6_K) else 0
    data[:, :, start : start + both] = factors[:, :, :both]
    return Blocks(kind, shape, data.reshape(shape[0], -1))


def _speed(ours: Callable[[], Tensor], theirs: Callable[[], Tensor]) -> float:
    """Median of the ratios of times taken in turn."""

    def seconds(work: Callable[[], Tensor]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    ours(), theirs()
    return statistics.median(seconds(theirs) / seconds(ours) for _ in range(REPEATS))


if __name__ == "__main__":
    with suppress(OSError):
        os.nice(19)
    main(Path(sys.argv[1]))
