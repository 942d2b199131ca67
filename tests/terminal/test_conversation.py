"""A conversation of twenty turns in a real terminal, by keys alone, with the embedded model."""

import pytest

from engine.base import language
from engine.sessions import session
from engine.sessions import store as sessions
from engine.sessions.session import Session
from tests.terminal.terminal import Terminal

TURNS = 20
SHORT = ["--a", "greedy,max_new_tokens=3,ignore_eos=true", "--b", "greedy,max_new_tokens=3,ignore_eos=true"]


def saved() -> Session:
    path = sessions.newest()
    return Session() if path is None else session.read(path)


def reasons(opened: Session) -> list[str | None]:
    """Why each branch ended; one that is still written would be cancelled."""
    return [branch.reason for lane in opened.lanes for branch in lane.branches]


@pytest.mark.long
@pytest.mark.parametrize("spoken", language.languages())
def test_twenty_turns_and_the_session_of_them_opens_whole(spoken: str) -> None:
    arguments = ["--model", "smollm2-135m", "--lang", spoken]
    with Terminal([*arguments, "--prompt", "1", *SHORT], 80, 24) as lab:
        lab.wait("cpu ×")
        lab.press("ctrl+t")
        lab.wait("<|im_start|>")
        for turn in range(1, TURNS + 1):
            lab.press(str(turn) if turn > 1 else "", "F5")
            lab.wait_for(lambda turn=turn: reasons(saved()) == ["length"] * 2 * turn)
            lab.press("esc")
            lab.wait("┏━ A")  # at once, esc and enter would be one key
            lab.press("enter")
            lab.wait(f"▸{2 * turn + 1} user")
        lab.wait_for(lambda: sum(len(thread.messages) for thread in saved().threads) == 2 * TURNS + 1)
        lab.press("ctrl+q")
        assert lab.finish() == 0
    (thread,) = saved().threads
    assert [message.role for message in thread.messages] == ["user", "assistant"] * TURNS + ["user"]
    assert [message.content for message in thread.messages[:-1:2]] == [str(turn) for turn in range(1, TURNS + 1)]
    assert all(message.content for message in thread.messages[1::2])
    with Terminal(arguments, 80, 24) as lab:
        lab.wait(f"▸{2 * TURNS + 1} user")
        lab.wait("<|im_start|>")
        lab.press("ctrl+q")
        assert lab.finish() == 0
    assert saved().threads == (thread,)
