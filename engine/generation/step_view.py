"""One step looked at closely: `inspection` knows all of it, `remote.inspection` what a server gives."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from engine.generation.config import GenerationConfig
    from engine.generation.events import Candidate, Stage, Stepped


class StepView(Protocol):
    """The candidates of one step, stage by stage, under any settings; `None` for a number that is not known.

    Attributes:
        config: the settings it is seen under.
        step: as it happened; `None` for a step that was not taken.
        stages: those whose numbers are known.
        coverage: how much of the distribution is known, in words; empty when all is.
        lacking: why some stages are not known, in one sentence; empty when all are.
        entropy_bits: of the raw distribution, in bits.
        final_entropy_bits: of what the strategy chooses from, in bits.
        kept: how many tokens the truncations left.
        cut_mass: probability, after temperature, that the truncations removed.
        choice: what the settings pick; `None` where it is left to chance.
        movable: settings of guidance and of an amateur that `under` can follow.
    """

    config: "GenerationConfig"

    @property
    def step(self) -> "Stepped | None": ...
    @property
    def stages(self) -> "tuple[Stage, ...]": ...
    @property
    def movable(self) -> tuple[str, ...]: ...
    @property
    def coverage(self) -> str: ...
    @property
    def lacking(self) -> str: ...
    @property
    def entropy_bits(self) -> float | None: ...
    @property
    def final_entropy_bits(self) -> float | None: ...
    @property
    def kept(self) -> int | None: ...
    @property
    def cut_mass(self) -> float | None: ...
    @property
    def choice(self) -> "Candidate | None": ...

    def __len__(self) -> int:
        """Candidates that can be seen."""
        ...

    def at(self, start: int, stop: int) -> "tuple[Candidate, ...]":
        """Candidates by raw rank, `start` from 0; what a grammar lets through comes first."""
        ...

    def place(self, candidate: "Candidate") -> int | None:
        """Where a candidate is in the order of `at`, from 0; `None` where it is not known."""
        ...

    def of(self, ids: Sequence[int]) -> "tuple[Candidate, ...]":
        """Candidates by id, in the order given; those that are known."""
        ...

    def cut_at(self, stage: "Stage") -> tuple[int, float] | None:
        """How many tokens a stage cut, and how much of the probability before it; `None` where that is not known, and
        for one that cuts none."""
        ...

    def touched(self, id: int, stage: "Stage") -> str:
        """Where a token stands that a penalty changed the score of: `written` or `prompt`; empty for all others."""
        ...

    def mass(self, start: int, stage: "Stage") -> float:
        """Probability of all candidates from a raw rank on, after a stage whose numbers are known; `start` from 0."""
        ...

    def find(self, text: str, limit: int = 200) -> "tuple[Candidate, ...]":
        """Candidates whose text holds `text`, or whose id it is, the most probable first."""
        ...

    def under(self, config: "GenerationConfig") -> "StepView":
        """The same step under other settings. Raises `InputError` where they cannot be followed."""
        ...
