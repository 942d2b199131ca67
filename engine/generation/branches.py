"""The continuations a lane has written, as a tree that is never changed, only replaced: undo is keeping the old one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from engine.generation.config import GenerationConfig
from engine.generation.events import Beam, FinishReason, Stepped, Survived
from engine.generation.memory import common_prefix
from engine.text.token import Token

# Past so many branches, or steps in all of them, the oldest that nothing grew from is let go.
LIMIT = 64
STEPS_LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class Branch:
    """One continuation, whole.

    Attributes:
        parent: the branch it left; `None` for one that began at the prompt.
        fork: how many steps it shares with its parent.
        steps: all of them, the shared ones too.
        limit: at so many steps it ends.
        beam: which one of a beam search it is, without its ids.
        beams: the others of the search that wrote it which are no branches, without their ids.
    """

    id: int
    parent: int | None
    fork: int
    prompt: tuple[Token, ...]
    config: GenerationConfig
    limit: int
    steps: tuple[Stepped, ...] = ()
    reason: FinishReason | None = None
    prefill_seconds: float = 0.0
    beam: Beam | None = None
    beams: tuple[Beam, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(step.token.id for step in self.steps)

    def text(self, start: int = 0) -> str:
        """What is written from step `start` on."""
        return "".join(step.token.text for step in self.steps[start:])


@dataclass(frozen=True, slots=True)
class BranchTree:
    """All branches of one lane; `current` is the id of the one that is shown."""

    branches: tuple[Branch, ...] = ()
    current: int | None = None

    def __iter__(self) -> Iterator[Branch]:
        return iter(self.branches)

    @property
    def shown(self) -> Branch | None:
        return None if self.current is None else self.get(self.current)

    def get(self, id: int) -> Branch:
        """The branch of that id. Raises `KeyError`."""
        for branch in self.branches:
            if branch.id == id:
                return branch
        raise KeyError(id)

    def children(self, id: int | None) -> list[Branch]:
        return [branch for branch in self.branches if branch.parent == id]

    def begin(
        self,
        prompt: Sequence[Token],
        config: GenerationConfig,
        *,
        parent: int | None = None,
        fork: int = 0,
        forced: int = 0,
    ) -> "BranchTree":
        """With a new branch, which is shown: from the prompt, or from step `fork` of another one.

        Args:
            forced: how many tokens come before those that the configuration counts.
        """
        steps = self.get(parent).steps[:fork] if parent is not None else ()
        id = max((branch.id for branch in self.branches), default=0) + 1
        limit = len(steps) + forced + config.max_new_tokens
        tree = BranchTree((*self.branches, Branch(id, parent, fork, tuple(prompt), config, limit, steps)), id)
        while len(tree.branches) > LIMIT or sum(len(branch.steps) for branch in tree) > STEPS_LIMIT:
            smaller = tree._without_oldest()
            if smaller == tree:
                break
            tree = smaller
        return tree

    def update(self, branch: Branch) -> "BranchTree":
        """With a branch as it is now, in place of the one of the same id."""
        return replace(self, branches=tuple(branch if old.id == branch.id else old for old in self.branches))

    def search(self, branch: Branch, beams: Sequence[Beam], best: int, others: Sequence[Survived]) -> "BranchTree":
        """With a branch that a beam search wrote, as it is now, and with the search's other beams.

        Args:
            branch: in place of the one of the same id.
            beams: every beam there was.
            best: the number of the one that the branch is.
            others: those that survived become branches, which leave it.
        """
        bare = {beam.id: replace(beam, ids=()) for beam in beams}
        gone = tuple(beam for id, beam in bare.items() if id not in (best, *(one.beam for one in others)))
        tree = self.update(replace(branch, beam=bare[best], beams=gone))
        for one in others:
            steps = (*branch.steps[: one.steps[0].index], *one.steps)
            fork = common_prefix([step.token.id for step in steps], branch.ids)
            tree = tree.begin(branch.prompt, branch.config, parent=branch.id, fork=fork)
            new = tree.get(tree.current or 0)
            tree = tree.update(replace(new, steps=steps, limit=branch.limit, reason=one.reason, beam=bare[one.beam]))
        return tree.switch(branch.id)

    def switch(self, id: int) -> "BranchTree":
        """With another branch shown. Raises `KeyError`."""
        return replace(self, current=self.get(id).id)

    def delete(self, id: int) -> "BranchTree":
        """Without a branch; what left it now leaves its parent, and nothing of their text is lost."""
        gone = self.get(id)
        kept = tuple(
            replace(branch, parent=gone.parent, fork=min(branch.fork, gone.fork)) if branch.parent == id else branch
            for branch in self.branches
            if branch.id != id
        )
        current = self.current
        if current == id:
            current = gone.parent if gone.parent is not None else (kept[-1].id if kept else None)
        return BranchTree(kept, current)

    def _without_oldest(self) -> "BranchTree":
        for branch in self.branches:
            if branch.id != self.current and not self.children(branch.id):
                return self.delete(branch.id)
        return self


def parting(a: Sequence[Stepped], b: Sequence[Stepped]) -> int | None:
    """The first step at which two continuations differ; `None` while neither has left the other."""
    place = common_prefix([step.token.id for step in a], [step.token.id for step in b])
    return place if place < min(len(a), len(b)) else None


def parting_of_texts(a: Sequence[Stepped], b: Sequence[Stepped]) -> tuple[int, int] | None:
    """The step of each with which their texts part, whatever tokens they are cut into; `None` while neither has."""
    texts = ["".join(step.token.text for step in steps) for steps in (a, b)]
    place = common_prefix(*texts)
    if place == min(map(len, texts)):
        return None
    return step_at(a, place), step_at(b, place)


def step_at(steps: Sequence[Stepped], place: int) -> int:
    """The step that wrote the character at a place of the text, the last one where the text is shorter."""
    for index, step in enumerate(steps):
        place -= len(step.token.text)
        if place < 0:
            return index
    return max(0, len(steps) - 1)


@dataclass(frozen=True, slots=True)
class Shared:
    """A stretch of tokens that `count` continuations have in common, and how they go on."""

    tokens: tuple[Token, ...]
    count: int
    members: tuple[int, ...]
    following: "tuple[Shared, ...]"

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


def merged(sequences: Sequence[Sequence[Token]], members: Sequence[int] | None = None, start: int = 0) -> list[Shared]:
    """Continuations with what they share printed once, the most frequent first.

    Args:
        members: which of the sequences; all when `None`.
        start: the token to begin at; those before it are the same in all.
    """
    members = list(range(len(sequences))) if members is None else members
    groups: dict[int, list[int]] = {}
    for member in members:
        if start < len(sequences[member]):
            groups.setdefault(sequences[member][start].id, []).append(member)
    nodes = []
    for group in groups.values():
        first = sequences[group[0]]
        ids = [[token.id for token in sequences[member][start:]] for member in group]
        end = start + min(common_prefix(ids[0], other) for other in ids)
        nodes.append(Shared(tuple(first[start:end]), len(group), tuple(group), tuple(merged(sequences, group, end))))
    return sorted(nodes, key=lambda node: -node.count)
