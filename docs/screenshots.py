"""Draw the README's screenshots: the lab with the embedded model, run by Pilot, saved as SVG.

make screenshots
"""

import asyncio
import os
import tempfile
from pathlib import Path

from textual.widgets import TextArea

from tui.app import LogitlabApp

FOLDER = Path(__file__).parent


async def draw(name: str, size: tuple[int, int], keys: tuple[str, ...]) -> None:
    """Open the lab, press keys, wait for what they started, save the screen."""
    app = LogitlabApp(model="smollm2-135m")
    async with app.run_test(size=size) as pilot:
        app.animation_level = "none"
        app.query_one(TextArea).cursor_blink = False
        while app.loader.loading:
            await pilot.pause(0.1)
        bench = app.workbench
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.2)
            while bench.generate.running or bench.variants.running or bench.timing.running:
                await pilot.pause(0.1)
        await pilot.pause(1.0)
        (FOLDER / f"{name}.svg").write_text(app.export_screenshot(title="logitlab"), encoding="utf-8")


async def main() -> None:
    to_lane_a = ("tab", "tab", "tab", "home")
    third = (*to_lane_a, "right", "right", "right", "right")
    await draw("lab", (120, 38), ("f5", *third))
    await draw("surprise", (120, 38), ("f5", *third, "c", "c"))
    await draw(
        "branches", (120, 38), ("f5", *third, "tab", "tab", "down", "enter", "shift+tab", "shift+tab", "t", "up")
    )
    await draw("lesson", (140, 40), ("ctrl+l", "right", "right", "right", "right", "enter", "d"))
    await draw("prompts", (120, 38), ("f8", "f8", "f5", *("tab",) * 3, "down"))
    await draw("timing", (120, 38), ("f8", "f8", "f8", "f5"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as state:
        os.environ["LOGITLAB_STATE_DIR"] = state  # the pictures' sessions are nobody's
        asyncio.run(main())
