"""`GenerationConfig`: everything that decides how a lane continues a prompt."""

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from engine.base.errors import ConfigError, InputError
from engine.base.files import read_text, write_text
from engine.base.language import _

Strategy = Literal["greedy", "sample", "contrastive"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)

MAX_NEW_TOKENS = 100_000
CONTRASTIVE_TOP_K = 40
MAX_BIAS = 100.0
MAX_CONFIG_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How one lane generates. Invalid values raise `ConfigError` at construction.

    The order in which the settings act is that of transformers' processors: biases and bans,
    repetition penalty, temperature, top-k, top-p, min-p, typical-p; then the strategy picks.

    Attributes:
        name: what the lane is called on screen.
        strategy: `greedy` takes the most probable token, `sample` draws one, `contrastive`
            weighs probability against similarity to what is already written (deterministic).
        max_new_tokens: tokens to generate at most.
        temperature: divides the logits; below 1 sharpens, above 1 flattens, order unchanged.
        top_k: keep the k most probable tokens. For `contrastive`: the number of candidates.
        top_p: keep the most probable tokens until their mass reaches p.
        min_p: drop tokens less probable than p times the most probable one.
        typical_p: keep the tokens whose surprisal is nearest the entropy, up to mass p.
        alpha: weight of the degeneration penalty in contrastive search.
        repetition_penalty: above 1 makes tokens already present less probable.
        logit_bias: pairs of a token id and what is added to its logit; above 0 favours it.
        banned: ids of tokens that never come.
        seed: of the lane's own random generator; `None` draws one when the run starts.
        stop: texts that end the lane once generated.
        ignore_eos: go on after end-of-text.
    """

    name: str = "custom"
    strategy: Strategy = "greedy"
    max_new_tokens: int = 40
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    alpha: float = 0.6
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    banned: tuple[int, ...] = ()
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError("strategy", self.strategy, ", ".join(STRATEGIES))
        if self.strategy == "contrastive" and self.top_k is None:
            object.__setattr__(self, "top_k", CONTRASTIVE_TOP_K)
        _check_int("max_new_tokens", self.max_new_tokens, 1, MAX_NEW_TOKENS)
        _check_float("temperature", self.temperature, 0.0, 100.0, above=True)
        _check_int("top_k", self.top_k, 1, 1_000_000, optional=True)
        _check_float("top_p", self.top_p, 0.0, 1.0, above=True, optional=True)
        _check_float("min_p", self.min_p, 0.0, 1.0, optional=True)
        _check_float("typical_p", self.typical_p, 0.0, 1.0, above=True, optional=True)
        _check_float("alpha", self.alpha, 0.0, 1.0)
        _check_float("repetition_penalty", self.repetition_penalty, 0.0, 100.0, above=True)
        _check_biases(self)
        _check_int("seed", self.seed, 0, 2**63 - 1, optional=True)
        if self.typical_p is not None and self.strategy != "sample":
            raise ConfigError(
                "typical_p",
                self.typical_p,
                _("only with strategy sample (here it is {strategy})", strategy=self.strategy),
            )
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise ConfigError("stop", self.stop, _("a list of texts, none of them empty"))
        object.__setattr__(self, "stop", tuple(self.stop))
        if not isinstance(self.ignore_eos, bool):
            raise ConfigError("ignore_eos", self.ignore_eos, _("true or false"))

    @property
    def summary(self) -> str:
        """One short phrase for a lane's title, such as `contrastive k40 α0.6 T1.1`."""
        parts: list[str] = [self.strategy]
        if self.top_k is not None:
            parts.append(f"k{self.top_k}")
        if self.strategy == "contrastive":
            parts.append(f"α{self.alpha:g}")
        for letter, value in (("p", self.top_p), ("min-p ", self.min_p), ("typical ", self.typical_p)):
            if value is not None:
                parts.append(f"{letter}{value:g}")
        if self.temperature != 1:
            parts.append(f"T{self.temperature:g}")
        if self.repetition_penalty != 1:
            parts.append(f"rep {self.repetition_penalty:g}")
        if self.logit_bias or self.banned:
            parts.append(f"±{len(self.logit_bias) + len(self.banned)}")
        if self.strategy == "sample" and self.seed is not None:
            parts.append(f"seed {self.seed}")
        return " ".join(parts)

    def biased(self, id: int, bias: float) -> "GenerationConfig":
        """The same with another bias on one token: 0 for none, −inf for a ban."""
        others = tuple(pair for pair in self.logit_bias if pair[0] != id)
        banned = tuple(other for other in self.banned if other != id)
        if bias == -math.inf:
            return replace(self, logit_bias=others, banned=(*banned, id))
        return replace(self, logit_bias=(*others, (id, bias)) if bias else others, banned=banned)

    def bias_of(self, id: int) -> float:
        """What is added to one token's logit; −inf if it is banned."""
        return -math.inf if id in self.banned else dict(self.logit_bias).get(id, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data, for JSON and TOML."""
        lists = {"stop": list(self.stop), "banned": list(self.banned), "logit_bias": [list(p) for p in self.logit_bias]}
        return asdict(self) | lists


def _check_biases(config: GenerationConfig) -> None:
    allowed = _(
        "pairs of a token id and a number from {least:g} to {most:g}, such as [[2240, -3.0]]",
        least=-MAX_BIAS,
        most=MAX_BIAS,
    )
    pairs = tuple(tuple(pair) if isinstance(pair, (list, tuple)) else (pair,) for pair in config.logit_bias)
    for pair in pairs:
        if len(pair) != 2 or not _is_id(pair[0]) or not _is_number(pair[1]) or abs(pair[1]) > MAX_BIAS:
            raise ConfigError("logit_bias", config.logit_bias, allowed)
    object.__setattr__(config, "logit_bias", tuple((id, float(bias)) for id, bias in pairs))
    if not all(map(_is_id, config.banned)):
        raise ConfigError("banned", config.banned, _("a list of token ids"))
    object.__setattr__(config, "banned", tuple(config.banned))


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_int(field: str, value: object, least: int, most: int, *, optional: bool = False) -> None:
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        allowed = (
            _("a whole number from {least:,} to {most:,}", least=least, most=most)
            if most < 2**40
            else _("a whole number from {least}", least=least)
        )
        raise ConfigError(field, value, allowed + (_(" (or none)") if optional else ""))


def _check_float(
    field: str,
    value: object,
    least: float,
    most: float,
    *,
    above: bool = False,
    optional: bool = False,
) -> None:
    if optional and value is None:
        return
    if not _is_number(value) or not least <= value <= most or (above and value == least):  # type: ignore[operator]
        allowed = (
            _("above {least:g} up to {most:g}", least=least, most=most)
            if above
            else _("from {least:g} up to {most:g}", least=least, most=most)
        )
        hint = _("; for no randomness use strategy greedy") if field == "temperature" and value == 0 else ""
        raise ConfigError(field, value, allowed + (_(" (or none)") if optional else "") + hint)


PRESETS: Mapping[str, GenerationConfig] = {
    config.name: config
    for config in (
        GenerationConfig(name="greedy", strategy="greedy", max_new_tokens=40, temperature=0.7),
        GenerationConfig(
            name="creative", strategy="contrastive", max_new_tokens=40, temperature=1.1, top_k=40, alpha=0.6
        ),
        GenerationConfig(name="sampled", strategy="sample", max_new_tokens=40, temperature=0.9, top_p=0.95, seed=0),
    )
}


def config_from_dict(data: Mapping[str, Any], base: GenerationConfig | None = None) -> GenerationConfig:
    """A configuration from plain data laid over `base`; an unknown name is an `InputError`."""
    known = {field.name for field in fields(GenerationConfig)}
    if unknown := sorted(set(data) - known):
        raise InputError(
            _("unknown setting {unknown!r}; known: {names}", unknown=unknown[0], names=", ".join(sorted(known)))
        )
    values = dict(data)
    for name in ("stop", "banned", "logit_bias"):
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    return replace(base or GenerationConfig(), **values)


def load_config(name: str) -> GenerationConfig:
    """A preset by name, or a configuration from a TOML file.

    Raises:
        InputError: no such preset or file, or the file is no valid configuration.
    """
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith(".toml"):
        raise InputError(
            _("no configuration {name!r}; use {names} or a .toml file", name=name, names=", ".join(PRESETS))
        )
    try:
        data = tomllib.loads(read_text(Path(name), MAX_CONFIG_BYTES))
    except tomllib.TOMLDecodeError as error:
        raise InputError(_("{name} is not valid TOML: {error}", name=name, error=error)) from error
    return config_from_dict({"name": Path(name).stem} | data)


def save_config(config: GenerationConfig, path: Path) -> None:
    """Write a configuration as a TOML file that `load_config` reads. Raises `MachineError`."""
    lines = [f"{name} = {_toml(value)}" for name, value in config.to_dict().items() if value is not None]
    write_text(path, "\n".join(lines) + "\n")


def _toml(value: object) -> str:
    """A value as TOML, in which JSON's numbers, texts, lists and truths are spelt alike."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
