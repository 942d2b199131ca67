"""Charts of measurements and counts, drawn on plotext's canvas: the same on the screen, in a terminal and as SVG.

Every function takes a plot: `plotext` itself, or the one of a textual-plotext widget.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import median
from typing import Any

from engine.base.language import _
from engine.base.plain import for_grid, one_line
from engine.timing.measurement import Measurement, token_latencies
from engine.timing.sweep import Runner, runner_name

# Lane A's blue and lane B's orange mean the lab and its peer; green and the rest are for what is laid over.
COLOURS: dict[Runner, tuple[int, int, int]] = {
    "logitlab": (122, 162, 247),
    "without cache": (158, 206, 106),
    "transformers": (255, 158, 100),
    "server": (187, 154, 247),
}
OVERLAID = ((122, 162, 247), (255, 158, 100), (158, 206, 106), (187, 154, 247), (224, 175, 104), (125, 207, 255))
MARKER = "braille"

Plot = Any
Chart = Callable[[Plot, Sequence[Measurement]], None]


def seconds_by_length(plot: Plot, measurements: Sequence[Measurement]) -> None:
    """Medians with their spread from least to most, and the fitted line, of the newest measurement."""
    newest = measurements[-1]
    _title(plot, _("seconds by tokens generated: median, least to most, fitted line"))
    rows = newest.by_length()
    _axes(plot, _("tokens"), [row.max_new_tokens for row in rows], [max(row.seconds) for row in rows])
    several = len(newest.sweep.runners) > 1
    for by in newest.sweep.runners:
        _points(plot, newest, by, COLOURS[by], runner_name(by) if several else None)


def latency_by_token(plot: Plot, measurements: Sequence[Measurement]) -> None:
    """How long each token of the longest runs took, in order, in milliseconds."""
    newest = measurements[-1]
    _title(plot, _("milliseconds for each token in order: median of the longest runs"))
    several = len(newest.sweep.runners) > 1
    most = 0.0
    for by in newest.sweep.runners:
        latencies = [seconds * 1e3 for seconds in token_latencies(newest.runs_of(by))]
        if latencies:
            most = max(most, sorted(latencies)[-1 - len(latencies) // 50])  # a hiccup or two may leave the picture
            places = range(1, len(latencies) + 1)
            plot.plot(places, latencies, marker=MARKER, color=COLOURS[by], label=_label(by) if several else None)
    plot.xlabel(for_grid(_("token")))
    if most:
        plot.ylim(0, most * 1.15)


def with_and_without_cache(plot: Plot, measurements: Sequence[Measurement]) -> None:
    """Seconds until each token of the longest runs: straight with a cache, bending without."""
    _title(plot, _("seconds until each token: with a cache straight, without one bending"))
    plot.xlabel(for_grid(_("token")))
    most = 0.0
    runners: tuple[Runner, ...] = ("logitlab", "without cache")
    for by in runners:
        found = next((m for m in reversed(measurements) if any(run.by == by for run in m.runs)), None)
        if found is not None:
            runs = found.runs_of(by)
            prefill = median(run.prefill_seconds for run in runs)
            reached = [prefill + seconds for seconds in accumulate(token_latencies(runs))]
            most = max(most, reached[-1])
            label = for_grid(_("with cache")) if by == "logitlab" else _label(by)
            plot.plot(range(1, len(reached) + 1), reached, marker=MARKER, color=COLOURS[by], label=label)
    if most:
        plot.ylim(0, most * 1.05)


def overlaid(plot: Plot, measurements: Sequence[Measurement]) -> None:
    """The newest measurements over one another, each by its first runner."""
    shown = list(measurements)[-len(OVERLAID) :]
    _title(plot, _("measurements over one another: median seconds by tokens generated"))
    rows = [row for one in shown for row in one.by_length(one.sweep.runners[0])]
    _axes(plot, _("tokens"), [row.max_new_tokens for row in rows], [max(row.seconds) for row in rows])
    for index, one in enumerate(shown):
        _points(plot, one, one.sweep.runners[0], OVERLAID[index], f"{index + 1} {one_line(one.title)}")


def against_transformers(plot: Plot, measurements: Sequence[Measurement]) -> None:
    """Tokens a second of both, by length."""
    _title(plot, _("tokens a second: logitlab beside transformers"))
    found = next((m for m in reversed(measurements) if "transformers" in m.sweep.runners), measurements[-1])
    runners: tuple[Runner, ...] = ("logitlab", "transformers")
    series = [(by, found.by_length(by)) for by in runners if found.by_length(by)]
    lengths = sorted(set.intersection(*({row.max_new_tokens for row in rows} for _, rows in series)))
    speeds = [[row.tokens_per_second for row in rows if row.max_new_tokens in lengths] for _, rows in series]
    if lengths:
        plot.multiple_bar(
            [str(length) for length in lengths],
            speeds,
            labels=[by for by, _ in series],
            color=[COLOURS[by] for by, _ in series],
        )
        plot.xlabel(for_grid(_("tokens generated")))


def throughput(plot: Plot, measurements: Sequence[Measurement]) -> None:
    """Tokens a second of all lanes together, by lanes at once: the newest measurements over one another."""
    shown = _with_several_lanes(measurements)
    _title(plot, _("tokens a second by lanes at once: all of them together"))
    for index, one in enumerate(shown):
        rows = one.by_lanes(one.sweep.runners[0])
        x, y = [row.lanes for row in rows], [row.tokens_per_second for row in rows]
        label = for_grid(f"{index + 1} {one_line(one.title)}")
        _line(plot, x, y, OVERLAID[index], label)
    rows = [row for one in shown for row in one.by_lanes(one.sweep.runners[0])]
    _axes(plot, _("lanes at once"), [row.lanes for row in rows], [row.tokens_per_second for row in rows])


def latency_by_lanes(plot: Plot, measurements: Sequence[Measurement]) -> None:
    """What one reader waits for, by lanes at once: first token and each after it, of the newest such measurement."""
    _title(plot, _("milliseconds that one reader waits, by lanes at once"))
    shown = _with_several_lanes(measurements)[-1:]
    x, highest = [], []
    for one in shown:
        in_groups = any(row.in_groups for row in one.rows())
        rows = [
            (row.lanes, first, between)
            for row in one.by_lanes(one.sweep.runners[0])
            if (first := row.time_to_first_token)
            and (between := row.seconds_per_token if in_groups else row.inter_token_seconds)
        ]
        x = [lanes for lanes, _first, _between in rows]
        series = (
            (_("first token (TTFT), median"), [first.median for _lanes, first, _between in rows]),
            (
                _("each token (TPOT), median") if in_groups else _("each token (ITL), median"),
                [between.median for _lanes, _first, between in rows],
            ),
            (_("each token, 99 of 100 within"), [between.p99 for _lanes, _first, between in rows]),
        )
        for (name, seconds), colour in zip(series, OVERLAID):
            y = [1e3 * value for value in seconds]
            highest += y
            _line(plot, x, y, colour, for_grid(name))
    _axes(plot, _("lanes at once"), x, [1.3 * max(highest, default=0.0)])  # room for the names


def _line(plot: Plot, x: Sequence[int], y: Sequence[float], colour: tuple[int, int, int], label: str) -> None:
    """What was measured, and a line from one to the next."""
    plot.plot(x, y, marker=MARKER, color=colour, label=label)
    plot.scatter(x, y, marker="●", color=colour)


def _with_several_lanes(measurements: Sequence[Measurement]) -> list[Measurement]:
    return [one for one in measurements if len(one.sweep.lanes) > 1][-len(OVERLAID) :]


CHARTS: dict[str, Chart] = {
    "length": seconds_by_length,
    "token": latency_by_token,
    "cache": with_and_without_cache,
    "overlay": overlaid,
    "transformers": against_transformers,
    "lanes": throughput,
    "latency": latency_by_lanes,
}


def draw(plot: Plot, chart: str, measurements: Sequence[Measurement]) -> None:
    """One of `CHARTS` on an empty plot; measurements without a run are left out."""
    plot.clear_figure()
    usable = [one for one in measurements if one.runs]
    if usable:
        CHARTS[chart](plot, usable)


def as_text(chart: str, measurements: Sequence[Measurement], width: int = 100, height: int = 28) -> str:
    """A chart as lines of text with ANSI colours."""
    import plotext

    draw(plotext, chart, measurements)
    plotext.theme("clear")
    plotext.limit_size(False, False)
    plotext.plotsize(width, height)
    try:
        return str(plotext.build())
    finally:
        plotext.clear_figure()


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


def _title(plot: Plot, text: str) -> None:
    plot.title(for_grid(text))


def _label(by: Runner) -> str:
    return for_grid(runner_name(by))


def _points(plot: Plot, measurement: Measurement, by: Runner, colour: tuple[int, int, int], label: str | None) -> None:
    """A runner's medians with error bars, and its line."""
    rows = measurement.by_length(by)
    fit = measurement.fit(by)
    if not rows:
        return
    label = for_grid(label) if label else None
    x, y = [row.max_new_tokens for row in rows], [row.median for row in rows]
    if fit is not None and by != "without cache":
        ends = [0, max(x)]
        line = [fit.first_seconds + fit.per_token_seconds * end for end in ends]
        plot.plot(ends, line, marker=MARKER, color=colour, label=label)
    elif len(x) > 1:
        plot.plot(x, y, marker=MARKER, color=colour, label=label)
    for row in rows:
        if max(row.seconds) > min(row.seconds):
            spread = [min(row.seconds), max(row.seconds)]
            plot.plot([row.max_new_tokens] * 2, spread, marker="│", color=colour)
    plot.scatter(x, y, marker="●", color=colour, label=label if fit is None else None)


def _axes(plot: Plot, name: str, x: Sequence[int], y: Sequence[float]) -> None:
    plot.xlabel(for_grid(name))
    if x:
        plot.xticks(sorted(set(x)))
        plot.xlim(0, max(x) * 1.05)
        plot.ylim(0, max(y) * 1.05)
