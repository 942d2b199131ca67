"""A lane with an amateur (contrastive decoding), by keyboard: editor, stage, knobs, loading and sessions."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import Input, Static

from engine.base.errors import OutOfMemoryError
from engine.generation.config import GenerationConfig
from engine.generation.distribution import distribution
from engine.models import local
from engine.sessions.session import from_json, to_json
from tests.engine.test_lane_models import other_words as other_words
from tests.tui.conftest import at_rest, ran, until
from tests.tui.test_lane_models import alone, ids, said
from tui.app import LogitlabApp
from tui.exports import exportables
from tui.panes.generate import GeneratePane
from tui.panes.inspector import KNOBS, Inspector

GREEDY = GenerationConfig(name="greedy", max_new_tokens=10, ignore_eos=True)


def lane(amateur: Path | str, **more: object) -> GenerationConfig:
    return replace(GREEDY, name="custom", amateur=str(amateur), **more)


def shown(app: LogitlabApp, widget: str) -> str:
    return str(app.query_one(widget, Static).render())


async def test_the_editor_takes_an_amateur_and_the_lane_runs_with_it(lab, tiny_gpt2: Path) -> None:
    async with lab(configs=(GREEDY, GREEDY)) as (app, pilot):
        pane = app.query_one(GeneratePane)
        await pilot.press("f4")
        await until(pilot, lambda: len(app.screen_stack) > 1)
        editor = app.screen
        editor.query_one("#field-amateur", Input).focus()
        await pilot.pause()
        assert "not contrastive search" in shown(editor, "#editor-says")
        await pilot.press("f8")  # the list of models, for the field that has the focus
        await until(pilot, lambda: app.screen.query("#picker-name"))
        app.screen.query_one("#picker-name", Input).value = str(tiny_gpt2)
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is editor)
        assert editor.query_one("#field-amateur", Input).value == str(tiny_gpt2)
        assert editor.query_one("#field-model", Input).value == ""
        editor.query_one("#field-amateur_cut", Input).value = "2"
        await until(pilot, lambda: "amateur_cut is 2.0; allowed" in shown(editor, "#editor-says"))
        editor.query_one("#field-amateur_cut", Input).value = "0.05"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.screen is not editor)
        config = pane.configs[1]
        assert config == lane(tiny_gpt2, amateur_cut=0.05)
        await until(pilot, lambda: app.lab.amateur_of(config) is not None and not app.loader.loading)
        await ran(app, pilot)
        assert ids(pane, 1) == await alone(app, config)
        assert ids(pane, 1) != ids(pane, 0)
        assert tiny_gpt2.name in str(pane.lanes[1].border_title)
        app.action_go("b")
        await pilot.press("u", "u")  # the run, then the settings: no lane needs the second model
        await until(pilot, lambda: len(app.lab._shelf.models) == 1 and not app.loader.loading)


@pytest.mark.parametrize("name", ["no such model!", "http://127.0.0.1:9"])
async def test_what_names_no_amateur_is_said_in_the_editor(lab, name: str) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f4")
        await until(pilot, lambda: len(app.screen_stack) > 1)
        app.screen.query_one("#field-amateur", Input).value = name
        await pilot.pause()
        await pilot.press("ctrl+s")
        words = "no server tells" if name.startswith("http") else "no model"
        await until(pilot, lambda: words in shown(app.screen, "#editor-says"))


async def test_the_inspector_shows_the_stage_and_its_knobs_move_without_the_model(lab, tiny_gpt2: Path) -> None:
    ran_with = lane(tiny_gpt2, guidance_scale=2.0, negative_prompt="rain")
    async with lab(configs=(ran_with, GREEDY)) as (app, pilot):
        await until(pilot, lambda: not app.loader.loading)
        pane = await ran(app, pilot)
        inspector = app.query_one(Inspector)
        pane.look_at(0, 2, inspector=True)
        await until(pilot, lambda: inspector.settings is not None)
        assert "guidance" in shown(app, "#stages")
        assert "amateur" in shown(app, "#stages")
        step = pane.lanes[0].steps[2]
        kept = step.logits
        app.lab._model.network.forward = None  # whatever runs it fails
        for name, value in (("guidance_scale", 3.0), ("amateur_weight", 1.5), ("amateur_cut", 0.2)):
            inspector.knob = len(KNOBS) + ["guidance_scale", "amateur_weight", "amateur_cut"].index(name)
            await pilot.pause()
            inspector.action_turn(1)
            assert getattr(inspector.settings, name) == value
        config = inspector.settings
        right = distribution(kept.row, None, config, kept.others, kept.amateur)
        for candidate in inspector._inspection.at(0, 8):
            expected = float(right.less_amateur_probability(right.most_probable(300))[candidate.rank - 1])
            assert candidate.minus_amateur_probability == pytest.approx(expected, abs=1e-6)
        inspector.action_apply()
        await until(pilot, lambda: pane.configs[0].amateur_cut == 0.2)
        used = pane.configs[0]
        assert (used.guidance_scale, used.amateur_weight, used.amateur) == (3.0, 1.5, str(tiny_gpt2))
        # A lane without either has no such knobs, and what it has now says nothing of what ran before.
        pane.look_at(1, 2)
        await until(pilot, lambda: inspector._lane == 1)
        assert inspector._chosen == len(KNOBS) - 1
        assert "amateur" not in shown(app, "#stages")
        pane.configure(0, replace(GREEDY, amateur_weight=0.1, guidance_scale=7.0))
        pane.look_at(0, 3)
        await until(pilot, lambda: inspector._lane == 0)
        settings = inspector.settings
        assert (settings.amateur_weight, settings.amateur_cut, settings.guidance_scale) == (1.0, 0.1, 2.0)


async def test_candidates_are_exported_with_the_stage(lab, tiny_gpt2: Path) -> None:
    async with lab(configs=(lane(tiny_gpt2), GREEDY)) as (app, pilot):
        await until(pilot, lambda: not app.loader.loading)
        pane = await ran(app, pilot)
        pane.look_at(0, 1)
        await until(pilot, lambda: app.query_one(Inspector).settings is not None)
        items = exportables(app.workbench, app.lab.tokenizer, app.keeper.gather())
        tables = [item.forms["csv"]() for item in items if "csv" in item.forms]
        assert any("raw,minus_amateur,penalised" in table for table in tables)


async def test_a_branch_undo_and_a_pause_keep_to_it(lab, tiny_gpt2: Path) -> None:
    config = lane(tiny_gpt2)
    async with lab(configs=(config, GREEDY)) as (app, pilot):
        await until(pilot, lambda: not app.loader.loading)
        pane = await ran(app, pilot)
        whole = ids(pane, 0)
        prompt = [token.id for token in pane.trees[0].shown.prompt]
        pane.branching.go_on(0, 4, (7,))
        await until(pilot, lambda: at_rest(app) and ids(pane, 0)[:5] == [*whole[:4], 7])
        branch = ids(pane, 0)
        from engine.generation.events import Start, Stepped
        from engine.generation.loop import generate
        from engine.models.amateurs import amateur_for

        model = app.lab.model_of(config)
        start = Start(tuple(pane.trees[0].shown.prompt), written=tuple(whole[:4]), forced=(7,))
        anew = amateur_for(model, app.lab.amateur_of(config))
        events = list(generate(model.network, model.tokenizer, [start], [config], amateurs=[anew]))
        assert [event.token.id for event in events if isinstance(event, Stepped)] == branch[4:]
        app.action_go("a")
        await pilot.press("u")
        await until(pilot, lambda: ids(pane, 0) == whole)
        await pilot.press("f6")  # a step of a new run, which pauses
        await until(pilot, lambda: len(pane.lanes[0].steps) == 1)
        await pilot.press("f6")
        await until(pilot, lambda: len(pane.lanes[0].steps) == 2)
        await pilot.press("f7")
        await until(pilot, lambda: at_rest(app))
        assert ids(pane, 0) == whole
        assert [token.id for token in pane.trees[0].shown.prompt] == prompt


async def test_esc_stops_the_load_and_a_run_asks_for_it_again(
    lab, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, let_go = threading.Event(), threading.Event()
    load = local.load

    def slow(name, options):
        if name == str(tiny_gpt2):
            reached.set()
            assert let_go.wait(60)
        return load(name, options)

    async with lab(configs=(GREEDY, GREEDY)) as (app, pilot):
        monkeypatch.setattr("engine.loading.load", slow)
        pane = app.query_one(GeneratePane)
        pane.configure(1, lane(tiny_gpt2))
        await until(pilot, reached.is_set)
        assert app.loader.loading
        app.action_stop()
        let_go.set()
        await until(pilot, lambda: not app.loader.loading)
        assert app.lab.amateur_of(pane.configs[1]) is None
        await ran(app, pilot)
        assert ids(pane, 1) == await alone(app, pane.configs[1])


async def test_memory_too_small_for_it_is_one_sentence_and_nothing_is_lost(
    lab, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(configs=(GREEDY, GREEDY)) as (app, pilot):
        pane = await ran(app, pilot)
        before = ids(pane, 0), ids(pane, 1)
        free = 1000
        for module in ("engine.models.local", "engine.shelf"):
            monkeypatch.setattr(f"{module}.free_memory", lambda: free)
        pane.configure(1, lane(tiny_gpt2))
        await until(pilot, lambda: "of memory are free" in said(app) and not app.loader.loading)
        await pilot.press("f5")
        await until(pilot, lambda: said(app).count("of memory are free") > 1 and at_rest(app))
        assert (ids(pane, 0), ids(pane, 1)) == before
        assert all("\n" not in str(one.message) for one in app._notifications)
        with pytest.raises(OutOfMemoryError):
            app.lab._shelf.bring([pane.configs[1]])
        free = 10**12
        await ran(app, pilot)
        assert ids(pane, 1) != before[1]


async def test_an_amateur_of_another_vocabulary_is_one_sentence(lab, other_words: Path) -> None:
    async with lab(configs=(GREEDY, lane(other_words))) as (app, pilot):
        await until(pilot, lambda: "has another vocabulary" in said(app) and not app.loader.loading)
        await pilot.press("f5")
        await until(pilot, lambda: said(app).count("has another vocabulary") > 1 and at_rest(app))
        assert ids(app.query_one(GeneratePane), 1) == []


async def test_a_session_brings_it_back_with_interventions_and_a_model_of_the_lane(
    lab, tiny_llama: Path, tiny_gpt2: Path, tiny_deep: Path
) -> None:
    whole = lane(tiny_gpt2, model=str(tiny_deep), precision="float32", interventions=("mlp 3 off", "head 1.1 mean"))
    async with lab(configs=(GREEDY, whole)) as (app, pilot):
        await until(pilot, lambda: not app.loader.loading)
        pane = await ran(app, pilot)
        assert ids(pane, 1) == await alone(app, whole)
        without = await alone(app, replace(whole, interventions=()))
        assert ids(pane, 1) != without
        written = to_json(app.keeper.gather())
        before = ids(pane, 0), ids(pane, 1)
        probabilities = [step.candidates[0].minus_amateur_probability for step in pane.lanes[1].steps]
    again = LogitlabApp(session=from_json(written), model=str(tiny_llama), precision="float32", threads=1)
    async with again.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: again.lab.amateur_of(whole) is not None and not again.loader.loading)
        pane = again.query_one(GeneratePane)
        assert (ids(pane, 0), ids(pane, 1)) == before
        inspector = again.query_one(Inspector)
        pane.look_at(1, 4)
        await until(pilot, lambda: inspector.settings is not None)
        first = inspector._inspection.at(0, 1)[0]
        assert first.minus_amateur_probability == pytest.approx(probabilities[4], abs=1e-4)
        again.exit()
