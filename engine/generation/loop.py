"""The generation loop: prefill once, then distribution → pick → append, until every lane is done."""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from engine.base.errors import Cancelled
from engine.generation.amateur import Amateur
from engine.generation.beaming import Beaming
from engine.generation.candidates import Contrast
from engine.generation.config import GenerationConfig
from engine.generation.context import check_context
from engine.generation.distribution import Distribution, distribution
from engine.generation.drafting import Drafting, proposer_of, why_no_draft
from engine.generation.drafts import DraftModel
from engine.generation.events import Event, Finished, Noted, Prefilled, Prefilling, Start
from engine.generation.intervening import Treated, treated
from engine.generation.interventions import PLAIN, Treatment
from engine.generation.lanes import (
    Batch,
    Lane,
    Pick,
    amateur_of,
    begin_cache,
    begin_lane,
    by_kind,
    by_state,
    guide_of,
    keep_states,
    most_siblings,
    pick_one,
    retire,
    starts_of,
)
from engine.generation.memory import KeptLogits, LaneState
from engine.generation.stages.order import reads_text
from engine.generation.strategies import contrastive_scores
from engine.generation.telling import Telling, stepped
from engine.generation.together import Going, together
from engine.networks.network import Network
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer

PREFILL_CHUNK = 512


def generate(
    network: Network,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Start],
    configs: Sequence[GenerationConfig],
    *,
    candidates: int = 20,
    proceed: Callable[[], bool] = lambda: True,
    cancelled: Callable[[], bool] = lambda: False,
    in_step: Callable[[], bool] = lambda: False,
    keep_logits: Callable[..., KeptLogits] | None = None,
    keep_state: Callable[[LaneState], None] | None = None,
    amateurs: Sequence[Amateur | None] = (),
    drafts: Sequence[DraftModel | None] = (),
) -> Iterator[Event]:
    """Continue each prompt under the configuration beside it, each lane at its own pace.

    Lanes of one kind step together; kinds of unlike cost share the time: see `fair`. In step, each round gives every
    lane that goes on one token; lanes that have got fewer than others by then first go on alone until they are level.

    Args:
        prompts: one per configuration, or a single one for all.
        candidates: how many of the most probable tokens each `Stepped` carries.
        proceed: asked before every step of lanes of a kind, in step before every round; it may block (pause), and
            ends the run with `cancelled` by returning False.
        cancelled: asked before every part of the prefill; True ends the run likewise.
        in_step: asked after `proceed`: whether the lanes are to go in step now.
        keep_logits: given each step's logits `[vocabulary]`, where it is guided those of the other text, and those of
            its amateur; what it returns goes into the event.
        keep_state: given what the network knows of a lane when the lane ends.
        amateurs, drafts: of each lane the second model that its configuration names; by default none has one.

    Raises:
        InputError: an empty prompt, no configuration, or an amateur that is not given.
        ContextError: a prompt with its new tokens does not fit the context.
    """
    telling = Telling(tokenizer, candidates, keep_logits, keep_state)
    entered = enter(network, prompts, configs, telling, cancelled=cancelled, amateurs=amateurs, drafts=drafts)
    return together([entered], proceed=proceed, cancelled=cancelled, in_step=in_step)


def enter(
    network: Network,
    prompts: Sequence[str | Start],
    configs: Sequence[GenerationConfig],
    telling: Telling,
    *,
    numbers: Sequence[int] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    amateurs: Sequence[Amateur | None] = (),
    drafts: Sequence[DraftModel | None] = (),
) -> "NetworkLanes":
    """Lanes of one network, for a run that others may be in too. Raises as `generate` does.

    Args:
        numbers: of the lanes in that run; from 0 on by default.
        amateurs, drafts: as `generate` takes them.
    """
    starts = starts_of(prompts, len(configs), telling.tokenizer)
    named = range(len(configs)) if numbers is None else numbers
    treat = cache(partial(treated, network, telling.tokenizer))  # lanes with the same done to them share it
    seconds, guessing = amateurs or [None] * len(configs), drafts or [None] * len(configs)
    lanes = [
        begin_lane(number, config, start, telling.tokenizer, treat, amateur, draft)
        for number, config, start, amateur, draft in zip(named, configs, starts, seconds, guessing, strict=True)
    ]
    for lane in lanes:
        check_context(len(lane.ids) + len(lane.forced), lane.config, network.context_length)
    return NetworkLanes(starts, lanes, telling, cancelled)


@dataclass(frozen=True)
class NetworkLanes:
    """Lanes of one network that will run: see `together.Entered`."""

    starts: Sequence[Start]
    lanes: Sequence[Lane]
    telling: Telling
    cancelled: Callable[[], bool]

    @property
    def prompts(self) -> dict[int, tuple[Token, ...]]:
        return {lane.index: start.prompt for lane, start in zip(self.lanes, self.starts)}

    @property
    def configs(self) -> dict[int, GenerationConfig]:
        return {lane.index: lane.config for lane in self.lanes}

    @torch.inference_mode()
    def begin(self, waited: float) -> "Generator[Event, None, list[Going]]":
        """1. The texts go through the network."""
        batches = yield from prefill(self.starts, self.lanes, self.telling.tokenizer, self.cancelled)
        for lane in self.lanes:  # its first token comes so much later
            lane.last_time -= waited
        going: list[Going] = []
        for batch in batches:
            if batch.lanes[0].config.strategy == "beam":
                going.append(Beaming(batch, self.telling))
                continue
            if batch.proposer is not None:
                going.append(Drafting(batch, batch.proposer, self.telling))
                continue
            if batch.lanes[0].config.draft is not None:
                yield Noted(batch.lanes[0].index, why_no_draft())
            going.append(Decoding(batch, self.telling))
        return going

    def close(self) -> None:
        """Do nothing: there is no connection."""


@dataclass(frozen=True, eq=False)
class Decoding:
    """A batch and what becomes of its steps: see `together.Going`."""

    batch: Batch
    telling: Telling

    @property
    def steps(self) -> int:
        return self.batch.steps

    @property
    def over(self) -> bool:
        return not self.batch.lanes

    def ready(self, seconds: float) -> bool:
        """It waits for nobody."""
        return True

    @torch.inference_mode()
    def step(self) -> Iterator[Event]:
        """2. Again and again, lanes get one token more."""
        yield from decode_step(self.batch, self.telling)

    def rest(self) -> None:
        """Nothing goes on while it has no turn."""

    @torch.inference_mode()
    def stop(self) -> Iterator[Event]:
        yield from stop([self.batch], self.telling)


def prefill(
    starts: Sequence[Start], lanes: Sequence[Lane], tokenizer: Tokenizer, cancelled: Callable[[], bool]
) -> Generator[Event, None, list[Batch]]:
    """Send every distinct text through the network once, less what is still known of it.

    Returns:
        The batches that go on; none where it was cancelled.
    """
    began = time.perf_counter()
    room = max(len(lane.ids) + len(lane.forced) + lane.config.max_new_tokens for lane in lanes) + most_siblings(lanes)
    batches: list[Batch] = []
    through = 0
    for state, group in by_state(starts, lanes):
        texts = list(dict.fromkeys(lane.ids for lane in group))
        network = group[0].treated.network
        kept, ids, hidden = begin_cache(group[0].treated, state, texts, room)
        chunk = network.at_once(kept.length + ids.shape[1], PREFILL_CHUNK)
        for first in range(0, ids.shape[1], chunk):
            if cancelled():
                yield from (Finished(lane.index, "cancelled") for lane in lanes)
                return []
            output = network.forward(ids[:, first : first + chunk], kept)
            hidden.append(output.hidden)
            yield Prefilling(min(first + chunk, ids.shape[1]), ids.shape[1])
        logits = output.logits().float().cpu()  # a GPU is waited for, so that seconds are those of the work
        through += ids.numel() - (sum(kept.padding) if state is None else 0)
        # Lanes that take the same kind of step share a batch; each gets a copy of its text's cache.
        for members in by_kind(group):
            rows = [texts.index(lane.ids) for lane in members]
            context = torch.cat(hidden, dim=1)[rows] if members[0].config.strategy == "contrastive" else None
            try:
                guide, amateur = guide_of(members, cancelled), amateur_of(members, cancelled)
                mine = kept.gather(rows)
                proposer = proposer_of(members[0], mine, tokenizer, cancelled)
            except Cancelled:
                yield from (Finished(lane.index, "cancelled") for lane in lanes)
                return []
            batches.append(Batch(members, mine, logits[rows], context, 0, guide, amateur, proposer))
    del kept, hidden  # the batches have their own
    yield Prefilled(through, time.perf_counter() - began, tuple(lane.index for lane in lanes))
    for lane in lanes:
        lane.last_time = time.perf_counter()
    return batches


def decode_step(batch: Batch, telling: Telling) -> Iterator[Event]:
    """One token more for each lane of a batch; lanes that end with it leave the batch."""
    batch.steps += 1
    # 3. From logits to a distribution.
    others, amateurs = (
        [None] * len(batch.lanes) if one is None else one.logits for one in (batch.guide, batch.amateur)
    )
    distributions = [
        distribution(
            logits,
            lane.context if reads_text(lane.config) else None,
            lane.config,
            other,
            amateur,
            prompt=len(lane.prompt),
            carried=lane.carried,
            tokenizer=telling.tokenizer,
            allowed=None if lane.constraint is None else lane.constraint.allowed(logits.numel()),
        )
        for lane, logits, other, amateur in zip(batch.lanes, batch.logits, others, amateurs)
    ]
    # 4. Pick one token.
    picks = _pick(batch, distributions)
    # 5. Append it.
    finished = []
    for row, (lane, stage, pick) in enumerate(zip(batch.lanes, distributions, picks)):
        lane.picked.append(pick.id)
        if lane.constraint is not None:
            lane.constraint.append(pick.id)
        token = lane.stream.append(pick.id)
        yield stepped(lane, token, stage, pick, telling)
        if reason := lane.finish_reason(token, telling.tokenizer.eos_ids):
            finished.append(row)
            yield Finished(lane.index, reason)
    if finished:
        keep_states(batch, finished, telling.keep_state)
        retire(batch, finished)
    # 6. The picks go through the network: the logits of the next step. Contrastive picks already have.
    if not batch.lanes:
        return
    last = torch.tensor([[lane.picked[-1]] for lane in batch.lanes])  # [lanes, 1]
    for beside in (batch.guide, batch.amateur):
        if beside is not None:
            beside.step(last)
    if batch.hidden is None:
        batch.logits = batch.network.forward(last, batch.cache).logits().float().cpu()


def stop(batches: Sequence[Batch], telling: Telling) -> Iterator[Event]:
    """End the lanes that still go on."""
    for batch in batches:
        keep_states(batch, range(len(batch.lanes)), telling.keep_state)
    yield from (Finished(lane.index, "cancelled") for batch in batches for lane in batch.lanes)


@torch.inference_mode()
def logits_after(
    network: Network, ids: Sequence[int], state: LaneState | None = None, treatment: Treatment = PLAIN
) -> Tensor:
    """Logits of the token after `ids`, `[vocabulary]`, with what `state` knows of their beginning.

    Args:
        treatment: what is done to the network, where something is.
    """
    if state is not None and not state.treatment.shares(treatment):
        state = None
    cache, rest, _ = begin_cache(Treated(network, treatment), state, [tuple(ids)], len(ids))
    chunk = network.at_once(len(ids), PREFILL_CHUNK)
    for first in range(0, rest.shape[1], chunk):
        output = network.forward(rest[:, first : first + chunk], cache)
    return output.logits()[0].float().cpu()


def _pick(batch: Batch, stages: Sequence[Distribution]) -> list[Pick]:
    if batch.hidden is not None:
        return _pick_contrastive(batch, batch.hidden, stages)
    return [pick_one(lane, stage) for lane, stage in zip(batch.lanes, stages)]


def _pick_contrastive(batch: Batch, hidden: Tensor, stages: Sequence[Distribution]) -> list[Pick]:
    """All candidates in one forward over the lane's one cache; the winner stays in it."""
    k = min(batch.lanes[0].config.top_k or 1, stages[0].raw.numel())
    tops = [stage.most_probable_tempered(k) for stage in stages]
    for row, (lane, stage) in enumerate(zip(batch.lanes, stages)):
        if lane.forced and lane.forced[0] not in tops[row][0]:  # it takes the last candidate's place
            ids = torch.cat([tops[row][0][:-1], torch.tensor([lane.forced[0]])])
            tops[row] = ids, stage.probability(ids)
    output = batch.network.forward(torch.stack([ids for ids, _ in tops]), batch.cache, siblings=True)
    picks, winners = [], []
    for row, (lane, stage, (ids, probabilities)) in enumerate(zip(batch.lanes, stages, tops)):
        context = hidden[row, batch.cache.padding[row] :].float()  # stays where it is: it grows with the text
        candidates = output.hidden[row].float()
        found = contrastive_scores(probabilities.to(context.device), candidates, context, lane.config.alpha)
        scores, similarity = (one.cpu() for one in found)
        forced = bool(lane.forced)
        possible = ~stage.last.base[ids].isneginf()  # what is banned, or cut by the amateur, never comes
        scores = scores.masked_fill(~possible, -math.inf)
        winner = ids.tolist().index(lane.forced.popleft()) if forced else int(scores.argmax())
        winners.append(winner)
        picks.append(Pick(int(ids[winner]), forced, Contrast(ids[possible], similarity[possible], scores[possible])))
    batch.cache.choose(winners)
    batch.logits = output.logits(winners).float().cpu()
    chosen = output.hidden[torch.arange(len(winners)), winners]
    batch.hidden = torch.cat([hidden, chosen[:, None]], dim=1)
    return picks
