"""What is remembered stays within bounds."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.generation.memory import LaneState, LogitsMemory, StateMemory, common_prefix


@dataclass
class NoCache:
    """A stand-in where nobody looks at the keys and values."""


def state(ids: list[int], *, hidden: bool = False) -> LaneState:
    return LaneState(tuple(ids), NoCache(), torch.zeros(1) if hidden else None)  # type: ignore[arg-type]


def test_the_oldest_logits_are_let_go() -> None:
    memory = LogitsMemory(limit=3 * 400)
    kept = [memory.keep(torch.full((100,), float(index))) for index in range(5)]
    assert [one.row is None for one in kept] == [True, True, False, False, False]
    assert memory.bytes == 3 * 400
    assert float(kept[4].row[0]) == 4.0  # type: ignore[index]


def test_the_newest_logits_stay_however_large() -> None:
    memory = LogitsMemory(limit=10)
    assert memory.keep(torch.zeros(100)).row is not None


def test_the_state_that_knows_most_is_found() -> None:
    memory = StateMemory()
    for ids in ([1, 2], [1, 2, 3, 4], [9]):
        memory.keep(state(ids))
    found = memory.find([1, 2, 3, 7], hidden=False)
    assert found is not None
    assert found.ids == (1, 2, 3, 4)
    assert memory.find([5, 6], hidden=False) is None
    assert memory.find([1, 2], hidden=True) is None
    memory.keep(state([1], hidden=True))
    found = memory.find([1, 2], hidden=True)
    assert found is not None
    assert found.ids == (1,)


def test_the_state_unused_for_longest_is_let_go() -> None:
    memory = StateMemory(limit=2)
    memory.keep(state([1]))
    memory.keep(state([2]))
    assert memory.find([1], hidden=False) is not None
    memory.keep(state([3]))
    assert memory.find([2], hidden=False) is None
    assert memory.find([1], hidden=False) is not None


@pytest.mark.parametrize(
    ("a", "b", "length"), [((), (), 0), ((1,), (), 0), ((1, 2), (1, 2, 3), 2), ((1, 2), (1, 3), 1)]
)
def test_common_prefixes(a: tuple[int, ...], b: tuple[int, ...], length: int) -> None:
    assert common_prefix(a, b) == length


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_a_common_prefix_is_common_and_cannot_be_longer(a: list[int], b: list[int]) -> None:
    length = common_prefix(a, b)
    assert a[:length] == b[:length]
    assert a[: length + 1] != b[: length + 1] or length == min(len(a), len(b))
