"""Servers as people start them: what their defaults keep from being done is measured, lived with, and said once.

The stand-ins behave as the servers' documents say; `test_remote_real.py` starts the real ones with their defaults.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import InputError
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Finished, Stepped
from engine.generation.loop import generate
from engine.generation.result import step_dict
from engine.loading import load_model
from engine.models.local import LocalModel
from tests.model_server import ModelServer, serve

pytest.importorskip("openai")
from engine.remote.connect import connect
from engine.remote.connection import RemoteError
from engine.remote.inspection import ServedInspection
from engine.remote.served import ServedModel
from engine.timing.measurement import Row
from engine.timing.served import time_server
from engine.timing.sweep import Sweep

PROMPT = "the sky above"
CONFIG = GenerationConfig(max_new_tokens=12)
SAMPLED = replace(CONFIG, strategy="sample", seed=5)


@pytest.fixture(scope="module")
def local(tiny_llama: Path) -> LocalModel:
    model = load_model(str(tiny_llama), precision="float32", threads=1)
    assert isinstance(model, LocalModel)
    return model


@pytest.fixture
def server(request: pytest.FixtureRequest, local: LocalModel) -> Iterator[ModelServer]:
    """A stand-in of the kind, and with the settings, that a test names; slow enough that texts overlap."""
    dialect, settings = request.param
    with serve(local, dialect) as server:
        server.step_seconds = 0.005
        for name, value in settings.items():
            setattr(server, name, value)
        yield server


def starts(dialect: str, **settings: Any) -> Any:
    return pytest.mark.parametrize("server", [(dialect, settings)], indirect=True, ids=[dialect])


@pytest.fixture
def served(server: ModelServer, tmp_path: Path) -> Iterator[ServedModel]:
    model = connect(server.url, cache_dir=tmp_path)
    server.wait_until_idle()
    server.most_writing = 0
    yield model
    model.close()


def steps_of(events: list[Event], lane: int = 0) -> list[Stepped]:
    return [event for event in events if isinstance(event, Stepped) and event.lane == lane]


def written(served: ServedModel, events: list[Event], lane: int = 0) -> list[int] | str:
    """What a lane wrote: ids where the server sends them, else the text."""
    steps = steps_of(events, lane)
    if served.capabilities.token_ids and served.capabilities.top:
        return [step.token.id for step in steps]
    return "".join(step.token.text for step in steps)


def expected(served: ServedModel, local: LocalModel, config: GenerationConfig) -> list[int] | str:
    """The same of a run here; servers name a token by its piece where they list it."""
    tokens = [step.token for step in steps_of(list(generate(local.network, local.tokenizer, [PROMPT], [config])))]
    if served.capabilities.top:
        ids = [token.id for token in tokens]
        return ids if served.capabilities.token_ids else "".join(map(local.tokenizer.piece, ids))
    return "".join(token.text for token in tokens)


# Several texts at once.

BREAKS_OFF = "breaks off a text when another is asked for, so lanes go one after the other"
ONE = "writes one text at a time, so lanes go one after the other"


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (("llama-cpp-python", {"several": "interrupts"}), f"{BREAKS_OFF}; start it with --interrupt_requests False"),
        (("llama-cpp-python", {"several": "in turn"}), ONE),
        (("llama.cpp", {"several": "in turn", "slots": 1}), f"{ONE}; start it with --parallel 4"),
        (("openai", {"several": "interrupts"}), BREAKS_OFF),
        (("openai", {"several": "refuses"}), ONE),
        (("vllm", {"several": "in turn"}), f"{ONE}; start it with --max-num-seqs 4"),
        (("ollama", {"several": "in turn"}), f"{ONE}; start it with OLLAMA_NUM_PARALLEL=4"),
        (("lm-studio", {"several": "in turn"}), f"{ONE}; Max Concurrent Predictions"),
        (("lm-studio", {"several": "in turn", "old": True}), f"{ONE}; Max Concurrent Predictions"),
    ],
    indirect=["server"],
)
def test_lanes_go_one_after_the_other_where_a_server_writes_one_text_at_a_time(
    served: ServedModel, server: ModelServer, local: LocalModel, words: str
) -> None:
    assert served.capabilities.at_once == 1
    assert served.capabilities.interrupts == (server.several == "interrupts")
    assert words in served.capabilities.remarks[0]
    assert served.capabilities.in_turn(1) == ""
    for in_step in (False, True):  # in which nobody waits for a lane that there is no room for
        events = list(served.generate([PROMPT], [CONFIG, SAMPLED, CONFIG], in_step=lambda asked=in_step: asked))
        ends = [event for event in events if isinstance(event, Finished)]
        assert sorted(ends, key=lambda end: end.lane) == [Finished(n, "length") for n in range(3)]
        assert [written(served, events, lane) for lane in (0, 2)] == [expected(served, local, CONFIG)] * 2
        assert written(served, events, 1) == expected(served, local, SAMPLED)
        assert server.most_writing == 1


@starts("vllm")
def test_lanes_go_together_where_a_server_writes_several_texts(served: ServedModel, server: ModelServer) -> None:
    assert (served.capabilities.at_once, served.capabilities.remarks) == (0, ())
    list(served.generate([PROMPT], [CONFIG, SAMPLED]))
    assert server.most_writing == 2


@starts("llama.cpp", slots=2)
def test_a_server_with_two_slots_gets_two_lanes_at_once(served: ServedModel, server: ModelServer) -> None:
    assert (served.capabilities.at_once, served.capabilities.remarks) == (2, ())
    assert "writes 2 texts at a time, so the other lanes wait" in served.capabilities.in_turn(3)
    assert "--parallel 8 " in served.capabilities.in_turn(8)
    events = list(served.generate([PROMPT], [CONFIG] * 3))
    assert written(served, events, 0) == written(served, events, 1) == written(served, events, 2)
    assert server.most_writing == 2


@starts("llama.cpp", several="interrupts")
def test_a_lane_that_is_interrupted_goes_on_where_it_was(served: ServedModel, local: LocalModel) -> None:
    """A prompt that is typed meanwhile is cut by the server, which interrupts the lane for it."""
    seen: list[Event] = []
    for event in served.generate([PROMPT], [CONFIG]):
        seen.append(event)
        if isinstance(event, Stepped) and event.index in (2, 5):
            served.tokenizer.encode(f"another prompt {event.index}")
    assert seen[-1] == Finished(0, "length")
    assert written(served, seen) == expected(served, local, CONFIG)


@starts("llama-cpp-python", several="interrupts")
@pytest.mark.parametrize(
    ("language", "words"), [("en", "lanes go one after the other"), ("ja", "--interrupt_requests False")]
)
def test_the_command_line_says_it_once(server: ModelServer, run_cli: Any, language: str, words: str) -> None:
    ended = run_cli("compare", PROMPT, "--a", "greedy", "--b", "sampled", "--server", server.url, LANGUAGE=language)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert words in ended.stderr
    assert ended.stderr.isascii() == (language == "en")
    alone = run_cli("generate", PROMPT, "--max-new-tokens", "4", "--server", server.url, LANGUAGE=language)
    assert (alone.returncode, alone.stderr) == (0, "")


@starts("llama-cpp-python", several="interrupts")
def test_bench_times_such_a_server_for_readers_who_wait(server: ModelServer, run_cli: Any) -> None:
    ended = run_cli(
        "bench", "--concurrency", "1,3", "--lengths", "6", "--repeats", "1", "--json", "--server", server.url
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("one after the other") == 1
    alone, three = json.loads(ended.stdout)["runs"]
    texts = [three["token_seconds"], *three["others"]]
    assert [len(text) for text in texts] == [6] * 3
    assert sorted(text[0] for text in texts)[1] > sum(alone["token_seconds"][:1])
    assert three["seconds"] >= max(sum(text) for text in texts)


@starts("llama-cpp-python", several="interrupts")
def test_batch_asks_such_a_server_for_one_text_at_a_time(server: ModelServer, run_cli: Any, tmp_path: Path) -> None:
    jobs, out = tmp_path / "jobs.jsonl", tmp_path / "out.jsonl"
    jobs.write_text("\n".join(json.dumps({"prompt": PROMPT, "config": {"max_new_tokens": 6}}) for _job in range(4)))
    ended = run_cli("batch", str(jobs), "--out", str(out), "--concurrency", "4", "--server", server.url)
    assert ended.returncode == 0, ended.stderr
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(results) == 4
    assert not [result for result in results if "error" in result]


# Probabilities that a server does not give.


@starts("llama.cpp", drafts=True)
def test_what_a_draft_model_guessed_has_no_probability(served: ServedModel, local: LocalModel) -> None:
    """llama-server says 0, which is certain, for each of these tokens."""
    assert served.capabilities.drafts
    (remark,) = served.capabilities.remarks
    assert "draft model" in remark
    assert "start it without --model-draft" in remark
    steps = steps_of(list(served.generate([PROMPT], [CONFIG])))
    own = steps_of(list(generate(local.network, local.tokenizer, [PROMPT], [CONFIG])))
    assert [step.token.id for step in steps] == [step.token.id for step in own]
    for place, (step, expected) in enumerate(zip(steps, own)):
        known = place % 3 == 0
        assert (step.raw_probability, step.rank) == (
            (pytest.approx(expected.raw_probability, rel=1e-4), expected.rank) if known else (None, None)
        )
        assert bool(step.candidates) == known
        told = step_dict(step, candidates=True)
        assert (told["probability"], told["raw_probability"] is None) == (None, not known)
    told = ServedInspection(steps[1], CONFIG, served.capabilities).coverage
    assert "a draft model guessed this token" in told


@starts("llama.cpp", old=True)
def test_a_build_without_ids_and_probabilities_writes_texts(served: ServedModel, local: LocalModel) -> None:
    assert (served.capabilities.token_ids, served.capabilities.top) == (False, 0)
    assert served.capabilities.remarks == (
        "this server tells no probabilities; those of the model itself came with the builds of December 2024",
    )
    events = list(served.generate([PROMPT], [CONFIG]))
    assert written(served, events) == expected(served, local, CONFIG)
    assert events[-1] == Finished(0, "length")
    assert {step.raw_probability for step in steps_of(events)} == {None}


@pytest.mark.parametrize(
    ("server", "top", "words"),
    [
        (("vllm", {"most": 5}), 5, "lists 5 candidates a token; start it with --max-logprobs 20"),
        (("vllm", {"most": 0}), 0, "tells no probabilities; start it with --max-logprobs 20"),
        (("vllm", {"most": 13}), 13, "lists 13 candidates a token; start it with --max-logprobs 20"),
        (("vllm", {"mode": "raw_logits"}), 0, "tells no probabilities; start it with --logprobs-mode raw_logprobs"),
        (("vllm", {"mode": "processed_logprobs"}), 20, "start it with --logprobs-mode raw_logprobs"),
        (("lm-studio", {"chat_logprobs": None}), 0, "tells no probabilities"),
        (("llama-cpp-python", {"chat_logprobs": None}), 0, "start it with --logits_all True"),
    ],
    indirect=["server"],
)
def test_fewer_probabilities_are_said_with_the_option_that_changes_it(
    served: ServedModel, local: LocalModel, top: int, words: str
) -> None:
    assert served.capabilities.top == top
    (remark,) = served.capabilities.remarks
    assert words in remark
    events = list(served.generate([PROMPT], [CONFIG]))
    assert written(served, events) == expected(served, local, CONFIG)
    assert bool(steps_of(events)[0].candidates) == (top > 0)


@starts("ollama", chat_logprobs=True)
def test_log_probabilities_in_the_form_of_chats_are_read(served: ServedModel, local: LocalModel) -> None:
    assert (served.capabilities.dialect, served.capabilities.version, served.capabilities.top) == (
        "Ollama",
        "0.12.11",
        5,
    )
    assert "logit_bias" not in served.capabilities.settings, "it takes no notice of one"
    steps = steps_of(list(served.generate([PROMPT], [CONFIG])))
    own = steps_of(list(generate(local.network, local.tokenizer, [PROMPT], [CONFIG])))
    assert [step.raw_probability for step in steps] == pytest.approx([step.raw_probability for step in own], rel=1e-4)


@starts("ollama", chat_logprobs=None, in_template=True)
def test_a_lane_cannot_go_on_where_prompts_are_put_into_a_template(served: ServedModel) -> None:
    assert not served.capabilities.continues
    remarks = served.capabilities.remarks
    assert ["chat template" in remark for remark in remarks] == [True, False]
    assert "a Modelfile with TEMPLATE {{ .Prompt }}" in remarks[0]
    assert remarks[1] == "this server tells no probabilities; Ollama's came with version 0.12.11"
    assert len(steps_of(list(served.generate([PROMPT], [CONFIG])))) > 1
    with pytest.raises(InputError, match="cannot go on from its middle"):
        list(served.generate([PROMPT], [CONFIG], paused=lambda: True))


@starts("lm-studio", chat_logprobs=None)
def test_single_steps_that_bring_no_text_yet_do_not_end_a_lane(served: ServedModel, local: LocalModel) -> None:
    """Parts of a character have no text; without log-probabilities nothing else says that a token came."""
    config = replace(SAMPLED, temperature=3.0, max_new_tokens=16)
    events = list(served.generate([PROMPT], [config], paused=lambda: True))
    assert events[-1] == Finished(0, "length")
    assert len(steps_of(events)) >= 15, "the last one may be a part of a character, too"


# Tokens that come several at a time.


@pytest.mark.parametrize(
    "server",
    [
        ("vllm", {"group": 3}),
        ("llama.cpp", {"drafts": True}),
        ("lm-studio", {"chat_logprobs": None, "group": 3}),
    ],
    indirect=True,
)
def test_tokens_that_come_in_groups_have_a_mean_time_and_no_gaps(served: ServedModel, local: LocalModel) -> None:
    assert written(served, list(served.generate([PROMPT], [CONFIG]))) == expected(served, local, CONFIG)
    (run,) = time_server(served, Sweep(PROMPT, (8,), repeats=1, warmup=0, runners=("server",)))
    assert run.in_groups
    (first, after) = run.token_seconds
    assert first + after <= run.seconds
    row = Row("server", 8, (run,))
    assert row.inter_token_seconds is None
    assert row.seconds_per_token is not None
    assert row.seconds_per_token.median == pytest.approx(after / 7)


@pytest.mark.parametrize(
    "server", [("lm-studio", {"chat_logprobs": None}), ("llama.cpp", {"old": True})], indirect=True
)
def test_a_text_that_ends_too_early_is_not_timed(served: ServedModel, server: ModelServer) -> None:
    """At the end of its context a server says `length` as it does at the number of tokens it was asked for."""

    def at_context(server: ModelServer, request: Any, path: str, body: dict[str, Any]) -> bool:
        body |= {name: 3 for name in ("max_tokens", "n_predict") if name in body}
        return False

    server.fault = at_context
    with pytest.raises(RemoteError, match="ended a text after 3 of 8 tokens"):
        list(time_server(served, Sweep(PROMPT, (8,), repeats=1, warmup=0, runners=("server",))))


@starts("vllm", group=3)
def test_bench_calls_such_a_time_by_its_name(server: ServedModel, run_cli: Any) -> None:
    ended = run_cli("bench", "--lanes", "1,2", "--lengths", "8", "--repeats", "1", "--server", server.url)
    assert ended.returncode == 0, ended.stderr
    assert "TPOT ms" in ended.stdout
    assert "ITL" not in ended.stdout
    assert "(end − first) / (tokens − 1)" in ended.stdout
