"""How long generation takes: sweeps over output lengths, run in turn with what they are compared with."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal, get_args

from engine.base.errors import ConfigError, InputError
from engine.base.language import _
from engine.generation.config import GenerationConfig

if TYPE_CHECKING:
    pass

TIMING_PROMPT = "Elixir notebooks are useful because"
MAX_REPEATS = 1000
MAX_LANES = 64
MAX_AT_A_SERVER = 512

Runner = Literal["logitlab", "without cache", "transformers", "server", "lookup"]


def runner_name(by: Runner) -> str:
    """What people read of a runner."""
    names = {"without cache": _("without cache"), "server": _("server"), "lookup": _("with a draft")}
    return names.get(by, by)


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
            `transformers` is its own `generate` in float32; `lookup` has a draft, see `engine.generation.drafts`;
            `server` stands alone.
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
        prefill_seconds: the part before the first step; 0 where it cannot be separated.
        token_seconds: of each token in order, with a draft as they came; of the first and of all others together where
            a server's came in groups; empty for transformers, which does not tell.
        lanes: written at once.
        others: `token_seconds` of the other lanes, where each has its own: those of a server.
        in_groups: some tokens came several at a time, so that the gaps between them say little.
    """

    max_new_tokens: int
    seconds: float
    prefill_seconds: float
    token_seconds: tuple[float, ...]
    by: Runner = "logitlab"
    lanes: int = 1
    others: tuple[tuple[float, ...], ...] = ()
    in_groups: bool = False

    @property
    def texts(self) -> tuple[tuple[float, ...], ...]:
        """Seconds of each token of each text that has a clock of its own."""
        return (self.token_seconds, *self.others) if self.token_seconds else ()

    @property
    def times_to_first_token(self) -> list[float]:
        """Seconds until the first token of each text is there; none for transformers, which does not tell."""
        return [self.prefill_seconds + text[0] for text in self.texts]

    @property
    def times_per_output_token(self) -> list[float]:
        """Of each text, (end − first token) / (tokens − 1) in seconds; none where they all came at once."""
        return [after / (self.max_new_tokens - 1) for text in self.texts if (after := sum(text[1:])) > 0]


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
