"""What the colour of a token says: its family, or how much it surprised the model."""

import math
from dataclasses import dataclass
from typing import Protocol

from rich.text import Text

from engine.language import N_, _

MODES = (N_("tokens"), N_("probability"), N_("rank"), N_("entropy"), N_("surprisal"))


class Judged(Protocol):
    """A token with its place in the distribution it came from; `None` where it has none."""

    @property
    def rank(self) -> int | None: ...

    @property
    def entropy_bits(self) -> float | None: ...


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
}

# From calm to surprised: hue and lightness both change, so that they part without colour vision too.
DARK = {4: ("#1d5c3a", "#6b6410", "#8f2f2a", "#64379c"), 5: ("#1b3f66", "#1d6660", "#75660f", "#96451a", "#8d1f4f")}
LIGHT = {4: ("#bfe8cb", "#f3e59a", "#f6b9b0", "#d9c2f7"), 5: ("#c9e0f7", "#b9e8df", "#f2e6a0", "#f8c9a0", "#f5b0c4")}


def surprise(judged: object, mode: str) -> int | None:
    """The bin of a token in a mode, from 0; `None` where it has no score."""
    probability = getattr(judged, "raw_probability", getattr(judged, "probability", None))
    rank, entropy = getattr(judged, "rank", None), getattr(judged, "entropy_bits", None)
    if probability is None or rank is None or entropy is None:
        return None
    value = {
        "probability": 1 - probability,
        "rank": float(rank),
        "entropy": entropy,
        "surprisal": -math.log2(probability) if probability > 0 else math.inf,
    }[mode]
    return SCALES[mode].bin(value)


def background(bin: int, mode: str, *, dark: bool) -> str:
    """The colour of a bin."""
    count = len(SCALES[mode].labels)
    return (DARK if dark else LIGHT)[count][bin]


def legend(mode: str, *, dark: bool) -> Text:
    """What the colours of a mode say, in one line."""
    if mode == "tokens":
        return Text(_(" colour parts neighbouring tokens · c colours by surprise"), style="dim", no_wrap=True)
    line = Text(_(" colour: {mode}  ", mode=_(mode)), no_wrap=True, overflow="ellipsis")
    for bin, label in enumerate(SCALES[mode].labels):
        line.append(f" {label} ", style=f"on {background(bin, mode, dark=dark)}")
        line.append(" ")
    return line
