"""What a stage declares of itself. Nothing here imports torch: the configuration, the command line and the screen read
the declarations; the functions on tensors import it when they run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from engine.generation.ranges import check_float, check_int

if TYPE_CHECKING:
    from torch import Tensor

    from engine.text.tokenizer import Tokenizer

# What a stage belongs to, in words that the inspector has a tab for.
Group = Literal["grammar", "guidance", "amateur", "penalty", "temperature", "truncation"]
# What a stage reads beside the logits: nothing, the prompt and what is written, or only what is written.
Reads = Literal["nothing", "text", "written"]
Value = float | int | None


@dataclass(frozen=True, slots=True)
class Sent:
    """How a parameter goes to a server.

    Attributes:
        field: in the request.
        off: what is sent where the parameter is `None`.
    """

    field: str
    off: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One number, or list, that a stage takes; a field of `GenerationConfig` holds it.

    Attributes:
        name: of the field.
        default: of the field.
        type: int or float; `None` where `check` knows what is allowed.
        least, most: its range; `above` leaves out `least` itself.
        check: raises `ConfigError` for what is not allowed, in place of the range.
        off: values at which the stage does nothing; `None` for a parameter that does not switch it on.
        ladder: what the inspector's knob is turned to, from one end to the other; `None` is off. Empty: no knob.
        usual: the knob is there whether the stage acts or not.
        label: on the knob.
        symbol: before its value in a lane's title.
        hint: one line for the editor.
        help: one line for the command line.
        option: of the command line, where it is not called as the field is.
        servers: how each kind of server takes it; one that is not named does not have it.
        unlike: why it is not sent to a kind of server that has something of the same name, in one sentence.
    """

    name: str
    default: Any = None
    type: type | None = float
    least: float = 0.0
    most: float = 1.0
    above: bool = False
    check: "Callable[[str, object], None] | None" = None
    off: tuple[Any, ...] | None = None
    ladder: tuple[Value, ...] = ()
    usual: bool = False
    label: str = ""
    symbol: str = ""
    hint: str = ""
    help: str = ""
    option: str = ""
    servers: Mapping[str, Sent] = field(default_factory=dict)
    unlike: Mapping[str, str] = field(default_factory=dict)

    @property
    def optional(self) -> bool:
        return self.default is None

    def is_on(self, value: object) -> bool:
        """Whether its stage does something at a value."""
        return self.off is not None and value not in self.off

    def checked(self, value: object) -> None:
        """Raise `ConfigError` for what the parameter cannot be."""
        if self.check is not None:
            self.check(self.name, value)
        elif self.type is int:
            check_int(self.name, value, int(self.least), int(self.most), optional=self.optional)
        else:
            check_float(self.name, value, self.least, self.most, above=self.above, optional=self.optional)


@dataclass(slots=True)
class Reading:
    """What a stage may read beside the logits.

    Attributes:
        text: ids of the prompt and of what is written, `[length]`; `None` where no stage reads it.
        prompt: how many of them are the prompt's.
        beside: logits from elsewhere, by the name of the stage that takes them.
        carried: a number for each stage that has one: its state before the step, or what it drew for it.
        tokenizer: what tokens spell; `None` where no stage asks.
        left: gives the logits that are left, −inf for those that are cut, to a stage that keeps the order.
    """

    text: "Tensor | None" = None
    prompt: int = 0
    beside: "Mapping[str, Tensor | None]" = field(default_factory=dict)
    carried: Mapping[str, float] = field(default_factory=dict)
    tokenizer: "Tokenizer | None" = None
    left: "Callable[[], Tensor] | None" = None

    @property
    def written(self) -> "Tensor":
        """Ids of what is written, `[length]`."""
        return self.written_within(None)

    def within(self, window: int | None) -> "Tensor":
        """The last tokens of the text, all of it where `window` is `None`."""
        assert self.text is not None
        return self.text if window is None else self.text[-window:]

    def written_within(self, window: int | None) -> "Tensor":
        """Those of the last tokens of the text that are written."""
        assert self.text is not None
        return self.text[self.prompt if window is None else max(self.prompt, len(self.text) - window) :]

    @property
    def ends(self) -> "frozenset[int]":
        """Ids of the tokens that end a text."""
        return frozenset() if self.tokenizer is None else self.tokenizer.eos_ids


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """One thing that is done to the logits of a step.

    Exactly one of `change` and `keep` is given. Both take the parameters, and the settings of `uses`, by their names.

    Attributes:
        name: in a configuration's order and in `cut_by`.
        title: short, on the inspector's tab and in tables.
        definition: the formula, and whose it is.
        explanation: one short line for the inspector.
        reads: what it reads beside the logits.
        needs: it acts only where `Reading.beside` has something of its name.
        first: it comes before the stages that an order names, and no order names it.
        keeps_order: `change` leaves the order of the tokens, so that they are not sorted again.
        cuts: `change` may set tokens to −inf; `rule` is what `cut_by` then says.
        strategies: with which it acts; all of them when empty.
        change: `(logits, reading, **settings) -> logits`, `[vocabulary]` each; −inf for a token that is cut.
        keep: `(left, reading, **settings) -> int`: how many of `left`, the most probable first, stay. One at least.
        uses: settings that it reads and that are not its parameters.
        draws: `(seed, index) -> number`: what a step decides with; `Reading.carried` has it by the stage's name.
        begin: `(config) -> number`: its state before a lane's first step, in `Reading.carried` likewise.
        follow: `(number, probability of what was picked, config) -> number`: its state before the next step.
        sampler: its name among llama-server's samplers; empty where that has none.
        refused: why no server does this, in one sentence; empty where the parameters' `servers` say who does.
        summary: its part of a lane's title, of its settings; from the parameters' symbols when `None`.
    """

    name: str
    title: str
    group: Group
    definition: str
    explanation: str
    parameters: tuple[Parameter, ...]
    reads: Reads = "nothing"
    needs: bool = False
    first: bool = False
    keeps_order: bool = False
    cuts: bool = False
    rule: str = ""
    strategies: tuple[str, ...] = ()
    change: "Callable[..., Tensor] | None" = None
    keep: Callable[..., int] | None = None
    uses: tuple[str, ...] = ()
    draws: Callable[[int, int], float] | None = None
    begin: Callable[[Any], float] | None = None
    follow: Callable[[float, float, Any], float] | None = None
    sampler: str = ""
    refused: str = ""
    summary: Callable[..., str] | None = None

    @property
    def keeps_state(self) -> bool:
        """Whether what it does depends on earlier steps, or on a draw."""
        return self.begin is not None or self.draws is not None

    @property
    def truncates(self) -> bool:
        """Whether it keeps the most probable tokens and cuts the others."""
        return self.keep is not None

    @property
    def cut_rule(self) -> str:
        """What `cut_by` says of a token that it cut."""
        return self.rule or self.name

    def is_on(self, config: Any) -> bool:
        """Whether a configuration asks for it."""
        return any(one.is_on(getattr(config, one.name)) for one in self.parameters)

    def acts(self, config: Any) -> bool:
        """Whether it does something under a configuration's strategy."""
        return (not self.strategies or config.strategy in self.strategies) and self.is_on(config)

    def settings(self, config: Any) -> dict[str, Any]:
        """What its function takes."""
        names = (*(one.name for one in self.parameters), *self.uses)
        return {name: getattr(config, name) for name in names}

    def summarised(self, config: Any) -> str:
        """Its part of a lane's title; empty where its settings are as they are by default."""
        if self.summary is not None:
            return self.summary(config)
        values = [(one.symbol, getattr(config, one.name), one.default) for one in self.parameters if one.symbol]
        return " ".join(f"{symbol}{value:g}" for symbol, value, default in values if value != default)
