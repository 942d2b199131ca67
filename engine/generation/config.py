"""`GenerationConfig`: everything that decides how a lane continues a prompt."""

import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from engine.base.errors import ConfigError, InputError
from engine.base.files import read_text, write_text
from engine.base.language import _
from engine.generation.grammar import KINDS, Grammar, checked_grammar, with_sources
from engine.generation.interventions import checked, summary
from engine.generation.model_names import check_name, label
from engine.generation.ranges import check_float, check_int, is_list
from engine.generation.stages.bias import MAX_BIAS as MAX_BIAS
from engine.generation.stages.dry import BREAKERS
from engine.generation.stages.order import ORDERS, check_complete, checked_order
from engine.generation.stages.registry import PARAMETERS, STAGES, summaries

Strategy = Literal["greedy", "sample", "contrastive", "beam"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
Precision = Literal["auto", "native", "bfloat16", "float32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

MAX_NEW_TOKENS = 100_000
CONTRASTIVE_TOP_K = 40
# Su et al. 2022 (arXiv:2202.06417) take 3 to 10 candidates, and 4 in the published examples; tokens that rank below can
# win by being unlike the text alone.
PUBLISHED_TOP_K = 4
WIDE_TOP_K = 10
OWN = "own"  # names the settings that a model brings: `engine.models.own`
EarlyStopping = Literal["no", "yes", "never"]
EARLY_STOPPING: tuple[str, ...] = get_args(EarlyStopping)
MAX_BEAMS = 64
LOOKUP = "lookup"  # the draft that wants no second model
MAX_DRAFT_TOKENS = 64
MAX_DRAFT_NGRAM = 16
MAX_CONFIG_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How one lane generates. Invalid values raise `ConfigError` at construction.

    What most of these settings do is declared, with its range and its source, in `engine.generation.stages`; they act
    in the order that `order` says, then the strategy picks.

    Attributes:
        name: what the lane is called on screen.
        strategy: `greedy` takes the most probable token, `sample` draws one, `contrastive`
            weighs probability against similarity to what is already written (deterministic), `beam` follows
            several texts at once and keeps the most probable one.
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
        model: that writes the lane, as `--model` or `--server` takes it; the lab's when `None`.
        precision: in which that model runs; as the lab's is loaded when `None`.
        interventions: what is done to the model meanwhile: see `engine.generation.interventions`.
        guidance_scale: how far the distribution is pushed away from the negative prompt's; 1 is not at all.
        negative_prompt: for guidance; the prompt's last token when `None`.
        amateur: a second model of the same vocabulary whose opinion is taken off (contrastive decoding, which is not
            contrastive search): see `engine.generation.amateur`. As `model`, also with `@precision` behind.
        amateur_weight: how much of its log-probability is taken off.
        amateur_cut: tokens less probable than this part of the most probable one are cut before; 0 cuts none.
        penalty_window and what follows it: see the stages' own files.
        order: in which the stages act: `llama.cpp`, `vllm` or names of stages; transformers' where it is empty.
        schema: JSON schema that the text is to follow, as JSON: see `engine.generation.grammar`.
        regex: regular expression that the text is to match.
        grammar: Lark grammar that the text is to follow.
        choices: texts of which it is to be one.
        draft: what guesses tokens ahead that the model then checks several at a time (speculative decoding): `lookup`,
            or a second model of the same vocabulary, as `amateur`: see `engine.generation.drafts`.
        draft_tokens: how many are guessed at a time, at most.
        draft_ngram: for lookup: how many of the last tokens are looked for in the text, at most.
        beams: for `beam`: how many texts are followed; what follows: see `engine.generation.beams`.
        length_penalty: texts that end are compared by their score over their length to this power.
        early_stopping: whether the search ends with as many texts as there are beams (`yes`), when none of the running
            ones is better as it is (`no`), or when none can become better (`never`).
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
    model: str | None = None
    precision: str | None = None
    interventions: tuple[str, ...] = ()
    guidance_scale: float = 1.0
    negative_prompt: str | None = None
    amateur: str | None = None
    amateur_weight: float = 1.0
    amateur_cut: float = 0.1
    order: tuple[str, ...] = ()
    penalty_window: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_window: int | None = None
    dry_breakers: tuple[str, ...] = BREAKERS
    no_repeat_ngram: int | None = None
    length_decay: float = 1.0
    length_decay_start: int = 0
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    top_h: float | None = None
    top_n_sigma: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat_tau: float | None = None
    mirostat_eta: float = 0.1
    schema: str | None = None
    regex: str | None = None
    grammar: str | None = None
    choices: tuple[str, ...] = ()
    draft: str | None = None
    draft_tokens: int = 16
    draft_ngram: int = 3
    beams: int = 4
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = "no"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigError("name", self.name, _("a text"))
        if self.strategy not in STRATEGIES:
            raise ConfigError("strategy", self.strategy, ", ".join(STRATEGIES))
        if self.strategy == "contrastive" and self.top_k is None:
            object.__setattr__(self, "top_k", CONTRASTIVE_TOP_K)
        check_int("max_new_tokens", self.max_new_tokens, 1, MAX_NEW_TOKENS)
        check_float("alpha", self.alpha, 0.0, 1.0)
        check_int("seed", self.seed, 0, 2**63 - 1, optional=True)
        for name, parameter in PARAMETERS.items():
            parameter.checked(getattr(self, name))
        object.__setattr__(self, "banned", tuple(self.banned))
        object.__setattr__(self, "dry_breakers", tuple(self.dry_breakers))
        object.__setattr__(self, "logit_bias", tuple((id, float(bias)) for id, bias in self.logit_bias))
        _check_strategy(self)
        object.__setattr__(self, "order", checked_order(self.order))
        check_complete(self)
        if not is_list(self.stop) or not all(isinstance(text, str) and text for text in self.stop):
            raise ConfigError("stop", self.stop, _("a list of texts, none of them empty"))
        object.__setattr__(self, "stop", tuple(self.stop))
        if not isinstance(self.ignore_eos, bool):
            raise ConfigError("ignore_eos", self.ignore_eos, _("true or false"))
        _check_model(self)
        object.__setattr__(self, "interventions", checked(self.interventions))
        object.__setattr__(self, "choices", tuple(self.choices))
        self.constraint  # noqa: B018 - raises for two of them
        _check_draft(self)
        _check_beams(self)

    @property
    def summary(self) -> str:
        """One short phrase for a lane's title, such as `contrastive k40 α0.6 T1.1`."""
        parts: list[str] = [self.strategy]
        for stage, text in summaries(self):
            parts.append(text)
            if stage == "top_k" and self.strategy == "contrastive":
                parts.append(f"α{self.alpha:g}")
        if self.strategy == "beam":
            parts.insert(1, f"×{self.beams}")
        if self.order:
            parts.append(_("order {name}", name=self.order[0] if self.order[0] in ORDERS else _("of its own")))
        if self.draft is not None:
            parts.append(f"⇉ {label(self.draft)}")
        if self.strategy == "sample" and self.seed is not None:
            parts.append(f"seed {self.seed}")
        if self.names_model:
            parts.append(f"· {self.model_label}")
        if self.interventions:
            parts.append(f"· {summary(self.interventions)}")
        return " ".join(parts)

    @property
    def constraint(self) -> Grammar | None:
        """What the lane may write at all; `None` where it may write anything."""
        return checked_grammar({kind: getattr(self, kind) for kind in KINDS})

    @property
    def names_model(self) -> bool:
        """Whether another model than the lab's may be meant, or the lab's in another precision."""
        return self.model is not None or self.precision is not None

    @property
    def model_label(self) -> str:
        """The model's name without the folders or the server it is in, and the precision: `gpt2@bfloat16`."""
        name = "" if self.model is None else label(self.model)
        return name if self.precision is None else f"{name}@{self.precision}"

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
        data = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return data | {"logit_bias": [list(pair) for pair in self.logit_bias]}


def _check_strategy(config: GenerationConfig) -> None:
    """Raise `ConfigError` for a stage that takes the most probable token away, with a strategy that wants it."""
    for stage in STAGES:
        if stage.strategies != ("sample",) or config.strategy == "sample":
            continue
        for one in stage.parameters:
            if one.off is not None and (value := getattr(config, one.name)) != one.default:
                raise ConfigError(
                    one.name, value, _("only with strategy sample (here it is {strategy})", strategy=config.strategy)
                )


def _check_model(config: GenerationConfig) -> None:
    check_name("model", config.model, _("a name, a hub id, a folder, a .gguf file or a server's address"))
    if config.precision is not None and config.precision not in PRECISIONS:
        raise ConfigError("precision", config.precision, ", ".join(PRECISIONS) + _(" (or none)"))


def _check_beams(config: GenerationConfig) -> None:
    check_int("beams", config.beams, 1, MAX_BEAMS)
    check_float("length_penalty", config.length_penalty, -10.0, 10.0)
    if config.early_stopping not in EARLY_STOPPING:
        raise ConfigError("early_stopping", config.early_stopping, ", ".join(EARLY_STOPPING))
    if config.strategy == "beam" and (config.guidance_scale != 1 or config.amateur is not None):
        raise ConfigError("strategy", config.strategy, _("only without guidance and without an amateur"))
    if config.strategy == "beam" and (config.schema or config.regex or config.grammar or config.choices):
        raise ConfigError("strategy", config.strategy, _("greedy, sample or contrastive with a grammar"))


def _check_draft(config: GenerationConfig) -> None:
    check_name("draft", config.draft, _("lookup, or a name, a hub id, a folder or a .gguf file"))
    check_int("draft_tokens", config.draft_tokens, 1, MAX_DRAFT_TOKENS)
    check_int("draft_ngram", config.draft_ngram, 1, MAX_DRAFT_NGRAM)
    if config.draft is not None and config.strategy not in ("greedy", "sample"):
        allowed = _("only with strategy greedy or sample (here it is {strategy})", strategy=config.strategy)
        raise ConfigError("draft", config.draft, allowed)
    if config.draft is not None and (config.guidance_scale != 1 or config.amateur is not None):
        raise ConfigError("draft", config.draft, _("only without guidance and without an amateur"))


@dataclass(frozen=True, slots=True)
class Kind:
    """What a setting holds.

    Attributes:
        type: of its value: str, int, float or bool; of a list, that of the items, where `tuple` is a pair.
        optional: it may also be `None`.
        many: it is a list.
    """

    type: type
    optional: bool = False
    many: bool = False


def _kind(hint: Any) -> Kind:
    inner = [part for part in get_args(hint) if part is not NoneType]
    if get_origin(hint) is Literal:
        return Kind(str)
    if get_origin(hint) is tuple:
        return Kind(get_origin(inner[0]) or inner[0], many=True)
    return Kind(inner[0] if inner else hint, optional=bool(inner))


SETTINGS: Mapping[str, Kind] = {name: _kind(hint) for name, hint in get_type_hints(GenerationConfig).items()}

PRESETS: Mapping[str, GenerationConfig] = {
    config.name: config
    for config in (
        GenerationConfig(name="greedy", strategy="greedy", max_new_tokens=40, temperature=0.7),
        GenerationConfig(
            name="creative", strategy="contrastive", max_new_tokens=40, temperature=1.1, top_k=40, alpha=0.6
        ),
        GenerationConfig(name="sampled", strategy="sample", max_new_tokens=40, temperature=0.9, top_p=0.95, seed=0),
        GenerationConfig(
            name="contrastive",
            strategy="contrastive",
            max_new_tokens=40,
            temperature=1.0,
            top_k=PUBLISHED_TOP_K,
            alpha=0.6,
        ),
    )
}


def config_from_dict(data: Mapping[str, Any], base: GenerationConfig | None = None) -> GenerationConfig:
    """A configuration from plain data laid over `base`; an unknown name is an `InputError`."""
    if unknown := sorted(set(data) - set(SETTINGS)):
        raise InputError(
            _("unknown setting {unknown!r}; known: {names}", unknown=unknown[0], names=", ".join(sorted(SETTINGS)))
        )
    return replace(base or GenerationConfig(), **with_sources(data))


def load_config(
    text: str, over: Mapping[str, Any] | None = None, own: GenerationConfig | None = None
) -> GenerationConfig:
    """A preset or a TOML file, with settings behind commas where they are wanted: `sampled,temperature=1.3,seed=7`.

    Args:
        text: a file of which the name holds commas or equals signs comes before any other reading.
        over: settings laid over all that `text` names.
        own: what `own` names, the model's own settings; plain ones while the model is not known.

    Raises:
        InputError: no such preset or file, or the file or a setting cannot be used.
    """
    base, settings = _parted(text)
    config = _preset(base, own) if _is_preset(base) else _from_file(base)
    return config_from_dict(with_sources(_settings(settings) | dict(over or {}), Path()), config)


def preset_config(text: str, otherwise: str, own: GenerationConfig | None = None) -> GenerationConfig:
    """A preset, with settings behind commas where they are wanted, and no file.

    Args:
        otherwise: what may be given in place of `text`; the error names it.
        own: as `load_config` takes it.

    Raises:
        InputError: no such preset, or a setting cannot be used.
    """
    base, comma, settings = text.partition(",")
    if not _is_preset(base):
        raise _no_configuration(base, otherwise)
    return config_from_dict(_settings(comma + settings), _preset(base, own))


def names_own(text: str | None) -> bool:
    """Whether a configuration is the model's own, with or without settings behind it."""
    return text is not None and _parted(text)[0] == OWN


def _is_preset(name: str) -> bool:
    return name in PRESETS or name == OWN


def _preset(name: str, own: GenerationConfig | None) -> GenerationConfig:
    return PRESETS[name] if name in PRESETS else own or GenerationConfig(name=OWN)


def _no_configuration(name: str, otherwise: str) -> InputError:
    return InputError(
        _(
            "no configuration {name!r}; use {names} or {otherwise}",
            name=name,
            names=", ".join((*PRESETS, OWN)),
            otherwise=otherwise,
        )
    )


def _parted(text: str) -> tuple[str, str]:
    """A preset's name or a file's, and the settings behind it from their first comma on."""
    if _is_preset(text):
        return text, ""
    ends = [match.end() for match in re.finditer(r"\.toml(?=,|$)", text)]
    end = next((end for end in reversed(ends) if os.path.isfile(text[:end])), None)
    if end is None:
        end = len(text.partition(",")[0])
        if not _is_preset(text[:end]):  # the error is to name all of a file that is not there
            setting = re.search(r",[^,=]*=", text)
            end = len(text) if setting is None else setting.start()
    return text[:end], text[end:]


def _from_file(name: str) -> GenerationConfig:
    if not name.endswith(".toml"):
        raise _no_configuration(name, _("a .toml file"))
    try:
        data = tomllib.loads(read_text(Path(name), MAX_CONFIG_BYTES))
    except tomllib.TOMLDecodeError as error:
        raise InputError(_("{name} is not valid TOML: {error}", name=name, error=error)) from error
    return config_from_dict({"name": Path(name).stem} | with_sources(data, Path(name).parent))


def _settings(text: str) -> dict[str, Any]:
    """The settings of `,KEY=VALUE,KEY=VALUE`. A list takes one item a pair, or all of them as JSON."""
    found: dict[str, Any] = {}
    for key, value in _pairs(text):
        kind = SETTINGS.get(key, Kind(str))
        if kind.many:
            found[key] = [*found.get(key, ()), *(value if isinstance(value, list) else [_value(kind, value)])]
        elif key in found:
            raise InputError(_("{key} is given twice; give it once", key=key))
        else:
            found[key] = _value(kind, value)
    return found


def _pairs(text: str) -> Iterator[tuple[str, Any]]:
    """Each key, and its value up to the next comma; a JSON text or list may hold commas."""
    while text:
        key, equals, rest = text[1:].partition("=")
        if not equals or "," in key:
            raise InputError(
                _("{text!r} is no setting; write KEY=VALUE, such as temperature=1.3", text=key.partition(",")[0])
            )
        key = key.strip().replace("-", "_")
        value: Any = rest.partition(",")[0]
        end = len(value)
        if value.startswith(('"', "[", "{")):
            try:
                value, end = json.JSONDecoder().raw_decode(rest)
            except (ValueError, RecursionError):
                end = -1
        text = rest[end:]
        if text and not text.startswith(","):
            raise ConfigError(key, rest, _('a value without commas, or JSON such as ["a", "b, c"]'))
        yield key, value


def _value(kind: Kind, value: Any) -> Any:
    """What a text says. What is no value of its kind stays as it is, and the configuration says what is allowed."""
    if not isinstance(value, str) or (kind.many and kind.type is str):
        return value
    text = value.strip()
    if kind.optional and text.lower() == "none":
        return None
    if kind.type is bool:
        return {"true": True, "false": False}.get(text.lower(), value)
    try:
        return kind.type(text) if kind.type in (str, int, float) else value
    except ValueError:
        return value


def save_config(config: GenerationConfig, path: Path) -> None:
    """Write a configuration as a TOML file that `load_config` reads. Raises `MachineError`."""
    lines = [f"{name} = {_toml(value)}" for name, value in config.to_dict().items() if value is not None]
    write_text(path, "\n".join(lines) + "\n")


def _toml(value: object) -> str:
    """A value as TOML, in which JSON's numbers, texts, lists and truths are spelt alike."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


assert {name: PARAMETERS[name].default for name in PARAMETERS} == {
    field.name: field.default for field in fields(GenerationConfig) if field.name in PARAMETERS
}, "a stage's parameters are fields of GenerationConfig, with the same defaults"
