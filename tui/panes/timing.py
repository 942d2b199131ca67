"""How long generation takes: a sweep over output lengths, as a table that fills and a line chart."""

from typing import TYPE_CHECKING

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Button, Checkbox, DataTable, Input, Label, Static

from engine.errors import InputError
from engine.timing import Row, Sweep, TimedRun, line_fit, parse_lengths, rows, speedup

if TYPE_CHECKING:
    from textual_plotext import PlotextPlot

FIELDS = ("prompt", "lengths", "temperature", "repeats")
COLUMNS = (("tokens", 6), ("median s", 8), ("min", 6), ("max", 6), ("tokens/s", 8), ("by", 12))
PEER = "transformers"
COLOURS = {"logitlab": (122, 162, 247), PEER: (255, 158, 100)}


class TimingPane(Vertical):
    """The sweep's settings, its table and its chart."""

    class SweepRequested(Message):
        """Run this sweep."""

        def __init__(self, sweep: Sweep, against_transformers: bool) -> None:
            self.sweep = sweep
            self.against_transformers = against_transformers
            super().__init__()

    def __init__(self) -> None:
        super().__init__(id="timing")
        self.runs: list[TimedRun] = []
        self._total = 0
        self._chart: PlotextPlot | None = None

    def compose(self) -> ComposeResult:
        sweep = Sweep()
        with Horizontal(classes="timing-settings"):
            yield Label("prompt")
            yield Input(sweep.prompt, id="timing-prompt", compact=True)
            yield Checkbox("against transformers", id="timing-against", compact=True)
        with Horizontal(classes="timing-settings"):
            yield Label("lengths")
            yield Input(",".join(map(str, sweep.lengths)), id="timing-lengths", compact=True)
            yield Label("temperature")
            yield Input(f"{sweep.temperature:g}", id="timing-temperature", compact=True)
            yield Label("repeats")
            yield Input(f"{sweep.repeats}", id="timing-repeats", compact=True)
            yield Button("Measure", id="measure", compact=True, variant="primary")
        yield Static(id="timing-says")
        with Horizontal(id="timing-results"):
            yield DataTable[Text](id="timing-table", cursor_type="row", zebra_stripes=True)

    def on_mount(self) -> None:
        table = self.query_one("#timing-table", DataTable)
        for title, width in COLUMNS:
            table.add_column(Text(title, justify="right"), width=width, key=title)
        self._say("Enter or F5 measures. Every run writes all its tokens: end-of-text is ignored.")
        self.call_after_refresh(self._add_chart)

    def _add_chart(self) -> None:
        """After the first frame, which does not wait for the plotting library."""
        from textual_plotext import PlotextPlot

        self._chart = PlotextPlot(id="timing-chart")
        self.query_one("#timing-results").mount(self._chart)
        self._draw([])

    def sweep(self) -> Sweep:
        """What the fields say. Raises `InputError` naming the field that is wrong."""
        values = {name: self.query_one(f"#timing-{name}", Input).value for name in FIELDS}
        try:
            temperature = float(values["temperature"])
        except ValueError as error:
            raise InputError(f"temperature is {values['temperature']!r}; allowed: a number such as 0.9") from error
        try:
            repeats = int(values["repeats"])
        except ValueError as error:
            raise InputError(f"repeats is {values['repeats']!r}; allowed: a whole number such as 5") from error
        if not values["prompt"]:
            raise InputError("the prompt is empty; type at least one character")
        return Sweep(values["prompt"], parse_lengths(values["lengths"]), temperature, repeats)

    def request(self) -> None:
        """Ask for a run of the sweep, or say what is wrong with it."""
        try:
            sweep = self.sweep()
        except InputError as error:
            self._say(str(error), wrong=True)
            return
        self.post_message(self.SweepRequested(sweep, self.query_one("#timing-against", Checkbox).value))

    def start(self, sweep: Sweep, *, against_transformers: bool) -> None:
        """Forget the last results; the first run is on its way."""
        self.runs, self._total = [], sweep.total * (2 if against_transformers else 1)
        self.query_one("#timing-table", DataTable).clear()
        self._draw([])
        self._say(f"warming up, then {self._total} runs · esc stops and keeps what is done")

    def prepare(self, what: str) -> None:
        """Something is loaded before the first run."""
        self._say(f"loading {what}…")

    def add(self, runs: list[TimedRun]) -> None:
        """Take in runs as they are done."""
        self.runs += runs
        table = self.query_one("#timing-table", DataTable)
        measured = [row for by in COLOURS for row in rows(self.runs, by)]
        table.clear()
        for row in measured:
            values = (
                f"{row.max_new_tokens}",
                f"{row.median:.3f}",
                f"{min(row.seconds):.3f}",
                f"{max(row.seconds):.3f}",
                f"{row.tokens_per_second:.0f}",
                row.runs[0].by,
            )
            table.add_row(*(Text(value, justify="right") for value in values))
        self._draw(measured)
        self._say(f"{len(self.runs)} of {self._total} runs · esc stops and keeps what is done")

    def finish(self) -> None:
        """The sweep ended: say in words what the chart shows."""
        measured = rows(self.runs)
        if len(measured) < 2:
            self._say(
                f"stopped after {len(self.runs)} of {self._total} runs" if measured else "stopped before the first run"
            )
            return
        intercept, slope = line_fit([(row.max_new_tokens, row.median) for row in measured])
        kept = "" if len(self.runs) == self._total else f"stopped after {len(self.runs)} of {self._total} runs: "
        words = f"{kept}about {slope * 1000:.1f} ms for every token, after {max(0.0, intercept) * 1000:.0f} ms to begin"
        if rows(self.runs, PEER):
            words += f" · {speedup(self.runs, PEER):.1f} times as fast as transformers in float32"
        self._say(words)

    def fail(self, message: str) -> None:
        self._say(message, wrong=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.request()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.request()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        try:
            self.sweep()
        except InputError as error:
            self._say(str(error), wrong=True)
        else:
            self._say("Enter or F5 measures. Every run writes all its tokens: end-of-text is ignored.")

    def _say(self, text: str, *, wrong: bool = False) -> None:
        self.query_one("#timing-says", Static).update(Text(text, style="bold #f7768e" if wrong else "dim"))

    def _draw(self, measured: list[Row]) -> None:
        if self._chart is None:
            return
        plot = self._chart.plt
        plot.clear_figure()
        plot.title("seconds by tokens generated")
        plot.xlabel("tokens")
        for by, colour in COLOURS.items():
            line = [row for row in measured if row.runs[0].by == by]
            x, y = [row.max_new_tokens for row in line], [row.median for row in line]
            if line:
                several = any(row.runs[0].by != by for row in measured)
                plot.plot(x, y, marker="braille", color=colour, label=by if several else None)
                plot.scatter(x, y, marker="●", color=colour)
        if measured:
            lengths = sorted({row.max_new_tokens for row in measured})
            plot.xticks(lengths)
            plot.ylim(0, max(max(row.seconds) for row in measured) * 1.05)
            plot.xlim(0, max(lengths) * 1.05)
        self._chart.refresh()
