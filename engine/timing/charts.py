"""Charts of measurements and counts: the same on the screen, in a terminal and as SVG."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import median

from engine.base.chart import INKS, Bar, Chart, Point, Series, Span
from engine.base.chart import draw as draw_chart
from engine.base.language import _, counted
from engine.base.plain import one_line
from engine.timing.measurement import Measurement, Row, token_latencies
from engine.timing.sweep import Runner, runner_name

# Lane A's blue and lane B's orange mean the lab and its peer; green and the rest are for what is laid over.
INK: dict[Runner, int] = {"logitlab": 0, "transformers": 1, "without cache": 2, "server": 3, "lookup": 4}
# Of the inks where there is no theme: in exports and on the command line.
COLOURS = ((122, 162, 247), (255, 158, 100), (158, 206, 106), (187, 154, 247), (224, 175, 104), (125, 207, 255))
MOST_OVERLAID = INKS

Drawn = Callable[[Sequence[Measurement]], Chart]


def seconds_by_length(measurements: Sequence[Measurement]) -> Chart:
    """Medians with their spread from least to most, and the fitted line, of the newest measurement."""
    newest = measurements[-1]
    series = [_points(newest, by, INK[by], runner_name(by)) for by in newest.sweep.runners]
    title = _("seconds by tokens generated: median, least to most, fitted line")
    return Chart(title, _("tokens"), series)


def latency_by_token(measurements: Sequence[Measurement]) -> Chart:
    """How long each token of the longest runs took, in order, in milliseconds."""
    newest = measurements[-1]
    series, most = [], 0.0
    for by in newest.sweep.runners:
        latencies = [seconds * 1e3 for seconds in token_latencies(newest.runs_of(by))]
        if latencies:
            most = max(most, sorted(latencies)[-1 - len(latencies) // 50])  # a hiccup or two may leave the picture
            series.append(Series(runner_name(by), INK[by], list(enumerate(latencies, start=1))))
    title = _("milliseconds for each token in order: median of the longest runs")
    return Chart(title, _("token"), series, y=(0, most) if most else None)


def with_and_without_cache(measurements: Sequence[Measurement]) -> Chart:
    """Seconds until each token of the longest runs: straight with a cache, bending without, in steps with a draft."""
    series = []
    runners: tuple[Runner, ...] = ("logitlab", "without cache", "lookup")
    for by in runners:
        found = next((m for m in reversed(measurements) if any(run.by == by for run in m.runs)), None)
        if found is not None:
            runs = found.runs_of(by)
            prefill = median(run.prefill_seconds for run in runs)
            reached = [prefill + seconds for seconds in accumulate(token_latencies(runs))]
            name = _("with cache") if by == "logitlab" else runner_name(by)
            series.append(Series(name, INK[by], list(enumerate(reached, start=1))))
    return Chart(_("seconds until each token: with a cache straight, without one bending"), _("token"), series)


def overlaid(measurements: Sequence[Measurement]) -> Chart:
    """The newest measurements over one another, each by its first runner."""
    series = [
        _points(one, one.sweep.runners[0], number, f"{number + 1} {one_line(one.title)}")
        for number, one in enumerate(measurements[-MOST_OVERLAID:])
    ]
    return Chart(_("measurements over one another: median seconds by tokens generated"), _("tokens"), series)


def against_transformers(measurements: Sequence[Measurement]) -> Chart:
    """Tokens a second of both, by length."""
    found = next((m for m in reversed(measurements) if "transformers" in m.sweep.runners), measurements[-1])
    runners: tuple[Runner, ...] = ("logitlab", "transformers")
    rows = {by: {row.max_new_tokens: row for row in found.by_length(by)} for by in runners}
    there = [by for by in runners if rows[by]]
    lengths = sorted(set.intersection(*(set(rows[by]) for by in there))) if there else []
    bars = [
        Bar(
            counted("{by}, {count:,} token", "{by}, {count:,} tokens", length, by=by),
            speed := rows[by][length].tokens_per_second,
            f"{speed:,.1f}",
            INK[by],
        )
        for length in lengths
        for by in there
    ]
    return Chart(_("tokens a second: logitlab beside transformers"), bars=bars)


def throughput(measurements: Sequence[Measurement]) -> Chart:
    """Tokens a second of all lanes together, by lanes at once: the newest measurements over one another."""
    series = []
    for number, one in enumerate(_with_several_lanes(measurements)):
        points = [(row.lanes, row.tokens_per_second) for row in one.by_lanes(one.sweep.runners[0])]
        series.append(Series(f"{number + 1} {one_line(one.title)}", number, points, points))
    return Chart(_("tokens a second by lanes at once: all of them together"), _("lanes at once"), series)


def latency_by_lanes(measurements: Sequence[Measurement]) -> Chart:
    """What one reader waits for, by lanes at once: first token and each after it, of the newest such measurement."""
    series = []
    for one in _with_several_lanes(measurements)[-1:]:
        in_groups = any(row.in_groups for row in one.rows())
        rows = [
            (row.lanes, first, between)
            for row in one.by_lanes(one.sweep.runners[0])
            if (first := row.time_to_first_token)
            and (between := row.seconds_per_token if in_groups else row.inter_token_seconds)
        ]
        waits = (
            (_("first token (TTFT), median"), [(lanes, first.median) for lanes, first, _between in rows]),
            (
                _("each token (TPOT), median") if in_groups else _("each token (ITL), median"),
                [(lanes, between.median) for lanes, _first, between in rows],
            ),
            (_("each token, 99 of 100 within"), [(lanes, between.p99) for lanes, _first, between in rows]),
        )
        for ink, (name, seconds) in enumerate(waits):
            points: list[Point] = [(lanes, 1e3 * value) for lanes, value in seconds]
            series.append(Series(name, ink, points, points))
    return Chart(_("milliseconds that one reader waits, by lanes at once"), _("lanes at once"), series)


def _with_several_lanes(measurements: Sequence[Measurement]) -> list[Measurement]:
    return [one for one in measurements if len(one.sweep.lanes) > 1][-MOST_OVERLAID:]


CHARTS: dict[str, Drawn] = {
    "length": seconds_by_length,
    "token": latency_by_token,
    "cache": with_and_without_cache,
    "overlay": overlaid,
    "transformers": against_transformers,
    "lanes": throughput,
    "latency": latency_by_lanes,
}


def chart_of(name: str, measurements: Sequence[Measurement]) -> Chart:
    """One of `CHARTS`; measurements without a run are left out, and without any it is empty."""
    usable = [one for one in measurements if one.runs]
    return CHARTS[name](usable) if usable else Chart()


def as_text(name: str, measurements: Sequence[Measurement], width: int = 100, height: int = 28) -> str:
    """A chart as `height` lines of text with ANSI colours."""
    rows = draw_chart(chart_of(name, measurements), width, height)
    return "\n".join("".join(map(_ansi, row)) for row in rows) + "\n"


def as_svg(text: str, title: str) -> str:
    """Lines of text with ANSI colours as an SVG picture of a terminal."""
    import io

    from rich.console import Console
    from rich.text import Text

    lines = Text.from_ansi(text)
    width = max((line.cell_len for line in lines.split()), default=1)
    console = Console(
        record=True, width=max(width, 20), file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(lines)
    return console.export_svg(title=one_line(title))


def _ansi(span: Span) -> str:
    if span.ink == "title":
        return f"\x1b[1m{span.text}\x1b[0m"
    if span.ink == "axis" or not span.text.strip():
        return span.text
    red, green, blue = COLOURS[span.ink]
    return f"\x1b[38;2;{red};{green};{blue}m{span.text}\x1b[0m"


def _points(measurement: Measurement, by: Runner, ink: int, name: str) -> Series:
    """A runner's medians with their spread, and its line: fitted, or from one to the next where none is straight."""
    rows: Sequence[Row] = measurement.by_length(by)
    points = [(row.max_new_tokens, row.median) for row in rows]
    spreads = [(row.max_new_tokens, min(row.seconds), max(row.seconds)) for row in rows]
    fit = measurement.fit(by)
    line: list[Point] = list(points)
    if fit is not None and by != "without cache":
        ends = (0, max(x for x, _y in points))
        line = [(end, fit.first_seconds + fit.per_token_seconds * end) for end in ends]
    return Series(name, ink, line, points, spreads)
