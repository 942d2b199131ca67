"""The settings that a model brings, against transformers' `generate` with the same files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.base.errors import InputError
from engine.generation.config import OWN, PRESETS, GenerationConfig, config_from_dict, load_config, names_own
from engine.generation.events import Start
from engine.generation.result import RunResult
from engine.loading import load_local
from engine.models.own import own_settings
from tests.conftest import save_tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "own", "llama")


def with_file(folder: Path, **settings: Any) -> Path:
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


def reference(folder: Path) -> Any:
    """transformers' module with the settings that it reads itself."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def processors(model: Any, ids: list[int]) -> Any:
    """What transformers lays over the logits for these settings."""
    config, _rest = model._prepare_generation_config(None)
    model._prepare_special_tokens(config, device=torch.device("cpu"))
    return model._get_logits_processor(config, input_ids_seq_length=len(ids), model_kwargs={})


PENALTIES = {
    "plain": {"do_sample": False},
    "a penalty": {"repetition_penalty": 1.6},
    "settings that act only where it samples": {
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 3,
        "repetition_penalty": 1.3,
    },
    "suppressed": {"suppress_tokens": list(range(0, 200, 3))},
    "words": {"bad_words_ids": [[5], [6], [7]], "eos_token_id": 7},
    "biases": {"sequence_bias": [[[9], 40.0], [[12], -30.0]]},
}


@pytest.mark.parametrize("settings", PENALTIES.values(), ids=PENALTIES)
def test_without_sampling_the_tokens_are_those_of_generate(folder: Path, settings: dict[str, Any]) -> None:
    model = load_local(str(with_file(folder, **settings)), precision="float32")
    ids = model.tokenizer.encode_ids("the sky above the city")
    own = config_from_dict({"max_new_tokens": 12}, model.own.need())
    result = RunResult()
    for event in model.generate([Start(tuple(model.tokenizer.encode("the sky above the city")))], [own]):
        result.add(event)
    written = reference(folder).generate(torch.tensor([ids]), max_new_tokens=12, pad_token_id=0)[0, len(ids) :]
    assert [step.token.id for step in result.lanes[0].steps] == written.tolist()
    assert (own.name, own.strategy) == (OWN, "greedy")


SAMPLED = {
    "the default k": {"do_sample": True},
    "all tokens": {"do_sample": True, "top_k": 0},
    "the usual": {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20},
    "none of them": {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "typical_p": 1.0, "min_p": 0.0},
    "min-p and a penalty": {"do_sample": True, "top_k": 0, "min_p": 0.05, "repetition_penalty": 1.2},
    "typical": {"do_sample": True, "top_k": 0, "typical_p": 0.6, "temperature": 1.4},
    "null": {"do_sample": True, "top_k": None, "top_p": None},
}


@pytest.mark.parametrize("settings", SAMPLED.values(), ids=SAMPLED)
def test_where_it_samples_the_distribution_is_that_of_generate(folder: Path, settings: dict[str, Any]) -> None:
    model = load_local(str(with_file(folder, **settings)), precision="float32")
    prompt = model.tokenizer.encode("the sky above")
    own = model.own.need()
    inspection = model.inspect(Start(tuple(prompt)), own)
    ids = [token.id for token in prompt]
    theirs = reference(folder)
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits[:, -1]
    expected = torch.softmax(processors(theirs, ids)(torch.tensor([ids]), logits), -1)[0]
    shown = inspection.at(0, len(expected))
    ours = {candidate.id: candidate.probability or 0.0 for candidate in shown}
    assert own.strategy == "sample"
    assert [ours.get(id, 0.0) for id in range(len(expected))] == pytest.approx(expected.tolist(), abs=1e-5)


def test_older_models_have_their_settings_in_their_configuration(folder: Path) -> None:
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text()) | {"do_sample": True, "top_k": 7, "temperature": 0.5}
    (folder / "config.json").write_text(json.dumps(config))
    own = load_local(str(folder), precision="float32").own.need()
    theirs, _rest = reference(folder)._prepare_generation_config(None)
    assert (
        (own.strategy, own.top_k, own.temperature) == ("sample", theirs.top_k, theirs.temperature) == ("sample", 7, 0.5)
    )


def test_what_no_lane_has_is_named() -> None:
    own = own_settings({"num_beams": 4, "no_repeat_ngram_size": 3, "bad_words_ids": [[1, 2], [3]]}, {}, "M")
    assert own.need().banned == (3,)
    assert own.left_out == ("num_beams 4", "bad_words_ids [1, 2]")
    assert own.need().no_repeat_ngram == 3
    assert "num_beams 4, bad_words_ids [1, 2]" in own.remark(own.need())
    without = own_settings({"num_beams": 1, "no_repeat_ngram_size": 0, "top_k": 4, "guidance_scale": 1.0}, {}, "M")
    assert without.left_out == ()
    assert without.remark(without.need()) == ""


def test_a_lane_of_other_settings_is_told_what_would_change_its_choices() -> None:
    own = own_settings({"repetition_penalty": 1.1, "do_sample": True, "temperature": 0.2}, {}, "M")
    assert "repetition_penalty 1.1, which greedy leaves out" in own.remark(PRESETS["greedy"])
    assert own.remark(GenerationConfig(repetition_penalty=1.2)) == ""
    assert own_settings({"do_sample": True, "temperature": 0.2}, {}, "M").remark(PRESETS["greedy"]) == ""


@pytest.mark.parametrize(
    "settings",
    [{"do_sample": True, "temperature": 0}, {"do_sample": True, "top_k": -3}, {"top_p": "much"}, {"bad_words_ids": 3}],
)
def test_settings_that_cannot_be_used_are_refused_in_a_sentence(settings: dict[str, Any]) -> None:
    own = own_settings(settings, {}, "M")
    assert own.config is None
    with pytest.raises(InputError, match=r"^M brings settings .+"):
        own.need()


def test_a_model_without_settings_says_so() -> None:
    with pytest.raises(InputError, match=r"^M brings no settings of its own"):
        own_settings({"eos_token_id": 2, "transformers_version": "5"}, {"model_type": "llama"}, "M").need()


def test_the_fields_of_a_gguf_file() -> None:
    fields = {"temp": 0.6, "top_k": 20, "top_p": 0.95, "penalty_repeat": 1.05, "penalty_last_n": 64, "mirostat": 0}
    own = own_settings({f"general.sampling.{name}": value for name, value in fields.items()}, {}, "M")
    expected = GenerationConfig(
        name=OWN,
        strategy="sample",
        temperature=0.6,
        top_k=20,
        top_p=0.95,
        repetition_penalty=1.05,
        penalty_window=64,
    )
    assert own.need() == expected
    assert own.left_out == ()
    cold = own_settings({"general.sampling.temp": 0.0}, {}, "M").need()
    assert (cold.strategy, cold.temperature, cold.top_k) == ("greedy", 1.0, None)


def test_settings_behind_own_lie_over_it() -> None:
    own = GenerationConfig(name=OWN, strategy="sample", temperature=0.6, top_k=20)
    config = load_config("own,top_k=5,seed=3", {"max_new_tokens": 7}, own)
    assert (config.temperature, config.top_k, config.seed, config.max_new_tokens) == (0.6, 5, 3, 7)
    texts = ("own,top_k=5", "own", "sampled", None)
    assert [names_own(text) for text in texts] == [True, True, False, False]


def test_the_command_line_takes_own_and_says_once_what_is_left_out(run_cli: Any, folder: Path) -> None:
    model = str(with_file(folder, do_sample=True, temperature=0.6, repetition_penalty=1.1, num_beams=3))
    few = ("--model", model, "--max-new-tokens", "2", "--json")
    both = run_cli("compare", "the sky", "--a", "own,seed=1", "--b", "own,seed=1,top_k=5", *few)
    lanes = [lane["config"] for lane in json.loads(both.stdout)["lanes"]]
    assert [(one["temperature"], one["top_k"], one["name"]) for one in lanes] == [(0.6, 50, OWN), (0.6, 5, OWN)]
    assert both.stderr.count("num_beams 3, which a lane does not have") == 1
    greedy = run_cli("next", "the sky", "--model", model, "--json")
    assert "repetition_penalty 1.1, which greedy leaves out" in greedy.stderr
    assert run_cli("generate", "the sky", "--config", "own", *few).stderr.count("\n") == 1


def test_a_batch_takes_own_for_all_and_for_one(run_cli: Any, folder: Path, tmp_path: Path) -> None:
    model = str(with_file(folder, do_sample=True, temperature=0.6, top_k=3))
    (tmp_path / "jobs.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "config": "own,seed=2,max_new_tokens=2"}\n')
    out = tmp_path / "out.jsonl"
    ended = run_cli(
        *("batch", str(tmp_path / "jobs.jsonl"), "--out", str(out), "--model", model),
        *("--config", "own,seed=1,max_new_tokens=3"),
    )
    assert ended.returncode == 0, ended.stderr
    configs = [json.loads(line)["config"] for line in out.read_text().splitlines()]
    assert {(one["top_k"], one["seed"], one["max_new_tokens"]) for one in configs} == {(3, 1, 3), (3, 2, 2)}


def test_a_model_without_settings_refuses_own_in_a_line(run_cli: Any, tiny_gpt2: Path) -> None:
    (tiny_gpt2 / "generation_config.json").unlink(missing_ok=True)
    ended = run_cli("generate", "the sky", "--config", "own", "--model", str(tiny_gpt2))
    assert ended.returncode == 2
    assert "brings no settings of its own" in ended.stderr


def test_transformers_warpers_and_llama_cpps_samplers_are_taken() -> None:
    folder: dict[str, Any] = {"do_sample": True, "top_h": 0.4, "epsilon_cutoff": 0.001, "eta_cutoff": 0.0}
    folder |= {"exponential_decay_length_penalty": (20, 1.05), "no_repeat_ngram_size": 4}
    config = own_settings(folder, {}, "M").need()
    assert (config.top_h, config.epsilon_cutoff, config.eta_cutoff) == (0.4, 0.001, None)
    assert (config.length_decay_start, config.length_decay, config.no_repeat_ngram) == (20, 1.05, 4)
    assert "no_repeat_ngram 4, length_decay 1.05" in own_settings(folder, {}, "M").remark(GenerationConfig())
    fields = {"temp": 0.8, "xtc_probability": 0.5, "xtc_threshold": 0.2, "mirostat": 2, "mirostat_tau": 4.0}
    config = own_settings({f"general.sampling.{name}": value for name, value in fields.items()}, {}, "M").need()
    assert (config.xtc_probability, config.xtc_threshold) == (0.5, 0.2)
    assert (config.mirostat_tau, config.mirostat_eta) == (4.0, 0.1)
