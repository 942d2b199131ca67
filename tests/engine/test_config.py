import math
from pathlib import Path

import pytest

from engine.base.errors import ConfigError, InputError
from engine.generation.config import PRESETS, GenerationConfig, config_from_dict, load_config


def test_presets_are_the_seeds() -> None:
    greedy, creative, sampled = (PRESETS[name] for name in ("greedy", "creative", "sampled"))
    assert (greedy.strategy, greedy.max_new_tokens, greedy.temperature) == ("greedy", 40, 0.7)
    assert (creative.strategy, creative.max_new_tokens, creative.temperature) == ("contrastive", 40, 1.1)
    assert (creative.top_k, creative.alpha) == (40, 0.6)
    assert (sampled.strategy, sampled.temperature, sampled.top_p, sampled.seed) == ("sample", 0.9, 0.95, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strategy", "beam"),
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
