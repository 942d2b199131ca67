"""How long generation takes: sweeps over output lengths, run in turn with what they are compared with."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal, get_args

from engine.base.errors import ConfigError, InputError
from engine.base.language import _
from engine.generation.config import GenerationConfig
from engine.generation.events import Prefilled, Stepped

if TYPE_CHECKING:
    from engine.loading import Model
    from engine.networks.transformers import TransformersNetwork

TIMING_PROMPT = "Elixir notebooks are useful because"
MAX_REPEATS = 1000
MAX_LANES = 64
MAX_AT_A_SERVER = 512

Runner = Literal["logitlab", "without cache", "transformers", "server"]


def runner_name(by: Runner) -> str:
    """What people read of a runner."""
    return {"without cache": _("without cache"), "server": _("server")}.get(by, by)


RUNNERS: tuple[Runner, ...] = get_args(Runner)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What to time. Runs ignore end-of-text, so that every run writes all its tokens.

    Attributes:
        lengths: `max_new_tokens` of the runs.
        repeats: runs of each length; they alternate, so that a drifting machine hits all alike.
        warmup: runs that are not counted.
        lanes: continuations written at once, in one batch or as streams of a server; each number is timed.
        runners: who runs every length, in turn. `without cache` reads the whole text again for every token;
            `transformers` is its own `generate` in float32; `server` stands alone.
    """

    prompt: str = TIMING_PROMPT
    lengths: tuple[int, ...] = (10, 20, 40, 60)
    temperature: float = 0.9
    repeats: int = 5
    warmup: int = 1
    lanes: tuple[int, ...] = (1,)
    runners: tuple[Runner, ...] = ("logitlab",)

    def __post_init__(self) -> None:
        if not self.prompt:
            raise InputError(_("the prompt is empty; type at least one character"))
        if not self.lengths:
            raise InputError(_("no lengths to time; give some, such as 10,20,40,60"))
        for length in self.lengths:
            self.config(length)
        for name, value, least, most in (
            ("repeats", self.repeats, 1, MAX_REPEATS),
            ("warmup", self.warmup, 0, MAX_REPEATS),
            *(("lanes", lanes, 1, MAX_AT_A_SERVER if "server" in self.runners else MAX_LANES) for lanes in self.lanes),
        ):
            if not least <= value <= most:
                raise ConfigError(name, value, _("a whole number from {least} to {most:,}", least=least, most=most))
        if not self.runners or not set(self.runners) <= set(RUNNERS):
            raise ConfigError("runners", self.runners, ", ".join(RUNNERS))
        if not self.lanes:
            raise InputError(_("no lanes to time; give some, such as 1,2,4,8"))
        if max(self.lanes) > 1 and "without cache" in self.runners:
            raise InputError(_("without a cache one lane can be timed; leave out the lanes, or keep the cache"))

    def config(self, max_new_tokens: int) -> GenerationConfig:
        """The configuration of one run; invalid values raise `ConfigError`."""
        return GenerationConfig(
            name="timing",
            strategy="greedy",
            max_new_tokens=max_new_tokens,
            temperature=self.temperature,
            ignore_eos=True,
        )

    def plan(self) -> list[tuple[Runner, int, int]]:
        """Who runs which length in how many lanes, in order."""
        return [
            (by, length, lanes)
            for _ in range(self.repeats)
            for lanes in self.lanes
            for length in self.lengths
            for by in self.runners
        ]


@dataclass(frozen=True, slots=True)
class TimedRun:
    """One timed generation.

    Attributes:
        seconds: from the prompt to the last token, prefill included.
        prefill_seconds: the part before the first step; 0 where it cannot be told apart.
        token_seconds: of each token in order; empty for transformers, which does not tell.
        lanes: written at once.
        others: `token_seconds` of the other lanes, where each has its own: those of a server.
    """

    max_new_tokens: int
    seconds: float
    prefill_seconds: float
    token_seconds: tuple[float, ...]
    by: Runner = "logitlab"
    lanes: int = 1
    others: tuple[tuple[float, ...], ...] = ()

    @property
    def texts(self) -> tuple[tuple[float, ...], ...]:
        """Seconds of each token of each text that has a clock of its own."""
        return (self.token_seconds, *self.others) if self.token_seconds else ()

    @property
    def times_to_first_token(self) -> list[float]:
        """Seconds until the first token of each text is there; none for transformers, which does not tell."""
        return [self.prefill_seconds + text[0] for text in self.texts]


def parse_lengths(text: str) -> tuple[int, ...]:
    """`10, 20,40` → `(10, 20, 40)`. Raises `ConfigError` for anything else."""
    return _numbers("lengths", text, "10,20,40,60")


def parse_lanes(text: str) -> tuple[int, ...]:
    """`1,2, 4` → `(1, 2, 4)`. Raises `ConfigError` for anything else."""
    return _numbers("lanes", text, "1,2,4,8")


def _numbers(name: str, text: str, example: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        allowed = _("whole numbers separated by commas, such as {example}", example=example)
        raise ConfigError(name, text, allowed) from error


def seconds_left(sweep: Sweep, runs: Sequence[TimedRun]) -> float | None:
    """About how long the rest of a sweep takes, from the runs that are done; `None` before a runner's first."""
    known: dict[tuple[Runner, int, int], list[float]] = {}
    for run in runs:
        known.setdefault((run.by, run.lanes, run.max_new_tokens), []).append(run.seconds)
    left = 0.0
    for by, length, lanes in sweep.plan()[len(runs) :]:
        if (by, lanes, length) in known:
            left += median(known[by, lanes, length])
            continue
        alike = [one for one in known if one[0] == by]
        if not alike:
            return None
        nearest = max(alike)  # the most lanes, and of these the longest
        growth = length / nearest[2]
        left += median(known[nearest]) * (growth**2 if by == "without cache" else growth)
    return left


def time_runs(
    model: "Model",
    sweep: Sweep,
    proceed: Callable[[], bool] = lambda: True,
    reference: "TransformersNetwork | None" = None,
) -> Iterator[TimedRun]:
    """Run a sweep: its warm-up, which is not counted, then every length once per repeat and runner.

    Stops early, keeping what is done, when `proceed` returns False.

    Args:
        reference: the same weights for the runner `transformers`.
    """
    from engine.generation.loop import check_context

    tokens = len(model.tokenizer.encode_ids(sweep.prompt))
    for length in sweep.lengths:
        check_context(tokens, sweep.config(length), model.facts.context_length)

    def timed(by: Runner, length: int, lanes: int) -> TimedRun | None:
        match by:
            case "logitlab":
                return _time_own(model, sweep, length, lanes, proceed)
            case "without cache":
                return _time_without_cache(model, sweep, length, proceed)
            case "transformers" if reference is not None:
                return _time_reference(model, reference, sweep, length, lanes, proceed)
            case "transformers":
                raise InputError(_("transformers' module is not loaded; ask for it before the sweep"))
        raise InputError(_("a server's runs are timed by the server's model; connect to it"))

    yield from carry_out(sweep, timed)


def carry_out(sweep: Sweep, timed: Callable[[Runner, int, int], TimedRun | None]) -> Iterator[TimedRun]:
    """The runs of a sweep after its warm-up, until `timed` gives none: of a runner, a length, and so many lanes."""
    for _run in range(sweep.warmup):
        for by in sweep.runners:
            if timed(by, min(sweep.lengths), min(sweep.lanes)) is None:
                return
    for by, length, lanes in sweep.plan():
        run = timed(by, length, lanes)
        if run is None:
            return
        yield run


def _time_own(
    model: "Model", sweep: Sweep, max_new_tokens: int, lanes: int, proceed: Callable[[], bool]
) -> TimedRun | None:
    """One run of all lanes; `None` when it was cancelled."""
    from engine.generation.loop import generate

    prefill = 0.0
    token_seconds = []
    configs = [sweep.config(max_new_tokens)] * lanes
    began = time.perf_counter()
    for event in generate(model.network, model.tokenizer, [sweep.prompt], configs, candidates=1, proceed=proceed):
        if isinstance(event, Prefilled):
            prefill = event.seconds
        elif isinstance(event, Stepped) and event.lane == 0:
            token_seconds.append(event.seconds)
    seconds = time.perf_counter() - began
    if len(token_seconds) < max_new_tokens:
        return None
    return TimedRun(max_new_tokens, seconds, prefill, tuple(token_seconds), lanes=lanes)


def _time_without_cache(
    model: "Model", sweep: Sweep, max_new_tokens: int, proceed: Callable[[], bool]
) -> TimedRun | None:
    token_seconds = []
    began = last = time.perf_counter()
    for _token in without_cache(model, model.tokenizer.encode_ids(sweep.prompt), max_new_tokens, proceed):
        now = time.perf_counter()
        token_seconds.append(now - last)
        last = now
    if len(token_seconds) < max_new_tokens:
        return None
    return TimedRun(max_new_tokens, last - began, 0.0, tuple(token_seconds), "without cache")


def without_cache(
    model: "Model", ids: Sequence[int], count: int, proceed: Callable[[], bool] = lambda: True
) -> Iterator[int]:
    """Greedy continuation that remembers nothing: every step sends the whole text through the network again."""
    from engine.generation.loop import logits_after

    text = list(ids)
    for _token in range(count):
        if not proceed():
            return
        text.append(int(logits_after(model.network, text).argmax()))
        yield text[-1]


def _time_reference(
    model: "Model",
    reference: "TransformersNetwork",
    sweep: Sweep,
    max_new_tokens: int,
    lanes: int,
    proceed: Callable[[], bool],
) -> TimedRun | None:
    """The same run through transformers' own `generate`, greedy, from the prompt's text to the last token."""
    import torch
    from transformers import StoppingCriteriaList

    went_on = True

    def stop(ids: torch.Tensor, scores: torch.Tensor, **others: object) -> torch.Tensor:
        nonlocal went_on
        went_on = proceed()
        return torch.full((ids.shape[0],), not went_on)

    began = time.perf_counter()
    ids = torch.tensor([model.tokenizer.encode_ids(sweep.prompt)] * lanes, device=reference.device)
    reference.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        min_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([stop]),
    )
    seconds = time.perf_counter() - began
    return TimedRun(max_new_tokens, seconds, 0.0, (), "transformers", lanes) if went_on else None
