"""One step as far as a server lists it: some candidates, how much of the mass they hold, and what follows from that.

A stage is shown only where its numbers follow from the listed candidates. Each token that is not listed is at most as
probable as the last one that is, and all of them hold the rest of the mass; that decides many a truncation.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from engine.base.errors import InputError
from engine.base.language import _
from engine.generation.config import GenerationConfig
from engine.generation.events import STAGES, Candidate, Stage, Stepped
from engine.generation.stages.order import chain_of
from engine.models.capabilities import Capabilities


class ServedInspection:
    """What `engine.generation.inspection.Inspection` is, for a step of which a server lists some candidates only.

    Attributes:
        coverage: how much is known, in words
        stages: those of `STAGES` whose numbers follow from what is known.
    """

    entropy_bits = final_entropy_bits = cut_mass = None
    movable = ()

    def __init__(
        self, step: Stepped, config: GenerationConfig, capabilities: Capabilities, ran: GenerationConfig | None = None
    ) -> None:
        self.step = step
        self.config = config
        self._capabilities = capabilities
        self._ran = ran or config
        known = step.candidates
        mass = sum(c.raw_probability or c.probability or 0.0 for c in known)
        self.coverage = capabilities.coverage(len(known), mass)
        if not capabilities.raw:
            self._distribution = None
            self.stages: tuple[Stage, ...] = ("pick",) if known else ()
            self._candidates = known
            return
        self._distribution = PartialDistribution.of(known, config, capabilities)
        self.stages = tuple(stage for stage in STAGES if self._distribution.knows(stage)) if known else ()
        self._candidates = self._distribution.candidates()

    def __len__(self) -> int:
        """Candidates that are known."""
        return len(self._candidates)

    @property
    def lacking(self) -> str:
        """Why some stages are not shown, in one sentence; empty when all are."""
        if not self._capabilities.raw:
            return _("this server tells what its settings left, and not what was before them")
        if len(self.stages) == len(STAGES) or not self.stages:
            return ""
        if self.config.constraint is not None:
            return _("this server does not tell what its grammar cut")
        return _("what is missing needs more than the top {count}", count=len(self))

    @property
    def kept(self) -> int | None:
        """How many tokens the truncations left; `None` where that is not known, or nothing was cut."""
        survivors = self._distribution.survivors if self._distribution is not None else None
        return len(survivors.ids) if survivors is not None and survivors.beyond == "none" else None

    @property
    def choice(self) -> Candidate | None:
        """What greedy decoding picks; `None` where that is not known, and for sampling."""
        if self.config.strategy != "greedy" or "pick" not in self.stages or self._distribution is None:
            return None
        return max(self._candidates, key=lambda candidate: candidate.probability or 0.0)

    def at(self, start: int, stop: int) -> tuple[Candidate, ...]:
        """Candidates by rank, `start` from 0."""
        return self._candidates[start:stop]

    def place(self, candidate: Candidate) -> int | None:
        """Where a candidate is in the order of `at`, from 0; `None` where it is not listed."""
        return next((place for place, one in enumerate(self._candidates) if one.id == candidate.id), None)

    def of(self, ids: Sequence[int]) -> tuple[Candidate, ...]:
        """Those of these that are known."""
        return tuple(candidate for id in ids for candidate in self._candidates if candidate.id == id)

    def cut_at(self, stage: Stage) -> None:
        """Not known: what the truncations left is, and what each of them cut is not."""

    def touched(self, id: int, stage: Stage) -> str:
        """Not known."""
        return ""

    def mass(self, start: int, stage: Stage) -> float:
        """Probability of the listed candidates from a rank on, after a known stage; `start` from 0."""
        return math.fsum(candidate.after(stage) or 0.0 for candidate in self._candidates[start:])

    def find(self, text: str, limit: int = 200) -> tuple[Candidate, ...]:
        """Candidates whose text holds `text`, or whose id it is."""
        return tuple(c for c in self._candidates if text in c.text or text == str(c.id))[:limit]

    def under(self, config: GenerationConfig) -> "ServedInspection":
        """The same step under other settings, as far as they can be followed.

        Raises:
            InputError: the server does not know them, or tells only what its own settings left.
        """
        self._capabilities.check(config)
        if not self._capabilities.raw and config != self._ran:
            raise InputError(
                _("this server tells only what its settings left; start it so that it tells raw log-probabilities")
            )
        return ServedInspection(self.step, config, self._capabilities, self._ran)


@dataclass(frozen=True)
class Survivors:
    """The tokens that the truncations left.

    Attributes:
        ids: those that are certain, the most probable first.
        beyond: of the tokens that come after these, the truncations left `all` (none of them cut anything), `some`
            (how many does not follow from what is listed), or `none`.
        cut_by: what cut each listed token that is gone.
    """

    ids: tuple[int, ...]
    beyond: Literal["all", "some", "none"]
    cut_by: dict[int, str]


@dataclass(frozen=True)
class PartialDistribution:
    """The distribution of a step as far as it is known.

    Attributes:
        listed: the candidates that the server lists, by raw rank.
        rest: mass of the tokens that are not listed.
        bound: log-probability that none of these exceeds.
    """

    listed: tuple[Candidate, ...]
    config: GenerationConfig
    rest: float
    bound: float
    min_p_first: bool

    @classmethod
    def of(
        cls, listed: tuple[Candidate, ...], config: GenerationConfig, capabilities: Capabilities
    ) -> "PartialDistribution":
        probabilities = [candidate.raw_probability or 0.0 for candidate in listed]
        whole = 0 < capabilities.vocabulary_size <= len(listed)
        return cls(
            listed,
            config,
            0.0 if whole else max(0.0, 1.0 - math.fsum(probabilities)),
            -math.inf if whole or not listed else _log(min(probabilities)),
            capabilities.min_p_first,
        )

    def knows(self, stage: Stage) -> bool:
        """Whether the numbers of a stage are known."""
        match stage:
            case "raw":
                return True
            case _ if self.config.order not in ((), ("vllm",)):
                return False  # followed in the order of transformers and of vLLM alone
            case "penalty":
                return self.penalty_known
            case "temperature":
                return self.temperature_known
            case "truncation" | "pick":
                return self.final is not None
        return False

    @cached_property
    def penalty_known(self) -> bool:
        """A penalty needs logits themselves; a bias, the probability of the token that it moves."""
        moved = {id for id, _bias in self.config.logit_bias} | set(self.config.banned)
        if self._acting("grammar"):
            return False
        return not self._acting("penalty") - {"bias"} and moved <= {candidate.id for candidate in self.listed}

    @property
    def temperature_known(self) -> bool:
        """A temperature moves every token, and with them the mass that all are divided by."""
        known = self.config.temperature == 1 or self.bound == -math.inf
        return self.penalty_known and known and self._acting("temperature") <= {"temperature"}

    def _acting(self, group: str) -> set[str]:
        """Names of the stages of a group that act."""
        return {stage.name for stage, _settings in chain_of(self.config) if stage.group == group}

    @cached_property
    def penalised(self) -> dict[int, float]:
        """Log-probabilities after biases and bans, not yet divided by their mass."""
        return {
            candidate.id: _log(candidate.raw_probability or 0.0) + self.config.bias_of(candidate.id)
            for candidate in self.listed
        }

    @cached_property
    def tempered(self) -> dict[int, float]:
        """The same divided by the temperature."""
        return {id: value / self.config.temperature for id, value in self.penalised.items()}

    @cached_property
    def tempered_bound(self) -> float:
        """What no token that is not listed exceeds in `tempered`."""
        return self.bound / self.config.temperature

    @cached_property
    def penalised_mass(self) -> float:
        return self.rest + math.fsum(map(math.exp, self.penalised.values()))

    @cached_property
    def tempered_probabilities(self) -> dict[int, float]:
        """After the temperature, where `temperature_known`."""
        if self.config.temperature == 1:
            return {id: math.exp(value) / self.penalised_mass for id, value in self.penalised.items()}
        return self._shared_out(self.tempered)  # there is no rest

    def _shared_out(self, ids: Iterable[int]) -> dict[int, float]:
        """Softmax over some of the tokens."""
        values = {id: self.tempered[id] for id in ids}
        highest = max(values.values())
        weights = {id: math.exp(value - highest) for id, value in values.items()}
        mass = math.fsum(weights.values())
        return {id: weight / mass for id, weight in weights.items()}

    @cached_property
    def survivors(self) -> Survivors | None:
        """What the truncations left and cut; `None` where the listed candidates do not decide it."""
        config = self.config
        if not self.penalty_known or self._acting("truncation") - {"top_k", "top_p", "min_p"}:
            return None
        possible = [id for id, value in self.tempered.items() if value > -math.inf]
        leading = [id for id in possible if self.tempered[id] >= self.tempered_bound]  # all others come after these
        leading.sort(key=lambda id: -self.tempered[id])
        left = Survivors(tuple(leading), "all", dict.fromkeys(config.banned, "banned"))
        for rule, limit in self._rules():
            if rule == "top_p" and not self._shares_known(left):
                return None  # it may cut some of those that are listed
            left = self._cut(rule, limit, left)
            if left.beyond == "some" and len(leading) < len(possible):
                return None  # it may cut those that a bias put among the tokens that are not listed
        return left if left.beyond != "some" else None

    def _rules(self) -> list[tuple[str, float]]:
        """The truncations that can cut something, in the server's order."""
        config = self.config
        min_p = [("min_p", config.min_p)] if config.min_p is not None and config.min_p > 0 else []
        top_k = [("top_k", float(config.top_k))] if config.top_k is not None else []
        top_p = [("top_p", config.top_p)] if config.top_p is not None and config.top_p < 1 else []
        return [*min_p, *top_k, *top_p] if self.min_p_first else [*top_k, *top_p, *min_p]

    def _shares_known(self, left: Survivors) -> bool:
        """Whether the mass is known that is shared out among what is left."""
        return left.beyond == "none" or (left.beyond == "all" and self.temperature_known)

    def _cut(self, rule: str, limit: float, left: Survivors) -> Survivors:
        """What one rule leaves of what those before it left."""
        ids = self._within(rule, limit, left)
        if ids is None:
            return replace(left, beyond="some") if self.bound > -math.inf else left
        gone = {id: rule for id in self.tempered if id not in ids}
        return Survivors(tuple(ids), "none", gone | left.cut_by)

    def _within(self, rule: str, limit: float, left: Survivors) -> list[int] | None:
        """The tokens within a rule's limit; `None` where all that are certain are, and perhaps some beyond them."""
        more = left.beyond != "none"
        if not left.ids or (rule == "top_k" and more and limit > len(left.ids)):
            return None
        if rule == "top_p":
            return self._nucleus(limit, left)
        floor = self.tempered[left.ids[0]] + math.log(limit) if rule == "min_p" else self._kth(int(limit), left)
        if rule == "min_p" and more and floor < self.tempered_bound:
            return None
        return [id for id in left.ids if self.tempered[id] >= floor]

    def _kth(self, k: int, left: Survivors) -> float:
        return self.tempered[left.ids[min(k, len(left.ids)) - 1]]

    def _nucleus(self, limit: float, left: Survivors) -> list[int] | None:
        """The most probable tokens that together reach `limit`, as `_within`."""
        more = left.beyond != "none"
        probabilities = self.tempered_probabilities if more else self._shared_out(left.ids)
        inside: list[int] = []
        reached = 0.0
        for id in left.ids:
            if reached >= limit:
                return inside
            inside.append(id)
            reached += probabilities[id]
        return inside if not more or reached >= limit else None

    @cached_property
    def final(self) -> dict[int, float] | None:
        """Probabilities after all stages; `None` where they are not known."""
        left = self.survivors
        if left is not None and left.beyond == "none":
            return dict.fromkeys(self.tempered, 0.0) | self._shared_out(left.ids)
        return self.tempered_probabilities if left is not None and self.temperature_known else None

    def candidates(self) -> tuple[Candidate, ...]:
        """The listed candidates with what is known of each stage."""
        if not self.knows("penalty") and self.config.order:
            return self.listed
        final = self.final
        cut_by = self.survivors.cut_by if self.survivors is not None else {}
        return tuple(
            replace(
                candidate,
                penalised_probability=math.exp(self.penalised[candidate.id]) / self.penalised_mass
                if self.penalty_known
                else None,
                tempered_probability=self.tempered_probabilities[candidate.id] if self.temperature_known else None,
                probability=final[candidate.id] if final is not None else None,
                cut_by=cut_by.get(candidate.id),
            )
            for candidate in self.listed
        )


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
