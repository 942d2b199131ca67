"""The lesson beside the lab: every live part drives the real panes."""

from pathlib import Path

import pytest
from textual.widgets import Button, OptionList, Static, TabbedContent

from engine.base.errors import InputError
from engine.lessons.lesson import Lesson, Live, builtin, parse, read_lesson
from tests.tui.conftest import at_rest, until
from tests.tui.test_app import lanes_of
from tui.panes.generate import GeneratePane
from tui.panes.inside import InsidePane
from tui.panes.lanes import LanesPane
from tui.panes.lesson import LessonPanel
from tui.panes.prompt import PromptPane
from tui.panes.prompt_area import PromptArea
from tui.panes.timing import TimingPane
from tui.panes.variants import VariantsPane
from tui.widgets.candidate_list import CandidateList
from tui.widgets.grid import Grid


def english() -> Lesson:
    return read_lesson(builtin("en"))


def answered(app) -> str:
    return str(app.query_one("#lesson-answer", Static).render())


def quiet(app) -> bool:
    """Whether nothing that a page started goes on."""
    sweeping = app.query_one(TimingPane).running
    job = app.query_one(GeneratePane).job
    return (
        (at_rest(app) or (job is not None and job.paused)) and not app.query_one(VariantsPane).running and not sweeping
    )


async def panel_of(app, pilot) -> LessonPanel:
    panel = app.query_one(LessonPanel)
    await until(pilot, lambda: panel.lesson is not None and app.screen.has_class("teaching"))
    await pilot.pause()
    return panel


@pytest.mark.parametrize("number", range(12))
async def test_every_page_asks_the_model_and_drives_the_lab(lab, number: int) -> None:
    async with lab(lesson=english(), lesson_page=number) as (app, pilot):
        panel = await panel_of(app, pilot)
        page = panel.page
        assert page.title in str(app.query_one("#lesson-title", Static).render())
        await pilot.press("d")
        assert "Predict first" in str(app.query_one("#lesson-says", Static).render())
        await pilot.press("enter")
        await until(pilot, lambda: "✓" in answered(app) or "✗" in answered(app) or "None of them" in answered(app))
        await pilot.press("d")
        await until(pilot, lambda: app.query_one(TabbedContent).active == f"{page.live.view}-tab")
        if page.live.prompt is not None:
            assert app.query_one(PromptPane).text == page.live.prompt
        if page.live.run == "variants":
            await until(pilot, lambda: len(app.query_one(VariantsPane).results) == 3)
        elif page.live.run == "timing":
            timing = app.query_one(TimingPane)
            await until(pilot, lambda: bool(timing.measurements) and timing.measurements[-1].complete)
            assert timing.chart == "cache"
        elif page.live.run:
            await until(pilot, lambda: all(lane.steps for lane in app.query_one(LanesPane).lanes))
        await until(pilot, lambda: quiet(app) and app.lesson.live is None)
        if page.live.look in ("lane-a", "lane-b") and page.live.at is not None:
            lane = app.query_one(LanesPane).lanes[int(page.live.look == "lane-b")]
            assert lane.cursor == page.live.at
            assert lane in app.focused.ancestors
        elif page.live.look == "inspector":
            assert isinstance(app.focused, CandidateList)


async def test_a_picture_of_the_inside_opens_when_the_lanes_are_written(lab) -> None:
    async with lab() as (app, pilot):
        inside = app.query_one(InsidePane)
        for at, place in ((-1, -1), (1, 1), (-99, 0)):
            app.lesson.do(Live(prompt="the city looked calm", view="inside", run="lanes", look="lens", at=at))
            await until(pilot, lambda: app.lesson.live is None and inside.opened and inside.lanes[0].record is not None)
            wanted = len(app.query_one(PromptArea).tokens) - 1 if place == -1 else place
            await until(pilot, lambda wanted=wanted: inside.lanes[0].position == wanted)
            assert inside.picture == "lens"
            assert isinstance(app.focused, Grid)
            assert app.query_one(GeneratePane).lanes[0].steps
        app.lesson.do(Live(prompt="the robot", view="inside", run="step", look="attention", at=0))
        await until(pilot, lambda: app.lesson.live is None)
        await until(pilot, lambda: inside.lanes[0].attention.attention is not None)
        assert (inside.picture, inside.lanes[0].position) == ("attention", 0)
        assert app.query_one(GeneratePane).running  # the lanes are paused


async def test_the_focus_stays_where_somebody_turned_to_before_the_lanes_were_written(lab) -> None:
    async with lab(lesson=english()) as (app, pilot):
        panel = await panel_of(app, pilot)
        await pilot.press("enter")
        live = Live(prompt="the city looked calm", run="step", look="lane-a", at=1)
        for turn in ("ctrl+l", "x"):
            app.lesson.do(live)
            await until(pilot, lambda: app.query_one(GeneratePane).running and len(lanes_of(app)[0].steps) < 2)
            if turn == "x":
                app.query_one(PromptPane).focus()
                await pilot.pause()
            else:
                panel.screen.set_focus(None)
            await pilot.press(turn)
            assert app.lesson.live is live
            focused = app.focused
            app.query_one(GeneratePane).step()
            await until(pilot, lambda: app.lesson.live is None)
            await pilot.pause()
            assert lanes_of(app)[0].cursor == 1
            assert app.focused is focused
            await app.run_action("stop")
            await until(pilot, lambda: quiet(app))
        assert "x" in app.query_one(PromptPane).text


async def test_a_question_that_the_model_cannot_answer_is_greyed_and_the_lesson_goes_on(lab) -> None:
    page = "[question]\nask = 'decided'\nof = 'the sky'\nat = 99\ntext = '?'\nchoices = ['low', 'high']\n+++\n"
    lesson = parse(f"+++\ntitle = 'One'\n{page}+++\ntitle = 'Two'\n+++\n")
    async with lab(lesson=lesson) as (app, pilot):
        panel = await panel_of(app, pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "no position 99" in answered(app))
        assert app.query_one("#lesson-answer", Static).content.style == "dim"
        await pilot.press("n")
        await until(pilot, lambda: panel.number == 1)


async def test_an_exercise_asks_the_model_too_and_its_lanes_run_side_by_side(lab) -> None:
    async with lab(lesson=english(), lesson_page=5) as (app, pilot):
        panel = await panel_of(app, pilot)
        await pilot.press("e")
        await until(pilot, lambda: panel.question is panel.page.practice)
        await pilot.press("d")
        assert "Predict first" in str(app.query_one("#lesson-says", Static).render())
        await pilot.press("down", "enter")
        await until(pilot, lambda: "rank below 4" in answered(app))
        await pilot.press("d")
        pane = app.query_one(GeneratePane)
        await until(pilot, lambda: all(lane.reason for lane in pane.lanes) and quiet(app))
        assert [config.top_k for config in pane.configs] == [40, 4]
        panel.query_one(OptionList).focus()
        await pilot.press("e")
        await until(pilot, lambda: panel.question is panel.page.question and not answered(app))
        await pilot.press("n", "n", "n", "n")
        await until(pilot, lambda: panel.number == 9)
        await pilot.press("e")
        assert "asks nothing" in str(app.query_one("#lesson-says", Static).render())


async def test_pages_are_turned_by_keys_and_progress_is_remembered(lab) -> None:
    async with lab(lesson=english()) as (app, pilot):
        panel = await panel_of(app, pilot)
        await pilot.press("left")
        assert "first page" in str(app.query_one("#lesson-says", Static).render())
        await pilot.press("right", "right")
        await until(pilot, lambda: panel.number == 2)
        await pilot.press("h")
        assert panel.page.hints[0] in str(app.query_one("#lesson-exercise", Static).render())
        await pilot.press("ctrl+l")
        await until(pilot, lambda: not app.screen.has_class("teaching"))
        await pilot.press("ctrl+l")
        await until(pilot, lambda: app.screen.has_class("teaching"))
    async with lab(lesson=english()) as (app, pilot):
        assert (await panel_of(app, pilot)).number == 2


async def test_the_teacher_shows_one_thing_at_a_time(lab) -> None:
    async with lab(lesson=english(), lesson_page=0, teacher=True, size=(160, 45)) as (app, pilot):
        panel = await panel_of(app, pilot)
        parts = panel._parts()
        assert parts[-2:] == ["question", "exercise"]
        assert not app.query_one("#lesson-question").display
        for _ in range(len(parts) - 2):
            await pilot.press("right")
        await until(pilot, lambda: app.query_one("#lesson-question").display)
        assert not app.query_one("#lesson-exercise").display
        await pilot.press("right", "right")
        await until(pilot, lambda: panel.number == 1)
        await pilot.press("left")
        await until(pilot, lambda: panel.number == 0 and app.query_one("#lesson-exercise").display)


async def test_on_a_narrow_screen_lesson_and_lab_take_turns(lab) -> None:
    async with lab(lesson=english(), lesson_page=0, size=(80, 24)) as (app, pilot):
        await panel_of(app, pilot)
        assert not app.query_one("#lab").display
        await pilot.press("d", "d")
        await until(pilot, lambda: app.query_one("#lab").display and quiet(app))
        await pilot.press("ctrl+l")
        await until(pilot, lambda: not app.query_one("#lab").display)


async def test_a_page_without_live_part_or_question_is_only_read(lab) -> None:
    async with lab(lesson=parse('+++\ntitle = "[red]x"\n+++\nText [bold]\n')) as (app, pilot):
        panel = await panel_of(app, pilot)
        assert "[red]x" in str(app.query_one("#lesson-title", Static).render())
        assert not app.query_one("#lesson-do", Button).display
        assert app.query_one(OptionList).option_count == 0
        panel.action_do()
        await pilot.press("right")
        assert "last page" in str(app.query_one("#lesson-says", Static).render())


async def test_a_question_waits_for_the_model(lab, tiny_llama: Path) -> None:
    async with lab(lesson=english(), lesson_page=2, wait=False) as (app, pilot):
        await panel_of(app, pilot)
        app.query_one(OptionList).focus()
        await pilot.press("enter")
        await until(pilot, lambda: "✓" in answered(app) or "✗" in answered(app))


async def test_a_lesson_that_cannot_be_read_is_closed_by_the_same_key(lab, monkeypatch) -> None:
    def unreadable(*_: object) -> None:
        raise InputError("this lesson cannot be read")

    monkeypatch.setattr("tui.lesson_driver.read_lesson", unreadable)
    async with lab((120, 36)) as (app, pilot):
        await pilot.press("ctrl+l")
        await until(pilot, lambda: len(app._notifications) == 1)
        await pilot.press("tab", "ctrl+l")
        assert not app.screen.has_class("teaching")
