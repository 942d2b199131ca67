"""Taking home what is on the screen: every form, to a file and to the clipboard."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import duckdb
import pytest
from textual.widgets import Input, OptionList, Static

from engine.base.errors import InputError
from engine.generation.config import PRESETS, GenerationConfig, load_config, save_config
from engine.sessions import session
from tests.tui.conftest import ran, until
from tests.tui.test_app import measure
from tests.tui.test_prompts import opened
from tui.dialogs.config_editor import ConfigEditor
from tui.dialogs.export import ExportDialog
from tui.exports import exportables
from tui.panes.lanes import LanesPane
from tui.panes.variants import VariantsPane


async def with_everything(app, pilot) -> dict[str, dict[str, str]]:
    """A lab in which everything was done; what it exports by file name and form."""
    await ran(app, pilot)
    await opened(app, pilot)
    await pilot.press("f5")
    pane = app.query_one(VariantsPane)
    await until(pilot, lambda: len(pane.results) == 3 and not pane.running and pane.results[0].reason is not None)
    await measure(app, pilot)
    items = exportables(app.workbench, app.lab.tokenizer, app.keeper.gather())
    return {item.file: {form: make() for form, make in item.forms.items()} for item in items}


async def test_everything_on_the_screen_can_be_taken_home(lab, tmp_path: Path) -> None:
    async with lab() as (app, pilot):
        made = await with_everything(app, pilot)
        assert set(made) == {
            *("timing", "runs", "chart-length", "lane-a", "lane-b", "candidates"),
            *("tokens", "lengths", "variants", "session", "screen"),
        }
        for file, forms in made.items():
            for form, text in forms.items():
                if form == "json":
                    assert json.loads(text)
                elif form == "svg":
                    assert ElementTree.fromstring(text).tag.endswith("svg")
                elif form == "md":
                    assert text.startswith("#")
                else:
                    (tmp_path / f"{file}.csv").write_text(text, encoding="utf-8")
        kept = session.from_json(made["session"]["json"])
        assert kept == replace(app.keeper.gather(), saved=kept.saved)
        lane = json.loads(made["lane-a"]["json"])
        assert lane["text"] == "".join(step.token.text for step in app.query_one(LanesPane).lanes[0].steps)

    def types(file: str) -> dict[str, str]:
        path = tmp_path / f"{file}.csv"
        return {name: kind for name, kind, *_ in duckdb.sql(f"describe select * from read_csv('{path}')").fetchall()}

    assert types("lane-a") == {
        "step": "BIGINT",
        "id": "BIGINT",
        "token": "VARCHAR",
        "probability": "DOUBLE",
        "raw_probability": "DOUBLE",
        "rank": "BIGINT",
        "entropy_bits": "DOUBLE",
        "seconds": "DOUBLE",
        "forced": "BOOLEAN",
    }
    assert types("lengths")["tokens_per_word"] == "DOUBLE"
    assert types("timing")["median_seconds"] == "DOUBLE"
    assert types("runs")["at"].startswith("TIMESTAMP")
    assert types("tokens")["special"] == "BOOLEAN"
    assert types("candidates")["raw"] == "DOUBLE"
    assert types("variants")["prompt_tokens"] == "BIGINT"


async def test_a_file_is_written_where_it_can_be(lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with lab() as (app, pilot):
        await ran(app, pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ExportDialog))
        assert app.screen.query_one(OptionList).get_option_at_index(0).prompt.plain.startswith("Lane A")
        field = app.screen.query_one(Input)
        assert field.value == "lane-a.md"
        await pilot.press("f6", "f6")
        assert field.value == "lane-a.csv"
        field.value = str(tmp_path / "missing" / "x.csv")
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert "cannot write" in str(app.screen.query_one("#export-says", Static).render())
        field.value = str(tmp_path / "out.csv")
        await pilot.press("f6")
        assert field.value == str(tmp_path / "out.md")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: not isinstance(app.screen, ExportDialog))
        assert (tmp_path / "out.md").read_text(encoding="utf-8").startswith("## Lane A")
        assert any("Written to" in note.message for note in app._notifications)


async def test_the_clipboard_takes_it_over_the_terminal(lab) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ExportDialog))
        await pilot.press("f5")
        await until(pilot, lambda: not isinstance(app.screen, ExportDialog))
        assert app.clipboard.startswith("## Lane A")


async def test_a_configuration_is_saved_and_opened_from_the_editor(lab, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    async with lab() as (app, pilot):
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, ConfigEditor))
        editor = app.screen
        editor.query_one("#field-temperature", Input).value = "1.7"
        editor.query_one("#field-stop", Input).value = 'END"\\n|x'
        await pilot.press("f6")
        await until(pilot, lambda: app.screen is not editor)
        app.screen.query_one(Input).value = str(tmp_path / "mine.txt")
        await pilot.press("enter")
        assert "does not end in .toml" in str(app.screen.query_one("#file-says", Static).render())
        app.screen.query_one(Input).value = str(file)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is editor)
        saved = load_config(str(file))
        assert (saved.name, saved.temperature, saved.stop) == ("mine", 1.7, ('END"\n', "x"))
        await pilot.press("f1", "f5")
        await until(pilot, lambda: app.screen is not editor)
        app.screen.query_one(Input).value = str(file)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is editor)
        assert editor.config() == saved


@pytest.mark.parametrize(
    "config", [*PRESETS.values(), GenerationConfig(stop=('"\\\x7f\t',), banned=(3,), logit_bias=((1, -2.5),))]
)
def test_every_configuration_reads_back_from_toml(tmp_path: Path, config: GenerationConfig) -> None:
    save_config(config, tmp_path / "c.toml")
    assert load_config(str(tmp_path / "c.toml")) == config
    (tmp_path / "c.toml").write_text("temperature = 0")
    with pytest.raises(InputError, match="temperature"):
        load_config(str(tmp_path / "c.toml"))
