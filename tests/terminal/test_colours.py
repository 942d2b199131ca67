"""Terminals of many colours, of 256, of 16 and of none: every letter can be read, and neighbouring tokens part."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from tests.terminal.terminal import Terminal, both_ended
from tests.tui.test_theme import contrast, linear
from tui.style.theme import THEMES

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


def hard_to_read(terminal: Terminal) -> set[tuple[str, str, str]]:
    """Ink, paper and character of all letters and digits whose contrast is too small."""
    cells = [cell for row in terminal.screen.buffer.values() for cell in row.values()]
    return {
        (cell.fg, cell.bg, cell.data)
        for cell in cells
        if cell.data.isalnum() and contrast(colour(cell.fg, "#e5e5e5"), colour(cell.bg, "#000000")) < 3
    }


# What each picture of the Inside view shows once it is there, by its key.
PICTURES = {"1": "layer 2 of 2", "2": "all heads", "3": "remainder", "4": "what is lost without it"}


def each_with_each(kinds: Iterable[str], themes: Sequence[str]) -> list[Any]:
    """Every kind of terminal with every theme: each kind with one of them, in turn, and the others at length."""
    return [
        pytest.param(kind, theme, marks=[] if place % len(themes) == number else pytest.mark.long)
        for place, kind in enumerate(kinds)
        for number, theme in enumerate(themes)
    ]


@pytest.mark.parametrize(
    ("kind", "theme"),
    each_with_each(["true colours", "16", "none"], ["logitlab-dark", "logitlab-light", "logitlab-safe"]),
)
def test_pictures_of_the_inside_can_be_read(tiny_llama, kind: str, theme: str) -> None:
    arguments = ["--model", str(tiny_llama), "--prompt", "the sky above the city and the robot"]
    with Terminal(arguments, 120, 36, theme=theme, **TERMINALS[kind]) as terminal:
        terminal.wait("cpu ×")
        terminal.press("F8", "F8", "F8", "F8")
        for key, shown in PICTURES.items():
            terminal.press(key)
            terminal.wait(shown)
            assert not hard_to_read(terminal), key
        terminal.press("ctrl+q")
        assert terminal.finish() == 0


@pytest.mark.parametrize("theme", [theme.name for theme in THEMES])
def test_lanes_and_fields_part_in_sixteen_colours(tiny_llama, theme: str) -> None:
    arguments = ["--model", str(tiny_llama), "--prompt", "the sky above the city and the robot"]
    with Terminal(arguments, 120, 36, theme=theme, **TERMINALS["16"]) as terminal:

        def looks(word: str) -> list[tuple[str, str]]:
            """Ink and paper of a word where it is first, from its first character to its last."""
            row = next(y for y in range(36) if word in terminal.line(y))
            at = terminal.line(row).index(word)
            return [
                (cell.fg, cell.bg) for cell in (terminal.screen.buffer[row][at + place] for place in range(len(word)))
            ]

        terminal.wait("cpu ×")
        terminal.press("F5")
        terminal.wait(both_ended)
        lanes = [looks("╭─ A · "), looks("╭─ B · ")]
        inks = [{ink for ink, _ in lane if ink != "default"} for lane in lanes]
        assert [len(ink) for ink in inks] == [1, 1], "a border has its title's colour"
        assert inks[0] != inks[1]
        assert not (inks[0] | inks[1]) & {"white", "black", "brightblack", "brightwhite"}
        assert looks("top-k  off ")[0][1] != looks("top-k  off ")[-1][1], "a setting has a ground"
        terminal.press("F3")
        terminal.wait("alpha")
        terminal.wait("0.6")
        alpha = looks(re.search("alpha +0.6", terminal.text)[0])
        assert alpha[0][1] != alpha[-1][1], "so has a field"
        for ink, paper in (alpha[0], alpha[-1], *looks("greedy")):  # the last is selected
            assert contrast(colour(ink, "#e5e5e5"), colour(paper, "#000000")) >= 3
        terminal.press("esc")
        terminal.wait(lambda text: "alpha" not in text)
        terminal.press("F8", "F8", "F8")
        terminal.wait("Measure")
        assert {letter for _, _, letter in hard_to_read(terminal)} <= {"X"}, "the mark of a box that is not ticked"
        terminal.press("ctrl+q")
        assert terminal.finish() == 0


@pytest.mark.parametrize(("kind", "theme"), each_with_each(TERMINALS, ["logitlab-dark", "logitlab-light"]))
def test_everything_can_be_read(tiny_llama, kind: str, theme: str) -> None:
    arguments = ["--model", str(tiny_llama), "--prompt", "the sky above the city and the robot"]
    with Terminal(arguments, 120, 36, theme=theme, **TERMINALS[kind]) as terminal:
        terminal.wait("cpu ×")
        terminal.wait("the·sky·above·the·city")
        heavy = [row for row in range(36) if "┏" in terminal.line(row)]
        assert len(heavy) == 1  # the prompt has the focus, whatever the colours
        assert "┃the sky above" in terminal.line(heavy[0] + 1)
        terminal.press("F5")
        terminal.wait(both_ended)
        for _ in range(4):  # every measure of surprise, and back
            terminal.press("\t", "c")
            terminal.wait_for(lambda: True)
        assert not hard_to_read(terminal)
        if kind == "none":
            cells = [cell for row in terminal.screen.buffer.values() for cell in row.values()]
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
