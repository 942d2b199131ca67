"""A lane's text, and the lab as the lane sees it: with the model that wrote the text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.generation.config import GenerationConfig
from engine.job import Job
from engine.lab import Lab
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.inside.record import Record, Recording
    from engine.models.model import Model


PLAIN = GenerationConfig()


@dataclass(frozen=True, slots=True)
class LaneText:
    """What a lane has so far.

    Attributes:
        tokens: of its prompt and of what is written.
        prompt: how many of them are the prompt's.
        cursor: the written token that is pointed at, if one is.
        config: names the model that wrote it.
    """

    tokens: Sequence[Token]
    prompt: int
    cursor: int | None = None
    config: GenerationConfig = PLAIN

    @property
    def position(self) -> int:
        """The last token read before the one that is looked at: the one under the cursor, or the newest."""
        written = len(self.tokens) - self.prompt
        index = written - 1 if self.cursor is None else self.cursor
        return max(0, self.prompt + index - 1 if written else self.prompt - 1)


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
