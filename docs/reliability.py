"""Make the table of `docs/reliability.md` from the figures that `make reliability` gathered."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

HEAD = """# Reliability

What was tried to break the lab, and what came of it: `{command}` on {day}. Every row is a test in
`tests/reliability`, a short version of which runs with `make test`. *Used* and *refused* count inputs that worked all
the same and inputs that were turned down in one line; *lost* counts everything else: a traceback, a hang, a damaged
cache, a wrong text.

| what | tried | used | refused | lost | |
|---|---:|---:|---:|---:|---|
"""
COLUMNS = ("what", "tried", "used", "refused", "lost")


def main() -> None:
    """`reliability.py FIGURES.jsonl COMMAND`"""
    figures = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    text = HEAD.format(command=sys.argv[2], day=datetime.now(UTC).date().isoformat())
    for figure in figures:
        cells = [f"{figure[name]:,}" if isinstance(figure.get(name), int) else figure.get(name, "") for name in COLUMNS]
        rest = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figure.items() if name not in COLUMNS)
        text += f"| {' | '.join(cells)} | {rest} |\n"
    (Path(__file__).parent / "reliability.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
