"""For those who see little, see no colours, or do not want things to move."""

import pytest
from rich.segment import Segment
from textual.app import App
from textual.command import CommandPalette
from textual.widgets import Input, TextArea

from engine.base import settings
from engine.base.plain import percent
from tests.tui.conftest import at_rest, ran, until
from tui.dialogs.model_picker import ModelPicker
from tui.panes.generate import GeneratePane
from tui.panes.linear import LinearPane
from tui.style.theme import THEMES
from tui.widgets.footer import Footer
from tui.workbench import VIEWS


def without_colours(app: App[None]) -> list[list[tuple[str, tuple[object, ...]]]]:
    """The screen's cells above the footer: each character with what is not a colour about it."""
    height = app.screen.query_one(Footer).region.y
    rows = []
    for strip in app.screen._compositor.render_strips()[:height]:
        row: list[tuple[str, tuple[object, ...]]] = []
        for text, style, control in Segment.simplify(strip):
            if not control:
                look = (style.bold, style.underline, style.reverse, style.italic) if style else ()
                row += [(char, tuple(map(bool, look))) for char in text]
        rows.append(row)
    return rows


# The first theme in all views where there is room, the others where room is short; the rest are long.
LOOKS = [
    pytest.param(theme.name, size, marks=[] if (theme is THEMES[0]) == (size == (120, 36)) else pytest.mark.long)
    for theme in THEMES
    for size in ((120, 36), (80, 24))
]


@pytest.mark.parametrize(("theme", "size"), LOOKS)
async def test_the_focus_is_seen_without_colours(lab, size: tuple[int, int], theme: str) -> None:
    """Every stop of tab differs from the screen without it in more than colours, in every view and theme."""
    settings.change(reduced_motion=True, theme=theme)
    async with lab(size=size) as (app, pilot):
        await ran(app, pilot)
        unseen = []
        for view in VIEWS if theme == THEMES[0].name else ("generate",):
            app.workbench.view = view
            await pilot.pause()
            await until(pilot, lambda: not app.workbench.inside.running)
            app.workbench.prompt.focus()
            stops: list[object] = []
            for _ in range(40):
                await pilot.pause()
                focused = app.focused
                if focused is None or focused in stops:
                    break
                stops.append(focused)
                seen = without_colours(app)
                app.screen.set_focus(None)
                await pilot.pause()
                if without_colours(app) == seen:
                    unseen.append(f"{view}: {focused!r}")
                app.screen.set_focus(focused)
                await pilot.press("tab")
            assert len(stops) >= 2
        assert not unseen, "\n".join(unseen)


async def test_with_reduced_motion_nothing_blinks_or_slides_and_it_is_remembered(lab) -> None:
    async with lab() as (app, pilot):
        prompt = app.workbench.prompt
        assert prompt.cursor_blink
        assert app.animation_level == "full"
        app.action_reduce_motion()
        assert (app.animation_level, prompt.cursor_blink) == ("none", False)
        assert prompt._cursor_visible
        assert settings.load().reduced_motion
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, ModelPicker) and isinstance(app.focused, Input))
        await until(pilot, lambda: not app.focused.cursor_blink and app.focused._cursor_visible)
        await pilot.press("escape")
        # The loop shows what came of a step, and does not light stage after stage.
        await pilot.press("f6")
        await until(pilot, lambda: app.workbench.loop_diagram.stage == "append")
        assert app.workbench.loop_diagram._timer is None
    async with lab() as (app, pilot):
        assert app.animation_level == "none"
        await until(pilot, lambda: isinstance(app.focused, TextArea) and not app.focused.cursor_blink)
        app.action_reduce_motion()
        assert (app.animation_level, app.focused.cursor_blink) == ("full", True)
        assert not settings.load().reduced_motion


async def test_what_textual_is_told_by_the_environment_stays(lab, monkeypatch) -> None:
    monkeypatch.setattr("textual.constants.TEXTUAL_ANIMATIONS", "none")
    async with lab() as (app, pilot):
        await until(pilot, lambda: not app.workbench.prompt.cursor_blink)
        app.action_reduce_motion()
        app.action_reduce_motion()
        assert app.animation_level == "none"
        await until(pilot, lambda: any("TEXTUAL_ANIMATIONS says so" in note.message for note in app._notifications))


async def test_in_linear_mode_each_event_is_a_line_and_no_line_changes(lab) -> None:
    async with lab() as (app, pilot):
        pane = await ran(app, pilot)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: bool(app.screen.query(Input)))
        await pilot.press(*"linear")
        await pilot.pause(0.3)
        await pilot.press("enter")
        if isinstance(app.screen, CommandPalette):  # it has only marked the entry
            await pilot.press("enter")
        linear = app.query_one(LinearPane)
        await until(pilot, lambda: linear.is_on_screen and app.focused is linear)
        assert not app.query_one(GeneratePane).is_on_screen
        step = pane.lanes[0].steps[2]
        said = f"lane A, step 3: {step.token.label}, {percent(step.raw_probability)}, rank {step.rank}"
        assert said in linear.lines
        before = list(linear.lines)
        assert len([line for line in before if line.startswith("lane")]) == 24
        await pilot.press("f5")
        await until(pilot, lambda: at_rest(app) and sum("ends" in line for line in linear.lines) == 2)
        after = list(linear.lines)
        assert after[: len(before)] == before
        new = after[len(before) :]
        assert [line for line in new if "begins" in line] == [
            "lane A begins: greedy",
            "lane B begins: contrastive k4 α0.6",
        ]
        assert any(line.startswith("the prompt is read, ") for line in new)
        assert len([line for line in new if ", step " in line]) == 24
        assert "lane B ends: reached its length" in new
        await pilot.press("f8")  # the views again
        await until(pilot, lambda: not linear.is_on_screen and app.query_one(GeneratePane).is_on_screen)
        count = len(linear.lines)
        await ran(app, pilot)
        assert len(linear.lines) == count
