"""Both languages on the screen: nothing is cut that was written for its place."""

import re
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.text import Text
from textual.containers import ScrollableContainer
from textual.pilot import Pilot
from textual.widgets import Button, Checkbox, DataTable, Label, Static, Tab, TabbedContent

from engine.base import language
from tests.engine.chat_templates import OPTIONS
from tests.tui.conftest import ran, until
from tests.tui.test_snapshots import measured, served
from tui.actions.timing import CHARTS
from tui.app import LogitlabApp
from tui.dialogs.branch import BranchDialog
from tui.dialogs.branches import BranchesDialog
from tui.dialogs.choose_file import ChooseFile
from tui.dialogs.config_editor import ConfigEditor
from tui.dialogs.edit_text import EditText
from tui.dialogs.export import ExportDialog
from tui.dialogs.greeting import Greeting
from tui.dialogs.help import Help
from tui.dialogs.key_sheet import KeySheet
from tui.dialogs.model_picker import ModelPicker
from tui.dialogs.samples import SamplesDialog
from tui.dialogs.sessions import SessionsDialog
from tui.dialogs.template_options import TemplateOptions
from tui.dialogs.texts import TextsDialog
from tui.dialogs.variant_result import VariantResultDialog
from tui.panes.conversation import ConversationPane
from tui.panes.lanes import LanesPane
from tui.panes.status import StatusLine
from tui.screens import Dialog
from tui.widgets.chart_view import ChartView
from tui.widgets.footer import Footer

# All that there are, so that a new one has to be walked to.
DIALOGS = sorted(
    found[1]
    for file in (Path(__file__).parents[2] / "tui" / "dialogs").glob("*.py")
    for found in re.finditer(r"^class (\w+)\(Dialog\[", file.read_text(encoding="utf-8"), re.MULTILINE)
    if found[1] != "Greeting"
)


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


def cut_lines(app) -> list[str]:
    """Texts that neither wrap within their place, nor end with an ellipsis, nor can be scrolled to."""
    found = []
    for widget in app.screen.query(Static):
        ellipsis = widget.styles.text_overflow == "ellipsis" and widget.styles.text_wrap == "nowrap"
        content = widget.content
        if isinstance(content, Text):
            ellipsis |= content.overflow == "ellipsis" and bool(content.no_wrap)
        scrolled = any(isinstance(one, ScrollableContainer) for one in widget.ancestors)
        if not shown(widget) or ellipsis or scrolled:
            continue
        width, height = widget.content_size
        needs = widget.visual.get_height(widget.styles, width)
        widest = max((cell_len(word) for word in str(widget.render()).split()), default=0)
        if needs > height or (widget.styles.text_wrap == "nowrap" and widest > width):
            found.append(f"{widget!r}: {needs} lines in {height}: {widget.render()}")
    for dialog in app.screen.query(".dialog"):
        if not app.screen.region.contains_region(dialog.region):
            found.append(f"{dialog!r} reaches beyond the screen")
    return found


@dataclass
class Walk:
    """The lab, walked through by keys; what is cut is noted with the way to it."""

    app: LogitlabApp
    pilot: Pilot
    places: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    async def look(self, place: str) -> None:
        await self.pilot.pause()
        await until(self.pilot, lambda: not self.app.workbench.inside.running)
        self.places.append(place)
        self.found += [f"{place}: {one}" for one in (*cut(self.app), *cut_lines(self.app))]

    async def dialog(self, kind: type[Dialog], *keys: str) -> None:
        """Look at a dialog that keys open, and leave it."""
        await self.pilot.press(*keys)
        await until(self.pilot, lambda: isinstance(self.app.screen, kind) and bool(self.app.screen.query(".dialog")))
        await until(self.pilot, lambda: not any(table.loading for table in self.app.screen.query(DataTable)))
        await self.look(kind.__name__)
        depth = len(self.app.screen_stack)
        await self.pilot.press("escape")
        await until(self.pilot, lambda: len(self.app.screen_stack) < depth)

    async def view(self, name: str) -> None:
        self.app.workbench.view = name
        self.app.workbench.land()
        await self.pilot.pause()
        await self.look(name)
        await self.dialog(KeySheet, "question_mark")
        await self.pilot.press("alt+z")
        await self.look(f"{name}, zoomed")
        await self.pilot.press("alt+z")


SIZES = [(80, 24), (120, 36), (200, 50)]
# Where room is least for the longest texts; the others are walked at length.
LEAST = [((80, 24), "ja")]
WALKS = [
    pytest.param(*walk, marks=[] if walk in LEAST else pytest.mark.long)
    for walk in product(SIZES, language.languages())
]


@pytest.mark.parametrize(("size", "name"), WALKS)
async def test_nothing_is_cut(lab, spoken, size: tuple[int, int], name: str) -> None:
    """Every view, picture and dialog."""
    spoken(name)
    async with lab(size=size) as (app, pilot):
        walk = Walk(app, pilot)
        await walk.look("before a run")
        await ran(app, pilot)
        await pilot.press("escape", "A", "home", "right")

        await walk.view("generate")
        await pilot.press("A")
        for kind, key in ((BranchDialog, "b"), (BranchesDialog, "t"), (SamplesDialog, "m")):
            await walk.dialog(kind, key)
        await pilot.press("I")
        await walk.look("inspector")
        await walk.dialog(KeySheet, "question_mark")
        await pilot.press("plus", "s")
        await walk.look("inspector, turned")
        await pilot.press("slash")
        await walk.look("find")
        await pilot.press("escape")
        for key in ("less_than_sign", "greater_than_sign"):
            await pilot.press("A", *[key] * 4)
            await walk.look(f"split {key}")

        await walk.view("tokens")

        await walk.view("prompts")
        await walk.dialog(EditText, "a")
        await walk.dialog(ChooseFile, "o")
        await pilot.press("R")
        await until(pilot, lambda: len(app.workbench.variants.results) == 3 and not app.workbench.variants.running)
        app.workbench.variants.table.focus()
        await walk.look("variants")
        await walk.dialog(KeySheet, "question_mark")
        await walk.dialog(VariantResultDialog, "enter")
        await walk.dialog(EditText, "v")

        await walk.view("timing")
        app.workbench.timing.restore([measured(), served()])
        for chart in CHARTS:
            app.workbench.timing.action_chart(chart)
            await walk.look(f"timing, {chart}")

        await walk.view("inside")
        for picture in ("1", "2", "3", "4"):
            await pilot.press(picture)
            await walk.look(f"inside, {picture}")
            if picture in "13":
                await walk.dialog(TextsDialog, "t")
        await pilot.press("l")
        await walk.look("inside, both")

        for kind, key in ((ConfigEditor, "f4"), (Help, "f1"), (ModelPicker, "f2"), (ExportDialog, "ctrl+s")):
            await walk.dialog(kind, key)
        await walk.dialog(SessionsDialog, "ctrl+o")
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, ConfigEditor))
        for key in ("f5", "f6"):
            await walk.dialog(ChooseFile, key)
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        assert app.lab.tokenizer is not None
        app.lab.tokenizer.chat_template = OPTIONS
        await pilot.press("alt+p", "ctrl+t", "up")
        await until(pilot, lambda: app.focused is app.query_one(ConversationPane))
        await walk.look("messages")
        await walk.dialog(KeySheet, "question_mark")
        await walk.dialog(TemplateOptions, "o")
        await walk.dialog(ChooseFile, "f")
        await pilot.press("ctrl+t")
        await pilot.press("ctrl+l")
        await until(pilot, lambda: app.screen.has_class("teaching"))
        for _page in range(3):
            await walk.look("lesson")
            app.query_one("#lesson-next").focus()
            await pilot.press("right")
        if size[0] >= 200:
            footer = app.query_one(Footer)
            assert len(footer.shown) == len(footer.keys), "every key has room at 200 columns"
        assert not walk.found, "\n".join(dict.fromkeys(walk.found))
        assert set(DIALOGS) <= set(walk.places), "every dialog but the greeting"


@pytest.mark.parametrize("name", language.languages())
@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
async def test_nothing_of_the_greeting_is_cut(lab, spoken, name: str, size: tuple[int, int]) -> None:
    spoken(name)
    async with lab(size=size, first=True, wait=False) as (app, pilot):
        walk = Walk(app, pilot)
        await walk.dialog(Greeting)
        assert not walk.found, "\n".join(walk.found)


async def test_what_is_cut_is_found(lab) -> None:
    async with lab(size=(80, 24)) as (app, pilot):
        assert not cut_lines(app)
        long = Static("too long for a line " * 9)
        long.styles.height = 1
        await app.screen.mount(long, before=0)
        await pilot.pause()
        assert any("too long" in one for one in cut_lines(app))


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
