"""Every pane by keyboard, through Pilot."""

import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual.widgets import Button, Checkbox, DataTable, Input, Static, TabbedContent

from engine.base.errors import InputError
from engine.generation.config import PRESETS, GenerationConfig
from engine.generation.loop import generate
from engine.generation.result import RunResult
from engine.loading import load_model
from tests.conftest import EMBEDDED, save_tiny
from tests.hub import Hub, serve
from tests.tui.conftest import SHORT, until
from tui.dialogs.config_editor import ConfigEditor
from tui.dialogs.help import Help
from tui.dialogs.model_picker import ModelPicker
from tui.panes.generate import GeneratePane
from tui.panes.lanes import LanesPane
from tui.panes.loop_diagram import LoopDiagram
from tui.panes.prompt import PromptPane
from tui.panes.status import StatusLine
from tui.panes.timing import TimingPane
from tui.panes.tokens import TokensPane, TokenTable
from tui.widgets.chart_view import ChartView
from tui.widgets.token_flow import TokenFlow

ENDLESS = (GenerationConfig(max_new_tokens=60_000, ignore_eos=True),) * 2


def lanes_of(app) -> tuple:
    return app.query_one(LanesPane).lanes


def edited(app) -> GenerationConfig:
    """Lane B's configuration."""
    return app.query_one(GeneratePane).configs[1]


def finished(app) -> bool:
    return all(lane.reason for lane in lanes_of(app))


async def test_both_lanes_show_exactly_what_the_engine_generates(lab, tiny_llama: Path) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f5")
        await until(pilot, lambda: finished(app))
        model = load_model(str(tiny_llama), precision="float32")
        result = RunResult()
        for event in generate(model.network, model.tokenizer, ["the sky above"], SHORT):
            result.add(event)
        for lane, expected in zip(lanes_of(app), result.lanes):
            flow = lane.query_one(TokenFlow)
            assert [token.id for token in flow.tokens] == [step.token.id for step in expected.steps]
            assert "12/12" in str(lane.border_subtitle)
            assert "reached its length" in str(lane.border_subtitle)
        await until(pilot, lambda: list(app.query_one(StatusLine).rates) == ["A", "B"])
        assert all(rate > 0 for rate in app.query_one(StatusLine).rates.values())
        await until(pilot, lambda: app.query_one(LoopDiagram).stage == "")


async def test_typing_changes_tokens_table_and_gauge(lab) -> None:
    async with lab() as (app, pilot):
        before = len(app.workbench.prompt_area.tokens)
        await pilot.press(*" rain")
        await until(pilot, lambda: len(app.workbench.prompt_area.tokens) > before)
        assert app.query_one(PromptPane).text == "the sky above rain"
        assert "".join(token.text for token in app.query_one("#breakdown", TokenFlow).tokens) == "the sky above rain"
        await pilot.press("f8")
        await until(pilot, lambda: app.query_one(TokenTable).row_count == len(app.workbench.prompt_area.tokens))
        await pilot.press(*" city")
        await until(pilot, lambda: app.query_one(TokenTable).row_count == len(app.workbench.prompt_area.tokens))
        assert app.query_one(PromptPane).text == "the sky above rain city"
        await pilot.press(*["backspace"] * 5)
        pane = app.query_one(TokensPane)
        assert f"{len(app.workbench.prompt_area.tokens)} tokens · 18 characters" in str(pane.border_title)
        assert "of 512" in str(pane.border_subtitle)


async def test_the_token_cursor_is_shared_both_ways(lab) -> None:
    async with lab() as (app, pilot):
        breakdown = app.query_one("#breakdown", TokenFlow)
        breakdown.focus()
        await pilot.press("right", "right")
        assert breakdown.cursor == 1
        token = app.workbench.prompt_area.tokens[1]
        assert f"id {token.id}" in str(app.query_one("#token-detail", Static).render())
        assert app.query_one(TokenTable).cursor_row == 1

        await pilot.press("f8")
        app.query_one(TokenTable).focus()
        await pilot.press("down")
        await until(pilot, lambda: breakdown.cursor == 2)
        await pilot.press("up", "up")
        await until(pilot, lambda: breakdown.cursor == 0)


async def test_step_pause_and_stop(lab, tiny_long: Path) -> None:
    async with lab(model=str(tiny_long), configs=ENDLESS) as (app, pilot):
        for count in (1, 2, 3):
            await pilot.press("f6")
            await until(pilot, lambda count=count: all(len(lane.steps) == count for lane in lanes_of(app)))
        await pilot.press("f7")
        await until(pilot, lambda: len(lanes_of(app)[0].steps) > 5)
        await pilot.press("f7")
        assert app.query_one(GeneratePane).job.paused
        await pilot.press("escape")
        await until(pilot, lambda: finished(app))
        assert [lane.reason for lane in lanes_of(app)] == ["cancelled", "cancelled"]
        assert lanes_of(app)[0].steps


async def test_a_new_run_replaces_the_one_that_runs(lab, tiny_long: Path) -> None:
    async with lab(model=str(tiny_long), configs=ENDLESS) as (app, pilot):
        await pilot.press("f9", "f5")
        await until(pilot, lambda: len(lanes_of(app)[0].steps) > 3)
        for lane, config in enumerate(SHORT):
            app.query_one(GeneratePane).configure(lane, config)
        await pilot.press("f5")
        await until(pilot, lambda: finished(app) and len(lanes_of(app)[0].steps) == 12)
        assert [step.index for step in lanes_of(app)[0].steps] == list(range(12))


async def test_an_empty_prompt_says_so_and_nothing_runs(lab) -> None:
    async with lab(prompt="", wait=False) as (app, pilot):
        await until(pilot, lambda: app.lab.facts is not None)
        await pilot.press("f5")
        assert app.query_one(GeneratePane).job is None
        assert any("empty" in note.message for note in app._notifications)


async def test_a_prompt_that_does_not_fit_is_refused_with_numbers_and_kept(lab) -> None:
    async with lab() as (app, pilot):
        app.query_one(PromptPane).text = "sky rain " * 400
        await until(pilot, lambda: len(app.workbench.prompt_area.tokens) > 512)
        await pilot.press("f5")
        await until(pilot, lambda: any("holds 512" in note.message for note in app._notifications))
        assert app.query_one(PromptPane).text == "sky rain " * 400
        assert "%" in str(app.query_one(TokensPane).border_subtitle)


async def test_a_megabyte_pasted_is_counted_and_not_all_drawn(lab) -> None:
    async with lab() as (app, pilot):
        app.query_one(PromptPane).text = "rain " * 200_000
        await until(pilot, lambda: len(app.workbench.prompt_area.tokens) > 200_000)
        assert "first 4,000 shown" in str(app.query_one(TokensPane).border_title)
        assert len(app.query_one("#breakdown", TokenFlow).tokens) == 4_000


async def test_the_editor_checks_while_typing_and_presets_are_a_key_away(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, ConfigEditor))
        screen = app.screen
        says = screen.query_one("#editor-says", Static)
        temperature = screen.query_one("#field-temperature", Input)
        temperature.value = "0"
        await pilot.pause()
        assert "temperature is 0.0" in str(says.render())
        assert temperature.has_class("wrong")
        await pilot.press("ctrl+s")
        assert app.screen is screen
        await pilot.press("f3")
        assert screen.config() == PRESETS["sampled"]
        await pilot.press("f7")
        assert screen.config() == PRESETS["contrastive"]
        buttons = [button.region for button in screen.query(Button)]
        assert buttons[-1].right <= screen.query_one("#editor").content_region.right
        await pilot.press("f3")
        screen.query_one("#field-seed", Input).value = "x"
        with pytest.raises(InputError, match="seed is 'x'"):
            screen.config()
        screen.query_one("#field-seed", Input).value = "7"
        screen.query_one("#field-stop", Input).value = "END|\\n\\n"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: not isinstance(app.screen, ConfigEditor))
        assert (edited(app).seed, edited(app).stop, edited(app).name) == (7, ("END", "\n\n"), "custom")
        assert "seed 7" in str(lanes_of(app)[1].border_title)


async def test_escape_leaves_the_editor_without_a_change_and_without_stopping(lab, tiny_long: Path) -> None:
    async with lab(model=str(tiny_long), configs=ENDLESS) as (app, pilot):
        await pilot.press("f9", "f5")
        await until(pilot, lambda: len(lanes_of(app)[0].steps) > 2)
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, ConfigEditor))
        app.screen.query_one("#field-temperature", Input).value = "3"
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, ConfigEditor))
        assert app.query_one(GeneratePane).configs[0] == ENDLESS[0]
        assert not app.query_one(GeneratePane).job.cancelled


async def test_before_a_measurement_the_chart_says_what_comes_and_which_key_measures(lab) -> None:
    async with lab() as (app, pilot):
        app.workbench.view = "timing"
        await pilot.pause()
        chart = app.query_one("#timing-chart", ChartView)
        assert "“length” comes here: F5 measures" in chart.render_line(0).text
        app.workbench.timing.table.focus()
        await pilot.press("2")
        assert "“token” comes here" in chart.render_line(0).text


async def test_timing_fills_table_and_chart(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f8", "f8", "f8")
        assert app.query_one(TabbedContent).active == "timing-tab"
        app.query_one("#timing-lengths", Input).value = "3,6,9"
        app.query_one("#timing-repeats", Input).value = "2"
        app.query_one("#timing-prompt", Input).value = "the sky"
        await pilot.press("f5")
        pane = app.query_one(TimingPane)
        await until(pilot, lambda: "ms a token" in str(app.query_one("#timing-says", Static).render()))
        assert app.query_one("#timing-table", DataTable).row_count == 3
        assert len(pane.runs) == 6


async def test_timing_against_transformers_is_a_second_line(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f8", "f8", "f8")
        app.query_one("#timing-lengths", Input).value = "3,6"
        app.query_one("#timing-repeats", Input).value = "1"
        app.query_one("#timing-against", Checkbox).value = True
        await pilot.press("f5")
        await until(pilot, lambda: "times as fast" in str(app.query_one("#timing-says", Static).render()))
        pane = app.query_one(TimingPane)
        assert [run.by for run in pane.runs] == ["logitlab", "transformers"] * 2
        assert app.query_one("#timing-table", DataTable).row_count == 4
        chart = app.query_one("#timing-chart", ChartView).text
        assert "logitlab" in chart and "transformers" in chart  # noqa: PT018


async def test_timing_with_a_draft_is_a_line_of_its_own(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f8", "f8", "f8")
        app.query_one("#timing-prompt", Input).value = "rain"
        app.query_one("#timing-lengths", Input).value = "8,24"
        app.query_one("#timing-repeats", Input).value = "1"
        app.query_one("#timing-draft", Checkbox).value = True
        await pilot.press("f5")
        await until(pilot, lambda: "times as fast as without" in str(app.query_one("#timing-says", Static).render()))
        pane = app.query_one(TimingPane)
        assert [run.by for run in pane.runs] == ["logitlab", "lookup"] * 2
        table = app.query_one("#timing-table", DataTable)
        assert [str(table.get_row_at(row)[0]) for row in range(4)] == ["logitlab"] * 2 + ["with a draft"] * 2
        for key in "123":
            await pilot.press(key)
            assert "with a draft" in app.query_one("#timing-chart", ChartView).text


async def test_timing_says_what_is_wrong_while_typing(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f8", "f8", "f8")
        for field, value, words in (
            ("lengths", "abc", "lengths is 'abc'"),
            ("lengths", "0", "max_new_tokens is 0"),
            ("repeats", "0", "repeats is 0"),
            ("repeats", "x", "repeats is 'x'"),
            ("repeats", "9" * 30, "repeats is '999"),
            ("lengths", "10^9", "lengths is '10^9'"),
            ("lanes", "0", "lanes is 0"),
            ("warmup", "-1", "warmup is '-1'"),
            ("precision", "int3", "precision is 'int3'"),
            ("threads", "0", "threads is 0"),
            ("temperature", "hot", "temperature is 'hot'"),
            ("prompt", "", "prompt is empty"),
            ("lengths", "", "no lengths"),
        ):
            entered = app.query_one(f"#timing-{field}", Input)
            entered.value, right = value, entered.value
            await pilot.pause()
            assert words in str(app.query_one("#timing-says", Static).render())
            await pilot.press("f5")
            assert app.query_one(TimingPane).runs == ()
            entered.value = right
            await pilot.pause()


async def test_stopping_a_sweep_keeps_what_is_done(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f8", "f8", "f8")
        app.query_one("#timing-repeats", Input).value = "500"
        await pilot.press("f5")
        pane = app.query_one(TimingPane)
        await until(pilot, lambda: len(pane.runs) >= 4)
        await pilot.press("escape")
        await until(pilot, lambda: "stopped after" in str(app.query_one("#timing-says", Static).render()))
        assert 4 <= len(pane.runs) < 2000


async def test_the_model_picker_lists_loads_and_refuses(lab, tiny_gpt2: Path) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f2")
        await until(
            pilot, lambda: isinstance(app.screen, ModelPicker) and app.screen.query_one(DataTable).row_count >= 2
        )
        name = app.screen.query_one("#picker-name", Input)
        name.focus()
        name.value = "no such model!"
        await pilot.press("enter")
        assert "no model" in str(app.screen.query_one("#picker-says", Static).render())
        name.value = str(tiny_gpt2)
        await pilot.press("enter")
        await until(pilot, lambda: app.lab.facts is not None and app.lab.facts.architecture == "gpt2")
        await until(pilot, lambda: app.query_one(StatusLine).progress is None)
        await pilot.press("f5")
        await until(pilot, lambda: finished(app))


async def test_in_the_picker_names_are_typed_and_arrows_choose_all_the_same(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f2")
        await until(
            pilot, lambda: isinstance(app.screen, ModelPicker) and app.screen.query_one(DataTable).row_count > 1
        )
        await pilot.press(*"a/b", "down", "c")
        assert app.screen.query_one(Input).value == "a/bc"
        assert app.screen.query_one(DataTable).cursor_row == 1
        await pilot.press("up", *["backspace"] * 4, "enter")
        await until(pilot, lambda: app.lab.facts is not None and app.lab.facts.name == EMBEDDED)


async def test_the_picker_narrows_its_list_down_and_takes_any_name_all_the_same(lab, monkeypatch) -> None:
    monkeypatch.setattr("tui.dialogs.model_picker.free_memory", lambda: 4_000_000_000)
    async with lab() as (app, pilot):
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, ModelPicker) and len(app.screen._entries) > 9)
        screen = app.screen
        table = screen.query_one(DataTable)

        def rows() -> list[list[str]]:
            return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]

        def says() -> str:
            return str(screen.query_one("#picker-says", Static).render())

        whole = table.row_count
        facts = {row[0].strip(): row[1:] for row in rows()}
        assert facts["openai-community/gpt2"][1:] == ["base", "≈ 548 MB", "fits", "mit"]
        assert facts["google/gemma-3-1b-it"][1:] == ["chat", "≈ 2.0 GB", "fits", "gemma, gated"]
        assert facts["HuggingFaceTB/SmolLM2-1.7B-Instruct"][3] == "in bfloat16"
        assert facts["Qwen/Qwen3-1.7B"][3] == "too large"
        await pilot.press(*"Qwen")
        assert [row[0].strip() for row in rows()] == ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B"]
        await pilot.press("down")
        assert "1.7B parameters · licence apache-2.0 · takes 8.1 GB, 4.1 GB in bfloat16; 4.0 GB are free" in says()
        await pilot.press(*" chat 0.6")
        assert [row[0].strip() for row in rows()] == ["Qwen/Qwen3-0.6B"]
        screen.query_one(Input).value = "llama3.2"  # by licence
        await pilot.pause()
        assert "gated: accept its terms on the hub" in says()
        screen.query_one(Input).value = "Qwen/Qwen3-0"  # a part of a row's name, and an id all the same
        await pilot.pause()
        assert "enter loads Qwen/Qwen3-0; ↓ takes a row" in says()
        screen.query_one(Input).value = "zzz"
        await pilot.pause()
        assert table.row_count == whole
        assert "enter loads zzz" in says()
        screen.query_one(Input).value = EMBEDDED[:5]
        await pilot.press("enter")
        await until(pilot, lambda: app.lab.facts is not None and app.lab.facts.name == EMBEDDED)


async def test_a_model_that_cannot_be_loaded_leaves_the_present_one(lab, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_text("this is a text")
    async with lab() as (app, pilot):
        app.loader.load(str(tmp_path / "broken.gguf"))
        await until(pilot, lambda: any("not a usable GGUF" in note.message for note in app._notifications))
        await pilot.press("f5")
        await until(pilot, lambda: finished(app))
        assert lanes_of(app)[0].steps


async def test_without_a_model_the_screen_says_what_to_do(lab, tmp_path: Path) -> None:
    async with lab(model="missing/model", offline=True, cache_dir=tmp_path, wait=False) as (app, pilot):
        await until(pilot, lambda: "no model" in app.query_one(StatusLine).message)
        assert "F2" in str(app.query_one("#token-detail", Static).render())
        await pilot.press(*"abc")
        assert app.query_one(PromptPane).text.endswith("abc")


async def test_escape_leaves_a_hub_that_keeps_silent(lab, tiny_llama: Path, tmp_path: Path, monkeypatch) -> None:
    """Tried again with the hub awake, the model comes."""
    with serve() as hub:
        hub.models["lab/tiny"] = tiny_llama
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1000")
        silent = threading.Event()

        def stall(hub: Hub, request: BaseHTTPRequestHandler, path: str) -> bool:
            if not path.endswith("model.safetensors") or request.command == "HEAD":
                return False
            request.send_response(200)
            request.send_header("Content-Length", str((tiny_llama / "model.safetensors").stat().st_size))
            request.end_headers()
            silent.set()
            hub.closing.wait()
            return True

        hub.faults = stall
        async with lab(model="lab/tiny", cache_dir=tmp_path, wait=False) as (app, pilot):
            await until(pilot, lambda: silent.is_set())
            await pilot.press(*" it")
            assert app.loader.loading
            await pilot.press("escape")
            await until(pilot, lambda: not app.loader.loading)
            assert app.lab.facts is None
            assert "F2" in str(app.query_one(StatusLine).render())
            assert not list(tmp_path.rglob("config.json"))
            hub.faults = None
            app.loader.load("lab/tiny")
            await until(pilot, lambda: app.lab.facts is not None and bool(app.workbench.prompt_area.tokens))
            assert app.query_one(PromptPane).text.endswith(" it")


async def test_help_opens_and_closes(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, Help))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Help))


async def test_resizing_keeps_every_token(lab) -> None:
    async with lab(size=(200, 50)) as (app, pilot):
        await pilot.press("f5")
        await until(pilot, lambda: finished(app))
        shown = []
        for size in ((200, 50), (120, 36), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            flow = lanes_of(app)[0].query_one(TokenFlow)
            shown.append("".join(text for line in flow._lines for text, _ in line).replace(" ", ""))
            assert all(line is not None for line in flow._lines)
        assert len(set(shown)) == 1


async def test_text_stays_whole_when_the_scrollbar_appears(lab, tiny_long: Path) -> None:
    async with lab(size=(80, 24), model=str(tiny_long), configs=ENDLESS) as (app, pilot):
        await pilot.press("f5")
        flow = lanes_of(app)[0].query_one(TokenFlow)
        await until(pilot, lambda: flow.show_vertical_scrollbar)
        await pilot.press("escape")
        await until(pilot, lambda: finished(app))
        width = flow.scrollable_content_region.width
        assert all(sum(cell_len(text) for text, _ in line) <= width for line in flow._lines)


async def test_a_run_asked_for_while_loading_starts_when_the_model_is_ready(lab) -> None:
    async with lab(wait=False) as (app, pilot):
        await pilot.press("f5")
        await until(pilot, lambda: finished(app))
        assert lanes_of(app)[0].steps


async def test_the_status_line_says_which_network_runs_and_what_a_gpu_has_left(lab, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "neox", "gpt_neox", intermediate_size=64)
    async with lab(model=str(folder)) as (app, pilot):
        status = app.query_one(StatusLine)
        assert "through transformers" in str(status.render())
        status.facts = replace(
            status.facts, path="own llama", device="cuda", memory_used=2_500_000_000, memory_free=10**10
        )
        await pilot.pause()
        assert "2.5 GB used, 10.0 free" in str(status.render())
        assert "through" not in str(status.render())


async def measure(app, pilot, lengths: str = "3,6") -> TimingPane:
    """A short sweep in the Timing view, to its end."""
    pane = app.query_one(TimingPane)
    app.query_one(TabbedContent).active = "timing-tab"
    app.query_one("#timing-lengths", Input).value = lengths
    app.query_one("#timing-repeats", Input).value = "2"
    before = len(pane.measurements)
    await pilot.press("f5")
    await until(pilot, lambda: len(pane.measurements) > before and pane.measurements[-1].complete)
    await until(pilot, lambda: not pane._measuring)
    return pane


async def test_every_measurement_is_kept_and_each_chart_has_a_key(lab) -> None:
    async with lab() as (app, pilot):
        app.query_one("#timing-cacheless", Checkbox).value = True
        pane = await measure(app, pilot)
        app.query_one("#timing-cacheless", Checkbox).value = False
        app.query_one("#timing-lanes", Input).value = "3"
        await measure(app, pilot, "4,8")
        assert [one.sweep.lanes for one in pane.measurements] == [(1,), (3,)]
        drawn = set()
        for key in "12345":
            await pilot.press(key)
            await pilot.pause()
            drawn.add(app.query_one("#timing-chart", ChartView).text)
        assert len(drawn) == 5
        await pilot.press("[")
        assert app.query_one("#timing-table", DataTable).row_count == 4
        assert "bends upwards" in str(app.query_one("#timing-says", Static).render())
        await pilot.press("delete")
        assert [one.sweep.lanes for one in pane.measurements] == [(3,)]


async def test_a_sweep_in_another_precision_leaves_the_model_as_it_was(lab, tiny_gpt2: Path) -> None:
    async with lab(model=str(tiny_gpt2)) as (app, pilot):
        before = app.lab.facts
        app.query_one("#timing-precision", Input).value = "bfloat16"
        app.query_one("#timing-threads", Input).value = "2"
        pane = await measure(app, pilot)
        assert (pane.shown.model.precision, pane.shown.model.threads) == ("bfloat16", 2)
        assert app.lab.facts == before
        app.query_one("#timing-precision", Input).value = ""
        app.query_one("#timing-threads", Input).value = ""
        await measure(app, pilot)
        assert (pane.shown.model.precision, pane.shown.model.threads) == ("float32", before.threads)
