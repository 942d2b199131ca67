"""The tree of continuations, and what they share."""

from hypothesis import given
from hypothesis import strategies as st

from engine.generation.branches import LIMIT, STEPS_LIMIT, BranchTree, merged, parting
from engine.generation.config import GenerationConfig
from engine.generation.events import Stepped
from engine.text.token import Token
from tui.panes.lane_states import History

CONFIG = GenerationConfig()


def token(id: int) -> Token:
    return Token(0, id, f"{id} ", f"{id} ", 0, 0, f"{id}")


def steps(*ids: int) -> tuple[Stepped, ...]:
    return tuple(Stepped(0, index, token(id), (), 1.0, 1.0, 1, 0.0, 0.0, 1, 0.0, 0.0) for index, id in enumerate(ids))


def written(tree: BranchTree, *ids: int) -> BranchTree:
    """The shown branch, having written these."""
    from dataclasses import replace

    assert tree.shown is not None
    return tree.update(replace(tree.shown, steps=steps(*ids)))


def test_a_branch_begins_with_its_parents_steps() -> None:
    tree = written(BranchTree().begin((), CONFIG), 1, 2, 3)
    forked = tree.begin((), CONFIG, parent=1, fork=2)
    assert forked.shown is not None
    assert forked.shown.ids == (1, 2)
    assert tree.current == 1
    assert [branch.id for branch in forked.children(1)] == [2]


def test_deleting_a_parent_keeps_the_childrens_text() -> None:
    tree = written(BranchTree().begin((), CONFIG), 1, 2, 3)
    tree = written(tree.begin((), CONFIG, parent=1, fork=2), 1, 2, 9)
    tree = written(tree.begin((), CONFIG, parent=2, fork=3), 1, 2, 9, 8)
    tree = tree.delete(2)
    assert [(branch.id, branch.parent, branch.fork, branch.ids) for branch in tree] == [
        (1, None, 0, (1, 2, 3)),
        (3, 1, 2, (1, 2, 9, 8)),
    ]
    assert tree.current == 3
    assert tree.delete(3).current == 1
    assert tree.delete(1).delete(3).current is None


def test_the_tree_does_not_grow_without_end() -> None:
    tree = BranchTree()
    for _ in range(LIMIT + 10):
        tree = written(tree.begin((), CONFIG), 1)
    assert len(tree.branches) == LIMIT
    assert tree.shown is not None


def test_the_steps_of_a_tree_are_bounded_but_never_those_that_are_shown() -> None:
    long = tuple(range(STEPS_LIMIT // 3))
    tree = BranchTree()
    for _ in range(5):
        tree = written(tree.begin((), CONFIG), *long)
    assert 2 <= len(tree.branches) <= 4
    huge = written(BranchTree().begin((), CONFIG), *range(STEPS_LIMIT + 5))
    forked = huge.begin((), CONFIG, parent=1, fork=STEPS_LIMIT + 1)
    assert len(forked.branches) == 2


def test_where_continuations_part() -> None:
    assert parting(steps(1, 2, 3), steps(1, 2, 4)) == 2
    assert parting(steps(1, 2), steps(1, 2, 4)) is None
    assert parting((), steps(1)) is None


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=8))
def test_merging_loses_no_continuation(sequences: list[list[int]]) -> None:
    nodes = merged([[token(id) for id in ids] for ids in sequences])

    def paths(node, before):  # type: ignore[no-untyped-def]
        ids = [*before, *(one.id for one in node.tokens)]
        ending = node.count - sum(child.count for child in node.following)
        assert len(node.members) == node.count
        assert len({child.tokens[0].id for child in node.following}) == len(node.following)
        return [ids] * ending + [path for child in node.following for path in paths(child, ids)]

    assert sorted(path for node in nodes for path in paths(node, [])) == sorted(sequences)


@given(st.lists(st.one_of(st.integers(0, 9), st.sampled_from(["undo", "redo"])), max_size=30))
def test_undo_and_redo_walk_the_same_states(moves: list[int | str]) -> None:
    history: History[int] = History(0)
    past, future = [0], []  # the model: a list with a place in it
    for move in moves:
        if move == "undo":
            assert (history.undo() is None) == (len(past) == 1)
            if len(past) > 1:
                future.append(past.pop())
        elif move == "redo":
            assert (history.redo() is None) == (not future)
            if future:
                past.append(future.pop())
        elif move != past[-1]:
            history.push(move, "a move")  # type: ignore[arg-type]
            past.append(move)  # type: ignore[arg-type]
            future = []
        assert history.state == past[-1]
