"""From logits to the distribution a strategy picks from, stage by stage.

`engine.generation.stages` has the stages, their order and their definitions; here they are gone through, and what each
of them left is kept. Transformers' logits processors are the tests' oracle.

Stages that keep the first n tokens in order of probability need only the most probable ones sorted; nothing sorts the
whole vocabulary unless it must.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from engine.base.errors import InputError
from engine.base.language import _
from engine.generation.config import GenerationConfig
from engine.generation.stages.carried import carried_at
from engine.generation.stages.order import chain_of
from engine.generation.stages.ordered import Head, Ordered
from engine.generation.stages.stage import Group, Reading, Stage
from engine.text.tokenizer import Tokenizer


class Level:
    """What one stage left; the first level is the network's own logits, of no stage.

    Attributes:
        stage: `None` for the first level.
        base: `[vocabulary]`, −inf for a token that a stage before cut, except for those that `floor` tells.
        floor: tokens with a logit in `base` below this are cut.
        kept: how many the floor leaves, where it cuts; they are the first so many of `head`.
    """

    def __init__(self, stage: Stage | None, base: Tensor, head: Head, kept: int | None = None) -> None:
        self.stage = stage
        self.base = base
        self.head = head
        self.kept = kept
        self.floor = -math.inf if kept is None else float(head.values[kept - 1])

    @cached_property
    def logits(self) -> Tensor:
        """`[vocabulary]`, −inf where a token is cut."""
        return self.base if self.kept is None else self.base.masked_fill(self.base < self.floor, -math.inf)

    @property
    def log_mass(self) -> Tensor:
        """Logsumexp of what is left."""
        return self._summary[0]

    @property
    def entropy_bits(self) -> float:
        return self._summary[1]

    @cached_property
    def _summary(self) -> tuple[Tensor, float]:
        return _summary(self.base if self.kept is None else self.head.values[: self.kept])

    @cached_property
    def count(self) -> int:
        """How many tokens are left."""
        left = self.base if self.kept is None else self.head.values[: self.kept]
        return int((~left.isneginf()).sum())

    def share_cut(self, before: "Level") -> float:
        """How much of the probability that another level holds is in tokens that are cut here."""
        if self.base is before.base:
            return max(0.0, -math.expm1(float(self.log_mass - before.log_mass)))
        gone = self.logits.isneginf().nonzero()[:, 0]
        return float(before.probability(gone).sum(dtype=torch.float64))

    def probability(self, ids: Tensor) -> Tensor:
        """Of some tokens; 0 where they are cut."""
        base = self.base[ids]
        probabilities = (base - self.log_mass).exp()
        return probabilities if self.kept is None else probabilities.masked_fill(base < self.floor, 0.0)

    def lacks(self, ids: Tensor) -> Tensor:
        """Which of some tokens are cut."""
        base = self.base[ids]
        return base.isneginf() if self.kept is None else (base < self.floor) | base.isneginf()


class Distribution:
    """One step's logits after each stage that acted; all tensors are float32 `[vocabulary]`.

    Attributes:
        levels: the network's own logits, then what each stage left, in order.
        others: logits of the text that guidance pushes away from; `None` where there is none.
        amateur: logits of a second model whose opinion is taken off; `None` where there is none.
    """

    def __init__(self, raw: Tensor, chain: Sequence[tuple[Stage, Mapping[str, Any]]], reading: Reading) -> None:
        self.others = reading.beside.get("guidance")
        self.amateur = reading.beside.get("amateur")
        level = Level(None, raw, Head(raw))
        levels = [level]
        for stage, settings in chain:
            if stage.reads != "nothing" and reading.text is None:
                continue
            if stage.needs and reading.beside.get(stage.name) is None:
                continue
            level = _after(level, stage, settings, reading)
            levels.append(level)
        self.levels: tuple[Level, ...] = tuple(levels)

    # Stages.

    @property
    def raw(self) -> Tensor:
        """As the network gave them."""
        return self.levels[0].base

    @property
    def last(self) -> Level:
        """What the strategy picks from."""
        return self.levels[-1]

    def after(self, *groups: Group) -> Level:
        """What the last stage of some groups left; the network's own logits where none of them acted."""
        return next(
            (level for level in reversed(self.levels) if level.stage is not None and level.stage.group in groups),
            self.levels[0],
        )

    def at(self, stage: str) -> Level:
        """What a stage left, by its name or that of its group; the last level for one that did not act."""
        named = {level.stage.name: level for level in self.levels if level.stage is not None}
        others = {"raw": self.levels[0], "penalty": self._penalised, "temperature": self._tempered}
        return (others | named).get(stage, self.last)

    def acted(self, group: Group) -> bool:
        """Whether a stage of a group did."""
        return any(level.stage is not None and level.stage.group == group for level in self.levels)

    @property
    def by_grammar(self) -> bool:
        """Whether the grammar left one token alone."""
        return self.acted("grammar") and self.after("grammar").count == 1

    @property
    def guided(self) -> Tensor:
        """After guidance, and what comes before it."""
        return self.after("grammar", "guidance").logits

    @property
    def less_amateur(self) -> Tensor:
        """After an amateur's opinion was taken off; −inf where its cut removed a token."""
        return self._less_amateur.logits

    @cached_property
    def _less_amateur(self) -> Level:
        return self.after("grammar", "guidance", "amateur")

    @property
    def penalised(self) -> Tensor:
        """After biases, bans and penalties."""
        return self._penalised.logits

    @cached_property
    def _penalised(self) -> Level:
        return self.after("grammar", "guidance", "amateur", "penalty")

    @property
    def tempered(self) -> Tensor:
        """After temperature, and what comes before it."""
        return self._tempered.logits

    @cached_property
    def _tempered(self) -> Level:
        return self.after("grammar", "guidance", "amateur", "penalty", "temperature")

    @property
    def final(self) -> Tensor:
        """Logits after all stages; −inf where a token was cut."""
        return self.last.logits

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of `final`: what the strategy picks from."""
        return self.final.softmax(0)

    @property
    def survivors(self) -> tuple[Tensor | None, Tensor]:
        """Ids and probabilities of the tokens left, `[kept]`; ids are `None` for the whole vocabulary in order."""
        kept, head = self.last.kept, self.last.head
        if kept is None:
            return None, self.probabilities
        return head.ids[:kept], head.values[:kept].softmax(0)

    # Single tokens.

    @property
    def top(self) -> int:
        """The most probable token; the lowest id among equals."""
        values = self.last.head.values
        if len(values) > 1 and values[0] == values[1]:
            return int(self.last.base.argmax())
        return int(self.last.head.ids[0])

    def most_probable(self, count: int) -> Tensor:
        """Ids of the most probable tokens by raw logits, in order, `[count]`."""
        raw, last = self.levels[0].head, self.last.head
        if raw.knows(count, last):
            return last.ids[:count]
        return self.raw.topk(min(count, self.raw.numel())).indices

    def most_probable_tempered(self, count: int) -> tuple[Tensor, Tensor]:
        """Ids and probabilities of the most probable tokens after all stages, in order, `[count]` each."""
        head = self.last.head
        if count > len(head.ids):
            head.sort(count)
        ids = head.ids[:count]
        return ids, self.probability(ids)

    def raw_probability(self, ids: Tensor) -> Tensor:
        """Raw probabilities of some tokens."""
        return self.levels[0].probability(ids)

    def guided_probability(self, ids: Tensor) -> Tensor:
        """Probabilities of some tokens after guidance."""
        return self.after("grammar", "guidance").probability(ids)

    def less_amateur_probability(self, ids: Tensor) -> Tensor:
        """Probabilities of some tokens after the amateur's opinion was taken off."""
        return self._less_amateur.probability(ids)

    def penalised_probability(self, ids: Tensor) -> Tensor:
        """Probabilities of some tokens after biases and penalties."""
        return self._penalised.probability(ids)

    def tempered_probability(self, ids: Tensor) -> Tensor:
        """Probabilities of some tokens after temperature."""
        return self._tempered.probability(ids)

    def probability(self, ids: Tensor) -> Tensor:
        """Final probabilities of some tokens; 0 where they were cut."""
        return self.last.probability(ids)

    def rank(self, id: int) -> int:
        """Rank of a token in the raw distribution, from 1; equals share the better rank."""
        return self.ranks(torch.tensor([id]))[0]

    def ranks(self, ids: Tensor) -> list[int]:
        """Ranks of some tokens in the raw distribution, from 1."""
        values = self.raw[ids]
        if self.levels[0].head.knows(0, self.last.head):
            head = self.levels[0].head.values  # in order, most probable first
            places = torch.searchsorted(-head, -values)
        else:
            head = values[:0]
            places = torch.zeros(len(values), dtype=torch.long)
        return [
            int((self.raw > value).sum()) + 1 if place == len(head) else place + 1
            for place, value in zip(places.tolist(), values)
        ]

    def cut_by(self, ids: Tensor) -> list[str | None]:
        """For each token what removed it: the rule of the first stage that did; `None` if it survived."""
        found: list[str | None] = [None] * len(ids)
        for level in self.levels:
            if level.stage is not None and (level.stage.cuts or level.stage.truncates):
                for index, gone in enumerate(level.lacks(ids).tolist()):
                    if gone and found[index] is None:
                        found[index] = level.stage.cut_rule
        return found

    # Numbers about the whole.

    @property
    def entropy_bits(self) -> float:
        """Entropy of the raw distribution."""
        return self.levels[0].entropy_bits

    @property
    def final_entropy_bits(self) -> float:
        """Entropy of the final distribution."""
        return self.last.entropy_bits

    @property
    def kept(self) -> int:
        """How many tokens the stages left."""
        cut = any(level.stage is not None and (level.stage.cuts or level.stage.truncates) for level in self.levels)
        return self.last.count if cut else self.raw.numel()

    @property
    def cut_mass(self) -> float:
        """Probability that the truncations removed, each of what was left before it."""
        left = 0.0
        before: Level | None = None  # the level in front of a row of truncations
        for level, following in zip(self.levels, (*self.levels[1:], None)):
            if before is not None and not _is_truncation(following):
                left += float(level.log_mass - before.log_mass)
                before = None
            elif before is None and _is_truncation(following):
                before = level
        return max(0.0, 1.0 - math.exp(left))


def distribution(
    logits: Tensor,
    context: Tensor | None,
    config: GenerationConfig,
    others: Tensor | None = None,
    amateur: Tensor | None = None,
    *,
    prompt: int = 0,
    carried: Mapping[str, float] | None = None,
    tokenizer: Tokenizer | None = None,
    allowed: Tensor | None = None,
) -> Distribution:
    """All stages for one step of one lane.

    Args:
        logits: `[vocabulary]`, as the network gave them.
        context: ids of the prompt and what is written so far, `[length]`; only penalties read it, and none of them acts
            without it.
        config: the lane's settings. For contrastive search `top_k` is the number of
            candidates, not a truncation.
        others: logits of the text that guidance pushes away from, `[vocabulary]`; no guidance without them.
        amateur: logits of the configuration's second model, `[its vocabulary]`; nothing is taken off without them.
        prompt: how many of `context` are the prompt's.
        carried: see `Reading`; as before a first step by default.
        tokenizer: for stages that read what tokens spell, or which of them end a text.
        allowed: which tokens the configuration's grammar lets through, `[vocabulary]` of bool; all without it.
    """
    beside = {"grammar": allowed, "guidance": others, "amateur": amateur}
    reading = Reading(context, prompt, beside, carried_at(config, 0) if carried is None else carried, tokenizer)
    return Distribution(logits.float(), chain_of(config), reading)


def _after(level: Level, stage: Stage, settings: Mapping[str, Any], reading: Reading) -> Level:
    """What a stage leaves of what came before it."""
    if stage.keep is not None:
        left = Ordered(level)
        kept = min(left.kept, stage.keep(left, reading, **settings))
        return Level(stage, level.base, level.head, kept if kept < level.base.numel() else None)
    assert stage.change is not None
    if stage.keeps_order:
        reading.left = lambda: level.logits
        base = stage.change(level.base, reading, **settings)
        return Level(stage, base, Head(base, level.head), level.kept)
    base = stage.change(level.logits, reading, **settings)
    if stage.cuts and bool(base.max().isneginf()):
        raise InputError(_("{stage} leaves no token that could come; loosen it", stage=_(stage.title)))
    return Level(stage, base, Head(base))


def _is_truncation(level: Level | None) -> bool:
    return level is not None and level.stage is not None and level.stage.group == "truncation"


def _summary(logits: Tensor) -> tuple[Tensor, float]:
    """Logsumexp of `logits`, and the entropy in bits of their softmax."""
    below = logits - logits.max()
    weights = below.exp()
    mass = weights.sum()
    log_mass = mass.log()
    nats = float(log_mass - torch.dot(weights, below) / mass)
    if math.isnan(nats):  # a logit of −inf: 0 · −inf
        nats = float(log_mass - (weights * below).nansum() / mass)
    return log_mass + logits.max(), max(0.0, nats / math.log(2))
