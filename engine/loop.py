"""The generation loop: prefill once, then distribution → pick → append, until every lane is done."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from secrets import randbits

import torch
from torch import Tensor

from engine.config import GenerationConfig
from engine.distribution import Distribution, distribution
from engine.errors import ContextError, InputError
from engine.events import (
    Candidate,
    Event,
    Finished,
    FinishReason,
    Prefilled,
    Prefilling,
    Started,
    Stepped,
)
from engine.networks import Cache, Network
from engine.strategies import contrastive_scores, sample
from engine.tokens import Token, Tokenizer, TokenStream

PREFILL_CHUNK = 512


@dataclass
class Lane:
    """One configuration being generated."""

    index: int
    config: GenerationConfig
    prompt: list[int]
    stream: TokenStream
    generator: torch.Generator
    picked: list[int] = field(default_factory=list)
    last_time: float = 0.0

    @property
    def context(self) -> Tensor:
        """Ids of the prompt and what is written, `[length]`."""
        return torch.tensor(self.prompt + self.picked)

    def finish_reason(self, token: Token, eos_ids: frozenset[int]) -> FinishReason | None:
        if token.id in eos_ids and not self.config.ignore_eos:
            return "end_of_text"
        if any(self._just_wrote(stop, token) for stop in self.config.stop):
            return "stop_sequence"
        if len(self.picked) >= self.config.max_new_tokens:
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
    """What a strategy chose for one lane, and, for contrastive search, why."""

    id: int
    candidates: Tensor | None = None
    similarity: Tensor | None = None
    scores: Tensor | None = None


@torch.inference_mode()
def generate(
    network: Network,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    configs: Sequence[GenerationConfig],
    *,
    candidates: int = 20,
    proceed: Callable[[], bool] = lambda: True,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Continue each prompt under the configuration beside it, all lanes in step.

    Args:
        prompts: one per configuration, or a single one for all.
        candidates: how many of the most probable tokens each `Stepped` carries.
        proceed: asked before every round of steps; it may block (pause), and ends the run with
            `cancelled` by returning False.
        cancelled: asked before every part of the prefill; True ends the run likewise.

    Raises:
        InputError: an empty prompt, or no configuration.
        ContextError: a prompt with its new tokens does not fit the context.
    """
    if not configs:
        raise InputError("no configuration to generate with")
    prompts = list(prompts) * len(configs) if len(prompts) == 1 else list(prompts)
    if len(prompts) != len(configs):
        raise InputError(f"{len(prompts)} prompts for {len(configs)} configurations")
    encoded = {prompt: tokenizer.encode(prompt) for prompt in prompts}
    lanes = [_lane(i, config, encoded[prompt], tokenizer) for i, (config, prompt) in enumerate(zip(configs, prompts))]
    for lane in lanes:
        check_context(len(lane.prompt), lane.config, network.context_length)
    yield Started(tuple(tuple(encoded[prompt]) for prompt in prompts), tuple(lane.config for lane in lanes))

    # 1. Prefill: every distinct prompt goes through the network once.
    began = time.perf_counter()
    distinct = {tuple(lane.prompt): row for row, lane in enumerate(lanes)}
    distinct = {prompt: row for row, prompt in enumerate(distinct)}
    longest = max(map(len, distinct))
    padding = [longest - len(prompt) for prompt in distinct]
    ids = torch.tensor([[0] * pad + list(prompt) for prompt, pad in zip(distinct, padding)])
    cache = network.cache(longest + max(lane.config.max_new_tokens for lane in lanes) + _siblings(lanes), padding)
    hidden = []
    for start in range(0, longest, PREFILL_CHUNK):
        if cancelled():
            yield from (Finished(lane.index, "cancelled") for lane in lanes)
            return
        output = network.forward(ids[:, start : start + PREFILL_CHUNK], cache)
        hidden.append(output.hidden)
        yield Prefilling(min(start + PREFILL_CHUNK, longest), longest)
    logits = output.logits()
    now = time.perf_counter()
    yield Prefilled(sum(map(len, distinct)), now - began)

    # 2. Lanes that take the same kind of step share a batch; each gets a copy of its prompt's cache.
    batches = []
    for members in _by_kind(lanes):
        rows = [distinct[tuple(lane.prompt)] for lane in members]
        context = torch.cat(hidden, dim=1)[rows] if members[0].config.strategy == "contrastive" else None
        batches.append(Batch(members, cache.gather(rows), logits[rows], context))
        for lane in members:
            lane.last_time = time.perf_counter()
    del cache, hidden

    while batches:
        if not proceed():
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
                yield _stepped(lane, token, stage, pick, candidates, tokenizer)
                if reason := lane.finish_reason(token, tokenizer.eos_ids):
                    finished.append(row)
                    yield Finished(lane.index, reason)
            if finished:
                _retire(batch, finished)
            # 5. The picks go through the network: the logits of the next step.
            if batch.lanes and batch.hidden is None:
                last = torch.tensor([[lane.picked[-1]] for lane in batch.lanes])
                batch.logits = network.forward(last, batch.cache).logits()
        batches = [batch for batch in batches if batch.lanes]


def check_context(prompt_tokens: int, config: GenerationConfig, context_length: int) -> None:
    """Raise unless the prompt and its new tokens fit the model's context."""
    if prompt_tokens == 0:
        raise InputError("the prompt is empty; type at least one character")
    if prompt_tokens > context_length:
        raise ContextError(
            f"the prompt has {prompt_tokens:,} tokens, the model's context holds {context_length:,}; shorten the prompt"
        )
    if prompt_tokens + config.max_new_tokens > context_length:
        room = context_length - prompt_tokens
        raise ContextError(
            f"{prompt_tokens:,} prompt tokens and {config.max_new_tokens:,} new ones exceed the context of "
            f"{context_length:,}; " + (f"lower max_new_tokens to {room:,}" if room else "shorten the prompt")
        )


def _lane(index: int, config: GenerationConfig, prompt: list[Token], tokenizer: Tokenizer) -> Lane:
    if config.strategy == "sample" and config.seed is None:
        config = replace(config, seed=randbits(32))
    return Lane(
        index=index,
        config=config,
        prompt=[token.id for token in prompt],
        stream=tokenizer.stream(position=len(prompt)),
        generator=torch.Generator().manual_seed(config.seed or 0),
    )


def _siblings(lanes: Sequence[Lane]) -> int:
    return max((lane.config.top_k or 0 for lane in lanes if lane.config.strategy == "contrastive"), default=0)


def _by_kind(lanes: Sequence[Lane]) -> list[list[Lane]]:
    """Lanes of one position a step together; contrastive lanes together by their number of candidates."""
    kinds: dict[int | None, list[Lane]] = {}
    for lane in lanes:
        kind = lane.config.top_k if lane.config.strategy == "contrastive" else None
        kinds.setdefault(kind, []).append(lane)
    return list(kinds.values())


def _pick(network: Network, batch: Batch, stages: Sequence[Distribution]) -> list[Pick]:
    if batch.hidden is not None:
        return _pick_contrastive(network, batch, batch.hidden, stages)
    return [Pick(_pick_one(lane, stage)) for lane, stage in zip(batch.lanes, stages)]


def _pick_one(lane: Lane, stage: Distribution) -> int:
    if lane.config.strategy == "greedy":
        return stage.top
    ids, probabilities = stage.survivors
    drawn = sample(probabilities, lane.generator)
    return drawn if ids is None else int(ids[drawn])


def _pick_contrastive(network: Network, batch: Batch, hidden: Tensor, stages: Sequence[Distribution]) -> list[Pick]:
    """All candidates in one forward over the lane's one cache; the winner stays in it."""
    k = min(batch.lanes[0].config.top_k or 1, stages[0].raw.numel())
    tops = [stage.most_probable_tempered(k) for stage in stages]
    output = network.forward(torch.stack([ids for ids, _ in tops]), batch.cache, siblings=True)
    picks, winners = [], []
    for row, (lane, (ids, probabilities)) in enumerate(zip(batch.lanes, tops)):
        context = hidden[row, batch.cache.padding[row] :].float().cpu()
        candidates = output.hidden[row].float().cpu()
        scores, similarity = contrastive_scores(probabilities, candidates, context, lane.config.alpha)
        winner = int(scores.argmax())
        winners.append(winner)
        picks.append(Pick(int(ids[winner]), ids, similarity, scores))
    batch.cache.choose(winners)
    batch.logits = output.logits(winners)
    chosen = output.hidden[torch.arange(len(winners)), winners]
    batch.hidden = torch.cat([hidden, chosen[:, None]], dim=1)
    return picks


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
        candidates=describe_candidates(stage, tokenizer, count, pick),
        probability=float(stage.probability(picked)),
        raw_probability=float(stage.raw_probability(picked)),
        rank=stage.rank(token.id),
        entropy_bits=stage.entropy_bits,
        final_entropy_bits=stage.final_entropy_bits,
        kept=stage.kept,
        cut_mass=stage.cut_mass,
        seconds=seconds,
    )


def describe_candidates(
    stage: Distribution, tokenizer: Tokenizer, count: int, pick: Pick | None = None
) -> tuple[Candidate, ...]:
    """The `count` most probable tokens by raw rank, with what the settings did to each.

    For contrastive search, all its candidates, in rank order, with their scores.
    """
    if pick is not None and pick.candidates is not None and pick.scores is not None and pick.similarity is not None:
        ids = pick.candidates
        similarity: list[float | None] = pick.similarity.tolist()
        scores: list[float | None] = pick.scores.tolist()
    else:
        ids = stage.most_probable(count)
        similarity = scores = [None] * len(ids)
    ranks: Sequence[int] = range(1, len(ids) + 1)
    if stage.penalised is not stage.raw:
        ranks = [stage.rank(id) for id in ids.tolist()]
    raw_probabilities = stage.raw_probability(ids).tolist()
    probabilities = stage.probability(ids).tolist()
    removed = stage.cut_by(ids) if stage.cuts else [None] * len(ids)
    return tuple(
        Candidate(
            rank=ranks[index],
            id=id,
            text=tokenizer.label(id),
            raw_probability=raw_probabilities[index],
            probability=probabilities[index],
            cut_by=removed[index],
            similarity=similarity[index],
            score=scores[index],
        )
        for index, id in enumerate(ids.tolist())
    )
