"""Options that several commands share."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from engine.base.errors import InputError
from engine.base.language import _
from engine.cli.output import ProgressBar
from engine.generation.config import PRESETS, GenerationConfig, config_from_dict, load_config
from engine.models import catalog
from engine.models.model import Model
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.models.local import LocalModel


T = TypeVar("T")


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

    @property
    def name(self) -> str | None:
        """The model's name: of one here, or, with a server, the address and what it is to serve."""
        if self.server is None:
            return self.model
        return f"{self.server}#{self.model}" if self.model else self.server

    def load(self) -> Model:
        """Load the model or reach its server, with a progress bar on a terminal."""
        from engine.loading import load_model

        return self._load(load_model)

    def load_local(self) -> "LocalModel":
        """Load a model that runs here, for what no server can do."""
        from engine.loading import load_local

        return self._load(load_local)

    def _load(self, load: Callable[..., T]) -> T:
        with ProgressBar() as report:
            return load(
                self.name,
                precision=self.precision,
                device=self.device,
                threads=self.threads,
                offline=self.offline,
                cache_dir=self.cache_dir,
                report=report,
            )

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
        return load_tokenizer(entry, self.fetched(entry), self.cache_dir)


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
            ("lang", None, Annotated[str | None, typer.Option(help="Language; the locale's when not given.")]),
        )
    ]
)


@dataclass(frozen=True)
class Settings:
    """The options that make a configuration."""

    given: dict[str, Any]
    ban: Sequence[str]
    logit_bias: Sequence[str]
    base: str | None

    def config(self) -> GenerationConfig:
        """The configuration as far as it needs no tokenizer; invalid values raise `InputError`."""
        strategy = self.given["strategy"]
        base = load_config(self.base) if self.base else PRESETS["greedy"] if strategy is None else GenerationConfig()
        return config_from_dict({name: value for name, value in self.given.items() if value not in (None, [])}, base)

    def biased(self, config: GenerationConfig, tokenizer: Tokenizer) -> GenerationConfig:
        """The configuration with bans and biases, whose tokens are given by text or id."""
        for text in self.ban:
            config = config.biased(_single(tokenizer, text), -math.inf)
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
            config = config.biased(_single(tokenizer, text), bias)
        return config


def _single(tokenizer: Tokenizer, text: str) -> int:
    """The token that a text or a number names."""
    if text.isdecimal() and int(text) < tokenizer.vocabulary_size:
        return int(text)
    ids = tokenizer.encode_ids(text, template=False) if text else []
    if len(ids) != 1:
        raise InputError(
            _("{text!r} is {count} tokens, not one; give one token's text or its id", text=text, count=len(ids))
        )
    return ids[0]


_SETTINGS = inspect.Signature(
    [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in (
            ("config", None, Annotated[str | None, typer.Option(help="greedy, creative, sampled, or a .toml file.")]),
            ("strategy", None, Annotated[str | None, typer.Option(help="greedy, sample or contrastive.")]),
            ("max_new_tokens", None, Annotated[int | None, typer.Option(help="Tokens to generate at most.")]),
            ("temperature", None, Annotated[float | None, typer.Option(help="Below 1 sharpens, above 1 flattens.")]),
            ("top_k", None, Annotated[int | None, typer.Option(help="Keep the k most probable tokens.")]),
            ("top_p", None, Annotated[float | None, typer.Option(help="Keep the most probable up to this mass.")]),
            ("min_p", None, Annotated[float | None, typer.Option(help="Drop tokens below this part of the top one.")]),
            ("typical_p", None, Annotated[float | None, typer.Option(help="Keep typical tokens up to this mass.")]),
            ("alpha", None, Annotated[float | None, typer.Option(help="Contrastive search: weight of the penalty.")]),
            (
                "repetition_penalty",
                None,
                Annotated[float | None, typer.Option(help="Above 1 discourages repetition.")],
            ),
            ("logit_bias", None, Annotated[list[str] | None, typer.Option(help="TOKEN=NUMBER, added; repeatable.")]),
            ("ban", None, Annotated[list[str] | None, typer.Option(help="A token that never comes; repeatable.")]),
            ("seed", None, Annotated[int | None, typer.Option(help="Seed of the random draws.")]),
            ("stop", None, Annotated[list[str] | None, typer.Option(help="End once this is written; repeatable.")]),
            ("ignore_eos", False, Annotated[bool, typer.Option("--ignore-eos", help="Go on after end-of-text.")]),
        )
    ]
)


def takes_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a configuration to a command that takes `settings: Settings`."""

    def settings(values: dict[str, Any]) -> Settings:
        own = {name: values.pop(name) for name in _SETTINGS.parameters}
        base, bans, biases = own.pop("config"), own.pop("ban"), own.pop("logit_bias")
        own["ignore_eos"] = own["ignore_eos"] or None
        return Settings(own, bans or (), biases or (), base)

    return _with_more(command, "settings", _SETTINGS, settings)


def shares_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a command that takes `options: Options`."""

    def options(values: dict[str, Any]) -> Options:
        shared = {name: values.pop(name) for name in _SHARED.parameters}
        shared.pop("lang")  # known since before the options were read: `language.choose`
        return Options(**shared)

    return _with_more(command, "options", _SHARED, options)


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


Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Chat = Annotated[bool, typer.Option("--chat", help="Wrap the text in the model's chat template.")]
