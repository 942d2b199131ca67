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
        config: names the model that wrote it, and what was done to it.
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
        self._prompt = 0

    def turn_to(self, config: GenerationConfig, prompt: int = 0) -> bool:
        """Ask the model that a configuration names from now on, under its interventions; whether that is another one.

        Args:
            prompt: how many tokens of the lane's text are the prompt's.
        """
        before = self._asked
        self._config, self._prompt = config, prompt
        return before != self._asked

    @property
    def _asked(self) -> tuple[object, ...]:
        """What another record comes with."""
        done = self.interventions
        return (self._config.model, self._config.precision, done, self._prompt if done else 0)

    @property
    def interventions(self) -> tuple[str, ...]:
        """What is done to the model."""
        return self._config.interventions

    @property
    def tokenizer(self) -> Tokenizer | None:
        model = self._lab.model_of(self._config)
        return None if model is None else model.tokenizer

    def record(self, ids: Sequence[int]) -> "Job[Recording | Record]":
        """As `Lab.record`."""
        return self._lab.record(ids, self._config, self._prompt)

    def look(self, work: "Callable[[Model, Job[Any]], Iterator[Any]]", *, intervene: bool = False) -> Job[Any]:
        """As `Lab.look`."""
        return self._lab.look(work, self._config, intervene=intervene)
