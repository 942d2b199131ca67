"""Colours that part, with and without red and green vision, and layouts for every terminal."""

from itertools import combinations, pairwise

import pytest

from engine.base.chart import INKS
from tests.tui.conftest import until
from tui.dialogs.help import HERE, Help
from tui.panes.lanes import LanesPane
from tui.sentences import sentence
from tui.style.colours import DARK, DARK_GREYS, LIGHT, LIGHT_GREYS, Palette, series_of
from tui.style.theme import THEMES

# Deuteranopia, severity 1, on linear RGB (Machado, Oliveira and Fernandes 2009).
DEUTERANOPIA = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
TEXT = {True: "#d5dbe6", False: "#1b1f27"}

RGB = tuple[float, float, float]


def linear(colour: str) -> RGB:
    values = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return red, green, blue


def without_green(colour: RGB) -> RGB:
    red, green, blue = (min(1.0, max(0.0, sum(m * c for m, c in zip(row, colour)))) for row in DEUTERANOPIA)
    return red, green, blue


def luminance(colour: RGB) -> float:
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]


def contrast(a: RGB, b: RGB) -> float:
    """WCAG's contrast ratio."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def difference(a: RGB, b: RGB) -> float:
    """CIE 1976 colour difference; about 2.3 can just be seen."""

    def lab(colour: RGB) -> RGB:
        red, green, blue = colour
        xyz = (
            (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505,
            luminance(colour),
            (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089,
        )
        x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz)
        return 116 * y - 16, 500 * (x - y), 200 * (y - z)

    return sum((p - q) ** 2 for p, q in zip(lab(a), lab(b))) ** 0.5


@pytest.mark.parametrize(("palette", "dark"), [(DARK.tokens, True), (LIGHT.tokens, False)])
def test_neighbouring_tokens_part_without_green_vision_and_can_be_read(palette: tuple[str, ...], dark: bool) -> None:
    colours = [linear(colour) for colour in palette]
    for a, b in pairwise([*colours, colours[0]]):
        assert difference(a, b) > 9
        assert difference(without_green(a), without_green(b)) > 9
    assert all(contrast(colour, linear(TEXT[dark])) >= 4.5 for colour in colours)


@pytest.mark.parametrize(("greys", "dark"), [(DARK_GREYS, True), (LIGHT_GREYS, False)])
def test_without_colours_shades_of_grey_part_tokens_and_bins(greys: Palette, dark: bool) -> None:
    for shades in (greys.tokens, greys.four, greys.five):
        colours = [linear(colour) for colour in shades]
        assert all(difference(a, b) > 6 for a, b in pairwise(colours))
        assert all(contrast(colour, linear(TEXT[dark])) >= 3 for colour in colours)
        assert all(max(colour) == min(colour) for colour in colours)


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_text_and_lanes_of_every_theme_can_be_read_and_told_apart(theme) -> None:
    background = linear(theme.background)
    a, b = linear(theme.variables["lane-a"]), linear(theme.variables["lane-b"])
    assert contrast(linear(theme.foreground), background) >= (15 if "contrast" in theme.name else 7)
    for colour in (a, b, linear(theme.error), linear(theme.accent)):
        assert contrast(colour, background) >= 4.5
    assert difference(without_green(a), without_green(b)) > 30


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_the_series_of_a_chart_can_be_seen_and_told_apart(theme) -> None:
    variables = theme.variables | {"accent": theme.accent}
    colours = [linear(colour) for colour in series_of(theme.name, variables, dark=theme.dark)]
    assert len(colours) == INKS
    assert all(contrast(colour, linear(theme.background)) >= 4.5 for colour in colours)
    assert all(difference(a, b) > 12 for a, b in combinations(colours, 2))
    if theme.name == "logitlab-safe":
        assert all(difference(without_green(a), without_green(b)) > 12 for a, b in combinations(colours, 2))


@pytest.mark.parametrize("size", [(30, 10), (59, 40), (120, 15)])
async def test_a_terminal_that_is_too_small_says_so_and_comes_back(lab, size: tuple[int, int]) -> None:
    async with lab() as (app, pilot):
        await pilot.resize_terminal(*size)
        await until(pilot, lambda: app.query_one("#too-small").display and not app.query_one("#bench").display)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: app.query_one("#bench").display and not app.query_one("#too-small").display)


async def test_help_begins_with_the_focused_pane(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, Help))
        assert str(app.screen.query_one("Static").render()).startswith(sentence(HERE["prompt"]))
        await pilot.press("escape")
        app.query_one(LanesPane).lanes[1].focus()
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, Help))
        assert str(app.screen.query_one("Static").render()).startswith(sentence(HERE["lane-b"]))
        for id in HERE:
            assert app.query(f"#{id}"), id
            assert 2 <= HERE[id].count(". ") + 1 <= 3
