"""What the screen costs: tokens per second of two lanes being drawn, and the time from a key to its letter.

    .venv/bin/python benchmarks/on_screen.py [--tokens 1000] [--keys 100] [--repeats 3] [--model NAME]
    .venv/bin/python benchmarks/on_screen.py --only keys inside        # some of: drawn keys looks inside

The lab runs in a pseudo-terminal of 120 columns and 36 rows. The engine alone is timed before and after it, at the
same number of threads. (Not called `typing.py`, as Python's own module of that name is.)
The environment is that of `make test`, which fetches the model too.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles

from surroundings import own_state

from engine.base.machine import processors
from engine.base.plain import table
from tests.terminal.terminal import Terminal

CONTROL = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[^\[])")

MODEL = "smollm2-135m"
PARTS = ("drawn", "keys", "looks", "inside")


class Listener(Terminal):
    """A terminal that draws nothing: an emulator written in Python would compete with the lab for the processor.

    Its text is what was written since `forget`, without control sequences.
    """

    written = b""

    @property
    def text(self) -> str:
        return CONTROL.sub(b"", self.written).decode(errors="replace")

    def forget(self) -> None:
        self.written = b""

    def _take(self, data: bytes) -> None:
        self.written = self.written[-20_000:] + data


def engine_alone(model: str, tokens: int, threads: int) -> float:
    """Steps per second of two lanes in a process of its own."""
    code = (
        "import sys, json; from engine.loading import load_model; from engine.generation.loop import generate\n"
        "from engine.generation.config import PRESETS; from engine.generation.events import Stepped\n"
        "from dataclasses import replace\n"
        "n, threads = int(sys.argv[1]), int(sys.argv[2])\n"
        f"model = load_model({model!r}, threads=threads)\n"
        "configs = [replace(PRESETS[p], max_new_tokens=n, ignore_eos=True) for p in ('greedy', 'sampled')]\n"
        "seconds = [e.seconds for e in generate(model.network, model.tokenizer, "
        "['The sky above the city looked calm, but'], configs) if isinstance(e, Stepped) and e.lane == 0]\n"
        "print(json.dumps(seconds))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tokens), str(threads)], capture_output=True, text=True, check=True
    )
    seconds = json.loads(run.stdout)
    return (len(seconds) - 1) / sum(seconds[1:])


def start(model: str, tokens: int, folder: Path, tokens_b: int | None = None) -> Listener:
    """The lab with two lanes of `tokens` tokens, ready to run."""
    for name, strategy, count in (
        ("a", 'strategy = "greedy"', tokens),
        ("b", 'strategy = "sample"\ntemperature = 0.9\ntop_p = 0.95', tokens_b or tokens),
    ):
        (folder / f"{name}.toml").write_text(f"{strategy}\nmax_new_tokens = {count}\nignore_eos = true\nseed = 0\n")
    lanes = ("--a", str(folder / "a.toml"), "--b", str(folder / "b.toml"))
    terminal = Listener(["--model", model, *lanes], 120, 36, fresh=True)
    terminal.wait("cpu ×")
    return terminal


def drawn(model: str, tokens: int, folder: Path) -> dict[str, float]:
    """Steps per second with the screen: of the whole run, of its first and of its last hundred."""
    terminal = start(model, tokens, folder)
    try:
        terminal.press("F5")
        done = [(time.perf_counter(), 0)]
        before = len(terminal.raw)

        def finished(text: str) -> bool:
            found = re.findall(rf"(\d+)/{tokens}", text)
            if found and int(found[-1]) > done[-1][1]:
                done.append((time.perf_counter(), int(found[-1])))
            return done[-1][1] >= tokens

        terminal.wait(finished, seconds=300)
        sent = len(terminal.raw) - before
        terminal.press("ctrl+q")
        terminal.finish()
    finally:
        terminal.close()

    def rate(points: list[tuple[float, int]]) -> float:
        """Between the first and the last; where only one was seen, since the one before it, at the latest the key."""
        if len(points) == 1:
            points = [done[done.index(points[0]) - 1], *points]
        return (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])

    started = done[1:]  # without the prefill
    first = [point for point in started if point[1] <= started[0][1] + 100]
    last = [point for point in started if point[1] >= tokens - 100]
    return {
        "whole": rate(started),
        "first hundred": rate(first),
        "last hundred": rate(last),
        "kilobytes": sent / 1000,
        "megabits a second": sent * 8 / 1e6 / (done[-1][0] - done[0][0]),
    }


def keys(model: str, folder: Path, count: int) -> list[float]:
    """Seconds from each key to its letter on the screen while both lanes run."""
    terminal = start(model, 3000, folder)
    seconds = []
    try:
        terminal.press("F5")
        terminal.wait(lambda text: re.search(r"[1-9]\d*/3000", text) is not None)
        generator = random.Random(0)
        typed = ""
        for _ in range(count):
            letter = generator.choice("abcdefghijklmnopqrstuvwxyz")
            typed += letter
            terminal.forget()
            began = time.perf_counter()
            terminal.press(letter)
            terminal.wait(lambda text, wanted=typed[-6:]: wanted in text)
            seconds.append(time.perf_counter() - began)
            time.sleep(0.07)  # the pace of a person
        terminal.press("esc", "ctrl+q")
        terminal.finish()
    finally:
        terminal.close()
    return seconds


def looks(model: str, folder: Path, tokens: int, count: int) -> tuple[list[float], list[float]]:
    """Seconds from a key to the redrawn inspector, for the cursor over `tokens` and for a knob; lane B runs."""
    terminal = start(model, tokens, folder, 5000)
    moved, turned = [], []

    def timed(key: str, wanted: str) -> float:
        terminal.forget()
        began = time.perf_counter()
        terminal.press(key)
        terminal.wait(lambda text: wanted in text)
        took = time.perf_counter() - began
        time.sleep(0.07)
        return took

    try:
        terminal.press("F5")
        terminal.wait(lambda text: f"{tokens}/{tokens}" in text, seconds=120)
        terminal.press("tab", "tab")  # past the prompt's tokens to lane A
        terminal.press("left")  # its last token
        terminal.wait(f"step {tokens} ")
        for step in range(count):
            moved.append(timed("left", f"step {tokens - 1 - step} "))
        terminal.press("tab", "tab")
        time.sleep(0.3)
        for step in range(count):
            turned.append(timed("+-"[step % 2], ("T  1.1 ", "T  1 ")[step % 2]))
        terminal.press("esc", "ctrl+q")
        terminal.finish()
    finally:
        terminal.close()
    return moved, turned


def inside(model: str, folder: Path, tokens: int, count: int) -> list[float]:
    """Seconds from a key to the redrawn lens of the view Inside, for the cursor over `tokens`."""
    terminal = start(model, tokens, folder)
    seconds = []
    try:
        terminal.press("F5")
        terminal.wait(lambda text: f"{tokens}/{tokens}" in text, seconds=120)
        terminal.press("F8", "F8", "F8", "F8")
        place = re.compile(r"position (\d+) of")
        found = place.findall(terminal.wait(lambda text: place.search(text) is not None, seconds=120))
        terminal.wait("decided at layer", seconds=120)
        time.sleep(5)  # what is timed are keys, not the rows that are still computed
        for step in range(min(count, tokens)):
            terminal.forget()
            began = time.perf_counter()
            terminal.press("left")
            terminal.wait(lambda text, wanted=f"position {int(found[-1]) - 1 - step} of": wanted in text)
            seconds.append(time.perf_counter() - began)
            time.sleep(0.07)
        terminal.press("ctrl+q")
        terminal.finish()
    finally:
        terminal.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--keys", type=int, default=100, help="letters typed; 2 at least")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model, threads = options.model, max(1, processors() - 1)
    alone, screen, latencies, moves, turns, insides = [], [], [], [], [], []
    with own_state() as folder:
        for _ in range(options.repeats):
            alone.append(engine_alone(model, options.tokens, threads))
            if "drawn" in options.only:
                screen.append(drawn(model, options.tokens, folder))
            if "keys" in options.only:
                latencies += keys(model, folder, options.keys)
            if "looks" in options.only:
                moved, turned = looks(model, folder, options.tokens // 2, options.keys * 2 // 5)
                moves += moved
                turns += turned
            if "inside" in options.only:
                insides += inside(model, folder, min(options.tokens, 40), options.keys * 2 // 5)
        alone.append(engine_alone(model, options.tokens, threads))
    result: dict[str, float] = {
        "threads": threads,
        "tokens": options.tokens,
        "engine alone, steps/s": median(alone),
    }
    if screen:
        result |= {f"on screen, {part}": median(run[part] for run in screen) for part in screen[0]}
        result["part of the engine's speed"] = median(run["whole"] for run in screen) / median(alone)
    for name, seconds in (
        ("key to letter", latencies),
        ("cursor to inspector", moves),
        ("knob to bars", turns),
        ("cursor to lens", insides),
    ):
        if seconds:
            result[f"{name}, median ms"] = median(seconds) * 1e3
            result[f"{name}, 95th percentile ms"] = quantiles(seconds, n=20)[-1] * 1e3
    print(table(("what", "figure"), [(key, f"{value:.3g}") for key, value in result.items()], right=(1,)))
    if options.json:
        options.json.write_text(
            json.dumps(result | {"alone": alone, "screen": screen}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
