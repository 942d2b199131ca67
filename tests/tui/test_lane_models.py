"""A lane that has a model of its own: chosen, loaded, run, followed, kept and let go, by keyboard."""

from pathlib import Path

import pytest
from textual.widgets import Input, Static

from engine.generation.config import GenerationConfig
from engine.generation.events import Failed
from engine.sessions.session import Session, SessionLane, from_json, from_trees, to_json
from tests.engine.test_lane_models import other_words as other_words
from tests.tui.conftest import at_rest, ran, until
from tui.panes.generate import GeneratePane
from tui.panes.status import StatusLine
from tui.widgets.candidate_list import CandidateList
from tui.widgets.token_flow import TokenFlow

GREEDY = GenerationConfig(name="greedy", max_new_tokens=12, ignore_eos=True)


def lanes(model: Path | str) -> tuple[GenerationConfig, GenerationConfig]:
    named = GenerationConfig(name="custom", max_new_tokens=12, ignore_eos=True, model=str(model), precision="float32")
    return GREEDY, named


def ids(pane: GeneratePane, lane: int) -> list[int]:
    return [step.token.id for step in pane.lanes[lane].steps]


def status(app) -> str:
    return str(app.query_one(StatusLine).render())


def said(app) -> str:
    return "\n".join(str(one.message) for one in app._notifications)


async def alone(app, config: GenerationConfig) -> list[int]:
    """What a configuration writes without another lane."""
    events = [event async for event in app.lab.generate(app.workbench.prompt.text, [config])]
    assert not [event for event in events if isinstance(event, Failed)]
    return [event.token.id for event in events if hasattr(event, "token")]


async def test_a_lane_runs_on_the_model_that_it_names(lab, tiny_gpt2: Path) -> None:
    configs = lanes(tiny_gpt2)
    async with lab(configs=configs) as (app, pilot):
        await until(pilot, lambda: app.lab.model_of(configs[1]) is not None and not app.loader.loading)
        pane = await ran(app, pilot)
        assert [ids(pane, 0), ids(pane, 1)] == [await alone(app, config) for config in configs]
        assert ids(pane, 0) != ids(pane, 1)
        assert pane.trees[1].shown.config.model == str(tiny_gpt2)
        assert tiny_gpt2.name in str(pane.lanes[1].border_title)


async def test_what_stands_around_follows_the_lane_that_has_the_cursor(lab, tiny_llama: Path, tiny_gpt2: Path) -> None:
    async with lab(configs=lanes(tiny_gpt2)) as (app, pilot):
        await until(pilot, lambda: not app.loader.loading)
        pane = await ran(app, pilot)
        for key, name, other in (("b", tiny_gpt2, tiny_llama), ("a", tiny_llama, tiny_gpt2)):
            app.action_go(key)
            await pilot.press("home")
            await until(pilot, lambda name=name: name.name in status(app))
            assert other.name not in status(app)
            lane = "ab".index(key)
            assert pane.active == lane
            inspection = app.workbench.inspector._inspection
            assert inspection is not None
            step = pane.lanes[lane].steps[0]
            assert inspection.at(0, 1)[0].raw_probability == pytest.approx(step.candidates[0].raw_probability)
            step.logits.row = None  # it is computed again, by the lane's own model
            await pilot.press("right", "left")
            await until(pilot, lambda lane=lane: app.workbench.inspector._inspection is not None)
            again = app.workbench.inspector._inspection.at(0, 1)[0]
            assert again.raw_probability == pytest.approx(step.candidates[0].raw_probability, rel=1e-4)


async def test_the_prompts_tokens_are_those_of_the_lane_that_has_the_cursor(lab, other_words: Path) -> None:
    async with lab(configs=lanes(other_words)) as (app, pilot):
        await until(pilot, lambda: not app.loader.loading)
        pane = await ran(app, pilot)
        area = app.workbench.prompt_area
        first = [token.id for token in area.tokens]
        app.action_go("b")
        await pilot.press("home")
        await until(pilot, lambda: [token.id for token in area.tokens] != first)
        tokens = tuple(token.id for token in area.tokens)
        assert tokens == tuple(token.id for token in pane.trees[1].shown.prompt)
        assert first == [token.id for token in pane.trees[0].shown.prompt]


async def test_different_vocabularies_compare_texts_and_it_is_said(lab, other_words: Path) -> None:
    async with lab(configs=lanes(other_words)) as (app, pilot):
        await until(pilot, lambda: not app.loader.loading)
        pane = await ran(app, pilot)
        assert "the vocabularies differ" in said(app)
        texts = ["".join(step.token.text for step in lane.steps) for lane in pane.lanes]
        place = next(index for index, (a, b) in enumerate(zip(*texts)) if a != b)
        for lane, text in zip(pane.lanes, texts):
            marked = lane.query_one(TokenFlow).marked
            before = sum(len(step.token.text) for step in lane.steps[:marked])
            assert before <= place < before + len(lane.steps[marked].token.text)
            assert text[:place] == texts[0][:place]
        assert "the texts part at" in str(app.query_one("#legend", Static).render())


async def test_a_model_is_chosen_in_the_lanes_editor(lab, tiny_llama: Path, tiny_gpt2: Path) -> None:
    async with lab(configs=(GREEDY, GREEDY)) as (app, pilot):
        await ran(app, pilot)
        await pilot.press("f4", "f8")  # the picker
        await until(pilot, lambda: app.screen.query("#picker-name"))
        app.screen.query_one("#picker-name", Input).value = str(tiny_gpt2)
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.screen.query("#field-model")))
        assert app.screen.query_one("#field-model", Input).value == str(tiny_gpt2)
        await pilot.press("f1")  # a preset leaves the model as it is
        assert app.screen.query_one("#field-model", Input).value == str(tiny_gpt2)
        await pilot.press("ctrl+s")
        pane = app.query_one(GeneratePane)
        await until(pilot, lambda: app.lab.model_of(pane.configs[1]) is not None and not app.loader.loading)
        assert pane.configs[1].model == str(tiny_gpt2)
        assert len(app.lab._shelf.models) == 2
        app.action_go("b")
        await pilot.press("u")  # undone: the model goes
        await until(pilot, lambda: len(app.lab._shelf.models) == 1 and not app.loader.loading)
        assert pane.configs[1].model is None


async def test_a_name_that_is_none_is_said_in_the_editor(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("f4")
        app.screen.query_one("#field-model", Input).value = "no such model!"
        await pilot.pause()
        await pilot.press("ctrl+s")
        assert "no model 'no such model!'" in str(app.screen.query_one("#editor-says", Static).render())
        app.screen.query_one("#field-precision", Input).value = "int3"
        await pilot.pause()
        assert "precision is 'int3'; allowed" in str(app.screen.query_one("#editor-says", Static).render())


async def test_a_branch_is_not_gone_on_with_by_another_model(lab, other_words: Path) -> None:
    async with lab(configs=(GREEDY, GREEDY)) as (app, pilot):
        pane = await ran(app, pilot)
        pane.configure(1, lanes(other_words)[1])
        await until(pilot, lambda: app.lab.model_of(pane.configs[1]) is not None and not app.loader.loading)
        before = ids(pane, 1)
        pane.branching.go_on(1, 2, (5,))
        await pilot.pause()
        assert "has another model now than wrote this" in said(app)
        assert at_rest(app)
        assert ids(pane, 1) == before
        await ran(app, pilot)
        pane.branching.go_on(1, 2, (5,))
        await until(pilot, lambda: at_rest(app) and len(pane.trees[1].branches) == 3)
        assert ids(pane, 1)[2] == 5


async def test_the_labs_next_model_leaves_a_lane_that_names_its_own(lab, tiny_gpt2: Path, tiny_deep: Path) -> None:
    async with lab(configs=lanes(tiny_gpt2)) as (app, pilot):
        await until(pilot, lambda: not app.loader.loading)
        pane = await ran(app, pilot)
        before = ids(pane, 1)
        app.loader.load(str(tiny_deep))
        await until(pilot, lambda: app.lab.facts.name == str(tiny_deep) and not app.loader.loading)
        assert (ids(pane, 0), ids(pane, 1)) == ([], before)
        assert "lane A begins anew" in said(app)


async def test_a_model_that_cannot_be_loaded_is_one_sentence_and_nothing_is_lost(lab, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    async with lab(configs=(GREEDY, GREEDY)) as (app, pilot):
        pane = await ran(app, pilot)
        before = ids(pane, 0), ids(pane, 1)
        pane.configure(1, lanes(tmp_path)[1])
        await until(pilot, lambda: not app.loader.loading)
        assert str(tmp_path) in said(app) or tmp_path.name in said(app)
        assert f"{tmp_path.name}@float32, not loaded" not in status(app)  # lane A is looked at
        await pilot.press("f5")
        await until(pilot, lambda: at_rest(app) and not app.loader.loading)
        assert (ids(pane, 0), ids(pane, 1)) == before
        assert len(pane.trees[0].branches) == 1
        app.action_go("b")
        await pilot.press("home")
        await until(pilot, lambda: "not loaded" in status(app))


async def test_esc_stops_the_second_load_and_a_run_asks_for_it_again(
    lab, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from engine.models import local

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
        pane.configure(1, lanes(tiny_gpt2)[1])
        await until(pilot, reached.is_set)
        assert app.loader.loading
        app.action_stop()
        let_go.set()
        await until(pilot, lambda: not app.loader.loading)
        assert app.lab.model_of(pane.configs[1]) is None
        await ran(app, pilot)
        assert app.lab.model_of(pane.configs[1]) is not None
        assert [token.id for token in pane.trees[1].shown.prompt] == [
            token.id for token in app.workbench.prompt_area.tokens
        ]


async def test_a_session_brings_each_lanes_model_back(lab, tiny_llama: Path, tiny_gpt2: Path) -> None:
    configs = lanes(tiny_gpt2)
    async with lab(configs=configs) as (app, pilot):
        await until(pilot, lambda: not app.loader.loading)
        pane = await ran(app, pilot)
        written = to_json(app.keeper.gather())
        before = ids(pane, 0), ids(pane, 1)
    from tui.app import LogitlabApp

    again = LogitlabApp(session=from_json(written), model=str(tiny_llama), precision="float32", threads=1)
    async with again.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: again.lab.model_of(configs[1]) is not None and not again.loader.loading)
        pane = again.query_one(GeneratePane)
        assert (ids(pane, 0), ids(pane, 1)) == before
        again.action_go("b")
        await pilot.press("home")
        await until(pilot, lambda: again.workbench.inspector._inspection is not None)
        step = pane.lanes[1].steps[0]
        (picked,) = again.workbench.inspector._inspection.of([step.token.id])
        assert picked.raw_probability == pytest.approx(step.raw_probability, rel=1e-4)
        again.exit()


def test_sessions_of_lanes_with_models_round_trip() -> None:
    session = Session(lanes=tuple(SessionLane(config) for config in lanes("gpt2")))
    assert from_json(to_json(session)).lanes == session.lanes
    assert from_trees([], []) == ((), ())


# The other's opinion.


async def test_the_others_opinion_colours_is_inspected_and_jumped_over(lab, tiny_gpt2: Path) -> None:

    async with lab(configs=lanes(tiny_gpt2)) as (app, pilot):
        await until(pilot, lambda: not app.loader.loading)
        pane = await ran(app, pilot)
        app.action_go("a")
        await pilot.press("o")
        await until(pilot, lambda: all(len(lane.opinions) == len(lane.steps) for lane in pane.lanes))
        assert "KL to the other" in str(app.query_one("#legend", Static).render())
        flow = pane.lanes[0].query_one(TokenFlow)
        assert [one.kl for one in flow.judged] == [one.kl for one in pane.lanes[0].opinions]
        order = sorted(range(12), key=lambda place: -pane.lanes[0].opinions[place].kl)
        for place in (*order[:3], order[1]):
            await pilot.press("n" if place != order[1] or pane.lanes[0].cursor == order[0] else "p")
            assert pane.lanes[0].cursor == place
        rows = app.query_one(CandidateList)
        await until(pilot, lambda: rows._other is not None)
        ids_before = pane.texts.ids_before(0, order[1])[0]
        other = app.lab.model_of(pane.configs[1])
        from engine.generation.loop import logits_after

        expected = logits_after(other.network, ids_before).softmax(-1)
        for place in (0, 1, 5):
            candidate = rows.row(place)
            assert rows._others(candidate) == pytest.approx(float(expected[candidate.id]), rel=1e-4)
        await pilot.press("o")
        assert pane.mode == "tokens"
        await until(pilot, lambda: rows._other is None)
        assert flow.judged == pane.lanes[0].steps


async def test_without_another_model_there_is_no_opinion_to_ask_for(lab, other_words: Path) -> None:
    async with lab(configs=(GREEDY, GREEDY)) as (app, pilot):
        pane = await ran(app, pilot)
        app.action_go("a")
        await pilot.press("n")
        await until(pilot, lambda: "both lanes have the same model" in said(app))
        assert pane.mode == "tokens"
        pane.configure(1, lanes(other_words)[1])
        await until(pilot, lambda: not app.loader.loading)
        await ran(app, pilot)
        before = said(app).count("the vocabularies differ")
        await pilot.press("o")
        await until(pilot, lambda: said(app).count("the vocabularies differ") > before)
        assert pane.mode == "tokens"


@pytest.mark.parametrize("key", ["o", "n"])
async def test_what_cannot_be_compared_is_not_shown_beside_either(lab, key: str) -> None:
    async with lab(configs=(GREEDY, GREEDY)) as (app, pilot):
        pane = await ran(app, pilot)
        app.action_go("a")
        await pilot.press("right", key)
        await until(pilot, lambda: "both lanes have the same model" in said(app) and not app.lab.is_asked)
        await until(pilot, lambda: not any(one.group == "beside" for one in app.workers))
        assert pane.mode == "tokens"
        assert app.query_one(CandidateList)._other is None
