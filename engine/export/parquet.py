"""Results of a batch as a Parquet table."""

import json
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.files import written_whole
from engine.base.language import _

# Columns that are there where a job was a conversation.
OF_CONVERSATIONS = ("messages", "chat_options", "message", "remarks")


def check_parquet() -> None:
    """Raise `InputError` where Parquet files cannot be written: before the work, not after it."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError(_("Parquet needs a package more; run: pip install 'logitlab[parquet]'")) from error


def to_parquet(results: Path, target: Path) -> None:
    """Write the lines of `results` as a table, whole or not at all. Raises `MachineError`.

    `config`, `draft`, and what belongs to a conversation are JSON in it.
    """
    import pyarrow
    import pyarrow.parquet

    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").split("\n") if line]
    columns = {
        name: pyarrow.array([_cell(row.get(name)) for row in rows], kind)
        for name, kind in (
            *(
                (name, pyarrow.string())
                for name in (
                    *("id", "model", "prompt", "config", "text", "finish_reason", "draft", "error"),
                    *(name for name in OF_CONVERSATIONS if any(name in row for row in rows)),
                )
            ),
            ("tokens", pyarrow.int64()),
            ("seconds", pyarrow.float64()),
        )
    }
    with written_whole(target) as partial:
        pyarrow.parquet.write_table(pyarrow.table(columns), partial)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
