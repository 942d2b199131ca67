"""From logits to the distribution a strategy picks from, stage by stage.

raw → repetition penalty → temperature → truncation → final. Definitions and order are
those of transformers' logits processors, which the tests use as the oracle.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import GenerationConfig

# Most cuts fall within the most probable tokens; sorting only those is ten times cheaper
# than sorting a vocabulary of 50,000.
SORTED_HEAD = 1024


@dataclass(frozen=True, slots=True)
class Distribution:
    """One step's logits after each stage; all tensors are float32 `[vocabulary]`.

    Attributes:
        raw: as the network gave them.
        penalised: after the repetition penalty.
        tempered: after temperature.
        final: after truncation; −inf where a token was cut.
        cuts: each truncation that acted, with the mask of the tokens it removed, in order.
        probabilities: softmax of `final`.
        raw_log_probabilities: log-softmax of `raw`, in nats.
    """

    raw: Tensor
    penalised: Tensor
    tempered: Tensor
    final: Tensor
    cuts: tuple[tuple[str, Tensor], ...]
    probabilities: Tensor
    raw_log_probabilities: Tensor

    def cut_by(self, id: int) -> str | None:
        """The truncation that removed token `id`, or `None` if it survived."""
        return next((rule for rule, removed in self.cuts if removed[id]), None)

    def rank(self, id: int) -> int:
        """Rank of token `id` in the raw distribution, from 1."""
        return int((self.raw > self.raw[id]).sum()) + 1

    @property
    def entropy_bits(self) -> float:
        """Entropy of the raw distribution."""
        return entropy_bits(self.raw_log_probabilities)

    @property
    def final_entropy_bits(self) -> float:
        """Entropy of the final distribution."""
        if self.final is self.raw:
            return self.entropy_bits
        return float(torch.special.entr(self.probabilities).sum()) / math.log(2)

    @property
    def kept(self) -> int:
        """How many tokens survived the truncations."""
        return self.final.numel() - sum(int(removed.sum()) for _, removed in self.cuts)

    @property
    def cut_mass(self) -> float:
        """Probability, after temperature, that the truncations removed."""
        if not self.cuts:
            return 0.0
        survivors = self.tempered.masked_fill(self.final.isneginf(), -math.inf)
        return max(0.0, 1.0 - float((survivors.logsumexp(0) - self.tempered.logsumexp(0)).exp()))


def entropy_bits(log_probabilities: Tensor) -> float:
    """Entropy −Σ p log₂ p of natural log-probabilities `[vocabulary]`."""
    return -float((log_probabilities.exp() * log_probabilities).nansum()) / math.log(2)


def distribution(logits: Tensor, context: Tensor | None, config: GenerationConfig) -> Distribution:
    """All stages for one step of one lane.

    Args:
        logits: `[vocabulary]`, as the network gave them.
        context: ids of the prompt and what is written so far, `[length]`; only the
            repetition penalty reads it.
        config: the lane's settings. For contrastive search `top_k` is the number of
            candidates, not a truncation.
    """
    raw = logits.float()
    penalised = raw
    if config.repetition_penalty != 1 and context is not None:
        penalised = penalise(raw, context, config.repetition_penalty)
    tempered = penalised if config.temperature == 1 else penalised / config.temperature
    final, cuts = truncate(tempered, config)
    return Distribution(
        raw=raw,
        penalised=penalised,
        tempered=tempered,
        final=final,
        cuts=cuts,
        probabilities=final.softmax(0),
        raw_log_probabilities=raw.log_softmax(0),
    )


def penalise(logits: Tensor, context: Tensor, penalty: float) -> Tensor:
    """Repetition penalty (Keskar et al. 2019, CTRL): divide positive, multiply negative logits."""
    present = context.unique()
    scores = logits[present]
    return logits.index_put((present,), torch.where(scores < 0, scores * penalty, scores / penalty))


def truncate(tempered: Tensor, config: GenerationConfig) -> tuple[Tensor, tuple[tuple[str, Tensor], ...]]:
    """Apply top-k, top-p, min-p and typical-p in this order, each to what the last one left.

    Returns:
        The logits with −inf where a token was cut, and for each rule that is set the mask
        of the tokens it removed.
    """
    final = tempered
    cuts: list[tuple[str, Tensor]] = []

    def cut(rule: str, removed: Tensor) -> None:
        nonlocal final
        cuts.append((rule, removed))
        final = final.masked_fill(removed, -math.inf)

    if config.top_k is not None and config.strategy != "contrastive" and config.top_k < final.numel():
        cut("top_k", final < final.topk(config.top_k).values[-1])
    if config.top_p is not None and config.top_p < 1:
        cut("top_p", _outside_top_p(final, config.top_p) & ~final.isneginf())
    if config.min_p is not None:
        probabilities = final.softmax(0)
        cut("min_p", (probabilities < config.min_p * probabilities.max()) & ~final.isneginf())
    if config.typical_p is not None and config.typical_p < 1:
        cut("typical_p", _atypical(final, config.typical_p) & ~final.isneginf())
    return final, tuple(cuts)


def _outside_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Nucleus sampling (Holtzman et al. 2020): a token stays while the mass above it is below p."""
    probabilities = logits.softmax(0)
    head = probabilities.topk(min(SORTED_HEAD, probabilities.numel()))
    if head.values.sum() < top_p:
        head = probabilities.sort(descending=True, stable=True)
    above = head.values.cumsum(0) - head.values
    kept = above < top_p
    kept[0] = True
    removed = torch.ones_like(logits, dtype=torch.bool)
    removed[head.indices[kept]] = False
    return removed


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
