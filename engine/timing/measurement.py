"""What a sweep gave: its statistics, in numbers and in words, and the file it is kept in."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from statistics import StatisticsError, correlation, linear_regression, median
from typing import Any

from engine.base.errors import InputError
from engine.base.files import read_text
from engine.base.language import _
from engine.models.catalog import is_address
from engine.models.model import ModelFacts
from engine.timing.sweep import Runner, Sweep, TimedRun

MAX_FILE_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, 95th and 99th percentile of some seconds."""

    median: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread | None":
        """Of at least one value; `None` for none."""
        values = sorted(seconds)
        return cls(median(values), percentile(values, 95), percentile(values, 99)) if values else None


@dataclass(frozen=True, slots=True)
class Row:
    """The runs of one length by one runner."""

    by: Runner
    max_new_tokens: int
    runs: tuple[TimedRun, ...]
    lanes: int = 1

    @property
    def seconds(self) -> list[float]:
        return [run.seconds for run in self.runs]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def size(self) -> str:
        """Its length, and its lanes where there are several, such as `4×40`."""
        return f"{self.max_new_tokens}" if self.lanes == 1 else f"{self.lanes}×{self.max_new_tokens}"

    @property
    def tokens(self) -> int:
        """Of all lanes."""
        return self.max_new_tokens * self.lanes

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all lanes over the median run's seconds, prefill included."""
        return self.tokens / self.median

    @property
    def prefill_seconds(self) -> float | None:
        return median(run.prefill_seconds for run in self.runs) if self.by in ("logitlab", "lookup") else None

    @property
    def decode_seconds(self) -> float | None:
        return self.median - self.prefill_seconds if self.prefill_seconds is not None else None

    @property
    def time_to_first_token(self) -> Spread | None:
        """Over all texts, in seconds; `None` for transformers, which does not tell."""
        return Spread.of([seconds for run in self.runs for seconds in run.times_to_first_token])

    @property
    def inter_token_seconds(self) -> Spread | None:
        """Over all tokens after the first of their text; `None` where there are none, or they came in groups."""
        if self.in_groups:
            return None
        return Spread.of([seconds for run in self.runs for text in run.texts for seconds in text[1:]])

    @property
    def in_groups(self) -> bool:
        """Whether some tokens came several at a time."""
        return any(run.in_groups for run in self.runs)

    @property
    def seconds_per_token(self) -> Spread | None:
        """Over all texts: (end − first token) / (tokens − 1), what `vllm bench serve` calls TPOT."""
        return Spread.of([seconds for run in self.runs for seconds in run.times_per_output_token])

    def seconds_after_first(self, *, in_groups: bool) -> Spread | None:
        """Of tokens after the first: their mean by text where some row's came in groups, else each one's."""
        return self.seconds_per_token if in_groups else self.inter_token_seconds

    def to_dict(self) -> dict[str, Any]:
        return {
            "lanes": self.lanes,
            "max_new_tokens": self.max_new_tokens,
            "seconds": {
                "median": self.median,
                "min": min(self.seconds),
                "max": max(self.seconds),
                "runs": self.seconds,
            },
            "tokens": self.tokens,
            "tokens_per_second": self.tokens_per_second,
        }

    def latency(self) -> dict[str, Any]:
        """Where the seconds of a run go, in medians: prefill, first token, and each token after it."""
        first, between = self.time_to_first_token, self.inter_token_seconds
        return {
            "by": self.by,
            "lanes": self.lanes,
            "max_new_tokens": self.max_new_tokens,
            "prefill_seconds": self.prefill_seconds,
            "decode_seconds": self.decode_seconds,
            "time_to_first_token_seconds": first and first.median,
            "time_to_first_token_spread": first and asdict(first),
            "inter_token_seconds": between and asdict(between),
            "time_per_output_token_seconds": (each := self.seconds_per_token) and asdict(each),
        }


@dataclass(frozen=True, slots=True)
class Fit:
    """The straight line through runs: `seconds = first + tokens · per_token`; `r_squared` is how straight they are."""

    first_seconds: float
    per_token_seconds: float
    r_squared: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """A sweep, what it ran on, and its runs.

    Attributes:
        at: when it began, ISO 8601 with the offset from UTC.
    """

    model: ModelFacts
    sweep: Sweep
    runs: tuple[TimedRun, ...] = ()
    at: str = ""

    @property
    def title(self) -> str:
        """What tells it from others, such as `smollm2-135m Q4_1 ×2`."""
        counts = self.sweep.lanes
        lanes = f"{counts[0]}" if len(counts) == 1 else f"{min(counts)}–{max(counts)}"
        shown = _(" · {lanes} lanes", lanes=lanes) if max(counts) > 1 else ""
        if is_address(self.model.name):
            return f"{self.model.title} {self.model.precision} {self.model.device}{shown}"
        return f"{self.model.name} {self.model.precision} ×{self.model.threads}{shown}"

    @property
    def complete(self) -> bool:
        return len(self.runs) == len(self.sweep.plan())

    def rows(self, by: Runner | None = None) -> list[Row]:
        """By runner in the order of the sweep, fewest lanes and shortest first; of one runner if it is given."""
        found: dict[tuple[Runner, int, int], list[TimedRun]] = {}
        for run in self.runs:
            if by in (None, run.by):
                found.setdefault((run.by, run.lanes, run.max_new_tokens), []).append(run)
        order = sorted(found, key=lambda one: (self.sweep.runners.index(one[0]), one))
        return [Row(runner, length, tuple(found[runner, lanes, length]), lanes) for runner, lanes, length in order]

    def by_length(self, by: Runner | None = None) -> list[Row]:
        """The rows of the fewest lanes, shortest first."""
        return [row for row in self.rows(by) if row.lanes == min(self.sweep.lanes)]

    def by_lanes(self, by: Runner | None = None) -> list[Row]:
        """The rows of the longest runs, fewest lanes first."""
        return [row for row in self.rows(by) if row.max_new_tokens == max(self.sweep.lengths)]

    def runs_of(self, by: Runner) -> list[TimedRun]:
        """A runner's runs in the fewest lanes, in order."""
        return [run for run in self.runs if run.by == by and run.lanes == min(self.sweep.lanes)]

    def fit(self, by: Runner | None = None) -> Fit | None:
        """The line through all runs of a runner (the first when not given); `None` below two lengths."""
        runs = self.runs_of(by or self.sweep.runners[0])
        points = [(float(run.max_new_tokens), run.seconds) for run in runs]
        if len({x for x, _ in points}) < 2:
            return None
        line = linear_regression(*zip(*points))
        return Fit(line.intercept, line.slope, r_squared(points))

    def speedup(self, peer: Runner) -> float | None:
        """Median over all pairs of the peer's seconds divided by ours for the same length, in the order they ran."""
        ours, theirs = ([run for run in self.runs if run.by == by] for by in ("logitlab", peer))
        pairs = list(zip(ours, theirs))
        return median(their.seconds / own.seconds for own, their in pairs) if pairs else None

    def straightness(self, by: Runner) -> float | None:
        """R² of a straight line through the seconds until each token of the longest runs; `None` where not known."""
        reached = list(accumulate(token_latencies(self.runs_of(by))))
        return r_squared([(float(place), seconds) for place, seconds in enumerate(reached)]) if reached else None

    def growth(self, by: Runner) -> tuple[float, float] | None:
        """From the shortest to the longest: how many times the tokens, and how many times the median seconds."""
        rows = self.by_length(by)
        if len(rows) < 2:
            return None
        return rows[-1].max_new_tokens / rows[0].max_new_tokens, rows[-1].median / rows[0].median

    def to_dict(self) -> dict[str, Any]:
        """In the shape of `bench --json`, which `read_measurement` reads back."""
        from importlib.metadata import version

        first = self.sweep.runners[0]
        peers = self.rows("transformers") if first != "transformers" else []
        fits = {by: fit and asdict(fit) for by in self.sweep.runners for fit in (self.fit(by),)}
        ratio = self.speedup("transformers") if peers else None
        return {
            "model": asdict(self.model),
            "at": self.at,
            "sweep": asdict(self.sweep),
            "cache": first != "without cache",
            "rows": [row.to_dict() for row in self.rows(first)],
            "latency": [row.latency() for row in self.rows() if row.by != "transformers"],
            "fit": fits[first],
            "fits": fits,
            "against": {
                "name": "transformers",
                "version": version("transformers"),
                "rows": [row.to_dict() for row in peers],
            }
            if peers
            else None,
            "speedup": {"median": ratio} if ratio is not None else None,
            "runs": [asdict(run) for run in self.runs],
        }


def read_measurement(path: Path) -> Measurement:
    """A measurement that `bench --save` or `bench --json` wrote.

    Raises:
        InputError: the file cannot be read, or is no measurement.
    """
    import msgspec

    text = read_text(path, MAX_FILE_BYTES)
    try:
        return msgspec.convert(with_several_lanes(msgspec.json.decode(text)), Measurement)
    except msgspec.DecodeError as error:
        raise InputError(
            _(
                "{path} is no measurement ({error}); logitlab bench --save {name} writes one",
                path=path,
                error=error,
                name=path.name,
            )
        ) from error
    except RecursionError as error:
        raise InputError(_("{path} is nested too deeply to be a measurement", path=path)) from error


def with_several_lanes(document: Any) -> Any:
    """A measurement's JSON as it is now; before, all its runs had the same lanes, as one number."""
    sweep = document.get("sweep") if isinstance(document, dict) else None
    if not isinstance(sweep, dict) or not isinstance(lanes := sweep.get("lanes"), int):
        return document
    runs = [{**run, "lanes": lanes} if isinstance(run, dict) else run for run in document.get("runs") or ()]
    return {**document, "sweep": {**sweep, "lanes": [lanes]}, "runs": runs}


def token_latencies(runs: Sequence[TimedRun]) -> list[float]:
    """Seconds of each token in order, the medians of the longest runs; the first token without its prefill.

    Runs of a server whose tokens came in groups have none; of those with a draft several tokens are of one forward.
    """
    timed = [run.token_seconds for run in runs if run.by == "lookup" or not run.in_groups]
    longest = max(map(len, timed), default=0)
    return [median(of_one) for of_one in zip(*(one for one in timed if len(one) == longest))] if longest else []


def percentile(values: Sequence[float], part: int) -> float:
    """The value that `part` per cent do not exceed: the nearest one of those in order. Needs at least one."""
    return values[max(0, -(-len(values) * part // 100) - 1)]


def r_squared(points: Sequence[tuple[float, float]]) -> float:
    """How much of the spread of y a straight line explains; 1 where there is none to explain."""
    try:
        return correlation(*zip(*points)) ** 2
    except StatisticsError:  # all x or all y are alike
        return 1.0
