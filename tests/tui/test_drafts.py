"""A lane with a draft, by keyboard: editor, marks in the lane, the inspector, its numbers, and sessions."""

from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import Input, Static

from engine.generation.config import GenerationConfig
from engine.sessions.session import from_json, to_json
from tests.engine.test_lane_models import other_words as other_words
from tests.tui.conftest import ran, until
from tests.tui.test_lane_models import ids, said
from tui.app import LogitlabApp
from tui.panes.generate import GeneratePane
from tui.panes.inspector import Inspector
from tui.widgets.candidate_list import CandidateList
from tui.widgets.token_flow import TokenFlow

GREEDY = GenerationConfig(name="greedy", max_new_tokens=16, ignore_eos=True)
DRAFTED = replace(GREEDY, name="custom", draft="lookup")


def shown(app: LogitlabApp, widget: str) -> str:
    return str(app.query_one(widget, Static).render())


async def test_the_editor_takes_a_draft_and_the_lane_shows_what_stayed(lab, tiny_gpt2: Path) -> None:
    async with lab(configs=(GREEDY, GREEDY)) as (app, pilot):
        pane = app.query_one(GeneratePane)
        await pilot.press("f4")
        await until(pilot, lambda: len(app.screen_stack) > 1)
        editor = app.screen
        editor.query_one("#field-draft", Input).focus()
        await pilot.pause()
        assert "speculative decoding" in shown(editor, "#editor-says")
        editor.query_one("#field-draft_tokens", Input).value = "0"
        await until(pilot, lambda: "draft_tokens is 0; allowed" in shown(editor, "#editor-says"))
        editor.query_one("#field-draft_tokens", Input).value = "5"
        editor.query_one("#field-draft", Input).value = str(tiny_gpt2)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.screen is not editor)
        config = pane.configs[1]
        assert config == replace(GREEDY, name="custom", draft=str(tiny_gpt2), draft_tokens=5)
        await until(pilot, lambda: app.lab.draft_of(config) is not None and not app.loader.loading)
        await ran(app, pilot)
        assert ids(pane, 1) == ids(pane, 0)  # greedy stays as it is
        lane = pane.lanes[1]
        assert "tokens a forward" in str(lane.border_subtitle)
        assert "guessed by the draft" in shown(app, "#legend")
        flow = lane.query_one(TokenFlow)
        for place, step in enumerate(lane.steps):
            assert step.draft is not None
            if place != flow.marked and place != flow.cursor:
                assert bool(flow.token_style(place).underline) == (step.draft.outcome == "accepted")


async def test_the_inspector_shows_a_guess_and_what_came_in_its_place(lab) -> None:
    async with lab(configs=(DRAFTED, GREEDY)) as (app, pilot):
        pane = app.query_one(GeneratePane)
        await ran(app, pilot)
        steps = pane.lanes[0].steps
        wrong = next(step for step in steps if step.draft is not None and step.draft.outcome == "corrected")
        pane.lanes[0].query_one(TokenFlow).focus()
        pane.lanes[0].query_one(TokenFlow).action_jump(wrong.index)
        inspector = app.query_one(Inspector)
        assert wrong.draft is not None
        await until(pilot, lambda: "goes: p" in str(inspector.border_subtitle))
        assert (wrong.draft.text or "") in str(inspector.border_subtitle)
        rows = inspector.query_one(CandidateList)
        guessed = rows._inspection.of([wrong.draft.id])[0]  # type: ignore[union-attr,list-item]
        assert "not taken" in rows._note(guessed)


async def test_one_step_at_a_time_is_one_token_and_a_session_keeps_all(lab) -> None:
    async with lab(configs=(DRAFTED, GREEDY)) as (app, pilot):
        pane = app.query_one(GeneratePane)
        for count in range(1, 6):
            await pilot.press("f6")
            await until(pilot, lambda count=count: len(pane.lanes[0].steps) == count)
            await pilot.pause()
            assert len(pane.lanes[0].steps) == count
        await pilot.press("escape")
        await until(pilot, lambda: not pane.running)
        again = from_json(to_json(app.keeper.gather()))
        kept = [step.draft for step in again.lanes[0].branches[-1].steps]
        assert kept == [step.draft for step in pane.lanes[0].steps]
        assert again.lanes[0].config == DRAFTED


@pytest.mark.parametrize("name", ["http://127.0.0.1:9", "no such model!"])
async def test_what_names_no_draft_is_said_in_the_editor(lab, name: str) -> None:
    async with lab(configs=(GREEDY, GREEDY)) as (app, pilot):
        await pilot.press("f4")
        await until(pilot, lambda: len(app.screen_stack) > 1)
        app.screen.query_one("#field-draft", Input).value = name
        await pilot.pause()
        await pilot.press("ctrl+s")
        words = "no server tells" if name.startswith("http") else "no model"
        await until(pilot, lambda: words in shown(app.screen, "#editor-says"))


async def test_a_draft_of_another_vocabulary_is_one_sentence(lab, other_words: Path) -> None:
    async with lab(configs=(GREEDY, replace(DRAFTED, draft=str(other_words)))) as (app, pilot):
        await until(pilot, lambda: "has another vocabulary" in said(app) and not app.loader.loading)
