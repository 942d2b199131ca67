"""One step as far as a server tells of it: some candidates, and how much of the mass they hold."""

from collections.abc import Sequence

from engine.config import GenerationConfig
from engine.errors import InputError
from engine.events import Candidate, Stepped
from engine.language import _
from engine.remote.capabilities import Capabilities


class ServedInspection:
    """What `engine.inspection.Inspection` is for a step whose whole distribution is known, for one of which it is not.

    Attributes:
        told: how much is known, for the screen.
    """

    entropy_bits = final_entropy_bits = kept = cut_mass = None

    def __init__(self, step: Stepped, config: GenerationConfig, capabilities: Capabilities) -> None:
        self.step = step
        self.config = config
        mass = sum(candidate.raw_probability for candidate in step.candidates)
        self.told = capabilities.told(len(step.candidates), mass)

    def __len__(self) -> int:
        """Candidates that are known."""
        return len(self.step.candidates)

    @property
    def choice(self) -> Candidate | None:
        """Settings are the server's business: nothing is said of what others would pick."""
        return None

    def at(self, start: int, stop: int) -> tuple[Candidate, ...]:
        """Candidates by rank, `start` from 0."""
        return self.step.candidates[start:stop]

    def of(self, ids: Sequence[int]) -> tuple[Candidate, ...]:
        """Those of these that are known."""
        return tuple(candidate for id in ids for candidate in self.step.candidates if candidate.id == id)

    def find(self, text: str, limit: int = 200) -> tuple[Candidate, ...]:
        """Candidates whose text holds `text`, or whose id it is."""
        return tuple(c for c in self.step.candidates if text in c.text or text == str(c.id))[:limit]

    def under(self, config: GenerationConfig) -> "ServedInspection":
        """Raise `InputError`: other settings need the whole distribution."""
        if config == self.config:
            return self
        raise InputError(
            _("other settings need the whole distribution, which this server does not tell; run the lane with them")
        )
