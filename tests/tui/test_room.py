"""Room: a pane as the whole screen and back, and the split between lanes and inspector, by keyboard."""

import pytest
from textual.widgets import DataTable

from engine.base import settings
from tests.tui.conftest import ran, until
from tests.tui.test_app import lanes_of
from tui.panes.inspector import Inspector
from tui.panes.lanes import LanesPane
from tui.panes.prompt import PromptPane
from tui.widgets.candidate_list import CandidateList
from tui.widgets.footer import Footer
from tui.widgets.token_flow import TokenFlow


def whole(app) -> str | None:
    """What is the whole screen, checked on what is drawn; `None` where the bench is."""
    pane = app.screen.maximized
    if pane is None:
        assert app.workbench.region.height == app.size.height - 1
        return None
    assert pane.region == (0, 0, app.size.width, app.size.height - 1)
    assert app.query_one(Footer).region.y == app.size.height - 1
    return pane.id


async def test_one_key_makes_the_focused_pane_the_whole_screen_and_back(lab) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        assert whole(app) is None
        a, b = lanes_of(app)
        a.query_one(TokenFlow).focus()
        await pilot.press("home", "right")
        await pilot.press("z")
        assert whole(app) == "lane-a"
        assert a.cursor == 1
        await pilot.press("right", "b", "escape")  # its keys stay its own, and its dialogs open over it
        assert whole(app) == "lane-a"
        b.query_one(TokenFlow).focus()
        await pilot.pause()
        assert whole(app) == "lane-b"
        await pilot.press("z")
        assert whole(app) is None
        assert app.focused is b.query_one(TokenFlow)

        rows = app.query_one(CandidateList)
        rows.focus()
        before = rows.size.height
        await pilot.press("z")
        assert whole(app) == "inspector"
        assert rows.size.height > before + 10
        await pilot.press("slash", *"rain", "escape")  # which closes the filter, then goes back
        assert whole(app) == "inspector"
        await pilot.press("escape")
        assert whole(app) is None

        app.query_one(PromptPane).focus()
        await pilot.press("z")
        assert whole(app) is None
        assert app.query_one(PromptPane).text == "the sky abovez"
        await pilot.press("alt+z")
        assert whole(app) == "prompt"
        await pilot.press("f8")  # another view: the bench is there again
        await pilot.pause()
        assert whole(app) is None


async def test_the_loop_is_a_pane_that_shows_every_stage_as_the_whole_screen(lab) -> None:
    async with lab() as (app, pilot):
        loop = app.workbench.loop_diagram
        loop.focus()
        await pilot.press("z")
        assert whole(app) == "loop"
        assert "once a lane has run: F5" in loop.render().plain, "what will be there, and which key brings it"
        await pilot.press("z")
        pane = await ran(app, pilot)
        loop.focus()
        await pilot.pause()
        assert loop.render().plain.count("\n") == 1, "a line, and the way back"
        assert loop.render().plain.startswith("▐"), "the focus is seen without colours"
        await pilot.press("z")
        assert whole(app) == "loop"
        step, rows = loop.step, [line for line in loop.render().plain.splitlines() if line.strip()]
        assert step is not None
        assert step in pane.lanes[step.lane].steps
        (model,) = [line for line in rows if line.startswith(" ┌▶  model")]
        assert f"step {step.index + 1}: {step.token.position} ids in" in model
        (back,) = [line for line in rows if line.startswith(" └─  append")]
        assert f"now {step.token.position + 1} tokens" in back
        assert len([line for line in rows if line.strip("│ ") == "▼"]) == 5
        await pilot.press("escape")
        assert whole(app) is None


async def test_escape_stops_a_run_first_and_goes_back_then(lab, tiny_long) -> None:
    from tests.tui.test_app import ENDLESS

    async with lab(model=str(tiny_long), configs=ENDLESS) as (app, pilot):
        await pilot.press("f5")
        a = lanes_of(app)[0]
        await until(pilot, lambda: len(a.steps) > 3)
        a.query_one(TokenFlow).focus()
        await pilot.press("z")
        assert whole(app) == "lane-a"
        await pilot.press("escape")
        await until(pilot, lambda: not app.workbench.generate.running)
        assert whole(app) == "lane-a"
        await pilot.press("escape")
        assert whole(app) is None
        title = str(app.query_one(Inspector).border_title)  # it was not to be seen while the lane was written
        assert f"step {len(a.steps)} " in title


@pytest.mark.parametrize("view", ["tokens", "timing", "inside"])
async def test_tables_charts_and_pictures_can_be_the_whole_screen(lab, view: str) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        app.workbench.view = view
        await pilot.pause()
        if view == "inside":
            await until(pilot, lambda: app.workbench.inside.opened)
        else:
            app.query_one("#token-table" if view == "tokens" else "#timing-table", DataTable).focus()
        await pilot.press("z")
        assert whole(app) == {"tokens": "token-table", "timing": "timing-table", "inside": "inside-a"}[view]
        if view == "timing":
            app.query_one("#timing-chart").focus()
            await pilot.pause()
            assert whole(app) == "timing-chart"
        await pilot.press("z")
        assert whole(app) is None


@pytest.mark.parametrize(("size", "kind"), [((120, 36), "tall"), ((200, 50), "high"), ((80, 24), "low")])
async def test_the_split_moves_by_keyboard_and_is_remembered(lab, size: tuple[int, int], kind: str) -> None:
    async with lab(size=size) as (app, pilot):
        await ran(app, pilot)
        inspector, lanes = app.query_one(Inspector), app.query_one(LanesPane)
        lanes_of(app)[0].query_one(TokenFlow).focus()
        if not inspector.display:
            await pilot.press("i")
        before = (lanes.outer_size.height, inspector.outer_size.height)
        step = -2 if kind == "low" else 2  # a low screen begins with the lowest lanes
        await pilot.press(*["greater_than_sign" if step > 0 else "less_than_sign"] * 1)
        await pilot.pause()
        assert (lanes.outer_size.height, inspector.outer_size.height) == (before[0] - step, before[1] + step)
        assert settings.load().inspector_rows == {kind: before[1] + step}
        await pilot.press("i")  # without the inspector, the lanes have all of it
        await pilot.pause()
        assert lanes.outer_size.height >= sum(before) - 3
        await pilot.press("i")
        await pilot.pause()
        assert inspector.outer_size.height == before[1] + step
        to_the_end = size[1] // 2  # two rows a key
        await pilot.press(*["less_than_sign"] * to_the_end)
        await pilot.pause()
        assert inspector.outer_size.height == 6
        await pilot.press(*["greater_than_sign"] * to_the_end)
        await pilot.pause()
        assert lanes.outer_size.height == 4
        rows = inspector.outer_size.height
    async with lab(size=size) as (app, pilot):
        inspector = app.query_one(Inspector)
        if kind == "low":
            app.workbench.generate.action_inspector()
        await pilot.pause()
        await pilot.pause()
        assert inspector.outer_size.height == rows
        lanes_of(app)[0].focus()
