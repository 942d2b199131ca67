"""Microseconds of each product at the embedded model's sizes, by number of rows: the table behind `kernels.py`.

    .venv/bin/python benchmarks/kernels.py [--threads 2] [--repeats 9] [--layers 30] [--json out.json]

Every product has weights for all the layers of a model and goes through them in turn, so that they come from memory, as
they do in a model. Products that are absent or wrong on this machine are left out, and named first.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from engine.base.plain import table
from engine.networks import kernels

SHAPES = ((960, 576), (576, 576), (3072, 576), (576, 1536))
HEAD = (49_152, 576)
ROWS = (1, 2, 3, 4, 8, 16, 40)

Make = Callable[[torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]


def four_bit(weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    values = torch.randint(0, 16, weight.shape, dtype=torch.uint8)
    factors = torch.rand(len(weight), weight.shape[1] // kernels.GROUP)
    return kernels.Int4(*kernels.pack_four_bit(values, factors, factors), None)


@dataclass(frozen=True)
class Case:
    """A product with weights of one type, and whether it is here and right."""

    dtype: torch.dtype
    make: Make
    works: Callable[[], bool] = lambda: True


def packed(dtype: torch.dtype) -> Case:
    return Case(dtype, lambda w: kernels.Packed(kernels.pack(w), None), lambda: kernels.packed_works(dtype))


FLOAT: dict[str, Case] = {
    "float32, F.linear": Case(torch.float32, lambda w: kernels.Plain(w, None)),
    "float32, as it lies": Case(torch.float32, lambda w: kernels.Float32(w, None, roomy=False)),
    "float32, packed": packed(torch.float32),
    "bfloat16, F.linear": Case(torch.bfloat16, lambda w: kernels.Plain(w, None)),
    "bfloat16, packed": packed(torch.bfloat16),
}
ROWS_OF_8_BITS = Case(torch.bfloat16, lambda w: kernels.Int8Rows(*kernels.eight_bit(w.float())), kernels.int8_rows_work)
CASES = FLOAT | {"4-bit": Case(torch.bfloat16, four_bit, kernels.int4_works), "8-bit rows": ROWS_OF_8_BITS}
HEADS = FLOAT | {
    "8-bit": Case(torch.bfloat16, lambda w: kernels.Int8(*kernels.eight_bit(w.float())), kernels.int8_works)
}


def measure(case: Case, shapes: tuple[tuple[int, int], ...], layers: int, repeats: int) -> list[float]:
    """Median seconds for one pass through all the weights, for each number of rows."""
    products = [(case.make(torch.randn(shape).to(case.dtype)), shape[1]) for _ in range(layers) for shape in shapes]
    seconds = []
    for rows in ROWS:
        inputs = {width: torch.randn(rows, width).to(case.dtype) for _, width in products}
        runs = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            for product, width in products:
                product(inputs[width])
            runs.append(time.perf_counter() - began)
        seconds.append(median(runs[1:]))
    return seconds


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--layers", type=int, default=30, help="fewer fit into the processor's cache")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print("\n".join(kernels.notes()))
    result = {}
    for title, cases, shapes, layers in (
        (f"{options.layers} layers", CASES, SHAPES, options.layers),
        ("output layer", HEADS, (HEAD,), 1),
    ):
        result[title] = {
            name: measure(case, shapes, layers, options.repeats) for name, case in cases.items() if case.works()
        }
        shown = [(name, *(f"{s * 1e3:.2f}" for s in seconds)) for name, seconds in result[title].items()]
        print()
        print(table((f"{title}, ms", *(f"{rows} rows" for rows in ROWS)), shown, right=tuple(range(1, len(ROWS) + 1))))
    if options.json:
        options.json.write_text(json.dumps({"rows": ROWS, "seconds": result}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
