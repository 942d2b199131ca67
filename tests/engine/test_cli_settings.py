"""Settings on the command line: as options, and as `KEY=VALUE` behind a preset or a file."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from engine.cli import generation
from engine.cli.variants import variants
from engine.generation.config import PRESETS, SETTINGS, load_config

PROMPT = "the sky above"


@pytest.fixture
def tiny(tiny_llama: Path) -> tuple[str, ...]:
    return ("--model", str(tiny_llama), "--precision", "float32", "--json")


def parsed(process):
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return json.loads(process.stdout)


COMMANDS = (generation.generate, generation.compare, variants, generation.next_token)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_setting_is_an_option(command: Callable[..., None]) -> None:
    assert set(SETTINGS) - {"name"} <= set(inspect.signature(command).parameters)


def test_compare_lays_settings_over_both_lanes(run_cli, tiny) -> None:
    lanes = ("--a", "sampled,top_k=5,seed=3,max_new_tokens=9", "--b", 'greedy,stop=["sky", ", "]')
    options = ("--max-new-tokens", "4", "--ignore-eos", "--logit-bias", " rain=50", "--seed", "7")
    first, second = parsed(run_cli("compare", PROMPT, *lanes, *options, *tiny))["lanes"]
    assert [lane["config"]["max_new_tokens"] for lane in (first, second)] == [4, 4]
    assert [lane["config"]["seed"] for lane in (first, second)] == [7, 7]
    assert [lane["config"]["top_k"] for lane in (first, second)] == [5, None]
    assert [lane["config"]["strategy"] for lane in (first, second)] == ["sample", "greedy"]
    assert second["config"]["stop"] == ["sky", ", "]
    assert [lane["text"] for lane in (first, second)] == [" rain" * 4] * 2


def test_a_lane_is_what_generate_writes_with_the_same_settings(run_cli, tiny) -> None:
    lanes = ("--a", "sampled,seed=5", "--b", "sampled,temperature=1.3,seed=7")
    both = parsed(run_cli("compare", PROMPT, *lanes, "--max-new-tokens", "12", *tiny))["lanes"]
    assert both[0]["text"] != both[1]["text"]
    behind = ("--config", "sampled,temperature=1.3,seed=7,max-new-tokens=12")
    typed = ("--config", "sampled", "--temperature", "1.3", "--seed", "7", "--max-new-tokens", "12")
    for options in (behind, typed):
        (alone,) = parsed(run_cli("generate", PROMPT, *options, *tiny))["lanes"]
        assert (alone["text"], alone["config"]) == (both[1]["text"], both[1]["config"])


def test_variants_take_settings(run_cli, tiny) -> None:
    options = ("--config", "sampled,seed=5", "--max-new-tokens", "3", "--ban", " rain", "--ignore-eos")
    written = parsed(run_cli("variants", PROMPT, *options, *tiny))["variants"]
    assert len(written) == 3
    for one in written:
        assert (one["config"]["seed"], one["config"]["max_new_tokens"]) == (5, 3)
        assert len(one["config"]["banned"]) == len(one["tokens"]) - 2 == 1
    creative = parsed(run_cli("variants", PROMPT, "--max-new-tokens", "2", *tiny))["variants"][0]["config"]
    assert creative == PRESETS["creative"].to_dict() | {"max_new_tokens": 2}


def test_next_takes_settings_behind_a_preset(run_cli, tiny) -> None:
    data = parsed(run_cli("next", PROMPT, "--config", "sampled,top_p=none,top_k=2", "--top", "4", *tiny))
    assert [one["cut_by"] for one in data["candidates"]] == [None, None, "top_k", "top_k"]


def test_a_batch_has_a_configuration_for_the_jobs_without_one(run_cli, tiny, tmp_path: Path) -> None:
    jobs, out = tmp_path / "jobs.jsonl", tmp_path / "out.jsonl"
    configs = [None, {"seed": 9}, "greedy,max_new_tokens=2"]
    jobs.write_text("".join(json.dumps({"prompt": PROMPT} | ({"config": c} if c else {})) + "\n" for c in configs))
    options = ("--out", str(out), "--config", "sampled,max_new_tokens=3")
    process = run_cli("batch", str(jobs), *options, *tiny[:-1])
    assert process.returncode == 0, process.stderr
    done = {row["id"]: row["config"] for row in map(json.loads, out.read_text().splitlines())}
    expected = ("sampled,max_new_tokens=3", "sampled,max_new_tokens=3,seed=9", "greedy,max_new_tokens=2")
    assert done == {str(number): load_config(text).to_dict() for number, text in enumerate(expected, start=1)}


def test_a_file_of_a_wild_name_is_used(run_cli, tiny, tmp_path: Path) -> None:
    file = tmp_path / "a,seed=3.toml"
    file.write_text("max_new_tokens = 2\nignore_eos = true")
    (lane,) = parsed(run_cli("generate", PROMPT, "--config", f"{file},temperature=0.4", *tiny))["lanes"]
    assert (lane["config"]["max_new_tokens"], lane["config"]["seed"]) == (2, None)
    assert lane["config"]["temperature"] == 0.4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "x", "--b", "sampled,heat=3"), "lane B: unknown setting 'heat'; known: alpha, amateur"),
        (("compare", "x", "--a", "sampled,seed=x"), "lane A: seed is 'x'; allowed: a whole number from 0"),
        (("compare", "x", "--typical-p", "0.5"), "lane A: typical_p is 0.5; allowed: only with strategy sample"),
        (("compare", "x", "--max-new-tokens", "0"), "max_new_tokens is 0; allowed: a whole number from 1"),
        (("compare", "x", "--temperature", "warm"), "--temperature cannot be used: it takes a number"),
        (("compare", "x", "--a", "missing.toml,seed=1"), "lane A: cannot read missing.toml"),
        (("variants", "x", "--config", "sampled,temperature=0"), "temperature is 0.0; allowed: above 0"),
        (("variants", "x", "--top-k", "0"), "top_k is 0; allowed: a whole number from 1"),
        (("generate", "x", "--config", "sampled,ignore_eos=1"), "ignore_eos is '1'; allowed: true or false"),
        (("next", "x", "--token", ""), "--token is empty: give it the text that could follow"),
        (("next", "x", "--config", "greedy,top_p"), "'top_p' is no setting; write KEY=VALUE"),
        (("batch", "none.jsonl", "--out", "o.jsonl", "--config", "wild"), "no configuration 'wild'"),
        (("--a", "sampled,seed=x"), "lane A: seed is 'x'"),
        (("--b", "creative,alpha=2"), "lane B: alpha is 2.0; allowed: from 0 up to 1"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line_that_names_it(run_cli, arguments, words: str) -> None:
    process = run_cli(*arguments)
    assert (process.returncode, process.stdout) == (2, ""), process.stderr
    assert words in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_the_lab_opens_with_settings_behind_its_lanes(monkeypatch) -> None:
    from engine import cli

    opened = []
    monkeypatch.setattr(cli, "open_lab", lambda options, session, *more: opened.append(session))
    command = typer.main.get_command(cli.app)
    command(["--b", "sampled,temperature=1.3,seed=7", "--a", "greedy,stop=."], standalone_mode=False)
    (session,) = opened
    assert [lane.config for lane in session.lanes] == [
        load_config("greedy,stop=."),
        load_config("sampled,temperature=1.3,seed=7"),
    ]
