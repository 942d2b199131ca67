"""What a model thinks before it answers is told apart from the answer."""

import pytest

from engine.text.thinking import MARKS, open_mark, parted, thinking_tokens, thoughts


@pytest.mark.parametrize(("begin", "end"), MARKS.items())
def test_thinking_and_answer_are_parted(begin: str, end: str) -> None:
    assert parted(f"{begin}\nfour?\n{end}\n\nFour.") == ("four?", "Four.")
    assert parted(f"four?\n{end}\n\nFour.", opened=begin) == ("four?", "Four.")
    assert parted(f"{begin} still") == ("still", "")
    assert parted("Four, no thoughts. ") == ("", "Four, no thoughts.")


def test_the_answer_of_gpt_oss_is_what_follows_its_channel() -> None:
    text = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Four."
    assert parted(text) == ("hm", "Four.")


def test_several_thoughts_and_one_that_is_open() -> None:
    found = list(thoughts("<think>a</think>b<think>c"))
    assert [(one.inner, one.closed) for one in found] == [("a", True), ("c", False)]
    assert parted("<think>a</think>b<think>c") == ("a\n\nc", "b")


def test_a_prompt_that_begins_thinking_is_known() -> None:
    assert open_mark("user: 2 + 2?\nassistant: <think>\n") == "<think>"
    assert open_mark("<think>\n\n</think>\n\n") is None
    assert open_mark("say <think> twice") is None


def test_the_tokens_of_a_thought() -> None:
    pieces = ["Hm ", "<th", "ink>", "a", "</think>", "b"]
    assert thinking_tokens(pieces) == [range(1, 5)]
    assert thinking_tokens(["a", "</think>", "b"], opened="<think>") == [range(0, 2)]
    assert thinking_tokens(["plain"]) == []
