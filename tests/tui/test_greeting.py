"""The first start greets, once, and loses nothing."""

from dataclasses import replace

import pytest
from textual.widgets import Static

from engine.base import settings
from engine.models import catalog
from tests.tui.conftest import until
from tui.dialogs.greeting import Greeting
from tui.dialogs.help import Help
from tui.panes.generate import GeneratePane
from tui.panes.prompt import PromptPane


async def greeted(pilot) -> Greeting:
    await until(pilot, lambda: isinstance(pilot.app.screen, Greeting))
    screen = pilot.app.screen
    assert isinstance(screen, Greeting)
    return screen


async def test_it_says_what_this_is_and_which_model_runs(lab) -> None:
    async with lab(first=True, model="smollm2-135m", wait=False) as (app, pilot):
        text = str((await greeted(pilot)).query("Static").first().render())
        assert "one token at a time" in text
        assert "SmolLM2-135M-Instruct · 98 MB · apache-2.0" in text
        assert not settings.load().greeted
        await pilot.press("enter")
        await until(pilot, lambda: settings.load().greeted)
        assert app.focused is app.query_one(PromptPane)


async def test_a_model_that_is_fetched_arrives(lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from tui import app as app_module

    coming = replace(catalog.find("smollm2-135m"), path=None)
    monkeypatch.setattr(app_module.catalog, "find", lambda *_names: coming)
    async with lab(first=True, wait=False) as (app, pilot):
        says = (await greeted(pilot)).query_one("#greeting-says", Static)
        await until(pilot, lambda: app.lab.facts is not None)
        await until(pilot, lambda: "It runs on this machine; nothing you type leaves it." in str(says.render()))


async def test_it_does_not_come_by_itself(lab) -> None:
    async with lab() as (app, _pilot):
        assert not isinstance(app.screen, Greeting)


async def test_what_is_typed_into_it_goes_into_the_prompt(lab) -> None:
    async with lab(first=True, wait=False) as (app, pilot):
        await greeted(pilot)
        await pilot.press(*"! and")
        await until(pilot, lambda: app.query_one(PromptPane).text == "the sky above! and")


@pytest.mark.parametrize("key", ["f5", "ctrl+l", "f1"])
async def test_the_keys_it_names_work(lab, key: str) -> None:
    async with lab(first=True, wait=False) as (app, pilot):
        await greeted(pilot)
        await pilot.press(key)
        await until(pilot, lambda: not isinstance(app.screen, Greeting))
        if key == "f5":
            await until(pilot, lambda: all(lane.reason for lane in app.query_one(GeneratePane).lanes))
        elif key == "ctrl+l":
            await until(pilot, lambda: app.screen.has_class("teaching"))
        else:
            await until(pilot, lambda: isinstance(app.screen, Help))


async def test_the_theme_that_was_chosen_comes_back(lab) -> None:
    async with lab() as (app, pilot):
        app.theme = "logitlab-light"
        await until(pilot, lambda: settings.load().theme == "logitlab-light")
    async with lab() as (app, _pilot):
        assert app.theme == "logitlab-light"


async def test_settings_that_cannot_be_read_are_the_defaults(lab, monkeypatch) -> None:
    from engine.base import paths

    paths.settings().write_text('{"theme": 3')
    assert settings.load() == settings.Preferences()
    paths.settings().write_text('{"theme": "no such theme"}')
    async with lab() as (app, _pilot):
        assert app.theme == "logitlab-dark"


async def test_it_does_not_come_in_front_of_somebody_who_has_begun(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("ctrl+l")
        await until(pilot, lambda: app.screen.has_class("teaching"))
        app._greet()
        assert not isinstance(app.screen, Greeting)
        assert settings.load().greeted
