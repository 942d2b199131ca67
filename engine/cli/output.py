"""What commands print: results, progress, two lanes side by side."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from engine.base import plain
from engine.base.language import _, counted
from engine.cli.inputs import Begun
from engine.export import sheet as export
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Noted, Start, ended
from engine.generation.result import LaneResult, RunResult, drafted, event_dict, timing
from engine.models.model import Model
from engine.models.progress import LOAD_STAGES, Loading
from engine.text.answer import answered, known_template
from engine.text.conversation import Conversation

_json_goes_to = 1  # the number of standard output


def keep_stdout_for_json() -> None:
    """Let nothing but `write_json` reach standard output: what else is printed, by libraries too, goes to stderr."""
    global _json_goes_to
    if _json_goes_to == 1:
        sys.stdout.flush()
        _json_goes_to = os.dup(1)
        os.dup2(2, 1)


def print_json(data: object, *, indent: int | None = 2) -> None:
    write_json(export.to_json(data, indent=indent))


def write_json(text: str) -> None:
    """A JSON text as UTF-8, whatever the terminal's encoding; half a character of a broken name becomes its escape."""
    sys.stdout.flush()
    left = memoryview(f"{text}\n".encode("utf-8", "backslashreplace"))
    while left:
        left = left[os.write(_json_goes_to, left) :]


def events_of(
    models: Sequence[Model],
    starts: Sequence[Start],
    configs: Sequence[GenerationConfig],
    candidates: int,
    amateurs: Sequence[Model | None],
    drafts: Sequence[Model | None],
) -> Iterator[Event]:
    """A run on the command line: for each lane a model, a beginning, a configuration, an amateur and a draft, or none.

    What a person should know of a lane goes to the error stream, and is not among the events.
    """
    from engine.models.amateurs import amateur_for, draft_for
    from engine.models.side_by_side import generate

    for model in {id(model): model for model in models}.values():
        remark(model.capabilities.in_turn(sum(one is model for one in models)))
    seconds = [amateur_for(*one) for one in zip(models, amateurs, strict=True)]
    guessing = [draft_for(*one) for one in zip(models, drafts, strict=True)]
    for event in generate(models, starts, configs, candidates=candidates, amateurs=seconds, drafts=guessing):
        if isinstance(event, Noted):
            remark(event.text)
        else:
            yield event


def print_run(
    models: Sequence[Model], begun: Sequence[Begun], events: Iterator[Event], *, jsonl: bool, candidates: bool = False
) -> RunResult:
    """A run as JSON: the first lane's model and prompt stand at the top, each lane's own model with it."""
    result = RunResult()
    for event in events:
        result.add(event)
        if jsonl:
            print_json(event_dict(event), indent=None)
    if not jsonl:
        lanes = [
            {"model": asdict(model.facts), **result.lane_dict(lane, candidates=candidates)}
            | message_dict(model, begun[lane], result.lanes[lane])
            | ({} if tokens == result.prompts[0] else {"prompt_tokens": begun[lane].token_dicts(tokens)})
            for lane, (model, tokens) in enumerate(zip(models, result.prompts))
        ]
        print_json(
            {
                "model": asdict(models[0].facts),
                "prompt": begun[0].to_dict(result.prompts[0]),
                "lanes": lanes,
            }
        )
    return result


def message_dict(model: Model, begun: Begun, lane: LaneResult) -> dict[str, Any]:
    """What a lane wrote as a message, where it went on with a conversation."""
    talked = answer_of(model, begun, lane)
    return {} if talked is None else {"message": talked.messages[-1].to_dict()}


def answer_of(model: Model, begun: Begun, lane: LaneResult) -> Conversation | None:
    """The conversation with what a lane wrote behind it; `None` for a text."""
    conversation = begun.start.conversation
    if conversation is None or begun.rendered is None:
        return None
    tokenizer = model.tokenizer
    template = known_template(tokenizer, conversation)
    written = [step.token for step in lane.steps]
    return answered(conversation, begun.rendered.text, written, template, tokenizer.eos_ids)


class ProgressBar:
    """A progress bar on stderr for what takes over half a second; nothing where stderr is no terminal."""

    def __enter__(self) -> Callable[[Loading], None]:
        self._bar: Any = None
        self._began = time.monotonic()
        return self._report if sys.stderr.isatty() else lambda progress: None

    def _report(self, progress: Loading) -> None:
        if self._bar is None:
            if time.monotonic() - self._began < 0.3:
                return
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("")
        title = f"{_(LOAD_STAGES[progress.stage])} {plain.one_line(progress.note)}"
        self._bar.update(self._task, description=title, completed=progress.done, total=progress.total or None)

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()


class SideBySide:
    """Two lanes side by side: redrawn on a terminal, printed once at the end elsewhere."""

    def __enter__(self) -> Callable[[RunResult], None]:
        from rich.console import Console
        from rich.live import Live

        self._result: RunResult | None = None
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=20, vertical_overflow="visible")
        if self._console.is_terminal:
            self._live.start()
        return self._show

    def _show(self, result: RunResult) -> None:
        self._result = result
        if self._console.is_terminal:
            self._live.update(self._columns(result))

    def _columns(self, result: RunResult) -> Any:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(expand=True)
        panels = []
        for index, lane in enumerate(result.lanes):
            grid.add_column(ratio=1)
            title = f"{'ABCDEFGH'[index]} · {lane.config.summary} · {len(lane.steps)}/{lane.config.max_new_tokens}"
            foot = f"{speed(result, index)} · {ended(lane.finish_reason)}" if lane.finish_reason else "…"
            foot = " · ".join(part for part in (foot, draft_line(lane) if lane.finish_reason else "") if part)
            panels.append(Panel(Text(plain.safe(lane.text).strip()), title=Text(title), subtitle=Text(foot)))
        grid.add_row(*panels)
        return grid

    def __exit__(self, *exception: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
        elif self._result is not None:
            self._console.print(self._columns(self._result))


def speed(result: RunResult, lane: int) -> str:
    rate = timing(result.lanes[lane].prefill_seconds, result.lanes[lane].steps)["tokens_per_second"]
    return _("{rate:.0f} tokens/s", rate=rate)


def draft_line(lane: LaneResult) -> str:
    """What a lane's draft was good for; empty where it has none."""
    if lane.config.draft is None:
        return ""
    found = drafted(lane.steps)
    rate = "–" if found.rate is None else f"{found.rate:.0%}"
    return _(
        "draft {name}: {accepted} of {drafted} guesses stayed ({rate}), {each:.2f} tokens a forward",
        name=lane.config.draft,
        accepted=found.accepted,
        drafted=found.drafted,
        rate=rate,
        each=found.tokens_per_forward,
    )


def beam_lines(lane: LaneResult) -> list[str]:
    """What became of the beams, the best first; none without a beam search."""
    words = {"running": _("still running"), "ended": _("ended"), "died": _("died")}
    best = sorted(lane.beams, key=lambda beam: (beam.state == "died", beam.state == "running", -beam.score))
    return [
        _(
            "beam {number}: {score:.3f}, {state}, {tokens}",
            number=beam.id + 1,
            score=beam.score,
            state=words[beam.state],
            tokens=count(len(beam.ids)),
        )
        + (_(" in round {round}, by beam {by}", round=beam.died, by=beam.by + 1) if beam.by is not None else "")
        for beam in best
    ]


def count(tokens: int) -> str:
    return counted("{count} token", "{count} tokens", tokens)


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size else "?"


def remark(text: str) -> None:
    """Say in the error stream what a person should know of the result; nothing for an empty text."""
    if text:
        print(plain.one_line(text), file=sys.stderr)


def note(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def print_chart(chart: str) -> None:
    """A chart in colour on a terminal, without any elsewhere or where `NO_COLOR` asks for none."""
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False, soft_wrap=True).print(Text.from_ansi(chart))
