"""Make the table of `docs/reliability.md` from the figures that a command gathered: `make reliability` does both.

.venv/bin/python docs/reliability.py .reliability.jsonl "make reliability"
"""

import argparse
import json
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path)
    parser.add_argument("command")
    options = parser.parse_args()
    if not options.figures.is_file():
        parser.error(f"there is no {options.figures}; make reliability gathers it")
    figures = [json.loads(line) for line in options.figures.read_text(encoding="utf-8").splitlines()]
    text = HEAD.format(command=options.command, day=datetime.now(UTC).date().isoformat())
    for figure in figures:
        cells = [f"{figure[name]:,}" if isinstance(figure.get(name), int) else figure.get(name, "") for name in COLUMNS]
        rest = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figure.items() if name not in COLUMNS)
        text += f"| {' | '.join(cells)} | {rest} |\n"
    (Path(__file__).parent / "reliability.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
