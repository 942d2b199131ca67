"""Ticks are round, cover what they are for, and have room."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.ticks import FEWEST, ticks

numbers = st.floats(-1e12, 1e12, allow_subnormal=False).filter(lambda value: value == 0 or abs(value) > 1e-12)


def is_round(step: Fraction) -> bool:
    """Whether it is 1, 2 or 5 times a power of ten: digits and nothing but zeros."""
    exponent = math.floor(math.log10(step) + 1e-9)
    return step / Fraction(10) ** exponent in (1, 2, 5)


@given(numbers, numbers, st.integers(0, 40), st.booleans())
def test_steps_are_1_2_or_5_times_a_power_of_ten_cover_the_range_and_have_room(
    one: float, other: float, most: int, whole: bool
) -> None:
    least, greatest = min(one, other), max(one, other)
    found = ticks(least, greatest, most, whole=whole)
    assert is_round(found.step)
    assert found.values[0] <= least
    assert greatest <= found.values[-1]
    assert 2 <= len(found.values) <= max(FEWEST, most)
    assert all(value == float(round(Fraction(value) / found.step) * found.step) for value in found.values)
    assert all(before < after for before, after in pairwise(found.values))
    if whole:
        assert all(value.is_integer() for value in found.values)
    labels = [float(label.replace(",", "")) for label in found.labels]
    assert labels == pytest.approx(found.values)
    assert len(set(found.labels)) == len(found.labels)


@given(st.floats(1e-6, 1e6), st.integers(3, 30))
def test_no_finer_round_step_would_have_room(greatest: float, most: int) -> None:
    step = ticks(0, greatest, most).step
    digit = step / Fraction(10) ** math.floor(math.log10(step) + 1e-9)
    finer = step * {1: Fraction(1, 2), 2: Fraction(1, 2), 5: Fraction(2, 5)}[int(digit)]
    assert math.ceil(Fraction(greatest) / finer) + 1 > most


@pytest.mark.parametrize(
    ("least", "greatest", "most", "labels"),
    [
        (0, 0.58, 5, ("0.0", "0.2", "0.4", "0.6")),
        (0, 60, 7, ("0", "10", "20", "30", "40", "50", "60")),
        (0, 0, 5, ("0.0", "0.5", "1.0")),
        (0, 2500, 4, ("0", "1,000", "2,000", "3,000")),
        (-1, 1, 3, ("-1", "0", "1")),
        (0.1, 0.3, 3, ("0.1", "0.2", "0.3")),
    ],
)
def test_ticks_of_known_ranges(least: float, greatest: float, most: int, labels: tuple[str, ...]) -> None:
    assert ticks(least, greatest, most).labels == labels
