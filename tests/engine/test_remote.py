"""Servers: what they write is what a local run writes, what they cannot do is said, and whatever fails is one line.

The servers are stand-ins on 127.0.0.1 in the forms of vLLM, llama.cpp and OpenAI; `test_remote_real.py` asks the
real ones.
"""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import InputError, LogitlabError
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Failed, Finished, Prefilled, Start, Started, Stepped
from engine.generation.grammar import KINDS
from engine.generation.loop import generate
from engine.lab import Lab
from engine.lessons.lesson import Question
from engine.lessons.questions import answer
from engine.loading import load_model
from engine.models.local import LocalModel
from tests.conftest import byte_level_tokenizer
from tests.loopback import CERTIFICATE, listening
from tests.model_server import NAME, ModelServer, begin_stream, send, send_event, serve
from tests.stepping import load, step_then_cancel

pytest.importorskip("openai")
from engine.models.capabilities import Capabilities
from engine.remote.connect import connect, served_models
from engine.remote.connection import Connection, RemoteError
from engine.remote.dialects.dialect import Piece
from engine.remote.dialects.llama_cpp import LlamaServer
from engine.remote.served import ServedModel

GREEDY = GenerationConfig(max_new_tokens=12, ignore_eos=True)
PROMPT = "the sky above"


@pytest.fixture(scope="module")
def local(tiny_llama: Path) -> LocalModel:
    model = load_model(str(tiny_llama), precision="float32", threads=1)
    assert isinstance(model, LocalModel)
    return model


@pytest.fixture(params=["vllm", "llama.cpp"])
def server(request: pytest.FixtureRequest, local: LocalModel) -> Iterator[ModelServer]:
    with serve(local, request.param) as server:
        yield server


@pytest.fixture
def vllm(local: LocalModel) -> Iterator[ModelServer]:
    with serve(local) as server:
        yield server


@pytest.fixture
def served(server: ModelServer, tmp_path: Path) -> Iterator[ServedModel]:
    model = connect(server.url, cache_dir=tmp_path)
    yield model
    model.close()


@pytest.fixture
def served_by_vllm(vllm: ModelServer, tmp_path: Path) -> Iterator[ServedModel]:
    model = connect(vllm.url, cache_dir=tmp_path)
    yield model
    model.close()


def steps_of(events: Iterator[Event], lane: int = 0) -> list[Stepped]:
    return [event for event in events if isinstance(event, Stepped) and event.lane == lane]


def test_what_a_server_can_do_is_found_out(server: ModelServer, tmp_path: Path) -> None:
    model = connect(server.url + "/v1/", cache_dir=tmp_path)
    told = model.capabilities
    assert (told.top, told.token_ids, told.tokenizer, told.context_length) == (20, True, True, 512)
    assert told.prompt_scores == (server.dialect == "vllm")
    assert told.dialect == {"vllm": "vLLM", "llama.cpp": "llama.cpp"}[server.dialect]
    assert served_models(server.url) == [NAME]
    assert model.facts.title == "tiny"
    model.close()
    with pytest.raises(RemoteError, match="has no model other; it serves lab/tiny"):
        connect(f"{server.url}#other")


def test_greedy_is_what_a_local_run_writes(served: ServedModel, server: ModelServer, local: LocalModel) -> None:
    events = list(served.generate([PROMPT], [GREEDY]))
    own = steps_of(generate(local.network, local.tokenizer, [PROMPT], [GREEDY]))
    got = steps_of(iter(events))
    assert [step.token.id for step in got] == [step.token.id for step in own]
    if server.dialect == "llama.cpp":  # vLLM does not tell the bytes of a part of a character
        assert [step.token for step in got] == [step.token for step in own]
    for step, expected in zip(got, own):
        assert step.raw_probability == pytest.approx(expected.raw_probability, rel=1e-4)
        assert step.rank == expected.rank
        assert [c.id for c in step.candidates] == [c.id for c in expected.candidates]
        assert (step.probability, step.entropy_bits, step.kept) == (None, None, None)
    assert isinstance(events[0], Started)
    assert [type(event) for event in events[1:3]][-1] is Prefilled
    assert events[-1] == Finished(0, "length")


def test_the_models_own_tokenizer_is_used_where_it_is_in_the_cache(
    server: ModelServer, local: LocalModel, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "hub" / "models--lab--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(tiny_llama, folder)
    model = connect(server.url, cache_dir=tmp_path)
    assert not model.tokenizer.remote
    own = steps_of(generate(local.network, local.tokenizer, [PROMPT], [GREEDY]))
    assert [step.token for step in steps_of(model.generate([PROMPT], [GREEDY]))] == [step.token for step in own]
    model.close()
    (folder / "tokenizer.json").write_text(byte_level_tokenizer().to_str().replace('"merges"', '"unk_token"', 1))
    other = connect(server.url, cache_dir=tmp_path)
    assert other.tokenizer.remote, "one that cannot be read, or cuts otherwise, is not used"
    other.close()


def test_the_servers_tokenizer_cuts_as_the_models_own(served: ServedModel, local: LocalModel) -> None:
    for text in ("the sky above the city", "ä 😀 x", " ", "two\nlines", "<|end|>"):
        assert [token.id for token in served.tokenizer.encode(text)] == local.tokenizer.encode_ids(text)
        assert "".join(token.text for token in served.tokenizer.encode(text)) == text
        assert served.tokenizer.encode(text)[-1].end == len(text.encode())


def test_two_lanes_are_two_streams_at_once(served: ServedModel, server: ModelServer, local: LocalModel) -> None:
    configs = [GREEDY, GenerationConfig(strategy="sample", seed=5, max_new_tokens=12, ignore_eos=True)]
    events = list(served.generate([PROMPT], configs))
    own = list(generate(local.network, local.tokenizer, [PROMPT], configs))
    for lane in (0, 1):
        assert [step.token.id for step in steps_of(iter(events), lane)] == [
            s.token.id for s in steps_of(iter(own), lane)
        ]
    assert len(server.texts_asked_for) == 2


def test_settings_are_sent_and_those_it_lacks_are_refused(served: ServedModel, server: ModelServer) -> None:
    config = GenerationConfig(
        strategy="sample", max_new_tokens=2, temperature=0.5, top_k=7, top_p=0.9, min_p=0.01, seed=3, stop=("zzz",)
    )
    list(served.generate([PROMPT], [replace(config, repetition_penalty=1.1, banned=(9,), logit_bias=((8, 1.5),))]))
    body = server.texts_asked_for[-1]
    assert (body["temperature"], body["top_k"], body["top_p"], body["min_p"]) == (0.5, 7, 0.9, 0.01)
    assert (body["seed"], body["stop"]) == (3, ["zzz"])
    assert body.get("repetition_penalty", body.get("repeat_penalty")) == 1.1
    assert body["logit_bias"] in ({"8": 1.5, "9": -100.0}, [[8, 1.5], [9, False]])
    with pytest.raises(InputError, match="contrastive search compares hidden states"):
        list(served.generate([PROMPT], [GenerationConfig(strategy="contrastive")]))
    typical = GenerationConfig(strategy="sample", typical_p=0.5, max_new_tokens=1)
    if server.dialect == "vllm":
        with pytest.raises(InputError, match="vLLM servers know no typical_p"):
            list(served.generate([PROMPT], [typical]))
    else:
        list(served.generate([PROMPT], [typical]))
        assert server.texts_asked_for[-1]["typical_p"] == 0.5


def test_a_servers_own_grammar_is_used_where_it_follows_one(served: ServedModel, server: ModelServer) -> None:
    configs: dict[str, dict[str, Any]] = {
        "schema": {"schema": '{"enum": [true, [1, 2]]}'},
        "regex": {"regex": "[ab]{3}"},
        "grammar": {"grammar": 'start: "a" | "bc"'},
        "choices": {"choices": ("red", "green")},
    }
    written = {"schema": "true|[[][12, ]+]", "regex": "[ab]{3}", "grammar": "a|bc", "choices": "red|green"}
    for kind, settings in configs.items():
        config = replace(GREEDY, ignore_eos=False, **settings)
        if server.dialect == "llama.cpp" and kind in ("regex", "grammar"):
            with pytest.raises(InputError, match=f"know no {kind}"):
                list(served.generate([PROMPT], [config]))
            continue
        steps = steps_of(served.generate([PROMPT], [config]))
        assert re.fullmatch(written[kind], "".join(step.token.text for step in steps))
        inspection = served.inspect(Start(tuple(served.tokenizer.encode(PROMPT))), config)
        assert (inspection.stages, inspection.kept) == (("raw",), None)
        assert "grammar" in inspection.lacking


def test_a_server_that_takes_no_notice_of_a_grammar_is_found_out(
    vllm: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.model_server._grammar", lambda body: {})
    with closing(connect(vllm.url, cache_dir=tmp_path)) as model:
        assert not model.capabilities.settings & set(KINDS)
        assert "temperature" in model.capabilities.settings


def test_a_branch_goes_on_where_it_was(served: ServedModel, server: ModelServer, local: LocalModel) -> None:
    prompt = tuple(served.tokenizer.encode(PROMPT))
    own = steps_of(generate(local.network, local.tokenizer, [PROMPT], [GREEDY]))
    before = tuple(step.token.id for step in own[:4])
    other = own[4].candidates[3].id
    start = Start(prompt, before, (other,))
    got = steps_of(served.generate([start], [replace(GREEDY, max_new_tokens=3)]))
    expected = steps_of(generate(local.network, local.tokenizer, [start], [replace(GREEDY, max_new_tokens=3)]))
    assert [step.token.id for step in got] == [step.token.id for step in expected]
    assert [step.forced for step in got] == [True, False, False, False]
    assert got[0].raw_probability == pytest.approx(expected[0].raw_probability, rel=1e-4)
    assert got[0].rank == expected[0].rank
    assert server.texts_asked_for[-1]["prompt"] == [*(token.id for token in prompt), *before, other]


def test_stop_texts_and_contexts(served: ServedModel, local: LocalModel) -> None:
    own = steps_of(generate(local.network, local.tokenizer, [PROMPT], [GREEDY]))
    stop = next(step.token.text for step in own[3:] if step.token.text.strip())
    events = list(served.generate([PROMPT], [replace(GREEDY, stop=(stop,))]))
    assert events[-1] == Finished(0, "stop_sequence")
    with pytest.raises(InputError, match="exceed the server's context of 512"):
        list(served.generate([PROMPT], [replace(GREEDY, max_new_tokens=600)]))
    with pytest.raises(InputError, match="prompt is empty"):
        list(served.generate([""], [GREEDY]))


def test_scores_of_a_prompt(vllm: ModelServer, local: LocalModel, tmp_path: Path) -> None:
    model = connect(vllm.url, cache_dir=tmp_path)
    tokens = model.tokenizer.encode("the sky above the city looked calm")
    for got, expected in zip(model.score(tokens), local.score(tokens), strict=True):
        assert got.token == expected.token
        assert got.rank == expected.rank
        assert got.surprisal_bits == pytest.approx(expected.surprisal_bits, abs=1e-3)
    model.close()


def test_a_server_of_which_little_is_known(local: LocalModel, tmp_path: Path) -> None:
    """OpenAI's completions alone: five candidates, no ids, no tokenizer."""
    with serve(local, "openai") as server:
        model = connect(server.url, cache_dir=tmp_path)
        assert (model.capabilities.dialect, model.capabilities.top, model.capabilities.tokenizer) == (
            "OpenAI",
            5,
            False,
        )
        assert [token.text for token in model.tokenizer.encode(PROMPT)] == [PROMPT]
        config = replace(GREEDY, ignore_eos=False, max_new_tokens=5)
        got = steps_of(model.generate([PROMPT], [config]))
        own = steps_of(generate(local.network, local.tokenizer, [PROMPT], [config]))
        assert [step.token.text for step in got] == [step.token.piece for step in own]
        assert [step.raw_probability for step in got] == pytest.approx([step.raw_probability for step in own], rel=1e-4)
        with pytest.raises(InputError, match="OpenAI servers know no ignore_eos"):
            list(model.generate([PROMPT], [GREEDY]))
        with pytest.raises(InputError, match="do not score prompts"):
            list(model.score(model.tokenizer.encode(PROMPT)))
        model.close()


# In the lab.


async def test_pause_step_and_cancel(vllm: ModelServer, tmp_path: Path, local: LocalModel) -> None:
    before = set(threading.enumerate())
    lab = Lab(cache_dir=tmp_path)
    try:
        await load(lab, vllm.url)
        vllm.step_seconds = 0.02
        job = lab.generate(PROMPT, [replace(GREEDY, max_new_tokens=400)], paused=True)

        def stepped() -> None:
            assert [body["max_tokens"] for body in vllm.texts_asked_for] == [1, 1, 1]

        got = await step_then_cancel(job, cancelled_after=10, stepped=stepped)
        assert 10 <= len(got) < 400
        own = steps_of(generate(local.network, local.tokenizer, [PROMPT], [replace(GREEDY, max_new_tokens=12)]))
        assert [step.token.id for step in got[:12]] == [step.token.id for step in own[: len(got)]]
        async with asyncio.timeout(20):
            while not vllm.stopped:
                await asyncio.sleep(0.01)
    finally:
        await lab.close()
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("logitlab"):
            thread.join(20)  # the lab itself does not wait so long for one that a busy machine holds up
            assert not thread.is_alive(), thread.name


def test_closing_lets_streams_end_before_their_loop_stops() -> None:
    connection, begun, ended = Connection("http://127.0.0.1:9"), threading.Event(), threading.Event()

    async def stream() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            for _turn in range(20):
                await asyncio.sleep(0)
            ended.set()

    connection.begin(stream())
    assert begun.wait(20)
    connection.close()
    assert ended.is_set()


@pytest.mark.parametrize("stepped", [True, False], ids=["stepped by hand", "locked"])
def test_who_is_behind_at_a_server_catches_up_before_all_go_in_step(
    vllm: ModelServer, served_by_vllm: ServedModel, local: LocalModel, stepped: bool
) -> None:
    answered = threading.Event()

    def holds_up_one(_server: ModelServer, _request: BaseHTTPRequestHandler, _path: str, body: dict[str, Any]) -> bool:
        return bool(body.get("seed") == 7 and not answered.wait(20))

    vllm.fault = holds_up_one
    configs = [GREEDY, replace(GREEDY, strategy="sample", seed=7)]
    steps: list[Stepped] = []

    def in_step() -> bool:
        return len(steps) >= 5

    events = served_by_vllm.generate([PROMPT], configs, in_step=in_step, paused=lambda: stepped and in_step())
    for event in events:
        assert not isinstance(event, Failed), event
        steps += [event] if isinstance(event, Stepped) else []
        if in_step():
            answered.set()
    alone = [(0, index) for index in range(5)]
    behind = [(1, index) for index in range(5)]
    level = [(lane, index) for index in range(5, 12) for lane in (0, 1)]
    assert [(step.lane, step.index) for step in steps] == alone + behind + level
    own = steps_of(generate(local.network, local.tokenizer, [PROMPT], [GREEDY]))
    assert [step.token.id for step in steps if step.lane == 0] == [step.token.id for step in own]


def test_lanes_at_a_server_are_in_step_from_the_beginning_where_that_is_asked_for(served_by_vllm: ServedModel) -> None:
    configs = [GREEDY, replace(GREEDY, max_new_tokens=5), replace(GREEDY, strategy="sample", seed=7)]
    events = served_by_vllm.generate([PROMPT], configs, in_step=lambda: True)
    got = [(step.lane, step.index) for step in events if isinstance(step, Stepped)]
    assert got == [(lane, index) for index in range(12) for lane in range(3) if lane != 1 or index < 5]


async def test_a_pause_closes_the_stream_and_going_on_opens_another(vllm: ModelServer, tmp_path: Path) -> None:
    lab = Lab(cache_dir=tmp_path)
    try:
        async for _event in lab.load(vllm.url):
            pass
        vllm.step_seconds = 0.01
        whole = [e async for e in lab.generate(PROMPT, [replace(GREEDY, max_new_tokens=60)]) if isinstance(e, Stepped)]
        job = lab.generate(PROMPT, [replace(GREEDY, max_new_tokens=60)])
        got: list[Stepped] = []
        async for event in job:
            if isinstance(event, Stepped):
                got.append(event)
                if len(got) == 5:
                    job.pause()
                    async with asyncio.timeout(20):
                        while not vllm.stopped:
                            await asyncio.sleep(0.01)
                    job.resume()
        assert [step.token for step in got] == [step.token for step in whole]
        assert len(vllm.texts_asked_for[-1]["prompt"]) > len(lab.tokenizer.encode(PROMPT)) if lab.tokenizer else False
    finally:
        await lab.close()


# Faults.


def answers(status: int, body: object, **headers: str) -> Any:
    def fault(server: ModelServer, request: BaseHTTPRequestHandler, path: str, asked: dict[str, Any]) -> bool:
        if not asked.get("stream"):
            return False
        send(request, body, status, **headers)
        return True

    return fault


def streams(*lines: bytes, wait: threading.Event | None = None) -> Any:
    """A stream of these lines, which ends in the middle, or waits."""

    def fault(server: ModelServer, request: BaseHTTPRequestHandler, path: str, asked: dict[str, Any]) -> bool:
        if not asked.get("stream"):
            return False
        begin_stream(request)
        for line in lines:
            request.wfile.write(line)
        request.wfile.flush()
        if wait is not None:
            wait.wait()
        return True

    return fault


def event(**choice: Any) -> bytes:
    return (
        b"data: "
        + json.dumps({"choices": [{"index": 0, "text": "", "finish_reason": None} | choice]}).encode()
        + b"\n\n"
    )


def token(id: object, value: float | None = -1.0) -> bytes:
    return event(logprobs={"tokens": [f"token_id:{id}"], "token_logprobs": [value], "top_logprobs": [None]})


FAULTS = {
    "401": (answers(401, {"error": {"message": "bad key SECRET"}}), "wants a key"),
    "404": (answers(404, {"object": "error", "message": "The model does not exist.", "code": 404}), "does not exist"),
    "400": (answers(400, {"message": "SECRET is\nno good"}), "refused"),
    "429": (answers(429, {}, Retry_After="0"), "is busy"),
    "500": (answers(500, {"detail": "CUDA error"}), "failed"),
    "redirect": (answers(307, {}, Location="http://elsewhere.invalid/v1/completions"), "leads on to elsewhere.invalid"),
    "error in the stream": (streams(token(5), b'data: {"error": {"message": "engine died"}}\n\n'), "engine died"),
    "cut in JSON": (streams(token(5), b'data: {"choices": [{"te'), "broke off"),
    "no JSON": (streams(token(5), b"data: nonsense\n\n"), "no JSON"),
    "cut in UTF-8": (streams(token(5), 'data: {"x": "ä'.encode()[:-1] + b"\n\n"), "no JSON"),
    "ids that are none": (streams(token(2**40)), "form that is not known"),
    "a name for an id": (streams(token("x")), "broke off"),
    "a list": (streams(b"data: []\n\n"), "no event"),
    "nothing": (streams(), "broke off"),
    "another form": (streams(b'data: {"choices": [7]}\n\n'), "form that is not known"),
    "logprobs null": (streams(event(text=" a"), event(finish_reason="length")), None),
    "a value that is none": (streams(token(5, None), event(finish_reason="length")), None),
    "a long line": (streams(event(text="a" * 1_000_000), event(finish_reason="length")), None),
}


@pytest.mark.parametrize("name", FAULTS)
def test_whatever_fails_is_one_line_or_a_marked_part(
    vllm: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fault, words = FAULTS[name]
    monkeypatch.setenv("LOGITLAB_API_KEY", "SECRET")
    model = connect(vllm.url, cache_dir=tmp_path)
    vllm.fault = fault
    events = list(model.generate([PROMPT], [GREEDY]))
    last = events[-1]
    if words is None:
        assert isinstance(last, Finished)
    else:
        assert isinstance(last, Failed)
        assert isinstance(last.error, RemoteError)
        said = str(last.error)
        assert any(word in said for word in words.split("|")), said
        assert "\n" not in said
        assert "SECRET" not in said
        assert vllm.url.removeprefix("http://") in said
    vllm.fault = None
    assert len(steps_of(model.generate([PROMPT], [GREEDY]))) == 12, "what follows works"
    model.close()


def test_a_server_that_never_ends_is_left_at_the_length(vllm: ModelServer, tmp_path: Path) -> None:
    def endless(server: ModelServer, request: BaseHTTPRequestHandler, path: str, asked: dict[str, Any]) -> bool:
        if not asked.get("stream"):
            return False
        begin_stream(request)
        try:
            while True:
                send_event(request, token(5)[6:-2])
        except OSError:
            server.stopped += 1
        return True

    model = connect(vllm.url, cache_dir=tmp_path)
    vllm.fault = endless
    events = list(model.generate([PROMPT], [GREEDY]))
    assert len(steps_of(iter(events))) == 12
    assert events[-1] == Finished(0, "length")
    model.close()
    deadline = time.monotonic() + 20
    while not vllm.stopped:
        assert time.monotonic() < deadline, "the server writes on"
        time.sleep(0.01)


def test_a_server_that_keeps_silent_is_left_at_once(vllm: ModelServer, tmp_path: Path) -> None:
    model, closing = connect(vllm.url, cache_dir=tmp_path), threading.Event()
    vllm.fault = streams(token(5), wait=closing)
    seen: list[Event] = []
    for one in model.generate([PROMPT], [GREEDY], cancelled=lambda: len(seen) > 3, proceed=lambda: len(seen) <= 3):
        seen.append(one)
    closing.set()
    assert seen[-1] == Finished(0, "cancelled")
    model.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:9", "cannot reach 127.0.0.1:9"),
        ("http://nowhere.invalid", "cannot reach nowhere.invalid"),
        ("http://user:pass@host", "belongs into LOGITLAB_API_KEY"),
        ("http://", "no address of a server"),
        ("http://host:99999", "no address of a server"),
        ("http://[bad", "no address of a server"),
    ],
)
def test_addresses_that_lead_nowhere(address: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(LogitlabError, match=words) as raised:
        load_model(address, cache_dir=tmp_path)
    assert "\n" not in str(raised.value)
    assert "pass" not in str(raised.value)
    with pytest.raises(InputError, match="--offline is set"):
        load_model(address, offline=True, cache_dir=tmp_path)


def test_encryption_that_fails_is_one_line(vllm: ModelServer, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"cannot reach .*SSL"):
        connect(vllm.url.replace("http:", "https:"), cache_dir=tmp_path)


def test_what_is_no_model_server(tmp_path: Path) -> None:
    for said, words in (
        ({}, "form that is not known"),
        ({"data": []}, "serves no model"),
        ([], "form that is not known"),
    ):
        with (
            listening(lambda request, said=said: send(request, said)) as url,
            pytest.raises(RemoteError, match=words),
        ):
            connect(url, cache_dir=tmp_path)


def test_over_tls(local: LocalModel, run_cli: Any, tmp_path: Path) -> None:
    """A certificate that nobody signed is refused, before a key or a prompt is sent; one that is trusted serves."""
    with serve(local, tls=True) as server:
        arguments = ("generate", PROMPT, "--max-new-tokens", "4", "--ignore-eos", "--server", server.url)
        said = failure(run_cli(*arguments, LOGITLAB_API_KEY="SECRET"), 1)
        assert "certificate" in said
        assert not server.asked
        ended = run_cli(*arguments, LOGITLAB_API_KEY="SECRET", SSL_CERT_FILE=str(CERTIFICATE))
        assert ended.returncode == 0, ended.stderr
        assert set(server.keys) == {"Bearer SECRET"}


def test_the_key_goes_to_its_host_alone(vllm: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(vllm.url, cache_dir=tmp_path).close()
    assert set(vllm.keys) == {None}
    monkeypatch.setenv("LOGITLAB_API_KEY", "SECRET")
    with (
        listening(lambda request: send(request, {}, 307, Location=vllm.url + request.path)) as url,
        pytest.raises(RemoteError, match="leads on to"),
    ):
        connect(url, cache_dir=tmp_path)
    assert set(vllm.keys) == {None}
    model = connect(vllm.url, cache_dir=tmp_path)
    assert set(vllm.keys) == {None, "Bearer SECRET"}
    assert "SECRET" not in repr(model.facts)
    model.close()


def test_the_command_line_asks_a_server(vllm: ModelServer, local: LocalModel, run_cli: Any, tmp_path: Path) -> None:
    common = ("--server", vllm.url, "--cache-dir", str(tmp_path))
    ended = run_cli("generate", PROMPT, "--max-new-tokens", "6", "--ignore-eos", "--json", *common)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    own = steps_of(generate(local.network, local.tokenizer, [PROMPT], [replace(GREEDY, max_new_tokens=6)]))
    assert [one["id"] for one in told["lanes"][0]["tokens"]] == [step.token.id for step in own]
    assert told["model"]["source"] == vllm.url
    assert run_cli("score", PROMPT, *common).returncode == 0
    assert run_cli("tokens", PROMPT, LOGITLAB_SERVER=vllm.url).returncode == 0
    following = json.loads(run_cli("next", PROMPT, "--strategy", "sample", "--top-k", "3", "--json", *common).stdout)
    assert [one["id"] for one in following["candidates"][:3]] == [c.id for c in own[0].candidates[:3]]
    assert [one["cut_by"] for one in following["candidates"][:5]] == [None] * 3 + ["top_k"] * 2
    assert sum(one["probability"] for one in following["candidates"]) == pytest.approx(1)
    assert following["entropy_bits"] is None
    assert "more than the top 20" in run_cli("next", PROMPT, "--temperature", "0.7", *common).stdout
    word = run_cli("next", PROMPT, "--token", " sky", *common)
    assert (
        word.stdout.rpartition("“ sky”")[2]
        == run_cli(
            "next", PROMPT, "--token", " sky", "--model", local.facts.name, "--precision", "float32"
        ).stdout.rpartition("“ sky”")[2]
    )


WITHOUT_TORCH = """
import atexit, sys
atexit.register(lambda: print("torch was loaded:", "torch" in sys.modules, file=sys.stderr))
from engine.cli import main
main()
"""


@pytest.mark.parametrize(
    "command",
    [
        ("generate", PROMPT, "--max-new-tokens", "2"),
        ("next", PROMPT, "--token", " sky", "--top-k", "3"),
        ("score", PROMPT),
        ("bench", "--lengths", "2", "--lanes", "1,2", "--repeats", "1"),
    ],
    ids=lambda command: command[0],
)
def test_who_asks_a_server_does_not_wait_for_torch(vllm: ModelServer, command: tuple[str, ...]) -> None:
    arguments = [sys.executable, "-c", WITHOUT_TORCH, *command, "--server", vllm.url]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr.splitlines()[-1] == "torch was loaded: False"


# What a server tells of probabilities.


def test_fewer_candidates_are_found_out(vllm: ModelServer, tmp_path: Path) -> None:
    vllm.most = 5
    model = connect(vllm.url, cache_dir=tmp_path)
    assert (model.capabilities.top, model.capabilities.raw) == (5, True)
    assert {len(step.candidates) for step in steps_of(model.generate([PROMPT], [GREEDY]))} == {5}
    model.close()


def test_processed_log_probabilities_are_found_out_and_called_what_they_are(
    vllm: ModelServer, local: LocalModel, tmp_path: Path
) -> None:
    vllm.mode = "processed_logprobs"
    config = replace(GREEDY, strategy="sample", seed=1, temperature=0.7, top_k=4)
    model = connect(vllm.url, cache_dir=tmp_path)
    assert not model.capabilities.raw
    own = steps_of(generate(local.network, local.tokenizer, [PROMPT], [config]))
    for step, expected in zip(steps_of(model.generate([PROMPT], [config])), own):
        assert step.token.id == expected.token.id
        assert (step.raw_probability, step.rank) == (None, None)
        assert step.probability == pytest.approx(expected.probability, abs=1e-6)
        told = {candidate.id: candidate.probability for candidate in step.candidates if candidate.probability}
        assert told == pytest.approx({c.id: c.probability for c in expected.candidates if c.probability}, abs=1e-6)
    model.close()


def test_logits_are_no_probabilities(vllm: ModelServer, tmp_path: Path) -> None:
    vllm.mode = "raw_logits"
    model = connect(vllm.url, cache_dir=tmp_path)
    assert model.capabilities.top == 0
    model.close()


@pytest.mark.parametrize("prompt", [PROMPT, "日本の空"], ids=["nothing known", "some parts known"])
def test_characters_of_several_tokens_are_whole_in_the_text(
    vllm: ModelServer, local: LocalModel, tmp_path: Path, prompt: str
) -> None:
    """vLLM does not tell what a part of a character spells; its stream tells the character once it is whole."""
    config = replace(GREEDY, strategy="sample", seed=5, max_new_tokens=60, ignore_eos=True, temperature=3.0)
    own = steps_of(generate(local.network, local.tokenizer, [prompt], [config]))
    assert any("⟨" in step.token.label for step in own), "some tokens are parts of characters"
    model = connect(vllm.url, cache_dir=tmp_path)
    told = steps_of(model.generate([prompt], [config]))
    assert [step.token.text for step in told] == [step.token.text for step in own]
    model.close()


def test_what_candidates_spell_is_asked_once_a_step(vllm: ModelServer, local: LocalModel, tmp_path: Path) -> None:
    model = connect(vllm.url, cache_dir=tmp_path)
    vllm.asked.clear()
    steps = steps_of(model.generate([PROMPT], [GREEDY]))
    asked = [path for path, _body in vllm.asked if path == "/detokenize"]
    assert len(asked) <= len(steps) + 2
    for candidate in steps[0].candidates:
        own = local.tokenizer.label(candidate.id)
        assert candidate.text == own or "�" in candidate.text, "vLLM tells no bytes of parts of characters"
    model.close()


def test_a_message_goes_into_the_servers_chat_template(served: ServedModel, local: LocalModel) -> None:
    assert served.tokenizer.chats
    tokens = served.tokenizer.encode_chat("hi, the sky")
    assert [token.id for token in tokens] == local.tokenizer.encode_ids("user: hi, the sky\nassistant:")
    assert tokens[-1].end == len("user: hi, the sky\nassistant:")


@pytest.mark.parametrize(
    "question",
    [
        Question("next", "?", ("a", " sky", "xyz"), of=PROMPT),
        Question("count", "?", ("1", "2", "3", "4", "5"), of="the sky above"),
        Question("more", "?", ("a", "the sky above", "sky")),
        Question("agree", "?", ("yes", "no"), of=PROMPT, a="greedy", b={"strategy": "sample", "seed": 3}),
        Question("repeat", "?", ("yes", "no"), of=PROMPT, b={"strategy": "sample", "seed": 3}),
    ],
    ids=lambda question: question.ask,
)
def test_a_lessons_questions_are_answered_by_a_server(
    vllm: ModelServer, local: LocalModel, tmp_path: Path, question: Question
) -> None:
    model = connect(vllm.url, cache_dir=tmp_path)
    (found,), (expected,) = list(answer(model, question, None)), list(answer(local, question, None))
    assert found.right == expected.right
    assert question.ask == "agree" or found.said == expected.said  # vLLM tells no bytes of parts of characters
    model.close()


def test_what_no_server_does_is_no_answer(vllm: ModelServer, tmp_path: Path) -> None:
    model = connect(vllm.url, cache_dir=tmp_path)
    with pytest.raises(InputError, match="without its cache"):
        list(answer(model, Question("times", "?", ("2", "4")), None))
    for question in (
        Question("decided", "?", ("a", "b"), of=PROMPT),
        Question("looks_at", "?", (" sky", " above"), of=PROMPT),
        Question("wrote", "?", ("a", "b", "c"), of=PROMPT),
    ):
        with pytest.raises(InputError, match="no server tells what happens inside"):
            list(answer(model, question, None))
    vllm.fault = answers(500, {"message": "no"})
    with pytest.raises(RemoteError, match="no"):
        list(answer(model, Question("repeat", "?", ("yes", "no"), of=PROMPT, b="greedy"), None))
    model.close()


# How fast a server is.


def test_a_server_is_timed_for_several_readers_at_once(vllm: ModelServer, run_cli: Any, tmp_path: Path) -> None:
    saved, chart, table = (tmp_path / name for name in ("bench.json", "bench.svg", "bench.csv"))
    arguments = ("--lanes", "1,3", "--repeats", "2", "--lengths", "4,6", "--server", vllm.url)
    files = ("--save", str(saved), "--svg", str(chart), "--csv", str(table))
    ended = run_cli("bench", *arguments, "--json", *files)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert json.loads(saved.read_text()) == told
    asked = vllm.texts_asked_for
    assert len(asked) == 1 + 2 * 2 * (1 + 3), "one that does not count, then each length twice, alone and three at once"
    assert {body["logprobs"] for body in asked} == {0}, "nothing is asked for that would slow the server"
    assert [(row["lanes"], row["max_new_tokens"]) for row in told["rows"]] == [(1, 4), (1, 6), (3, 4), (3, 6)]
    for run in told["runs"]:
        texts = [run["token_seconds"], *run["others"]]
        assert [len(text) for text in texts] == [run["max_new_tokens"]] * run["lanes"]
        assert all(sum(text) <= run["seconds"] for text in texts)
    for row in told["latency"]:
        first = row["time_to_first_token_spread"]
        assert 0 < first["median"] <= first["p95"] <= first["p99"]
    assert "lanes at once" in chart.read_text().replace("&#160;", " ")
    assert len(table.read_text().splitlines()) == 1 + 8
    shown = run_cli("bench", *arguments, "--chart", "latency")
    assert "TTFT ms" in shown.stdout
    assert "3 at once: " in shown.stdout
    assert "first token (TTFT), median" in shown.stdout


def test_a_local_run_is_laid_beside_a_servers(
    vllm: ModelServer, tiny_llama: Path, run_cli: Any, tmp_path: Path
) -> None:
    files = [str(tmp_path / name) for name in ("here.json", "there.json", "both.svg")]
    same = ("--lanes", "1,2", "--repeats", "1", "--lengths", "6")
    for model, file in ((("--model", str(tiny_llama)), files[0]), (("--server", vllm.url), files[1])):
        ended = run_cli("bench", *same, *model, "--save", file)
        assert ended.returncode == 0, ended.stderr
    told = run_cli("bench", "compare", *files[:2], "--svg", files[2], "--json")
    assert told.returncode == 0, told.stderr
    rows = json.loads(told.stdout)["rows"]
    assert [(row["by"], row["a"]["lanes"], row["b"]["lanes"]) for row in rows] == [("logitlab", n, n) for n in (1, 2)]
    assert "lanes at once" in (tmp_path / "both.svg").read_text().replace("&#160;", " ")


def test_a_server_that_cannot_be_timed_is_said_in_a_line(vllm: ModelServer, run_cli: Any) -> None:
    arguments = ("bench", "--lengths", "4", "--lanes", "1,2", "--server", vllm.url)
    for option in ("--no-cache", "--against=transformers"):
        assert "model that runs here" in failure(run_cli(*arguments, option), 2)
    assert "allowed" in failure(run_cli("bench", "--lanes", "0", "--server", vllm.url), 2)
    assert "context of 512" in failure(run_cli("bench", "--lengths", "600", "--server", vllm.url), 2)
    vllm.fault = ends_early
    assert "after 2 of 4 tokens" in failure(run_cli(*arguments), 1)
    vllm.fault = answers(400, {"message": "no"})
    assert "refused (400): no" in failure(run_cli(*arguments), 1)


def test_without_log_probabilities_a_text_is_timed_as_a_whole(run_cli: Any, local: LocalModel) -> None:
    """Where a token ends is not known then: some bring no text."""
    with serve(local, "openai") as bare:
        bare.fault = without_log_probabilities
        ended = run_cli("bench", "--lengths", "16", "--lanes", "1,2", "--repeats", "1", "--server", bare.url)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert "TPOT" in ended.stdout


def failure(ended: Any, code: int) -> str:
    assert (ended.returncode, ended.stderr.count("\n")) == (code, 1), ended.stderr
    return str(ended.stderr)


def ends_early(server: ModelServer, request: BaseHTTPRequestHandler, path: str, body: dict[str, Any]) -> bool:
    if body.get("stream"):
        body["max_tokens"] = 2
    return False


def without_log_probabilities(
    server: ModelServer, request: BaseHTTPRequestHandler, path: str, body: dict[str, Any]
) -> bool:
    body.pop("logprobs", None)
    return False


class Cuts:
    """Answers what a text is cut into, as llama-server does."""

    def __init__(self, *tokens: tuple[int, list[int]]) -> None:
        self.tokens = [{"id": id, "piece": piece} for id, piece in tokens]

    async def post(self, path: str, body: dict[str, object]) -> dict[str, object]:
        assert path == "/tokenize"
        return {"tokens": self.tokens}


@pytest.mark.parametrize(
    ("cuts", "found"),
    [
        (Cuts((10, [0xE3, 0x82]), (20, [0x82])), [(10, b"\xe3\x82"), (20, b"\x82")]),
        (Cuts((5, [32]), (10, [0xE3, 0x82]), (20, [0x82])), [(10, b"\xe3\x82"), (20, b"\x82")]),
        (Cuts((20, [0xE3, 0x82, 0x82])), [(20, b"\xe3\x82\x82")]),
        (Cuts((10, [0xE3, 0x82]), (21, [0x82])), [(None, b"\xe3\x82\x82")]),
    ],
)
async def test_llama_servers_characters_are_parted_into_their_tokens(
    cuts: Cuts, found: list[tuple[int | None, bytes]]
) -> None:
    dialect = LlamaServer("model", Capabilities("llama.cpp"))
    pieces = await dialect.parted(cuts, Piece(20, "も".encode(), -1.0))  # type: ignore[arg-type]
    assert [(piece.id, piece.data) for piece in pieces] == found
    assert [piece.log_probability for piece in pieces] == [*[None] * (len(found) - 1), -1.0]
    part = Piece(20, b"\xe3\x82", -1.0)
    assert await dialect.parted(cuts, part) == [part]  # type: ignore[arg-type]
