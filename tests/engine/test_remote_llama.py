"""The lab in front of a server that somebody else wrote: llama-cpp-python's, with the embedded model.

`make test-remote` installs it beside the project and names its Python in `LOGITLAB_LLAMA_PYTHON`; without that, these
tests are skipped.
"""

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine import catalog
from engine.config import GenerationConfig
from engine.events import Event, Failed, Finished, Start, Stepped
from engine.lab import Lab
from tests.conftest import EMBEDDED
from tests.terminal.terminal import Terminal, both_ended

PYTHON = os.environ.get("LOGITLAB_LLAMA_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="llama-cpp-python is not there: make test-remote")
pytest.importorskip("openai")
from engine.remote import ServedModel, connect  # noqa: E402

PROMPT = "The sky above the city"
GREEDY = GenerationConfig(max_new_tokens=16)
IN_PROCESS = """
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=1024, logits_all=True, verbose=False)
settings = {"max_tokens": int(sys.argv[3]), "temperature": 0.0, "repeat_penalty": 1.0}
told = model.create_completion(sys.argv[2], logprobs=20, **settings)
print(json.dumps(told["choices"][0], default=float))
"""


@pytest.fixture(scope="module")
def gguf() -> Path:
    path = catalog.find(EMBEDDED).path
    assert path is not None
    return path


@pytest.fixture(scope="module")
def url(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "llama_cpp.server", "--model", str(gguf), "--model_alias", "smol", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--n_ctx", "1024", "--logits_all", "True", "--interrupt_requests", "False"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def served(url: str) -> Iterator[ServedModel]:
    model = connect(url)
    yield model
    model.close()


def steps_of(events: list[Event], lane: int = 0) -> list[Stepped]:
    return [event for event in events if isinstance(event, Stepped) and event.lane == lane]


def in_process(gguf: Path, prompt: str, tokens: int) -> dict:
    ran = subprocess.run(
        [PYTHON, "-c", IN_PROCESS, str(gguf), prompt, str(tokens)], capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout.splitlines()[-1])


def test_greedy_is_what_llama_cpp_writes_in_process(served: ServedModel, gguf: Path) -> None:
    told = served.capabilities
    assert (told.dialect, told.tokenizer, told.token_ids, told.top) == ("llama-cpp-python", True, False, 20)
    events = list(served.generate([PROMPT], [GREEDY]))
    expected = in_process(gguf, PROMPT, 16)
    steps = steps_of(events)
    assert "".join(step.token.text for step in steps) == expected["text"]
    assert [step.token.text for step in steps] == expected["logprobs"]["tokens"]
    for step, tops in zip(steps, expected["logprobs"]["top_logprobs"]):
        assert len(step.candidates) == len(tops)
        assert step.rank == 1


def test_its_tokenizer_is_the_models(served: ServedModel, tokenizer) -> None:
    for text in (PROMPT, "two\nlines, 1984 – and 😀"):
        assert served.tokenizer.encode_ids(text) == tokenizer.encode_ids(text)


def test_two_lanes_and_a_branch(served: ServedModel, gguf: Path) -> None:
    sampled = GenerationConfig(strategy="sample", seed=3, max_new_tokens=8)
    events = list(served.generate([PROMPT], [replace(GREEDY, max_new_tokens=8), sampled]))
    assert [len(steps_of(events, lane)) for lane in (0, 1)] == [8, 8]
    first = steps_of(events)
    other = first[3].candidates[1]
    start = Start(tuple(served.tokenizer.encode(PROMPT)), tuple(step.token.id for step in first[:3]), (other.id,))
    branch = steps_of(list(served.generate([start], [replace(GREEDY, max_new_tokens=4)])))
    text = PROMPT + "".join(step.token.text for step in first[:3]) + branch[0].token.text
    assert (branch[0].forced, branch[0].token.id) == (True, other.id)
    assert "".join(step.token.text for step in branch[1:]) == in_process(gguf, text, 4)["text"]


async def test_step_and_cancel(url: str) -> None:
    lab = Lab()
    try:
        assert not [event async for event in lab.load(url) if isinstance(event, Failed)]
        job = lab.generate(PROMPT, [replace(GREEDY, max_new_tokens=900)], paused=True)
        job.step()
        steps = []
        async for event in job:
            if isinstance(event, Stepped):
                steps.append(event)
                if len(steps) < 3:
                    job.step()
                elif len(steps) == 3:
                    job.resume()
                elif len(steps) == 8:
                    job.cancel()
            elif isinstance(event, Finished):
                assert event.reason == "cancelled"
        after = [e async for e in lab.generate(PROMPT, [replace(GREEDY, max_new_tokens=8)]) if isinstance(e, Stepped)]
        assert [step.token.id for step in after] == [step.token.id for step in steps[:8]], "the server is free again"
    finally:
        await lab.close()


def test_the_lab_in_a_terminal(url: str) -> None:
    with Terminal(["--server", url, "--prompt", PROMPT], 120, 40) as terminal:
        terminal.wait("llama-cpp-python")
        terminal.wait("hidden states")
        terminal.press("F5")
        terminal.wait(both_ended, 120)
        assert "top 20" in terminal.text
        assert "Eiffel" in terminal.text
        terminal.press("ctrl+q")
        assert terminal.finish() == 0
