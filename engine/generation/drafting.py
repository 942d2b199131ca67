"""A lane with a draft as it goes on: each step is one token, and a forward brings the logits of several."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.base.errors import Cancelled
from engine.base.language import _
from engine.generation.config import LOOKUP
from engine.generation.constraint import Constraint
from engine.generation.distribution import Distribution, distribution
from engine.generation.drafts import Guess, Lookup, Proposer, Second, sampled_verdict
from engine.generation.events import Draft, DraftOutcome, Event, Finished
from engine.generation.intervening import Treated
from engine.generation.lanes import Batch, Lane, Pick, begin_cache, keep_states, pick_one, takes_several
from engine.generation.memory import LaneState
from engine.generation.stages.order import reads_text
from engine.generation.strategies import draw
from engine.generation.telling import Telling, stepped
from engine.networks.network import Cache
from engine.text.tokenizer import Tokenizer

CHUNK = 512
MOST_CERTAIN = 64  # tokens in one forward, each with its logits


@dataclass(frozen=True, eq=False)
class Waiting:
    """A position whose logits are known, `[vocabulary]`, and what is guessed to stand there.

    Attributes:
        guess: `None` where nothing was guessed.
        forward: whether it is the first of its forward.
        drafted: guesses that went through with it, where it is the first.
        behind: whether guesses stand before it in its forward.
    """

    logits: Tensor
    guess: Guess | None
    forward: bool
    drafted: int = 0
    behind: bool = False


def why_no_draft() -> str:
    """In one sentence why a lane goes on without its draft."""
    return _("no draft: the model, or the draft, cannot take tokens back without reading the whole text again")


class Certain:
    """What a lane's grammar leaves no choice about: these tokens go through in one forward. Else another's guesses."""

    always = False

    def __init__(self, constraint: Constraint, inner: Proposer | None) -> None:
        self._constraint = constraint
        self._inner = inner

    def propose(self, ids: Sequence[int], most: int) -> list[Guess]:
        if certain := self._constraint.forced()[: min(most, MOST_CERTAIN)]:
            return [Guess(id, certain=True) for id in certain]
        return [] if self._inner is None else self._inner.propose(ids, most)

    def learn(self, guessed: int, stayed: int) -> None:
        if self._inner is not None:
            self._inner.learn(guessed, stayed)


def proposer_of(lane: Lane, cache: Cache, tokenizer: Tokenizer, cancelled: Callable[[], bool]) -> Proposer | None:
    """What is known or guessed of the tokens that a lane's model has not seen yet. Raises `Cancelled`.

    Returns:
        `None` where it has neither draft nor grammar, or its model, of whose text `cache` is, cannot go back.
    """
    if not cache.takes_drafts or not takes_several(lane.config):
        return None
    guessing = None if lane.config.draft is None else _guessing(lane, tokenizer, cancelled)
    if lane.constraint is None or (guessing is not None and guessing.always):
        return guessing
    return Certain(lane.constraint, guessing)


def _guessing(lane: Lane, tokenizer: Tokenizer, cancelled: Callable[[], bool]) -> Proposer | None:
    """A lane's draft; a second model reads the lane's text, and is none where it cannot go back. Raises `Cancelled`."""
    config = lane.config
    if config.draft == LOOKUP or lane.draft is None:
        return Lookup(config.draft_tokens, config.draft_ngram)
    network, states = lane.draft.network, lane.draft.states
    state = None if states is None else states.find(lane.ids, hidden=False)
    own, rest, _hidden = begin_cache(Treated(network), state, [lane.ids], len(lane.prompt) + lane.limit)
    known = len(lane.ids) - rest.shape[1]
    chunk = network.at_once(len(lane.ids), CHUNK)
    for first in range(0, rest.shape[1] - 1, chunk):
        if cancelled():
            raise Cancelled
        part = rest[:, first : min(first + chunk, rest.shape[1] - 1)]
        network.forward(part, own)
        known += part.shape[1]
    if not own.takes_drafts:
        return None
    size = lane.treated.network.vocabulary_size
    return Second(network, config, own, lane.ids[:known], len(lane.prompt), size, tokenizer)


@dataclass(eq=False)
class Drafting:
    """One lane with a draft: see `together.Going`.

    What was verified waits: a pause, or stepping, comes between any two tokens.
    """

    batch: Batch
    proposer: Proposer
    telling: Telling
    waiting: deque[Waiting] = field(default_factory=deque)
    steps: int = 0
    over: bool = False
    _guessed: int = 0  # in the last forward
    _stayed: int = 0

    def __hash__(self) -> int:
        return id(self)

    def __post_init__(self) -> None:
        self.waiting.append(Waiting(self.batch.logits[0], None, True))

    @property
    def lane(self) -> Lane:
        return self.batch.lanes[0]

    def ready(self, seconds: float) -> bool:
        """It waits for nobody."""
        return True

    def rest(self) -> None:
        """Nothing goes on while it has no turn."""

    @torch.inference_mode()
    def step(self) -> Iterator[Event]:
        """One token more; where no logits wait, guesses go through the network first."""
        lane, telling = self.lane, self.telling
        self.steps += 1
        if not self.waiting:
            self._forward()
        place = self.waiting.popleft()
        context = lane.context if reads_text(lane.config) else None
        how: dict[str, Any] = {"prompt": len(lane.prompt), "carried": lane.carried, "tokenizer": telling.tokenizer}
        if lane.constraint is not None:
            how["allowed"] = lane.constraint.allowed(place.logits.numel())
        stage = distribution(place.logits, context, lane.config, **how)
        pick, draft = self._pick(stage, place)
        if place.guess is not None:
            self._stayed += draft.outcome == "accepted" and not place.guess.certain
            if draft.outcome != "accepted":
                self.waiting.clear()
        lane.picked.append(pick.id)
        if lane.constraint is not None:
            lane.constraint.append(pick.id)
        token = lane.stream.append(pick.id)
        yield stepped(lane, token, stage, pick, telling, None if lane.config.draft is None else draft)
        if reason := lane.finish_reason(token, telling.tokenizer.eos_ids):
            self._end()
            yield Finished(lane.index, reason)

    @torch.inference_mode()
    def stop(self) -> Iterator[Event]:
        """End it where it is; what waits goes."""
        self._end()
        yield Finished(self.lane.index, "cancelled")

    def _pick(self, stage: Distribution, place: Waiting) -> tuple[Pick, Draft]:
        lane, guess, drafted = self.lane, place.guess, place.drafted
        if guess is None and self.proposer.always and not lane.forced:
            guess = next(iter(self.proposer.propose(lane.ids, 1)), None)
            drafted += guess is not None
        drawn = None
        if guess is not None and self.proposer.always and not lane.forced:
            verdict = sampled_verdict(guess, stage, draw(lane.generator))
            pick, drawn = Pick(verdict.id), verdict.draw
            stays = verdict.stays
        else:  # what the lane picks without a draft, whether or not it is the guess
            pick = pick_one(lane, stage)
            stays = guess is not None and guess.id == pick.id
        outcome: DraftOutcome = "bonus" if place.behind else "none"
        if guess is not None:
            outcome = "accepted" if stays else "corrected"
        return pick, self._described(place, stage, guess, outcome, drafted, drawn)

    def _described(
        self,
        place: Waiting,
        stage: Distribution,
        guess: Guess | None,
        outcome: DraftOutcome,
        drafted: int,
        drawn: float | None,
    ) -> Draft:
        if guess is None or guess.certain:
            return Draft(outcome, place.forward, drafted)
        return Draft(
            outcome,
            place.forward,
            drafted,
            id=guess.id,
            text=self.telling.tokenizer.label(guess.id),
            probability=float(stage.probability(torch.tensor(guess.id))),
            draft_probability=guess.probability,
            draw=drawn,
        )

    def _forward(self) -> None:
        """The newest token and guesses of what follows, in one forward behind what is sure."""
        lane, batch = self.lane, self.batch
        if self._guessed:
            self.proposer.learn(self._guessed, self._stayed)
        batch.cache.truncate(batch.cache.padding[0] + len(lane.ids) - 1)
        most = lane.limit - len(lane.picked) - 1
        guesses = [] if lane.forced or most < 1 else self.proposer.propose(lane.ids, most)
        ids = torch.tensor([[lane.picked[-1], *(guess.id for guess in guesses)]])
        output = batch.network.forward(ids, batch.cache, all_logits=bool(guesses))
        logits = output.all_logits()[0] if guesses else output.logits()
        logits = logits.float().cpu()  # [guesses + 1, vocabulary]
        count = sum(not guess.certain for guess in guesses)
        self._guessed, self._stayed = count, 0
        self.waiting.extend(
            Waiting(row, guess, place == 0, count if place == 0 else 0, place > 0)
            for place, (row, guess) in enumerate(zip(logits, [*guesses, None], strict=True))
        )

    def _end(self) -> None:
        """The lane ends: what is known of its text, and no more, is kept."""
        self.over = True
        self.waiting.clear()
        batch, lane = self.batch, self.lane
        if lane.picked:
            batch.cache.truncate(batch.cache.padding[0] + len(lane.ids) - 1)
        keep_states(batch, [0], self.telling.keep_state)
        if isinstance(self.proposer, Second) and lane.draft is not None and lane.draft.states is not None:
            known = self.proposer.known
            if known and self.proposer.cache.rewindable:
                lane.draft.states.keep(LaneState(known, self.proposer.cache))
