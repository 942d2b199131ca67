"""Terminals that go away, streams that are closed, signals: the lab ends, with the session saved."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.terminal.terminal import Terminal
from tests.warm import MAIN


def opened(folder, tmp_path, *arguments: str) -> Terminal:
    arguments = ("--model", str(folder), "--prompt", "the sky", *arguments)
    terminal = Terminal(arguments, 100, 30, LOGITLAB_STATE_DIR=str(tmp_path))
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


@pytest.fixture
def endless(tmp_path: Path) -> list[str]:
    """Two lanes that do not end by themselves."""
    (tmp_path / "endless.toml").write_text("max_new_tokens = 60000\nignore_eos = true\n")
    return [f"--{lane}={tmp_path / 'endless.toml'}" for lane in "ab"]


def read_nothing(terminal: Terminal, tmp_path: Path) -> None:
    """Until the lab has noticed."""
    log = tmp_path / "logitlab.log"
    terminal.wait_for(lambda: log.exists() and "takes nothing" in log.read_text(), read=False)


def test_a_terminal_that_takes_nothing_is_not_waited_for(tiny_long, tmp_path, endless) -> None:
    """Keys still work, and all is drawn anew once it takes something again."""
    with opened(tiny_long, tmp_path, *endless) as terminal:
        terminal.press("F5")
        terminal.wait("tokens/s")
        read_nothing(terminal, tmp_path)
        terminal.press(" city")
        terminal.wait("the sky above city")
        terminal.press("esc")
        terminal.wait("stopped")
        terminal.press("ctrl+q")
        assert terminal.finish() == 0
    assert saved(tmp_path) == ["the sky above city"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_lab_whose_terminal_takes_nothing_can_be_ended(tiny_long, tmp_path, endless, number: signal.Signals) -> None:
    with opened(tiny_long, tmp_path, *endless) as terminal:
        terminal.press("F5")
        terminal.wait("tokens/s")
        read_nothing(terminal, tmp_path)
        terminal.process.send_signal(number)
        assert terminal.process.wait(timeout=30) == 128 + number
        assert terminal.reads_lines()
    assert saved(tmp_path) == ["the sky above"]


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


def test_the_lab_can_be_left_in_the_middle_of_an_operator(tiny_llama, tmp_path) -> None:
    code = (
        "import torch\n"
        "from engine.networks.llama import LlamaNetwork\n"
        "from engine.networks.traced import TracedNetwork\n"
        "def endless(self):\n"
        "    open('begun', 'w').close()\n"
        "    while True: torch.mm(torch.ones(1500, 1500), torch.ones(1500, 1500))\n"
        "LlamaNetwork.prepare = TracedNetwork.prepare = endless\n"
        "import os; os.chdir(os.environ['LOGITLAB_STATE_DIR'])\n"
        "from engine.cli import main; main()"
    )
    state = {"LOGITLAB_STATE_DIR": str(tmp_path)}
    with Terminal(["--model", str(tiny_llama), "--prompt", "the sky"], 100, 30, code=code, **state) as terminal:
        before = terminal.attributes
        terminal.wait_for(lambda: (tmp_path / "begun").exists())
        terminal.press("ctrl+q")
        assert terminal.finish() == 0
        assert terminal.now() == before
        assert "abort" not in terminal.text.lower()
        assert "exception" not in terminal.text


def test_a_thread_that_does_not_end_keeps_nobody_waiting(tiny_llama, tmp_path) -> None:
    code = (
        "import threading, time\n"
        "threading.Thread(target=lambda: time.sleep(600)).start()\n"
        "from engine.cli import main; main()"
    )
    arguments = ["--model", str(tiny_llama), "--prompt", "the sky"]
    with Terminal(arguments, 100, 30, code=code, LOGITLAB_STATE_DIR=str(tmp_path)) as terminal:
        terminal.wait("cpu ×")
        terminal.press("ctrl+q")
        assert terminal.finish() == 0


def test_a_run_that_takes_too_much_memory_ends_with_one_line(tiny_llama, tmp_path) -> None:
    code = (
        "import engine.generation.loop\n"
        'def exhausted(*arguments, **options): raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory")\n'
        "engine.generation.loop.begin_cache = exhausted\n"
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


# The command line's streams.


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which `logitlab` is what its users call so."""
    logitlab = f"{sys.executable} -c '{MAIN}'"
    return subprocess.run(
        ["bash", "-c", command.replace("logitlab", logitlab)], capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize(
    "command", ["generate 'the sky' --model TINY --max-new-tokens 3 --json", "tokens 'The sky'", "models list"]
)
def test_output_that_cannot_be_written_is_one_line(tiny_llama, command: str) -> None:
    ended = shell(f"logitlab {command.replace('TINY', str(tiny_llama))} > /dev/full")
    assert ended.returncode == 1
    assert ended.stderr == "logitlab: cannot write: No space left on device; give the output another place\n"


def test_a_reader_that_goes_ends_the_command_quietly(tiny_llama) -> None:
    command = f"logitlab generate 'the sky' --model {tiny_llama} --max-new-tokens 300 --jsonl"
    ended = shell(f"{command} | head -c 10; echo ${{PIPESTATUS[0]}}")
    assert ended.stdout == '{"event": \n141\n'.replace(" \n", " ")
    assert ended.stderr == ""


@pytest.mark.parametrize(("closed", "code"), [("<&-", 0), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0)])
def test_closed_streams_are_no_reason_to_fail(tiny_llama, closed: str, code: int) -> None:
    ended = shell(f"logitlab generate 'the sky' --model {tiny_llama} --max-new-tokens 3 {closed}")
    assert ended.returncode == code
    assert ended.stderr == ""
    assert bool(ended.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.parametrize("streams", ["< /dev/null", "<&-", "> /dev/null", "<&- >&-"])
def test_the_lab_without_a_terminal_is_one_line(streams: str) -> None:
    ended = shell(f"logitlab {streams}")
    assert ended.returncode == 2
    assert ended.stderr.startswith("logitlab: the lab needs a terminal; for scripts use logitlab generate")
    assert ended.stderr.count("\n") == 1


def waiting(pipe: int) -> int:
    """Bytes that nobody has read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)


def test_a_full_pipe_can_be_interrupted(tiny_long, tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAIN, "generate", "the sky", "--model", str(tiny_long), "--jsonl"]
    (tmp_path / "endless.toml").write_text("max_new_tokens = 1000\nignore_eos = true\n")
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [*command, "--config", str(tmp_path / "endless.toml")],
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores it, and so does all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    try:
        deadline = time.monotonic() + 60
        while waiting(ours) < 3000:  # what is left is less than most lines
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    finally:
        process.kill()
        os.close(ours)
    assert process.stderr is not None
    assert process.stderr.read() == ""
