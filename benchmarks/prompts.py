"""How fluent the Prompts view is with 10,000 prompts: from a key to the changed screen, in a pseudo-terminal.

    .venv/bin/python benchmarks/prompts.py [--prompts 10000] [--keys 60] [--model NAME] [--json out.json]

The environment is that of `make test`, which fetches the model too.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from surroundings import own_state

from engine.base.files import write_text
from engine.base.plain import table
from engine.sessions.session import Session, to_json
from engine.timing.measurement import percentile
from tests.terminal.terminal import Terminal

MODEL = "smollm2-135m"
DOWN, PAGE, END = "\x1b[B", "\x1b[6~", "\x1b[1;5F"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    prompts = tuple(f"{index} grey birds above the city looked calm" for index in range(options.prompts))
    with own_state() as folder:
        file = folder / "many.json"
        write_text(file, to_json(replace(Session(), prompts=prompts, view="prompts")))
        began = time.perf_counter()
        terminal = Terminal(["open", str(file), "--model", options.model], 120, 36, fresh=True)
        try:
            terminal.wait("1 0 grey", 120)
            seconds = {"counted": time.perf_counter() - began}
            terminal.wait("cpu ×")
            terminal.wait(lambda text: "prompts counted" not in text)
            terminal.press("tab")
            for name, key in (("one row", DOWN), ("a page", PAGE)):
                times = sorted(pressed(terminal, key) for _ in range(options.keys))
                seconds |= {f"{name}, median": median(times), f"{name}, 95th": percentile(times, 95)}
            seconds["to the end"] = pressed(terminal, END)
            terminal.press("ctrl+q")
            terminal.finish()
        finally:
            terminal.close()
    print(table(("what", "ms"), [(name, f"{value * 1e3:.0f}") for name, value in seconds.items()], right=(1,)))
    if options.json:
        options.json.write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")


def pressed(terminal: Terminal, key: str) -> float:
    """Seconds until the screen is another one."""
    before = terminal.text
    began = time.perf_counter()
    terminal.press(key)
    terminal.wait(lambda text: text != before)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
