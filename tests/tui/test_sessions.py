"""What the lab holds is saved all the time, and comes back."""

import json
from dataclasses import replace
from pathlib import Path

from textual.widgets import DataTable

from engine.sessions import session
from engine.sessions import store as sessions
from engine.sessions.session import Session
from tests.conftest import save_tiny
from tests.tui.conftest import at_rest, ran, until
from tui.dialogs.sessions import SessionsDialog
from tui.panes.generate import GeneratePane
from tui.panes.inspector import Inspector
from tui.panes.lanes import LanesPane
from tui.panes.prompt import PromptPane


def saved() -> Session:
    """What was saved last."""
    path = sessions.newest()
    assert path is not None
    return session.read(path)


def is_saved(app) -> bool:
    return sessions.newest() is not None and app.keeper._saved == app.keeper._state()


async def test_nothing_is_saved_before_something_is_done(lab) -> None:
    async with lab() as (_, pilot):
        await pilot.pause(1.5)
        assert sessions.newest() is None


async def test_prompt_configurations_and_branches_come_back(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press(*" rain")
        await ran(app, pilot)
        pane = app.query_one(GeneratePane)
        pane.configure(1, replace(pane.configs[1], temperature=1.5, name="custom"))
        pane.branching.go_on(0, 3, (9,))
        await until(pilot, lambda: len(pane.trees[0].branches) == 2 and at_rest(app))
        await until(pilot, lambda: is_saved(app))
        before = pane.state
    opened = saved()
    assert opened.prompt == "the sky above rain"
    async with lab(session=opened) as (app, pilot):
        pane = app.query_one(GeneratePane)
        assert session.from_trees(*pane.state) == session.from_trees(*before)
        assert app.query_one(PromptPane).text == "the sky above rain"
        lanes = app.query_one(LanesPane).lanes
        assert [step.token.id for step in lanes[0].steps] == list(before[1][0].shown.ids)
        inspector = app.query_one(Inspector)
        await until(pilot, lambda: inspector.border_title is not None and "step" in str(inspector.border_title))
        pane.branching.go_on(0, 5, (7,))  # a branch that came back can be gone on with
        await until(pilot, lambda: len(pane.trees[0].branches) == 3 and at_rest(app))


async def test_leaving_saves_what_the_last_second_brought(lab) -> None:
    async with lab() as (_, pilot):
        await pilot.press(*" city")
        await pilot.press("ctrl+q")
    assert saved().prompt == "the sky above city"


async def test_what_a_run_has_written_so_far_is_saved(lab, tiny_long: Path) -> None:
    from tests.tui.test_app import ENDLESS

    async with lab(model=str(tiny_long), configs=ENDLESS) as (app, pilot):
        await pilot.press("f9", "f5")
        await until(pilot, lambda: sessions.newest() is not None and bool(saved().lanes[0].branches))
        assert app.query_one(GeneratePane).running
        assert saved().lanes[0].branches[0].steps
        await pilot.press("escape")
        await until(pilot, lambda: at_rest(app))


async def test_another_model_begins_another_session_and_the_one_before_stays(lab, tiny_gpt2: Path) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        await until(pilot, lambda: is_saved(app))
        first = sessions.newest()
        app.loader.load(str(tiny_gpt2))
        await until(pilot, lambda: app.lab.facts.architecture == "gpt2" and not app.loader.loading)
        await ran(app, pilot)
        await until(pilot, lambda: is_saved(app) and sessions.newest() != first)
        assert first is not None
        assert session.read(first).model.name != saved().model.name
        assert all(lane.branches for lane in session.read(first).lanes)


async def test_a_session_whose_model_is_gone_is_shown_and_nothing_is_lost(lab, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "gone", "llama")
    async with lab(model=str(folder)) as (app, pilot):
        await ran(app, pilot)
        await pilot.press("ctrl+q")
    opened = saved()
    folder.rename(tmp_path / "elsewhere")
    async with lab(model=opened.model.name, session=opened, wait=False) as (app, pilot):
        await until(pilot, lambda: any("F2" in note.message or "no " in note.message for note in app._notifications))
        assert [step.token.text for step in app.query_one(LanesPane).lanes[0].steps]
        await pilot.press("ctrl+q")
    assert [lane.branches for lane in saved().lanes] == [lane.branches for lane in opened.lanes]
    assert saved().model == opened.model


async def test_sessions_are_chosen_begun_and_deleted_in_a_dialog(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press(*" one")
        await until(pilot, lambda: is_saved(app))
        first = app.keeper.name
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, SessionsDialog))
        await pilot.press("n")
        await until(pilot, lambda: app.query_one(PromptPane).text == Session().prompt)
        await pilot.press("end", *" two")
        await until(pilot, lambda: is_saved(app) and app.keeper.name not in (None, first))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, SessionsDialog))
        table = app.screen.query_one(DataTable)
        assert table.row_count == 2
        await pilot.press("delete")
        assert "This one is open" in str(app.screen.query_one("#sessions-says").render())
        table.move_cursor(row=1)
        await pilot.press("enter")
        await until(pilot, lambda: app.query_one(PromptPane).text == "the sky above one")
        assert app.keeper.name == first
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, SessionsDialog))
        table = app.screen.query_one(DataTable)
        table.move_cursor(
            row=[one.name for one in app.screen._listed].index(
                next(one.name for one in app.screen._listed if one.name != first)
            )
        )
        await pilot.press("delete", "delete")
        await until(pilot, lambda: table.row_count == 1)
        await pilot.press("escape")


async def test_a_state_folder_that_cannot_be_written_is_told_once(lab, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOGITLAB_STATE_DIR", str(tmp_path / "file"))
    async with lab() as (app, pilot):
        await pilot.press(*" x")
        await until(pilot, lambda: any("not saved" in note.message for note in app._notifications))
        await pilot.press(*"y")
        await pilot.pause(1.5)
        assert sum("not saved" in note.message for note in app._notifications) == 1
        assert app.query_one(PromptPane).text == "the sky above xy"


async def test_the_saved_file_is_as_the_schema_says(lab) -> None:
    import jsonschema

    async with lab() as (app, pilot):
        await ran(app, pilot)
        await until(pilot, lambda: is_saved(app))
    document = json.loads(sessions.newest().read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(session.schema()).validate(document)


async def test_a_model_on_its_way_does_not_become_the_old_session_s(lab, tiny_gpt2: Path) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        await until(pilot, lambda: is_saved(app))
        first = app.keeper.model
        async for _ in app.lab.load(str(tiny_gpt2)):  # the worker has it, the screen does not know yet
            pass
        assert app.lab.facts.identity != first.identity
        assert app.keeper.gather().model == first
