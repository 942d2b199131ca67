"""The events of a run, for its watchers.

The event stream is the seam between producers (the local loop, a server) and the panes:
whatever makes these events can be shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from engine.base.language import N_, _
from engine.generation.config import GenerationConfig
from engine.generation.stages.registry import STAGES as DECLARED
from engine.text.conversation import Conversation
from engine.text.token import Token

if TYPE_CHECKING:
    from engine.generation.memory import KeptLogits, LaneState
    from engine.text.tokenizer import Tokenizer

FinishReason = Literal["length", "end_of_text", "stop_sequence", "grammar", "cancelled"]
ENDED: dict[FinishReason, str] = {
    "length": N_("reached its length"),
    "end_of_text": N_("end of text"),
    "stop_sequence": N_("stop text"),
    "grammar": N_("grammar complete"),
    "cancelled": N_("stopped"),
}


def ended(reason: FinishReason | None) -> str:
    """Why a lane ended, in words."""
    return _(ENDED[reason]) if reason else _("running")


# What a distribution goes through until one token is picked.
# In front of a server, penalties go together, as do truncations: what each of them left is not known.
Stage = str
STAGE_NAMES: dict[Stage, str] = {
    "raw": N_("raw"),
    **{stage.name: stage.title for stage in DECLARED},
    "penalty": N_("penalty"),
    "truncation": N_("truncation"),
    "pick": N_("pick"),
}
# What a server's step goes through.
STAGES: tuple[Stage, ...] = ("raw", "penalty", "temperature", "truncation", "pick")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One token that could have come next; `None` stands for what a server does not tell.

    Attributes:
        rank: 1 for the most probable by the model's raw distribution.
        raw_probability: what the model believed, before any setting acted.
        penalised_probability: after biases and the last penalty, and what comes before these.
        tempered_probability: after temperature, and what comes before it.
        probability: what the strategy chose from; 0 where a truncation cut the token.
        cut_by: the first stage that removed it, `banned` for a ban, else `None`.
        similarity: contrastive search only: highest cosine similarity to the tokens so far.
        score: contrastive search only: (1 − α) · probability − α · similarity.
        guided_probability: after guidance; `None` where there is none.
        minus_amateur_probability: after an amateur's opinion was taken off; `None` where there is none.
        by_stage: after each stage that acted, by its name; empty where a server does not tell.
    """

    rank: int
    id: int
    text: str
    raw_probability: float | None
    penalised_probability: float | None
    tempered_probability: float | None
    probability: float | None
    cut_by: str | None = None
    similarity: float | None = None
    score: float | None = None
    guided_probability: float | None = None
    minus_amateur_probability: float | None = None
    by_stage: Mapping[Stage, float] = field(default_factory=dict, hash=False)

    def after(self, stage: Stage) -> float | None:
        """Its probability after a stage; as it was before, where that stage did not act."""
        if stage in self.by_stage:
            return self.by_stage[stage]
        match stage:
            case "raw":
                return self.raw_probability
            case "penalty":
                return self.penalised_probability
            case "temperature":
                return self.tempered_probability
            case "truncation" | "pick":
                return self.probability
        return None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text that the tokenizer of the lane's own model is to cut.

    Attributes:
        conversation: messages that go to the model in its chat template, in the place of the text.
    """

    text: str
    conversation: Conversation | None = None

    def start(self, tokenizer: "Tokenizer") -> "Start":
        """Where a lane with that tokenizer begins. Raises `InputError` where it has no chat template."""
        if self.conversation is None:
            return Start(tuple(tokenizer.encode(self.text)))
        return Start(tokenizer.encode_conversation(self.conversation).tokens, conversation=self.conversation)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a lane begins.

    Attributes:
        prompt: the text's tokens.
        written: ids that already follow the prompt, as where a branch leaves an earlier lane.
        forced: ids that come next, whatever the strategy would pick.
        state: what the network still knows of the beginning of both; the rest goes through it again.
        last: the step that wrote the last of `written`, where stages carry something on from it.
        conversation: what the prompt was made of, for servers that take messages alone.
    """

    prompt: tuple[Token, ...]
    written: tuple[int, ...] = ()
    forced: tuple[int, ...] = ()
    state: "LaneState | None" = None
    last: "Stepped | None" = None
    conversation: Conversation | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        return (*(token.id for token in self.prompt), *self.written)


@dataclass(frozen=True, slots=True)
class Started:
    """The run began; `configs` are complete (seeds drawn), one per lane, as are `prompts`."""

    prompts: tuple[tuple[Token, ...], ...]
    configs: tuple[GenerationConfig, ...]


@dataclass(frozen=True, slots=True)
class Prefilling:
    """`done` of `total` prompt tokens have been through the model."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The prompts of `lanes` have been through their model, in `seconds`."""

    tokens: int
    seconds: float
    lanes: tuple[int, ...] = ()


# What became of the guess at a step: it stayed; another token came in its place; there was none, but its logits came
# behind guesses that stayed; there was none at all.
DraftOutcome = Literal["accepted", "corrected", "bonus", "none"]
DRAFT_OUTCOMES: dict[DraftOutcome, str] = {
    "accepted": N_("guessed"),
    "corrected": N_("corrected"),
    "bonus": N_("behind guesses"),
    "none": N_("not guessed"),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """What a lane's draft had to do with one step: see `engine.generation.drafts`.

    Attributes:
        forward: whether the lane's model ran for this step; else its logits came with those of an earlier one.
        drafted: tokens that were guessed for it, and for those behind it that went through the model with it.
        id: of the token that was guessed to stand here; `None` where none was, as all that follow.
        probability: p of it, in the distribution the strategy chose from.
        draft_probability: q of it, in the draft's; 1 for lookup.
        draw: what p / q was compared with; `None` for greedy, and for lookup, which compares the token that is drawn.
    """

    outcome: DraftOutcome
    forward: bool
    drafted: int = 0
    id: int | None = None
    text: str | None = None
    probability: float | None = None
    draft_probability: float | None = None
    draw: float | None = None

    @property
    def acceptance(self) -> float | None:
        """With what probability a sampled lane keeps the guess: min(1, p / q)."""
        if self.probability is None or not self.draft_probability:
            return None
        return min(1.0, self.probability / self.draft_probability)


@dataclass(frozen=True, slots=True)
class Stepped:
    """One token of one lane; `None` stands for what a server does not tell.

    Attributes:
        index: 0 for the lane's first generated token.
        token: `position` counts from the start of the prompt, `start`/`end` are byte
            offsets into the lane's text.
        candidates: the most probable tokens, by raw rank; for contrastive search all k.
        probability: of the picked token, in the distribution the strategy chose from.
        raw_probability: of the picked token, as the model gave it.
        rank: of the picked token in the raw distribution, from 1.
        entropy_bits: of the raw distribution.
        final_entropy_bits: of the distribution the strategy chose from.
        kept: how many tokens the truncations left.
        cut_mass: probability (after temperature) that the truncations removed.
        seconds: since the lane's previous token, or since the end of the prefill, as they pass for who watches: steps
            of other lanes, waiting in step and pauses are in them.
        forced: a person's choice, not the strategy's.
        carried: the state of stages before the step and what they drew for it, by the stage's name.
        draft: how it came about where the lane has a draft.
        by_grammar: the lane's grammar let no other token through.
        logits: what the step was decided from, for `engine.generation.inspection`; `None` where nobody keeps it.
    """

    lane: int
    index: int
    token: Token
    candidates: tuple[Candidate, ...] = field(repr=False)
    probability: float | None
    raw_probability: float | None
    rank: int | None
    entropy_bits: float | None
    final_entropy_bits: float | None
    kept: int | None
    cut_mass: float | None
    seconds: float
    forced: bool = False
    carried: Mapping[str, float] = field(default_factory=dict, hash=False)
    draft: Draft | None = None
    by_grammar: bool = False
    logits: "KeptLogits | None" = field(default=None, repr=False, compare=False)


BeamState = Literal["running", "ended", "died"]


@dataclass(frozen=True, slots=True)
class Beam:
    """One text of a beam search: see `engine.generation.beams`.

    Attributes:
        parent: the beam that it left; `None` for one from the beginning.
        fork: how many tokens it shares with that.
        ids: all of its tokens behind what stood there before the search.
        text: what it wrote from where it left its parent.
        score: sum of their log-probabilities; of one that ended, over its length to the power of the length penalty.
        by: of one that died, the last of those that went on in its place.
        died: of such a one, in which round, from 1.
    """

    id: int
    parent: int | None
    fork: int
    ids: tuple[int, ...]
    score: float
    state: BeamState = "running"
    by: int | None = None
    died: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Beamed:
    """A round of a lane's beam search: every beam there was so far, and the tokens of the best text as it is now."""

    lane: int
    round: int
    beams: tuple[Beam, ...] = field(repr=False)
    best: tuple[Token, ...] = field(repr=False)

    @property
    def leader(self) -> Beam | None:
        """The beam whose text that is; `None` while there is none."""
        ids = tuple(token.id for token in self.best)
        return next((beam for beam in self.beams if beam.ids == ids), None)


@dataclass(frozen=True, slots=True)
class Survived:
    """A beam, beside the best, that was there when its lane's search ended.

    Attributes:
        reason: why its text ends; `cancelled` where the search ended before.
        steps: behind what stood there before the search, as if the lane had written them.
    """

    lane: int
    beam: int
    reason: FinishReason
    steps: tuple[Stepped, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Noted:
    """What a person should know of a lane, in one sentence; the run goes on."""

    lane: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    lane: int
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Failed:
    """The run ended early; `lane` is `None` when it concerns all of them."""

    lane: int | None
    error: Exception


Event = Started | Prefilling | Prefilled | Noted | Beamed | Survived | Stepped | Finished | Failed
