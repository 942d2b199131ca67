"""The whole lesson by keyboard in a real terminal, in each language, on a small model."""

import re
from pathlib import Path

import pytest

from engine.base import language
from engine.lessons.lesson import builtin, read_lesson, settings
from tests.terminal.terminal import Terminal

# In packed text.
ANSWERED = re.compile(r"[✓✗]|Noneofthem|どれでもありません")
ENDED = {"en": "reachedits|endoft|grammarc", "ja": "指定の長さ|文章の終|文法が完"}  # narrow lanes show the beginning
LAB = {"en": "Prompt", "ja": "プロンプト"}

# The hint under the variants once they are written; while they run it counts tokens.
VARIANTS_ENDED = {"en": "F5 runs them", "ja": "F5 実行"}


def packed(text: str) -> str:
    """Text as a terminal's cells hold it: the second cell of a wide character is empty."""
    return re.sub(r"\s+", "", text)


# In wide characters, where a line holds least; the others at length.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "ja" else pytest.mark.long) for name in language.languages()]
)
def test_somebody_who_knows_nothing_gets_through_the_lesson(name: str, tiny_llama: Path) -> None:
    lesson = read_lesson(builtin(name))
    assert len(lesson.pages) == 15
    with Terminal(["--lang", name, "--model", str(tiny_llama)], 150, 44, first=True) as terminal:
        terminal.wait("ctrl+l")  # the greeting names the lesson's key
        terminal.press("ctrl+l")
        for number, page in enumerate(lesson.pages):
            terminal.wait(lambda text, page=page: at(page, text) and in_the_lesson(text, name))
            assert page.question is not None
            assert page.live is not None
            terminal.press("enter")
            terminal.wait(lambda text: ANSWERED.search(packed(text)) is not None, 120)
            terminal.press("d")
            terminal.wait(lambda text, page=page: ran(text, page, name), 240)
            assert page.live.look
            terminal.wait(lambda text: not in_the_lesson(text, name))  # the cursor is where the page points
            if number + 1 < len(lesson.pages):
                terminal.press("ctrl+l")
                terminal.wait(lambda text, page=page: in_the_lesson(text, name) or is_closed(page, text))
                if is_closed(page, terminal.text):  # the lanes before had ended too: the cursor was still here
                    terminal.press("ctrl+l")
                    terminal.wait(lambda text: in_the_lesson(text, name))
                terminal.press("n")
        terminal.press("ctrl+q")
        assert terminal.finish() == 0


def ran(text: str, page, name: str) -> bool:
    """Whether the page's live part has run to its end, or has shown what it shows."""
    whole = packed(text)
    match page.live.run:
        case "lanes" if page.live.view == "generate":
            lanes = settings(page.live.a, "greedy"), settings(page.live.b, "creative")
            titled = all(packed(lane.summary)[:14] in whole for lane in lanes)  # not those of the page before
            return titled and len(re.findall(ENDED[name], whole)) == 2
        case "step":
            return f"1/{40}" in whole
        case "variants":
            rows = re.findall(r"(?:plain|mystery|cheerful)1\d{3,4}\D", whole)  # seed 1, then tokens in and out
            return len(rows) == 3 and packed(VARIANTS_ENDED[name]) in whole
        case "timing":
            return whole.count("logitlab") >= 3
    return packed(LAB[name]) in whole


def at(page, text: str) -> bool:
    """Whether the page is there, and not answered yet."""
    return packed(page.title) in packed(text) and ANSWERED.search(packed(text)) is None


def is_closed(page, text: str) -> bool:
    """Whether the page is not to be seen."""
    return packed(page.title) not in packed(text)


def in_the_lesson(text: str, name: str) -> bool:
    """Whether the last line names the lesson's keys, for it has the focus."""
    return packed("d do it" if name == "en" else "dやってみる") in packed(text.splitlines()[-1])
