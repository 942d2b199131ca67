"""Japanese on the screen: nothing is cut that was written for its place."""

import re

import pytest
from rich.cells import cell_len
from textual.widgets import Button, Checkbox, DataTable, Label, Static, Tab, TabbedContent

from engine.base import language
from tests.tui.conftest import ran, until
from tests.tui.test_snapshots import measured, served
from tui.actions.timing import CHARTS
from tui.dialogs.config_editor import ConfigEditor
from tui.dialogs.help import Help
from tui.panes.lanes import LanesPane
from tui.panes.status import StatusLine
from tui.widgets.chart_view import ChartView
from tui.widgets.footer import Footer

VIEWS = ["generate", "tokens", "prompts", "timing", "inside"]


def shown(widget) -> bool:
    return widget.display and widget.region.area > 0


def cut(app) -> list[str]:
    """Labels, buttons, tabs, headings and titles whose text has no room."""
    found = []
    for widget in app.screen.query("Label, Button, Checkbox, Tab"):
        if shown(widget) and isinstance(widget, (Label, Button, Checkbox, Tab)):
            text = widget.label.plain if isinstance(widget, (Button, Checkbox, Tab)) else str(widget.render())
            if cell_len(text) > widget.content_size.width:
                found.append(f"{widget!r}: {text}")
    for table in app.screen.query(DataTable):
        if shown(table) and table.max_scroll_x > 0 and table.id != "timing-table":  # which scrolls where room is short
            found.append(f"{table!r} is wider than its place")
        for column in table.columns.values():
            if shown(table) and cell_len(column.label.plain) > column.get_render_width(table):
                found.append(f"{table!r}: {column.label.plain}")
    for titled in app.screen.query("*"):
        title = getattr(titled, "_border_title", None)
        if title is not None and shown(titled) and cell_len(title.plain) > titled.region.width - 4:
            found.append(f"{titled!r}: {title.plain}")
    return found


@pytest.mark.parametrize("name", language.languages())
@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)])
async def test_nothing_is_cut(lab, spoken, name: str, size: tuple[int, int]) -> None:
    spoken(name)
    async with lab(size=size) as (app, pilot):
        await ran(app, pilot)
        for view in VIEWS:
            app.query_one(TabbedContent).active = f"{view}-tab"
            await pilot.pause(0.1)
            assert not cut(app), view
        for key, dialog in (("f4", ConfigEditor), ("f1", Help)):
            await pilot.press(key)
            await until(pilot, lambda dialog=dialog: isinstance(app.screen, dialog))
            assert not cut(app), key
            await pilot.press("escape")
            await until(pilot, lambda dialog=dialog: not isinstance(app.screen, dialog))
        await pilot.press("ctrl+l")
        await until(pilot, lambda: app.screen.has_class("teaching"))
        await pilot.pause(0.1)
        assert not cut(app)
        if size[0] >= 200:
            footer = app.query_one(Footer)
            assert len(footer.shown) == len(footer.keys), "every key has room at 200 columns"


@pytest.mark.parametrize("view", ["prompts", "timing", "inside"])
async def test_charts_in_japanese_are_text_that_can_be_copied(lab, spoken, view: str) -> None:
    """No invisible characters between letters, which some programs need to draw wide ones."""
    spoken("ja")
    async with lab() as (app, pilot):
        await ran(app, pilot)
        timing = app.workbench.timing
        timing.restore([measured(), served()])
        app.query_one(TabbedContent).active = f"{view}-tab"
        await until(pilot, lambda: any(chart.size.area > 0 for chart in app.query("ChartView, BarChart")))
        for chart in CHARTS if view == "timing" else ("",):
            if chart:
                timing.action_chart(chart)
                drawn = app.query_one("#timing-chart", ChartView).text
                assert re.search("[ぁ-んァ-ヶ一-龠]{3}", drawn.splitlines()[0]), "the title is Japanese"
            await pilot.pause()
            lines = ["".join(piece.text for piece in strip) for strip in app.screen._compositor.render_strips()]
            assert not [line for line in lines if re.search("[\u200b\u200c\u2060\ufeff]", line)]


async def test_the_whole_screen_speaks_japanese(lab, spoken) -> None:
    spoken("ja")
    async with lab() as (app, pilot):
        await ran(app, pilot)
        keys = [key.description for key in app.query_one(Footer).keys]
        assert keys[:3] == ["レーン", "実行", "画面"]
        assert "プロンプト" in app.query_one("#prompt").border_title
        assert "トークン/秒" in app.query_one(StatusLine).render().plain
        assert "レーンはトークン" in str(app.query_one("#legend", Static).render())
        assert "指定の長さ" in app.query_one(LanesPane).lanes[0].border_subtitle
        assert [str(tab.label) for tab in app.query(Tab)] == ["生成", "トークン", "プロンプト", "時間", "内部"]
        commands = [command.title for command in app.get_system_commands(app.screen)]
        assert "両方のレーンを実行" in commands
        assert not [command for command in commands if command.isascii()]


async def test_keys_that_can_do_nothing_are_not_shown(lab) -> None:
    async with lab() as (app, pilot):
        await until(pilot, lambda: "stop" not in keys(app))
        assert not {"pause", "stop", "undo", "branch"} & keys(app)
        await pilot.press("f6")
        await until(pilot, lambda: {"pause", "stop"} <= keys(app))
        await pilot.press("escape")
        await until(pilot, lambda: not {"pause", "stop"} & keys(app))
        app.query_one(LanesPane).lanes[0].query_one("TokenFlow").focus()
        await until(pilot, lambda: {"undo", "branches"} <= keys(app))
        assert "branch" not in keys(app)
        await pilot.press("left")
        await until(pilot, lambda: "branch" in keys(app))
        await pilot.press("u")
        await until(pilot, lambda: "redo" in keys(app))


def keys(app) -> set[str]:
    return {key.description for key in app.query_one(Footer).keys}
