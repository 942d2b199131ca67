"""What a sweep gave: its statistics, in numbers and in words, and the file it is kept in."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

from engine.base.errors import InputError
from engine.base.files import read_text
from engine.base.language import N_, _
from engine.loading import ModelFacts
from engine.models.catalog import is_address
from engine.timing.sweep import Runner, Sweep, TimedRun, runner_name

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
        return median(run.prefill_seconds for run in self.runs) if self.by == "logitlab" else None

    @property
    def decode_seconds(self) -> float | None:
        return self.median - self.prefill_seconds if self.prefill_seconds is not None else None

    @property
    def time_to_first_token(self) -> Spread | None:
        """Over all texts, in seconds; `None` for transformers, which does not tell."""
        return Spread.of([seconds for run in self.runs for seconds in run.times_to_first_token])

    @property
    def inter_token_seconds(self) -> Spread | None:
        """Over all tokens after the first of their text; `None` where there are none."""
        return Spread.of([seconds for run in self.runs for text in run.texts for seconds in text[1:]])

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
        told = self.sweep.lanes
        lanes = f"{told[0]}" if len(told) == 1 else f"{min(told)}–{max(told)}"
        shown = _(" · {lanes} lanes", lanes=lanes) if max(told) > 1 else ""
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
        return Fit(*line_fit(points), r_squared(points))

    def speedup(self, peer: Runner) -> float | None:
        """Median over all pairs of the peer's seconds divided by ours for the same length, in the order they ran."""
        ours, theirs = ([run for run in self.runs if run.by == by] for by in ("logitlab", peer))
        pairs = list(zip(ours, theirs))
        return median(their.seconds / own.seconds for own, their in pairs) if pairs else None

    def straightness(self, by: Runner) -> float | None:
        """R² of a straight line through the seconds until each token of the longest runs; `None` where not told."""
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


HEADERS = (
    N_("by"),
    N_("tokens"),
    N_("median s"),
    N_("min s"),
    N_("max s"),
    N_("tokens/s"),
    N_("first ms"),
    N_("prefill ms"),
    N_("decode s"),
    N_("token ms"),
    N_("p95 ms"),
)
AT_ONCE_HEADERS = (
    N_("by"),
    N_("at once"),
    N_("tokens"),
    N_("tokens/s"),
    "TTFT ms",
    "ITL ms",
    N_("median s"),
    "TTFT p95",
    "TTFT p99",
    "ITL p95",
    "ITL p99",
)


def measured_table(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headers and cells of a table of rows; `–` for what a runner does not tell.

    Rows of a server, or of several numbers of lanes, are told in the terms of `vllm bench serve`.
    """

    def ms(seconds: float | None) -> str:
        return "–" if seconds is None else f"{seconds * 1e3:.1f}"

    def spread(told: Spread | None) -> list[str]:
        return ["–"] * 3 if told is None else [ms(told.median), ms(told.p95), ms(told.p99)]

    cells: list[tuple[str, ...]] = []
    if len({row.lanes for row in rows}) > 1 or any(row.by == "server" for row in rows):
        for row in rows:
            first, between = spread(row.time_to_first_token), spread(row.inter_token_seconds)
            speed = (f"{row.lanes}", f"{row.max_new_tokens}", f"{row.tokens_per_second:.1f}")
            cells.append(
                (runner_name(row.by), *speed, first[0], between[0], f"{row.median:.3f}", *first[1:], *between[1:])
            )
        return tuple(map(_, AT_ONCE_HEADERS)), cells
    for row in rows:
        first, between = spread(row.time_to_first_token), spread(row.inter_token_seconds)
        cells.append(
            (
                runner_name(row.by),
                row.size,
                f"{row.median:.3f}",
                f"{min(row.seconds):.3f}",
                f"{max(row.seconds):.3f}",
                f"{row.tokens_per_second:.1f}",
                first[0],
                ms(row.prefill_seconds),
                "–" if row.decode_seconds is None else f"{row.decode_seconds:.3f}",
                between[0],
                between[1],
            )
        )
    return tuple(map(_, HEADERS)), cells


def words(measurement: Measurement) -> list[str]:
    """What a measurement shows, in sentences for people; empty before there are two lengths."""
    said = []
    for by in measurement.sweep.runners:
        fit = measurement.fit(by)
        if fit is None:
            continue
        first, per_token = max(0.0, fit.first_seconds) * 1e3, fit.per_token_seconds * 1e3
        line = _(
            "seconds = {first_seconds:.3f} + {per_token_seconds:.4f} × tokens (R² {r_squared:.4f})",
            first_seconds=fit.first_seconds,
            per_token_seconds=fit.per_token_seconds,
            r_squared=fit.r_squared,
        )
        growth, straight = measurement.growth(by), measurement.straightness(by)
        if by == "without cache" and growth is not None:
            line += _(
                ", but it bends upwards: {more:.3g} times the tokens took {times:.1f} times as long",
                more=growth[0],
                times=growth[1],
            )
        else:
            line += _(": {first:.0f} ms to begin, then {per_token:.1f} ms a token", first=first, per_token=per_token)
        if straight is not None and "without cache" in measurement.sweep.runners:
            line += _(" (R² along the longest runs {straight:.4f})", straight=straight)
        said.append(line if by in ("logitlab", "server") else f"{runner_name(by)}: {line}")
        ratio = measurement.speedup(by) if by not in ("logitlab", "server") else None
        if ratio is not None:
            said[-1] += _("; logitlab is {ratio:.1f} times as fast", ratio=ratio)
    rows = measurement.by_lanes(measurement.sweep.runners[0])
    if len(rows) > 1:
        few, many = rows[0], rows[-1]
        said.append(
            _(
                "{many} at once: {speed:.0f} tokens/s, {times:.1f} times as many as {few}",
                many=many.lanes,
                few=few.lanes,
                speed=many.tokens_per_second,
                times=many.tokens_per_second / few.tokens_per_second,
            )
        )
        if few.inter_token_seconds and many.inter_token_seconds:
            said[-1] += _(
                "; each of them gets a token every {many:.0f} ms instead of every {few:.0f} ms",
                many=many.inter_token_seconds.median * 1e3,
                few=few.inter_token_seconds.median * 1e3,
            )
    return said


def compared(a: Measurement, b: Measurement) -> list[tuple[Row, Row, float]]:
    """Lengths that both measured, by runner: `(row of a, row of b, b's tokens per second / a's)`.

    A server's runs are laid beside logitlab's own. Where both ran in one number of lanes, it may be another one.

    Raises:
        InputError: they have no length in common.
    """
    several = max(len(a.sweep.lanes), len(b.sweep.lanes)) > 1

    def key(row: Row) -> tuple[str, int, int]:
        return "logitlab" if row.by == "server" else row.by, row.lanes if several else 0, row.max_new_tokens

    of_b = {key(row): row for row in b.rows()}
    both = [(row, of_b[key(row)]) for row in a.rows() if key(row) in of_b]
    if not both:
        raise InputError(
            _("the two measurements have no length in common; measure the same --lengths and --lanes twice")
        )
    return [(row, other, other.tokens_per_second / row.tokens_per_second) for row, other in both]


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
    """A measurement's JSON as it is now; before, all its runs had the same lanes, told as one number."""
    sweep = document.get("sweep") if isinstance(document, dict) else None
    if not isinstance(sweep, dict) or not isinstance(lanes := sweep.get("lanes"), int):
        return document
    runs = [{**run, "lanes": lanes} if isinstance(run, dict) else run for run in document.get("runs") or ()]
    return {**document, "sweep": {**sweep, "lanes": [lanes]}, "runs": runs}


def run_columns(measurement: Measurement) -> list[dict[str, Any]]:
    """Every run as one row of a table, with what it ran on."""
    return [
        {
            "by": run.by,
            "model": measurement.model.name,
            "precision": "float32" if run.by == "transformers" else measurement.model.precision,
            "device": measurement.model.device,
            "threads": measurement.model.threads,
            "lanes": run.lanes,
            "max_new_tokens": run.max_new_tokens,
            "seconds": run.seconds,
            "prefill_seconds": run.prefill_seconds if run.by == "logitlab" else None,
            "time_to_first_token_seconds": median(firsts) if (firsts := run.times_to_first_token) else None,
            "tokens_per_second": run.max_new_tokens * run.lanes / run.seconds,
            "at": measurement.at,
        }
        for run in measurement.runs
    ]


def token_latencies(runs: Sequence[TimedRun]) -> list[float]:
    """Seconds of each token in order, the medians of the longest runs; the first token without its prefill."""
    longest = max((len(run.token_seconds) for run in runs), default=0)
    told = [run.token_seconds for run in runs if len(run.token_seconds) == longest]
    return [median(of_one) for of_one in zip(*told)] if longest else []


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
