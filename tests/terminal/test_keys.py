"""Keys that come together, as over a slow line, in a real terminal."""

import pytest

from tests.terminal.terminal import KEYS, Terminal, both_ended


@pytest.mark.parametrize("key", ["enter", "tab"])
def test_a_run_asked_for_together_with_the_end_of_the_greeting_begins(tiny_llama, key: str) -> None:
    arguments = ["--model", str(tiny_llama), "--prompt", "the sky above"]
    with Terminal(arguments, 100, 30, first=True) as terminal:
        terminal.wait("Welcome to logitlab")
        terminal.press(KEYS[key] + KEYS["F5"])  # one write, and so one read
        terminal.wait(both_ended)
        terminal.press(KEYS["F1"] + "q" + " then" + KEYS["F2"] + "gpt")
        terminal.wait(lambda text: "gpt" in text and "Model" in text)
        terminal.press("ctrl+q")
        assert terminal.finish() == 0


def test_the_keys_of_places_arrive_as_terminals_send_them(tiny_llama) -> None:
    with Terminal(["--model", str(tiny_llama), "--prompt", "the sky above"], 120, 36) as terminal:
        terminal.wait("F1 help")
        terminal.press("\x1bB")  # alt+B: alt+b is what many terminals send to move by a word
        terminal.wait("? keys")
        terminal.press("R")
        terminal.wait(both_ended)
        terminal.press("?")
        terminal.wait("Keys · esc closes")
        terminal.press("?")
        terminal.wait(lambda text: "Keys · esc closes" not in text)
        terminal.press("P")
        terminal.wait("F1 help")
        terminal.press("esc")
        terminal.wait("? keys")
        terminal.press("Q")
        assert terminal.finish() == 0
