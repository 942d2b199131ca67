"""How long generation takes: a sweep over output lengths, as a table that fills and as charts, one key each."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.text import Text
from textual import getters, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Button, Checkbox, DataTable, Input, Label, Static

from engine.base.clock import minute
from engine.base.errors import InputError
from engine.base.language import N_, _, counted
from engine.base.plain import at_right, cells
from engine.generation.config import MAX_NEW_TOKENS
from engine.generation.events import Failed
from engine.job import Job
from engine.models.model import PRECISIONS
from engine.models.progress import Loading
from engine.timing.charts import chart_of
from engine.timing.measurement import Measurement
from engine.timing.sweep import Runner, Sweep, TimedRun, parse_lanes, parse_lengths, seconds_left
from engine.timing.tables import measured_table, words
from tui.actions import bindings
from tui.actions.timing import CHARTS
from tui.sentences import key, sentence
from tui.widgets.chart_view import ChartView
from tui.widgets.hint import Hint, say

if TYPE_CHECKING:
    from engine.models.capabilities import Capabilities

WIDTHS = (14, 8, 8, 7, 7, 8, 8, 10, 8, 8, 7)
# Drawing takes time from what is measured.
DRAW_SECONDS = 0.5
# What is proposed for a model that runs here, and for a server's.
PROPOSED = {"lengths": ("10,20,40,60", "60"), "lanes": ("1", "1,2,4,8")}
LOCAL_ONLY = ("#timing-cacheless", "#timing-precision", "#timing-threads", "#timing-against", "#timing-draft")
# What is timed in turn with it, by the boxes that say so.
BESIDE: dict[str, Runner] = {"cacheless": "without cache", "against": "transformers", "draft": "lookup"}
READY = N_("Enter or {run} measures. Every run writes all its tokens: end-of-text is ignored.")
READY_SERVER = N_(
    "Enter or {run} times the server, every lane a request of its own. What is greyed needs a "
    "model that runs here, which {model} chooses."
)
# Measurements beyond this many: the oldest go.
KEPT = 50


class TimingPane(Vertical):
    """The sweep's settings, the measurements, and charts of them."""

    BINDINGS = bindings("timing")

    @dataclass
    class SweepRequested(Message):
        """Run this sweep, in a precision and with a number of threads; `None` for those of the model."""

        sweep: Sweep
        precision: str | None
        threads: int | None

    table = getters.query_one("#timing-table", DataTable)

    def __init__(self) -> None:
        super().__init__(id="timing")
        self.measurements: list[Measurement] = []
        self.chart = "length"
        self._shown = 0  # counted from the newest
        self._job: Job[Measurement | TimedRun | Loading] | None = None
        self._measuring = False
        self._failed = False
        self._drawn = 0.0
        self._server: Capabilities | None = None
        self._headers: tuple[str, ...] = ()

    def compose(self) -> ComposeResult:
        sweep = Sweep()
        with Horizontal(classes="timing-settings"):
            yield Label(_("prompt"))
            yield Input(sweep.prompt, id="timing-prompt", compact=True)
            yield Button(_("Measure"), id="measure", compact=True, variant="primary")
        with Horizontal(classes="timing-settings"):
            yield Label(_("lengths"))
            yield Input(",".join(map(str, sweep.lengths)), id="timing-lengths", compact=True)
            for name, title in (("repeats", _("repeats")), ("warmup", _("warm-up")), ("lanes", _("lanes"))):
                yield Label(title)
                value = ",".join(map(str, sweep.lanes)) if name == "lanes" else str(getattr(sweep, name))
                yield Input(value, id=f"timing-{name}", compact=True)
            yield Checkbox(_("no cache"), id="timing-cacheless", compact=True)
        with Horizontal(classes="timing-settings"):
            yield Label(_("temperature"))
            yield Input(f"{sweep.temperature:g}", id="timing-temperature", compact=True)
            for name, title in (("precision", _("precision")), ("threads", _("threads"))):
                yield Label(title)
                yield Input("", placeholder=_("same"), id=f"timing-{name}", compact=True)
            yield Checkbox("transformers", id="timing-against", compact=True)
            yield Checkbox(_("draft"), id="timing-draft", compact=True)
        yield Hint(id="timing-says")
        yield DataTable[Text](id="timing-table", cursor_type="row", zebra_stripes=True)
        yield Static(id="timing-charts")
        yield ChartView("timing-chart", can_focus=True)

    def on_mount(self) -> None:
        self._head(measured_table([])[0])
        say(self, self._ready)
        self._name_charts()
        self._draw()

    def serve(self, capabilities: "Capabilities | None") -> None:
        """Show what can be timed with these capabilities: a server's, or those of a model that runs here."""
        server = None if capabilities is None or capabilities.network else capabilities
        if server == self._server:
            return
        before, now = (0, 1) if server is not None else (1, 0)
        for name, proposed in PROPOSED.items():
            field = self.query_one(f"#timing-{name}", Input)
            if field.value == proposed[before]:
                field.value = proposed[now]
        self._server = server
        if self.chart == ("length", "lanes")[before]:
            self.chart = ("length", "lanes")[now]
        for selector in LOCAL_ONLY:
            self.query_one(selector).disabled = server is not None
        if not self._measuring:
            say(self, self._ready)

    @property
    def _ready(self) -> str:
        return sentence(_(READY if self._server is None else READY_SERVER))

    # What there is.

    @property
    def shown(self) -> Measurement | None:
        """The measurement on screen."""
        return self.measurements[-1 - self._shown] if self.measurements else None

    @property
    def place(self) -> int:
        """How many measurements are newer than the one on screen."""
        return self._shown

    @property
    def runs(self) -> tuple[TimedRun, ...]:
        """Of the measurement on screen."""
        return self.shown.runs if self.shown is not None else ()

    def restore(self, measurements: Sequence[Measurement]) -> None:
        """Show measurements that were made earlier."""
        self.measurements, self._shown = list(measurements), 0
        self._show()

    # Settings.

    def propose(self, lengths: str, repeats: int, *, cacheless: bool, chart: str) -> None:
        """Put these into the fields, as a lesson wants them."""
        self.query_one("#timing-lengths", Input).value = lengths
        self.query_one("#timing-repeats", Input).value = str(repeats)
        self.query_one("#timing-cacheless", Checkbox).value = cacheless
        self.action_chart(chart)

    def sweep(self) -> tuple[Sweep, str | None, int | None]:
        """What the fields say: the sweep, its precision, its threads. Raises `InputError` naming the wrong field."""
        values = {field.id: field.value.strip() for field in self.query(Input)}
        prompt = self.query_one("#timing-prompt", Input).value
        repeats, warmup = (_whole(name, values[f"timing-{name}"]) for name in ("repeats", "warmup"))
        lanes = parse_lanes(values["timing-lanes"])
        temperature = _decimal("temperature", values["timing-temperature"])
        runners: list[Runner] = ["logitlab" if self._server is None else "server"]
        if self._server is None:
            runners += [by for name, by in BESIDE.items() if self.query_one(f"#timing-{name}", Checkbox).value]
        lengths = parse_lengths(values["timing-lengths"])
        sweep = Sweep(prompt, lengths, temperature, repeats, warmup, lanes, tuple(runners))
        precision, threads = values["timing-precision"] or None, None
        if self._server is not None:
            return sweep, None, None
        if precision is not None and precision not in PRECISIONS:
            raise InputError(
                _(
                    "precision is {precision!r}; allowed: {names}, or nothing",
                    precision=precision,
                    names=", ".join(PRECISIONS),
                )
            )
        if values["timing-threads"]:
            threads = _whole("threads", values["timing-threads"], _("a whole number, or nothing"))
            if not 1 <= threads <= 1024:
                raise InputError(_("threads is {threads}; allowed: from 1 to 1024, or nothing", threads=threads))
        return sweep, precision, threads

    def request(self) -> None:
        """Ask for a run of the sweep, or say what is wrong with it."""
        try:
            sweep, precision, threads = self.sweep()
        except InputError as error:
            say(self, str(error), wrong=True)
            return
        self.table.focus()  # where 1 to 7 are keys
        self.post_message(self.SweepRequested(sweep, precision, threads))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.request()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.request()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._check()

    def on_checkbox_changed(self, event: Checkbox.Changed) -> None:
        event.stop()
        self._check()

    def _check(self) -> None:
        if self._measuring:
            return
        try:
            sweep = self.sweep()[0]
        except InputError as error:
            say(self, str(error), wrong=True)
        else:
            runs = len(sweep.plan())
            say(self, self._ready + (" " + counted("{count} run.", "{count} runs.", runs) if self.measurements else ""))

    def possible(self, action: str) -> bool:
        """Whether an action can do something now."""
        return not action.startswith("older") or len(self.measurements) > 1

    # A sweep that goes on.

    @property
    def running(self) -> bool:
        return self._job is not None and not self._job.done

    def measure(self, job: Job[Measurement | TimedRun | Loading]) -> None:
        """Show a sweep as it goes on."""
        self._job = job
        self.prepare(_("the warm-up runs"))
        self.refresh_bindings()
        self._follow(job)

    def stop(self) -> bool:
        """End the sweep, and keep what is done; False where none goes on."""
        if self._job is None or self._job.done:
            return False
        self._job.cancel()
        return True

    @work(group="sweep", exclusive=True)
    async def _follow(self, job: Job[Measurement | TimedRun | Loading]) -> None:
        async for frame in job.frames():
            for event in frame:
                match event:
                    case Loading():
                        self.prepare(event.note)
                    case Measurement():
                        self.start(event)
                    case Failed():
                        self.fail(str(event.error))
            self.add([event for event in frame if isinstance(event, TimedRun)])
        self.finish()
        self.refresh_bindings()

    def prepare(self, what: str) -> None:
        """Something comes before the first run."""
        self._measuring, self._failed = True, False
        say(self, _("{what}… · {stop} stops", what=what, stop=key("stop")))

    def start(self, measurement: Measurement) -> None:
        """The model is there; what was measured before stays."""
        self.measurements = [*self.measurements, measurement][-KEPT:]
        self._shown = 0
        self._show()
        say(
            self,
            counted(
                "warming up, then {count} run · {stop} stops and keeps what is done",
                "warming up, then {count} runs · {stop} stops and keeps what is done",
                len(measurement.sweep.plan()),
                stop=key("stop"),
            ),
        )

    def add(self, runs: Sequence[TimedRun]) -> None:
        """Take in runs as they are done."""
        if not runs:
            return
        newest = self.measurements[-1]
        newest = self.measurements[-1] = replace(newest, runs=(*newest.runs, *runs))
        total, left = len(newest.sweep.plan()), seconds_left(newest.sweep, newest.runs)
        about = _(" · about {left:.0f} s left", left=left) if left is not None else ""
        say(
            self,
            _(
                "{count} of {total} runs{about} · {stop} stops and keeps what is done",
                count=len(newest.runs),
                total=total,
                about=about,
                stop=key("stop"),
            ),
        )
        if time.monotonic() - self._drawn > DRAW_SECONDS:
            self._show()

    def finish(self) -> None:
        """The sweep ended: say in words what it showed."""
        self._measuring = False
        if self.measurements and not self.measurements[-1].runs:
            del self.measurements[-1]
            if not self._failed:
                say(self, _("stopped before the first run"))
        elif not self._failed:
            self._show()
            self._tell()

    def fail(self, message: str) -> None:
        self._failed = True
        say(self, message, wrong=True)

    # Looking at measurements.

    def action_chart(self, name: str) -> None:
        """One of the charts."""
        self.chart = name
        self.add_class("charting")
        self._name_charts()
        self._draw()

    def action_table(self) -> None:
        """The table, where a low screen shows either it or a chart."""
        self.remove_class("charting")
        self.table.focus()

    def action_older(self, by: int) -> None:
        """Look at another measurement."""
        if self._measuring or not 0 <= self._shown + by < len(self.measurements):
            return
        self._shown += by
        self._show()
        self._tell()

    def action_remove(self) -> None:
        """Forget the measurement on screen."""
        if self._measuring or self.shown is None:
            return
        del self.measurements[-1 - self._shown]
        self._shown = max(0, min(self._shown, len(self.measurements) - 1))
        self._show()
        say(self, _("removed; {count} left", count=len(self.measurements)))

    def _tell(self) -> None:
        shown = self.shown
        if shown is None:
            return
        total = len(shown.sweep.plan())
        kept = (
            [] if shown.complete else [_("stopped after {count} of {total} runs", count=len(shown.runs), total=total)]
        )
        say(self, "\n".join((*kept, *words(shown))))

    def _show(self) -> None:
        self._drawn = time.monotonic()
        table = self.table
        headers, rows = measured_table(self.shown.rows() if self.shown is not None else [])
        self._head(headers)
        table.clear()
        if self.shown is not None:
            for cells in rows:
                by, *numbers = cells
                aligned = (Text(number.rjust(width)) for number, width in zip(numbers, WIDTHS[1:]))
                table.add_row(Text(by), *aligned)
        self._name_charts()
        self._draw()

    def _head(self, headers: tuple[str, ...]) -> None:
        """The table's columns, if they are to be others."""
        if headers == self._headers:
            return
        self._headers = headers
        table = self.table
        table.clear(columns=True)
        for index, (title, width) in enumerate(zip(headers, WIDTHS)):
            shown = at_right(title, width) if index else title
            table.add_column(shown, width=max(width, cells(shown)))

    def _name_charts(self) -> None:
        line = Text(sentence(_(" {timing.table} table")), no_wrap=True, overflow="ellipsis")
        for name, title in CHARTS.items():
            line.append(" ")
            line.append(f"{key(f'timing.chart_{name}')} {_(title)}", style="bold reverse" if name == self.chart else "")
        if self.shown is not None:
            place = f"  {self.shown.title} · {minute(self.shown.at)}"
            line.append(place, style="dim")
            if len(self.measurements) > 1:
                line.append(
                    _(
                        " · {older} {newer} {count} of {total}",
                        count=len(self.measurements) - self._shown,
                        total=len(self.measurements),
                        older=key("timing.older"),
                        newer=key("timing.newer"),
                    ),
                    style="dim",
                )
        self.query_one("#timing-charts", Static).update(line)

    def _draw(self) -> None:
        seen = self.measurements[: len(self.measurements) - self._shown]
        empty = _(
            "The chart of “{chart}” comes here: {run} measures, {table} shows the table.",
            chart=_(CHARTS[self.chart]),
            run=key("run"),
            table=key("timing.table"),
        )
        self.query_one(ChartView).show(chart_of(self.chart, seen), empty)


def _whole(name: str, text: str, allowed: str = "") -> int:
    if not text.isdecimal() or int(text[:9]) > MAX_NEW_TOKENS:
        raise InputError(
            _(
                "{name} is {text!r}; allowed: {allowed}",
                name=name,
                text=text,
                allowed=allowed or _("a whole number such as 5"),
            )
        )
    return int(text)


def _decimal(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(_("{name} is {text!r}; allowed: a number such as 0.9", name=name, text=text)) from error
