"""With `--json` nothing but JSON is on standard output, and an error is one line on stderr and nothing else."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from engine.cli import app
from tests.engine.chat_templates import chatting
from tests.warm import Warm

PROMPT = "the sky above"
SHORT = ("--max-new-tokens", "2")
BENCH = ("--lengths", "2", "--repeats", "1", "--warmup", "0", "--prompt", PROMPT)
TINY = ("--model", "TINY", "--precision", "float32")  # what stands in capitals are files of the fixture below
NO_MODEL = ("--model", "no such model!")
STEER = ("--layer", "2", "--toward", "PROMPTS", "--away", "PROMPTS", "--out")
NOT_HERE = ("--model", "lab/nothing", "--offline")

# Of each command with --json: what it does well, and what it cannot do with the exit code of that.
WELL = {
    "": ("--version",),
    "tokens": (PROMPT, *TINY),
    "template": ("--model", "CHAT"),
    "generate": (PROMPT, *SHORT, *TINY),
    "compare": (PROMPT, *SHORT, *TINY, "--b", "greedy", "--draft", "TINY", "--draft-tokens", "3"),
    "variants": (PROMPT, *SHORT, *TINY, "--strategy", "beam", "--beams", "2", "--config", "greedy"),
    "next": (PROMPT, *TINY),
    "score": (PROMPT, *TINY),
    "diff": (PROMPT, "--a", "TINY", "--b", "TINY", "--precision", "float32"),
    "lens": (PROMPT, "--track", "a", *TINY),
    "attention": (PROMPT, "--layer", "1", "--head", "3", *TINY),
    "attribute": (PROMPT, "--token", "a", "--against", "b", "--layer", "0", *TINY),
    "occlude": (PROMPT, *TINY),
    "patch": (PROMPT, "the sky looked", "--token", "a", "--against", "b", *TINY),
    "steer make": (*STEER, "FOLDER/direction.gguf", *TINY),
    "lengths": (PROMPT, *TINY),
    "keys": (),
    "lesson": ("check", "LESSON"),
    "doctor": (),
    "models list": (),
    "sessions list": (),
    "sessions show": ("SESSION",),
    "bench": (*BENCH, *TINY),
    "bench compare": ("MEASUREMENT", "MEASUREMENT"),
}
BADLY: dict[str, list[tuple[tuple[str, ...], int]]] = {
    "": [((), 2), (("--threads", "x"), 2)],
    "tokens": [((PROMPT, *NO_MODEL), 2), ((PROMPT, *NOT_HERE), 1), ((PROMPT, "--chat", *TINY), 2)],
    "template": [((*TINY,), 2), (("--model", "CHAT", "--name", "rag"), 2), ((*NOT_HERE,), 1)],
    "generate": [
        (("", *TINY), 2),
        (TINY, 2),
        (("--messages", "BINARY", "--model", "CHAT"), 2),
        ((PROMPT, "--write-messages", "MISSING/messages.json", "--chat", "--model", "CHAT"), 1),
        ((PROMPT, *NO_MODEL), 2),
        ((PROMPT, *NOT_HERE), 1),
        ((PROMPT, "--temperature", "0"), 2),
        ((PROMPT, "--config", "none.toml"), 2),
        ((PROMPT, "--draft", "lookup", "--draft-ngram", "0"), 2),
        ((PROMPT, "--strategy", "beam", "--beams", "0"), 2),
        ((PROMPT, "--draft", "http://127.0.0.1:9", *TINY), 2),
        ((PROMPT, "--max-new-tokens", "100000", *TINY), 2),
        ((PROMPT, "--server", "http://127.0.0.1:9"), 1),
    ],
    "compare": [
        (("", *TINY), 2),
        ((PROMPT, *NO_MODEL), 2),
        ((PROMPT, *NOT_HERE), 1),
        ((PROMPT, "--a", "wild"), 2),
        ((PROMPT, "--b", "sampled,seed=x"), 2),
        ((PROMPT, "--draft", "lookup"), 2),
    ],
    "variants": [
        (("", *TINY), 2),
        ((PROMPT, *NO_MODEL), 2),
        ((PROMPT, *NOT_HERE), 1),
        ((PROMPT, "--top-k", "0"), 2),
        ((PROMPT, "--template", "x", *TINY), 2),
    ],
    "next": [(("", *TINY), 2), ((PROMPT, *NO_MODEL), 2), ((PROMPT, *NOT_HERE), 1), ((PROMPT, "--top", "0"), 2)],
    "score": [(("", *TINY), 2), ((PROMPT, *NO_MODEL), 2), ((PROMPT, *NOT_HERE), 1), (("BINARY", *TINY), 2)],
    "diff": [
        (("", "--a", "TINY", "--b", "TINY"), 2),
        ((PROMPT, "--a", "TINY"), 2),
        ((PROMPT, "--a", "TINY", "--b", "lab/nothing", "--offline"), 1),
        (("BINARY", "--a", "TINY", "--b", "TINY"), 2),
        ((PROMPT, "--a", "TINY", "--b", "TINY", "--csv", "MISSING/rows.csv"), 1),
        ((PROMPT, "--a", "TINY", "--b", "TINY", *TINY), 2),
    ],
    "lens": [
        (("", *TINY), 2),
        ((PROMPT, *NO_MODEL), 2),
        ((PROMPT, *NOT_HERE), 1),
        ((PROMPT, "--top", "0"), 2),
        ((PROMPT, "--at", "99", *TINY), 2),
        ((PROMPT, "--track", "the sky", *TINY), 2),
        ((PROMPT, "--svg", "MISSING/lens.svg", *TINY), 1),
        ((PROMPT, "--server", "http://127.0.0.1:9"), 2),
    ],
    "attention": [
        (("", *TINY), 2),
        ((PROMPT, *NO_MODEL), 2),
        ((PROMPT, "--layer", "9", *TINY), 2),
        ((PROMPT, "--layer", "0", "--head", "9", *TINY), 2),
        ((PROMPT, "--head", "0", *TINY), 2),
        ((PROMPT, "--rollout", "--by-value", *TINY), 2),
        ((PROMPT, "--mean", "--rollout"), 2),
        ((PROMPT, "--csv", "MISSING/row.csv", *TINY), 1),
        ((PROMPT, "--server", "http://127.0.0.1:9"), 2),
    ],
    "attribute": [
        (("", *TINY), 2),
        ((PROMPT, *NOT_HERE), 1),
        ((PROMPT, "--layer", "9", *TINY), 2),
        ((PROMPT, "--token", "", *TINY), 2),
        ((PROMPT, "--token", "a", "--against", "a", *TINY), 2),
        ((PROMPT, "--server", "http://127.0.0.1:9"), 2),
    ],
    "occlude": [
        (("", *TINY), 2),
        (("a", *TINY), 2),
        ((PROMPT, *NOT_HERE), 1),
        ((PROMPT, "--token", "the sky", *TINY), 2),
        ((PROMPT, "--server", "http://127.0.0.1:9"), 1),
    ],
    "patch": [
        (("", PROMPT, *TINY), 2),
        ((PROMPT, *TINY), 2),
        ((PROMPT, "the", *TINY), 2),
        ((PROMPT, PROMPT, "--token", "a", "--against", "a", *TINY), 2),
        ((PROMPT, PROMPT, *NOT_HERE), 1),
        ((PROMPT, PROMPT, "--svg", "MISSING/map.svg", *TINY), 1),
        ((PROMPT, PROMPT, "--server", "http://127.0.0.1:9"), 2),
    ],
    "steer make": [
        ((*STEER, "MISSING/direction.gguf", *TINY), 1),
        (("--layer", "9", *STEER[2:], "FOLDER/none.gguf", *TINY), 2),
        (("--layer", "2", "--toward", "BINARY", *STEER[4:], "FOLDER/none.gguf", *TINY), 2),
        (("--layer", "2", "--toward", "MISSING", *STEER[4:], "FOLDER/none.gguf", *TINY), 2),
        ((*STEER, "FOLDER/none.gguf", *NOT_HERE), 1),
    ],
    "lengths": [((PROMPT, *NO_MODEL), 2), ((PROMPT, *NOT_HERE), 1), (("BINARY", *TINY), 2)],
    "lesson": [(("check", "MISSING"), 2), (("check", "BINARY"), 2), (("check",), 2), ((), 2)],
    "doctor": [(("--threads", "x"), 2)],
    "keys": [(("--check", "MISSING"), 2)],
    "models list": [(("--threads", "x"), 2)],
    "sessions list": [(("x",), 2)],
    "sessions show": [(("MISSING",), 2), (("BINARY",), 2), ((), 2)],
    "bench": [
        ((*BENCH, "--prompt", "", *TINY), 2),
        ((*BENCH, *NO_MODEL), 2),
        ((*BENCH, *NOT_HERE), 1),
        (("--lengths", "x"), 2),
        ((*BENCH, "--csv", "MISSING/runs.csv", *TINY), 1),
    ],
    "bench compare": [(("MISSING", "MISSING"), 2), (("BINARY", "LESSON"), 2), (("MEASUREMENT",), 2)],
}


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    yield " ".join(path), command
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, (*path, name))


WITH_JSON = sorted(
    path
    for path, command in commands(typer.main.get_command(app))
    if any("--json" in parameter.opts for parameter in command.params)
)


@pytest.fixture(scope="module")
def files(warm: Warm, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files that stand in capitals above, by those names."""
    from engine.lessons.lesson import LESSONS
    from engine.sessions import session

    folder = tmp_path_factory.mktemp("files")
    (folder / "prompts.txt").write_text(f"{PROMPT}\n{PROMPT} city\n", encoding="utf-8")
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    (folder / "session.json").write_text(session.to_json(session.Session(prompt=PROMPT)), encoding="utf-8")
    measurement = folder / "measurement.json"
    options = ("bench", *BENCH, "--save", str(measurement), "--model", str(tiny_llama))
    environment = os.environ | {"LOGITLAB_STATE_DIR": str(folder / "state")}
    warm.run(options, b"", environment, seconds=120).check_returncode()
    return {
        "TINY": str(tiny_llama),
        "CHAT": str(chatting(tiny_llama, folder / "chat")),
        "LESSON": str(LESSONS / "en" / "lesson.md"),
        "BINARY": str(folder / "binary"),
        "MISSING": str(folder / "missing"),
        "FOLDER": str(folder),
        "PROMPTS": str(folder / "prompts.txt"),
        "SESSION": str(folder / "session.json"),
        "MEASUREMENT": str(measurement),
    }


def filled(arguments: tuple[str, ...], files: dict[str, str]) -> list[str]:
    names = [argument.partition("/")[0] for argument in arguments]
    return [files.get(name, name) + argument.removeprefix(name) for name, argument in zip(names, arguments)]


def only_json(text: str) -> object:
    """What a JSON text says; NaN and Infinity, which Python reads, are none."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_every_command_with_json_is_tested_here() -> None:
    assert sorted(WELL) == sorted(BADLY) == WITH_JSON


@pytest.mark.parametrize("command", WITH_JSON)
def test_nothing_but_json_is_on_standard_output(run_cli, files, command: str) -> None:
    process = run_cli(*command.split(), *filled(WELL[command], files), "--json")
    assert process.returncode == 0, process.stderr
    assert only_json(process.stdout) is not None
    assert process.stderr == ""


@pytest.mark.parametrize(
    ("command", "arguments", "code"),
    [
        *((command, arguments, code) for command, cases in BADLY.items() for arguments, code in cases),
        *((command, ("--nonsense",), 2) for command in WITH_JSON),
    ],
)
def test_an_error_is_one_line_and_nothing_is_on_standard_output(
    run_cli, files, tmp_path, command: str, arguments: tuple[str, ...], code: int
) -> None:
    refused(run_cli(*command.split(), *filled(arguments, files), "--json", HF_HOME=str(tmp_path)), code)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--json", "models", "list"), "--json stands before models; put it behind"),
        (("--model", "TINY", "tokens", PROMPT, "--json"), "--model stands before tokens; put it behind"),
        (("bench", "--lengths", "2", "compare", "x", "x", "--json"), "--lengths stands before compare; put it behind"),
        (("generate", "--json", PROMPT, "--top-k", "0"), "top_k is 0"),
    ],
)
def test_no_option_before_a_command_is_passed_over(run_cli, files, arguments: tuple[str, ...], words: str) -> None:
    process = run_cli(*filled(arguments, files))
    refused(process, 2)
    assert words in process.stderr


def test_the_server_of_the_environment_is_no_option_before_a_command(run_cli) -> None:
    process = run_cli("models", "list", "--json", LOGITLAB_SERVER="http://127.0.0.1:9")
    assert process.returncode == 0, process.stderr
    assert only_json(process.stdout)


def refused(process, code: int) -> None:
    assert process.returncode == code, process.stderr
    assert process.stdout == ""
    assert process.stderr.startswith("logitlab: ")
    assert process.stderr.count("\n") == 1


CHATTER = """
import os, sys, warnings
from engine.cli import output
from engine.cli import main, options
def talkative(call):
    def talk(*arguments, **named):
        print("a print")
        os.write(1, b"a library in C\\n")
        sys.stdout.write("without an end of line")
        warnings.warn("a warning")
        os.system("echo a program")
        return call(*arguments, **named)
    return talk
options.Options._load = talkative(options.Options._load)
options.Options.fetched = talkative(options.Options.fetched)
output.event_dict = talkative(output.event_dict)
output.export.to_json = talkative(output.export.to_json)
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", PROMPT, *SHORT, "--json", *TINY),
        ("generate", PROMPT, *SHORT, "--jsonl", *TINY),
        ("tokens", PROMPT, "--json", *TINY),
        ("models", "list", "--json"),
        ("--version", "--json"),
    ],
)
def test_what_libraries_print_goes_to_stderr(run_cli, files, arguments: tuple[str, ...]) -> None:
    process = run_cli(*filled(arguments, files), code=CHATTER)
    assert process.returncode == 0, process.stderr
    texts = process.stdout.splitlines() if "--jsonl" in arguments else [process.stdout]
    assert all(only_json(text) is not None for text in texts)
    for words in ("a print", "a library in C", "without an end of line", "a warning", "a program"):
        assert words in process.stderr


def test_json_is_utf_8_whatever_the_terminal_writes(run_cli) -> None:
    process = run_cli("tokens", "語 🌍", "--json", PYTHONIOENCODING="latin-1")
    assert process.returncode == 0, process.stderr
    assert "".join(token["text"] for token in json.loads(process.stdout)) == "語 🌍"
