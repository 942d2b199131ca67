"""What the colour of a token says: its family, or how much it surprised the model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rich.text import Text
from textual.app import App

from engine.base.language import N_, _

# The lanes' and the prompt's.
MODES = (N_("tokens"), N_("probability"), N_("rank"), N_("entropy"), N_("surprisal"))
# What the other lane's model thinks of a token.
OPINIONS = ("kl", "doubt")


@dataclass(frozen=True, slots=True)
class Scale:
    """Bins of one measure: a value belongs to the first bin whose bound it does not exceed.

    Attributes:
        bounds: one fewer than there are labels, growing.
        labels: what the legend says of each bin, the calmest first.
    """

    bounds: tuple[float, ...]
    labels: tuple[str, ...]

    def bin(self, value: float) -> int:
        return next((index for index, bound in enumerate(self.bounds) if value <= bound), len(self.bounds))


# Probability is judged by what it falls short of, so that all scales grow with surprise. The bins of ranks are
# GLTR's (Gehrmann et al. 2019).
SCALES = {
    "probability": Scale((0.5, 0.8, 0.95, 0.99), (N_("50 % and more"), "20 %", "5 %", "1 %", N_("less"))),
    "rank": Scale((10, 100, 1000), (N_("top 10"), N_("top 100"), N_("top 1,000"), N_("beyond"))),
    "entropy": Scale((1, 2, 4, 6), (N_("up to 1 bit"), "2", "4", "6", N_("more"))),
    "surprisal": Scale((1, 3, 6, 10), (N_("up to 1 bit"), "3", "6", "10", N_("more"))),
    # Of the Inside view: shares of attention, and what a token's absence takes from a log-probability, in nats.
    "share": Scale((0.02, 0.05, 0.15, 0.4), (N_("up to 2 %"), "5 %", "15 %", "40 %", N_("more"))),
    "fall": Scale((0.1, 0.5, 1.5, 4), (N_("up to 0.1 nats"), "0.5", "1.5", "4", N_("more"))),
    "kl": Scale((0.01, 0.1, 0.5, 2), (N_("up to 0.01 nats"), "0.1", "0.5", "2", N_("more"))),
    "doubt": Scale((0.1, 0.5, 1.5, 4), (N_("up to 0.1 nats"), "0.5", "1.5", "4", N_("more"))),
}
# What the legend calls a measure, where its own name would not do.
TITLES = {
    "share": N_("share of the weights"),
    "fall": N_("what is lost without it"),
    "kl": N_("KL to the other lane's model"),
    "doubt": N_("how much less likely the other lane's model finds it"),
}


@dataclass(frozen=True, slots=True)
class Palette:
    """Backgrounds of tokens.

    Attributes:
        tokens: in turn, so that neighbours part.
        four, five: of as many bins, from calm to surprised: hue and lightness both change, so that they part without
            colour vision too.
    """

    tokens: tuple[str, ...]
    four: tuple[str, ...]
    five: tuple[str, ...]

    def bins(self, mode: str) -> tuple[str, ...]:
        return {4: self.four, 5: self.five}[len(SCALES[mode].labels)]


DARK = Palette(
    ("#1f4e79", "#6b3f12", "#1d5c4a", "#5a3273", "#3d4f63"),
    ("#1d5c3a", "#6b6410", "#8f2f2a", "#64379c"),
    ("#1b3f66", "#1d6660", "#75660f", "#96451a", "#8d1f4f"),
)
LIGHT = Palette(
    ("#bfdcf5", "#f7dcae", "#bfe8d6", "#e2ccf2", "#d5dde6"),
    ("#bfe8cb", "#f3e59a", "#f6b9b0", "#d9c2f7"),
    ("#c9e0f7", "#b9e8df", "#f2e6a0", "#f8c9a0", "#f5b0c4"),
)
# For terminals of 16 colours, by name: the nearest of them would make neighbours alike, and letters hard to read.
DARK_OF_16 = Palette(
    ("blue", "magenta", "bright_black", "red"),
    ("bright_black", "blue", "magenta", "red"),
    ("black", "bright_black", "blue", "magenta", "red"),
)
LIGHT_OF_16 = Palette(
    ("bright_cyan", "bright_yellow", "bright_green", "white"),
    ("white", "bright_cyan", "bright_yellow", "bright_red"),
    ("bright_white", "white", "bright_cyan", "bright_yellow", "bright_red"),
)
# Without colours (NO_COLOR) shades of grey tell.
DARK_GREYS = Palette(
    ("#4e4e4e", "#1c1c1c"),
    ("#1c1c1c", "#363636", "#545454", "#727272"),
    ("#1c1c1c", "#303030", "#464646", "#5c5c5c", "#727272"),
)
LIGHT_GREYS = Palette(
    ("#c6c6c6", "#f0f0f0"),
    ("#f0f0f0", "#d8d8d8", "#c0c0c0", "#a8a8a8"),
    ("#f0f0f0", "#dedede", "#cccccc", "#bababa", "#a8a8a8"),
)


Role = Literal["good", "note", "warning", "wrong"]
VARIABLES: dict[Role, str] = {"good": "success", "note": "primary", "warning": "warning", "wrong": "error"}
INKS_OF_16: dict[bool, dict[Role, str]] = {
    True: {"good": "bright_green", "note": "bright_cyan", "warning": "bright_yellow", "wrong": "bright_red"},
    False: {"good": "blue", "note": "blue", "warning": "magenta", "wrong": "red"},
}


# What takes the place of a theme's own in a terminal of 16 colours, by the values that they are known by: the nearest
# would be grey for lane A, yellow on white for lane B, and for a field the ground around it.
VARIABLES_OF_16 = {
    True: {
        "lane-a": "#5555ff",
        "lane-b": "#ffff55",
        "field": "#555555",
        "input-selection-background": "#0000aa",
        "text-disabled": "#aaaaaa",
    },
    False: {
        "lane-a": "#0000aa",
        "lane-b": "#aa00aa",
        "field": "#aaaaaa",
        "input-selection-background": "#55ffff",
        "text-disabled": "#555555",
    },
}


# What parts the curves and bars of a chart after lane A's colour, lane B's and the accent.
MORE_SERIES = {
    True: ("#bb9af7", "#e0af68", "#7dcfff"),
    False: ("#7a3fc0", "#8a6100", "#00708f"),
}
# With Okabe and Ito's palette (2008) as far as it is light enough.
MORE_SAFE_SERIES = ("#cc79a7", "#00b386", "#e6e6e6")
SERIES_OF_16 = {
    True: ("#5555ff", "#ffff55", "bright_green", "bright_magenta", "bright_red", "bright_cyan"),
    False: ("#0000aa", "#aa00aa", "red", "black", "bright_black", "cyan"),
}


def series(app: App[Any]) -> tuple[str, ...]:
    """The colours of a chart's six series, the first of lane A and the second of lane B."""
    if few_colours(app):
        return SERIES_OF_16[app.current_theme.dark]
    return series_of(app.theme, app.theme_variables, dark=app.current_theme.dark)


def series_of(theme: str, variables: Mapping[str, str], *, dark: bool) -> tuple[str, ...]:
    """Those of a theme, by its name and its variables."""
    more = MORE_SAFE_SERIES if theme == "logitlab-safe" else MORE_SERIES[dark]
    return (variables["lane-a"], variables["lane-b"], variables["accent"], *more)


def ink(app: App[Any], role: Role) -> str:
    """The colour of a text that is good news, a note, a warning, or about something wrong."""
    if few_colours(app):
        return INKS_OF_16[app.current_theme.dark][role]
    return app.theme_variables[VARIABLES[role]]


def field_ground(app: App[Any]) -> str:
    """The ground of a field, of a tab, and of a row that is held in sight."""
    return app.theme_variables["field" if few_colours(app) else "panel"]


def css_variables(app: App[Any], variables: Mapping[str, str]) -> dict[str, str]:
    """A theme's variables, and those of the stylesheet that depend on the terminal.

    With 16 colours lanes have borders of their colours, and fields a ground that parts from the one around them.
    """
    quiet, few = variables["border-blurred"], few_colours(app)
    found = {"field": variables["surface"], **variables}
    if few:
        found |= VARIABLES_OF_16[app.current_theme.dark]
    return found | {f"{lane}-border": found[lane] if few else quiet for lane in ("lane-a", "lane-b")}


def palette(app: App[Any]) -> Palette:
    """The one for an app's theme and for the colours of its terminal."""
    dark = app.current_theme.dark
    if app.no_color:
        return DARK_GREYS if dark else LIGHT_GREYS
    if few_colours(app):
        return DARK_OF_16 if dark else LIGHT_OF_16
    return DARK if dark else LIGHT


def few_colours(app: App[Any]) -> bool:
    """Whether the terminal shows sixteen colours."""
    return not app.no_color and not app.is_headless and app.console.color_system in ("standard", "windows")


def surprise(judged: object, mode: str) -> int | None:
    """The bin of a token in a mode, from 0; `None` where it has no score."""
    probability = getattr(judged, "raw_probability", getattr(judged, "probability", None))
    rank, entropy = getattr(judged, "rank", None), getattr(judged, "entropy_bits", None)
    match mode:
        case "probability":
            value = None if probability is None else 1 - probability
        case "surprisal":
            value = None if probability is None else -math.log2(probability) if probability > 0 else math.inf
        case "rank":
            value = rank
        case "share" | "fall":
            value = getattr(judged, mode)
        case "kl" | "doubt":
            value = getattr(judged, mode, None)
        case _:
            value = entropy
    return None if value is None else SCALES[mode].bin(float(value))


def legend(mode: str, colours: Palette, *, short: bool = False) -> Text:
    """What the colours of a mode say, in one line; a `short` one does not name it."""
    named = "" if short else _(" colour: {mode}  ", mode=_(TITLES.get(mode, mode)))
    line = Text(named, no_wrap=True, overflow="ellipsis")
    for label, background in zip(SCALES[mode].labels, colours.bins(mode)):
        line.append(f" {_(label)} ", style=f"on {background}")
        line.append(" ")
    return line
