"""From the command to the first frame, the model and the first token, in a pseudo-terminal; and what importing costs.

    .venv/bin/python benchmarks/startup.py [--repeats 5] [--model NAME] [--json out.json]

The environment is that of `make test`, which fetches the model too.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from surroundings import own_state

from engine.base.plain import table
from tests.terminal.terminal import Terminal

MODEL = "smollm2-135m"


def session(model: str) -> dict[str, float]:
    """Seconds since the command was given. F5 is pressed at once; the run starts when the model is there."""
    began = time.perf_counter()
    terminal = Terminal(["--new", "--model", model], 120, 36, fresh=True)
    seconds = {}
    try:
        terminal.wait("Prompt")
        seconds["first frame"] = time.perf_counter() - began
        terminal.press("F5")
        terminal.wait("cpu ×")
        seconds["model ready"] = time.perf_counter() - began
        terminal.wait(lambda text: re.search(r"[1-9]\d*/40", text) is not None)
        seconds["first token"] = time.perf_counter() - began
        terminal.press("ctrl+q")
        terminal.finish()
    finally:
        terminal.close()
    return seconds


def loading(model: str) -> dict[str, float]:
    """Seconds to load the model once torch is imported, and the peak memory of `logitlab generate`, in MB."""
    code = (
        "import time, torch; from engine.loading import load_model; import engine.networks.sources; "
        f"began = time.perf_counter(); load_model({model!r}); print(time.perf_counter() - began)"
    )
    seconds = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    code = (
        "import resource, sys; sys.argv = ['logitlab', 'generate', 'The sky above the city looked calm, but', "
        f"'--max-new-tokens', '40', '--model', {model!r}]\n"
        "from engine.cli import main\n"
        "try: main()\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {"load after imports": seconds, "peak memory of generate, MB": float(run.stderr.split()[-1])}


def imports(module: str, top: int = 12) -> list[tuple[str, float]]:
    """The modules whose import takes longest by themselves, in ms."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {module}"], capture_output=True, text=True, check=True
    )
    found = re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", run.stderr)
    return sorted(((name, int(own) / 1e3) for own, name in found), key=lambda item: -item[1])[:top]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with own_state():
        runs = [session(options.model) | loading(options.model) for _ in range(options.repeats)]
    medians = {name: median(run[name] for run in runs) for name in runs[0]}
    profile = imports("tui.app")
    print(table(("what", "median of " + str(len(runs))), [(k, f"{v:.2f}") for k, v in medians.items()], right=(1,)))
    print()
    print(table(("import tui.app", "ms"), [(name, f"{ms:.1f}") for name, ms in profile], right=(1,)))
    if options.json:
        data = {"medians": medians, "runs": runs, "imports_ms": dict(profile)}
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
