"""A table of results, as JSON, CSV and Markdown."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base import plain
from engine.base.files import write_text


def to_json(data: object, *, indent: int | None = 2) -> str:
    return json.dumps(data, ensure_ascii=False, indent=indent)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of results that can be exported.

    Attributes:
        rows: values of the columns; numbers stay numbers, `None` where a value is missing.
        notes: lines that say what the table shows.
        data: the contents of the JSON file; `None` means the rows as objects.
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
    """CSV (RFC 4180) with a header; `None` is an empty field.

    Control characters are made visible. A text that a spreadsheet would take for a formula gets an apostrophe in
    front.
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
    """A text on one line, escaped so that Markdown shows it as it is."""
    escaped = "".join(f"\\{char}" if char in _MARKDOWN else char for char in plain.one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


_MARKDOWN = frozenset("\\`*_[]|#~$")
