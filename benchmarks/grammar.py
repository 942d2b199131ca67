"""Tokens per second under a grammar beside without one, in the same run.

    .venv/bin/python benchmarks/grammar.py                     # native
    .venv/bin/python benchmarks/grammar.py --precisions native,float32 --json out.json
    .venv/bin/python benchmarks/grammar.py --repeats 1 --tokens 8          # whether it runs

Runs alternate, and the medians of decoding alone are compared; the vocabulary is sorted before, once. JSON in which
hardly a token is without a choice is to cost at most 15 % of the speed; `passed` says whether it was. Where names of
fields are given, their tokens go through the model together, which saves more than the grammar costs.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from engine.base.plain import table
from engine.generation.config import GenerationConfig
from engine.generation.events import Prefilled, Stepped
from engine.generation.loop import generate
from engine.loading import load_local
from engine.models.local import LocalModel

PROMPT = "A list of everything that can be seen from the tower, as JSON:"
LEAST = 0.85
TEXTS = {"type": "array", "items": {"type": "string", "minLength": 8}, "minItems": 200}
NAMES = ("what is seen", "how far away it is", "in which direction it lies")
FIELDS = {"type": "object", "properties": {name: {"type": "boolean"} for name in NAMES}, "required": list(NAMES)}
ROWS = {"type": "array", "items": FIELDS | {"additionalProperties": False}, "minItems": 200}
GRAMMARS = {
    "JSON, texts": {"schema": json.dumps(TEXTS)},
    "JSON, names given": {"schema": json.dumps(ROWS)},
    "regex": {"regex": "([a-z]+ )+"},
}


@dataclass(frozen=True)
class Row:
    """Medians under one grammar in one precision."""

    precision: str
    grammar: str
    plain_tokens_per_second: float
    tokens_per_second: float
    ratio: float
    without_choice: float


def decoded(model: LocalModel, config: GenerationConfig) -> tuple[float, list[Stepped]]:
    """Seconds a token from the prefill to the last one, and the steps."""
    steps, began = [], time.perf_counter()
    for event in generate(model.network, model.tokenizer, [PROMPT], [config], candidates=1):
        if isinstance(event, Prefilled):
            began = time.perf_counter()
        elif isinstance(event, Stepped):
            steps.append(event)
    return (time.perf_counter() - began) / len(steps), steps


def measured(model: LocalModel, repeats: int, tokens: int) -> list[Row]:
    """Each grammar, in turn with a run without."""
    plain = GenerationConfig(max_new_tokens=tokens, ignore_eos=True)
    rows = []
    for name, settings in GRAMMARS.items():
        ruled = GenerationConfig(max_new_tokens=tokens, ignore_eos=True, **settings)
        decoded(model, plain)
        decoded(model, ruled)
        seconds: tuple[list[float], list[float]] = [], []
        for _repeat in range(repeats):
            seconds[0].append(decoded(model, plain)[0])
            took, steps = decoded(model, ruled)
            seconds[1].append(took)
        without, under = median(seconds[0]), median(seconds[1])
        share = sum(step.by_grammar for step in steps) / len(steps)
        rows.append(Row(model.facts.precision, name, 1 / without, 1 / under, without / under, share))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--precisions", default="native")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows: list[Row] = []
    for precision in asked.precisions.split(","):
        model = load_local(asked.model, precision=precision, threads=asked.threads)
        model.network.prepare()
        rows += measured(model, asked.repeats, asked.tokens)
    print(
        table(
            ("precision", "grammar", "plain tokens/s", "tokens/s", "ratio", "without a choice"),
            [
                (
                    *(row.precision, row.grammar, f"{row.plain_tokens_per_second:.1f}"),
                    *(f"{row.tokens_per_second:.1f}", f"{row.ratio:.2f}×", f"{row.without_choice:.0%}"),
                )
                for row in rows
            ],
            right=range(2, 6),
        )
    )
    passed = all(row.ratio >= LEAST for row in rows)
    print(f"passed: {passed}")
    if asked.json is not None:
        report = {"rows": [asdict(row) for row in rows], "least": LEAST, "passed": passed}
        asked.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
