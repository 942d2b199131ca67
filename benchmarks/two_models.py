"""Two lanes of two models of the embedded size: what each keeps of the speed that it has alone, at the same threads.

    .venv/bin/python benchmarks/two_models.py                                # the embedded model, native beside float32
    .venv/bin/python benchmarks/two_models.py --a native --b native          # the same weights, loaded twice
    .venv/bin/python benchmarks/two_models.py --repeats 1 --tokens 4         # whether it runs

Runs alternate: each model alone, then both side by side; medians are printed. `of_alone` of each is to be 0.45 at
least. Tokens of each lane are compared with those it writes alone.
"""

import argparse
import json
from statistics import median
from typing import Any

from engine.base.plain import table
from engine.generation.config import GenerationConfig
from engine.generation.result import RunResult, timing
from engine.loading import load_model
from engine.models.model import Model
from engine.models.side_by_side import generate

MODEL = "smollm2-135m"
PROMPT = "The sky above the city looked calm, but"
LEAST = 0.45


def run(models: list[Model], config: GenerationConfig) -> RunResult:
    result = RunResult()
    for event in generate(models, [PROMPT], [config] * len(models), candidates=1):
        result.add(event)
    return result


def rate(result: RunResult, lane: int) -> float:
    """Tokens a second, while every lane of the run still wrote."""
    return timing(0.0, result.lanes[lane].steps)["tokens_per_second"]


def ids(result: RunResult, lane: int) -> list[int]:
    return [step.token.id for step in result.lanes[lane].steps]


def measured(models: list[Model], tokens: int, repeats: int) -> list[dict[str, Any]]:
    config = GenerationConfig(ignore_eos=True, max_new_tokens=tokens)
    run(models, GenerationConfig(ignore_eos=True, max_new_tokens=8))  # warm
    alone: list[list[float]] = [[], []]
    beside: list[list[float]] = [[], []]
    same = [True, True]
    for _repeat in range(repeats):
        by_itself = [run([model], config) for model in models]
        together = run(models, config)
        for lane in (0, 1):
            alone[lane].append(rate(by_itself[lane], 0))
            beside[lane].append(rate(together, lane))
            same[lane] &= ids(by_itself[lane], 0) == ids(together, lane)
    return [
        {
            "model": f"{model.facts.title} · {model.facts.precision}",
            "threads": model.facts.threads,
            "alone": median(alone[lane]),
            "beside": median(beside[lane]),
            "of_alone": median(beside[lane]) / median(alone[lane]),
            "same_tokens": same[lane],
        }
        for lane, model in enumerate(models)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--a", default="native", help="lane A's precision")
    parser.add_argument("--b", default="float32", help="lane B's precision")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    models = [load_model(given.model, precision=one, threads=given.threads) for one in (given.a, given.b)]
    for model in models:
        model.network.prepare()  # type: ignore[attr-defined]
    rows = measured(models, given.tokens, given.repeats)
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    cells = [
        (row["model"], f"{row['alone']:.1f}", f"{row['beside']:.1f}", f"{row['of_alone']:.2f}", row["same_tokens"])
        for row in rows
    ]
    print(table(("lane", "alone tokens/s", "side by side", "of alone", "same tokens"), cells, right=(1, 2, 3)))
    if min(row["of_alone"] for row in rows) < LEAST:
        print(f"below {LEAST}")


if __name__ == "__main__":
    main()
