"""What is generated: lanes, batches of them that go through the network together, and how they begin and end."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from secrets import randbits

import torch
from torch import Tensor

from engine.base.errors import InputError
from engine.base.language import _
from engine.generation.amateur import Amateur, Reading, reading
from engine.generation.candidates import Contrast
from engine.generation.config import GenerationConfig
from engine.generation.constraint import Constraint, constraint_of
from engine.generation.distribution import Distribution
from engine.generation.drafts import DraftModel, Proposer, check_draft
from engine.generation.events import FinishReason, Start
from engine.generation.guidance import Guide, Guiding, begin_guide, guiding, through
from engine.generation.intervening import Treated
from engine.generation.interventions import Treatment
from engine.generation.memory import LaneState, common_prefix
from engine.generation.stages.carried import carried_at
from engine.generation.strategies import draw, sample
from engine.networks.network import Cache, Network
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer, TokenStream


@dataclass
class Lane:
    """One configuration being generated.

    Attributes:
        picked: the ids after the prompt; `limit` of them end the lane.
        forced: ids still to be picked before the strategy has a say.
        treated: the network under the lane's interventions.
        guiding: the text that it is pushed away from, where it is guided.
        reading: its amateur, where it has one.
        carried: what its stages carry to the step that comes, and drew for it.
        constraint: its grammar behind what is picked, where it has one.
        draft: the second model that guesses for it, where its configuration names one.
    """

    index: int
    config: GenerationConfig
    prompt: list[int]
    stream: TokenStream
    generator: torch.Generator
    picked: list[int]
    forced: deque[int]
    limit: int
    treated: Treated
    guiding: Guiding | None = None
    reading: Reading | None = None
    constraint: Constraint | None = None
    draft: DraftModel | None = None
    last_time: float = 0.0
    carried: dict[str, float] = field(default_factory=dict)

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
        if any(self.stream.just_wrote(stop, token) for stop in self.config.stop):
            return "stop_sequence"
        if self.constraint is not None and self.constraint.complete:
            return "grammar"
        if len(self.picked) >= self.limit:
            return "length"
        return None


@dataclass(eq=False)
class Batch:
    """Lanes that go through the network together, sharing one cache.

    Attributes:
        logits: for each lane's next token, `[lanes, vocabulary]`, float32, on the processor.
        hidden: of every token so far, `[lanes, length, hidden]`; kept for contrastive search only.
        steps: how many tokens the run has given each of its lanes.
        guide: the texts that its lanes are pushed away from, where they are guided.
        amateur: what their amateur makes of the lanes' own texts, where they have one.
        proposer: what guesses for the one lane of a batch that has a draft.
    """

    lanes: list[Lane]
    cache: Cache
    logits: Tensor
    hidden: Tensor | None = None
    steps: int = 0
    guide: Guide | None = None
    amateur: Guide | None = None
    proposer: Proposer | None = None

    @property
    def network(self) -> Network:
        """That its lanes go through."""
        return self.lanes[0].treated.network


@dataclass(frozen=True)
class Pick:
    """What was chosen for one lane: by its strategy, or `forced`; and, for contrastive search, why."""

    id: int
    forced: bool = False
    contrast: Contrast | None = None


def pick_one(lane: Lane, stage: Distribution) -> Pick:
    """A lane's next token: forced, or its strategy's. Contrastive search looks at several in one forward."""
    if lane.forced:
        draw(lane.generator)  # each token takes one draw, whatever picks it
        return Pick(lane.forced.popleft(), forced=True)
    if lane.config.strategy == "greedy":
        return Pick(stage.top)
    ids, probabilities = stage.survivors
    drawn = sample(probabilities, lane.generator)
    return Pick(drawn if ids is None else int(ids[drawn]))


def starts_of(prompts: Sequence[str | Start], count: int, tokenizer: Tokenizer) -> list[Start]:
    """Where each of `count` lanes begins; a single prompt is for all. Raises `InputError`."""
    if not count:
        raise InputError(_("no configuration to generate with"))
    prompts = list(prompts) * count if len(prompts) == 1 else list(prompts)
    if len(prompts) != count:
        raise InputError(
            _("{count} prompts for {configurations} configurations", count=len(prompts), configurations=count)
        )
    encoded = {text: Start(tuple(tokenizer.encode(text))) for text in prompts if isinstance(text, str)}
    return [encoded[prompt] if isinstance(prompt, str) else prompt for prompt in prompts]


def begin_lane(
    index: int,
    config: GenerationConfig,
    start: Start,
    tokenizer: Tokenizer,
    treat: Callable[[tuple[str, ...], tuple[int, ...]], Treated],
    amateur: Amateur | None = None,
    draft: DraftModel | None = None,
) -> Lane:
    """A lane that goes on where its start leaves off; a seed is drawn where sampling has none.

    Raises `InputError` where its text, or what is to come, does not fit its grammar.

    Args:
        treat: the network under interventions, for a prompt's ids. Raises `InputError`.
        amateur, draft: the second models, where the configuration names them.
    """
    if config.strategy == "sample" and config.seed is None:
        config = replace(config, seed=randbits(32))
    stream = tokenizer.stream(position=len(start.prompt))
    generator = torch.Generator().manual_seed(config.seed or 0)
    for id in start.written:  # as if this lane had drawn them itself
        stream.append(id)
        draw(generator)
    prompt = [token.id for token in start.prompt]
    last = start.last
    carried = carried_at(
        config,
        len(start.written),
        None if last is None else last.carried,
        None if last is None else last.probability,
    )
    constraint = constraint_of(config, tokenizer, start.written, start.forced)
    limit = len(start.written) + len(start.forced) + config.max_new_tokens
    check_draft(config, draft, prompt, (*prompt, *start.written, *start.forced), limit)
    return Lane(
        index=index,
        config=config,
        prompt=prompt,
        stream=stream,
        generator=generator,
        picked=list(start.written),
        forced=deque(start.forced),
        limit=limit,
        treated=treat(config.interventions, tuple(prompt)),
        guiding=guiding(config, tokenizer, prompt, limit, treat),
        reading=reading(config, amateur, prompt, limit, (*start.written, *start.forced)),
        carried=carried,
        constraint=constraint,
        draft=draft,
    )


def by_state(starts: Sequence[Start], lanes: Sequence[Lane]) -> list[tuple[LaneState | None, list[Lane]]]:
    """Lanes whose texts go through the network together: those with the same done to it, which all begin anew, or go on
    from one place."""
    groups: dict[tuple[int, tuple[int, ...], Treatment], tuple[LaneState | None, list[Lane]]] = {}
    for start, lane in zip(starts, lanes):
        state = start.state
        if state is not None and state.hidden is None and lane.config.strategy == "contrastive":
            state = None  # not enough is known for this strategy
        if state is not None and not state.treatment.shares(lane.treated.treatment):
            state = None
        key = (id(state), lane.ids if state is not None else (), lane.treated.treatment)
        groups.setdefault(key, (state, []))[1].append(lane)
    return list(groups.values())


def takes_several(config: GenerationConfig) -> bool:
    """Whether a step of a lane may bring several tokens' logits: those that are guessed, or that a grammar leaves no
    choice about."""
    if config.draft is not None:
        return True
    plain = config.guidance_scale == 1 and config.amateur is None
    return config.constraint is not None and config.strategy in ("greedy", "sample") and plain


def by_kind(lanes: Iterable[Lane]) -> list[list[Lane]]:
    """Lanes of one position a step together; contrastive lanes together by their number of candidates, guided ones by
    what is done to the network for the text that they are pushed away from, those with an amateur by its network; one
    with a draft or beams goes on alone."""
    kinds: dict[tuple[int | None, Treatment | None, int | None, int | None], list[Lane]] = {}
    for lane in lanes:
        candidates = lane.config.top_k if lane.config.strategy == "contrastive" else None
        amateur = None if lane.reading is None else id(lane.reading.treated.network)
        guide = None if lane.guiding is None else lane.guiding.treatment
        alone = takes_several(lane.config) or lane.config.strategy == "beam"
        kind = candidates, guide, amateur, lane.index if alone else None
        kinds.setdefault(kind, []).append(lane)
    return list(kinds.values())


def begin_cache(
    treated: Treated, state: LaneState | None, texts: Sequence[tuple[int, ...]], room: int
) -> tuple[Cache, Tensor, list[Tensor]]:
    """A cache that knows what `state` knows, the ids still to go through, and hidden states of those that have."""
    if state is None:
        longest = max(map(len, texts))
        padding = [longest - len(text) for text in texts]
        ids = torch.tensor([[0] * pad + list(text) for text, pad in zip(texts, padding)])
        return treated.network.cache(room, padding), ids, []
    shared = min(common_prefix(state.ids, texts[0]), state.treatment.shares(treated.treatment))
    known = min(shared, len(texts[0]) - 1)
    held = state.cache.padding[0] + known
    cache = state.cache.gather([0], room + state.cache.padding[0])
    cache.truncate(held)
    return cache, torch.tensor([texts[0][known:]]), [] if state.hidden is None else [state.hidden[:, :held]]


def most_siblings(lanes: Sequence[Lane]) -> int:
    """How many candidates contrastive search looks at in one step, at most."""
    return max((lane.config.top_k or 0 for lane in lanes if lane.config.strategy == "contrastive"), default=0)


def keep_states(batch: Batch, rows: Iterable[int], keep: Callable[[LaneState], None] | None) -> None:
    """Hand over what the network knows of some lanes that end here, and their amateur."""
    _keep_amateurs(batch, rows)
    if keep is None or not batch.cache.rewindable:
        return
    for row in rows:
        cache = batch.cache.gather([row], batch.cache.length)
        known = cache.length - cache.padding[0]
        hidden = None if batch.hidden is None else batch.hidden[row : row + 1].clone()
        keep(LaneState(batch.lanes[row].ids[:known], cache, hidden, batch.lanes[row].treated.treatment))


def _keep_amateurs(batch: Batch, rows: Iterable[int]) -> None:
    amateur = batch.amateur
    if amateur is None or not amateur.cache.rewindable:
        return
    for row in rows:
        lane = batch.lanes[row]
        if lane.reading is not None and lane.reading.amateur.states is not None:
            cache = amateur.cache.gather([row], amateur.cache.length)
            known = cache.length - cache.padding[0]
            lane.reading.amateur.states.keep(LaneState(lane.ids[:known], cache))


def retire(batch: Batch, finished: Sequence[int]) -> None:
    """Take lanes that have ended out of their batch."""
    remaining = [row for row in range(len(batch.lanes)) if row not in finished]
    batch.lanes = [batch.lanes[row] for row in remaining]
    if not remaining:
        return
    batch.cache = batch.cache.gather(remaining)
    batch.logits = batch.logits[remaining]
    if batch.hidden is not None:
        batch.hidden = batch.hidden[remaining]
    if batch.guide is not None:
        batch.guide.keep(remaining)
    if batch.amateur is not None:
        batch.amateur.keep(remaining)


def guide_of(lanes: Sequence[Lane], cancelled: Callable[[], bool]) -> Guide | None:
    """What the lanes of a batch are pushed away from, through the network; `None` where they are not guided.

    Raises `Cancelled`.
    """
    guides = [lane.guiding for lane in lanes if lane.guiding is not None]
    if not guides:
        return None
    return begin_guide(guides, [lane.picked for lane in lanes], _room(lanes), cancelled)


@torch.inference_mode()
def amateur_of(lanes: Sequence[Lane], cancelled: Callable[[], bool]) -> Guide | None:
    """The lanes' texts through their amateur, less what it still knows of one; `None` where they have none.

    Raises `Cancelled`.
    """
    readings = [lane.reading for lane in lanes if lane.reading is not None]
    if not readings:
        return None
    texts = {lane.ids for lane in lanes}
    if len(texts) > 1:
        return begin_guide(readings, [lane.picked for lane in lanes], _room(lanes), cancelled)
    (text,) = texts
    states, treated = readings[0].amateur.states, readings[0].treated
    state = None if states is None else states.find(text, hidden=False)
    if state is not None and not state.treatment.shares(treated.treatment):
        state = None
    cache, rest, _hidden = begin_cache(treated, state, [text], len(text) + _room(lanes))
    logits = through(treated.network, rest, cache, cancelled)
    rows = [0] * len(lanes)
    return Guide(treated, cache.gather(rows), logits[rows])


def _room(lanes: Sequence[Lane]) -> int:
    """Positions that lanes still need."""
    return max(lane.limit - len(lane.picked) for lane in lanes)
