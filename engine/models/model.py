"""What a model is: facts, a tokenizer, and what can be done with it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from engine.models.capabilities import Capabilities
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.generation.config import GenerationConfig
    from engine.generation.events import Event, Start
    from engine.generation.score import Scored
    from engine.generation.step_view import StepView
    from engine.text.token import Token

Precision = Literal["auto", "native", "bfloat16", "float32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
Device = Literal["auto", "cpu", "cuda", "mps"]
DEVICES: tuple[str, ...] = get_args(Device)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What there is to say about a loaded model.

    Attributes:
        architecture: transformers' model type, such as `llama`.
        parameters: number of weights.
        precision: of the weights as they run: `float32`, `bfloat16`, or a file's own such as `Q4_1`.
        threads: processor threads the network uses.
        hidden_size: numbers in the vector that stands for a position.
        path: which implementation runs.
        path_reason: why that one: what was measured, or what our own networks lack.
        memory_used, memory_free: bytes on the GPUs once loaded; `None` elsewhere.
        identity: hash of the weights, see `catalog.identity`.
    """

    name: str
    title: str
    architecture: str
    parameters: int
    precision: str
    device: str
    context_length: int
    vocabulary_size: int
    hidden_size: int
    threads: int
    path: str
    path_reason: str
    source: str
    license: str
    memory_used: int | None = None
    memory_free: int | None = None
    identity: str = ""


class Model(Protocol):
    """A model that continues texts and scores them: in this process (`local.LocalModel`) or behind a server.

    Attributes:
        capabilities: what can be done with it; asked before anything is offered.
    """

    @property
    def facts(self) -> ModelFacts: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def capabilities(self) -> Capabilities: ...

    def generate(
        self,
        prompts: "Sequence[str | Start]",
        configs: "Sequence[GenerationConfig]",
        *,
        candidates: int = 20,
        proceed: Callable[[], bool] = lambda: True,
        cancelled: Callable[[], bool] = lambda: False,
        paused: Callable[[], bool] = lambda: False,
        **others: Any,
    ) -> "Iterator[Event]":
        """Continue each prompt under the configuration beside it: see `generation.loop.generate`.

        Args:
            paused: whether a person holds the run up: a server's streams are closed until it goes on.
            others: what to keep of each step and lane, where the network is in this process.
        """
        ...

    def score(self, tokens: "Sequence[Token]") -> "Iterator[Scored]":
        """How well the model expected each token of a text. Raises `InputError` where that cannot be known."""
        ...

    def inspect(self, start: "Start", config: "GenerationConfig") -> "StepView":
        """The step after a text. Raises `InputError`, `ContextError`, `RemoteError`."""
        ...

    def close(self) -> None:
        """Let go of what is held outside of memory."""
        ...
