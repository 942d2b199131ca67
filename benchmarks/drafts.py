"""Tokens per second with a draft beside without, in the same run, on a text that repeats and on one that does not.

    .venv/bin/python benchmarks/drafts.py                     # lookup, native
    .venv/bin/python benchmarks/drafts.py --precisions native,float32 --json out.json
    .venv/bin/python benchmarks/drafts.py --draft MODEL       # a second model, too
    .venv/bin/python benchmarks/drafts.py --repeats 1 --tokens 8          # whether it runs

Runs alternate, and the medians of decoding alone are compared. Lookup is to be at least 1.8 times as fast on the text
that repeats, and never below 0.9 on the one that does not; `passed` says whether it was. The first text is greedy, the
other one drawn.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from engine.base.plain import table
from engine.generation.config import LOOKUP, GenerationConfig, config_from_dict
from engine.generation.events import Prefilled, Stepped
from engine.generation.loop import generate
from engine.generation.result import drafted
from engine.loading import load_local
from engine.models.amateurs import draft_for
from engine.models.local import LocalModel

# Greedy goes on in a circle; a hot draw does not repeat what stands there.
TEXTS = {
    "repeats": ("Row, row, row your boat\nGently down the stream\n" * 4, {}),
    "does not": ("The library was quiet. Rain fell on the roof, and", {"strategy": "sample", "seed": 0}),
}
LEAST = {"repeats": 1.8, "does not": 0.9}


@dataclass(frozen=True)
class Row:
    """Medians of one text in one precision."""

    precision: str
    text: str
    draft: str
    plain_tokens_per_second: float
    tokens_per_second: float
    ratio: float
    accepted: float | None
    tokens_per_forward: float


def decoded(model: LocalModel, prompt: str, config: GenerationConfig, draft: LocalModel | None) -> tuple[float, list]:
    """Seconds from the prefill to the last token, and the steps."""
    steps, began = [], time.perf_counter()
    drafts = [draft_for(model, draft)]
    for event in generate(model.network, model.tokenizer, [prompt], [config], candidates=1, drafts=drafts):
        if isinstance(event, Prefilled):
            began = time.perf_counter()
        elif isinstance(event, Stepped):
            steps.append(event)
    return time.perf_counter() - began, steps


def measured(model: LocalModel, name: str, draft: LocalModel | None, repeats: int, tokens: int) -> list[Row]:
    """Each text, plain and drafted in turn."""
    rows = []
    for text, (prompt, settings) in TEXTS.items():
        plain = config_from_dict({"max_new_tokens": tokens, "ignore_eos": True} | settings)
        ours = replace(plain, draft=name)
        decoded(model, prompt, plain, None)
        decoded(model, prompt, ours, draft)
        seconds: tuple[list[float], list[float]] = [], []
        for _repeat in range(repeats):
            seconds[0].append(decoded(model, prompt, plain, None)[0])
            took, steps = decoded(model, prompt, ours, draft)
            seconds[1].append(took)
        without, with_draft = median(seconds[0]), median(seconds[1])
        found = drafted(steps)
        speeds = tokens / without, tokens / with_draft
        rows.append(
            Row(model.facts.precision, text, name, *speeds, without / with_draft, found.rate, found.tokens_per_forward)
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--draft", help="a second model that guesses, beside lookup")
    parser.add_argument("--precisions", default="native")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows: list[Row] = []
    second = None if asked.draft is None else load_local(asked.draft, precision="auto", threads=asked.threads)
    for precision in asked.precisions.split(","):
        model = load_local(asked.model, precision=precision, threads=asked.threads)
        model.network.prepare()
        for name, draft in ((LOOKUP, None), *([] if second is None else [(asked.draft, second)])):
            rows += measured(model, name, draft, asked.repeats, asked.tokens)
    print(
        table(
            ("precision", "text", "draft", "plain tokens/s", "tokens/s", "ratio", "stayed", "tokens a forward"),
            [
                (
                    row.precision,
                    row.text,
                    row.draft,
                    f"{row.plain_tokens_per_second:.1f}",
                    f"{row.tokens_per_second:.1f}",
                    f"{row.ratio:.2f}×",
                    "–" if row.accepted is None else f"{row.accepted:.0%}",
                    f"{row.tokens_per_forward:.2f}",
                )
                for row in rows
            ],
            right=range(3, 8),
        )
    )
    passed = all(row.ratio >= LEAST[row.text] for row in rows if row.draft == LOOKUP)
    print(f"passed: {passed}")
    if asked.json is not None:
        report = {"rows": [asdict(row) for row in rows], "least": LEAST, "passed": passed}
        asked.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
