"""Conversations on the command line: what comes in, what is refused, what goes out."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.loading import load_model
from tests.engine.chat_templates import OPTIONS, STRICT, THINKING, chatting
from tests.model_server import TEMPLATE, serve

TURNS = [
    {"role": "system", "content": "the city"},
    {"role": "user", "content": "the sky"},
    {"role": "assistant", "content": "rain"},
    {"role": "user", "content": "asked"},
]
SHORT = ("--max-new-tokens", "6", "--ignore-eos")


@pytest.fixture(scope="module")
def models(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of models with templates, by name."""
    folder = tmp_path_factory.mktemp("chat")
    made = {"thinking": THINKING, "options": OPTIONS, "strict": STRICT}
    return {name: str(chatting(tiny_llama, folder / name, template)) for name, template in made.items()}


@pytest.fixture
def chat(models: dict[str, str]) -> tuple[str, ...]:
    return ("--model", models["thinking"], "--precision", "float32")


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    path = tmp_path / "messages.json"
    path.write_text(json.dumps(TURNS))
    return path


def parsed(process: Any) -> Any:
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return json.loads(process.stdout)


def refused(process: Any, words: str, code: int = 2) -> None:
    assert process.returncode == code, process.stderr
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1
    assert words in process.stderr


def test_a_conversation_is_gone_on_with_and_goes_out_again(run_cli, chat, messages, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text('{"messages": []}')  # a last line without its end
    options = ("--messages", str(messages), *SHORT, "--write-messages", str(out), "--json", *chat)
    data = parsed(run_cli("generate", *options))
    assert data["prompt"]["messages"] == TURNS
    tokens = data["prompt"]["tokens"]
    assert "".join(token["text"] for token in tokens) == data["prompt"]["rendered"]
    for place, turn in enumerate(TURNS):
        own = "".join(token["text"] for token in tokens if token["message"] == place)
        assert turn["content"] in own
    assert tokens[-1]["message"] is None
    message = data["lanes"][0]["message"]
    assert message["role"] == "assistant"
    # The template's prompt ends with <think>, which nothing ended.
    assert message["reasoning_content"] == data["lanes"][0]["text"].strip()
    _before, line = out.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["messages"] == [*TURNS, message]


def test_the_answer_is_the_same_from_a_line_of_standard_input(run_cli, chat, messages, tmp_path: Path) -> None:
    from_file = parsed(run_cli("generate", "--messages", str(messages), *SHORT, "--json", *chat))
    line = json.dumps({"messages": TURNS, "chat_template_kwargs": {"enable_thinking": True}})
    options = ("--messages", "-", "--write-messages", str(tmp_path / "out.json"), *SHORT, "--json", *chat)
    from_line = parsed(run_cli("generate", *options, stdin=line.encode()))
    assert from_line["lanes"][0]["text"] == from_file["lanes"][0]["text"]
    assert from_line["prompt"]["chat_options"] == {"enable_thinking": True}
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert written["chat_template_kwargs"] == {"enable_thinking": True}
    assert len(written["messages"]) == 5


def test_the_prompt_is_one_more_message_and_a_system_text_takes_the_place_of_another(run_cli, chat, messages) -> None:
    options = ("--messages", str(messages), "--system", "the robot", "--json", *chat)
    data = parsed(run_cli("next", "the library", *options))
    shown = [(one["role"], one["content"]) for one in data["prompt"]["messages"]]
    assert shown == [
        ("system", "the robot"),
        *((one["role"], one["content"]) for one in TURNS[1:]),
        ("user", "the library"),
    ]
    assert data["prompt"]["text"] == "the library"
    alone = parsed(run_cli("tokens", "the sky", "--system", "the robot", "--json", *chat))
    assert {token["message"] for token in alone} == {0, 1, None}
    assert parsed(run_cli("tokens", "the sky", "--json", *chat))[0].keys().isdisjoint({"message"})


def test_each_lane_has_the_template_of_its_own_model(run_cli, models, messages) -> None:
    messages.write_text(json.dumps([*TURNS[:2], TURNS[2] | {"reasoning_content": "above"}, TURNS[3]]))
    lanes = [f"greedy,model={models[name]},precision=float32,max_new_tokens=2" for name in ("thinking", "options")]
    process = run_cli("compare", "--messages", str(messages), "--a", lanes[0], "--b", lanes[1], "--json")
    data = json.loads(process.stdout)
    assert {token["message"] for token in data["lanes"][1]["prompt_tokens"]} >= {0, 1, 2, 3}
    assert "leaves out the thinking of message 3" in process.stderr


def test_an_answer_is_continued_where_that_is_asked_for(run_cli, chat, messages, tmp_path: Path) -> None:
    messages.write_text(json.dumps(TURNS[1:3]))
    refused(run_cli("generate", "--messages", str(messages), *chat), "--continue goes on with it")
    out = tmp_path / "out.json"
    options = ("--continue", "--write-messages", str(out), *SHORT, "--json", *chat)
    data = parsed(run_cli("generate", "--messages", str(messages), *options))
    assert data["prompt"]["rendered"].endswith("rain")
    assert json.loads(out.read_text())[-1]["content"] == "rain" + data["lanes"][0]["text"]
    prefilled = parsed(run_cli("generate", "the sky", "--prefill", "rain", *SHORT, "--json", *chat))
    assert prefilled["prompt"]["messages"][-1] == {"role": "assistant", "content": "rain"}
    assert prefilled["prompt"]["rendered"].endswith("rain")
    refused(run_cli("generate", "the sky", "--continue", *chat), "only an assistant's message can be continued")
    refused(run_cli("generate", "--messages", str(messages), "--prefill", "a", *chat), "leave --prefill out")


def test_typed_control_tokens_are_letters_unless_asked_for(run_cli, chat) -> None:
    letters, token = (
        run_cli("tokens", "the <|end|> sky", *more, "--json", *chat) for more in (["--chat"], ["--special"])
    )
    assert "taken as letters" in letters.stderr
    assert "taken for control tokens" in token.stderr
    own = [[one["special"] for one in json.loads(each.stdout) if one["message"] == 0] for each in (letters, token)]
    assert [any(one) for one in own] == [False, True]


def test_two_beginnings_of_a_text_are_said(run_cli) -> None:
    once, twice = (run_cli("tokens", text, "--model", "smollm2-135m") for text in ("<|im_start|>a", "<|im_start|>" * 2))
    assert once.stderr == ""
    assert "the text begins with <|im_start|> twice" in twice.stderr


def test_options_of_the_template(run_cli, models, tmp_path: Path) -> None:
    model = ("--model", models["options"])
    listed = parsed(run_cli("template", "--json", *model))
    assert [one["name"] for one in listed["variables"]][:4] == ["date_string", "style", "depth", "words"]
    assert listed["source"] == OPTIONS
    assert "formal, short, long" in run_cli("template", *model).stdout
    assert run_cli("template", "--source", *model).stdout == OPTIONS + "\n"
    words = tmp_path / "words.json"
    words.write_text('["a", "b"]')
    typed = ("date_string=soon", "style=short", "depth=7", "loud=true", "today=2026-01-31", f"words={words}")
    options = [part for one in typed for part in ("--chat-option", one)]
    tokens = parsed(run_cli("tokens", "the sky", *options, "--json", *model))
    assert "".join(token["text"] for token in tokens) == "soon 31 Jan 2026short7ab!the sky"
    for wrong, words_ in (
        ("nothing=1", "reads no variable nothing; it reads: date_string, style"),
        ("loud", "allowed: NAME=VALUE"),
        ("words=none.json", "words takes JSON, or a file of JSON"),
    ):
        refused(run_cli("tokens", "the sky", "--chat-option", wrong, *model), words_)


def test_each_message_is_scored(run_cli, chat, messages) -> None:
    messages.write_text(json.dumps(TURNS[1:3]))
    data = parsed(run_cli("score", "--messages", str(messages), "--json", *chat))
    assert [(one["message"], one["role"]) for one in data["messages"]] == [(0, "user"), (1, "assistant")]
    bits = [one["surprisal_bits"] for one in data["tokens"] if one["message"] == 1]
    assert data["answers"]["bits"] == pytest.approx(sum(bits))
    assert data["answers"]["perplexity"] == pytest.approx(2 ** (sum(bits) / len(bits)))
    # No other answer begins behind the one that is scored.
    assert not "".join(one["text"] for one in data["tokens"]).rstrip("⏎").endswith("assistant")
    assert "answers alone" in run_cli("score", "--messages", str(messages), *chat).stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "there is no message"),
        (b"[]", "there is no message"),
        (b"nonsense", "no JSON"),
        (b'{"prompt": "a"}', "these are no messages"),
        (b'[{"role": "robot", "content": "a"}]', "the role 'robot'; allowed: system"),
        (b'[{"role": "user"}]', "message 1 has no content"),
        (b'[{"role": "user", "content": [{"type": "image_url"}]}]', "only texts can be shown"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a\0b", "binary file"),
        (b'{"messages": [{"role": "user", "content": "a"}]}\n' * 2, "holds 2 conversations"),
        (b'{"messages": [{"role": "user", "content": "a"}]}\n{', "line 2 is no JSON"),
    ],
)
def test_other_files_are_one_sentence(run_cli, chat, tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "messages.json"
    path.write_bytes(content)
    refused(run_cli("generate", "--messages", str(path), *chat), words)


def test_what_else_is_one_sentence(run_cli, chat, models, messages) -> None:
    refused(run_cli("generate", *chat), "PROMPT is missing")
    refused(run_cli("next", "--system", "a", *chat), "TEXT is missing")
    refused(run_cli("generate", "", "--messages", str(messages), *chat), "prompt is empty")
    refused(run_cli("generate", "-", "--messages", "-", *chat), "not both")
    refused(run_cli("generate", "a", "--write-messages", "out.json", *chat), "is for conversations")
    refused(run_cli("generate", "--messages", "none.json", *chat), "cannot read none.json")
    refused(run_cli("--messages", "none.json"), "cannot read none.json")
    refused(run_cli("--messages", str(messages), "--prompt", "the sky"), "the lab needs a terminal")
    strict = ("--model", models["strict"])
    refused(run_cli("generate", "--messages", str(messages), *strict), "takes no system message here")


@pytest.mark.parametrize("turns", [9_999, 1])
def test_what_does_not_fit_names_the_message(run_cli, chat, messages, turns: int) -> None:
    content = "the sky" if turns > 1 else "the sky " * 130_000
    roles = ("user", "assistant")
    messages.write_text(json.dumps([{"role": roles[place % 2], "content": content} for place in range(turns)]))
    refused(run_cli("generate", "--messages", str(messages), *chat), "goes over the model's context")


def test_a_batch_of_prompts_goes_in_the_template_and_lines_of_messages_are_jobs(run_cli, chat, tmp_path: Path) -> None:
    jobs, out = tmp_path / "jobs.jsonl", tmp_path / "out.jsonl"
    lines = [{"prompt": "the sky"}, {"messages": TURNS}]
    jobs.write_text("\n".join(map(json.dumps, lines)))
    options = ("--system", "the robot", "--chat-option", "enable_thinking=false", "--config", "greedy,max_new_tokens=2")
    process = run_cli("batch", str(jobs), "--out", str(out), *options, *chat)
    assert process.returncode == 0, process.stderr
    found = {one["id"]: one for one in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
    system = {"role": "system", "content": "the robot"}
    assert found["1"]["messages"] == [system, {"role": "user", "content": "the sky"}]
    assert found["2"]["messages"] == [system, *TURNS[1:]]
    assert found["2"]["chat_options"] == {"enable_thinking": False}


def test_variants_under_system_messages(run_cli, chat, tiny_llama: Path) -> None:
    options = ("--system", "the city", "--system", "the robot", "--max-new-tokens", "2", "--config", "greedy")
    data = parsed(run_cli("variants", "the sky", *options, "--json", *chat))
    assert [one["system"] for one in data["variants"]] == ["the city", "the robot"]
    alone = parsed(run_cli("generate", "the sky", "--system", "the robot", *options[4:], "--json", *chat))
    assert data["variants"][1]["text"] == alone["lanes"][0]["text"]
    assert data["variants"][1]["prompt_tokens"] == len(alone["prompt"]["tokens"])
    assert "system: the robot" in run_cli("variants", "the sky", *options, *chat).stdout
    refused(run_cli("variants", "the sky", *options, "--model", str(tiny_llama)), "no chat template")
    refused(run_cli("variants", "the sky", "--system", " ", *chat), "--system is empty")


@pytest.mark.parametrize(("dialect", "template"), [("llama.cpp", TEMPLATE), ("vllm", None)])
def test_in_front_of_a_server(
    run_cli, tiny_llama, messages, tmp_path: Path, dialect: str, template: str | None
) -> None:
    pytest.importorskip("openai")
    local = load_model(str(tiny_llama), precision="float32", threads=1)
    out = tmp_path / "out.json"
    with serve(local, dialect) as server:  # type: ignore[arg-type]
        if template is not None:
            server.template = template
        own = ("--server", server.url)
        process = run_cli("template", *own)
        assert "loud" in process.stdout if template else "does not say what its template reads" in process.stderr
        options = ("--messages", str(messages), "--write-messages", str(out), *SHORT, "--json", *own)
        process = run_cli("generate", *options)
        assert process.returncode == 0, process.stderr
        data = json.loads(process.stdout)
        assert {token["message"] for token in data["prompt"]["tokens"]} >= {1, 2, 3}
        assert json.loads(out.read_text(encoding="utf-8")) == [*TURNS, data["lanes"][0]["message"]]
        scored = run_cli("score", "--messages", str(messages), "--json", *own)
        if dialect == "vllm":
            found = json.loads(scored.stdout)
            assert found["answers"]["tokens"] == sum(token["message"] == 2 for token in found["tokens"])
        jobs, results = tmp_path / "jobs.jsonl", tmp_path / "results.jsonl"
        jobs.write_text(json.dumps({"messages": TURNS, "config": {"max_new_tokens": 6, "ignore_eos": True}}))
        assert run_cli("batch", str(jobs), "--out", str(results), *own).returncode == 0
        assert json.loads(results.read_text(encoding="utf-8"))["message"] == data["lanes"][0]["message"]
