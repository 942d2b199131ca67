"""The command line as scripts use it: shapes of `--json`, exit codes, one line for every error."""

import json
from pathlib import Path

import pytest

from engine.text.prompts import Variant

PROMPT = "the sky above"


@pytest.fixture
def tiny(tiny_llama: Path) -> tuple[str, ...]:
    return ("--model", str(tiny_llama), "--precision", "float32")


def parsed(process) -> object:
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return json.loads(process.stdout)


def test_generate_json_has_the_documented_shape(run_cli, tiny) -> None:
    data = parsed(run_cli("generate", PROMPT, "--max-new-tokens", "4", "--ignore-eos", "--json", *tiny))
    assert list(data) == ["model", "prompt", "lanes"]
    assert {"name", "architecture", "parameters", "precision", "device", "context_length", "vocabulary_size"} <= set(
        data["model"]
    )
    assert data["prompt"]["text"] == PROMPT
    assert {"position", "id", "piece", "text", "start", "end"} <= set(data["prompt"]["tokens"][0])
    (lane,) = data["lanes"]
    assert lane["config"]["strategy"] == "greedy"
    assert lane["config"]["max_new_tokens"] == 4
    assert lane["finish_reason"] == "length"
    assert lane["text"] == "".join(token["text"] for token in lane["tokens"])
    assert {"id", "text", "probability", "raw_probability", "rank", "entropy_bits", "seconds"} <= set(lane["tokens"][0])
    assert set(lane["timing"]) == {
        "prefill_seconds",
        "decode_seconds",
        "time_to_first_token_seconds",
        "tokens_per_second",
    }
    assert lane["timing"]["decode_seconds"] == pytest.approx(sum(token["seconds"] for token in lane["tokens"]))


def test_candidates_carry_the_stages(run_cli, tiny) -> None:
    options = ("--strategy", "sample", "--top-k", "2", "--seed", "1", "--max-new-tokens", "2", "--candidates", "5")
    data = parsed(run_cli("generate", PROMPT, *options, "--json", *tiny))
    candidates = data["lanes"][0]["tokens"][0]["candidates"]
    assert [candidate["cut_by"] for candidate in candidates] == [None, None, "top_k", "top_k", "top_k"]
    assert sum(candidate["probability"] for candidate in candidates) == pytest.approx(1)


def test_jsonl_interleaves_the_lanes_events(run_cli, tiny, tmp_path: Path) -> None:
    a, b = tmp_path / "a.toml", tmp_path / "b.toml"
    a.write_text("max_new_tokens = 3\nignore_eos = true")
    b.write_text('strategy = "contrastive"\ntop_k = 4\nmax_new_tokens = 3\nignore_eos = true')
    process = run_cli("compare", PROMPT, "--a", str(a), "--b", str(b), "--jsonl", *tiny)
    events = [json.loads(line) for line in process.stdout.splitlines()]
    assert [event["event"] for event in events[:1]] == ["Started"]
    steps = [(e["lane"], e["index"]) for e in events if e["event"] == "Stepped"]
    for lane, other in ((0, 1), (1, 0)):  # each in order, and neither is done before the other has begun
        assert [step for step in steps if step[0] == lane] == [(lane, index) for index in range(3)]
        assert steps.index((other, 0)) < steps.index((lane, 2))
    assert {e["lane"]: e["reason"] for e in events if e["event"] == "Finished"} == {0: "length", 1: "length"}


def test_compare_json_equals_each_lane_alone(run_cli, tiny) -> None:
    both = parsed(run_cli("compare", PROMPT, "--a", "greedy", "--b", "sampled", "--json", *tiny))
    for lane, config in zip(both["lanes"], ("greedy", "sampled")):
        alone = parsed(run_cli("generate", PROMPT, "--config", config, "--json", *tiny))["lanes"][0]
        assert [token["id"] for token in lane["tokens"]] == [token["id"] for token in alone["tokens"]]


def test_generate_streams_plain_text(run_cli, tiny) -> None:
    process = run_cli("generate", PROMPT, "--max-new-tokens", "5", *tiny)
    assert process.returncode == 0
    assert process.stdout.endswith("\n")
    assert "\x1b" not in process.stdout
    assert process.stderr == ""


def test_the_prompt_may_come_from_standard_input(run_cli, tiny) -> None:
    data = parsed(run_cli("generate", "-", "--max-new-tokens", "1", "--json", *tiny, stdin=PROMPT.encode()))
    assert data["prompt"]["text"] == PROMPT


def test_tokens_and_lengths(run_cli) -> None:
    data = parsed(run_cli("tokens", "The sky 🌍", "--json"))
    assert "".join(token["text"] for token in data) == "The sky 🌍"
    assert "⟨8D⟩" in run_cli("tokens", "The sky 🌍").stdout
    counted = parsed(run_cli("lengths", "--json"))
    assert [row["tokens"] for row in counted] == [9, 9, 7, 9]
    assert run_cli("lengths", "one", "two words").stdout.count("█") > 1
    assert parsed(run_cli("lengths", "one", "--json"))[0]["words"] == 1


def test_bench_json_has_the_documented_shape(run_cli, tiny, tmp_path: Path) -> None:
    csv = tmp_path / "runs.csv"
    options = ("--lengths", "2,4", "--repeats", "2", "--prompt", PROMPT, "--csv", str(csv))
    data = parsed(run_cli("bench", *options, "--json", *tiny))
    assert [row["max_new_tokens"] for row in data["rows"]] == [2, 4]
    assert len(data["rows"][0]["seconds"]["runs"]) == 2
    assert set(data["rows"][0]) == {"lanes", "max_new_tokens", "seconds", "tokens", "tokens_per_second"}
    assert (data["against"], data["speedup"]) == (None, None)
    assert len(csv.read_text().splitlines()) == 5
    assert "median s" in run_cli("bench", *options, *tiny).stdout


def test_bench_against_transformers_times_both_in_turn(run_cli, tiny) -> None:
    options = ("--lengths", "2,4", "--repeats", "2", "--prompt", PROMPT, "--against", "transformers")
    options = (*options, "--against", "lookup")
    data = parsed(run_cli("bench", *options, "--json", *tiny))
    assert [run["by"] for run in data["runs"]] == ["logitlab", "transformers", "lookup"] * 4
    assert data["against"]["name"] == "transformers"
    assert [row["max_new_tokens"] for row in data["against"]["rows"]] == [2, 4]
    pairs = [
        peer / own
        for ours, theirs in zip(data["rows"], data["against"]["rows"])
        for own, peer in zip(ours["seconds"]["runs"], theirs["seconds"]["runs"])
    ]
    assert min(pairs) <= data["speedup"]["median"] <= max(pairs)
    assert run_cli("bench", "--against", "vllm").returncode == 2


def test_models(run_cli, tmp_path: Path) -> None:
    listed = parsed(run_cli("models", "list", "--json"))
    assert listed[0]["name"] == "smollm2-135m"
    assert listed[0]["license"] == "apache-2.0"
    by_name = {one["name"]: one for one in listed}
    assert by_name["openai-community/gpt2"]["license"] == "mit"
    assert by_name["meta-llama/Llama-3.2-1B-Instruct"]["gated"] is True
    assert by_name["google/gemma-3-270m-it"]["tuned"] == "chat"
    assert {"name", "title", "kind", "path", "source", "license", "size", "cached", "networks"} < set(listed[0])
    assert "smollm2-135m" in (plain := run_cli("models", "list").stdout)
    assert "llama3.2, gated" in plain
    path = run_cli("models", "path", "smollm2-135m").stdout.strip()
    assert run_cli("models", "get", "smollm2-135m").stdout.strip() == path
    assert "is whole" in run_cli("models", "verify", "smollm2-135m").stdout
    assert run_cli("models", "path", "--cache-dir", str(tmp_path)).stdout.strip() == str(tmp_path)


def test_reduced_motion_is_remembered(run_cli, tmp_path: Path) -> None:
    kept = tmp_path / "settings.json"
    for option, expected in (("--reduced-motion", True), ("--full-motion", False)):
        assert "needs a terminal" in run_cli(option, LOGITLAB_STATE_DIR=str(tmp_path)).stderr
        assert json.loads(kept.read_text())["reduced_motion"] is expected


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("generate", ""), 2, "prompt is empty"),
        (("generate", "x", "--temperature", "0"), 2, "temperature is 0.0"),
        (("generate", "x", "--temperature", "-1"), 2, "temperature is -1.0"),
        (("generate", "x", "--temperature", "nan"), 2, "temperature is nan"),
        (("generate", "x", "--top-p", "2"), 2, "top_p is 2.0"),
        (("generate", "x", "--top-k", "0"), 2, "top_k is 0"),
        (("generate", "x", "--max-new-tokens", "0"), 2, "max_new_tokens is 0"),
        (("generate", "x", "--max-new-tokens", "1000000000"), 2, "max_new_tokens is 1000000000"),
        (("generate", "x", "--alpha", "1.5"), 2, "alpha is 1.5"),
        (("generate", "x", "--temperature", "warm"), 2, "takes a number"),
        (("generate", "x", "--strategy", "beams"), 2, "greedy, sample, contrastive"),
        (("generate", "x", "--candidates", "-1"), 2, "candidates is -1"),
        (("generate", "x", "--precision", "int3"), 2, "precision is 'int3'"),
        (("generate", "x", "--device", "tpu"), 2, "device is 'tpu'"),
        (("generate", "x", "--device", "mps"), 2, "no mps device"),
        (("generate", "x", "--threads", "0"), 2, "threads is 0"),
        (("generate", "x", "--lang", "fr"), 2, "lang is 'fr'"),
        (("generate",), 2, "PROMPT is missing"),
        (("generate", "x", "--nonsense"), 2, "no option --nonsense"),
        (("generate", "x", "--model", "no such model!"), 2, "no model 'no such model!'"),
        (("generate", "x", "--model", "/nowhere"), 2, "no model '/nowhere'"),
        (("generate", "x", "--model", "lab/nothing", "--offline"), 1, "--offline is set"),
        (("compare", "x", "--a", "wild"), 2, "no configuration 'wild'"),
        (("bench", "--lengths", "abc"), 2, "lengths is 'abc'"),
        (("models", "verify", "gpt2"), 2, "published checksum"),
        (("models", "path", "gpt2"), 2, "not in the cache"),
        ((), 2, "needs a terminal"),
    ],
)
def test_an_error_is_one_line_with_the_right_exit_code(run_cli, arguments, code: int, words: str, tmp_path) -> None:
    process = run_cli(*arguments, HF_HOME=str(tmp_path))
    assert process.returncode == code, process.stderr
    assert words in process.stderr
    assert process.stderr.startswith("logitlab: ")
    assert process.stderr.count("\n") == 1
    assert process.stdout == ""


def test_files_that_are_no_models_are_one_line(run_cli, tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("this is a text")
    empty = tmp_path / "empty"
    empty.mkdir()
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "config.json").write_text("[1]")
    remote = tmp_path / "remote"
    remote.mkdir()
    (remote / "config.json").write_text('{"model_type": "llama", "auto_map": {}}')
    for path, words in ((text, "not a usable GGUF"), (empty, "cannot read"), (odd, "no JSON object")):
        process = run_cli("generate", "x", "--model", str(path))
        assert process.returncode == 2, process.stderr
        assert words in process.stderr
        assert process.stderr.count("\n") == 1


def test_a_megabyte_of_prompt_is_answered_with_both_numbers(run_cli) -> None:
    process = run_cli("generate", "-", stdin=b"word " * 200_000)
    assert process.returncode == 2
    assert "200,00" in process.stderr
    assert "8,192" in process.stderr
    process = run_cli("tokens", "-", stdin=b"\xff\xfe")
    assert process.returncode == 2
    assert "not UTF-8" in process.stderr


def test_debug_shows_the_traceback(run_cli) -> None:
    assert "Traceback" in run_cli("generate", "", "--debug").stderr


def test_version_and_help(run_cli) -> None:
    assert run_cli("--version").stdout.startswith("logitlab 0.")
    helped = run_cli("--help").stdout
    assert all(word in helped for word in ("tokens", "generate", "compare", "lengths", "bench", "models"))


def test_next_json_has_the_documented_shape(run_cli, tiny) -> None:
    options = ("--strategy", "sample", "--temperature", "0.7", "--top-k", "3", "--top", "6")
    data = parsed(run_cli("next", PROMPT, *options, "--json", *tiny))
    assert {"model", "prompt", "entropy_bits", "candidates"} <= set(data)
    candidates = data["candidates"]
    assert len(candidates) == 6
    assert [one["rank"] for one in candidates] == [1, 2, 3, 4, 5, 6]
    assert {"rank", "id", "text", "raw_probability", "probability", "cut_by"} <= set(candidates[0])
    assert [one["cut_by"] for one in candidates] == [None] * 3 + ["top_k"] * 3
    assert sum(one["probability"] for one in candidates) == pytest.approx(1)
    one_step = ("--max-new-tokens", "1", "--seed", "0", "--candidates", "6", "--json")
    run = parsed(run_cli("generate", PROMPT, *options[:-2], *one_step, *tiny))
    for mine, theirs in zip(candidates, run["lanes"][0]["tokens"][0]["candidates"], strict=True):
        assert list(mine["by_stage"]) == ["temperature", "top_k"]
        assert mine.pop("by_stage") == pytest.approx(theirs.pop("by_stage"), abs=1e-6)
        assert mine == pytest.approx(theirs, abs=1e-6)


def test_next_tells_rank_and_probability_of_any_text(run_cli, tiny) -> None:
    data = parsed(run_cli("next", PROMPT, "--token", "zq", "--token", " rain", "--json", *tiny))
    whole, single = data["tokens"]
    assert len(whole["tokens"]) == 2
    assert whole["probability"] == pytest.approx(whole["tokens"][0]["probability"] * whole["tokens"][1]["probability"])
    assert len(single["tokens"]) == 1
    every = parsed(run_cli("next", PROMPT, "--top", "1000", "--json", *tiny))["candidates"]
    (expected,) = [one for one in every if one["id"] == single["tokens"][0]["id"]]
    assert single["tokens"][0]["rank"] == expected["rank"]
    assert single["tokens"][0]["probability"] == pytest.approx(expected["raw_probability"], rel=1e-3)


def test_next_prints_every_stage(run_cli, tiny) -> None:
    process = run_cli("next", PROMPT, "--top", "3", "--ban", "5", "--token", "zq", *tiny)
    assert process.returncode == 0
    lines = process.stdout.splitlines()
    assert lines[0].split() == ["rank", "id", "token", "raw", "biases", "temperature", "final"]
    assert any(line.startswith("entropy ") for line in lines)
    assert any(line.startswith("as a whole: ") for line in lines)


def test_bans_and_biases_are_given_by_text_or_id(run_cli, tiny) -> None:
    first = parsed(run_cli("next", PROMPT, "--top", "1", "--json", *tiny))["candidates"][0]
    options = ("--ban", str(first["id"]), "--logit-bias", " rain=50")
    data = parsed(run_cli("generate", PROMPT, *options, "--max-new-tokens", "3", "--json", *tiny))
    assert data["lanes"][0]["text"] == " rain rain rain"
    assert data["lanes"][0]["config"]["banned"] == [first["id"]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ban", "two tokens"), "not one; give one token's text or its id"),
        (("--logit-bias", "5"), "allowed: TOKEN=NUMBER"),
        (("--logit-bias", "5=inf"), "allowed: TOKEN=NUMBER"),
        (("--logit-bias", "5=1000"), "logit_bias is"),
        (("--top", "0"), "top is 0"),
        (("--chat",), "no chat template"),
    ],
)
def test_next_refuses_what_cannot_be(run_cli, tiny, options, words) -> None:
    process = run_cli("next", PROMPT, *options, *tiny)
    assert process.returncode == 2
    assert words in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_score_reads_a_text_or_a_file(run_cli, tiny, tmp_path: Path) -> None:
    data = parsed(run_cli("score", PROMPT, "--json", *tiny))
    assert data["tokens"][0]["surprisal_bits"] is None
    assert data["bits"] == pytest.approx(sum(one["surprisal_bits"] for one in data["tokens"][1:]))
    assert data["perplexity"] == pytest.approx(2 ** data["mean_bits"])
    file = tmp_path / "text.txt"
    file.write_text(PROMPT)
    assert parsed(run_cli("score", str(file), "--json", *tiny)) == data
    assert "perplexity" in run_cli("score", PROMPT, *tiny).stdout
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    process = run_cli("score", str(tmp_path / "binary"), *tiny)
    assert (process.returncode, "not UTF-8" in process.stderr) == (2, True)
    assert run_cli("score", "", *tiny).returncode == 2


def test_jsonl_events_carry_no_tensors(run_cli, tiny) -> None:
    process = run_cli("generate", PROMPT, "--max-new-tokens", "2", "--ignore-eos", "--jsonl", *tiny)
    steps = [json.loads(line) for line in process.stdout.splitlines() if '"Stepped"' in line]
    assert len(steps) == 2
    assert "logits" not in steps[0]


def test_variants_are_the_same_prompt_put_in_three_ways(run_cli, tiny) -> None:
    data = parsed(run_cli("variants", PROMPT, "--json", *tiny))
    assert [one["name"] for one in data["variants"]] == ["plain", "mystery", "cheerful"]
    assert all(one["prompt"].endswith(PROMPT) for one in data["variants"])
    assert all(one["config"]["strategy"] == "contrastive" for one in data["variants"])
    alone = parsed(run_cli("generate", data["variants"][1]["prompt"], "--config", "creative", "--json", *tiny))
    assert data["variants"][1]["text"] == alone["lanes"][0]["text"]
    printed = run_cli("variants", PROMPT, "--config", "greedy", "--template", "Now: {prompt}", *tiny)
    assert printed.returncode == 0
    assert f"  Now: {PROMPT}\n  → " in printed.stdout


def test_a_variant_without_a_place_for_the_prompt_is_refused(run_cli, tiny) -> None:
    process = run_cli("variants", PROMPT, "--template", "nothing", *tiny)
    assert process.returncode == 2
    assert "has no {prompt}" in process.stderr


def test_braces_in_a_prompt_are_text() -> None:
    assert Variant("way", "a {prompt} b {prompt}").fill("{x} {prompt}") == "a {x} {prompt} b {x} {prompt}"


def test_bench_without_a_cache_and_its_fitted_line(run_cli, tiny) -> None:
    options = ("--prompt", PROMPT, "--lengths", "2,4,6", "--repeats", "2", "--no-cache", "--warmup", "0")
    data = parsed(run_cli("bench", *options, "--json", *tiny))
    assert data["cache"] is False
    assert set(data["fit"]) == {"first_seconds", "per_token_seconds", "r_squared"}
    between = data["latency"][0]["inter_token_seconds"]
    assert between["p95"] >= between["median"]
    assert "R² " in run_cli("bench", *options, *tiny).stdout
    assert run_cli("bench", "--warmup", "-1", *tiny).returncode == 2


def test_lengths_reads_a_file_of_prompts(run_cli, tiny, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("the sky\n\nthe rain above\n")
    data = parsed(run_cli("lengths", str(file), "calm", "--json", *tiny))
    assert [row["prompt"] for row in data] == ["the sky", "the rain above", "calm"]
    assert data[0]["tokens_per_word"] == data[0]["tokens"] / 2
    (tmp_path / "empty.txt").write_text("\n \n")
    process = run_cli("lengths", str(tmp_path / "empty.txt"), *tiny)
    assert (process.returncode, "holds no line" in process.stderr) == (2, True)


def test_sessions_are_listed_shown_exported_and_removed(run_cli, tmp_path: Path, monkeypatch) -> None:
    from engine.sessions import session
    from engine.sessions import store as sessions

    held = sessions.begin()
    held.save(session.Session(prompt="the sky\x1b[31m"))
    held.close()
    (listed,) = parsed(run_cli("sessions", "list", "--json"))
    assert (listed["name"], listed["prompt"]) == (held.name, "the sky\x1b[31m")
    assert "\x1b" not in run_cli("sessions", "list").stdout
    assert "greedy" in run_cli("sessions", "show", held.name).stdout
    out = tmp_path / "given.json"
    assert run_cli("sessions", "export", held.name, str(out)).returncode == 0
    assert session.read(out).prompt == "the sky\x1b[31m"
    assert parsed(run_cli("sessions", "show", str(out), "--json"))["version"] == session.VERSION
    assert run_cli("sessions", "remove", held.name).returncode == 0
    assert parsed(run_cli("sessions", "list", "--json")) == []
    for arguments in (("remove", "none"), ("remove", str(out)), ("show", "none"), ("show", str(tmp_path))):
        process = run_cli("sessions", *arguments)
        assert process.returncode == 2
        assert len(process.stderr.splitlines()) == 1
    assert parsed(run_cli("sessions", "schema")) == session.schema()


def test_open_refuses_what_it_cannot_open(run_cli, tmp_path: Path) -> None:
    (tmp_path / "newer.json").write_text('{"version": 999}')
    for name, words in (("none", "no session 'none'"), (str(tmp_path / "newer.json"), "newer logitlab")):
        process = run_cli("open", name)
        assert process.returncode == 2
        assert words in process.stderr
        assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--lengths", "0"), "max_new_tokens is 0"),
        (("--lengths", "abc"), "lengths is 'abc'"),
        (("--lengths", "10^9"), "lengths is '10^9'"),
        (("--lengths", "1000000000"), "max_new_tokens is 1000000000"),
        (("--lengths", ""), "no lengths to time"),
        (("--lanes", "0"), "lanes is 0"),
        (("--lanes", "2", "--no-cache"), "without a cache one lane"),
        (("--against", "nobody"), "against is 'nobody'"),
        (("--chart", "pie"), "chart is 'pie'"),
        (("--prompt", ""), "prompt is empty"),
    ],
)
def test_bench_refuses_what_cannot_be_measured(run_cli, tiny, options, words) -> None:
    process = run_cli("bench", *options, *tiny)
    assert process.returncode == 2
    assert words in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_bench_says_before_it_measures_that_a_file_cannot_be_written(run_cli, tiny, tmp_path: Path) -> None:
    process = run_cli("bench", "--save", str(tmp_path / "none" / "m.json"), *tiny)
    assert process.returncode == 1
    assert "there is no folder" in process.stderr


def test_two_measurements_are_kept_compared_and_drawn(run_cli, tiny, tmp_path: Path) -> None:
    a, b, svg, runs = (tmp_path / name for name in ("a.json", "b.json", "c.svg", "runs.csv"))
    options = ("--prompt", PROMPT, "--lengths", "2,4", "--repeats", "2")
    process = run_cli("bench", *options, "--save", str(a), "--csv", str(runs), "--against", "no-cache", *tiny)
    assert process.returncode == 0, process.stderr
    assert "without cache" in process.stdout
    assert len(runs.read_text().splitlines()) == 1 + 2 * 2 * 2
    assert run_cli("bench", *options, "--lanes", "3", "--save", str(b), "--svg", str(svg), *tiny).returncode == 0
    assert svg.read_text(encoding="utf-8").startswith("<svg")
    data = parsed(run_cli("bench", "compare", str(a), str(b), "--json"))
    assert [row["max_new_tokens"] for row in data["rows"]] == [2, 4]
    assert data["b"]["sweep"]["lanes"] == [3]
    for row in data["rows"]:
        assert row["ratio"] == pytest.approx(row["b"]["tokens_per_second"] / row["a"]["tokens_per_second"])
    printed = run_cli("bench", "compare", str(a), str(b), "--svg", str(svg))
    assert "times as fast in tokens/s" in printed.stdout
    assert run_cli("bench", "compare", str(a), str(svg)).returncode == 2


def test_files_too_large_or_binary_are_refused_with_the_limit(run_cli, tiny, tmp_path: Path) -> None:
    large, binary = tmp_path / "large", tmp_path / "binary"
    with large.open("wb") as file:
        file.truncate(200_000_000)
    binary.write_bytes(b"\x7fELF\x00")
    for path, words in ((large, "200,000,000 bytes; at most 16,000,000"), (binary, "binary file")):
        process = run_cli("lengths", str(path), *tiny)
        assert process.returncode == 2
        assert words in process.stderr
        assert len(process.stderr.splitlines()) == 1


def test_lessons_are_checked(run_cli, tmp_path: Path) -> None:
    from engine.lessons.lesson import LESSONS

    own = LESSONS / "en" / "lesson.md"
    pages = parsed(run_cli("lesson", "check", str(own), "--json"))
    assert len(pages) == 15
    assert "15 pages" in run_cli("lesson", "check", str(own)).stdout
    bad = tmp_path / "bad.md"
    bad.write_text("+++\ntitle = 'x'\n[live]\nrun = 'fly'\n+++\n")
    for arguments, words in (
        (("check", str(bad)), "page 0: Invalid enum value 'fly'"),
        (("check", str(tmp_path / "none")), "cannot read"),
        (("check",), "takes one file"),
        ((str(bad),), "page 0"),
        (("--page", "99"), "pages 0 to 14"),
        (("--page", "-1"), "pages 0 to 14"),
        (("a", "b"), "takes one file"),
    ):
        process = run_cli("lesson", *arguments)
        assert process.returncode == 2
        assert words in process.stderr
        assert len(process.stderr.splitlines()) == 1
