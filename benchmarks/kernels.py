"""Microseconds of each product at the embedded model's sizes, by number of rows: the table behind `kernels.py`.

    .venv/bin/python benchmarks/kernels.py [--threads 2] [--json out.json]

Every product has weights for 30 layers and goes through them in turn, so that they come from memory, as they do in
a model. What `engine/networks/kernels.py` chooses is marked with *.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from engine.base.plain import table
from engine.networks import kernels

SHAPES = ((960, 576), (576, 576), (3072, 576), (576, 1536))
HEAD = (49_152, 576)
LAYERS = 30
ROWS = (1, 2, 3, 4, 8, 16, 40)

Make = Callable[[torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]


def four_bit(weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    values = torch.randint(0, 16, weight.shape, dtype=torch.uint8)
    factors = torch.rand(len(weight), weight.shape[1] // kernels.GROUP)
    return kernels.Int4(values, factors, factors, None, roomy=False)


CASES: dict[str, tuple[torch.dtype, Make]] = {
    "float32, F.linear": (torch.float32, lambda w: kernels.Plain(w, None)),
    "float32, as it lies": (torch.float32, lambda w: kernels.Float32(w, None, roomy=False)),
    "float32, packed": (torch.float32, lambda w: kernels.Packed(kernels.pack(w), None)),
    "bfloat16, F.linear": (torch.bfloat16, lambda w: kernels.Plain(w, None)),
    "bfloat16, packed": (torch.bfloat16, lambda w: kernels.Packed(kernels.pack(w), None)),
    "4-bit": (torch.bfloat16, four_bit),
}
HEADS = dict(CASES) | {"8-bit": (torch.bfloat16, kernels.Int8)}
del HEADS["4-bit"]


def measure(
    case: tuple[torch.dtype, Make], shapes: tuple[tuple[int, int], ...], layers: int, repeats: int
) -> list[float]:
    """Median seconds for one pass through all the weights, for each number of rows."""
    dtype, make = case
    products = [(make(torch.randn(shape).to(dtype)), shape[1]) for _ in range(layers) for shape in shapes]
    seconds = []
    for rows in ROWS:
        inputs = {width: torch.randn(rows, width).to(dtype) for _, width in products}
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
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print("\n".join(kernels.notes()))
    result = {}
    for title, cases, shapes, layers in (("30 layers", CASES, SHAPES, LAYERS), ("output layer", HEADS, (HEAD,), 1)):
        result[title] = {name: measure(case, shapes, layers, options.repeats) for name, case in cases.items()}
        shown = [(name, *(f"{s * 1e3:.2f}" for s in seconds)) for name, seconds in result[title].items()]
        print()
        print(table((f"{title}, ms", *(f"{rows} rows" for rows in ROWS)), shown, right=tuple(range(1, len(ROWS) + 1))))
    if options.json:
        options.json.write_text(json.dumps({"rows": ROWS, "seconds": result}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
