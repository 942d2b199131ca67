"""Keys arrive in their order, whatever is opening or closing."""

import asyncio
import unicodedata
from pathlib import Path

import pytest
from textual.events import Key, Paste
from textual.keys import REPLACED_KEYS, _character_to_key, _get_unicode_name_from_key
from textual.widgets import Input

from tests.tui.conftest import at_rest, until
from tests.tui.test_generate import said
from tui.app import LogitlabApp
from tui.dialogs.export import ExportDialog
from tui.dialogs.greeting import Greeting
from tui.dialogs.help import Help
from tui.dialogs.model_picker import ModelPicker
from tui.panes.generate import GeneratePane
from tui.panes.prompt import PromptPane


def event(key: str) -> Key:
    """As Textual's drivers make them of what is typed."""
    name = _character_to_key(key) if len(key) == 1 and not key.isalnum() else key
    try:
        character: str | None = unicodedata.lookup(_get_unicode_name_from_key(REPLACED_KEYS.get(name, name)))
    except KeyError:
        character = key if len(key) == 1 else None
    return Key(name, character)


def burst(app: LogitlabApp, *keys: str) -> None:
    """All keys at once, as a terminal gives them that was not read for a while."""
    for key in keys:
        app._driver.send_message(event(key))


def ran(app: LogitlabApp) -> bool:
    return all(lane.reason for lane in app.query_one(GeneratePane).lanes) and at_rest(app)


@pytest.mark.parametrize("key", ["enter", "escape", "tab", "f5", "x"])
async def test_a_run_asked_for_in_the_instant_the_greeting_goes_begins(lab, key: str) -> None:
    async with lab(first=True, wait=False) as (app, pilot):
        await until(pilot, lambda: isinstance(app.screen, Greeting))
        burst(app, key, "f5")
        await until(pilot, lambda: ran(app))
        assert app.query_one(PromptPane).text == "the sky above" + ("x" if key == "x" else "")


async def test_what_is_typed_while_the_greeting_goes_is_all_in_the_prompt(lab) -> None:
    async with lab(first=True, wait=False) as (app, pilot):
        await until(pilot, lambda: isinstance(app.screen, Greeting))
        burst(app, *" and below", "enter", *"rain")
        app._driver.send_message(Paste(" again"))
        burst(app, "!")
        await until(pilot, lambda: app.query_one(PromptPane).text == "the sky above and below\nrain again!")


@pytest.mark.parametrize("opens", ["f1", "f2", "f3", "ctrl+s", "ctrl+o", "ctrl+p"])
async def test_every_dialog_can_be_opened_and_left_and_typed_after_at_once(lab, opens: str) -> None:
    async with lab() as (app, pilot):
        burst(app, *"ab", opens, "escape", *"cd", opens, "escape", "e", "f5")
        await until(pilot, lambda: ran(app))
        assert app.query_one(PromptPane).text == "the sky above" + "abcde"
        assert len(app.screen_stack) == 1
        assert app.query_one(GeneratePane).trees[0].shown.reason != "cancelled"


@pytest.mark.parametrize("opens", ["b", "t", "m"])
async def test_so_can_the_lanes_dialogs(lab, opens: str) -> None:
    async with lab() as (app, pilot):
        burst(app, "f5")
        await until(pilot, lambda: ran(app))
        burst(app, "tab", "tab", "home", "right", opens, "escape", "right", opens, "escape", "right", "c")
        pane = app.query_one(GeneratePane)
        await until(pilot, lambda: pane.mode == "probability")
        assert pane.lanes[0].cursor == 3
        assert len(app.screen_stack) == 1


async def test_what_is_typed_while_a_dialog_opens_is_in_its_field(lab) -> None:
    async with lab() as (app, pilot):
        burst(app, "f2", *"gpt2")
        await until(pilot, lambda: isinstance(app.screen, ModelPicker) and bool(app.screen.query(Input)))
        await until(pilot, lambda: app.screen.query_one(Input).value == "gpt2")
        burst(app, "escape", "x")
        await until(pilot, lambda: app.query_one(PromptPane).text == "the sky abovex")


async def test_a_key_after_the_one_that_closes_a_dialog_is_not_the_dialogs(lab, tmp_path: Path, monkeypatch) -> None:
    """F5 would copy in the export dialog, and run in the lab."""
    monkeypatch.chdir(tmp_path)
    async with lab() as (app, pilot):
        burst(app, "ctrl+s", "enter", "f5", "f1", "f1", "f1")
        await until(pilot, lambda: ran(app) and isinstance(app.screen, Help))
        assert not isinstance(app.screen, ExportDialog)
        assert "Written to" in said(app)
        assert "Copied" not in said(app)
        assert len(list(tmp_path.iterdir())) == 1


async def test_settings_are_taken_before_the_run_that_was_asked_for_next(lab) -> None:
    async with lab() as (app, pilot):
        burst(app, "f4", "f2", "ctrl+s", "f5")
        await until(pilot, lambda: ran(app))
        assert app.query_one(GeneratePane).lanes[1].config.name == "creative"


async def test_what_is_pressed_after_the_key_that_leaves_is_for_nobody(lab) -> None:
    async with lab() as (app, pilot):
        burst(app, "f1", "escape", "ctrl+q", "a", "f1", "f5")
        await until(pilot, lambda: app._exit)
        assert app.query_one(PromptPane).text == "the sky above"


async def test_keys_keep_their_order_while_the_screen_has_much_to_do(lab) -> None:
    """Every turn of the event loop is slow, and each key may find the one before under way."""
    async with lab() as (app, pilot):
        busy = True

        async def load() -> None:
            while busy:
                sum(range(100_000))
                await asyncio.sleep(0)

        loads = [asyncio.create_task(load()) for _ in range(3)]
        expected = "the sky above"
        try:
            for number in range(2):
                burst(app, "f1", "enter", str(number), "f2", "z", "escape", "f3", "escape", "y")
                expected += f"{number}y"
                await asyncio.sleep(0)
            burst(app, "f5")
            await until(pilot, lambda: ran(app), 120)
        finally:
            busy = False
            await asyncio.gather(*loads)
        assert app.query_one(PromptPane).text == expected
