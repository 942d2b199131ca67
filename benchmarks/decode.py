"""Tokens per second of the embedded model or another one, against transformers on the same weights in the same run.

    .venv/bin/python benchmarks/decode.py                  # precisions, lanes, contrastive search, context
    .venv/bin/python benchmarks/decode.py --json out.json
    .venv/bin/python benchmarks/decode.py --profile        # where a step's time goes, operator by operator
    .venv/bin/python benchmarks/decode.py --repeats 1 --tokens 4 --contexts 16 --precisions native     # whether it runs
    .venv/bin/python benchmarks/decode.py --model FOLDER

The greedy lane beside a contrastive one decodes at a part of the speed that it has alone: both are decoded in turn, in
the same run, and `greedy_beside_contrastive_of_alone` is the quotient of the medians. It is to be 0.6 at least.

Our operators in C++ are made first where they are not yet, and native runs with them and without;
LOGITLAB_KERNELS=torch leaves them out. llama.cpp takes part where `llama-cpp-python` is installed, with the embedded
model. Runs alternate,
medians are printed. The read bandwidth of the machine is measured in the same run, with the part of it that one lane's
decoding reaches.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from engine.base.plain import table
from engine.generation.config import PRESETS, GenerationConfig
from engine.generation.events import Event, Stepped
from engine.generation.loop import generate
from engine.loading import load_model
from engine.models.catalog import embedded_path
from engine.models.local import LocalModel, load_reference
from engine.networks import operators, operators_build
from engine.networks.agreement import divergence
from engine.networks.kernels import notes
from engine.networks.network import Network
from engine.networks.transformers import TransformersNetwork

MODEL = "smollm2-135m"
PRECISIONS = ("float32", "bfloat16", "native")
ON_TORCH = "native on torch's operators"
PROMPT = "The sky above the city looked calm, but"
KL_TEXT = (
    "The library was quiet. Rain fell on the roof, and the old robot counted every drop until morning came. "
    "Nobody had asked it to, but counting kept it calm, and the books did not seem to mind."
)
GREEDY = GenerationConfig(ignore_eos=True)
SAMPLED = GenerationConfig(strategy="sample", temperature=0.9, top_p=0.95, seed=0, ignore_eos=True)
PAIR = (PRESETS["greedy"], PRESETS["creative"])
ALONE = "greedy lane alone, decode only"
BESIDE = "greedy lane beside a contrastive one, decode only"
CONTRASTIVE = GenerationConfig(strategy="contrastive", top_k=40, alpha=0.6, ignore_eos=True)


def loaded(name: str, precision: str, threads: int | None, kernels: str | None = None) -> LocalModel:
    """A model, ready."""
    model = load_model(name, precision=precision, threads=threads, kernels=kernels)
    model.network.prepare()
    return model


def events_of(model: LocalModel, prompt: str, configs: Sequence[GenerationConfig]) -> Iterator[Event]:
    """A run, with the operators that the model was loaded for."""
    operators.begin("auto" if model.facts.kernels == "compiled" else "torch")
    return generate(model.network, model.tokenizer, [prompt], configs)


def run(model: LocalModel, configs: Sequence[GenerationConfig], new_tokens: int) -> tuple[float, int]:
    """Seconds and tokens of one run, from the prompt's text to the last token."""
    configs = [replace(config, max_new_tokens=new_tokens) for config in configs]
    began = time.perf_counter()
    events = events_of(model, PROMPT, configs)
    tokens = sum(isinstance(event, Stepped) for event in events)
    return time.perf_counter() - began, tokens


def run_transformers(
    model: LocalModel, reference: TransformersNetwork, lanes: int, new_tokens: int
) -> tuple[float, int]:
    """The same through transformers' `generate`, one lane after the other."""
    began = time.perf_counter()
    ids = torch.tensor([model.tokenizer.encode_ids(PROMPT)])
    for lane in range(lanes):
        reference.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=lane % 2 == 1,
            pad_token_id=0,
        )
    return time.perf_counter() - began, new_tokens * lanes


def llama_cpp(threads: int, new_tokens: int) -> Callable[[], tuple[float, int]] | None:
    """One greedy run of the same file through llama.cpp, from the prompt's ids to the last token."""
    try:
        from llama_cpp import Llama
    except ImportError:
        return None
    peer = Llama(str(embedded_path()), n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
    ids = peer.tokenize(PROMPT.encode(), add_bos=False)

    def run_peer() -> tuple[float, int]:
        peer.reset()
        began = time.perf_counter()
        for count, _ in enumerate(peer.generate(ids, temp=0.0), start=1):
            if count == new_tokens:
                break
        return time.perf_counter() - began, new_tokens

    return run_peer


def bandwidth() -> float:
    """Bytes a second that summing a large tensor reads, the best of several."""
    data = torch.ones(64_000_000)
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        data.sum()
        seconds.append(time.perf_counter() - began)
    return data.numel() * 4 / min(seconds)


def stepwise_divergence(exact: Network, network: Network, ids: torch.Tensor) -> float:
    """Mean KL divergence in nats of the next-token distributions, decoding one position at a time."""

    def logits(net: Network) -> torch.Tensor:
        cache = net.cache(ids.shape[1], [0])
        steps = [net.forward(ids[:, i : i + 1], cache).logits() for i in range(ids.shape[1])]
        return torch.cat(steps)

    return divergence(logits(exact), logits(network))


@torch.inference_mode()
def profile(
    network: Network, lanes: int, context: int, siblings: int = 0, steps: int = 20
) -> list[tuple[str, str, str]]:
    """What the operators of one step take, in ms and as a part, the longest first."""
    cache = network.cache(context + steps + siblings + 1, [0] * lanes)
    network.forward(torch.ones(lanes, context, dtype=torch.long), cache)
    ids = torch.arange(max(1, siblings)).repeat(lanes, 1)

    def step() -> None:
        network.forward(ids, cache, siblings=bool(siblings)).logits()
        cache.length = context

    for _ in range(3):
        step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as measured:
        for _ in range(steps):
            step()
    events = sorted(measured.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    rows = [(event.key, event.self_cpu_time_total, event.count) for event in events[:6]]
    rest = whole - sum(time for _, time, _ in rows)
    rows.append(("everything else", rest, sum(event.count for event in events[6:])))
    return [
        (f"{name} ×{count // steps}", f"{time / steps / 1e3:.2f}", f"{time / whole:.0%}") for name, time, count in rows
    ]


def show_profiles(name: str, threads: int | None) -> None:
    """The steps behind the table, each with where its time goes."""
    for precision, title, shape in (
        ("native", "native, one lane, 60 tokens of context", (1, 60, 0)),
        ("native", "native, one lane, 2,048 tokens of context", (1, 2048, 0)),
        ("native", "native, contrastive search, 40 candidates", (1, 60, 40)),
        ("float32", "float32, two lanes", (2, 60, 0)),
    ):
        model = loaded(name, precision, threads)
        print(table((title, "ms a step", "part"), profile(model.network, *shape), right=(1, 2)), end="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=40, help="of every run; 2 at least")
    parser.add_argument("--contexts", type=int, nargs="+", default=[16, 512, 2048], help="tokens before the last runs")
    parser.add_argument("--precisions", choices=PRECISIONS, nargs="+", default=PRECISIONS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.profile:
        show_profiles(options.model, options.threads)
        return

    if operators.wanted() and operators.compiler() is not None:
        operators_build.main(operators.folder())
    models = {name: loaded(options.model, name, options.threads) for name in options.precisions}
    if "native" in models and models["native"].facts.kernels == "compiled":
        models[ON_TORCH] = loaded(options.model, "native", options.threads, kernels="torch")
    exact = models.get("float32") or load_model(options.model, precision="float32", threads=options.threads)
    reference = load_reference(options.model)
    cases: dict[str, Callable[[], tuple[float, int]]] = {
        "transformers float32, greedy then sampled": lambda: run_transformers(exact, reference, 2, options.tokens)
    }
    embedded = options.model == MODEL
    if embedded and (peer := llama_cpp(exact.facts.threads, options.tokens)) is not None:
        cases["llama.cpp, one stream, same file"] = peer
    for name, model in models.items():
        for lanes in (1, 2, 4):
            configs = [GREEDY, SAMPLED] * (lanes // 2) or [GREEDY]
            cases[f"{name}, {lanes} lane{'s' * (lanes > 1)}"] = lambda m=model, c=configs: run(m, c, options.tokens)  # type: ignore[misc]
        cases[f"{name}, contrastive k 40"] = lambda m=model: run(m, [CONTRASTIVE], options.tokens)  # type: ignore[misc]
        cases[f"{name}, the seed's pair"] = lambda m=model: run(m, PAIR, options.tokens)  # type: ignore[misc]
        for what, beside in ((ALONE, ()), (BESIDE, (CONTRASTIVE,))):
            cases[f"{name}, {what}"] = lambda m=model, b=beside: decode_only(m, PROMPT, options.tokens, b)  # type: ignore[misc]
    long = "The sky above the city looked calm, but nobody trusted it. " * 170
    ids = exact.tokenizer.encode_ids(long)
    for name, model in models.items():
        for context in options.contexts if name.startswith("native") else ():
            text = exact.tokenizer.backend.decode(ids[:context])
            cases[f"{name}, 1 lane after {context} tokens, decode only"] = lambda m=model, t=text: decode_only(  # type: ignore[misc]
                m, t, options.tokens
            )

    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(options.repeats + 1):
        for name, case in cases.items():
            took, tokens = case()
            if repeat:  # the first round warms up
                seconds[name].append(took / tokens)
    speeds = {name: 1 / median(times) for name, times in seconds.items()}
    operators.begin()
    slowest = speeds["transformers float32, greedy then sampled"]
    read = bandwidth()
    # 4-bit blocks with their scales, and the output layer: in 8 bits.
    weights = (134_515_008 - 49_152 * 576) * 5 / 8 + 49_152 * 576
    kl_ids = torch.tensor([exact.tokenizer.encode_ids(KL_TEXT)])
    result: dict[str, Any] = {
        "threads": exact.facts.threads,
        "kernels": [*notes(), f"operators: {operators.note()}"],
        "tokens_per_second": speeds,
        "read_gigabytes_per_second": read / 1e9,
        "kl_nats": {
            name: stepwise_divergence(exact.network, model.network, kl_ids)
            for name, model in models.items()
            if model is not exact
        },
    }
    result["greedy_beside_contrastive_of_alone"] = {
        name: speeds[f"{name}, {BESIDE}"] / speeds[f"{name}, {ALONE}"] for name in models
    }
    if embedded and "native" in models:
        result["part_of_bandwidth"] = speeds["native, 1 lane"] * weights / read
    compared = [slowest, *(speed for name, speed in speeds.items() if name.startswith("llama.cpp"))]
    shown = [(name, f"{speed:.1f}", *(f"{speed / other:.1f}×" for other in compared)) for name, speed in speeds.items()]
    titles = ("what", "tokens/s", "of transformers", "of llama.cpp")[: len(compared) + 2]
    print(table(titles, shown, right=(1, 2, 3)))
    for key in sorted(result.keys() - {"tokens_per_second"}):
        print(f"{key}: {result[key]}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def decode_only(
    model: LocalModel, prompt: str, new_tokens: int, beside: Sequence[GenerationConfig] = ()
) -> tuple[float, int]:
    """Seconds of a greedy lane's steps after the first, without the prefill; `beside` are lanes that run with it."""
    configs = [replace(config, max_new_tokens=new_tokens) for config in (GREEDY, *beside)]
    steps = [
        event.seconds for event in events_of(model, prompt, configs) if isinstance(event, Stepped) and event.lane == 0
    ]
    return sum(steps[1:]), len(steps) - 1


if __name__ == "__main__":
    main()
