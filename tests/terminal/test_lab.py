"""The whole, as its users have it: a real terminal, real keys, the embedded model."""

import re
import signal
import termios
from collections.abc import Iterator

import pytest

from tests.terminal.terminal import Terminal

LEFT_SCREEN = b"\x1b[?1049l"


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    columns, rows, fresh = getattr(request, "param", (80, 24, False))
    with Terminal(["--model", "smollm2-135m"], columns, rows, fresh=fresh) as terminal:
        yield terminal


# Lanes as they are, but short.
TWELVE = ["--a", "greedy,max_new_tokens=12", "--b", "creative,max_new_tokens=12"]


def lanes_finished(text: str) -> bool:
    return len(re.findall(r"12/12", text)) == 2


@pytest.mark.parametrize("lab", [(80, 24, True), pytest.param((160, 48, False), marks=pytest.mark.long)], indirect=True)
def test_a_session_from_the_first_frame_to_an_intact_terminal(lab: Terminal) -> None:
    lab.wait("Prompt")
    lab.wait("9 tokens")
    lab.press(" then")
    lab.wait("10 tokens")
    lab.wait("cpu ×")

    for key in ("F3", "F4"):  # both lanes twelve tokens long
        lab.press(key)
        lab.wait("Configuration of lane")
        lab.press("tab", "12", "enter")
        lab.wait(lambda text: "Configuration of lane" not in text)
    lab.press("F5")
    lab.wait(lanes_finished)
    assert "· greedy" in lab.text
    assert "contrastive k40" in lab.text

    lab.press("F3")
    lab.wait("Configuration of lane A")
    lab.press("F3", "ctrl+s")
    lab.wait("A · sample")
    lab.press("F5")
    lab.wait(lambda text: re.search(r"\d+/40", text) is not None)
    lab.press("esc")
    lab.wait("stopped")

    lab.press("F8", "F8", "F8")
    lab.wait("Measure")
    lab.press("F5")
    lab.wait(lambda text: re.search(r"\d+ of 20 runs", text) is not None)
    lab.press("esc")
    lab.wait(lambda text: "stopped" in text or "ms a token" in text)

    lab.press("ctrl+q")
    assert lab.finish() == 0
    assert LEFT_SCREEN in lab.raw
    assert termios.tcgetattr(lab._ours)[:4] == lab.attributes[:4]


def test_typing_and_resizing_while_lanes_run(lab: Terminal) -> None:
    lab.wait("cpu ×")
    lab.press("F5")
    lab.wait(lambda text: re.search(r"[1-9]\d*/40", text) is not None)
    lab.press(" and typed")
    lab.wait("and typed")
    lab.resize(120, 36)
    lab.wait(lambda text: "F1 help" in text)
    lab.resize(80, 24)
    lab.press("esc")
    lab.wait(lambda text: "stopped" in text or "reached its length" in text)
    lab.press("ctrl+q")
    assert lab.finish() == 0


def test_a_decision_is_seen_and_changed() -> None:
    with Terminal(["--model", "smollm2-135m", *TWELVE], 120, 36) as lab:
        lab.wait("cpu ×")
        lab.press("F5")
        lab.wait(lanes_finished)
        lab.press("tab", "tab", "left")
        lab.wait("step 12")
        lab.wait("b branch")  # the run has ended, and a token is pointed at
        assert "◀ picked" in lab.text
        lab.press("b")
        lab.wait("Lane A goes on with")
        lab.press(" rain", "enter")
        lab.wait("24/24")
        lab.press("t")
        lab.wait("Branches of lane A")
        lab.press("esc")
        lab.wait(lambda text: "Branches of lane A" not in text)
        lab.press("ctrl+q")
        assert lab.finish() == 0


@pytest.mark.parametrize("lab", [(80, 24, True)], indirect=True)
def test_the_first_frame_does_not_wait_for_the_model(lab: Terminal) -> None:
    text = lab.wait("Prompt")
    assert "cpu ×" not in text
    lab.press("ctrl+q")
    assert lab.finish() == 0


def test_the_terminal_is_whole_after_sigterm(lab: Terminal) -> None:
    lab.wait("Prompt")
    lab.wait("9 tokens")
    lab.process.send_signal(signal.SIGTERM)
    assert lab.finish() == 143
    assert LEFT_SCREEN in lab.raw
    assert termios.tcgetattr(lab._ours)[:4] == lab.attributes[:4]


def test_a_terminal_that_cannot_show_the_lab_is_told_so() -> None:
    with Terminal([], TERM="dumb") as terminal:
        assert terminal.finish() == 2
        assert b"TERM=dumb" in terminal.raw


def test_generate_streams_in_colourless_text_and_compare_side_by_side() -> None:
    command = ["compare", "The sky", "--model", "smollm2-135m", "--a", "greedy", "--b", "sampled"]
    with Terminal(command, 100, 40) as terminal:
        assert terminal.finish(60) == 0
        assert "A · greedy" in terminal.text
        assert "B · sample" in terminal.text


def test_a_session_goes_on_after_the_lab_was_killed(tmp_path) -> None:
    state = {"LOGITLAB_STATE_DIR": str(tmp_path)}
    with Terminal(["--model", "smollm2-135m", *TWELVE], 120, 36, **state) as first:
        first.wait("cpu ×")
        first.press(" today")
        first.press("F5")
        first.wait(lambda text: len(re.findall("reached its length|end of text", text)) == 2)
        written = re.search(r"│([^│]{20})", first.text.split("A · greedy")[1].split("\n", 1)[1])
        assert written is not None
        first.wait_for(lambda: any("today" in path.read_text() for path in tmp_path.glob("sessions/*.json")))
        first.wait_for(
            lambda: any('"reason":"length"' in path.read_text() for path in tmp_path.glob("sessions/*.json"))
        )
        first.process.kill()

    with Terminal([], 120, 36, **state) as second:
        second.wait("calm, but today")
        second.wait(written.group(1).strip())
        second.wait("cpu ×")
        second.press("F8", "F8")
        second.wait("Variants of the prompt")
        second.press("ctrl+s")
        second.wait("Lengths of prompts")
        second.press("esc")
        second.wait(lambda text: "The whole session" not in text)
        second.press("ctrl+q")
        assert second.finish() == 0


def test_what_is_copied_reaches_the_terminal_s_clipboard(lab: Terminal) -> None:
    import base64

    lab.wait("9 tokens")
    lab.press("F8", "ctrl+s")
    lab.wait("Tokens of the prompt")
    lab.press("F5")
    lab.wait("Copied")
    found = re.search(rb"\x1b]52;c;([A-Za-z0-9+/=]+)\x07", lab.raw)
    assert found is not None
    assert base64.b64decode(found.group(1)).decode().startswith("## Tokens of the prompt")
    lab.press("ctrl+q")
    assert lab.finish() == 0
