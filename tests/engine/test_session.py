"""Sessions: what is saved reads back, whatever happens while it is saved."""

import inspect
import json
import os
import random
import re
import signal
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import InputError, MachineError
from engine.export.report import report
from engine.generation.branches import BranchTree
from engine.generation.config import PRESETS, GenerationConfig
from engine.generation.events import Stepped
from engine.sessions import session
from engine.sessions import store as sessions
from engine.sessions.session import (
    Session,
    SessionLane,
    SessionModel,
    VariantResult,
    from_json,
    from_trees,
    to_json,
    to_trees,
)
from engine.text.conversation import Conversation, Message
from engine.text.prompts import EXAMPLE_PROMPTS
from engine.text.token import Token
from engine.timing.sweep import RUNNERS, TimedRun
from tests.warm import Warm

ROOT = Path(__file__).parents[2]
MODEL = SessionModel("smollm2-135m", "SmolLM2", "Q4_1", "sha256:00")
CONFIGS = (PRESETS["greedy"], GenerationConfig(stop=("a\n",), logit_bias=((3, -1.5),), banned=(7,)))


def token(position: int, text: str) -> Token:
    return Token(position, len(text), text, text, position, position + 1, f"·{text}")


def step(lane: int, index: int, text: str) -> Stepped:
    return Stepped(lane, index, token(index, text), (), 0.5, 0.25, 2, 1.5, 1.0, 40, 0.125, 0.01, forced=index == 1)


def grown(lane: int, texts: list[str], forks: list[int]) -> BranchTree:
    """A tree of one branch that wrote texts, and others that left it."""
    prompt = (token(0, "the"), token(1, " sky\x1b[31m"))
    tree = BranchTree().begin(prompt, CONFIGS[lane])
    assert tree.shown is not None
    tree = tree.update(replace(tree.shown, steps=tuple(step(lane, i, t) for i, t in enumerate(texts)), reason="length"))
    for fork in forks:
        tree = tree.begin(prompt, CONFIGS[lane], parent=1, fork=min(fork, len(texts)))
        assert tree.shown is not None
        more = (*tree.shown.steps, step(lane, len(tree.shown.steps), "other"))
        tree = tree.update(replace(tree.shown, steps=more, reason="cancelled"))
    return tree


def made(texts: list[str], forks: list[int]) -> Session:
    trees = [grown(lane, texts, forks) for lane in (0, 1)]
    lanes, prompts = from_trees(CONFIGS, trees)
    return Session(saved="2026-01-02T03:04:05+00:00", model=MODEL, prompt="x", lanes=lanes, prompt_tokens=prompts)


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((ROOT / "docs/session.schema.json").read_text(encoding="utf-8")))


@given(st.lists(st.text(max_size=5), max_size=6), st.lists(st.integers(0, 6), max_size=4))
def test_a_session_reads_back_the_same_and_is_as_its_schema_says(texts: list[str], forks: list[int]) -> None:
    before = made(texts, forks)
    text = to_json(before)
    validator().validate(json.loads(text))
    after = from_json(text)
    assert after == before
    assert from_json(to_json(before, indent=2)) == before
    for lane, tree in enumerate(to_trees(after)):
        original = grown(lane, texts, forks)
        assert [branch.ids for branch in tree] == [branch.ids for branch in original]
        assert [branch.steps for branch in tree] == [branch.steps for branch in original]
        assert (tree.current, [branch.prompt for branch in tree]) == (
            original.current,
            [branch.prompt for branch in original],
        )


def test_the_published_schema_is_the_sessions() -> None:
    assert json.loads((ROOT / "docs/session.schema.json").read_text(encoding="utf-8")) == session.schema()
    descriptions = [one["description"] for one in session.schema()["$defs"].values() if "description" in one]
    assert any("\n" in text for text in descriptions)
    assert descriptions == [inspect.cleandoc(text) for text in descriptions], "as every version of Python has them"
    with pytest.raises(jsonschema.ValidationError):
        validator().validate({"version": "one"})


def test_what_many_branches_share_is_written_once() -> None:
    texts = ["word"] * 200
    one, ten = (len(to_json(made(texts, forks))) for forks in ([], [200] * 10))
    assert ten < one * 1.2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no session"),
        ("[]", "no version"),
        ('{"version": 0}', "there is no version 0"),
        ('{"version": 999}', r"newer logitlab \(version 999, this one reads up to"),
        ('{"version": true}', "no session|no version"),
        ("[" * 100_000, "no session"),
        ('{"version": VERSION, "lanes": []}', "two lanes are wanted, and it has 0"),
        ('{"version": VERSION, "prompt": 3}', "Expected `str`"),
    ],
)
def test_what_is_no_session_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        from_json(text.replace("VERSION", str(session.VERSION)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("change", [{"parent": 9}, {"prompt": 5}, {"fork": 4, "parent": 1, "id": 2}, {"id": 7}])
def test_branches_that_contradict_one_another_are_refused(change: dict[str, int]) -> None:
    data = json.loads(to_json(made(["a"], [])))
    branches = data["lanes"][0]["branches"]
    branches[:] = [branches[0], branches[0] | change] if "fork" in change else [branches[0] | change]
    with pytest.raises(InputError):
        from_json(json.dumps(data))


def test_a_configuration_out_of_range_is_refused() -> None:
    data = json.loads(to_json(Session()))
    data["lanes"][0]["config"]["temperature"] = 0
    with pytest.raises(InputError, match="temperature"):
        from_json(json.dumps(data))


def test_sessions_are_listed_found_and_removed() -> None:
    first, second = sessions.begin(), sessions.begin()
    assert first.name != second.name
    first.save(made(["a"], []))
    second.save(replace(made(["b"], []), prompt="two"))
    os.utime(first.path, (1, 1))
    assert sessions.newest() == second.path
    assert [(one.name, one.prompt) for one in sessions.listed()] == [(second.name, "two"), (first.name, "x")]
    assert first.path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="open in another lab"):
        sessions.remove(first.name)
    first.close()
    sessions.remove(first.name)
    assert [path.name for path in second.path.parent.iterdir() if "lock" not in path.name] == [second.path.name]
    with pytest.raises(InputError, match="no session"):
        sessions.find(first.name)
    (second.path.parent / "odd.json").write_bytes(b"\xff")
    assert any("not UTF-8" in one.problem for one in sessions.listed())


def test_a_session_is_held_by_one_lab_at_a_time() -> None:
    held = sessions.begin()
    held.save(Session())
    with pytest.raises(InputError, match="open in another lab"):
        sessions.SessionFile(held.path)
    held.close()
    sessions.SessionFile(held.path).close()


def test_a_folder_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOGITLAB_STATE_DIR", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="cannot be saved"):
        sessions.begin()
    assert sessions.listed() == []
    assert sessions.newest() is None


SAVER = """
import sys
from dataclasses import replace
from pathlib import Path
from engine.sessions import session, store as sessions
held = sessions.SessionFile(Path(sys.argv[1]))
opened = session.read(held.path)
count = int(opened.saved or 0)
print("ready", flush=True)
while True:
    count += 1
    held.save(replace(opened, saved=str(count)))
    print(count, flush=True)
"""


def test_fifty_kills_while_saving_lose_nothing(warm: Warm, tmp_path: Path) -> None:
    path = tmp_path / "killed.json"
    held = sessions.SessionFile(path)
    held.save(replace(made(["word"] * 300, [3, 5]), saved="0"))
    held.close()
    random.seed(7)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for _ in range(50):
        ours, theirs = os.pipe()
        process = warm.start([str(path)], (nothing, theirs, theirs), os.environ, code=SAVER)
        os.close(theirs)
        with open(ours, encoding="utf-8") as lines:
            assert lines.readline() == "ready\n"
            for _ in range(random.randrange(1, 6)):
                told = int(lines.readline())
            process.kill()
            assert process.wait(20) == -signal.SIGKILL
        opened = session.read(path)
        assert int(opened.saved) >= told
        assert [len(tree.branches) for tree in to_trees(opened)] == [3, 3]
    os.close(nothing)
    sessions.SessionFile(path).close()


def test_a_session_of_the_first_version_is_brought_up_to_date() -> None:
    opened = session.read(Path(__file__).with_name("session_v1.json"))
    expected = made(["the", " sky\n", "日"], [1, 2])
    assert opened == replace(expected, version=session.VERSION)
    assert opened.prompts == EXAMPLE_PROMPTS
    assert from_json(to_json(opened)) == opened


def test_measurements_and_results_of_variants_read_back() -> None:
    from tests.engine.test_timing import measured

    runs = [TimedRun(2, 0.5, 0.1, (0.2, 0.2)), TimedRun(2, 1.5, 0.0, (0.7, 0.8), "without cache")]
    runs.append(TimedRun(2, 0.4, 0.1, (0.2, 0.1), "lookup", in_groups=True))
    steps = tuple(session.saved_step(step(0, index, "a")) for index in range(3))
    result = VariantResult("plain", "the sky", 2, CONFIGS[1], steps, "length")
    full = replace(made(["a"], []), results=(result,), measurements=(measured(runs),), prompts=("x\ny",), view="timing")
    assert from_json(to_json(full)) == full
    validator().validate(json.loads(to_json(full)))
    assert full.results[0].text == "aaa"


def test_version_2_told_one_number_of_lanes_of_a_measurement() -> None:
    from tests.engine.test_timing import measured

    runs = [TimedRun(2, 0.5, 0.1, (0.2, 0.2), lanes=3)]
    expected = replace(made(["a"], []), measurements=(measured(runs, lanes=(3,)),))
    document = json.loads(to_json(expected)) | {"version": 2}
    (measurement,) = document["measurements"]
    measurement["sweep"]["lanes"] = 3
    del measurement["runs"][0]["lanes"], measurement["runs"][0]["others"]
    assert from_json(json.dumps(document)) == replace(expected, version=session.VERSION)


def full_session() -> Session:
    """A session with something of everything."""
    from tests.engine.test_timing import measured

    runs = [
        TimedRun(n, 0.5 * n * (1 + repeat / 9), 0.1, (0.1,) * n if by != "transformers" else (), by)
        for repeat in range(2)
        for n in (4, 9)
        for by in RUNNERS
    ]
    steps = tuple(session.saved_step(step(0, index, "a|`b")) for index in range(3))
    result = VariantResult("pl|ain", "the <b>sky", 2, CONFIGS[1], steps, "length")
    made_of = made(["a", "\x1b[31m```"], [1])
    return replace(
        made_of, prompt="# the <sky>\x1b[2J", results=(result,), measurements=(measured(runs), measured(runs))
    )


def test_a_report_tells_everything_and_no_text_can_break_it(tokenizer) -> None:
    text = report(full_session(), tokenizer)
    assert "\x1b" not in text
    assert "<b>" not in text.replace("the <b>sky\n", "")  # but in a fence
    for part in ("## Prompt", "## Lane A: greedy", "2 branches", "Lengths of prompts", "## Variants", "## Timing"):
        assert part in text
    assert text.count("times as fast") >= 2
    assert any("⠀" < char <= "⣿" for char in text)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert tables
    for line in tables:
        assert line.count("|") - line.count("\\|") >= 6


def test_a_report_beside_its_pictures(run_cli, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(to_json(full_session()), encoding="utf-8")
    out = tmp_path / "my report.md"
    process = run_cli("report", str(tmp_path / "s.json"), "--md", "--out", str(out))
    assert process.returncode == 0, process.stderr
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", out.read_text(encoding="utf-8"))
    assert len(pictures) == 2 * 4 + 1
    for picture in pictures:
        assert ElementTree.parse(tmp_path / unquote(picture)).getroot().tag.endswith("svg")
    assert run_cli("report", str(tmp_path / "s.json"), "--md").stdout.startswith("# Lab report")
    process = run_cli("report", str(tmp_path / "s.json"), "--out", str(tmp_path / "none" / "x.md"))
    assert process.returncode == 1
    assert "there is no folder" in process.stderr


def test_a_session_that_cannot_be_opened_is_not_held() -> None:
    held = sessions.begin()
    held.save(Session())
    held.close()
    held.path.write_text('{"version": 999}')
    with pytest.raises(InputError, match="newer logitlab"):
        sessions.open_listed(held.path)
    sessions.SessionFile(held.path).close()


def test_lanes_of_version_3_have_the_labs_model() -> None:
    document = json.loads(to_json(Session(lanes=(SessionLane(PRESETS["greedy"]), SessionLane(PRESETS["sampled"])))))
    for lane in document["lanes"]:
        del lane["config"]["model"], lane["config"]["precision"]
    opened = from_json(json.dumps(document | {"version": 3}))
    assert [(lane.config.model, lane.config.precision) for lane in opened.lanes] == [(None, None)] * 2


def test_version_4_had_one_message_of_a_conversation_at_most() -> None:
    document = json.loads(to_json(made(["a"], []))) | {"version": 4}
    del document["threads"], document["prompt_alone"]
    assert from_json(json.dumps(document | {"chat": True})).threads == (Conversation.of("x"),)
    assert from_json(json.dumps(document | {"chat": False})) == made(["a"], [])


def test_a_conversation_reads_back_and_is_reported_message_by_message() -> None:
    call = {"tool_calls": [{"type": "function", "function": {"name": "look", "arguments": "{}"}}]}
    messages = (
        Message("system", "Be brief."),
        Message("user", "Hi ``` there"),
        Message("assistant", "", extra=call),
        Message("assistant", "Hello", special=True, thinking="a greeting"),
    )
    threads = (Conversation(messages, {"enable_thinking": True}), Conversation(messages[:2]))
    full = replace(made(["a"], []), threads=threads)
    assert from_json(to_json(full)) == full
    validator().validate(json.loads(to_json(full)))
    text = report(full)
    parts = ("Conversation of lane A", "Be brief.", "Hi ``` there", "look", "a greeting")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "### 4 · assistant" in text
    assert "enable_thinking" in text
    for wrong, words in (((Conversation(()),), "no message"), ((Conversation((Message("king", "x"),)),), "'king'")):
        with pytest.raises(InputError, match=words):
            from_json(to_json(replace(full, threads=wrong)))


def test_a_lanes_model_is_kept_with_what_it_wrote() -> None:
    """What the lane names now may be another one than wrote the branch."""
    wrote, writes = (GenerationConfig(model=name, precision="float32") for name in ("gpt2", "lab/other"))
    tree = BranchTree().begin((), wrote)
    lanes, prompts = from_trees([PRESETS["greedy"], writes], [BranchTree(), tree])
    opened = from_json(to_json(Session(lanes=lanes, prompt_tokens=prompts)))
    assert opened.lanes[1].config == writes
    assert [branch.config for branch in to_trees(opened)[1]] == [wrote]
