"""Seconds to record a text and compute the logit lens of all its positions, against transformers' eager module.

    .venv/bin/python benchmarks/inside.py [--tokens 49] [--threads 2] [--repeats 5] [--precision native] [--model NAME]

The module does the same: hidden states of every layer, the final norm and the output layer on each, softmax and the ten
best tokens. The first run of each, which lays weights out, is left out of the medians.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from engine.base.plain import table
from engine.inside.lens import lens_rows, trajectory
from engine.inside.record import record
from engine.loading import load_local
from engine.models.local import LocalModel, load_reference

MODEL = "smollm2-135m"
TEXT = "The sky above the city looked calm, but the people in it were not, for they had seen the rain before. "
TOP = 10


def ours(model: LocalModel, ids: list[int]) -> dict[str, float]:
    """Seconds to the record, to the first row of the lens, to all of them, and for one position's trajectory."""
    began = time.perf_counter()
    kept = record(model, ids)
    recorded = time.perf_counter()
    rows = lens_rows(kept, top=TOP)
    next(rows)
    first = time.perf_counter()
    for _row in rows:
        pass
    done = time.perf_counter()
    trajectory(kept, -1)
    return {
        "record": recorded - began,
        "first row": first - began,
        "whole lens": done - began,
        "a trajectory": time.perf_counter() - done,
    }


def theirs(module: Any, ids: list[int]) -> dict[str, float]:
    """The same in the eager module, row by row."""
    began = time.perf_counter()
    output = module(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    recorded = time.perf_counter()
    states = [module.model.norm(state) for state in output.hidden_states[:-1]] + [output.hidden_states[-1]]
    for state in states:
        module.lm_head(state)[0].softmax(-1).topk(TOP)
    return {"record": recorded - began, "whole lens": time.perf_counter() - began}


def medians(run: Callable[[], dict[str, float]], repeats: int) -> dict[str, float]:
    runs = [run() for _ in range(repeats + 1)][1:]
    return {name: median(one[name] for one in runs) for name in runs[0]}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--tokens", type=int, default=49)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--precision", nargs="+", default=["float32", "native"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, dict[str, float]] = {}
    ids: list[int] = []
    for precision in options.precision:
        model = load_local(options.model, precision=precision, threads=options.threads)
        ids = (model.tokenizer.encode_ids(TEXT) * options.tokens)[: options.tokens]
        result[f"logitlab, {model.facts.precision}"] = medians(lambda: ours(model, ids), options.repeats)  # noqa: B023
    module = load_reference(options.model).model
    module.set_attn_implementation("eager")
    eager = medians(lambda: theirs(module, ids), options.repeats)
    result["transformers, eager, float32"] = eager
    whole = eager["whole lens"]
    names = ("record", "first row", "whole lens", "a trajectory")
    shown = [
        (
            name,
            *(f"{row[one]:.3f}" if one in row else "" for one in names),
            f"{whole / row['whole lens']:.1f}",
        )
        for name, row in result.items()
    ]
    print(table((f"{len(ids)} tokens, s", *names, "times as fast"), shown, right=tuple(range(1, len(names) + 2))))
    if options.json:
        options.json.write_text(json.dumps({"tokens": len(ids), "seconds": result}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
