"""When a wide contrastive search is said to be wild."""

from dataclasses import replace

import pytest

from engine.generation.branches import Branch
from engine.generation.config import PRESETS
from engine.generation.events import Stepped
from engine.generation.wide import improbable, let_in
from engine.text.token import Token


def step(index: int, rank: int | None, *, forced: bool = False) -> Stepped:
    token = Token(index, 1, "a", "a", 0, 1, "a")
    return Stepped(0, index, token, (), 0.5, 0.5, rank, 1.0, 1.0, 1, 0.0, 0.0, forced)


def branch(preset: str, ranks: list[int | None], *, fork: int = 0, top_k: int | None = None) -> Branch:
    config = PRESETS[preset] if top_k is None else replace(PRESETS[preset], top_k=top_k)
    steps = tuple(step(index, rank) for index, rank in enumerate(ranks))
    return Branch(0, None, fork, (), config, 40, steps)


def test_tokens_below_the_fourth_rank_are_counted_but_not_a_persons_own() -> None:
    assert improbable([step(0, 4), step(1, 5), step(2, 39), step(3, None), step(4, 9, forced=True)]) == 2


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (branch("creative", [1, 7, 30, 2]), (2, 4)),
        (branch("creative", [9, 9, 1, 7], fork=2), (1, 2)),  # the beginning is another branch's
        (branch("creative", [1] * 10 + [5]), None),  # one of eleven is not wild
        (branch("creative", []), None),
        (branch("creative", [1, 7], top_k=10), None),
        (branch("creative", [1, 7], top_k=11), (1, 2)),
        (branch("contrastive", [1, 4]), None),
        (branch("sampled", [1, 7], top_k=40), None),
    ],
)
def test_a_wide_search_is_wild_where_it_let_in_improbable_tokens(
    found: Branch, expected: tuple[int, int] | None
) -> None:
    assert let_in(found) == expected
