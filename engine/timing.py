"""How long generation takes: sweeps over output lengths and their statistics."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from engine.config import GenerationConfig
from engine.errors import ConfigError, InputError
from engine.events import Prefilled, Stepped

if TYPE_CHECKING:
    from engine.loading import Model
    from engine.networks.transformers import TransformersNetwork

TIMING_PROMPT = "Elixir notebooks are useful because"
MAX_REPEATS = 1000


@dataclass(frozen=True, slots=True)
class Sweep:
    """What to time. Runs ignore end-of-text, so that every run writes all its tokens.

    Attributes:
        lengths: `max_new_tokens` of the runs.
        repeats: runs of each length; they alternate, so that a drifting machine hits all alike.
        warmup: runs that are not counted.
        cache: keep keys and values from step to step; without it every step reads the whole text again.
    """

    prompt: str = TIMING_PROMPT
    lengths: tuple[int, ...] = (10, 20, 40, 60)
    temperature: float = 0.9
    repeats: int = 5
    warmup: int = 1
    cache: bool = True

    def __post_init__(self) -> None:
        if not self.lengths:
            raise InputError("no lengths to time; give some, such as 10,20,40,60")
        for length in self.lengths:
            self.config(length)
        if not 1 <= self.repeats <= MAX_REPEATS:
            raise ConfigError("repeats", self.repeats, f"a whole number from 1 to {MAX_REPEATS:,}")
        if not 0 <= self.warmup <= MAX_REPEATS:
            raise ConfigError("warmup", self.warmup, f"a whole number from 0 to {MAX_REPEATS:,}")

    def config(self, max_new_tokens: int) -> GenerationConfig:
        """The configuration of one run; invalid values raise `ConfigError`."""
        return GenerationConfig(
            name="timing",
            strategy="greedy",
            max_new_tokens=max_new_tokens,
            temperature=self.temperature,
            ignore_eos=True,
        )

    @property
    def total(self) -> int:
        return len(self.lengths) * self.repeats


@dataclass(frozen=True, slots=True)
class TimedRun:
    """One timed generation.

    Attributes:
        seconds: from the prompt to the last token, prefill included.
        prefill_seconds: the part before the first step.
        token_seconds: of each token in order; empty for a peer, which does not tell.
        by: who ran it, `logitlab` or a peer's name.
    """

    max_new_tokens: int
    seconds: float
    prefill_seconds: float
    token_seconds: tuple[float, ...]
    by: str = "logitlab"

    @property
    def time_to_first_token(self) -> float:
        """Seconds until the first token is there; those of the prefill for a peer, which does not tell."""
        return self.prefill_seconds + sum(self.token_seconds[:1])


@dataclass(frozen=True, slots=True)
class Row:
    """The statistics of one length."""

    max_new_tokens: int
    runs: tuple[TimedRun, ...]

    @property
    def seconds(self) -> list[float]:
        return [run.seconds for run in self.runs]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        """Tokens over the median run's seconds, prefill included."""
        return self.max_new_tokens / self.median

    @property
    def token_seconds(self) -> list[float]:
        """Of each token after the first of every run; empty for a peer."""
        return [seconds for run in self.runs for seconds in run.token_seconds[1:]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "max_new_tokens": self.max_new_tokens,
            "seconds": {
                "median": self.median,
                "min": min(self.seconds),
                "max": max(self.seconds),
                "runs": self.seconds,
            },
            "tokens": self.max_new_tokens,
            "tokens_per_second": self.tokens_per_second,
        }

    def latency(self) -> dict[str, Any]:
        """Where the seconds of our own runs go, in medians: prefill, first token, and each token after it."""
        latencies = sorted(self.token_seconds)
        return {
            "max_new_tokens": self.max_new_tokens,
            "prefill_seconds": median(run.prefill_seconds for run in self.runs),
            "time_to_first_token_seconds": median(run.time_to_first_token for run in self.runs),
            "inter_token_seconds": {"median": median(latencies), "p95": percentile(latencies, 95)}
            if latencies
            else None,
        }


def parse_lengths(text: str) -> tuple[int, ...]:
    """`10, 20,40` → `(10, 20, 40)`. Raises `ConfigError` for anything else."""
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise ConfigError("lengths", text, "whole numbers separated by commas, such as 10,20,40,60") from error


def rows(runs: Sequence[TimedRun], by: str = "logitlab") -> list[Row]:
    """The runs of one runner by length, shortest first."""
    runs = [run for run in runs if run.by == by]
    lengths = sorted({run.max_new_tokens for run in runs})
    return [Row(length, tuple(run for run in runs if run.max_new_tokens == length)) for length in lengths]


def speedup(runs: Sequence[TimedRun], peer: str) -> float:
    """Median over all runs of the peer's seconds divided by ours for the same length, in the order they ran."""
    ours, theirs = ([run for run in runs if run.by == by] for by in ("logitlab", peer))
    return median(peer_run.seconds / own_run.seconds for own_run, peer_run in zip(ours, theirs))


def percentile(values: Sequence[float], part: int) -> float:
    """The value that `part` per cent do not exceed: the nearest one of those in order. Needs at least one."""
    return values[max(0, -(-len(values) * part // 100) - 1)]


def r_squared(points: Sequence[tuple[float, float]]) -> float:
    """How much of the spread of y a straight line explains; 1 where there is none to explain."""
    intercept, slope = line_fit(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((y - mean_y) ** 2 for _, y in points)
    return 1 - sum((y - intercept - slope * x) ** 2 for x, y in points) / spread if spread else 1.0


def line_fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares `y = intercept + slope · x`. Returns `(intercept, slope)`; slope 0 for one x."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    return mean_y - slope * mean_x, slope


def time_runs(
    model: "Model",
    sweep: Sweep,
    proceed: Callable[[], bool] = lambda: True,
    reference: "TransformersNetwork | None" = None,
) -> Iterator[TimedRun]:
    """Run a sweep: its warm-up, which is not counted, then every length once per repeat.

    Stops early, keeping what is done, when `proceed` returns False.

    Args:
        reference: runs the same lengths through transformers' `generate`, in turn with ours.
    """
    from engine.loop import check_context

    tokens = len(model.tokenizer.encode_ids(sweep.prompt))
    for length in sweep.lengths:
        check_context(tokens, sweep.config(length), model.facts.context_length)
    for _ in range(sweep.warmup):
        time_once(model, sweep, min(sweep.lengths), proceed)
        if reference is not None:
            time_reference(model, reference, sweep, min(sweep.lengths))
    for _ in range(sweep.repeats):
        for length in sweep.lengths:
            run = time_once(model, sweep, length, proceed)
            if run is None:
                return
            yield run
            if reference is not None:
                yield time_reference(model, reference, sweep, length)


def time_once(
    model: "Model", sweep: Sweep, max_new_tokens: int, proceed: Callable[[], bool] = lambda: True
) -> TimedRun | None:
    """One run of the sweep; `None` when it was cancelled."""
    from engine.loop import generate

    if not sweep.cache:
        return _time_without_cache(model, sweep, max_new_tokens, proceed)
    prefill = 0.0
    token_seconds = []
    began = time.perf_counter()
    config = sweep.config(max_new_tokens)
    for event in generate(model.network, model.tokenizer, [sweep.prompt], [config], candidates=1, proceed=proceed):
        if isinstance(event, Prefilled):
            prefill = event.seconds
        elif isinstance(event, Stepped):
            token_seconds.append(event.seconds)
    seconds = time.perf_counter() - began
    if len(token_seconds) < max_new_tokens:
        return None
    return TimedRun(max_new_tokens, seconds, prefill, tuple(token_seconds))


def _time_without_cache(
    model: "Model", sweep: Sweep, max_new_tokens: int, proceed: Callable[[], bool]
) -> TimedRun | None:
    token_seconds = []
    began = last = time.perf_counter()
    for _ in without_cache(model, model.tokenizer.encode_ids(sweep.prompt), max_new_tokens, proceed):
        now = time.perf_counter()
        token_seconds.append(now - last)
        last = now
    if len(token_seconds) < max_new_tokens:
        return None
    return TimedRun(max_new_tokens, last - began, 0.0, tuple(token_seconds))


def without_cache(
    model: "Model", ids: Sequence[int], count: int, proceed: Callable[[], bool] = lambda: True
) -> Iterator[int]:
    """Greedy continuation that remembers nothing: every step sends the whole text through the network again."""
    from engine.loop import logits_after

    text = list(ids)
    for _ in range(count):
        if not proceed():
            return
        text.append(int(logits_after(model.network, text).argmax()))
        yield text[-1]


def time_reference(model: "Model", reference: "TransformersNetwork", sweep: Sweep, max_new_tokens: int) -> TimedRun:
    """The same run through transformers' own `generate`, greedy, from the prompt's text to the last token."""
    import torch

    began = time.perf_counter()
    ids = torch.tensor([model.tokenizer.encode_ids(sweep.prompt)], device=reference.device)
    reference.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        min_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return TimedRun(max_new_tokens, time.perf_counter() - began, 0.0, (), by="transformers")
