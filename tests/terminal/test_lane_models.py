"""A lane of its own model, with an amateur and interventions, in a lab that is killed: the session comes back whole."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from engine.generation.config import GenerationConfig
from engine.sessions import store
from engine.sessions.session import Session, SessionLane, from_json
from tests.terminal.terminal import Terminal

GREEDY = GenerationConfig(name="greedy", max_new_tokens=12, ignore_eos=True)


def saved(folder: Path) -> Session | None:
    """The session that is on disk, once both lanes are in it."""
    (path,) = folder.glob("sessions/*.json")
    session = from_json(path.read_text(encoding="utf-8"))
    return session if all(branch.reason == "length" for lane in session.lanes for branch in lane.branches) else None


def texts(session: Session) -> list[set[tuple[int, ...]]]:
    """What each lane has written, all its branches."""
    return [{tuple(step.token.id for step in branch.steps) for branch in lane.branches} for lane in session.lanes]


def test_a_lane_of_its_own_model_comes_back_after_kill_9(
    tmp_path: Path, tiny_llama: Path, tiny_gpt2: Path, tiny_deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGITLAB_STATE_DIR", str(tmp_path))
    own = replace(
        GREEDY,
        name="custom",
        model=str(tiny_deep),
        precision="float32",
        amateur=str(tiny_gpt2),
        interventions=("mlp 3 off",),
    )
    file = store.begin()
    file.save(Session(prompt="the sky above", lanes=(SessionLane(GREEDY), SessionLane(own))))
    file.close()
    model = ["--model", str(tiny_llama), "--precision", "float32"]
    with Terminal(model, 140, 40) as first:
        first.wait("cpu ×")
        first.wait("3 tokens")
        first.press("F5")
        first.wait(lambda text: text.count("reached its length") == 2)
        first.wait_for(lambda: (found := saved(tmp_path)) is not None and all(map(len, texts(found))))
        before = saved(tmp_path)
        first.press("F5")  # it is killed while another run goes on, or has just ended
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
    assert before is not None
    with Terminal(model, 140, 40) as second:
        second.wait("cpu ×")
        second.wait(lambda text: text.count("reached its length") == 2)
        second.press("tab", "B", "\x1b[D")  # the token to the left, in lane B
        second.wait(tiny_deep.name)
        second.wait("amateur")
        second.press("ctrl+q")
        assert second.finish() == 0
    (path,) = tmp_path.glob("sessions/*.json")
    after = from_json(path.read_text(encoding="utf-8"))
    assert [lane.config for lane in after.lanes] == [GREEDY, own]
    for written, kept in zip(texts(before), texts(after), strict=True):
        assert written
        assert written <= kept
