"""A measurement in tables and words."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from engine.base.errors import InputError
from engine.base.language import N_, _
from engine.timing.measurement import Measurement, Row, Spread
from engine.timing.sweep import runner_name

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

    Rows of a server, or of several numbers of lanes, are in the terms of `vllm bench serve`.
    """

    def ms(seconds: float | None) -> str:
        return "–" if seconds is None else f"{seconds * 1e3:.1f}"

    def spread(found: Spread | None) -> list[str]:
        return ["–"] * 3 if found is None else [ms(found.median), ms(found.p95), ms(found.p99)]

    cells: list[tuple[str, ...]] = []
    if len({row.lanes for row in rows}) > 1 or any(row.by == "server" for row in rows):
        in_groups = any(row.in_groups for row in rows)
        for row in rows:
            first = spread(row.time_to_first_token)
            between = spread(row.seconds_after_first(in_groups=in_groups))
            speed = (f"{row.lanes}", f"{row.max_new_tokens}", f"{row.tokens_per_second:.1f}")
            cells.append(
                (runner_name(row.by), *speed, first[0], between[0], f"{row.median:.3f}", *first[1:], *between[1:])
            )
        headers = [_(header) for header in AT_ONCE_HEADERS]
        return tuple(header.replace("ITL", "TPOT") if in_groups else header for header in headers), cells
    for row in rows:
        first, between = spread(row.time_to_first_token), spread(row.seconds_after_first(in_groups=row.in_groups))
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
        if ratio is not None and by == "lookup":
            said[-1] += _("; {ratio:.2f} times as fast as without", ratio=1 / ratio)
        elif ratio is not None:
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
    if any(row.in_groups for row in measurement.rows()):
        said.append(
            _(
                "tokens came several at a time: the time per token (TPOT) is (end − first) / (tokens − 1) of a text, "
                "and not the gap between two"
            )
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
            "prefill_seconds": run.prefill_seconds if run.by in ("logitlab", "lookup") else None,
            "time_to_first_token_seconds": median(firsts) if (firsts := run.times_to_first_token) else None,
            "tokens_per_second": run.max_new_tokens * run.lanes / run.seconds,
            "at": measurement.at,
        }
        for run in measurement.runs
    ]
