"""A lane with strategy `beam` as it goes on: a step is a round of the search, and its text comes when that is over."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.generation.beams import BeamSearch, Node
from engine.generation.distribution import Distribution, distribution
from engine.generation.events import Beamed, Event, Finished, FinishReason
from engine.generation.lanes import Batch, Lane, Pick, keep_states, pick_one
from engine.generation.stages.order import reads_text
from engine.generation.telling import Telling, stepped
from engine.text.token import Token


@dataclass(eq=False)
class Beaming:
    """One lane whose beams share a cache: see `together.Going`."""

    batch: Batch
    telling: Telling
    steps: int = 0
    over: bool = False
    _search: BeamSearch | None = None

    def __hash__(self) -> int:
        return id(self)

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
        """A round; where a person gave tokens, first these, one a step."""
        self.steps += 1
        if self.lane.forced:
            yield from self._forced()
            return
        lane, batch = self.lane, self.batch
        if self._search is None:
            ends = 0 if lane.config.ignore_eos else len(self.telling.tokenizer.eos_ids)
            self._search = BeamSearch(lane.config, ends, lane.limit - len(lane.picked))
            batch.cache = batch.cache.gather([0] * lane.config.beams)
            batch.logits = batch.logits.expand(lane.config.beams, -1)
        search = self._search
        rows = batch.logits.log_softmax(1)
        scores = torch.stack(
            [self._stage(row, _ids(node)).last.logits for row, node in zip(rows, search.running, strict=True)]
        )
        parents = search.advance(rows, scores, self._why)
        yield Beamed(lane.index, search.rounds, tuple(search.known.values()), self._tokens(_ids(search.best)))
        if search.over:
            reason = search.ended[0].reason if search.ended else "length"
            yield from self._written(search.best)
            yield from self._end(reason)
            return
        if parents != list(range(len(parents))):
            batch.cache = batch.cache.gather(parents)
        last = torch.tensor([[0 if node is None else node.id] for node in search.running])
        batch.logits = batch.network.forward(last, batch.cache).logits().float().cpu()

    @torch.inference_mode()
    def stop(self) -> Iterator[Event]:
        """End it with the best text so far."""
        if self._search is not None:
            yield from self._written(self._search.best)
        yield from self._end("cancelled")

    def _forced(self) -> Iterator[Event]:
        lane, batch = self.lane, self.batch
        stage = self._stage(batch.logits[0].log_softmax(0), ())
        pick = pick_one(lane, stage)
        lane.picked.append(pick.id)
        token = lane.stream.append(pick.id)
        yield stepped(lane, token, stage, pick, self.telling)
        if reason := lane.finish_reason(token, self.telling.tokenizer.eos_ids):
            yield from self._end(reason)
            return
        batch.logits = batch.network.forward(torch.tensor([[pick.id]]), batch.cache).logits().float().cpu()

    def _written(self, best: Node | None) -> Iterator[Event]:
        """The steps of a beam, as if it had been alone."""
        lane = self.lane
        for node in [] if best is None else best.path:
            stage = self._stage(node.row, ())
            lane.picked.append(node.id)
            yield stepped(lane, lane.stream.append(node.id), stage, Pick(node.id), self.telling)

    def _end(self, reason: FinishReason) -> Iterator[Event]:
        self.over = True
        batch, lane = self.batch, self.lane
        written = 0 if self._search is None else len(_ids(self._search.best))
        batch.cache.truncate(batch.cache.padding[0] + len(lane.ids) - max(1, written))  # what beams share
        keep_states(batch, [0], self.telling.keep_state)
        yield Finished(lane.index, reason)

    def _stage(self, row: Tensor, ids: Sequence[int]) -> Distribution:
        """The stages on a beam's log-probabilities, `[vocabulary]`, behind some tokens more than the lane has."""
        lane = self.lane
        text = torch.tensor((*lane.ids, *ids)) if reads_text(lane.config) else None
        how: dict[str, Any] = {"prompt": len(lane.prompt), "carried": lane.carried, "tokenizer": self.telling.tokenizer}
        return distribution(row, text, lane.config, **how)

    def _why(self, parent: Node | None, id: int) -> FinishReason | None:
        """Why a token ends a beam, if it does."""
        lane, tokenizer, search = self.lane, self.telling.tokenizer, self._search
        assert search is not None
        if id in tokenizer.eos_ids and not lane.config.ignore_eos:
            return "end_of_text"
        if lane.config.stop and self._stops((*_ids(parent), id)):
            return "stop_sequence"
        return "length" if len(lane.picked) + search.rounds >= lane.limit else None

    def _stops(self, ids: Sequence[int]) -> bool:
        stream = self.telling.tokenizer.stream(position=len(self.lane.prompt))
        for id in (*self.lane.picked, *ids):
            token = stream.append(id)
        return any(stream.just_wrote(stop, token) for stop in self.lane.config.stop)

    def _tokens(self, ids: Sequence[int]) -> tuple[Token, ...]:
        stream = self.telling.tokenizer.stream(position=len(self.lane.prompt))
        for id in self.lane.picked:
            stream.append(id)
        return tuple(stream.append(id) for id in ids)


def _ids(node: Node | None) -> tuple[int, ...]:
    return () if node is None else tuple(one.id for one in node.path)
