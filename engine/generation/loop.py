"""The generation loop: prefill once, then distribution → pick → append, until every lane is done."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from secrets import randbits

import torch
from torch import Tensor

from engine.base.errors import ContextError, InputError
from engine.base.language import _
from engine.generation.candidates import Contrast, describe
from engine.generation.config import GenerationConfig
from engine.generation.distribution import Distribution, distribution
from engine.generation.events import Event, Finished, FinishReason, Prefilled, Prefilling, Start, Started, Stepped
from engine.generation.memory import KeptLogits, LaneState, common_prefix
from engine.generation.score import Scored
from engine.generation.strategies import contrastive_scores, draw, sample
from engine.networks import Cache, Network
from engine.text.tokenizer import Token, Tokenizer, TokenStream

# Positions whose scores over the whole vocabulary are in memory at once.
SCORED_AT_ONCE = 64
PREFILL_CHUNK = 512


@dataclass
class Lane:
    """One configuration being generated.

    Attributes:
        picked: the ids after the prompt; `limit` of them end the lane.
        forced: ids still to be picked before the strategy has a say.
    """

    index: int
    config: GenerationConfig
    prompt: list[int]
    stream: TokenStream
    generator: torch.Generator
    picked: list[int]
    forced: deque[int]
    limit: int
    last_time: float = 0.0

    @property
    def ids(self) -> tuple[int, ...]:
        return (*self.prompt, *self.picked)

    @property
    def context(self) -> Tensor:
        """Ids of the prompt and what is written, `[length]`."""
        return torch.tensor(self.ids)

    def finish_reason(self, token: Token, eos_ids: frozenset[int]) -> FinishReason | None:
        if token.id in eos_ids and not self.config.ignore_eos:
            return "end_of_text"
        if any(self._just_wrote(stop, token) for stop in self.config.stop):
            return "stop_sequence"
        if len(self.picked) >= self.limit:
            return "length"
        return None

    def _just_wrote(self, stop: str, token: Token) -> bool:
        return stop in self.stream.text[-(len(stop) + len(token.text)) :]


@dataclass
class Batch:
    """Lanes that go through the network together, sharing one cache.

    Attributes:
        logits: for each lane's next token, `[lanes, vocabulary]`.
        hidden: of every token so far, `[lanes, length, hidden]`; kept for contrastive search only.
    """

    lanes: list[Lane]
    cache: Cache
    logits: Tensor
    hidden: Tensor | None = None


@dataclass(frozen=True)
class Pick:
    """What was chosen for one lane: by its strategy, or `forced`; and, for contrastive search, why."""

    id: int
    forced: bool = False
    contrast: Contrast | None = None


@torch.inference_mode()
def generate(
    network: Network,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Start],
    configs: Sequence[GenerationConfig],
    *,
    candidates: int = 20,
    proceed: Callable[[], bool] = lambda: True,
    cancelled: Callable[[], bool] = lambda: False,
    keep_logits: Callable[[Tensor], KeptLogits] | None = None,
    keep_state: Callable[[LaneState], None] | None = None,
) -> Iterator[Event]:
    """Continue each prompt under the configuration beside it, all lanes in step.

    Args:
        prompts: one per configuration, or a single one for all.
        candidates: how many of the most probable tokens each `Stepped` carries.
        proceed: asked before every round of steps; it may block (pause), and ends the run with
            `cancelled` by returning False.
        cancelled: asked before every part of the prefill; True ends the run likewise.
        keep_logits: given each step's logits `[vocabulary]`; what it returns goes into the event.
        keep_state: given what the network knows of a lane when the lane ends.

    Raises:
        InputError: an empty prompt, or no configuration.
        ContextError: a prompt with its new tokens does not fit the context.
    """
    if not configs:
        raise InputError(_("no configuration to generate with"))
    prompts = list(prompts) * len(configs) if len(prompts) == 1 else list(prompts)
    if len(prompts) != len(configs):
        raise InputError(
            _("{count} prompts for {configurations} configurations", count=len(prompts), configurations=len(configs))
        )
    encoded = {text: Start(tuple(tokenizer.encode(text))) for text in prompts if isinstance(text, str)}
    starts = [encoded[prompt] if isinstance(prompt, str) else prompt for prompt in prompts]
    lanes = [_lane(index, config, start, tokenizer) for index, (config, start) in enumerate(zip(configs, starts))]
    for lane in lanes:
        check_context(len(lane.ids) + len(lane.forced), lane.config, network.context_length)
    yield Started(tuple(start.prompt for start in starts), tuple(lane.config for lane in lanes))

    # 1. Prefill: every distinct text goes through the network once, less what is still known of it.
    began = time.perf_counter()
    room = max(len(lane.ids) + len(lane.forced) + lane.config.max_new_tokens for lane in lanes) + _siblings(lanes)
    batches: list[Batch] = []
    through = 0
    for state, group in _by_state(starts, lanes):
        texts = list(dict.fromkeys(lane.ids for lane in group))
        cache, ids, hidden = _begin(network, state, texts, room)
        for first in range(0, ids.shape[1], PREFILL_CHUNK):
            if cancelled():
                yield from (Finished(lane.index, "cancelled") for lane in lanes)
                return
            output = network.forward(ids[:, first : first + PREFILL_CHUNK], cache)
            hidden.append(output.hidden)
            yield Prefilling(min(first + PREFILL_CHUNK, ids.shape[1]), ids.shape[1])
        logits = output.logits()
        through += ids.numel() - (sum(cache.padding) if state is None else 0)
        # 2. Lanes that take the same kind of step share a batch; each gets a copy of its text's cache.
        for members in _by_kind(group):
            rows = [texts.index(lane.ids) for lane in members]
            context = torch.cat(hidden, dim=1)[rows] if members[0].config.strategy == "contrastive" else None
            batches.append(Batch(members, cache.gather(rows), logits[rows], context))
    del cache, hidden
    yield Prefilled(through, time.perf_counter() - began)
    for lane in lanes:
        lane.last_time = time.perf_counter()

    while batches:
        if not proceed():
            for batch in batches:
                _keep_states(batch, range(len(batch.lanes)), keep_state)
            yield from (Finished(lane.index, "cancelled") for batch in batches for lane in batch.lanes)
            return
        for batch in batches:
            # 3. Distribution and pick.
            stages = [
                distribution(logits, lane.context if lane.config.repetition_penalty != 1 else None, lane.config)
                for lane, logits in zip(batch.lanes, batch.logits.float().cpu())
            ]
            picks = _pick(network, batch, stages)
            # 4. Append, and tell.
            finished = []
            for row, (lane, stage, pick) in enumerate(zip(batch.lanes, stages, picks)):
                lane.picked.append(pick.id)
                token = lane.stream.append(pick.id)
                step = _stepped(lane, token, stage, pick, candidates, tokenizer)
                yield step if keep_logits is None else replace(step, logits=keep_logits(stage.raw))
                if reason := lane.finish_reason(token, tokenizer.eos_ids):
                    finished.append(row)
                    yield Finished(lane.index, reason)
            if finished:
                _keep_states(batch, finished, keep_state)
                _retire(batch, finished)
            # 5. The picks go through the network: the logits of the next step.
            if batch.lanes and batch.hidden is None:
                last = torch.tensor([[lane.picked[-1]] for lane in batch.lanes])
                batch.logits = network.forward(last, batch.cache).logits()
        batches = [batch for batch in batches if batch.lanes]


@torch.inference_mode()
def logits_after(network: Network, ids: Sequence[int], state: LaneState | None = None) -> Tensor:
    """Logits of the token after `ids`, `[vocabulary]`, with what `state` knows of their beginning."""
    cache, rest, _ = _begin(network, state, [tuple(ids)], len(ids))
    for first in range(0, rest.shape[1], PREFILL_CHUNK):
        output = network.forward(rest[:, first : first + PREFILL_CHUNK], cache)
    return output.logits()[0].float().cpu()


@torch.inference_mode()
def score(network: Network, tokens: Sequence[Token]) -> Iterator[Scored]:
    """Score each token from all before it; the first one has no score.

    Raises:
        InputError: there are no tokens.
        ContextError: there are more than the context holds.
    """
    if not tokens:
        raise InputError(_("the text is empty; type at least one character"))
    if len(tokens) > network.context_length:
        raise ContextError(
            _(
                "the text has {count:,} tokens, the model's context holds {context_length:,}; shorten it",
                count=len(tokens),
                context_length=network.context_length,
            )
        )
    yield Scored(tokens[0])
    ids = torch.tensor([[token.id for token in tokens]])
    cache = network.cache(len(tokens), [0])
    for first in range(0, len(tokens) - 1, SCORED_AT_ONCE):
        chunk = ids[:, first : min(first + SCORED_AT_ONCE, len(tokens) - 1)]
        logits = network.forward(chunk, cache, all_logits=True).all_logits()[0].float().cpu()  # [positions, vocabulary]
        log_probabilities = logits.log_softmax(-1)
        entropies = -(log_probabilities.exp() * log_probabilities).nansum(-1) / math.log(2)
        following = tokens[first + 1 : first + 1 + len(logits)]
        own = log_probabilities.gather(1, torch.tensor([[token.id] for token in following]))  # [positions, 1]
        ranks = (log_probabilities > own).sum(-1) + 1
        for token, log_probability, rank, entropy in zip(
            following, own[:, 0].tolist(), ranks.tolist(), entropies.tolist()
        ):
            yield Scored(token, math.exp(log_probability), rank, -log_probability / math.log(2), max(0.0, entropy))


def check_context(prompt_tokens: int, config: GenerationConfig, context_length: int) -> None:
    """Raise unless the prompt and its new tokens fit the model's context."""
    if prompt_tokens == 0:
        raise InputError(_("the prompt is empty; type at least one character"))
    if prompt_tokens > context_length:
        raise ContextError(
            _(
                "the prompt has {prompt_tokens:,} tokens, the model's context holds {context_length:,}; shorten the "
                "prompt",
                prompt_tokens=prompt_tokens,
                context_length=context_length,
            )
        )
    if prompt_tokens + config.max_new_tokens > context_length:
        room = context_length - prompt_tokens
        raise ContextError(
            _(
                "{prompt_tokens:,} prompt tokens and {max_new_tokens:,} new ones exceed the context of "
                "{context_length:,}; ",
                prompt_tokens=prompt_tokens,
                max_new_tokens=config.max_new_tokens,
                context_length=context_length,
            )
            + (_("lower max_new_tokens to {room:,}", room=room) if room else _("shorten the prompt"))
        )


def _lane(index: int, config: GenerationConfig, start: Start, tokenizer: Tokenizer) -> Lane:
    if config.strategy == "sample" and config.seed is None:
        config = replace(config, seed=randbits(32))
    stream = tokenizer.stream(position=len(start.prompt))
    generator = torch.Generator().manual_seed(config.seed or 0)
    for id in start.written:  # as if this lane had drawn them itself
        stream.append(id)
        draw(generator)
    return Lane(
        index=index,
        config=config,
        prompt=[token.id for token in start.prompt],
        stream=stream,
        generator=generator,
        picked=list(start.written),
        forced=deque(start.forced),
        limit=len(start.written) + len(start.forced) + config.max_new_tokens,
    )


def _by_state(starts: Sequence[Start], lanes: Sequence[Lane]) -> list[tuple[LaneState | None, list[Lane]]]:
    """Lanes whose texts go through the network together: all that begin anew, and those that go on from one place."""
    groups: dict[tuple[int, tuple[int, ...]], tuple[LaneState | None, list[Lane]]] = {}
    for start, lane in zip(starts, lanes):
        state = start.state
        if state is not None and state.hidden is None and lane.config.strategy == "contrastive":
            state = None  # not enough is known for this strategy
        key = (id(state), lane.ids if state is not None else ())
        groups.setdefault(key, (state, []))[1].append(lane)
    return list(groups.values())


def _begin(
    network: Network, state: LaneState | None, texts: Sequence[tuple[int, ...]], room: int
) -> tuple[Cache, Tensor, list[Tensor]]:
    """A cache that knows what `state` knows, the ids still to go through, and hidden states of those that have."""
    if state is None:
        longest = max(map(len, texts))
        padding = [longest - len(text) for text in texts]
        ids = torch.tensor([[0] * pad + list(text) for text, pad in zip(texts, padding)])
        return network.cache(room, padding), ids, []
    known = min(common_prefix(state.ids, texts[0]), len(texts[0]) - 1)
    held = state.cache.padding[0] + known
    cache = state.cache.gather([0], room + state.cache.padding[0])
    cache.truncate(held)
    return cache, torch.tensor([texts[0][known:]]), [] if state.hidden is None else [state.hidden[:, :held]]


def _siblings(lanes: Sequence[Lane]) -> int:
    return max((lane.config.top_k or 0 for lane in lanes if lane.config.strategy == "contrastive"), default=0)


def _by_kind(lanes: Iterable[Lane]) -> list[list[Lane]]:
    """Lanes of one position a step together; contrastive lanes together by their number of candidates."""
    kinds: dict[int | None, list[Lane]] = {}
    for lane in lanes:
        kind = lane.config.top_k if lane.config.strategy == "contrastive" else None
        kinds.setdefault(kind, []).append(lane)
    return list(kinds.values())


def _pick(network: Network, batch: Batch, stages: Sequence[Distribution]) -> list[Pick]:
    if batch.hidden is not None:
        return _pick_contrastive(network, batch, batch.hidden, stages)
    return [_pick_one(lane, stage) for lane, stage in zip(batch.lanes, stages)]


def _pick_one(lane: Lane, stage: Distribution) -> Pick:
    if lane.forced:
        draw(lane.generator)  # each token takes one draw, whoever picks it
        return Pick(lane.forced.popleft(), forced=True)
    if lane.config.strategy == "greedy":
        return Pick(stage.top)
    ids, probabilities = stage.survivors
    drawn = sample(probabilities, lane.generator)
    return Pick(drawn if ids is None else int(ids[drawn]))


def _pick_contrastive(network: Network, batch: Batch, hidden: Tensor, stages: Sequence[Distribution]) -> list[Pick]:
    """All candidates in one forward over the lane's one cache; the winner stays in it."""
    k = min(batch.lanes[0].config.top_k or 1, stages[0].raw.numel())
    tops = [stage.most_probable_tempered(k) for stage in stages]
    for row, (lane, stage) in enumerate(zip(batch.lanes, stages)):
        if lane.forced and lane.forced[0] not in tops[row][0]:  # it takes the last candidate's place
            ids = torch.cat([tops[row][0][:-1], torch.tensor([lane.forced[0]])])
            tops[row] = ids, stage.probability(ids)
    output = network.forward(torch.stack([ids for ids, _ in tops]), batch.cache, siblings=True)
    picks, winners = [], []
    for row, (lane, (ids, probabilities)) in enumerate(zip(batch.lanes, tops)):
        context = hidden[row, batch.cache.padding[row] :].float().cpu()
        candidates = output.hidden[row].float().cpu()
        scores, similarity = contrastive_scores(probabilities, candidates, context, lane.config.alpha)
        forced = bool(lane.forced)
        winner = ids.tolist().index(lane.forced.popleft()) if forced else int(scores.argmax())
        winners.append(winner)
        picks.append(Pick(int(ids[winner]), forced, Contrast(ids, similarity, scores)))
    batch.cache.choose(winners)
    batch.logits = output.logits(winners)
    chosen = output.hidden[torch.arange(len(winners)), winners]
    batch.hidden = torch.cat([hidden, chosen[:, None]], dim=1)
    return picks


def _keep_states(batch: Batch, rows: Iterable[int], keep: Callable[[LaneState], None] | None) -> None:
    """Hand over what the network knows of some lanes that end here."""
    if keep is None or not batch.cache.rewindable:
        return
    for row in rows:
        cache = batch.cache.gather([row], batch.cache.length)
        known = cache.length - cache.padding[0]
        hidden = None if batch.hidden is None else batch.hidden[row : row + 1].clone()
        keep(LaneState(batch.lanes[row].ids[:known], cache, hidden))


def _retire(batch: Batch, finished: Sequence[int]) -> None:
    remaining = [row for row in range(len(batch.lanes)) if row not in finished]
    batch.lanes = [batch.lanes[row] for row in remaining]
    if not remaining:
        return
    batch.cache = batch.cache.gather(remaining)
    batch.logits = batch.logits[remaining]
    if batch.hidden is not None:
        batch.hidden = batch.hidden[remaining]


def _stepped(lane: Lane, token: Token, stage: Distribution, pick: Pick, count: int, tokenizer: Tokenizer) -> Stepped:
    picked = torch.tensor(token.id)
    now = time.perf_counter()
    seconds, lane.last_time = now - lane.last_time, now
    return Stepped(
        lane=lane.index,
        index=len(lane.picked) - 1,
        token=token,
        candidates=describe(stage, tokenizer, count, pick.contrast),
        probability=float(stage.probability(picked)),
        raw_probability=float(stage.raw_probability(picked)),
        rank=stage.rank(token.id),
        entropy_bits=stage.entropy_bits,
        final_entropy_bits=stage.final_entropy_bits,
        kept=stage.kept,
        cut_mass=stage.cut_mass,
        seconds=seconds,
        forced=pick.forced,
    )
