"""Beam search: the most probable whole texts, as far as a few of them followed at once can find them.

Each round every running beam is continued with every token, and the best continuations by the sum of their tokens'
log-probabilities go on (Lowerre 1976). What ends is kept by that sum over its length to the power of `length_penalty`
(Wu et al. 2016, without their constant, as transformers has it), and the best of it is the text.

Definition, order and the three ways to stop early are those of transformers' `generate(num_beams=…)`, which the tests
use as the oracle. The stages of the configuration act on log-probabilities, not on logits, and what they leave is not
made to sum to one again; so it is there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.generation.config import GenerationConfig
from engine.generation.events import Beam, BeamState, FinishReason

NOTHING = -1e9  # the score of a place that holds no beam


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One token of a beam.

    Attributes:
        row: log-probabilities that it was picked from, `[vocabulary]`, before the stages.
        beam: the number of the beam that it belongs to: of several continuations of one, the best keeps the number.
        score: the sum up to it.
    """

    id: int
    parent: "Node | None"
    row: Tensor
    beam: int
    score: float

    @property
    def path(self) -> "list[Node]":
        """The beam's nodes from its first on."""
        found: list[Node] = []
        node: Node | None = self
        while node is not None:
            found.append(node)
            node = node.parent
        return found[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """A beam that ended, and its sum over its length to the power of the length penalty."""

    node: Node
    score: float
    reason: FinishReason


class BeamSearch:
    """The search, one round after the other, without a network.

    Args:
        config: its `beams`, `length_penalty` and `early_stopping`.
        ends: how many kinds of tokens end a text.
        length: tokens of a text at most.
    """

    def __init__(self, config: GenerationConfig, ends: int, length: int) -> None:
        self._config = config
        self._kept = max(2, 1 + ends) * config.beams
        self._length = length
        self._scores = torch.full((config.beams,), NOTHING)
        self._scores[0] = 0.0
        self.running: list[Node | None] = [None] * config.beams
        self.ended: list[Ended] = []
        self.known: dict[int, Beam] = {}  # every beam there was, by its number, as it was last
        self.rounds = 0
        self.over = False
        self._improvable = True

    @property
    def best(self) -> Node | None:
        """The best text that ended, else the best that runs."""
        return self.ended[0].node if self.ended else self.running[0]

    @property
    def others(self) -> list[tuple[Node, FinishReason]]:
        """The texts beside the best, as many as there are beams with it: those that ended, then those that run.

        Each with why it ends.
        """
        ended = [(one.node, one.reason) for one in self.ended]
        running: list[tuple[Node, FinishReason]] = [
            (node, "cancelled")
            for node in self.running
            if node is not None and node.beam in self.known and self.known[node.beam].state == "running"
        ]
        found = [(node, reason) for node, reason in (*ended, *running) if node is not self.best]
        return found[: self._config.beams - 1]

    def advance(
        self, rows: Tensor, scores: Tensor, why: Callable[[Node | None, int], FinishReason | None]
    ) -> list[int]:
        """One round.

        Args:
            rows: log-probabilities of each running beam's next token, `[beams, vocabulary]`.
            scores: what the stages made of them, likewise.
            why: the reason for which a token ends a beam, if it does.

        Returns:
            Of each beam that goes on, the place of the one that it continues.
        """
        vocabulary = rows.shape[1]
        top = (scores + self._scores[:, None]).flatten().topk(min(self._kept, scores.numel()))
        self.rounds += 1
        before = list(self.running)
        found = []
        for score, place in zip(top.values.tolist(), top.indices.tolist()):
            parent = place // vocabulary
            node = Node(place % vocabulary, before[parent], rows[parent], -1, score)
            found.append((node, parent, why(before[parent], node.id)))
        # A continuation that ends does not go on, and ends only among the best.
        going = sorted(
            ((node, parent, reason) for node, parent, reason in found),
            key=lambda one: one[0].score + NOTHING * (one[2] is not None),
            reverse=True,
        )[: self._config.beams]
        stopped = all(reason is not None for _node, _parent, reason in found)
        finishing = [one for one in found[: self._config.beams] if one[2] is not None]
        parents = [parent for _node, parent, _reason in going]
        named = self._named(
            [*((n, p) for n, p, reason in going if reason is None), *((n, p) for n, p, _r in finishing)]
        )
        self.running = [named.get(id(node), node) for node, _parent, _reason in going]
        self._scores = torch.tensor([node.score + NOTHING * (r is not None) for node, _p, r in going])
        self._finish([(named[id(node)], reason) for node, _parent, reason in finishing if reason is not None])
        self._bury(before, [(named[id(n)], p) for n, p, _r in (*going, *finishing) if id(n) in named])
        self._improvable = self._improvable and self._may_improve()
        full = self._is_full() and self._config.early_stopping == "yes"
        self.over = stopped or full or not self._improvable
        return parents

    def _is_full(self) -> bool:
        return len(self.ended) == self._config.beams

    def _finish(self, new: Sequence[tuple[Node, FinishReason]]) -> None:
        """Keep the best of what has ended."""
        if not self._improvable or (self._is_full() and self._config.early_stopping == "yes"):
            return
        over = self.rounds**self._config.length_penalty
        scored = [Ended(node, float(torch.tensor(node.score) / over), reason) for node, reason in new]
        self.ended = sorted([*self.ended, *scored], key=lambda one: one.score, reverse=True)[: self._config.beams]

    def _may_improve(self) -> bool:
        """Whether the best running beam may still become better than the worst that ended."""
        longest = self._config.early_stopping == "never" and self._config.length_penalty > 0
        length = self._length if longest else self.rounds
        possible = self._scores[0] / length**self._config.length_penalty
        return bool(possible > (self.ended[-1].score if self._is_full() else NOTHING))

    # For watchers.

    def _named(self, nodes: Sequence[tuple[Node, int]]) -> dict[int, Node]:
        """Continuations with the numbers of their beams: the best of a beam's keeps its number."""
        found: dict[int, Node] = {}
        taken: set[int] = set()
        for node, _parent in sorted(nodes, key=lambda one: one[0].score, reverse=True):
            if id(node) in found:
                continue
            beam = node.parent.beam if node.parent is not None else 0
            origin: int | None = beam
            if beam in taken or beam not in self.known:
                origin = beam if beam in self.known and node.parent is not None else None
                beam = len(self.known)
                self.known[beam] = Beam(beam, origin, self.rounds - 1, (), node.score)
            taken.add(beam)
            found[id(node)] = replace(node, beam=beam)
        return found

    def _bury(self, before: Sequence[Node | None], after: Sequence[tuple[Node, int]]) -> None:
        """Bring what is known of beams up to date; one that nothing continues has died by the last that goes on."""
        ended = {one.node.beam: one for one in self.ended}
        for node, _parent in after:
            ids = tuple(one.id for one in node.path)
            was = self.known[node.beam]
            score = ended[node.beam].score if node.beam in ended and ended[node.beam].node is node else node.score
            state: BeamState = "ended" if node.beam in ended and ended[node.beam].node is node else "running"
            self.known[node.beam] = replace(was, ids=ids, score=score, state=state)
        alive = {node.beam for node, _parent in after}
        last = min((node for node, _parent in after), key=lambda node: node.score, default=None)
        for gone in before:
            if gone is None or gone.beam in alive or gone.beam not in self.known:
                continue
            if self.known[gone.beam].state == "running":
                by = None if last is None else last.beam
                self.known[gone.beam] = replace(self.known[gone.beam], state="died", by=by, died=self.rounds)
