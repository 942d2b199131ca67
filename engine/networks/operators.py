"""Our two operators in C++ (`operators.cpp`, with its headers): whether they are here, what was measured of them.

They are compiled once for a machine by a process in the background that nobody waits for (`operators_build`), which
then compares them with torch's: an encoding is used where the product with it is right and faster. Without a compiler
everything runs on torch's operators.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from engine.base import paths
from engine.base.language import _
from engine.base.state import recall
from engine.networks.summary import Summary

# ggml's numbers of the encodings that `product` takes.
FLOATS = {"F32": 0, "F16": 1, "BF16": 30}
BLOCKS = {
    "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8,
    "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20, "IQ4_XS": 23,
}  # fmt: skip
ENCODINGS = FLOATS | BLOCKS
NO_GATE, SILU, GELU = range(3)
# `attention` reads so many numbers of a head at once.
HEAD_STEP = 16
# Blocks as they lie are exact and take the least memory, for which a product may be a little slower than torch's.
WORTH = 0.8
# With many rows, of the speed of a dense bfloat16 copy, which rounds and takes three times the memory.
WORTH_OF_DENSE = 0.6
MAX_BYTES = 100_000

SOURCE = Path(__file__).with_name("operators.cpp")
SOURCES = (SOURCE, *sorted(SOURCE.parent.glob("operators_*.h")))
FLAGS = ("-O3", "-march=native", "-fopenmp")
LIBRARY, MEASURED = "operators.so", "measured.json"


@dataclass(frozen=True)
class Measured:
    """What the operators are on this machine.

    Attributes:
        products: of each encoding whose product is right, its speed in torch's for one row of activations.
        many: of each of these, its speed for many rows in that of a dense bfloat16 copy.
        attention: the speed of attention in torch's; 0 where it is wrong.
        summary: the same of what is said of logits.
        why_not: why there are none.
        being_made: whether a process is at it.
    """

    products: Mapping[str, float] = field(default_factory=dict)
    many: Mapping[str, float] = field(default_factory=dict)
    attention: float = 0.0
    summary: float = 0.0
    why_not: str = ""
    being_made: bool = False

    @property
    def encodings(self) -> frozenset[str]:
        """Those that are used."""
        return frozenset(name for name, speed in self.products.items() if speed >= WORTH)

    @property
    def for_many_rows(self) -> frozenset[str]:
        """Those that need no dense copy for many rows, on a processor that multiplies bfloat16."""
        return frozenset(name for name in self.encodings if self.many.get(name, 0) >= WORTH_OF_DENSE)

    @property
    def attends(self) -> bool:
        """Whether attention is used."""
        return self.attention > 1

    @property
    def sums_up(self) -> bool:
        """Whether logits are summed up where they are computed."""
        return self.summary > 1


_NOTHING = Measured()
_used = [_NOTHING]


def used() -> Measured:
    """What networks of this process use."""
    return _used[0]


def begin(kernels: str | None = None, cache_dir: Path | None = None) -> None:
    """Choose what networks loaded from now on use; where the operators are still to be made, have them made meanwhile.

    Args:
        kernels: `auto`, or `torch` for torch's operators alone; by default `LOGITLAB_KERNELS`, else `auto`.
    """
    _used[0] = _found(folder(cache_dir)) if wanted(kernels) else _NOTHING


def wanted(kernels: str | None = None) -> bool:
    """Whether operators of our own may be used: see `begin`."""
    return (kernels or os.environ.get("LOGITLAB_KERNELS", "auto")) != "torch"


def product(
    x: Tensor,
    matrices: list[Tensor],
    kinds: list[int],
    *,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    epsilon: float = 0.0,
    gate: int = NO_GATE,
    added: Tensor | None = None,
) -> Tensor:
    """`prepare(x) Wᵀ + bias + added`, float32: see `operators.cpp`.

    Args:
        x: `[rows, in]`, or `[rows, 2 · in]` with a gate.
        matrices: below each other, floats `[out, in]` or blocks `[out, bytes of a row]`.
        kinds: of each, as in `ENCODINGS`.
    """
    return torch.ops.logitlab.product(x, matrices, kinds, bias, norm, epsilon, gate, added)


def summary(x: Tensor, matrix: Tensor, kind: int, asked: Tensor, top: int, cap: float | None) -> Summary:
    """What is said of the logits `cap · tanh(x Wᵀ / cap)`, which are not kept: see `operators.cpp`.

    Args:
        x: `[rows, in]`, float32.
        matrix: floats `[out, in]` or blocks `[out, bytes of a row]`, with its `kind` as in `ENCODINGS`.
        asked: ids, `[rows, asked]`.
        cap: `None` for none.
    """
    return Summary(*torch.ops.logitlab.summary(x, matrix, kind, asked, top, cap or 0.0))


def takes_attention(queries: Tensor, keys: Tensor) -> bool:
    """Whether `attention` computes this: queries `[lanes, kv_heads, group, size]`, and what is kept."""
    return (
        used().attends
        and keys.device.type == "cpu"
        and queries.dtype == keys.dtype == torch.float32
        and keys.shape[-1] % HEAD_STEP == 0
    )


def attention(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, siblings: int = 0
) -> Tensor:
    """`[lanes, kv_heads · group · size]`: see `operators.cpp`.

    Args:
        queries: of one position, `[lanes, kv_heads, group, size]`; or of siblings, `[…, group · siblings, size]`.
        siblings: how many positions at the end are seen by their own queries alone.
    """
    return torch.ops.logitlab.attention(queries, keys, values, mask, scale, siblings)


def folder(cache_dir: Path | None = None) -> Path:
    """Where the operators for this machine, this torch and this source are kept."""
    parts = [source.read_bytes() for source in SOURCES]
    parts += [" ".join(flags()).encode(), torch.__version__.encode(), _processor().encode()]
    return paths.cache_dir(cache_dir) / "operators" / hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]


def flags() -> tuple[str, ...]:
    """The compiler's, with the vectors that torch's headers are to be compiled for."""
    vectors = torch.backends.cpu.get_cpu_capability()
    return (*FLAGS, f"-DCPU_CAPABILITY={vectors}", f"-DCPU_CAPABILITY_{vectors}")


def compiler() -> str | None:
    """The C++ compiler, `$CXX` or `c++`; `None` without one, or on a processor the operators are not written for."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512") or sys.platform == "win32":
        return None
    return shutil.which(os.environ.get("CXX", "c++"))


def note() -> str:
    """Which operators run here, one line."""
    measured = used()
    if measured.encodings:
        speeds = ", ".join(f"{name} {measured.products[name]:.1f}×" for name in ENCODINGS if name in measured.encodings)
        return _(
            "compiled, of torch's speed: {speeds}, attention {attention:.1f}×",
            speeds=speeds,
            attention=measured.attention,
        )
    if measured.being_made:
        return _("torch's own, until those in C++ are made, in the background")
    if measured.why_not:
        return _("torch's own ({reason})", reason=measured.why_not)
    return _("torch's own") if compiler() else _("torch's own (no C++ compiler for this processor)")


def _processor() -> str:
    """What code compiled for this very processor depends on."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return platform.processor()


def _found(where: Path) -> Measured:
    measured = recall(where / MEASURED, Measured, MAX_BYTES)
    if measured is None:
        return Measured(being_made=_make(where))
    library = where / LIBRARY
    if measured.encodings and _ours_alone(library):
        torch.ops.load_library(library)
        return measured
    return Measured(why_not=measured.why_not)


def _ours_alone(library: Path) -> bool:
    """Whether nobody else could have put it there: it runs as we do."""
    with suppress(OSError):
        found = library.stat()
        return found.st_uid == os.getuid() and not found.st_mode & 0o022
    return False


def _make(where: Path) -> bool:
    """Start the process that makes them, unless there is nothing to make them with, or no place. Returns whether."""
    if compiler() is None:
        return False
    with suppress(OSError):
        where.mkdir(parents=True, exist_ok=True)
        subprocess.Popen(
            [sys.executable, "-m", "engine.networks.operators_build", str(where)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return True
    return False
