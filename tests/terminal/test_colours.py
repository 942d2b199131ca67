"""Terminals of many colours, of 256, of 16 and of none: every letter can be read, and neighbouring tokens part."""

import re

import pytest

from tests.terminal.terminal import Terminal, both_ended
from tests.tui.test_theme import contrast, linear

# xterm's own sixteen.
NAMED = {
    **{"black": "#000000", "red": "#cd0000", "green": "#00cd00", "brown": "#cdcd00", "blue": "#0000ee"},
    **{"magenta": "#cd00cd", "cyan": "#00cdcd", "white": "#e5e5e5", "brightblack": "#7f7f7f", "brightred": "#ff0000"},
    **{"brightgreen": "#00ff00", "brightbrown": "#ffff00", "brightyellow": "#ffff00", "brightblue": "#5c5cff"},
    **{"brightmagenta": "#ff00ff", "bfightmagenta": "#ff00ff", "brightcyan": "#00ffff", "brightwhite": "#ffffff"},
}
TERMINALS = {
    "true colours": {},
    "256": {"COLORTERM": ""},
    "16": {"COLORTERM": "", "TERM": "xterm"},
    "the console": {"COLORTERM": "", "TERM": "linux"},
    "none": {"NO_COLOR": "1"},
}


def colour(name: str, otherwise: str) -> tuple[float, float, float]:
    name = otherwise if name == "default" else name
    return linear(NAMED.get(name, f"#{name}"))


@pytest.mark.parametrize("theme", ["logitlab-dark", "logitlab-light"])
@pytest.mark.parametrize("kind", TERMINALS)
def test_everything_can_be_read(tiny_llama, kind: str, theme: str) -> None:
    arguments = ["--model", str(tiny_llama), "--prompt", "the sky above the city and the robot"]
    with Terminal(arguments, 120, 36, theme=theme, **TERMINALS[kind]) as terminal:
        terminal.wait("cpu ×")
        terminal.wait("the·sky·above·the·city")
        terminal.press("F5")
        terminal.wait(both_ended)
        for _ in range(4):  # every measure of surprise, and back
            terminal.press("\t", "c")
            terminal.wait_for(lambda: True)
        cells = [cell for row in terminal.screen.buffer.values() for cell in row.values()]
        hard = set()
        for cell in cells:
            if cell.data.isalnum():
                ink, paper = colour(cell.fg, "#e5e5e5"), colour(cell.bg, "#000000")
                if contrast(ink, paper) < 3:
                    hard.add((cell.fg, cell.bg, cell.data))
        assert not hard
        if kind == "none":
            used = {shade for cell in cells for shade in (cell.fg, cell.bg)} - {"default"}
            assert used
            assert all(len(set(re.findall("..", NAMED.get(shade, shade).strip("#")))) == 1 for shade in used)
        row = next(y for y in range(36) if "the·sky·above" in terminal.line(y))
        backgrounds = [
            terminal.screen.buffer[row][terminal.line(row).index(word)].bg for word in ("the", "·sky", "·ab")
        ]
        assert backgrounds[0] != backgrounds[1] != backgrounds[2]
        terminal.press("ctrl+q")
        assert terminal.finish() == 0
