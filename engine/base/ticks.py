"""Round numbers along an axis: steps of 1, 2 or 5 times a power of ten."""

import math
from dataclasses import dataclass
from fractions import Fraction

FEWEST = 3  # a range around zero needs a tick on each side of it, and zero


@dataclass(frozen=True, slots=True)
class Ticks:
    """Multiples of one step that cover a range.

    Attributes:
        values: growing; the first is not above the range's least value, the last not below its greatest.
        step: 1, 2 or 5 times a power of ten.
    """

    values: tuple[float, ...]
    step: Fraction

    @property
    def labels(self) -> tuple[str, ...]:
        """All with as many decimals as the step has.

        >>> ticks(0, 0.58, 7).labels
        ('0.0', '0.1', '0.2', '0.3', '0.4', '0.5', '0.6')
        """
        decimals = max(0, -_exponent(self.step))
        return tuple(f"{value:,.{decimals}f}" for value in self.values)


def ticks(least: float, greatest: float, most: int, *, whole: bool = False) -> Ticks:
    """The finest ticks that cover `least` to `greatest`, at most `most` of them (`FEWEST` where it asks for fewer).

    A range of one value is taken together with zero, and that of zero alone up to one.

    Args:
        whole: of things that are counted: no step is below one.
    """
    if least == greatest:
        least, greatest = (min(0.0, least), max(0.0, greatest)) if least else (0.0, 1.0)
    low, high, most = Fraction(least), Fraction(greatest), max(FEWEST, most)
    exponent = math.floor(math.log10((high - low) / (most - 1))) - 1
    if whole:
        exponent = max(0, exponent)
    while True:
        for times in (1, 2, 5):
            step = times * Fraction(10) ** exponent
            first, last = math.floor(low / step), math.ceil(high / step)
            if last - first < most:
                return Ticks(tuple(float(place * step) for place in range(first, last + 1)), step)
        exponent += 1


def _exponent(step: Fraction) -> int:
    """The power of ten in a step."""
    return math.floor(math.log10(step) + 1e-9)
