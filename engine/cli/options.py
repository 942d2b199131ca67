"""Options that several commands share."""

import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from engine.base import plain
from engine.base.errors import InputError
from engine.base.language import _
from engine.cli.output import ProgressBar, keep_stdout_for_json, remark
from engine.generation.config import PRESETS, SETTINGS, GenerationConfig, config_from_dict, load_config, names_own
from engine.generation.grammar import with_sources
from engine.generation.stages.registry import PARAMETERS
from engine.models import catalog
from engine.models.model import Model
from engine.text.tokenizer import Tokenizer
from engine.text.vocabularies import why_apart

if TYPE_CHECKING:
    from engine.models.local import LocalModel


T = TypeVar("T", bound="Model")


@dataclass(frozen=True)
class Options:
    """The options every command shares."""

    model: str | None
    server: str | None
    precision: str
    device: str
    threads: int | None
    offline: bool
    cache_dir: Path | None
    kernels: str | None

    @property
    def name(self) -> str | None:
        """The model's name: of one here, or, with a server, the address and what it is to serve."""
        if self.server is None:
            return self.model
        return f"{self.server}#{self.model}" if self.model else self.server

    @property
    def how(self) -> dict[str, Any]:
        """How the model is loaded: options of `LoadOptions`."""
        return {
            "precision": self.precision,
            "device": self.device,
            "threads": self.threads,
            "offline": self.offline,
            "cache_dir": self.cache_dir,
            "kernels": self.kernels,
        }

    def load(self) -> Model:
        """Load the model or reach its server, with a progress bar on a terminal."""
        from engine.loading import load_model

        return self._load(load_model)

    def load_lanes(
        self, configs: Sequence[GenerationConfig]
    ) -> tuple[list[Model], list[Model | None], list[Model | None]]:
        """Load the model of each configuration, as it names one or else these options do; amateurs, and drafts.

        Raises `OutOfMemoryError` where they do not fit into memory together.
        """
        from engine.shelf import Shelf

        named = sorted({config.model for config in configs if config.model is not None})
        if self.name is not None and len(named) and all(config.model is not None for config in configs):
            said = _("the configuration names {named}: {option} is not used", named=", ".join(named), option=self.name)
            remark(said)
        with ProgressBar() as report:
            shelf = Shelf(self.name, **self.how)
            models = shelf.bring(configs, report=report)
        for model in {id(model): model for model in models}.values():
            _warn(model.tokenizer)
        return models, [shelf.amateur(config) for config in configs], [shelf.draft(config) for config in configs]

    def load_local(self) -> "LocalModel":
        """Load a model that runs here, for what no server can do."""
        from engine.loading import load_local

        return self._load(load_local)

    def _load(self, load: Callable[..., T]) -> T:
        with ProgressBar() as report:
            model = load(self.name, **self.how, report=report)
        _warn(model.tokenizer)
        return model

    def fetched(self, entry: catalog.Entry) -> Path:
        """A model's files, fetched where needed, with a progress bar."""
        from engine.models.fetch import fetch

        with ProgressBar() as report:
            return fetch(entry, report, cache_dir=self.cache_dir, offline=self.offline)

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, without the model."""
        from engine.models.tokenizer_files import load_tokenizer

        if self.server is not None:
            return self.load().tokenizer
        entry = catalog.find(self.model or catalog.default_name(), self.cache_dir)
        tokenizer = load_tokenizer(entry, self.fetched(entry))
        _warn(tokenizer)
        return tokenizer


def _warn(tokenizer: Tokenizer) -> None:
    """Say on stderr what may be wrong with a tokenizer."""
    if tokenizer.warning is not None:
        print(f"logitlab: {plain.one_line(tokenizer.warning)}", file=sys.stderr)


_SHARED = inspect.Signature(
    [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in (
            ("model", None, Annotated[str | None, typer.Option(help="A name, a hub id, a folder or a .gguf file.")]),
            (
                "server",
                None,
                Annotated[
                    str | None, typer.Option(envvar="LOGITLAB_SERVER", help="Address of a server that runs the model.")
                ],
            ),
            ("precision", "auto", Annotated[str, typer.Option(help="auto, native, bfloat16 or float32.")]),
            ("device", "auto", Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]),
            ("threads", None, Annotated[int | None, typer.Option(help="Processor threads; all when not given.")]),
            ("offline", False, Annotated[bool, typer.Option("--offline", help="Never use the network.")]),
            ("cache_dir", None, Annotated[Path | None, typer.Option(help="Where models are kept.")]),
            (
                "kernels",
                None,
                Annotated[str | None, typer.Option(envvar="LOGITLAB_KERNELS", help="auto, or torch: none of our own.")],
            ),
            ("lang", None, Annotated[str | None, typer.Option(help="Language; the locale's when not given.")]),
        )
    ]
)


# A `Config` names where a configuration begins: a preset or a file, and settings behind it.
Config = Annotated[
    str | None,
    typer.Option(
        help="greedy, creative, sampled, contrastive, own (the model's) or a .toml file; "
        "settings stand behind it: sampled,seed=7."
    ),
]
LaneA = Annotated[
    str | None, typer.Option(help="Lane A: a preset or a .toml file, settings behind it: sampled,seed=7.")
]
LaneB = Annotated[str | None, typer.Option(help="Lane B: a preset or a .toml file, settings behind it.")]


@dataclass(frozen=True)
class Settings:
    """The options that make a configuration.

    Attributes:
        given: those that were given, by their names in `GenerationConfig`.
        banned: tokens that never come, by text or id.
        logit_bias: TOKEN=NUMBER, the token by text or id.
    """

    given: Mapping[str, Any]
    banned: Sequence[str]
    logit_bias: Sequence[str]

    def config(self, text: str | None) -> GenerationConfig:
        """The configuration as far as it needs no tokenizer: the options laid over what `--config` says.

        Without it they lie over greedy, or over the model's plain distribution where they name a strategy.
        Invalid values raise `InputError`.
        """
        return self._config(text, None)

    def config_for(self, text: str | None, model: Model) -> GenerationConfig:
        """The configuration for a model, with its own settings where they are named, bans and biases."""
        config = self.biased(self._config(text, own_of(model, text)), model)
        remark_own([model], [config])
        return config

    def _config(self, text: str | None, own: GenerationConfig | None) -> GenerationConfig:
        if text is not None:
            return load_config(text, self.given, own)
        return config_from_dict(
            with_sources(self.given, Path()), GenerationConfig() if "strategy" in self.given else PRESETS["greedy"]
        )

    def biased(self, config: GenerationConfig, model: Model) -> GenerationConfig:
        """The configuration with bans and biases, whose tokens are given by text or id."""
        tokenizer = model.tokenizer
        for text in self.banned:
            config = config.biased(single(tokenizer, text), -math.inf)
        for pair in self.logit_bias:
            text, equals, number = pair.rpartition("=")
            try:
                bias = float(number)
            except ValueError:
                equals = ""
            if not equals or not math.isfinite(bias):
                raise InputError(
                    _("logit-bias is {pair!r}; allowed: TOKEN=NUMBER, such as ' the=-2.5' or 2240=3", pair=pair)
                )
            config = config.biased(single(tokenizer, text), bias)
        return config


def single(tokenizer: Tokenizer, text: str) -> int:
    """The token that a text or a number names."""
    if text.isdecimal() and int(text) < tokenizer.vocabulary_size:
        return int(text)
    ids = tokenizer.encode_continuation(text)
    if len(ids) != 1:
        raise InputError(
            _("{text!r} is {count} tokens, not one; give one token's text or its id", text=text, count=len(ids))
        )
    return ids[0]


# One line of help for each setting that no stage declares; names and types are those of `GenerationConfig`.
_HELP = {
    "strategy": "greedy, sample, contrastive or beam.",
    "max_new_tokens": "Tokens to generate at most.",
    "alpha": "Contrastive search: weight of the penalty.",
    "seed": "Seed of the random draws.",
    "stop": "End once this is written; repeatable.",
    "ignore_eos": "Go on after end-of-text.",
    "order": "Of the stages: llama.cpp, vllm or their names.",
    "interventions": "Done to the model, such as 'head 12.4 off'; repeatable.",
    "beams": "beam: texts followed at once.",
    "length_penalty": "beam: above 0 favours long texts.",
    "early_stopping": "beam: no, yes or never.",
    "draft": "lookup, or Model[@precision]: guesses ahead.",
    "draft_tokens": "Tokens guessed at a time, at most.",
    "draft_ngram": "lookup: the longest n-gram looked for.",
} | {name: parameter.help for name, parameter in PARAMETERS.items()}
# Settings whose options are called otherwise.
_SPELT = {"interventions": "--intervene"} | {name: one.option for name, one in PARAMETERS.items() if one.option}
# The model and its precision are the command's own options, which hold where a configuration names none.
_OPTIONS = [name for name in SETTINGS if name not in ("name", "model", "precision")]


def _setting(name: str, help: str) -> inspect.Parameter:
    """A setting as an option; `None` where it is not given. A token is a text: no tokenizer is known yet."""
    kind = SETTINGS[name]
    spelt = _SPELT.get(name, f"--{name.replace('_', '-')}")  # spelt, for else a bool has --no-… too
    holds: Any = list[str] if kind.many else kind.type
    annotation = Annotated[holds | None, typer.Option(spelt, help=help)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


_SETTINGS = inspect.Signature([_setting(name, _HELP[name]) for name in _OPTIONS])


def takes_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a configuration to a command that takes `settings: Settings`."""

    def settings(values: dict[str, Any]) -> Settings:
        own = {name: values.pop(name) for name in _SETTINGS.parameters}
        given = {name: value for name, value in own.items() if value not in (None, [])}
        banned, logit_bias = given.pop("banned", ()), given.pop("logit_bias", ())
        return Settings(given, banned, logit_bias)

    return _with_more(command, "settings", _SETTINGS, settings)


def remark_own(models: Iterable[Model], configs: Iterable[GenerationConfig]) -> None:
    """Say on stderr what each configuration leaves out of its model's own settings."""
    for text in sorted({model.own.remark(config) for model, config in zip(models, configs)}):
        remark(text)


def remark_vocabularies(models: Sequence[Model]) -> None:
    """Say on stderr why two lanes' tokens cannot be compared, where they cannot."""
    first, second = models
    if first is not second:
        remark(why_apart(first.tokenizer, second.tokenizer))


def own_of(model: Model, text: str | None) -> GenerationConfig | None:
    """The model's own settings, where a configuration names them. Raises `InputError` where there are none."""
    return model.own.need() if names_own(text) else None


def lane_configs(
    a: str | None, b: str | None, settings: Settings | None = None, models: Sequence[Model] | None = None
) -> list[GenerationConfig]:
    """The configurations of both lanes, which are greedy and creative by default, with `settings` laid over each.

    Raises `InputError` naming the lane.

    Args:
        models: of each lane, whose own settings may be named; without them plain ones stand for those.
    """
    over = {} if settings is None else settings.given
    configs = []
    for lane, text in enumerate(("greedy" if a is None else a, "creative" if b is None else b)):
        try:
            configs.append(load_config(text, over, None if models is None else own_of(models[lane], text)))
        except InputError as error:
            raise InputError(_("lane {letter}: {error}", letter="AB"[lane], error=error)) from error
    return configs


def shares_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a command that takes `options: Options`."""

    def options(values: dict[str, Any]) -> Options:
        shared = {name: values.pop(name) for name in _SHARED.parameters}
        shared.pop("lang")  # known since before the options were read: `language.choose`
        return Options(**shared)

    return _with_more(command, "options", _SHARED, options)


def takes(**gathered: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the fields of dataclasses to a command as its options: `@takes(files=Files)` for a parameter `files: Files`.

    A field is annotated as an option of a command is, and has its default.
    """

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, holder in gathered.items():  # each adds its options behind those of the one before
            command = _with_more(command, name, _signature(holder), functools.partial(_held, holder))
        return command

    return decorated


def _signature(holder: Any) -> inspect.Signature:
    """A dataclass's fields as the parameters of a command."""
    hints = get_type_hints(holder, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [inspect.Parameter(f.name, kind, default=f.default, annotation=hints[f.name]) for f in fields(holder)]
    )


def _held(holder: Any, values: dict[str, Any]) -> Any:
    """A dataclass of those of a command's values that are its fields; they are taken out."""
    return holder(**{field.name: values.pop(field.name) for field in fields(holder)})


def _with_more(
    command: Callable[..., Any], name: str, added: inspect.Signature, gather: Callable[[dict[str, Any]], Any]
) -> Callable[..., Any]:
    """A command whose parameter `name` is gathered from options of its own."""
    own = [p for p in inspect.signature(command).parameters.values() if p.name != name]
    parameters = [*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *added.parameters.values()]

    @functools.wraps(command)
    def wrapper(**values: Any) -> Any:
        gathered = gather(values)
        return command(**values, **{name: gathered})

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def refuse_options(context: typer.Context) -> None:
    """Raise `InputError` for an option before a command's name, where nobody would read it. `--lang` is known there."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name != "lang" and source is not None and source.name == "COMMANDLINE":
            raise InputError(
                _(
                    "{option} stands before {command}; put it behind",
                    option=parameter.opts[0],
                    command=context.invoked_subcommand,
                )
            )


def _asked_for_json(json: bool) -> bool:
    if json:
        keep_stdout_for_json()
    return json


Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.", callback=_asked_for_json)]
JsonLines = Annotated[bool, typer.Option("--jsonl", help="One event a line, as they happen.", callback=_asked_for_json)]
Chat = Annotated[bool, typer.Option("--chat", help="Wrap the text in the model's chat template.")]
