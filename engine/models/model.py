"""The protocol `Model`: facts, a tokenizer, capabilities, and methods that generate and score."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from engine.generation.config import PRECISIONS as PRECISIONS
from engine.generation.config import Precision as Precision
from engine.models.capabilities import Capabilities
from engine.models.own import OwnSettings
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.generation.amateur import Amateur
    from engine.generation.config import GenerationConfig
    from engine.generation.events import Event, Start
    from engine.generation.score import Scored
    from engine.generation.step_view import StepView
    from engine.generation.together import Entered
    from engine.text.token import Token

Device = Literal["auto", "cpu", "cuda", "mps"]
DEVICES: tuple[str, ...] = get_args(Device)
KERNELS = ("auto", "torch")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts about a loaded model.

    Attributes:
        architecture: transformers' model type, such as `llama`.
        parameters: number of weights.
        name: what `--model` takes; `title` is shorter, for the screen.
        precision: of the weights as they run: `float32`, `bfloat16`, or a file's own such as `Q4_1`.
        context_length, vocabulary_size: in tokens.
        hidden_size: length of the vector of a position.
        threads: processor threads of the network.
        path: the implementation that runs.
        kernels: `compiled` where operators of our own run in it, else `torch`.
        path_reason: why that one: what was measured, or what our own networks lack.
        license: SPDX identifier, or `unknown`.
        memory_used, memory_free: bytes on the GPUs after loading; `None` without a GPU.
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
    kernels: str = "torch"


class Model(Protocol):
    """A model that continues texts and scores them: in this process (`local.LocalModel`) or behind a server.

    Attributes:
        capabilities: what can be done with it; only that is offered.
        own: the settings that it brings itself.
    """

    @property
    def facts(self) -> ModelFacts: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def own(self) -> OwnSettings: ...

    def generate(
        self,
        prompts: "Sequence[str | Start]",
        configs: "Sequence[GenerationConfig]",
        *,
        candidates: int = 20,
        proceed: Callable[[], bool] = lambda: True,
        cancelled: Callable[[], bool] = lambda: False,
        paused: Callable[[], bool] = lambda: False,
        in_step: Callable[[], bool] = lambda: False,
        **others: Any,
    ) -> "Iterator[Event]":
        """Continue each prompt under the configuration beside it: see `generation.loop.generate`.

        Args:
            candidates: candidates of each step that its event holds.
            proceed: asked before each step, of one lane or several; it may wait, and False ends the run.
            cancelled: asked before each part of the prompt; True ends the run.
            paused: whether the user paused the run; a server's streams are closed until it goes on.
            in_step: whether all lanes are to get their tokens together now; those that have fewer catch up first.
            others: for a network in this process, which parts of each step and lane are kept, and lanes' second
                models.
        """
        ...

    def enter(
        self,
        prompts: "Sequence[str | Start]",
        configs: "Sequence[GenerationConfig]",
        *,
        numbers: Sequence[int],
        candidates: int = 20,
        cancelled: Callable[[], bool] = lambda: False,
        paused: Callable[[], bool] = lambda: False,
        in_step: Callable[[], bool] = lambda: False,
        **others: Any,
    ) -> "Entered":
        """Lanes of this model for a run that another's are in too: see `generation.together`. Raises `InputError`.

        Args:
            numbers: of the lanes in that run; the rest is as `generate` takes it.
        """
        ...

    def score(self, tokens: "Sequence[Token]") -> "Iterator[Scored]":
        """How well the model expected each token of a text. Raises `InputError` where that cannot be known."""
        ...

    def inspect(self, start: "Start", config: "GenerationConfig", amateur: "Amateur | None" = None) -> "StepView":
        """The step after a text. Raises `InputError`, `ContextError`, `RemoteError`.

        Args:
            amateur: the model that the configuration names so, see `amateurs.amateur_for`.
        """
        ...

    def close(self) -> None:
        """Close connections."""
        ...
