"""One step as far as a server tells of it: some candidates, how much of the mass they hold, and what follows from it.

A stage is shown only where its numbers follow from the candidates that are told. The tokens that are not told are
each at most as probable as the last one that is, and hold the rest of the mass; that decides many a truncation.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from engine.base.errors import InputError
from engine.base.language import _
from engine.generation.config import GenerationConfig
from engine.generation.events import STAGES, Candidate, Stage, Stepped
from engine.models.capabilities import Capabilities


class ServedInspection:
    """What `engine.inspection.Inspection` is for a step whose whole distribution is known, for one of which it is not.

    Attributes:
        told: how much is known, for the screen.
        stages: those of `STAGES` whose numbers follow from what is known.
    """

    entropy_bits = final_entropy_bits = cut_mass = None

    def __init__(
        self, step: Stepped, config: GenerationConfig, capabilities: Capabilities, ran: GenerationConfig | None = None
    ) -> None:
        self.step = step
        self.config = config
        self._capabilities = capabilities
        self._ran = ran or config
        known = step.candidates
        mass = sum(c.raw_probability or c.probability or 0.0 for c in known)
        self.told = capabilities.told(len(known), mass)
        if not capabilities.raw:
            self._told_of = None
            self.stages: tuple[Stage, ...] = ("pick",) if known else ()
            self._candidates = known
            return
        self._told_of = _Told.of(known, config, capabilities)
        self.stages = tuple(stage for stage in STAGES if self._told_of.tells(stage)) if known else ()
        self._candidates = self._told_of.candidates()

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
        return _("what is missing needs more than the top {count}", count=len(self))

    @property
    def kept(self) -> int | None:
        """How many tokens the truncations left; `None` where that is not known, or nothing was cut."""
        told = self._told_of
        return len(told.kept) if told is not None and told.kept is not None else None

    @property
    def choice(self) -> Candidate | None:
        """What greedy decoding picks; `None` where that is not known, and for sampling."""
        if self.config.strategy != "greedy" or "pick" not in self.stages or self._told_of is None:
            return None
        return max(self._candidates, key=lambda candidate: candidate.probability or 0.0)

    def at(self, start: int, stop: int) -> tuple[Candidate, ...]:
        """Candidates by rank, `start` from 0."""
        return self._candidates[start:stop]

    def of(self, ids: Sequence[int]) -> tuple[Candidate, ...]:
        """Those of these that are known."""
        return tuple(candidate for id in ids for candidate in self._candidates if candidate.id == id)

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
class _Told:
    """The distribution of a step as far as it is known.

    Attributes:
        candidates_told: by raw rank.
        rest: mass of the tokens that are not told.
        bound: log-probability that none of these exceeds.
    """

    candidates_told: tuple[Candidate, ...]
    config: GenerationConfig
    rest: float
    bound: float
    min_p_first: bool

    @classmethod
    def of(cls, candidates: tuple[Candidate, ...], config: GenerationConfig, capabilities: Capabilities) -> "_Told":
        probabilities = [candidate.raw_probability or 0.0 for candidate in candidates]
        whole = 0 < capabilities.vocabulary_size <= len(candidates)
        return cls(
            candidates,
            config,
            0.0 if whole else max(0.0, 1.0 - math.fsum(probabilities)),
            -math.inf if whole or not candidates else _log(min(probabilities)),
            capabilities.min_p_first,
        )

    def tells(self, stage: Stage) -> bool:
        """Whether the numbers of a stage are known."""
        match stage:
            case "raw":
                return True
            case "penalty":
                return self.penalty_told
            case "temperature":
                return self.temperature_told
            case "truncation" | "pick":
                return self.final is not None

    @cached_property
    def penalty_told(self) -> bool:
        """A penalty needs logits themselves; a bias, the probability of the token that it moves."""
        moved = {id for id, _bias in self.config.logit_bias} | set(self.config.banned)
        return self.config.repetition_penalty == 1 and moved <= {candidate.id for candidate in self.candidates_told}

    @property
    def temperature_told(self) -> bool:
        """A temperature moves every token, and with them the mass that all are divided by."""
        return self.penalty_told and (self.config.temperature == 1 or self.bound == -math.inf)

    @cached_property
    def penalised(self) -> dict[int, float]:
        """Log-probabilities after biases and bans, not yet divided by their mass."""
        return {
            candidate.id: _log(candidate.raw_probability or 0.0) + self.config.bias_of(candidate.id)
            for candidate in self.candidates_told
        }

    @cached_property
    def tempered(self) -> dict[int, float]:
        """The same divided by the temperature."""
        return {id: value / self.config.temperature for id, value in self.penalised.items()}

    @cached_property
    def penalised_mass(self) -> float:
        return self.rest + math.fsum(map(math.exp, self.penalised.values()))

    @cached_property
    def tempered_probabilities(self) -> dict[int, float]:
        """After the temperature, where that is told."""
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
    def _cuts(self) -> tuple[list[int] | None, dict[int, str]] | None:
        """Ids that the truncations left, and what cut the others; no list without a truncation.

        `None` where what is told does not decide it.
        """
        config, cut = self.config, dict.fromkeys(self.config.banned, "banned")
        rules = ["top_k", "top_p", "min_p"]
        if self.min_p_first:
            rules = ["min_p", "top_k", "top_p"]
        if not self.penalty_told or (config.typical_p is not None and config.typical_p < 1):
            return None
        bound = self.bound / config.temperature
        above = [id for id, value in self.tempered.items() if value > -math.inf and value >= bound]
        above.sort(key=lambda id: -self.tempered[id])  # every other token comes after these
        kept: list[int] | None = None  # once it is known
        acted = False
        for rule in rules:
            limit = getattr(config, rule)
            if limit is None or (rule == "top_p" and limit >= 1) or (rule == "min_p" and limit <= 0):
                continue
            if rule == "top_p" and kept is None and (acted or not self.temperature_told):
                return None  # it may cut some of those that are told, for the mass that it divides by is not known
            left = self._cut(rule, limit, above, kept)
            if left is None and len(above) < sum(value > -math.inf for value in self.tempered.values()):
                return None  # whether it cuts those that a bias put among the others is not known
            acted = True
            if left is not None:
                kept = left
                for id in self.tempered:
                    if id not in kept:
                        cut.setdefault(id, rule)
        if acted and kept is None and self.bound > -math.inf:
            return None
        return kept, cut

    def _cut(self, rule: str, limit: float, above: list[int], kept: list[int] | None) -> list[int] | None:
        """What one rule leaves of `kept`, or of all tokens where nothing was cut; `None` where that is not decided."""
        known = above if kept is None else kept
        if not known:
            return None
        if rule == "top_k":
            if kept is None and limit > len(above):
                return None
            floor = self.tempered[known[min(int(limit), len(known)) - 1]]
            return [id for id in known if self.tempered[id] >= floor]
        if rule == "min_p":
            floor = self.tempered[known[0]] + math.log(limit)
            if kept is None and floor < self.bound / self.config.temperature:
                return None
            return [id for id in known if self.tempered[id] >= floor]
        probabilities = self.tempered_probabilities if kept is None else self._shared_out(kept)
        left: list[int] = []
        reached = 0.0
        for id in known:
            if reached >= limit:
                return left
            left.append(id)
            reached += probabilities[id]
        return left if kept is not None or reached >= limit else None

    @cached_property
    def kept(self) -> list[int] | None:
        return self._cuts[0] if self._cuts is not None else None

    @cached_property
    def final(self) -> dict[int, float] | None:
        """Probabilities after all stages; `None` where they are not known."""
        if self._cuts is None or (self.kept is None and not self.temperature_told):
            return None
        if self.kept is None:
            return self.tempered_probabilities
        return dict.fromkeys(self.tempered, 0.0) | self._shared_out(self.kept)

    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates with what is known of each stage."""
        final = self.final
        cut = self._cuts[1] if self._cuts is not None else {}
        return tuple(
            replace(
                candidate,
                penalised_probability=math.exp(self.penalised[candidate.id]) / self.penalised_mass
                if self.penalty_told
                else None,
                tempered_probability=self.tempered_probabilities[candidate.id] if self.temperature_told else None,
                probability=final[candidate.id] if final is not None else None,
                cut_by=cut.get(candidate.id),
            )
            for candidate in self.candidates_told
        )


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
