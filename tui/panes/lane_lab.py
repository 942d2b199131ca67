"""The lab as one lane sees it: with the model that wrote the lane's text."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from engine.generation.config import GenerationConfig
from engine.job import Job
from engine.lab import Lab
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.inside.record import Record, Recording
    from engine.models.model import Model


class LaneLab:
    """Asks a lab for what a lane's model says."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._config = GenerationConfig()

    def turn_to(self, config: GenerationConfig) -> bool:
        """Ask the model that a configuration names from now on; whether that is another one."""
        before = self._config
        self._config = config
        return (before.model, before.precision) != (config.model, config.precision)

    @property
    def tokenizer(self) -> Tokenizer | None:
        model = self._lab.model_of(self._config)
        return None if model is None else model.tokenizer

    def record(self, ids: Sequence[int]) -> "Job[Recording | Record]":
        """As `Lab.record`."""
        return self._lab.record(ids, self._config)

    def look(self, work: "Callable[[Model, Job[Any]], Iterator[Any]]") -> Job[Any]:
        """As `Lab.look`."""
        return self._lab.look(work, self._config)
