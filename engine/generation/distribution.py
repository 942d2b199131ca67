"""From logits to the distribution a strategy picks from, stage by stage.

raw → guidance → less an amateur's → biases and repetition penalty → temperature → truncation → final. Definitions and
order are those of transformers' logits processors, which the tests use as the oracle; the amateur's is in `amateur`.

Top-k, top-p and min-p keep the first n tokens in order of probability, so a partial sort of the
most probable ones decides them; no stage sorts the whole vocabulary unless it must.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from engine.base.errors import InputError
from engine.base.language import _
from engine.generation.amateur import less_amateur
from engine.generation.config import GenerationConfig

# How many of the most probable tokens are sorted first. Where a cut lies deeper, all whose logit is so far below
# the highest one are sorted; the last resort is the whole vocabulary.
HEAD = 64
REACHES = (9.0, 11.0, 14.0, math.inf)


@dataclass(frozen=True, slots=True)
class Cut:
    """What one truncation rule removed.

    Attributes:
        rule: `top_k`, `top_p`, `min_p` or `typical_p`.
        floor: tokens with a tempered logit below this went; for `typical_p` unused.
        removed: for `typical_p`, the mask of the removed tokens, `[vocabulary]`.
    """

    rule: str
    floor: float = -math.inf
    removed: Tensor | None = None

    def removes(self, ids: Tensor | slice, tempered: Tensor) -> Tensor:
        """Which of these tokens this rule alone removes."""
        return self.removed[ids] if self.removed is not None else tempered[ids] < self.floor


class Distribution:
    """One step's logits after each stage; all tensors are float32 `[vocabulary]`.

    Attributes:
        raw: as the network gave them.
        guided: after classifier-free guidance.
        others: logits of the text that guidance pushes away from; `None` where there is none.
        less_amateur: after an amateur's opinion was taken off; −inf where its cut removed a token.
        amateur: logits of that second model; `None` where there is none.
        penalised: after biases, bans and the repetition penalty.
        tempered: after temperature.
        cuts: the truncations that acted, in order.
    """

    def __init__(
        self,
        raw: Tensor,
        penalised: Tensor,
        tempered: Tensor,
        config: GenerationConfig,
        guided: Tensor | None = None,
        others: Tensor | None = None,
        less_amateur: Tensor | None = None,
        amateur: Tensor | None = None,
    ) -> None:
        self.raw = raw
        self.guided = raw if guided is None else guided
        self.others = others
        self.less_amateur = self.guided if less_amateur is None else less_amateur
        self.amateur = amateur
        self.penalised = penalised
        self.tempered = tempered
        self._sort(HEAD)
        self.cuts: tuple[Cut, ...] = ()
        self._banned = frozenset(config.banned)
        self._kept: int | None = None  # survivors are the first so many of the head; None: those that `final` tells
        self._truncate(config)

    # Stages.

    @cached_property
    def final(self) -> Tensor:
        """Logits after truncation; −inf where a token was cut."""
        final = self.tempered
        for cut in self.cuts:
            final = final.masked_fill(cut.removes(slice(None), self.tempered), -math.inf)
        return final

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of `final`: what the strategy picks from."""
        return self.final.softmax(0)

    @property
    def survivors(self) -> tuple[Tensor | None, Tensor]:
        """Ids and probabilities of the tokens left, `[kept]`; ids are `None` for the whole vocabulary in order."""
        if self._kept is None:
            return None, self.probabilities
        return self._ids[: self._kept], self._values[: self._kept].softmax(0)

    # Single tokens.

    @property
    def top(self) -> int:
        """The most probable token; the lowest id among equals."""
        if len(self._values) > 1 and self._values[0] == self._values[1]:
            return int(self.tempered.argmax())
        return int(self._ids[0])

    def most_probable(self, count: int) -> Tensor:
        """Ids of the most probable tokens by raw logits, in order, `[count]`."""
        if self.penalised is self.raw and count <= len(self._ids):
            return self._ids[:count]
        return self.raw.topk(min(count, self.raw.numel())).indices

    def most_probable_tempered(self, count: int) -> tuple[Tensor, Tensor]:
        """Ids and probabilities of the most probable tokens after temperature, in order, `[count]` each."""
        if count > len(self._ids):
            self._sort(count)
        ids = self._ids[:count]
        return ids, self.probability(ids)

    def raw_probability(self, ids: Tensor) -> Tensor:
        """Raw probabilities of some tokens."""
        return (self.raw[ids] - self._raw_log_mass).exp()

    def guided_probability(self, ids: Tensor) -> Tensor:
        """Probabilities of some tokens after guidance."""
        return (self.guided[ids] - self._guided_log_mass).exp()

    def less_amateur_probability(self, ids: Tensor) -> Tensor:
        """Probabilities of some tokens after the amateur's opinion was taken off."""
        return (self.less_amateur[ids] - self._less_amateur_log_mass).exp()

    def penalised_probability(self, ids: Tensor) -> Tensor:
        """Probabilities of some tokens after biases and the repetition penalty."""
        return (self.penalised[ids] - self._penalised_log_mass).exp()

    def tempered_probability(self, ids: Tensor) -> Tensor:
        """Probabilities of some tokens after temperature, before truncation."""
        return (self.tempered[ids] - self._tempered_log_mass).exp()

    def probability(self, ids: Tensor) -> Tensor:
        """Final probabilities of some tokens; 0 where they were cut."""
        probabilities = (self.tempered[ids] - self._final_log_mass).exp()
        for cut in self.cuts:
            probabilities = probabilities.masked_fill(cut.removes(ids, self.tempered), 0.0)
        return probabilities

    def rank(self, id: int) -> int:
        """Rank of a token in the raw distribution, from 1; equals share the better rank."""
        return self.ranks(torch.tensor([id]))[0]

    def ranks(self, ids: Tensor) -> list[int]:
        """Ranks of some tokens in the raw distribution, from 1."""
        values = self.raw[ids]
        if self.penalised is self.raw:
            head = self.raw[self._ids]  # in order, most probable first
            places = torch.searchsorted(-head, -values)
        else:
            head = values[:0]
            places = torch.zeros(len(values), dtype=torch.long)
        return [
            int((self.raw > value).sum()) + 1 if place == len(head) else place + 1
            for place, value in zip(places.tolist(), values)
        ]

    def cut_by(self, ids: Tensor) -> list[str | None]:
        """For each token what removed it: a ban, the amateur's cut or the first truncation that did; `None` if it
        survived."""
        removed = [(cut.rule, cut.removes(ids, self.tempered).tolist()) for cut in self.cuts]
        if self._amateur_cuts:
            removed.insert(0, ("amateur", self.less_amateur[ids].isneginf().tolist()))
        if self._banned:
            removed.insert(0, ("banned", [id in self._banned for id in ids.tolist()]))
        return [next((rule for rule, mask in removed if mask[index]), None) for index in range(len(ids))]

    # Numbers about the whole.

    @property
    def entropy_bits(self) -> float:
        """Entropy of the raw distribution."""
        return self._raw_summary[1]

    @cached_property
    def final_entropy_bits(self) -> float:
        """Entropy of the final distribution."""
        if self._kept is not None:
            return _summary(self._values[: self._kept])[1]
        return _summary(self.final)[1] if self.cuts else self._tempered_summary[1]

    @property
    def kept(self) -> int:
        """How many tokens bans, an amateur's cut and truncations left."""
        if self._banned or self._amateur_cuts:
            return int((~self.final.isneginf()).sum())
        if self._kept is not None:
            return self._kept
        return self.tempered.numel() if not self.cuts else int((~self.final.isneginf()).sum())

    @property
    def _amateur_cuts(self) -> bool:
        return self.less_amateur is not self.guided

    @property
    def cut_mass(self) -> float:
        """Probability, after temperature, that the truncations removed."""
        if not self.cuts:
            return 0.0
        return max(0.0, 1.0 - math.exp(float(self._final_log_mass - self._tempered_log_mass)))

    @property
    def _raw_log_mass(self) -> Tensor:
        return self._raw_summary[0]

    @property
    def _penalised_log_mass(self) -> Tensor:
        return self._penalised_summary[0]

    @property
    def _tempered_log_mass(self) -> Tensor:
        return self._tempered_summary[0]

    @cached_property
    def _final_log_mass(self) -> Tensor:
        if self._kept is not None:
            return self._values[: self._kept].logsumexp(0)
        return self.final.logsumexp(0) if self.cuts else self._tempered_log_mass

    @cached_property
    def _raw_summary(self) -> tuple[Tensor, float]:
        return _summary(self.raw)

    @cached_property
    def _guided_log_mass(self) -> Tensor:
        return self._raw_log_mass if self.guided is self.raw else self.guided.logsumexp(0)

    @cached_property
    def _less_amateur_log_mass(self) -> Tensor:
        same = self.less_amateur is self.guided
        return self._guided_log_mass if same else self.less_amateur.logsumexp(0)

    @cached_property
    def _penalised_summary(self) -> tuple[Tensor, float]:
        return self._raw_summary if self.penalised is self.raw else _summary(self.penalised)

    @cached_property
    def _tempered_summary(self) -> tuple[Tensor, float]:
        return self._penalised_summary if self.tempered is self.penalised else _summary(self.tempered)

    # Truncation.

    def _sort(self, count: int) -> None:
        head = self.tempered.topk(min(count, self.tempered.numel()))
        self._values, self._ids = head.values, head.indices

    def _sort_deeper(self) -> None:
        """Sort all that lie within the next reach of the most probable one."""
        for reach in REACHES:
            ids = (self.tempered >= self._values[0] - reach).nonzero()[:, 0]
            if len(ids) > len(self._ids):
                head = self.tempered[ids].sort(descending=True, stable=True)
                self._values, self._ids = head.values, ids[head.indices]
                return

    def _truncate(self, config: GenerationConfig) -> None:
        """Top-k, top-p, min-p, then typical-p, each on what the last one left."""
        cuts: list[Cut] = []
        size = self.tempered.numel()
        kept = size
        if config.top_k is not None and config.strategy != "contrastive" and config.top_k < size:
            if config.top_k >= len(self._ids):
                self._sort(config.top_k + 1)
            floor = self._values[config.top_k - 1]
            # Tokens that tie with the last one stay, as in transformers.
            kept = int((self._values >= floor).sum())
            cuts.append(Cut("top_k", float(floor)))
        if config.top_p is not None and config.top_p < 1:
            kept = min(kept, self._nucleus(config.top_p, kept))
            cuts.append(Cut("top_p", float(self._values[kept - 1])))
        if config.min_p is not None and config.min_p > 0:
            floor = self._values[0] + math.log(config.min_p)
            while kept > len(self._ids) and self._values[-1] >= floor:
                self._sort(8 * len(self._ids))
            kept = min(kept, max(1, int((self._values >= floor).sum())))
            cuts.append(Cut("min_p", float(self._values[kept - 1])))
        self.cuts = tuple(cuts)
        self._kept = kept if cuts else None
        if config.typical_p is not None and config.typical_p < 1:
            removed = _atypical(self.final, config.typical_p) & ~self.final.isneginf()
            self.cuts = (*cuts, Cut("typical_p", removed=removed))
            self._kept = None
            del self.final

    def _nucleus(self, top_p: float, kept: int) -> int:
        """Nucleus sampling (Holtzman et al. 2020): a token stays while the mass above it is below p."""
        while True:
            values = self._values[:kept]
            mass = self._tempered_log_mass if kept > len(self._ids) else values.logsumexp(0)
            probabilities = (values - mass).exp()
            above = probabilities.cumsum(0) - probabilities
            count = max(1, int((above < top_p).sum()))
            if count < len(values) or kept <= len(self._ids):
                return count
            self._sort_deeper()


def distribution(
    logits: Tensor,
    context: Tensor | None,
    config: GenerationConfig,
    others: Tensor | None = None,
    amateur: Tensor | None = None,
) -> Distribution:
    """All stages for one step of one lane.

    Args:
        logits: `[vocabulary]`, as the network gave them.
        context: ids of the prompt and what is written so far, `[length]`; only the
            repetition penalty reads it.
        config: the lane's settings. For contrastive search `top_k` is the number of
            candidates, not a truncation.
        others: logits of the text that guidance pushes away from, `[vocabulary]`; no guidance without them.
        amateur: logits of the configuration's second model, `[its vocabulary]`; nothing is taken off without them.
    """
    raw = logits.float()
    pushed = raw if others is None or config.guidance_scale == 1 else guided(raw, others, config.guidance_scale)
    less = pushed
    if amateur is not None and config.amateur is not None:
        less = less_amateur(pushed, amateur, config.amateur_weight, config.amateur_cut, config.banned)
    penalised = less
    if config.logit_bias or config.banned:
        penalised = biased(less, config)
    if config.repetition_penalty != 1 and context is not None:
        penalised = penalise(penalised, context, config.repetition_penalty)
    tempered = penalised if config.temperature == 1 else penalised / config.temperature
    return Distribution(raw, penalised, tempered, config, pushed, others, less, amateur)


def guided(logits: Tensor, others: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: see `engine.generation.guidance`. `[vocabulary]` each."""
    own, other = logits.log_softmax(0), others.float().log_softmax(0)
    return scale * (own - other) + other


def biased(logits: Tensor, config: GenerationConfig) -> Tensor:
    """Logits with the configuration's biases added and its banned tokens at −inf.

    Raises:
        InputError: an id that the vocabulary lacks, or nothing left that is not banned.
    """
    pairs = [*config.logit_bias, *((id, -math.inf) for id in config.banned)]
    ids = torch.tensor([id for id, _ in pairs])
    size = logits.numel()
    if int(ids.max()) >= size:
        raise InputError(
            _("token {id:,} cannot be biased: the vocabulary has {size:,} entries", id=int(ids.max()), size=size)
        )
    result = logits.index_add(0, ids, torch.tensor([bias for _, bias in pairs]))
    if config.banned and bool(result.isneginf().all()):
        raise InputError(_("every token is banned; allow at least one"))
    return result


def penalise(logits: Tensor, context: Tensor, penalty: float) -> Tensor:
    """Repetition penalty (Keskar et al. 2019, CTRL): divide positive, multiply negative logits."""
    present = context.unique()
    scores = logits[present]
    return logits.index_put((present,), torch.where(scores < 0, scores * penalty, scores / penalty))


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


def _atypical(logits: Tensor, mass: float) -> Tensor:
    """Locally typical sampling (Meister et al. 2022): surprisal far from the entropy is dropped."""
    log_probabilities = logits.log_softmax(0)
    probabilities = log_probabilities.exp()
    entropy = -(log_probabilities * probabilities).nansum()
    distance = (-log_probabilities - entropy).abs()
    nearest = distance.sort()
    cumulative = probabilities[nearest.indices].cumsum(0)
    last = min(int((cumulative < mass).sum()), logits.numel() - 1)
    return distance > nearest.values[last]
