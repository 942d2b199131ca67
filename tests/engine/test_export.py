import csv
import json
from pathlib import Path

import pytest

from engine.base import plain
from engine.base.errors import InputError, MachineError
from engine.base.files import write_text
from engine.export.sheet import to_json, write_csv
from engine.generation.events import Failed
from engine.generation.result import RunResult, event_dict, timing


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    write_text(target, "日本\n")
    assert target.read_text(encoding="utf-8") == "日本\n"
    with pytest.raises(MachineError, match="cannot write"):
        write_text(tmp_path / "missing" / "out.txt", "x")
    assert [file.name for file in tmp_path.iterdir()] == ["out.txt"]


def test_csv_reads_back(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [{"a": 1, "b": "x,\ny"}, {"a": 2, "b": "“q”"}])
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": "x,\ny"}, {"a": "2", "b": "“q”"}]


def test_an_error_is_raised_where_a_run_is_gathered() -> None:
    with pytest.raises(InputError):
        RunResult().add(Failed(None, InputError("no")))
    assert event_dict(Failed(0, InputError("no"))) == {"event": "Failed", "lane": 0, "error": "no"}
    assert json.loads(to_json({"a": "日"})) == {"a": "日"}


def test_timing_of_nothing_is_zero() -> None:
    assert timing(0.5, [])["time_to_first_token_seconds"] == 0.5
    assert timing(0.5, [])["tokens_per_second"] == 0.0


def test_plain_text_cannot_steer_a_terminal() -> None:
    assert plain.safe("a\x1b[31m\x00b\u202e\n\tc") == "a␛[31m␀b⟨202E⟩\n\tc"
    assert plain.one_line("a\nb\tc") == "a⏎b⇥c"


def test_tables_and_bars_keep_their_columns() -> None:
    lines = plain.table(("n", "text"), [(1, "日本"), (22, "x")], right=(0,)).splitlines()
    assert lines == [" n  text", " 1  日本", "22  x"]
    assert plain.bar(1, 1, 4) == "████"
    assert plain.bar(0.5, 1, 3) == "█▌"
    assert plain.bar(1, 0, 3) == ""
