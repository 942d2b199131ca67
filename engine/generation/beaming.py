"""A lane with strategy `beam` as it goes on: a step is a round of the search, and its text comes when that is over."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from engine.generation.beams import BeamSearch, Node
from engine.generation.distribution import Distribution, distribution
from engine.generation.events import Beam, Beamed, Event, Finished, FinishReason, Stepped, Survived
from engine.generation.lanes import Batch, Lane, Pick, keep_states, pick_one
from engine.generation.stages.carried import carried_at
from engine.generation.stages.order import reads_text
from engine.generation.telling import Telling, stepped
from engine.text.token import Token
from engine.text.tokenizer import TokenStream


@dataclass(eq=False)
class Beaming:
    """One lane whose beams share a cache: see `together.Going`."""

    batch: Batch
    telling: Telling
    steps: int = 0
    over: bool = False
    _search: BeamSearch | None = None
    _share: float = 0.0  # seconds of a token of the texts that are there at the end
    _texts: "dict[int, BeamText]" = field(default_factory=dict)

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
            [self._stage(lane, row, _ids(node)).last.logits for row, node in zip(rows, search.running, strict=True)]
        )
        parents = search.advance(rows, scores, self._why)
        yield Beamed(lane.index, search.rounds, self._beams(), self._tokens(_ids(search.best)))
        if search.over:
            reason = search.ended[0].reason if search.ended else "length"
            yield from self._written(search)
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
            yield from self._written(self._search)
        yield from self._end("cancelled")

    def _forced(self) -> Iterator[Event]:
        lane, batch = self.lane, self.batch
        stage = self._stage(lane, batch.logits[0].log_softmax(0), ())
        pick = pick_one(lane, stage)
        lane.picked.append(pick.id)
        token = lane.stream.append(pick.id)
        yield stepped(lane, token, stage, pick, self.telling)
        if reason := lane.finish_reason(token, self.telling.tokenizer.eos_ids):
            yield from self._end(reason)
            return
        batch.logits = batch.network.forward(torch.tensor([[pick.id]]), batch.cache).logits().float().cpu()

    def _written(self, search: BeamSearch) -> Iterator[Event]:
        """The steps of the best beam, as if it had been alone, then those of the others that are there.

        Each has an equal share of the search's time.
        """
        lane, told = self.lane, dict[Node, Stepped]()
        if search.best is not None:
            self._share = (time.perf_counter() - lane.last_time) / len(search.best.path)
        before, carried = list(lane.picked), lane.carried
        for node in [] if search.best is None else search.best.path:
            told[node] = self._told(lane, node)
            yield told[node]
        for last, reason in search.others:
            shared = [told[node] for node in takewhile(told.__contains__, last.path)]
            picked = [*before, *(step.token.id for step in shared)]
            if shared:
                at = len(picked)
                behind = carried_at(lane.config, at, shared[-1].carried, shared[-1].probability)
            else:
                behind = carried
            other = replace(lane, picked=picked, stream=self._stream(picked), carried=behind)
            new = {node: self._told(other, node) for node in last.path[len(shared) :]}
            told |= new
            yield Survived(lane.index, last.beam, reason, (*shared, *new.values()))

    def _told(self, lane: Lane, node: Node) -> Stepped:
        """A beam's next step, which the lane takes."""
        stage = self._stage(lane, node.row, ())
        lane.picked.append(node.id)
        step = stepped(lane, lane.stream.append(node.id), stage, Pick(node.id), self.telling)
        return replace(step, seconds=self._share)

    def _beams(self) -> tuple[Beam, ...]:
        """Every beam there was, with its text."""
        assert self._search is not None
        for beam in self._search.known.values():
            known = self._texts.get(beam.id)
            if known is None:
                known = self._texts[beam.id] = BeamText(self._stream(self.lane.picked), beam)
            known.follow(beam)
        return tuple(self._texts[id].beam for id in self._search.known)

    def _end(self, reason: FinishReason) -> Iterator[Event]:
        self.over = True
        batch, lane = self.batch, self.lane
        written = 0 if self._search is None else len(_ids(self._search.best))
        batch.cache.truncate(batch.cache.padding[0] + len(lane.ids) - max(1, written))  # what beams share
        keep_states(batch, [0], self.telling.keep_state)
        yield Finished(lane.index, reason)

    def _stage(self, lane: Lane, row: Tensor, ids: Sequence[int]) -> Distribution:
        """The stages on a beam's log-probabilities, `[vocabulary]`, behind some tokens more than the lane has."""
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
        stream = self._stream(self.lane.picked)
        return tuple(stream.append(id) for id in ids)

    def _stream(self, picked: Sequence[int]) -> TokenStream:
        """The text behind the prompt, as far as some tokens."""
        stream = self.telling.tokenizer.stream(position=len(self.lane.prompt))
        for id in picked:
            stream.append(id)
        return stream


@dataclass(eq=False)
class BeamText:
    """The text of one beam, which its new tokens are added to.

    Attributes:
        beam: as it is now, with its text.
    """

    stream: TokenStream
    beam: Beam
    _seen: Beam | None = None
    _length: int = 0

    def follow(self, beam: Beam) -> None:
        """Take in what has changed."""
        if beam is self._seen:
            return
        text = self.beam.text
        for place in range(self._length, len(beam.ids)):
            token = self.stream.append(beam.ids[place])
            if place >= beam.fork:
                text += token.text
        self._length, self._seen, self.beam = len(beam.ids), beam, replace(beam, text=text)


def _ids(node: Node | None) -> tuple[int, ...]:
    return () if node is None else tuple(one.id for one in node.path)
