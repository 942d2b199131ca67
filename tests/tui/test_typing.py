"""What a terminal delivers as text goes in, and columns stay straight whatever it is."""

import re

import pytest
from textual.events import Key
from textual.keys import _character_to_key
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from engine.text.token import Token, visible
from tests.terminal.terminal import Terminal
from tests.tui.conftest import until
from tui.dialogs.model_picker import ModelPicker
from tui.panes.prompt import PromptPane
from tui.terminal.straight import straight
from tui.widgets.token_flow import TokenFlow

# An ideographic space, Persian with a non-joiner, a family, a no-break space, a new line of no terminal, private use.
TYPED = "日\u3000本 می\u200cخواهم 👩\u200d👩\u200d👧 a\u00a0b \u2009 \ue0b0 \u00ad ✈\ufe0f"


async def deliver(pilot: Pilot[None], text: str) -> None:
    """Send the keys that Textual makes of what a terminal delivers, which are more than those that `press` knows."""
    driver = pilot.app._driver
    assert driver is not None
    for char in text:
        driver.send_message(Key(char if char.isalnum() else _character_to_key(char), char))


async def test_the_prompt_takes_every_character_that_is_typed(lab) -> None:
    async with lab(prompt="", wait=False) as (app, pilot):
        await until(pilot, lambda: app.lab.tokenizer is not None)
        app.query_one(PromptPane).focus()
        await deliver(pilot, TYPED)
        await until(pilot, lambda: app.query_one(PromptPane).text == TYPED)
        await deliver(pilot, "\x01\x1b\x9b")
        await deliver(pilot, "!")
        await until(pilot, lambda: app.query_one(PromptPane).text.endswith("!"))
        assert app.query_one(PromptPane).text == f"{TYPED}!"


async def test_fields_take_every_character_that_is_typed(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, ModelPicker))
        field = app.screen.query_one(Input)
        field.focus()
        field.value = ""
        await deliver(pilot, TYPED)
        await until(pilot, lambda: field.value == TYPED)


async def test_no_key_that_steers_is_typed(lab) -> None:
    async with lab(prompt="", wait=False) as (app, pilot):
        await until(pilot, lambda: app.lab.tokenizer is not None)
        area = app.query_one(PromptPane)
        area.focus()
        for name in ("tab", "f8", "up", "pageup", "home"):
            await pilot.press(name)
            area.focus()
        assert isinstance(area, TextArea)
        assert area.text == ""


def cells_of(terminal: Terminal, row: int) -> list[str]:
    return [terminal.screen.buffer[row][column].data for column in range(terminal.screen.columns)]


def test_borders_are_straight_in_a_terminal_that_draws_every_character_for_itself(tiny_llama) -> None:
    with Terminal(["--model", str(tiny_llama), "--prompt", "the sky"], 100, 30) as terminal:
        terminal.wait("cpu ×")
        terminal.press(" " + TYPED, " 👍🏽 🇯🇵 zz")
        terminal.wait("zz")
        terminal.wait(lambda text: "⟨" in text)
        row = next(row for row in range(30) if "the sky" in terminal.line(row))
        line = cells_of(terminal, row)
        assert (line[0], line[99]) == ("┃", "┃")  # heavy, for it has the focus
        assert "👩" in line
        shown = "".join(line)
        for part in ("日\u3000本", "می", "a\u00a0b", "🇯 zz"):  # the flag's other half is written over
            assert part in shown.replace("\u200c", ""), part
        for below in range(row, 29):
            line = cells_of(terminal, below)
            if line[0] in ("│", "┃"):
                assert line[99] == line[0], terminal.text


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ("\x1b[1;1Hplain 日本", "\x1b[1;1Hplain 日本"),
        ("\x1b[2;5Ha👩\u200d👧b", "\x1b[2;5Ha\x1b[6G  \x1b[6G👩\u200d👧\x1b[8Gb"),
        ("\x1b[1;1H✈\ufe0f\x1b[1m!", "\x1b[1;1H\x1b[1G  \x1b[1G✈\ufe0f\x1b[3G\x1b[1m!"),
        ("\x1b[1;1H日👍🏽", "\x1b[1;1H日\x1b[3G  \x1b[3G👍🏽\x1b[5G"),
        ("\x1b[1;1H🇯🇵🇯🇵", "\x1b[1;1H\x1b[1G  \x1b[1G🇯🇵\x1b[3G\x1b[3G  \x1b[3G🇯🇵\x1b[5G"),
        ("👩\u200d👧 where is this", "👩\u200d👧 where is this"),
        ("\x1b[1;1H\r\n👩\u200d👧", "\x1b[1;1H\r\n👩\u200d👧"),
        ("\x1b[1;1Hक\u094d\u200dष|", "\x1b[1;1Hक\u094d\u200dष|"),
    ],
)
def test_what_joins_is_followed_by_its_place(drawn: str, expected: str) -> None:
    assert straight(drawn) == expected


def test_letters_after_a_joiner_have_room_in_a_lane() -> None:
    flow = TokenFlow()
    flow._width = 20
    text = "क\u094d\u200dष x"
    flow.tokens.append(Token(0, 0, text, text, 0, 0, visible(text.encode())))
    flow._place(0)
    assert (flow._used, "".join(part for part, _index in flow._lines[0])) == (4, text)
    assert re.search("\u200d$", flow._lines[0][0][0])
