"""The settings that a model brings itself, of `generation_config.json` or of a GGUF file's `general.sampling` fields.

Read as transformers' `generate` reads them: what is not named has its default there, and without `do_sample` the most
probable token is taken.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.base.errors import InputError
from engine.base.language import N_, _
from engine.generation.config import MAX_BIAS, OWN, GenerationConfig
from engine.generation.stages.registry import PARAMETERS

TOP_K = 50  # where a model that samples names none
# What a lane has no setting for, and the values at which it does nothing.
_WITHOUT_EFFECT: Mapping[str, Sequence[object]] = {
    "num_beams": (1,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "begin_suppress_tokens": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "token_healing": (False,),
    "watermarking_config": (),
    "dola_layers": (),
    "diversity_penalty": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "mirostat": (0, 2),
    "sequence": ("",),
}
# What a lane has settings for.
_SETTINGS = {
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "penalty_alpha", "repetition_penalty"),
    *("guidance_scale", "suppress_tokens", "bad_words_ids", "sequence_bias", "stop_strings"),
    *("no_repeat_ngram_size", "exponential_decay_length_penalty", "top_h", "epsilon_cutoff", "eta_cutoff"),
}
_GGUF = "general.sampling."
_GGUF_NAMES = {"temp": "temperature", "penalty_repeat": "repetition_penalty"}


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """What a model says of how its tokens are to be chosen.

    Attributes:
        config: as a lane takes it, named `own`; `None` where it says nothing, or nothing that can be used.
        absent: then why, in a sentence.
        left_out: settings that a lane does not have, such as `num_beams 4`.
    """

    config: GenerationConfig | None = None
    absent: str = ""
    left_out: tuple[str, ...] = ()

    def need(self) -> GenerationConfig:
        """The configuration. Raises `InputError` where there is none."""
        if self.config is None:
            raise InputError(_(self.absent))
        return self.config

    def remark(self, config: GenerationConfig) -> str:
        """One sentence on how a lane differs from what the model's makers meant; empty where nothing is to be said.

        A lane of its own settings lacks what no lane has. Another one does not take the penalties, bans and biases,
        which change what is chosen, greedy too.
        """
        if self.config is None:
            return ""
        if config.name == OWN:
            names = ", ".join(self.left_out)
            return names and _("the model's own settings also hold {names}, which a lane does not have", names=names)
        missing = ", ".join(_penalties(self.config, config))
        if not missing:
            return ""
        return _(
            "the model's own settings have {missing}, which {name} leaves out; configuration own takes them",
            missing=missing,
            name=config.name,
        )


NONE = OwnSettings(absent=N_("the model brings no settings of its own; choose another configuration"))


def _penalties(own: GenerationConfig, config: GenerationConfig) -> Iterator[str]:
    """What changes the choice whatever the strategy, as far as `config` says nothing of it itself."""
    for name in ("repetition_penalty", "no_repeat_ngram", "length_decay"):
        value, default = getattr(own, name), PARAMETERS[name].default
        if value != default and getattr(config, name) == default:
            yield f"{name} {value:g}"
    if set(own.banned) - set(config.banned):
        yield f"banned {' '.join(map(str, own.banned[:4]))}{' …' * (len(own.banned) > 4)}"
    if own.logit_bias and not config.logit_bias:
        yield "logit_bias " + " ".join(f"{id}={bias:g}" for id, bias in own.logit_bias[:4])


def own_settings(generation: Mapping[str, Any], config: Mapping[str, Any], title: str) -> OwnSettings:
    """The settings that a model brings.

    Args:
        generation, config: as a `networks.sources.Source` has them.
        title: the model's, for the sentences.
    """
    of_gguf = any(name.startswith(_GGUF) for name in generation)
    data = _of_gguf(generation) if of_gguf else _of_folder(generation, config)
    given = {name: value for name, value in data.items() if value is not None}
    if not given:
        return OwnSettings(absent=_("{title} brings no settings of its own; choose another configuration", title=title))
    left_out = [
        f"{name} {given[name]}" for name, none in _WITHOUT_EFFECT.items() if name in given and given[name] not in none
    ]
    try:
        own = _config(given, left_out)
    except InputError as error:
        why = _("{title} brings settings that cannot be used: {error}", title=title, error=error)
        return OwnSettings(absent=why)
    except (TypeError, ValueError, KeyError, AttributeError):
        why = _("{title} brings settings of an unknown shape; choose another configuration", title=title)
        return OwnSettings(absent=why)
    return OwnSettings(own, left_out=tuple(left_out))


def _config(given: Mapping[str, Any], left_out: list[str]) -> GenerationConfig:
    samples = given.get("do_sample", False) is True
    top_k = given.get("top_k", TOP_K)
    contrastive = not samples and given.get("penalty_alpha", 0) > 0 and top_k > 1
    banned, biases = _tokens(given, left_out)
    stop = given.get("stop_strings", ())
    config = GenerationConfig(
        name=OWN,
        strategy="sample" if samples else "contrastive" if contrastive else "greedy",
        temperature=given.get("temperature", 1.0),
        top_k=(top_k or None) if samples or contrastive or "top_k" in given else None,
        top_p=_below_one(given.get("top_p")),
        min_p=given.get("min_p") or None,
        typical_p=_below_one(given.get("typical_p")) if samples else None,
        repetition_penalty=given.get("repetition_penalty", 1.0),
        banned=banned,
        logit_bias=biases,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        guidance_scale=given.get("guidance_scale", 1.0),
        no_repeat_ngram=given.get("no_repeat_ngram_size") or None,
        **_of_samplers(given, samples),
    )
    return replace(config, alpha=given["penalty_alpha"]) if contrastive else config


def _of_samplers(given: Mapping[str, Any], samples: bool) -> dict[str, Any]:
    """What only some models bring: transformers' warpers and length penalty, llama.cpp's XTC, mirostat 2 and window."""
    found: dict[str, Any] = {}
    if decay := given.get("exponential_decay_length_penalty"):
        found |= {"length_decay_start": decay[0], "length_decay": decay[1]}
    if (window := given.get("penalty_last_n", 0)) > 0:
        found["penalty_window"] = window
    if not samples:
        return found
    found |= {name: given[name] for name in ("top_h", "epsilon_cutoff", "eta_cutoff") if given.get(name)}
    found |= {name: given[name] for name in ("xtc_probability", "xtc_threshold") if given.get("xtc_probability")}
    if given.get("mirostat") == 2:
        found |= {"mirostat_tau": given.get("mirostat_tau", 5.0), "mirostat_eta": given.get("mirostat_eta", 0.1)}
    return found


def _below_one(value: Any) -> Any:
    """A mass, where it cuts something off."""
    return None if value == 1 else value


def _tokens(given: Mapping[str, Any], left_out: list[str]) -> tuple[tuple[int, ...], tuple[tuple[int, float], ...]]:
    """Ids that never come, and biases. Sequences of several tokens go to `left_out`."""
    banned = list(given.get("suppress_tokens", ()))
    biases: dict[int, float] = {}
    ends = given.get("eos_token_id", [])
    ends = [[id] for id in (ends if isinstance(ends, list) else [ends])]  # as words they are passed over
    words = [(ids, -math.inf) for ids in given.get("bad_words_ids", ()) if ids not in ends]
    bias = given.get("sequence_bias", ())
    for ids, value in [*words, *(bias.items() if isinstance(bias, Mapping) else bias)]:
        if len(ids) != 1 or (value != -math.inf and abs(value) > MAX_BIAS):
            left_out.append(f"{'bad_words_ids' if value == -math.inf else 'sequence_bias'} {list(ids)}")
        elif value == -math.inf:
            banned.append(ids[0])
        else:
            biases[ids[0]] = biases.get(ids[0], 0.0) + value
    return tuple(dict.fromkeys(banned)), tuple(biases.items())


def _of_folder(generation: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """`generation_config.json`; without it what older models have in `config.json`, as transformers takes it."""
    text = config.get("text_config")
    whole = generation or {**(text if isinstance(text, Mapping) else {}), **config}
    return {name: value for name, value in whole.items() if name in _SETTINGS or name in _WITHOUT_EFFECT}


def _of_gguf(fields: Mapping[str, Any]) -> dict[str, Any]:
    """llama.cpp's `general.sampling` fields under transformers' names."""
    found = {name.removeprefix(_GGUF): value for name, value in fields.items()}
    found = {_GGUF_NAMES.get(name, name): value for name, value in found.items()}
    if found.get("repetition_penalty", 1) == 1:
        found.pop("penalty_last_n", None)  # of how many tokens the penalty takes
    samples = found.get("temperature", 1) > 0
    top_k = max(found.get("top_k", 0), 0)  # 0 and below: all
    return found | {"do_sample": samples, "top_k": top_k} | ({} if samples else {"temperature": 1.0})
