"""The lab in front of servers that somebody else wrote, each with the embedded model on 127.0.0.1.

`make test-remote` runs these: each server with its defaults first, then with room for several texts; a server that is
not there is skipped. They are named in `LOGITLAB_LLAMA_PYTHON` (a Python with llama-cpp-python) and
`LOGITLAB_LLAMA_SERVER` (`llama-server`), which `make test-remote` builds beside the project, and `LOGITLAB_VLLM`
(`vllm`).
"""

import asyncio
import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Failed, Prompt, Start, Stepped
from engine.generation.loop import logits_after
from engine.lab import Lab
from engine.loading import load_local
from engine.models import catalog
from engine.models.local import LocalModel, load_reference
from engine.text.conversation import Conversation, Message
from engine.text.tokenizer import Tokenizer
from engine.timing.sweep import Sweep
from tests.conftest import EMBEDDED
from tests.stepping import load, step_then_cancel
from tests.terminal.terminal import Terminal, both_ended

pytest.importorskip("openai")
from engine.remote.connect import connect
from engine.remote.dialects.chat import for_chat
from engine.remote.probes import prefill, takes_messages
from engine.remote.served import ServedModel
from engine.remote.tokenizer import ServerTokenizer
from engine.timing.served import time_server

PYTHON = os.environ.get("LOGITLAB_LLAMA_PYTHON", "")
# What a server needs to run here at all, and in the precision that it is compared in.
HERE = {"llama-cpp-python": [], "llama.cpp": [], "vLLM": ["--dtype", "float32", "--enforce-eager"]}
# What lets a server do more than its defaults.
MORE = {
    "llama-cpp-python": ["--n_ctx", "1024", "--logits_all", "True", "--interrupt_requests", "False"],
    "llama.cpp": ["--parallel", "4", "--ctx-size", "4096"],
    "vLLM": ["--max-model-len", "1024", "--max-num-seqs", "16"],
}
VLLM_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
PROMPT = "1 2 3 4 5 6 7"  # what comes next is clear, however a quantised model rounds
OPEN = "The sky above the city"
GREEDY = GenerationConfig(max_new_tokens=16)
IN_PROCESS = """
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=1024, logits_all=True, verbose=False)
settings = {"max_tokens": int(sys.argv[3]), "temperature": 0.0, "repeat_penalty": 1.0}
told = model.create_completion(json.loads(sys.argv[2]), logprobs=20, **settings)
print(json.dumps(told["choices"][0], default=float))
"""


@dataclass(frozen=True)
class Foreign:
    """A server that runs; `name` is that of its dialect."""

    name: str
    url: str


@pytest.fixture(scope="module")
def gguf() -> Path:
    path = catalog.find(EMBEDDED).path
    assert path is not None
    return path


@pytest.fixture(scope="module")
def local() -> LocalModel:
    return load_local(EMBEDDED, precision="float32")


@pytest.fixture(scope="module")
def folder(local: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as transformers keeps models."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("smol")
    load_reference(EMBEDDED).model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=local.tokenizer.backend)
    tokenizer.eos_token = local.tokenizer.piece(min(local.tokenizer.eos_ids))
    tokenizer.chat_template = local.tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=HERE)
def by_default(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foreign]:
    """A server as people start it."""
    with started(request.param, request, tmp_path_factory.mktemp("server") / "log") as foreign:
        yield foreign


@pytest.fixture(scope="module", params=HERE)
def foreign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foreign]:
    """A server that has room for several texts."""
    log = tmp_path_factory.mktemp("server") / "log"
    with started(request.param, request, log, MORE[request.param]) as foreign:
        yield foreign


@contextmanager
def started(
    name: str, request: pytest.FixtureRequest, log: Path, options: list[str] | None = None
) -> Iterator[Foreign]:
    command = {
        "llama-cpp-python": [PYTHON, "-m", "llama_cpp.server"] if PYTHON else [],
        "llama.cpp": [os.environ.get("LOGITLAB_LLAMA_SERVER", "")],
        "vLLM": [os.environ.get("LOGITLAB_VLLM", "")],
    }[name]
    if not command or not command[0]:
        pytest.skip(f"{name} is not there: make test-remote")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if name == "vLLM":
        command += ["serve", str(request.getfixturevalue("folder")), "--served-model-name", "smol"]
    else:
        command += ["--model", str(request.getfixturevalue("gguf"))]
    command += [*HERE[name], *(options or ()), "--host", "127.0.0.1", "--port", str(port)]
    with running(command, f"http://127.0.0.1:{port}", log) as url:
        yield Foreign(name, url)


@contextmanager
def running(command: list[str], url: str, log: Path) -> Iterator[str]:
    """A server's process, from when it answers."""
    with ExitStack() as stack:
        out = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | VLLM_SETTINGS)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"{url}/v1/models", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield url


@pytest.fixture
def served(foreign: Foreign) -> Iterator[ServedModel]:
    model = connect(foreign.url)
    yield model
    model.close()


def steps_of(events: list[Event], lane: int = 0) -> list[Stepped]:
    assert not [event for event in events if isinstance(event, Failed)]
    return [event for event in events if isinstance(event, Stepped) and event.lane == lane]


def text_of(steps: list[Stepped]) -> str:
    return "".join(step.token.text for step in steps)


@cache
def in_process(gguf: Path, prompt: str | tuple[int, ...], tokens: int) -> dict:
    """What llama.cpp writes without a server between."""
    if not PYTHON:
        pytest.skip("llama-cpp-python is not there: make test-remote")
    ran = subprocess.run(
        [PYTHON, "-c", IN_PROCESS, str(gguf), json.dumps(prompt), str(tokens)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout.splitlines()[-1])


def expected(request: pytest.FixtureRequest, foreign: Foreign, prompt: str | tuple[int, ...], tokens: int) -> str:
    """The greedy text: llama.cpp's in process, and for vLLM, which runs in float32, transformers' `generate`."""
    if foreign.name != "vLLM":
        return str(in_process(request.getfixturevalue("gguf"), prompt, tokens)["text"])
    import torch

    tokenizer = request.getfixturevalue("local").tokenizer
    ids = torch.tensor([tokenizer.encode_ids(prompt) if isinstance(prompt, str) else prompt])
    model = load_reference(EMBEDDED).model
    written = model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return str(tokenizer.backend.decode(written[0, ids.shape[1] :].tolist()))


# With their defaults.


def test_two_lanes_in_front_of_its_defaults(by_default: Foreign, request: pytest.FixtureRequest) -> None:
    """Both are written to their end, one after the other where it writes one text at a time, which is said."""
    with closing(connect(by_default.url)) as served:
        told = served.capabilities
        if by_default.name == "llama-cpp-python":
            assert (told.at_once, told.interrupts) == (1, True)
            assert "--interrupt_requests False" in told.in_turn(2)
        else:
            assert not told.interrupts
            assert told.at_once != 1
        assert (told.top, told.raw, told.drafts, told.continues) == (20, True, False, True)
        sampled = GenerationConfig(strategy="sample", seed=3, max_new_tokens=16)
        events = list(served.generate([PROMPT], [GREEDY, sampled, GREEDY]))
        assert text_of(steps_of(events)) == text_of(steps_of(events, 2)) == expected(request, by_default, PROMPT, 16)
        assert len(steps_of(events, 1)) == 16


def test_a_prompt_is_typed_while_a_lane_is_written(by_default: Foreign, request: pytest.FixtureRequest) -> None:
    with closing(connect(by_default.url)) as served:
        events = []
        for event in served.generate([PROMPT], [GREEDY]):
            events.append(event)
            if isinstance(event, Stepped) and event.index in (1, 6):
                served.tokenizer.encode(f"another text {event.index}")
        assert text_of(steps_of(events)) == expected(request, by_default, PROMPT, 16)


def test_its_defaults_are_timed_for_several_readers(by_default: Foreign, run_cli) -> None:
    told = run_cli("bench", "--concurrency", "1,3", "--lengths", "8", "--repeats", "1", "--server", by_default.url)
    assert told.returncode == 0, told.stderr
    assert ("one after the other" in told.stderr) == (by_default.name == "llama-cpp-python")
    assert "3 at once" in told.stdout


def test_commands_in_front_of_its_defaults(
    by_default: Foreign, run_cli, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each writes to its end, and says once that lanes wait where they do; one lane has nothing to wait for."""
    waits = by_default.name == "llama-cpp-python"
    jobs, out = tmp_path / "jobs.jsonl", tmp_path / "out.jsonl"
    jobs.write_text("\n".join(json.dumps({"prompt": PROMPT, "config": {"max_new_tokens": 8}}) for _job in range(4)))
    at, text = ("--server", by_default.url), expected(request, by_default, PROMPT, 8)

    def ended(*arguments: str, said: bool) -> str:
        ran = run_cli(*arguments, *at)
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr.count("--interrupt_requests False") == said
        return str(ran.stdout)

    options = ("--max-new-tokens", "8")
    compared = json.loads(ended("compare", PROMPT, "--a", "greedy", "--b", "greedy", *options, "--json", said=waits))
    assert [lane["text"] for lane in compared["lanes"]] == [text, text]
    assert text in ended("generate", PROMPT, *options, said=False)
    assert "top 20" in ended("next", PROMPT, said=False)
    ended("batch", str(jobs), "--out", str(out), "--concurrency", "4", said=waits)
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == [text] * 4
    scored = run_cli("score", PROMPT, *at)
    if scored.returncode:
        assert f"{by_default.name} servers do not score prompts" in scored.stderr


def test_the_lab_in_front_of_its_defaults(by_default: Foreign) -> None:
    waits = by_default.name == "llama-cpp-python"
    with Terminal(["--server", by_default.url, "--prompt", PROMPT], 120, 40) as terminal:
        terminal.wait(by_default.name)
        if waits:
            terminal.wait("--interrupt_requests")
        terminal.press("F5")
        terminal.wait(both_ended, 120)
        assert "10 11 12" in terminal.text.replace("·", " ")
        terminal.press("ctrl+q")
        assert terminal.finish() == 0


def test_a_draft_models_tokens_have_no_probabilities(
    gguf: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The model drafts for itself, so that all that it guesses is taken."""
    draft = ["--spec-type", "draft-simple", "--spec-draft-model", str(gguf), "--ctx-size", "2048"]
    with started("llama.cpp", request, tmp_path / "log", draft) as foreign, closing(connect(foreign.url)) as served:
        assert served.capabilities.drafts
        steps = steps_of(list(served.generate([PROMPT], [GREEDY])))
        assert text_of(steps) == expected(request, foreign, PROMPT, 16)
        assert {bool(step.candidates) for step in steps[1:]} >= {False}
        assert all((step.raw_probability is None) == (not step.candidates) for step in steps)
        (run,) = time_server(served, Sweep(PROMPT, (8,), repeats=1, warmup=0, runners=("server",)))
        assert run.in_groups


def test_one_slot_is_one_lane_after_the_other(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    one = ["--parallel", "1", "--ctx-size", "1024"]
    with started("llama.cpp", request, tmp_path / "log", one) as foreign, closing(connect(foreign.url)) as served:
        assert "--parallel 4" in served.capabilities.in_turn(2)
        events = list(served.generate([PROMPT], [GREEDY, GREEDY]))
        assert text_of(steps_of(events)) == text_of(steps_of(events, 1)) == expected(request, foreign, PROMPT, 16)


# With room for several texts.


def test_what_it_can_do_is_found_out(served: ServedModel, foreign: Foreign) -> None:
    told = served.capabilities
    assert (told.dialect, told.tokenizer, told.top, told.raw) == (foreign.name, True, 20, True)
    assert told.token_ids == (foreign.name != "llama-cpp-python")
    assert told.prompt_scores == (foreign.name == "vLLM")
    assert told.chat == (foreign.name != "llama-cpp-python")


def test_greedy_is_what_its_engine_writes_without_a_server(
    served: ServedModel, foreign: Foreign, request: pytest.FixtureRequest
) -> None:
    steps = steps_of(list(served.generate([PROMPT], [GREEDY])))
    assert text_of(steps) == expected(request, foreign, PROMPT, 16)
    assert [step.rank for step in steps] == [1] * 16
    assert {len(step.candidates) for step in steps} == {20}


def test_probabilities_are_the_models(served: ServedModel, foreign: Foreign, local: LocalModel) -> None:
    """Of float32 to the fifth digit; llama.cpp computes with eight bits between layers."""
    close = 2e-5 if foreign.name == "vLLM" else 0.06
    (step, *_others) = steps_of(list(served.generate([OPEN], [GREEDY])))
    whole = logits_after(local.network, local.tokenizer.encode_ids(OPEN)).softmax(-1)
    for candidate in step.candidates if foreign.name != "llama-cpp-python" else ():  # which tells texts, no ids
        assert candidate.raw_probability == pytest.approx(float(whole[candidate.id]), abs=close)
    assert step.raw_probability == pytest.approx(float(whole.max()), abs=close)


def test_what_is_said_of_stages_is_what_the_server_draws_from(served: ServedModel, foreign: Foreign) -> None:
    """With a top-k of 3, one of the three that the inspection keeps comes, whatever the seed."""
    config = replace(GREEDY, strategy="sample", top_k=3, temperature=1.5, max_new_tokens=1)
    kept = {c.text for c in served.inspect(start(served, OPEN), config).at(0, 20) if c.cut_by is None}
    assert len(kept) == 3
    drawn = {
        step.token.label
        for seed in range(12)
        for step in steps_of(list(served.generate([OPEN], [replace(config, seed=seed)])))
    }
    assert drawn <= kept
    assert len(drawn) > 1


def start(served: ServedModel, text: str) -> Start:
    return Start(tuple(served.tokenizer.encode(text)))


def test_its_tokenizer_is_the_models(served: ServedModel, tokenizer) -> None:
    for text in (PROMPT, "two\nlines, 1984 – and 😀"):
        assert served.tokenizer.encode_ids(text) == tokenizer.encode_ids(text)
    if served.tokenizer.chats:
        chat = [token.id for token in served.tokenizer.encode_chat("Say hi.")]
        assert chat == [token.id for token in tokenizer.encode_chat("Say hi.")]


TALK = Conversation(
    (
        Message("system", "You count."),
        Message("user", "  one two <|im_end|> three "),
        Message("assistant", "four five"),
        Message("user", "And then? 日本 👩‍👩‍👧"),
    )
)


@pytest.mark.parametrize("continues", [False, True])
def test_a_conversation_is_what_it_is_here(served: ServedModel, tokenizer: Tokenizer, continues: bool) -> None:
    if not served.capabilities.token_ids:
        pytest.skip("messages go to it as they are")
    last = (Message("assistant", "six seven "),) if continues else ()
    typed = Conversation((*TALK.messages, *last), continues=continues)
    plain = replace(
        typed, messages=tuple(replace(one, content=one.content.replace("<|im_end|>", "")) for one in typed.messages)
    )
    for conversation in (typed, plain):
        own, found = (one.encode_conversation(conversation) for one in (tokenizer, served.tokenizer))
        if served.capabilities.dialect == "llama.cpp" or conversation == plain:
            assert [token.id for token in found.tokens] == [token.id for token in own.tokens]
            assert (found.text, found.messages, found.remarks) == (own.text, own.messages, own.remarks)
        else:
            assert "taken for control tokens" in found.remarks[0]


def test_messages_are_answered_as_the_text_that_they_make(foreign: Foreign, tokenizer: Tokenizer) -> None:
    """Through chat completions, greedy, in the server's own template."""
    talk = Conversation(
        (TALK.messages[2], Message("user", "What is the capital of France?"))
    )  # nothing in it names a control token
    with closing(connect(foreign.url)) as served:
        chat = for_chat(served.dialect, chat=True, messages=True, continues=False, token_ids=False, tokenizer=False)
        if not served.connection.call(takes_messages(served.connection, chat)):
            pytest.skip("it has no chat completions")
        chat.prefill = served.connection.call(prefill(served.connection, chat))
        assert served.capabilities.dialect == "llama-cpp-python" or chat.prefill is not None
        model = ServedModel(served.connection, chat, ServerTokenizer(served.connection, chat, 0))
        begun = Conversation((*talk.messages, Message("assistant", "The capital of")), continues=True)
        for conversation in (talk, *([] if chat.prefill is None else [begun])):
            text = tokenizer.encode_conversation(conversation).text
            expected = steps_of(list(served.generate([text], [GREEDY])))
            found = steps_of(list(model.generate([Prompt("", conversation).start(model.tokenizer)], [GREEDY])))
            assert text_of(found) == text_of(expected).removesuffix("<|im_end|>") != ""


def test_the_tokens_of_a_character_are_the_models(served: ServedModel, foreign: Foreign, local: LocalModel) -> None:
    if not served.capabilities.token_ids:
        pytest.skip("it sends texts")
    config = replace(GREEDY, strategy="sample", seed=5, max_new_tokens=24)
    events = list(served.generate(["こんにちは、お"], [config]))
    ids = [step.token.id for step in steps_of(events)]
    assert all(id >= 0 for id in ids)
    written = b"".join(map(local.tokenizer.bytes_of, ids)).decode(errors="ignore")
    assert written == text_of(steps_of(events))
    assert len(ids) >= 22  # a character that is not whole at the end does not come


def test_prompts_are_scored(served: ServedModel, local: LocalModel) -> None:
    if not served.capabilities.prompt_scores:
        pytest.skip(f"{served.capabilities.dialect} does not score prompts")
    own = list(local.score(local.tokenizer.encode(OPEN)))
    told = list(served.score(served.tokenizer.encode(OPEN)))
    assert [one.rank for one in told] == [one.rank for one in own]
    assert [one.probability for one in told[1:]] == pytest.approx([one.probability for one in own[1:]], rel=1e-3)


def test_settings_act_as_ours(served: ServedModel, foreign: Foreign, local: LocalModel) -> None:
    for change in ({"repetition_penalty": 1.3}, {"ignore_eos": True}, {"stop": ("10",)}):
        config = replace(GREEDY, **change)  # type: ignore[arg-type]
        if set(change) - served.capabilities.settings:
            continue
        told = list(served.generate([PROMPT], [config]))
        if foreign.name == "vLLM":
            own = list(local.generate([PROMPT], [config]))
            assert text_of(steps_of(told)) == text_of(steps_of(own))
            assert told[-1] == own[-1]
    first = steps_of(list(served.generate([PROMPT], [GREEDY])))[0]
    if first.token.id >= 0 and foreign.name != "llama-cpp-python":
        banned = steps_of(list(served.generate([PROMPT], [replace(GREEDY, banned=(first.token.id,))])))
        assert banned[0].token.id == first.candidates[1].id


def test_its_grammars_are_followed(served: ServedModel, foreign: Foreign) -> None:
    """Those that it was found to follow; each server has some."""
    kinds: dict[str, tuple[dict[str, Any], str]] = {
        "schema": ({"schema": '{"enum": [true, [1, 2]]}'}, r"true|\[\s*1\s*,\s*2\s*\]"),
        "regex": ({"regex": " [ab]{3}"}, " [ab]{3}"),
        "grammar": ({"grammar": 'start: " a" | " bc"'}, " (a|bc)"),
        "choices": ({"choices": (" red", " green")}, " (red|green)"),
    }
    expected = {"vLLM": set(kinds), "llama.cpp": {"schema", "choices"}, "llama-cpp-python": {"choices"}}
    assert set(kinds) & served.capabilities.settings == expected[foreign.name]
    for kind in expected[foreign.name]:
        settings, pattern = kinds[kind]
        config = replace(GREEDY, ignore_eos=False, max_new_tokens=12, **settings)
        written = text_of(steps_of(list(served.generate([PROMPT], [config]))))
        assert re.fullmatch(rf"({pattern})(<\|[a-z_]+\|>)?", written), (kind, written)  # and what ends a text


def test_two_lanes_and_a_branch(served: ServedModel, foreign: Foreign, request: pytest.FixtureRequest) -> None:
    sampled = GenerationConfig(strategy="sample", seed=3, max_new_tokens=8, ignore_eos=True)
    if "ignore_eos" not in served.capabilities.settings:
        sampled = replace(sampled, ignore_eos=False)
    events = list(served.generate([PROMPT], [replace(GREEDY, max_new_tokens=8), sampled]))
    assert [len(steps_of(events, lane)) for lane in (0, 1)] == [8, 8]
    first = steps_of(events)
    other = first[3].candidates[1]
    begun = replace(start(served, PROMPT), written=tuple(step.token.id for step in first[:3]), forced=(other.id,))
    branch = steps_of(list(served.generate([begun], [replace(GREEDY, max_new_tokens=4)])))
    before: str | tuple[int, ...] = (*begun.ids, other.id)
    if not served.capabilities.token_ids:
        before = PROMPT + text_of(first[:3]) + branch[0].token.text
    assert (branch[0].forced, branch[0].token.id) == (True, other.id)
    assert text_of(branch[1:]) == expected(request, foreign, before, 4)


async def test_step_and_cancel(foreign: Foreign) -> None:
    lab = Lab()
    try:
        await load(lab, foreign.url)
        job = lab.generate(PROMPT, [replace(GREEDY, max_new_tokens=900)], paused=True)
        steps = await step_then_cancel(job, cancelled_after=8)
        deadline = time.monotonic() + 3  # what was left to write takes many times as long
        while busy(foreign):
            assert time.monotonic() < deadline, "the server goes on"
            await asyncio.sleep(0.05)
        after = [e async for e in lab.generate(PROMPT, [replace(GREEDY, max_new_tokens=8)]) if isinstance(e, Stepped)]
        assert [step.token.id for step in after] == [step.token.id for step in steps[:8]], "the server is free again"
    finally:
        await lab.close()


def busy(foreign: Foreign) -> bool:
    """Whether the server says that it is writing; llama-cpp-python's does not tell."""

    def get(path: str) -> str:
        with urllib.request.urlopen(foreign.url + path, timeout=5) as answer:
            return str(answer.read().decode())

    if foreign.name == "vLLM":
        running = [line for line in get("/metrics").splitlines() if line.startswith("vllm:num_requests_running")]
        return any(float(line.split()[-1]) for line in running)
    return foreign.name == "llama.cpp" and any(slot["is_processing"] for slot in json.loads(get("/slots")))


def test_it_is_timed(served: ServedModel, foreign: Foreign) -> None:
    sweep = Sweep(PROMPT, (8,), repeats=1, lanes=(1, 3), runners=("server",))
    runs = list(time_server(served, sweep))
    assert [(run.lanes, [len(text) for text in run.texts]) for run in runs] == [(1, [8]), (3, [8] * 3)]


def test_the_lab_in_a_terminal(foreign: Foreign) -> None:
    with Terminal(["--server", foreign.url, "--prompt", PROMPT], 120, 40) as terminal:
        terminal.wait(foreign.name)
        terminal.wait("hidden states")
        terminal.press("F5")
        terminal.wait(both_ended, 120)
        assert "top 20" in terminal.text
        assert "10 11 12" in terminal.text.replace("·", " ")
        terminal.press("F8", "F8", "F8")
        terminal.wait("every lane a request of its own")
        terminal.press("F5")
        terminal.wait("TTFT ms")
        terminal.wait("1 of 20 runs", 120)
        terminal.press("esc")
        terminal.wait("stopped after")
        terminal.press("ctrl+q")
        assert terminal.finish() == 0
