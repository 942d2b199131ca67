"""Results as plain data and files."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from engine.base import plain
from engine.base.files import write_text
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Failed, Finished, FinishReason, Prefilled, Started, Stepped
from engine.text.tokenizer import Token


@dataclass
class LaneResult:
    """One lane's whole run."""

    config: GenerationConfig
    steps: list[Stepped] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        return "".join(step.token.text for step in self.steps)


@dataclass
class RunResult:
    """Events gathered into what a run produced."""

    prompts: tuple[tuple[Token, ...], ...] = ()
    lanes: list[LaneResult] = field(default_factory=list)
    prefill_seconds: float = 0.0

    def add(self, event: Event) -> None:
        """Take in one event. Raises the error of a `Failed` one."""
        match event:
            case Started():
                self.prompts = event.prompts
                self.lanes = [LaneResult(config) for config in event.configs]
            case Prefilled():
                self.prefill_seconds = event.seconds
            case Stepped():
                self.lanes[event.lane].steps.append(event)
            case Finished():
                self.lanes[event.lane].finish_reason = event.reason
            case Failed():
                raise event.error

    def lane_dict(self, index: int, *, candidates: bool = False) -> dict[str, Any]:
        """A lane in the shape of `generate --json`."""
        lane = self.lanes[index]
        return {
            "config": lane.config.to_dict(),
            "text": lane.text,
            "finish_reason": lane.finish_reason,
            "tokens": [step_dict(step, candidates) for step in lane.steps],
            "timing": timing(self.prefill_seconds, lane.steps),
        }


def timing(prefill_seconds: float, steps: Sequence[Stepped]) -> dict[str, float]:
    """Seconds of a lane, and tokens per second from the first token to the last."""
    decode = sum(step.seconds for step in steps)
    first = steps[0].seconds if steps else 0.0
    after_first = decode - first
    return {
        "prefill_seconds": prefill_seconds,
        "decode_seconds": decode,
        "time_to_first_token_seconds": prefill_seconds + first,
        "tokens_per_second": (len(steps) - 1) / after_first if after_first > 0 else 0.0,
    }


def step_dict(step: Stepped, candidates: bool) -> dict[str, Any]:
    """A step in the shape of `generate --json`."""
    data: dict[str, Any] = {
        "id": step.token.id,
        "text": step.token.text,
        "piece": step.token.piece,
        "probability": step.probability,
        "raw_probability": step.raw_probability,
        "rank": step.rank,
        "entropy_bits": step.entropy_bits,
        "seconds": step.seconds,
    }
    if candidates:
        data["final_entropy_bits"] = step.final_entropy_bits
        data["kept"] = step.kept
        data["cut_mass"] = step.cut_mass
        data["candidates"] = [asdict(candidate) for candidate in step.candidates]
    return data


def event_dict(event: Event) -> dict[str, Any]:
    """An event as one JSON object with its name under `event`."""
    if isinstance(event, Failed):
        return {"event": "Failed", "lane": event.lane, "error": str(event.error)}
    assert is_dataclass(event)
    data = asdict(replace(event, logits=None) if isinstance(event, Stepped) else event)
    data.pop("logits", None)
    return {"event": type(event).__name__} | data


def to_json(data: object, *, indent: int | None = 2) -> str:
    return json.dumps(data, ensure_ascii=False, indent=indent)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of results that can leave the lab.

    Attributes:
        rows: numbers as numbers, texts as they are; `None` for what there is not.
        notes: lines that say what the table shows.
        data: what JSON holds; the rows as objects when `None`.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]
    notes: tuple[str, ...] = ()
    data: object = None

    def to_json(self) -> str:
        rows = [dict(zip(self.columns, row)) for row in self.rows]
        return to_json(rows if self.data is None else self.data) + "\n"

    def to_csv(self) -> str:
        return csv_text(self.columns, self.rows)

    def to_markdown(self, level: int = 2) -> str:
        """A heading, the notes and the table."""
        lines = [f"{'#' * level} {_in_cell(self.title)}", ""]
        for note in self.notes:
            lines += [_in_cell(note), ""]
        if self.rows:
            numbers = [
                all(isinstance(row[index], (int, float, type(None))) for row in self.rows)
                for index in range(len(self.columns))
            ]
            lines.append(f"| {' | '.join(map(_in_cell, self.columns))} |")
            lines.append(f"| {' | '.join('---:' if number else '---' for number in numbers)} |")
            lines += [f"| {' | '.join(map(_in_cell, row))} |" for row in self.rows]
        return "\n".join(lines).rstrip() + "\n"


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """RFC 4180, with a header; nothing for `None`.

    Texts have their control characters made visible, and those that a spreadsheet would take for a formula begin
    with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([_csv_cell(value) for value in row] for row in rows)
    return out.getvalue()


def write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Rows with the same keys as a CSV file with a header. Raises `MachineError`."""
    table = list(rows)
    columns = list(table[0]) if table else []
    write_text(path, csv_text(columns, (list(row.values()) for row in table)))


def _csv_cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = plain.safe(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\n")) else text


def _in_cell(value: object) -> str:
    """A value in a Markdown table: texts literally, numbers to six digits."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    return markdown_text(str(value)).strip() or " "


def markdown_text(text: str) -> str:
    """Any text on one line of Markdown, where it stands for itself."""
    escaped = "".join(f"\\{char}" if char in _MARKDOWN else char for char in plain.one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


_MARKDOWN = frozenset("\\`*_[]|#~$")
