"""Whose turn it is: time divides as promised, whatever steps cost, and none makes up for time before it was there."""

import gc
import weakref
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.generation.fair import MOST, Turns


def shares(costs: Mapping[str, float], names: str = "ab", each: int = 40) -> dict[str, float]:
    """Each one's part of the time, from when all costs are known until each has had `each` turns."""
    fair: Turns[str] = Turns()
    had: Counter[str] = Counter()
    used = dict.fromkeys(names, 0.0)
    while min(had[name] for name in names) < each:
        assert had.total() < 1_000_000, "one has all turns"
        name = fair.next(names)
        fair.took(name, costs[name])
        had[name] += 1
        if min(had[name] for name in names) > 2:
            used[name] += costs[name]
    return {name: used[name] / sum(used.values()) for name in names}


@pytest.mark.parametrize(
    ("dear", "expected"), [(1, 1 / 2), (4, 2 / 3), (10, 0.76), (100, 10 / 11)], ids=["equal", "4×", "10×", "100×"]
)
@pytest.mark.parametrize("unit", [1e-4, 1.0, 30.0])
def test_the_time_divides_by_the_root_of_what_a_step_costs(dear: float, expected: float, unit: float) -> None:
    for names in ("ab", "ba"):  # the order they wait in does not matter
        assert shares({"a": unit, "b": dear * unit}, names)["a"] == pytest.approx(expected, abs=0.02)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.02, 1.0), min_size=2, max_size=5))
def test_the_time_divides_so_among_any_number(costs: list[float]) -> None:
    names = "abcde"[: len(costs)]
    got = shares(dict(zip(names, costs)), names)
    whole = sum(cost**-0.5 for cost in costs)
    assert got == pytest.approx({name: cost**-0.5 / whole for name, cost in zip(names, costs)}, abs=0.03)


def test_equal_ones_take_turns() -> None:
    fair: Turns[str] = Turns()
    order = []
    for _turn in range(12):
        order.append(fair.next("ab"))
        fair.took(order[-1], 0.5)
    assert order == ["a", "b"] * 6


def test_a_cost_that_changes_is_followed() -> None:
    """The first half of the steps is equal; then those of a cost a ninth: of the second half it has three quarters."""
    fair: Turns[str] = Turns()
    used: Counter[str] = Counter()
    for number in range(8_000):
        name = fair.next("ab")
        seconds = 9.0 if name == "b" or number < 4_000 else 1.0
        fair.took(name, seconds)
        if number >= 4_000:
            used[name] += seconds  # type: ignore[assignment]
    assert used["a"] / used.total() == pytest.approx(3 / 4, abs=0.02)


def turns_until(fair: Turns[str], wanted: str, costs: Mapping[str, float], waiting: str = "ab") -> int:
    """How many turns others have before one has its own."""
    for count in range(1_000):
        name = fair.next(waiting)
        fair.took(name, costs[name])
        if name == wanted:
            return count
    raise AssertionError(wanted)


@pytest.mark.parametrize("number", [0, 100])
def test_a_step_that_something_held_up_does_not_shut_its_lane_out(number: int) -> None:
    """The first step warms the network up, and a later one may wait for another program: a thousand times as long."""
    fair: Turns[str] = Turns()
    costs = {"a": 1.0, "b": 10.0}
    for _turn in range(number):
        name = fair.next("ab")
        fair.took(name, costs[name])
    while (name := fair.next("ab")) != "a":
        fair.took(name, costs[name])
    fair.took("a", 1_000.0)
    assert turns_until(fair, "a", costs) <= 1
    assert turns_until(fair, "a", costs) <= MOST


@pytest.mark.parametrize("away", ["new", "back"])
def test_who_was_not_there_makes_up_for_nothing(away: str) -> None:
    fair: Turns[str] = Turns()
    costs = {"a": 1.0, "b": 1.0}
    if away == "back":
        for _turn in range(100):
            name = fair.next("ab")
            fair.took(name, costs[name])
    for _turn in range(10_000):
        fair.took(fair.next("a"), 1.0)
    order = []
    for _turn in range(40):
        order.append(fair.next("ab"))
        fair.took(order[-1], 1.0)
    assert 20 <= order.count("b") <= 22  # half, and its first two, which nothing is known of
    assert "aaa" not in "".join(order)


def test_who_has_gone_is_held_no_longer() -> None:
    class Held:
        pass

    fair: Turns[Held] = Turns()
    stays, goes = Held(), Held()
    gone = weakref.ref(goes)
    for _turn in range(6):
        fair.took(fair.next([stays, goes]), 1.0)
    del goes
    fair.next([stays])
    gc.collect()
    assert gone() is None


def test_a_clock_that_stands_still_shuts_nobody_out() -> None:
    fair: Turns[str] = Turns()
    order = []
    for _turn in range(40):
        order.append(fair.next("ab"))
        fair.took(order[-1], 0.0)
    assert order.count("a") == order.count("b") == 20
    for _turn in range(400):  # and then it goes
        order.append(fair.next("ab"))
        fair.took(order[-1], {"a": 1.0, "b": 10.0}[order[-1]])
    assert 5 < order[40:].count("b") < 60
