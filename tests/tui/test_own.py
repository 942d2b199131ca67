"""The settings that a model brings, in the lanes and in their editor."""

import json
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input, Static

from engine.generation.config import OWN, PRESETS, GenerationConfig, config_from_dict
from tests.conftest import save_tiny
from tests.tui.conftest import until
from tui.dialogs.config_editor import ConfigEditor


def model_with(folder: Path, **settings: Any) -> str:
    save_tiny(folder, "llama")
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.fixture
def sampling(tmp_path: Path) -> str:
    return model_with(tmp_path / "sampling", do_sample=True, temperature=0.6, top_k=20, repetition_penalty=1.1)


def said(app: Any) -> str:
    return " ".join(note.message for note in app._notifications)


async def edit(app: Any, pilot: Any) -> ConfigEditor:
    await pilot.press("f4")
    await until(pilot, lambda: isinstance(app.screen, ConfigEditor))
    return app.screen


async def test_a_key_of_the_editor_takes_the_models_own_settings(lab, sampling: str) -> None:
    async with lab(model=sampling) as (app, pilot):
        screen = await edit(app, pilot)
        await pilot.press("f4")
        await until(pilot, lambda: screen.query_one("#field-temperature", Input).value == "0.6")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.workbench.generate.configs[1].name == OWN)
        expected = GenerationConfig(name=OWN, strategy="sample", temperature=0.6, top_k=20, repetition_penalty=1.1)
        assert app.workbench.generate.configs[1] == expected


async def test_where_a_model_brings_none_the_editor_says_so_and_keeps_what_is_there(lab) -> None:
    async with lab() as (app, pilot):
        screen = await edit(app, pilot)
        before = screen.config()
        await pilot.press("f4")
        says = screen.query_one("#editor-says", Static)
        await until(pilot, lambda: "brings no settings of its own" in str(says.render()))
        assert screen.config() == before


async def test_what_other_lanes_leave_out_is_said_once(lab, sampling: str) -> None:
    async with lab(model=sampling, configs=(PRESETS["greedy"], PRESETS["greedy"])) as (app, pilot):
        await until(pilot, lambda: "repetition_penalty 1.1, which greedy leaves out" in said(app))
        assert said(app).count("which greedy leaves out") == 1


async def test_lanes_of_own_settings_follow_the_model(lab, sampling: str, tmp_path: Path) -> None:
    asked = config_from_dict({"top_k": 5}, GenerationConfig(name=OWN))
    other = model_with(tmp_path / "other", do_sample=True, temperature=0.3, top_p=0.8)
    without = str(save_tiny(tmp_path / "without", "llama"))
    (Path(without) / "generation_config.json").unlink(missing_ok=True)
    async with lab(model=sampling, configs=(asked, GenerationConfig(name=OWN))) as (app, pilot):
        generate = app.workbench.generate
        found = [(c.temperature, c.top_k, c.repetition_penalty) for c in generate.configs]
        assert found == [(0.6, 5, 1.1), (0.6, 20, 1.1)]
        app.loader.load(other)
        await until(pilot, lambda: generate.configs[1].temperature == 0.3)
        assert [(c.top_k, c.top_p, c.repetition_penalty) for c in generate.configs] == [(5, 0.8, 1.0), (50, 0.8, 1.0)]
        app.loader.load(without)
        await until(pilot, lambda: generate.configs[0].name == "greedy" and generate.configs[1].name == "sampled")
        assert "Lane B is set to sampled: without brings no settings of its own" in said(app)
