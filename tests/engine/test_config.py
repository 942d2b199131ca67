import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from engine.base.errors import ConfigError, InputError
from engine.generation.config import (
    PRESETS,
    SETTINGS,
    GenerationConfig,
    Kind,
    config_from_dict,
    load_config,
    preset_config,
    save_config,
)


def test_presets_are_the_seeds() -> None:
    greedy, creative, sampled = (PRESETS[name] for name in ("greedy", "creative", "sampled"))
    assert (greedy.strategy, greedy.max_new_tokens, greedy.temperature) == ("greedy", 40, 0.7)
    assert (creative.strategy, creative.max_new_tokens, creative.temperature) == ("contrastive", 40, 1.1)
    assert (creative.top_k, creative.alpha) == (40, 0.6)
    assert (sampled.strategy, sampled.temperature, sampled.top_p, sampled.seed) == ("sample", 0.9, 0.95, 0)


def test_contrastive_is_the_published_setting() -> None:
    preset = PRESETS["contrastive"]
    assert (preset.strategy, preset.top_k, preset.alpha) == ("contrastive", 4, 0.6)
    assert (preset.temperature, preset.max_new_tokens) == (1.0, 40)
    assert list(PRESETS) == ["greedy", "creative", "sampled", "contrastive"]
    assert load_config("contrastive,seed=3").top_k == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strategy", "wild"),
        ("beams", 0),
        ("beams", 65),
        ("length_penalty", math.nan),
        ("early_stopping", "perhaps"),
        ("max_new_tokens", 0),
        ("max_new_tokens", 10**9),
        ("max_new_tokens", 2.5),
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "hot"),
        ("top_k", 0),
        ("top_k", True),
        ("top_p", 2.0),
        ("top_p", 0.0),
        ("min_p", -0.1),
        ("typical_p", 1.5),
        ("alpha", 1.5),
        ("repetition_penalty", 0.0),
        ("seed", -1),
        ("stop", ("",)),
        ("stop", "text"),
        ("stop", 3),
        ("banned", 5),
        ("banned", "57"),
        ("logit_bias", 3),
        ("name", 3),
        ("ignore_eos", "yes"),
    ],
)
def test_an_invalid_value_names_field_value_and_range(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"strategy": "sample"} | {field: value})
    assert caught.value.field == field
    assert repr(value) in str(caught.value)
    assert "allowed" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_zero_temperature_points_to_greedy() -> None:
    with pytest.raises(ConfigError, match="strategy greedy"):
        GenerationConfig(temperature=0.0)


def test_typical_p_needs_sampling() -> None:
    with pytest.raises(ConfigError, match="strategy sample"):
        GenerationConfig(strategy="greedy", typical_p=0.9)


def test_contrastive_search_has_candidates_by_default() -> None:
    assert GenerationConfig(strategy="contrastive").top_k == 40


def test_summary_says_what_differs_from_the_plain_model() -> None:
    assert PRESETS["creative"].summary == "contrastive k40 α0.6 T1.1"
    assert GenerationConfig().summary == "greedy"
    everything = GenerationConfig(
        strategy="sample", top_p=0.5, min_p=0.1, typical_p=0.9, repetition_penalty=1.2, seed=7
    )
    assert everything.summary == "sample p0.5 min-p 0.1 typical 0.9 rep 1.2 seed 7"


def test_a_toml_file_is_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "wild.toml"
    file.write_text('strategy = "sample"\ntemperature = 1.5\nstop = ["\\n"]\nseed = 3\n')
    config = load_config(str(file))
    assert (config.name, config.temperature, config.stop, config.seed) == ("wild", 1.5, ("\n",), 3)
    assert config_from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("temperature = ", "not valid TOML"), ("heat = 3", "unknown setting 'heat'"), ("top_p = 2", "top_p is 2")],
)
def test_a_wrong_toml_file_says_what_is_wrong(tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(content)
    with pytest.raises(InputError, match=complaint):
        load_config(str(file))


def test_an_unknown_configuration_lists_the_known() -> None:
    with pytest.raises(InputError, match="greedy, creative, sampled"):
        load_config("wild")
    with pytest.raises(InputError, match="cannot read"):
        load_config("missing.toml")


def test_the_kinds_are_those_of_the_fields() -> None:
    assert SETTINGS["temperature"] == Kind(float)
    assert SETTINGS["strategy"] == Kind(str)
    assert SETTINGS["ignore_eos"] == Kind(bool)
    assert SETTINGS["seed"] == Kind(int, optional=True)
    assert SETTINGS["stop"] == Kind(str, many=True)
    assert SETTINGS["banned"] == Kind(int, many=True)
    assert SETTINGS["logit_bias"] == Kind(tuple, many=True)


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("sampled,temperature=1.3,seed=7", {"temperature": 1.3, "seed": 7}),
        ("sampled, top-k = 5 , top_p = none", {"top_k": 5, "top_p": None}),
        ("sampled,strategy=greedy,ignore_eos=true", {"strategy": "greedy", "ignore_eos": True}),
        ("sampled,stop= sky,stop=.", {"stop": (" sky", ".")}),
        ('sampled,stop=["a, b","\\n"],seed=1', {"stop": ("a, b", "\n"), "seed": 1}),
        ('sampled,stop="a, b",name="x=y"', {"stop": ("a, b",), "name": "x=y"}),
        ("sampled,banned=5,banned=[7, 8]", {"banned": (5, 7, 8)}),
        ("sampled,logit_bias=[[2240, -3.0], [5, 1]]", {"logit_bias": ((2240, -3.0), (5, 1.0))}),
        ("sampled,stop=x.toml", {"stop": ("x.toml",)}),
        ("sampled,stop=a=b", {"stop": ("a=b",)}),
    ],
)
def test_settings_stand_behind_a_preset(text: str, changed: dict[str, object]) -> None:
    expected = replace(PRESETS["sampled"], **changed)
    assert load_config(text) == expected
    assert preset_config(text, "settings") == expected


@pytest.mark.parametrize("name", [name for name, kind in SETTINGS.items() if not kind.many])
def test_every_setting_can_stand_behind_a_preset(name: str) -> None:
    values = {"name": "x", "strategy": "contrastive", "ignore_eos": True, "temperature": 0.5, "xtc_threshold": 0.25}
    values |= {"schema": '"{}"', "regex": '"[0-9]"', "grammar": "start: /a/"}
    values |= {"model": "gpt2", "precision": "bfloat16", "negative_prompt": "x", "amateur": "gpt2", "draft": "lookup"}
    values |= {"early_stopping": "never"}
    value = values.get(name, 1)
    written = str(value).lower()
    value = json.loads(value) if written.startswith('"') else value
    assert getattr(load_config(f"sampled,{name}={written}"), name) == value


def test_later_settings_are_laid_over_earlier_ones(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("temperature = 0.5\nseed = 1\ntop_k = 3\n")
    config = load_config(f"{file},temperature=0.6,seed=2", {"temperature": 0.7})
    assert (config.temperature, config.seed, config.top_k, config.name) == (0.7, 2, 3, "own")
    assert load_config("greedy,typical_p=0.5", {"strategy": "sample"}).typical_p == 0.5


@pytest.mark.parametrize("name", ["a,seed=3.toml", "x=1.toml", "greedy,top_k=2.toml", "a.toml,b.toml"])
def test_a_file_is_found_whatever_its_name_holds(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text("temperature = 0.1")
    (tmp_path / name).write_text("temperature = 0.3")
    assert load_config(name).temperature == 0.3
    assert load_config(str(tmp_path / name)).temperature == 0.3
    behind = load_config(f"{name},seed=5")
    assert (behind.temperature, behind.seed, behind.name) == (0.3, 5, name.removesuffix(".toml"))
    assert load_config("a.toml,seed=5").temperature == 0.1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sampled,heat=3", "unknown setting 'heat'; known: alpha, amateur,"),
        ("sampled,temperature=warm", "temperature is 'warm'; allowed: above 0 up to 100"),
        ("sampled,temperature=0", "temperature is 0.0; allowed: above 0 up to 100"),
        ("sampled,temperature=[1]", "temperature is [1]; allowed: above 0 up to 100"),
        ("sampled,temperature=", "temperature is ''; allowed: above 0 up to 100"),
        ("sampled,temperature=none", "temperature is 'none'; allowed: above 0 up to 100"),
        ("sampled,top_k=2.5", "top_k is '2.5'; allowed: a whole number from 1 to 1,000,000 (or none)"),
        ("sampled,seed=-1", "seed is -1; allowed: a whole number from 0 (or none)"),
        ("sampled,ignore_eos=perhaps", "ignore_eos is 'perhaps'; allowed: true or false"),
        ("sampled,strategy=beams", "strategy is 'beams'; allowed: greedy, sample, contrastive, beam"),
        ("sampled,banned=five", "banned is ['five']; allowed: a list of token ids"),
        ("sampled,logit_bias=2240", "logit_bias is ['2240']; allowed: pairs of a token id and a number"),
        ("sampled,stop=", "stop is ['']; allowed: a list of texts"),
        ('sampled,stop=["a"', "stop is '[\"a\"'; allowed: a value without commas, or JSON"),
        ('sampled,stop="a"b', "stop is '\"a\"b'; allowed: a value without commas, or JSON"),
        ("sampled,seed=1,seed=2", "seed is given twice"),
        ("sampled,seed", "'seed' is no setting; write KEY=VALUE"),
        ("sampled,seed,top_k=5", "'seed' is no setting; write KEY=VALUE"),
        ("sampled,", "'' is no setting; write KEY=VALUE"),
        ("wild,seed=1", "no configuration 'wild'; use greedy, creative, sampled, contrastive, own or a .toml file"),
        ("seed=1", "no configuration 'seed=1'; use greedy, creative, sampled, contrastive, own or a .toml file"),
        ("a,b.toml,seed=1", "cannot read a,b.toml"),
        ("", "no configuration ''"),
    ],
)
def test_settings_that_cannot_be_name_the_key_and_what_is_right(text: str, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        load_config(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("order", "held"),
    [
        ("llama.cpp", ("llama.cpp",)),
        ("transformers", ()),
        ([], ()),
        ("top_k, temperature top_p", ("top_k", "temperature", "top_p")),
        (["top_k", "temperature top_p"], ("top_k", "temperature", "top_p")),
    ],
)
def test_an_order_is_a_name_or_names_stages(order: object, held: tuple[str, ...], tmp_path: Path) -> None:
    config = config_from_dict({"order": order, "strategy": "sample", "top_k": 5, "temperature": 0.7})
    assert config.order == held
    save_config(config, tmp_path / "ordered.toml")
    assert load_config(str(tmp_path / "ordered.toml")).order == held
    assert load_config("sampled,order=" + " ".join(held)).order == held


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"order": "top_k heat"}, "order is 'heat'; allowed: transformers, llama.cpp, vllm, or names of stages"),
        ({"order": "top_k top_k"}, "each stage once, and top_k is named twice"),
        ({"order": "vllm top_k"}, "vllm alone, or names of stages"),
        ({"order": "bias top_k"}, "bias comes first in every order"),
        ({"order": 3}, "order is 3"),
        ({"order": [3]}, "order is"),
        ({"order": "top_k", "temperature": 0.5}, "an order that names temperature too"),
        ({"order": "vllm", "strategy": "sample", "typical_p": 0.5}, "an order that names typical_p too"),
    ],
)
def test_an_order_that_cannot_be_says_why(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        config_from_dict(settings)
    assert caught.value.field == "order"
