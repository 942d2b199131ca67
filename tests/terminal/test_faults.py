"""Terminals that go away, streams that are closed, signals: the lab ends, with the session saved."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.terminal.terminal import Terminal


def opened(folder, tmp_path) -> Terminal:
    terminal = Terminal(["--model", str(folder), "--prompt", "the sky"], 100, 30, LOGITLAB_STATE_DIR=str(tmp_path))
    terminal.wait("cpu ×")
    terminal.press(" above")
    terminal.wait("the sky above")
    return terminal


def saved(tmp_path) -> list[str]:
    return [json.loads(path.read_text())["prompt"] for path in tmp_path.glob("sessions/*.json")]


def stopped(pid: int) -> bool:
    """Whether the system holds a process: to go on is of no use before that."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("running", [False, True])
def test_a_terminal_that_vanishes_without_a_word_ends_the_lab(tiny_long, tmp_path, running: bool) -> None:
    with opened(tiny_long, tmp_path) as terminal:
        if running:
            terminal.press("F3")
            terminal.wait("max_new_tokens")
            terminal.press("esc", "F5")
            terminal.wait("tokens/s")
        terminal.hang_up()
        assert terminal.process.wait(timeout=30) == 128 + signal.SIGHUP
    assert saved(tmp_path) == ["the sky above"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_lab_and_restore_the_terminal(tiny_llama, tmp_path, number: signal.Signals) -> None:
    with opened(tiny_llama, tmp_path) as terminal:
        before = terminal.attributes
        terminal.process.send_signal(number)
        assert terminal.finish() == 128 + number
        assert terminal.now() == before
        assert terminal.raw.rindex(b"\x1b[?1049l") > terminal.raw.rindex(b"\x1b[?1049h")
    assert saved(tmp_path) == ["the sky above"]


def test_a_lab_that_was_stopped_goes_on(tiny_llama, tmp_path) -> None:
    with opened(tiny_llama, tmp_path) as terminal:
        os.kill(terminal.process.pid, signal.SIGTSTP)
        terminal.wait_for(lambda: terminal.raw.count(b"\x1b[?1049l") == 1)
        terminal.wait_for(lambda: stopped(terminal.process.pid))
        os.kill(terminal.process.pid, signal.SIGCONT)
        terminal.wait_for(lambda: terminal.raw.count(b"\x1b[?1049h") == 2)
        terminal.wait_for(lambda: not terminal.reads_lines())
        terminal.press(" city")
        terminal.wait("the sky above city")
        terminal.press("ctrl+q")
        assert terminal.finish() == 0
    assert saved(tmp_path) == ["the sky above city"]


CRASH = (
    "from tui.panes.lanes import LanePane\n"
    "def broken(self): raise ZeroDivisionError('the secret sky')\n"
    "LanePane.tell = broken\n"
    "from engine.cli import main; main()"
)


def test_a_crash_saves_the_session_names_the_log_and_leaves_the_terminal_whole(tiny_llama, tmp_path) -> None:
    arguments = ["--model", str(tiny_llama), "--prompt", "the sky"]
    with Terminal(arguments, 100, 30, code=CRASH, LOGITLAB_STATE_DIR=str(tmp_path)) as terminal:
        before = terminal.attributes
        assert terminal.finish(60) == 1
        assert terminal.now() == before
        assert "unexpected ZeroDivisionError; your session is saved" in terminal.text
        assert "secret" not in terminal.text
    assert "ZeroDivisionError at <string>:2 broken" in (tmp_path / "logitlab.log").read_text()
    assert "secret" not in (tmp_path / "logitlab.log").read_text()


def test_a_run_that_takes_too_much_memory_ends_with_one_line(tiny_llama, tmp_path) -> None:
    code = (
        "import engine.loop\n"
        'def exhausted(*arguments, **options): raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory")\n'
        "engine.loop._begin = exhausted\n"
        "from engine.cli import main; main()"
    )
    with Terminal(["--model", str(tiny_llama), "--prompt", "the sky"], 100, 30, code=code) as terminal:
        terminal.wait("cpu ×")
        terminal.press("F5")
        terminal.wait("memory ran out")
        terminal.press(" above")
        terminal.wait("the sky above")
        terminal.press("ctrl+q")
        assert terminal.finish() == 0
