"""Draw the README's screenshots: the lab with the embedded model, run by Pilot, saved as SVG.

    make screenshots                                     # all of them
    .venv/bin/python docs/screenshots.py lesson lab      # some

The environment is that of `make test`, which fetches the model too.
"""

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

from textual.widgets import TextArea

from tui.app import LogitlabApp

FOLDER = Path(__file__).parent


async def draw(model: str, name: str, size: tuple[int, int], keys: tuple[str, ...]) -> None:
    """Open the lab, press keys, wait for what they started, save the screen."""
    app = LogitlabApp(model=model)
    async with app.run_test(size=size) as pilot:
        app.animation_level = "none"
        app.query_one(TextArea).cursor_blink = False
        while app.loader.loading:
            await pilot.pause(0.1)
        bench = app.workbench
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.2)
            while bench.generate.running or bench.variants.running or bench.timing.running or bench.inside.running:
                await pilot.pause(0.1)
        await pilot.pause(1.0)
        (FOLDER / f"{name}.svg").write_text(app.export_screenshot(title="logitlab"), encoding="utf-8")


TO_LANE_A = ("tab", "tab", "home")
THIRD = (*TO_LANE_A, "right", "right", "right", "right")
BRANCH = ("tab", "tab", "down", "enter", "shift+tab", "shift+tab", "t", "up")
ASKED = ("W", "h", "o", "space", "s", "a", "w", "space", "i", "t", "question_mark")
PICTURES: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {
    "lab": ((120, 38), ("f5", *THIRD)),
    "lab-80x24": ((80, 24), ("f5", *THIRD)),
    "lab-120x36": ((120, 36), ("f5", *THIRD)),
    "lab-200x50": ((200, 50), ("f5", *THIRD)),
    "surprise": ((120, 38), ("f5", *THIRD, "c", "c")),
    "branches": ((120, 38), ("f5", *THIRD, *BRANCH)),
    "lesson": ((140, 40), ("ctrl+l", "right", "right", "right", "right", "enter", "d")),
    "prompts": ((120, 38), ("f8", "f8", "f5", *("tab",) * 2, "down")),
    "timing": ((120, 38), ("f8", "f8", "f8", "f5")),
    "conversation": ((120, 38), ("ctrl+t", "f5", "escape", "enter", *ASKED, "f5")),
    "inside": ((120, 38), ("f5", "ctrl+pageup", *("left",) * 3, *("down",) * 4)),
}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help=", ".join(PICTURES))
    parser.add_argument("--model", default="smollm2-135m")
    given = parser.parse_args()
    names = given.pictures or list(PICTURES)
    if unknown := [name for name in names if name not in PICTURES]:
        parser.error(f"no picture {unknown[0]}; there are {', '.join(PICTURES)}")
    for name in names:
        await draw(given.model, name, *PICTURES[name])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as state:
        os.environ["LOGITLAB_STATE_DIR"] = state  # the pictures' sessions are nobody's
        asyncio.run(main())
