"""`tokens`, `lengths`, `bench`: what a text costs."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from engine.base import plain
from engine.base.clock import now
from engine.base.errors import InputError
from engine.base.files import check_writable, write_text
from engine.base.language import _, counted
from engine.cli.options import Json, Options, refuse_options, shares_options, takes
from engine.cli.output import ProgressBar, print_chart, print_json, remark
from engine.export import sheet as export
from engine.models.model import ModelFacts
from engine.models.progress import Loading
from engine.timing import charts
from engine.timing.measurement import Measurement, Row, read_measurement
from engine.timing.runs import time_runs
from engine.timing.sweep import (
    TIMING_PROMPT,
    Runner,
    Sweep,
    TimedRun,
    parse_lanes,
    parse_lengths,
    runner_name,
    seconds_left,
)
from engine.timing.tables import compared, measured_table, run_columns, words

bench_app = typer.Typer(help="Time generation at several output lengths.", invoke_without_command=True)


@dataclass(frozen=True)
class _Asked:
    """The options that say what is timed."""

    prompt: Annotated[str, typer.Option(help="What to continue.")] = TIMING_PROMPT
    lengths: Annotated[
        str | None, typer.Option(help="Output lengths, separated by commas: 10,20,40,60, or 60 of a server.")
    ] = None
    temperature: Annotated[float, typer.Option(help="As in the seed; it does not change the speed.")] = 0.9
    repeats: Annotated[int, typer.Option(help="Runs of each length.")] = 5
    warmup: Annotated[int, typer.Option(help="Runs before, that are not counted.")] = 1
    lanes: Annotated[
        str | None,
        typer.Option("--lanes", "--concurrency", help="Continuations written at once: 1, or 1,2,4,8 of a server."),
    ] = None
    cache: Annotated[bool, typer.Option(help="Keep keys and values, or read everything again.")] = True
    against: Annotated[
        list[str] | None,
        typer.Option(help="In turn with it: transformers (its generate()), no-cache, or lookup (a draft); repeatable."),
    ] = None

    def sweep(self, served: bool) -> Sweep:
        """What the options come to, by a server or here. Raises `InputError`."""
        runners = _runners(self.cache, self.against or ())
        if served:
            if runners != ("logitlab",):
                raise InputError(_("--no-cache and --against need a model that runs here; leave out --server"))
            runners = ("server",)
        lengths = parse_lengths(("60" if served else "10,20,40,60") if self.lengths is None else self.lengths)
        lanes = parse_lanes(("1,2,4,8" if served else "1") if self.lanes is None else self.lanes)
        return Sweep(self.prompt, lengths, self.temperature, self.repeats, self.warmup, lanes, runners)


@dataclass(frozen=True)
class _Shown:
    """The options that say where a measurement goes."""

    chart: Annotated[
        str | None, typer.Option(help="Draw it: length, token, cache, transformers, lanes or latency.")
    ] = None
    csv: Annotated[Path | None, typer.Option(help="Also write every run to this file.")] = None
    svg: Annotated[Path | None, typer.Option(help="Also write the chart to this file.")] = None
    save: Annotated[Path | None, typer.Option(help="Also keep the measurement, for bench compare.")] = None
    json: Json = False

    def check(self) -> None:
        """Raise `InputError` or `MachineError` for what could not be drawn or written, before anything is timed."""
        drawn = [name for name in charts.CHARTS if name != "overlay"]
        if self.chart is not None and self.chart not in drawn:
            raise InputError(_("chart is {chart!r}; allowed: {names}", chart=self.chart, names=", ".join(drawn)))
        check_writable(self.csv, self.svg, self.save)

    def write(self, measurement: Measurement) -> None:
        """Write the files that are wanted. Raises `MachineError`."""
        if self.csv is not None:
            export.write_csv(self.csv, run_columns(measurement))
        if self.svg is not None:
            chart = charts.as_text(self.chart or _chart_of(measurement.sweep), [measurement])
            write_text(self.svg, charts.as_svg(chart, measurement.title))
        if self.save is not None:
            write_text(self.save, export.to_json(measurement.to_dict()) + "\n")

    def show(self, measurement: Measurement) -> None:
        """Print the measurement."""
        if self.json:
            print_json(measurement.to_dict())
            return
        print(plain.table(*measured_table(measurement.rows()), right=range(1, 11)))
        if not measurement.complete:
            total = len(measurement.sweep.plan())
            print(_("stopped after {count} of {total} runs", count=len(measurement.runs), total=total))
        for line in words(measurement):
            print(line)
        if self.chart is not None:
            print_chart(charts.as_text(self.chart, [measurement]))


@bench_app.callback(invoke_without_command=True)
@shares_options
@takes(asked=_Asked, shown=_Shown)
def bench(context: typer.Context, *, asked: _Asked, shown: _Shown, options: Options) -> None:
    """Time generation at several output lengths. Every run writes all its tokens: end-of-text is ignored."""
    if context.invoked_subcommand is not None:
        refuse_options(context)
        return
    served = options.server is not None
    sweep = asked.sweep(served)
    shown.check()
    facts, timed = _timed_by_server(options, sweep) if served else _timed_here(options, sweep)
    measurement = _measured(facts, sweep, timed)
    shown.write(measurement)
    shown.show(measurement)


def _measured(facts: ModelFacts, sweep: Sweep, timed: Iterator[TimedRun]) -> Measurement:
    """Let a sweep run, with a progress bar. What is done when it is interrupted is kept, if it is one run at least."""
    runs: list[TimedRun] = []
    began = now()
    with ProgressBar() as report, suppress(KeyboardInterrupt):
        for run in timed:
            runs.append(run)
            left = seconds_left(sweep, runs)
            note = counted(
                "{count} token: {seconds:.3f} s",
                "{count} tokens: {seconds:.3f} s",
                run.max_new_tokens * run.lanes,
                seconds=run.seconds,
            )
            rest = _(", {left:.0f} s left", left=left) if left else ""
            report(Loading("read", len(runs), len(sweep.plan()), note + rest))
    if not runs:
        raise KeyboardInterrupt
    return Measurement(facts, sweep, tuple(runs), began)


def _timed_here(options: Options, sweep: Sweep) -> tuple[ModelFacts, Iterator[TimedRun]]:
    model = options.load_local()
    model.network.prepare()
    reference = None
    if "transformers" in sweep.runners:
        from engine.models.local import load_reference, reference_precision

        facts, how = model.facts, reference_precision(model.facts)
        reference = load_reference(facts.name, precision=how, device=facts.device, cache_dir=options.cache_dir)
    return model.facts, time_runs(model, sweep, reference=reference)


def _timed_by_server(options: Options, sweep: Sweep) -> tuple[ModelFacts, Iterator[TimedRun]]:
    from engine.timing.served import time_server

    model = options.load()
    remark(model.capabilities.in_turn(max(sweep.lanes)))
    return model.facts, time_server(model, sweep)


def _chart_of(sweep: Sweep) -> str:
    """What shows best what a sweep asks."""
    if len(sweep.lanes) > 1:
        return "lanes"
    return "cache" if "without cache" in sweep.runners and len(sweep.runners) > 1 else "length"


@bench_app.command("compare")
def bench_compare(
    a: Annotated[Path, typer.Argument(help="A file that bench --save wrote.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    svg: Annotated[Path | None, typer.Option(help="Also write both, laid over one another, to this file.")] = None,
    json: Json = False,
) -> None:
    """Lay two measurements side by side: B beside A, by length."""
    check_writable(svg, read=[a, b])
    first, second = read_measurement(a), read_measurement(b)
    pairs = compared(first, second)
    ratio = median(pair[-1] for pair in pairs)
    if svg is not None:
        chart = "lanes" if len(first.sweep.lanes) > 1 and len(second.sweep.lanes) > 1 else "overlay"
        write_text(svg, charts.as_svg(charts.as_text(chart, [first, second]), f"{a.name} · {b.name}"))
    if json:
        rows = [
            {
                "by": row.by,
                "max_new_tokens": row.max_new_tokens,
                "a": row.to_dict(),
                "b": other.to_dict(),
                "ratio": times,
            }
            for row, other, times in pairs
        ]
        sides = {
            side: {"file": str(file), "model": asdict(one.model), "sweep": asdict(one.sweep), "at": one.at}
            for side, file, one in (("a", a, first), ("b", b, second))
        }
        print_json({**sides, "rows": rows, "ratio": {"median": ratio}})
        return
    for side, file, one in (("A", a, first), ("B", b, second)):
        print(f"{side}  {plain.one_line(str(file))}: {plain.one_line(one.title)} · {one.at}")

    def speeds(row: Row) -> str:
        return f"{row.tokens / max(row.seconds):.1f}–{row.tokens / min(row.seconds):.1f}"

    shown = [
        (
            " · ".join(dict.fromkeys((runner_name(row.by), runner_name(other.by)))),
            row.size,
            f"{row.median:.3f}",
            f"{row.tokens_per_second:.1f}",
            speeds(row),
            f"{other.median:.3f}",
            f"{other.tokens_per_second:.1f}",
            speeds(other),
            f"{times:.2f}×",
        )
        for row, other, times in pairs
    ]
    speed = (_("tokens/s"), _("least–most"))
    headers = (_("by"), _("tokens"), _("A median s"), *speed, _("B median s"), *speed, "")
    print(plain.table(headers, shown, right=range(1, 9)))
    print(
        _(
            "{faster} is {ratio:.2f} times as fast in tokens/s (median over the rows)",
            faster="B" if ratio > 1 else "A",
            ratio=max(ratio, 1 / ratio),
        )
    )
    if overlapping := [row.size for row, other, _ in pairs if _overlap(row, other)]:
        print(
            _(
                "the runs overlap at {names} tokens: there the difference may be chance",
                names=", ".join(overlapping),
            )
        )


def _overlap(a: Row, b: Row) -> bool:
    """Whether some run of either was as fast as some run of the other, per token."""
    of_a, of_b = ([seconds / row.tokens for seconds in row.seconds] for row in (a, b))
    return min(of_a) <= max(of_b) and min(of_b) <= max(of_a)


def _runners(cache: bool, against: Sequence[str]) -> tuple[Runner, ...]:
    named: dict[str, Runner] = {"transformers": "transformers", "no-cache": "without cache", "lookup": "lookup"}
    for name in against:
        if name not in named:
            raise InputError(_("against is {name!r}; allowed: {names}", name=name, names=", ".join(named)))
    first: Runner = "logitlab" if cache else "without cache"
    peers = [named[name] for name in against]
    if not cache and "transformers" in peers:
        raise InputError(_("transformers runs with its cache; leave out --no-cache or --against transformers"))
    return (first, *(peer for peer in dict.fromkeys(peers) if peer != first))
