"""The lab in front of a server: the same panes, and nothing in them that the server does not tell."""

from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from textual.widgets import DataTable, Input, Static

from engine.generation.config import PRESETS, GenerationConfig
from engine.generation.events import STAGES, Stepped
from engine.generation.loop import generate
from engine.loading import load_model
from engine.models import catalog
from engine.models.local import LocalModel
from tests.model_server import NAME, serve
from tests.tui.conftest import ran, until
from tui.dialogs.config_editor import ConfigEditor
from tui.dialogs.greeting import Greeting
from tui.dialogs.model_picker import ModelPicker
from tui.panes.generate import GeneratePane
from tui.panes.inside import InsidePane
from tui.panes.inspector import Inspector
from tui.panes.prompt import PromptPane
from tui.panes.status import StatusLine
from tui.panes.timing import TimingPane
from tui.panes.tokens import TokensPane
from tui.widgets.candidate_list import CandidateList
from tui.widgets.token_flow import TokenFlow

pytest.importorskip("openai")
LANES = (
    GenerationConfig(name="greedy", max_new_tokens=12, ignore_eos=True),
    GenerationConfig(name="sampled", strategy="sample", seed=4, max_new_tokens=12, ignore_eos=True),
)

BARE = tuple(replace(config, ignore_eos=False) for config in LANES)


@pytest.fixture
def local(tiny_llama: Path) -> LocalModel:
    model = load_model(str(tiny_llama), precision="float32", threads=1)
    assert isinstance(model, LocalModel)
    return model


async def test_both_lanes_show_what_the_server_writes_and_what_it_tells(lab, local: LocalModel, tmp_path: Path) -> None:
    with serve(local) as server:
        async with lab(model=server.url, configs=LANES, cache_dir=tmp_path) as (app, pilot):
            pane = await ran(app, pilot)
            for lane, config in enumerate(LANES):
                own = [
                    e
                    for e in generate(local.network, local.tokenizer, ["the sky above"], [config])
                    if isinstance(e, Stepped)
                ]
                assert [step.token.id for step in pane.lanes[lane].steps] == [step.token.id for step in own]
            assert "vLLM 0.11.0" in str(app.query_one(StatusLine).render())
            inspector = app.query_one(Inspector)
            known = sum(candidate.raw_probability for candidate in pane.lanes[0].steps[-1].candidates)
            assert f"top 20, {known:.1%} of the mass" in str(inspector.border_title)
            pane.lanes[0].query_one(TokenFlow).focus()
            await pilot.press("home", "right", "right", "b", *"sky", "enter")
            await until(pilot, lambda: not pane.running and len(pane.trees[0].branches) == 2)
            assert "".join(step.token.text for step in pane.lanes[0].steps[2:5]).startswith("sky")
            assert [step.forced for step in pane.lanes[0].steps][2]
            await pilot.press("c", "c")
            await until(pilot, lambda: len(app.query_one(TokensPane).query_one(TokenFlow).judged) == 3)


async def test_the_inside_is_refused_in_a_sentence_but_what_mattered_is_measured(
    lab, local: LocalModel, tmp_path: Path
) -> None:
    with serve(local) as server:
        async with lab(model=server.url, configs=LANES, cache_dir=tmp_path) as (app, pilot):
            pane = await ran(app, pilot)
            await pilot.press("ctrl+pageup")
            inside = app.query_one(InsidePane)
            await until(pilot, lambda: inside.opened and not inside.running)
            lane = inside.lanes[0]
            await until(pilot, lambda: "which no server tells" in str(lane.query_one(".inside-why", Static).render()))
            await pilot.press("2", "3", "1")
            assert lane.record is None
            await pilot.press("4")
            await until(pilot, lambda: lane.occlusion.occlusion is not None)
            assert lane.occlusion.occlusion.token == pane.lanes[0].steps[-1].token.id
            assert len(lane.occlusion.occlusion.without) == lane.position + 1


async def test_the_greeting_says_where_prompts_go(lab, local: LocalModel, tmp_path: Path) -> None:
    with serve(local) as server:
        async with lab(model=server.url, first=True, wait=False, cache_dir=tmp_path) as (app, pilot):
            await until(pilot, lambda: isinstance(app.screen, Greeting))
            text = str(app.screen.query_one("#greeting-says", Static).render())
            assert "prompts and settings are sent there, and nowhere else" in text
            assert "this machine" not in text


async def test_a_message_in_the_servers_chat_template(lab, local: LocalModel, tmp_path: Path) -> None:
    with serve(local) as server:
        async with lab(model=server.url, configs=LANES, cache_dir=tmp_path) as (app, pilot):
            await pilot.press("ctrl+t")
            await until(
                pilot,
                lambda: "".join(t.text for t in app.workbench.prompt_area.tokens).startswith("user: the sky above"),
            )
            pane = await ran(app, pilot)
            told = [body["prompt"] for body in server.texts_asked_for]
            assert told[0] == local.tokenizer.encode_ids("user: the sky above\nassistant:")
            assert all(lane.reason for lane in pane.lanes)


async def test_a_server_that_cuts_no_texts(lab, local: LocalModel, tmp_path: Path) -> None:
    with serve(local, "openai") as server:
        async with lab(model=server.url, configs=BARE, cache_dir=tmp_path) as (app, pilot):
            tokens = app.query_one(TokensPane)
            await until(pilot, lambda: "the prompt is shown whole" in str(tokens.border_title))
            pane = await ran(app, pilot)
            assert [step.token.text for step in pane.lanes[0].steps]
            assert not app._notifications


async def test_that_prompts_are_not_scored_is_said_in_its_place(lab, local: LocalModel, tmp_path: Path) -> None:
    with serve(local, "llama.cpp") as server:
        async with lab(model=server.url, configs=LANES, cache_dir=tmp_path) as (app, pilot):
            tokens = app.query_one(TokensPane)
            pane = await ran(app, pilot)
            pane.lanes[0].query_one(TokenFlow).focus()
            await pilot.press("c", "c")
            await until(pilot, lambda: "does not score prompts" in str(tokens.border_title))
            assert not app._notifications


async def test_a_token_that_a_servers_draft_guessed_has_no_probability_on_screen(
    lab, local: LocalModel, tmp_path: Path
) -> None:
    """llama-server says of these that they are certain."""
    with serve(local, "llama.cpp") as server:
        server.drafts = True
        async with lab(model=server.url, configs=LANES, cache_dir=tmp_path) as (app, pilot):
            pane = await ran(app, pilot)
            flow, inspector = pane.lanes[0].query_one(TokenFlow), app.query_one(Inspector)
            flow.focus()
            for place in (3, 4, 5):  # of three tokens two are guessed
                flow.action_jump(place)
                await until(pilot, lambda place=place: f"step {place + 1} " in str(inspector.border_title))
                guessed = place % 3 > 0
                assert ("a draft model guessed this token" in str(inspector.border_title)) == guessed
                assert (len(inspector.query_one(CandidateList)) == 0) == guessed
                shown = " ".join("".join(part.text for part in line) for line in app.screen._compositor.render_strips())
                assert "100 %" not in shown
                assert "100.0 %" not in shown
                assert ("%" in str(inspector.border_subtitle)) != guessed


async def test_stages_and_knobs_follow_what_the_server_tells(lab, local: LocalModel, tmp_path: Path) -> None:
    with serve(local) as server:
        async with lab(model=server.url, configs=LANES, cache_dir=tmp_path) as (app, pilot):
            await ran(app, pilot)
            inspector, rows = app.query_one(Inspector), app.query_one(CandidateList)
            rows.focus()
            await pilot.press("plus")  # the temperature, which moves what is not told
            assert inspector._inspection.stages == ("raw", "penalty")
            assert rows.stage == "penalty"
            assert "more than the top 20" in str(app.query_one("#stages", Static).render())
            await pilot.press("0", "right", *["minus"] * 6)  # top-k, from none to few
            assert inspector.settings.top_k == 10
            assert inspector._inspection.stages == STAGES
            assert rows.stage == "pick"
            assert "10 of them left" in str(inspector.border_title)
            assert sum(rows.row(index).probability for index in range(len(rows))) == pytest.approx(1)
            assert "✂" in rows._note(rows.row(15))
            await pilot.press("a")
            assert app.query_one(GeneratePane).configs[0].top_k == 10
            await pilot.press(*["left"] * 2, "minus")  # α, which changes nothing; then the penalty
            await pilot.press("left", "plus")
            assert inspector._inspection.stages == ("raw",)
            assert rows.stage == "raw"


async def test_what_a_server_cannot_do_is_put_aside_and_said(lab, local: LocalModel, tmp_path: Path) -> None:
    with serve(local) as server:
        lanes = (LANES[0], PRESETS["creative"])
        async with lab(model=server.url, configs=lanes, cache_dir=tmp_path) as (app, pilot):
            said = [notification.message for notification in app._notifications]
            assert any("contrastive search compares hidden states" in message for message in said)
            assert app.query_one(GeneratePane).configs[1].strategy == "sample"
            await pilot.press("f4")
            await until(pilot, lambda: isinstance(app.screen, ConfigEditor))
            app.screen.query_one("#field-strategy", Input).value = "contrastive"
            await pilot.pause()
            assert "hidden states" in str(app.screen.query_one("#editor-says", Static).render())
            await pilot.press("escape")


async def test_the_picker_asks_an_address_what_it_serves(lab, local: LocalModel, tmp_path: Path) -> None:
    with serve(local) as server:
        async with lab(cache_dir=tmp_path) as (app, pilot):
            for address, said in (("http://127.0.0.1:9", "cannot reach 127.0.0.1:9"), (server.url, "")):
                await pilot.press("f2")
                await until(pilot, lambda: isinstance(app.screen, ModelPicker) and bool(app.screen._entries))
                app.screen.query_one(Input).focus()
                app.screen.query_one(Input).value = address
                await pilot.press("enter")
                if said:
                    await until(
                        pilot, lambda said=said: said in str(app.screen.query_one("#picker-says", Static).render())
                    )
                    await pilot.press("escape")
            await until(pilot, lambda: app.lab.facts.name == f"{server.url}#{NAME}" and not app.loader.loading)
            assert catalog.default_name() != app.lab.facts.name, "it may be gone the next time"
            await until(pilot, lambda: bool(app.workbench.prompt_area.tokens))
            await ran(app, pilot)


async def test_of_several_served_models_one_is_chosen(lab, local: LocalModel, tmp_path: Path) -> None:
    with serve(local) as server:
        server.others = ["lab/other"]
        async with lab(cache_dir=tmp_path) as (app, pilot):
            await pilot.press("f2")
            await until(pilot, lambda: isinstance(app.screen, ModelPicker) and bool(app.screen._entries))
            await pilot.press(*server.url, "enter")
            await until(pilot, lambda: [entry.kind for entry in app.screen._entries] == ["server"] * 2)
            await pilot.press("enter")
            await until(pilot, lambda: app.lab.capabilities is not None and not app.loader.loading)


def gone(request: BaseHTTPRequestHandler) -> bool:
    request.close_connection = True
    return True


async def test_a_server_that_goes_leaves_the_lab_usable(lab, local: LocalModel, tmp_path: Path) -> None:
    with serve(local) as server:
        async with lab(model=server.url, configs=LANES, cache_dir=tmp_path) as (app, pilot):
            await ran(app, pilot)
            server.fault = lambda server, request, path, body: bool(body.get("stream")) and gone(request)
            await pilot.press("f5")
            await until(pilot, lambda: not app.query_one(GeneratePane).running)
            assert any("127.0.0.1" in notification.message for notification in app._notifications)
            await pilot.press(*" it")
            assert app.query_one(PromptPane).text.endswith(" it")
            server.fault = None
            await ran(app, pilot)


async def test_the_timing_view_times_the_server(lab, local: LocalModel, tmp_path: Path) -> None:
    with serve(local) as server:
        async with lab(model=server.url, cache_dir=tmp_path) as (app, pilot):
            await pilot.press("f8", "f8", "f8")
            pane = app.query_one(TimingPane)
            assert "every lane a request of its own" in said(pane)
            for local_only in ("cacheless", "against", "draft", "precision", "threads"):
                assert pane.query_one(f"#timing-{local_only}").disabled
            assert pane.query_one("#timing-lanes", Input).value == "1,2,4,8"
            pane.query_one("#timing-lengths", Input).value = "6"
            pane.query_one("#timing-lanes", Input).value = "1,3"
            pane.query_one("#timing-repeats", Input).value = "2"
            await pilot.press("f5")
            await until(pilot, lambda: bool(pane.runs) and pane.shown.complete and not pane.running)
            assert {(run.by, run.lanes, len(run.texts)) for run in pane.runs} == {("server", 1, 1), ("server", 3, 3)}
            await until(pilot, lambda: "3 at once: " in said(pane))
            table = pane.query_one(DataTable)
            assert [str(column.label).strip() for column in table.columns.values()][4:6] == ["TTFT ms", "ITL ms"]
            assert table.row_count == 2
            await pilot.press("7")
            assert pane.chart == "latency"
            server.fault = lambda server, request, path, body: bool(body.get("stream")) and gone(request)
            await pilot.press("f5")
            await until(pilot, lambda: "127.0.0.1" in said(pane))
            await until(pilot, lambda: not pane.running and len(pane.measurements) == 1)


async def test_esc_ends_a_sweep_of_a_server_at_once(lab, local: LocalModel, tmp_path: Path) -> None:
    with serve(local) as server:
        server.step_seconds = 0.05
        async with lab(model=server.url, cache_dir=tmp_path) as (app, pilot):
            await pilot.press("f8", "f8", "f8")
            pane = app.query_one(TimingPane)
            pane.query_one("#timing-lengths", Input).value = "400"
            await pilot.press("f5")
            await until(pilot, lambda: bool(server.texts_asked_for))
            await pilot.press("escape")
            await until(pilot, lambda: "stopped before the first run" in said(pane))
            await until(pilot, lambda: server.stopped == 1)


def said(pane: TimingPane) -> str:
    return str(pane.query_one("#timing-says", Static).render())
