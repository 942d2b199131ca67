"""What undo goes back over: the lanes' configurations and branches, as states that are never changed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from engine.base.language import _
from engine.generation.branches import Branch, BranchTree
from engine.generation.config import GenerationConfig
from engine.generation.events import Stepped
from engine.text.token import Token

NAMES = "AB"

S = TypeVar("S")
T = TypeVar("T")


class History(Generic[S]):
    """The states that were, and those that were undone."""

    LIMIT = 50

    def __init__(self, state: S) -> None:
        self._past: list[tuple[S, str]] = []
        self._future: list[tuple[S, str]] = []
        self.state = state

    def push(self, state: S, what: str) -> None:
        """Go on to another state; `what` says in a few words how it came about."""
        if state == self.state:
            return
        self._past = [*self._past, (self.state, what)][-self.LIMIT :]
        self._future = []
        self.state = state

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        return bool(self._future)

    def undo(self) -> str | None:
        """Go back one state; what was undone, or `None` at the beginning."""
        if not self._past:
            return None
        state, what = self._past.pop()
        self._future.append((self.state, what))
        self.state = state
        return what

    def redo(self) -> str | None:
        """Go forward again; what was done again, or `None` at the end."""
        if not self._future:
            return None
        state, what = self._future.pop()
        self._past.append((self.state, what))
        self.state = state
        return what


State = tuple[tuple[GenerationConfig, ...], tuple[BranchTree, ...]]


class LaneStates:
    """The lanes' configurations and branches, and every change of them that undo goes back over."""

    def __init__(self, configs: Sequence[GenerationConfig], trees: Sequence[BranchTree] | None = None) -> None:
        branches = tuple(BranchTree() for _config in configs) if trees is None else tuple(trees)
        self._history: History[State] = History((tuple(configs), branches))

    @property
    def configs(self) -> tuple[GenerationConfig, ...]:
        return self._history.state[0]

    @property
    def trees(self) -> tuple[BranchTree, ...]:
        return self._history.state[1]

    @property
    def can_undo(self) -> bool:
        return self._history.can_undo

    @property
    def can_redo(self) -> bool:
        return self._history.can_redo

    def undo(self) -> str | None:
        """Go back one state; what was undone, or `None` at the beginning."""
        return self._history.undo()

    def redo(self) -> str | None:
        """Go forward again; what was done again, or `None` at the end."""
        return self._history.redo()

    def configure(self, lane: int, config: GenerationConfig) -> bool:
        """Another configuration for a lane; False if it is the one it has."""
        if config == self.configs[lane]:
            return False
        what = _("the settings of lane {lane}", lane=NAMES[lane])
        self._history.push((_replaced(self.configs, lane, config), self.trees), what)
        return True

    def begin(self, prompts: Sequence[Sequence[Token]], lanes: Sequence[int] = (0, 1)) -> tuple[BranchTree, ...]:
        """The trees with an empty branch in each, for a run from prompts; they count once it is settled.

        Args:
            prompts: one for each lane.
            lanes: those that run.
        """
        return tuple(
            tree.begin(prompt, config) if lane in lanes else tree
            for lane, (tree, prompt, config) in enumerate(zip(self.trees, prompts, self.configs))
        )

    def branch(self, lane: int, index: int, forced: int) -> tuple[BranchTree, ...]:
        """The trees with a branch of the one that a lane shows, from a step on; they count once it is settled.

        Args:
            forced: how many tokens are given there.
        """
        shown = self._shown(lane)
        tree = self.trees[lane].begin(shown.prompt, self.configs[lane], parent=shown.id, fork=index, forced=forced)
        return _replaced(self.trees, lane, tree)

    def settle(self, trees: tuple[BranchTree, ...], what: str) -> None:
        """A run has written into these trees."""
        self._history.push((self.configs, trees), what)

    def change(self, lane: int, tree: BranchTree) -> None:
        """A lane's branches were deleted, or another one is shown."""
        what = _("the change of lane {lane}'s branches", lane=NAMES[lane])
        self._history.push((self.configs, _replaced(self.trees, lane, tree)), what)

    def adopt(self, lane: int, index: int, steps: Sequence[Stepped]) -> None:
        """Make a continuation that was drawn from a step of a lane one of its branches."""
        begun = self.branch(lane, index, 0)
        branch = begun[lane].shown
        assert branch is not None
        whole = (*branch.steps, *(replace(step, lane=lane) for step in steps))
        tree = begun[lane].update(replace(branch, steps=whole, reason="length", limit=len(whole)))
        self._history.push((self.configs, _replaced(begun, lane, tree)), _("the sampled branch"))

    def begin_anew(self) -> None:
        """The lab has another model: its tokens are others, so the branches and biases of lanes that name none end.

        There is nothing to undo, for that would bring them back.
        """
        lanes = [
            (config, tree) if is_others(config, tree) else (replace(config, logit_bias=(), banned=()), BranchTree())
            for config, tree in zip(self.configs, self.trees)
        ]
        self._history = History((tuple(config for config, _tree in lanes), tuple(tree for _config, tree in lanes)))

    def _shown(self, lane: int) -> Branch:
        branch = self.trees[lane].shown
        assert branch is not None
        return branch


def compared(ran: GenerationConfig, other: GenerationConfig, intervention: str) -> GenerationConfig:
    """The settings of one lane for another to be compared with it: one thing more is done to the model, or no longer.

    Args:
        ran: the one's.
        other: those that the other has; what it does is kept where all else is the same.
    """
    alike = replace(other, name=ran.name, interventions=()) == replace(ran, interventions=())
    done = other.interventions if alike else ran.interventions
    if intervention in done:
        return replace(ran, name="custom", interventions=tuple(one for one in done if one != intervention))
    return replace(ran, name="custom", interventions=(*done, intervention))


def is_others(config: GenerationConfig, tree: BranchTree) -> bool:
    """Whether nothing of a lane comes from the lab's model: it and all that it has written name another."""
    return config.model is not None and all(branch.config.model is not None for branch in tree)


def _replaced(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    return tuple(item if place == index else old for place, old in enumerate(items))
