"""Batches: every job exactly once in the results, whatever fails, whenever it is killed."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine import batch
from engine.base.errors import InputError, LogitlabError, MachineError
from engine.export.parquet import to_parquet
from engine.generation.config import PRESETS, GenerationConfig
from engine.generation.events import Start, Stepped
from engine.generation.loop import generate
from engine.generation.result import RunResult
from engine.loading import load_model
from engine.models.local import LocalModel
from tests.engine.chat_templates import chatting

WORDS = ("the sky", "above the city", "a robot asked", "rain")


@pytest.fixture(scope="module")
def local(tiny_llama: Path) -> LocalModel:
    model = load_model(str(tiny_llama), precision="float32", threads=1)
    assert isinstance(model, LocalModel)
    return model


def write_jobs(path: Path, count: int, tokens: int = 3) -> list[batch.BatchJob]:
    lines = [
        {"id": f"job-{n}", "prompt": f"{WORDS[n % 4]} {n}", "config": {"max_new_tokens": tokens, "ignore_eos": True}}
        for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return batch.read_jobs(path)


def results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_results_are_what_single_runs_write(local: LocalModel, tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 11)
    told = list(batch.run(local, jobs, tmp_path / "out.jsonl", concurrency=4))
    assert (told[-1].done, told[-1].total, told[-1].failed) == (11, 11, 0)
    found = {one["id"]: one for one in results(tmp_path / "out.jsonl")}
    for job in jobs:
        own = generate(local.network, local.tokenizer, [job.prompt], [job.config])
        assert found[job.id]["text"] == "".join(event.token.text for event in own if isinstance(event, Stepped))
        assert (found[job.id]["tokens"], found[job.id]["finish_reason"]) == (3, "length")
    before = (tmp_path / "out.jsonl").read_bytes()
    assert list(batch.run(local, jobs, tmp_path / "out.jsonl")) == [], "nothing is done twice"
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_a_job_with_a_draft_says_what_became_of_its_guesses(local: LocalModel, tmp_path: Path) -> None:
    prompt = "rain"
    plain: dict[str, Any] = {"max_new_tokens": 24, "ignore_eos": True}
    lines = [{"prompt": prompt, "config": one} for one in (plain, plain | {"draft": "lookup"})]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    jobs = batch.read_jobs(tmp_path / "jobs.jsonl")
    list(batch.run(local, jobs, tmp_path / "out.jsonl"))
    without, ours = sorted(results(tmp_path / "out.jsonl"), key=lambda one: one["id"])
    assert "draft" not in without
    assert ours["text"] == without["text"]
    alone = RunResult()
    for event in generate(local.network, local.tokenizer, [prompt], [jobs[1].config]):
        alone.add(event)
    assert ours["draft"] == alone.lane_dict(0)["draft"]
    assert 0 < ours["draft"]["accepted"] <= ours["draft"]["drafted"]
    assert ours["draft"]["forwards"] < ours["tokens"]
    pyarrow = pytest.importorskip("pyarrow.parquet")
    to_parquet(tmp_path / "out.jsonl", tmp_path / "out.parquet")
    cells = {row["id"]: row["draft"] for row in pyarrow.read_table(tmp_path / "out.parquet").to_pylist()}
    assert cells["1"] is None
    assert json.loads(cells["2"]) == ours["draft"]


def test_a_job_that_cannot_be_done_is_a_result_and_the_others_are_done(local: LocalModel, tmp_path: Path) -> None:
    lines = [
        '{"prompt": "the sky", "config": {"max_new_tokens": 2}}',
        '{"prompt": "the sky", "config": {"max_new_tokens": 9999}}',
    ]
    (tmp_path / "jobs.jsonl").write_text("\n".join(lines))
    list(batch.run(local, batch.read_jobs(tmp_path / "jobs.jsonl"), tmp_path / "out.jsonl"))
    good, bad = sorted(results(tmp_path / "out.jsonl"), key=lambda one: one["id"])
    assert good["text"]
    assert "exceed the context" in bad["error"]
    assert "final" not in bad


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no job"),
        ("nonsense", "line 1"),
        ('{"prompt": ""}', "an object with a prompt"),
        ("[]", "an object with a prompt"),
        ('{"prompt": "a", "x": 1}', "unknown field 'x'"),
        ('{"prompt": "a", "tools": []}', "unknown field 'tools'"),
        ('{"messages": []}', "there is no message"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "line 1: message 1 has the role 'robot'"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "continue goes with"),
        ('{"prompt": "a", "continue": true}', "continue goes with"),
        ('{"prompt": "a", "system": 3}', "system is '3'"),
        ('{"prompt": "a", "chat_options": []}', "chat_options is"),
        ('{"prompt": 3, "messages": [{"role": "user", "content": "a"}]}', "prompt is '3'"),
        ('{"prompt": "a", "config": "none"}', "no configuration 'none'"),
        ('{"prompt": "a", "config": 3}', "a config is"),
        ('{"prompt": "a", "config": {"top_k": "x"}}', "top_k is 'x'"),
        ('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": "1"}', "line 2: the id 1 is there twice"),
        ("[" * 100_000, "line 1"),
    ],
)
def test_jobs_that_cannot_be_read_name_their_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "jobs.jsonl").write_text(text)
    with pytest.raises(InputError, match=words):
        batch.read_jobs(tmp_path / "jobs.jsonl")


def test_jobs_may_be_short(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text('{"prompt": "a"}\n\n{"prompt": "b", "config": "sampled"}\n')
    first, second = batch.read_jobs(tmp_path / "jobs.jsonl")
    assert first == batch.BatchJob("1", "a", GenerationConfig())
    assert second == batch.BatchJob("3", "b", PRESETS["sampled"])


def test_a_job_may_be_a_conversation(tiny_llama: Path, tmp_path: Path) -> None:
    model = load_model(str(chatting(tiny_llama, tmp_path / "chat")), precision="float32", threads=1)
    turns = [{"role": "user", "content": "the sky"}, {"role": "assistant", "content": "above"}]
    short = {"max_new_tokens": 4, "ignore_eos": True}
    lines: list[dict[str, Any]] = [
        {"prompt": "rain", "system": "the city"},
        {"messages": turns, "prompt": "rain", "chat_options": {"enable_thinking": False}},
        {"messages": turns, "continue": True},
        {"messages": [{"role": "user", "content": "a <|end|> b"}], "special": True},
        {"prompt": "rain", "chat_options": {"nothing": 1}},
        {"prompt": "rain " * 600, "system": "the city"},
    ]
    (tmp_path / "jobs.jsonl").write_text("\n".join(json.dumps(one | {"config": short}) for one in lines))
    jobs = batch.read_jobs(tmp_path / "jobs.jsonl")
    list(batch.run(model, jobs, tmp_path / "out.jsonl"))
    found = [one for _id, one in sorted((one["id"], one) for one in results(tmp_path / "out.jsonl"))]
    for job, result in zip(jobs[:4], found):
        assert job.conversation is not None
        start = Start(model.tokenizer.encode_conversation(job.conversation).tokens)
        alone = RunResult()
        for event in model.generate([start], [job.config]):
            alone.add(event)
        assert result["text"] == alone.lanes[0].text
        assert result["messages"] == job.conversation.to_list()
    assert found[0]["messages"][0] == {"role": "system", "content": "the city"}
    assert found[1]["messages"][-1] == {"role": "user", "content": "rain"}
    assert found[1]["message"]["role"] == "assistant"
    assert found[2]["message"]["content"].startswith("above")
    assert "taken for control tokens" in found[3]["remarks"][0]
    assert "reads no variable nothing" in found[4]["error"]
    assert "message 2 goes over" in found[5]["error"]
    pyarrow = pytest.importorskip("pyarrow.parquet")
    to_parquet(tmp_path / "out.jsonl", tmp_path / "out.parquet")
    rows = {row["id"]: row for row in pyarrow.read_table(tmp_path / "out.parquet").to_pylist()}
    assert json.loads(rows["2"]["messages"]) == found[1]["messages"]


def test_a_line_that_was_cut_is_done_again(local: LocalModel, tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", 5), tmp_path / "out.jsonl"
    list(batch.run(local, jobs, out))
    whole = out.read_bytes()
    for cut in (1, 20, len(whole) // 2):
        out.write_bytes(whole[:-cut])
        list(batch.run(local, jobs, out))
        assert sorted(one["id"] for one in results(out)) == sorted(job.id for job in jobs)


def test_two_batches_never_write_one_file(local: LocalModel, tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", 3), tmp_path / "out.jsonl"
    going = batch.run(local, jobs, out, concurrency=1)
    next(going)
    with pytest.raises(MachineError, match="another batch writes"):
        next(batch.run(local, jobs, out))
    list(going)
    other = tmp_path / "other.jsonl"
    other.write_text("something else\n")
    with pytest.raises(LogitlabError, match="something else than results"):
        next(batch.run(local, jobs, other))
    assert other.read_text() == "something else\n"
    other.write_text("a text of somebody's, without a line's end")
    with pytest.raises(LogitlabError, match="something else than results"):
        next(batch.run(local, jobs, other))
    assert other.read_text() == "a text of somebody's, without a line's end"


def test_results_as_a_table(local: LocalModel, tiny_llama: Path, tmp_path: Path, run_cli: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_jobs(tmp_path / "jobs.jsonl", 5)
    out = tmp_path / "out.parquet"
    for _time in range(2):
        ended = run_cli("batch", str(tmp_path / "jobs.jsonl"), "--out", str(out), "--model", str(tiny_llama))
        assert (ended.returncode, ended.stdout) == (0, f"{out}\n"), ended.stderr
    rows = parquet.read_table(out).to_pylist()
    assert sorted(row["id"] for row in rows) == [f"job-{number}" for number in range(5)]
    lines = {one["id"]: one for one in results(tmp_path / "out.parquet.jsonl")}
    for row in rows:
        expected = lines[row["id"]]
        assert (row["text"], row["tokens"], row["error"]) == (expected["text"], expected["tokens"], None)
        assert json.loads(row["config"]) == expected["config"]
