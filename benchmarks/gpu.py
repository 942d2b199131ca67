"""Tokens per second on a GPU, ours against transformers' `generate()` on the same weights in the same run.

    make gpu                                               # the tests on a GPU, then this
    .venv/bin/python benchmarks/gpu.py                     # the embedded model
    .venv/bin/python benchmarks/gpu.py --model PATH        # another one, by name or folder
    .venv/bin/python benchmarks/gpu.py --json out.json

All in bfloat16. Runs alternate after one round that warms up and captures the graphs; medians are printed. Decoding is
timed alone, from the first token on. The part of the bandwidth is that of the weights a step reads, a second, in what
copying a large tensor reads and writes a second. Where no GPU is, it says so.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from engine.base.plain import table
from engine.generation.config import GenerationConfig
from engine.generation.events import Prefilled, Start, Stepped
from engine.generation.loop import generate
from engine.loading import load_model
from engine.models import catalog
from engine.models.local import LocalModel
from engine.networks.graphs import GraphedNetwork
from engine.networks.network import Network
from engine.networks.sources import open_source

MODEL = "smollm2-135m"
WORDS = "The sky above the city looked calm, but nobody trusted it. " * 200
GREEDY = GenerationConfig(ignore_eos=True)
CONTRASTIVE = GenerationConfig(strategy="contrastive", top_k=40, alpha=0.6, ignore_eos=True)
COPIED = 1_000_000_000  # bytes

Case = Callable[[], float]


def decoding(model: LocalModel, network: Network, ids: Sequence[int], configs: Sequence[GenerationConfig]) -> float:
    """Tokens a second after the first one of each lane, all lanes together."""
    start = Start(tuple(model.tokenizer.encode(model.tokenizer.backend.decode(list(ids)))))
    began, tokens = 0.0, 0
    for event in generate(network, model.tokenizer, [start], configs, candidates=1):
        if isinstance(event, Stepped):
            tokens += 1
            if tokens == len(configs):
                began = time.perf_counter()
    return (tokens - len(configs)) / (time.perf_counter() - began)


def first_token(model: LocalModel, network: Network, ids: Sequence[int]) -> float:
    """Seconds from the text's ids to its first token."""
    start = Start(tuple(model.tokenizer.encode(model.tokenizer.backend.decode(list(ids)))))
    began = time.perf_counter()
    for event in generate(network, model.tokenizer, [start], [replace(GREEDY, max_new_tokens=1)], candidates=1):
        if isinstance(event, Prefilled | Stepped):
            seconds = time.perf_counter() - began
    return seconds


def by_transformers(module: Any, ids: Sequence[int], tokens: int, cache: str | None = None) -> float:
    """The same through `generate()`, greedy: the seconds of a run less those of a run of one token."""
    given = torch.tensor([list(ids)], device=module.device)
    seconds = []
    for count in (1, tokens):
        torch.cuda.synchronize()
        began = time.perf_counter()
        module.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
            cache_implementation=cache,
        )
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return (tokens - 1) / max(1e-9, seconds[1] - seconds[0])


def bandwidth() -> float:
    """Bytes a second that copying a large tensor reads and writes, the best of several."""
    source = torch.ones(COPIED // 4, device="cuda")
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(10):
        torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        best = max(best, 2 * COPIED / (time.perf_counter() - began))
    return best


def cases_of(model: LocalModel, path: Path, tokens: int, prompt: int) -> dict[str, Case]:
    """What is timed, each in tokens a second."""
    source = open_source(path)
    module = source.reference(torch.bfloat16, device="cuda").model
    ids = model.tokenizer.encode_ids(WORDS)[:prompt]
    greedy, contrastive = replace(GREEDY, max_new_tokens=tokens), replace(CONTRASTIVE, max_new_tokens=tokens)
    cases: dict[str, Case] = {
        "transformers' generate()": lambda: by_transformers(module, ids, tokens),
        "transformers' generate(), static cache": lambda: by_transformers(module, ids, tokens, "static"),
    }
    networks: dict[str, Network] = {}
    if isinstance(model.network, GraphedNetwork):
        networks = {"ours without a graph": model.network._inner, "ours, CUDA graph": model.network}
    else:
        networks = {model.facts.path: model.network}
    for name, network in networks.items():
        for lanes in (1, 2, 4):
            title = f"{name}, {lanes} lane{'s' * (lanes > 1)}"
            cases[title] = lambda n=network, count=lanes: decoding(model, n, ids, [greedy] * count)  # type: ignore[misc]
    cases["ours, contrastive k 40"] = lambda: decoding(model, model.network, ids, [contrastive])
    if torch.cuda.device_count() > 1 and source.spreads:
        import transformers

        spread = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, device_map="balanced")
        cases["transformers' generate(), two GPUs"] = lambda: by_transformers(spread, ids, tokens)
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="of every run; 2 at least")
    parser.add_argument("--prompt", type=int, default=512, help="tokens before them")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"No GPU that torch {torch.__version__} can compute on is here: nothing was measured.")
        return

    model = load_model(options.model, precision="bfloat16", device="cuda")
    path = catalog.find(options.model).path
    assert path is not None, "it has been loaded"
    cases = cases_of(model, path, options.tokens, options.prompt)
    ids = model.tokenizer.encode_ids(WORDS)[: options.prompt]
    speeds: dict[str, list[float]] = {name: [] for name in cases}
    waited: list[float] = []
    failed: dict[str, str] = {}
    for repeat in range(options.repeats + 1):
        for name, case in cases.items():
            if name in failed:
                continue
            try:
                speed = case()
            except Exception as error:  # such as a static cache that an architecture does not take
                failed[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
                continue
            if repeat:  # the first round warms up
                speeds[name].append(speed)
        waited += [first_token(model, model.network, ids)] if repeat else []
    medians = {name: median(found) for name, found in speeds.items() if name not in failed}
    read = bandwidth()
    weights = 2 * model.facts.parameters
    rows = []
    for name, speed in medians.items():
        lanes = next((count for count in (2, 4) if f"{count} lanes" in name), 1)
        part = "" if "contrastive" in name else f"{speed / lanes * weights / read:.0%}"
        rows.append((name, f"{speed:.1f}", f"{speed / medians[next(iter(medians))]:.1f}×", part))
    rows += [(name, "–", "", why) for name, why in failed.items()]
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {model.facts.title}, {model.facts.path}")
    print(table(("bfloat16, decoding", "tokens/s", "of transformers", "of bandwidth"), rows, right=(1, 2, 3)))
    print(f"first token after {options.prompt} tokens: {1000 * median(waited):.1f} ms; memory {read / 1e9:.0f} GB/s")
    if options.json:
        result = {
            "gpu": torch.cuda.get_device_name(),
            "gpus": torch.cuda.device_count(),
            "path": model.facts.path,
            "tokens_per_second": medians,
            "failed": failed,
            "first_token_seconds": median(waited),
            "copied_bytes_per_second": read,
            "prompt": options.prompt,
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
