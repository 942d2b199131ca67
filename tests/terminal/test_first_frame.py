"""The first frame: what it waits for, and what waits for it."""

import re

import pyte

from tests.terminal.terminal import Terminal, without_private
from tests.warm import MAIN

# Where the model begins to load, the modules that are imported then are the terminal's title.
LISTS = f"""
import sys
from tui.model_loader import ModelLoader

load = ModelLoader.load

def listed(self, name):
    self._workbench.app._driver.write("\\x1b]2;" + " ".join(sys.modules) + "\\x07")
    load(self, name)

ModelLoader.load = listed
{MAIN}
"""
LISTED = re.compile(rb"\x1b\]2;(.*?)\x07", re.DOTALL)
# What takes long to import, and is for a model, a lesson or a server.
HEAVY = {"torch", "transformers", "numpy", "engine.models.local", "markdown_it", "http.client"}


def test_nothing_of_a_model_begins_before_the_first_frame_is_written() -> None:
    with Terminal(["--new"], 120, 36, code=LISTS, fresh=True) as terminal:
        terminal.wait_for(lambda: LISTED.search(terminal.raw) is not None)
        before, imported, _ = LISTED.split(terminal.raw, 1)
    frame = pyte.Screen(120, 36)
    pyte.ByteStream(frame).feed(without_private(before))
    assert all(part in "\n".join(frame.display) for part in ("━ Prompt", "─ Tokens", "─ A · greedy", "─▶ append", "F5"))
    assert set(imported.decode().split()) & HEAVY == set()
