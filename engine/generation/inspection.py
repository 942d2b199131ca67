"""One step looked at closely: every candidate at any depth, under any settings, without running the network."""

import math
from collections.abc import Sequence

import torch

from engine.base.errors import InputError
from engine.base.language import _
from engine.generation import candidates
from engine.generation.config import GenerationConfig
from engine.generation.constraint import allowed_after
from engine.generation.distribution import distribution
from engine.generation.events import Candidate, Stage, Stepped
from engine.generation.stages.carried import carried_at
from engine.generation.stages.order import reads_text
from engine.text.tokenizer import Tokenizer

# Equals share the better rank: a candidate is looked for among as many.
EQUALS = 8


class Inspection:
    """What one step was decided from, and what other settings would have made of it.

    Attributes:
        stages: those that acted; nothing is `lacking`, and `coverage` is
            empty. See `engine.remote.inspection`.

    Args:
        logits: of the step, `[vocabulary]`.
        context: ids of the prompt and of what was written before the step.
        step: as it happened; `None` for a step that was not taken. Contrastive search's similarities come from it.
        others: logits of the text that guidance pushes away from, where the step was guided.
        negative: the negative prompt that they are of.
        amateur: logits of the lane's amateur, where the step had one.
        amateur_name: as the configuration names it that they are of.
        prompt: how many ids of `context` are the prompt's; all that were not written before the step by default.
    """

    lacking = coverage = ""

    def __init__(
        self,
        logits: torch.Tensor,
        tokenizer: Tokenizer,
        context: Sequence[int],
        config: GenerationConfig,
        step: Stepped | None = None,
        others: torch.Tensor | None = None,
        negative: str | None = None,
        amateur: torch.Tensor | None = None,
        amateur_name: str | None = None,
        prompt: int | None = None,
    ) -> None:
        self._logits = logits.log_softmax(0) if config.strategy == "beam" else logits  # on which its stages act
        self._tokenizer = tokenizer
        self._context = context
        self.config = config
        self.step = step
        self._others, self._negative = others, negative
        self._amateur, self._amateur_name = amateur, amateur_name
        ids = torch.tensor(context) if reads_text(config) else None
        index = 0 if step is None else step.index
        self._prompt = len(context) - index if prompt is None else prompt
        # A stage that is on here and was not when the step ran begins here.
        carried = carried_at(config, len(context) - self._prompt) | dict({} if step is None else step.carried)
        self._stage = distribution(
            self._logits,
            ids,
            config,
            others,
            amateur,
            prompt=self._prompt,
            carried=carried,
            tokenizer=tokenizer,
            allowed=allowed_after(config, tokenizer, context[self._prompt :], logits.numel()),
        )
        self._contrast = self._contrasted() if config.strategy == "contrastive" else {}
        self._order: torch.Tensor = self._stage.most_probable(0)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What the step goes through."""
        return ("raw", *(level.stage.name for level in self._stage.levels if level.stage is not None), "pick")

    def cut_at(self, stage: Stage) -> tuple[int, float] | None:
        """How many tokens a stage cut, and how much of the probability before it; `None` for one that cuts none."""
        for before, level in zip(self._stage.levels, self._stage.levels[1:]):
            if level.stage is not None and level.stage.name == stage and (level.stage.cuts or level.stage.truncates):
                count = before.count - level.count
                return None if not count and level.stage.group == "penalty" else (count, level.share_cut(before))
        return None

    def touched(self, id: int, stage: Stage) -> str:
        """Where a token stands that a penalty changed the score of: `written` or `prompt`; empty for all others."""
        for before, level in zip(self._stage.levels, self._stage.levels[1:]):
            if level.stage is None or level.stage.name != stage or level.stage.reads == "nothing":
                continue
            if level.base[id] == before.logits[id]:
                return ""
            return "written" if id in self._context[self._prompt :] else "prompt" if id in self._context else ""
        return ""

    @property
    def movable(self) -> tuple[str, ...]:
        """The settings of guidance and of the amateur that can be moved here, for their logits are known."""
        guidance = () if self._others is None else ("guidance_scale",)
        return (*guidance, *(() if self._amateur is None else ("amateur_weight", "amateur_cut")))

    def __len__(self) -> int:
        """Entries in the vocabulary."""
        return self._logits.numel()

    @property
    def entropy_bits(self) -> float:
        """Of the raw distribution."""
        return self._stage.entropy_bits

    @property
    def final_entropy_bits(self) -> float:
        """Of what the strategy chooses from."""
        return self._stage.final_entropy_bits

    @property
    def kept(self) -> int:
        """How many tokens the truncations left."""
        return self._stage.kept

    @property
    def cut_mass(self) -> float:
        """Probability, after temperature, that the truncations removed."""
        return self._stage.cut_mass

    @property
    def choice(self) -> Candidate | None:
        """What these settings pick; `None` for sampling, which leaves it to chance."""
        if self.config.strategy == "greedy":
            return self.of([self._stage.top])[0]
        if self.config.strategy == "contrastive":
            scored = [id for id, (_, score) in self._contrast.items() if score is not None]
            return self.of([max(scored, key=lambda id: self._contrast[id][1] or -math.inf)])[0] if scored else None
        return None

    def at(self, start: int, stop: int) -> tuple[Candidate, ...]:
        """Candidates by raw rank, `start` from 0; what a grammar lets through comes before what it cuts."""
        ids = self._ordered(stop)[start:stop]
        ranked = not self._stage.acted("grammar")
        return self._describe(ids, range(start + 1, start + 1 + len(ids)) if ranked else None)

    def place(self, candidate: Candidate) -> int | None:
        """Where a candidate is in the order of `at`, from 0."""
        if self._stage.acted("grammar"):
            return int((self._ordered(1) == candidate.id).nonzero()[0, 0])
        first = candidate.rank - 1
        places = range(first, min(len(self), first + EQUALS))
        return next((place for place in places if int(self._ordered(place + 1)[place]) == candidate.id), None)

    def _ordered(self, count: int) -> torch.Tensor:
        """Ids in the order of `at`, `count` of them at least."""
        if count > len(self._order) and self._stage.acted("grammar"):
            order = self._stage.raw.argsort(descending=True, stable=True)
            cut = self._stage.at("grammar").lacks(order)
            self._order = torch.cat([order[~cut], order[cut]])
        if count > len(self._order):
            self._order = self._stage.most_probable(min(len(self), max(count, 2 * len(self._order), 64)))
        return self._order

    def of(self, ids: Sequence[int]) -> tuple[Candidate, ...]:
        """Candidates by id, in the order given."""
        return self._describe(torch.tensor(list(ids), dtype=torch.long))

    def mass(self, start: int, stage: Stage) -> float:
        """Probability of all candidates from a place in the order of `at` on, after a stage; `start` from 0."""
        rest = torch.ones(len(self), dtype=torch.bool)
        rest[self._ordered(start)[:start]] = False
        return float(self._stage.at(stage).probability(rest.nonzero().squeeze(1)).sum(dtype=torch.float64))

    def find(self, text: str, limit: int = 200) -> tuple[Candidate, ...]:
        """Tokens of the vocabulary whose text holds `text`, or whose id it is, the most probable first."""
        found = torch.tensor(self._tokenizer.find(text), dtype=torch.long)
        found = found[found < len(self)]
        return self._describe(found[self._stage.raw[found].argsort(descending=True, stable=True)][:limit])

    def under(self, config: GenerationConfig) -> "Inspection":
        """The same step under other settings. Raises `InputError` for guidance or an amateur that has not been run."""
        wanted = config.guidance_scale != 1
        if wanted and (self._others is None or config.negative_prompt != self._negative):
            raise InputError(_("guidance wants a second text run beside the first; run the lane with it"))
        if config.amateur is not None and (self._amateur is None or config.amateur != self._amateur_name):
            raise InputError(_("an amateur has to read the text beside the model; run the lane with it"))
        return Inspection(
            self._logits,
            self._tokenizer,
            self._context,
            config,
            self.step,
            self._others,
            self._negative,
            self._amateur,
            self._amateur_name,
            self._prompt,
        )

    def _describe(self, ids: torch.Tensor, ranks: Sequence[int] | None = None) -> tuple[Candidate, ...]:
        if not self._contrast:
            return candidates.candidates(self._stage, self._tokenizer, ids, ranks)
        found = [self._contrast.get(id, (None, None)) for id in ids.tolist()]
        similarity, scores = zip(*found) if found else ((), ())
        return candidates.candidates(self._stage, self._tokenizer, ids, ranks, similarity=similarity, scores=scores)

    def _contrasted(self) -> dict[int, tuple[float | None, float | None]]:
        """Similarity and score of each of the k candidates whose similarity the run found out."""
        known = {c.id: c.similarity for c in self.step.candidates} if self.step is not None else {}
        ids, probabilities = self._stage.most_probable_tempered(min(self.config.top_k or 1, len(self)))
        alpha = self.config.alpha
        contrast: dict[int, tuple[float | None, float | None]] = {}
        for id, probability in zip(ids.tolist(), probabilities.tolist()):
            if self._stage.last.base[id].isneginf():  # what is banned or cut never comes
                continue
            similarity = known.get(id)
            score = None if similarity is None else (1 - alpha) * probability - alpha * similarity
            contrast[id] = (similarity, score)
        return contrast
