"""The Inside view by keyboard: lens, attention, attribution, occlusion, of one lane or both."""

import asyncio
import json
import math
import re
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.widget import Widget
from textual.widgets import Static

from engine.base.errors import Cancelled
from engine.base.language import _, choose
from tests.conftest import save_tiny
from tests.tui.conftest import holds, ran, until
from tui.app import LogitlabApp
from tui.dialogs.texts import TextsDialog
from tui.exports import exportables
from tui.panes.inside import CAVEATS, InsidePane
from tui.panes.inside_lane import InsideLane
from tui.panes.lanes import LanesPane
from tui.panes.prompt import PromptPane
from tui.sentences import sentence
from tui.style.colours import palette
from tui.widgets.chart_view import ChartView
from tui.widgets.grid import Cell, Grid
from tui.widgets.signed_bars import SignedBars
from tui.widgets.token_flow import TokenFlow


@pytest.fixture(scope="module")
def tiny_mamba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Mamba, which has no attention."""
    sizes = {"state_size": 8, "num_key_value_heads": None, "num_attention_heads": None}
    return save_tiny(tmp_path_factory.mktemp("tiny-mamba"), "mamba", **sizes)


async def looking(app: LogitlabApp, pilot, lane: int = 0) -> InsideLane:
    """Open the view, and wait until a lane is looked at whole."""
    if app.workbench.view != "inside":
        await pilot.press("ctrl+pageup")
    await until(pilot, lambda: app.query_one(InsidePane).opened)
    one = app.query_one(InsidePane).lanes[lane]
    await until(pilot, lambda: one.record is not None and not app.query_one(InsidePane).running)
    return one


async def seen(pilot, lane: InsideLane) -> None:
    """Wait until the lens is whole."""
    await until(pilot, lambda: lens_of(lane) is not None)


def lens_of(lane: InsideLane):
    return lane.lens.whole


def said(lane: InsideLane, name: str) -> str:
    return str(lane.query_one(f".{name}", Static).render())


async def test_the_lens_shows_the_lanes_own_answer_on_top(lab, tiny_deep: Path, monkeypatch) -> None:
    async with lab(model=str(tiny_deep)) as (app, pilot):
        await ran(app, pilot)
        step = app.query_one(LanesPane).lanes[0].steps[-1]
        lane = await looking(app, pilot)
        await seen(pilot, lane)
        lens = lens_of(lane)
        cell = lens.cell(lens.blocks, lane.position)
        assert lane.tokens[lane.position + 1].id == step.token.id == cell.final.id == cell.top[0].id
        assert math.isclose(cell.top[0].probability, step.raw_probability, abs_tol=1e-5)
        grid = lane.lens.grid
        assert app.focused is grid
        assert grid.cursor == (12, lane.position)
        before = lane.position
        await pilot.press("left", "left", "down")
        assert (grid.cursor, lane.position) == ((11, before - 2), before - 2)
        assert app.query_one(LanesPane).lanes[0].cursor == len(app.query_one(LanesPane).lanes[0].steps) - 3
        assert "layer 11 of 12" in said(lane, "lens-cell")
        drawn, render_line = set(), grid.render_line
        monkeypatch.setattr(grid, "render_line", lambda y: (drawn.add(y), render_line(y))[1])
        await pilot.press("right")
        await until(pilot, lambda: bool(drawn))
        await pilot.pause(0.1)
        assert drawn == {0, 2}, "a key draws the header and the cursor's row"
        await pilot.press("home")
        assert app.query_one(LanesPane).lanes[0].cursor is None


async def test_cells_are_coloured_by_three_measures(lab, tiny_deep: Path) -> None:
    async with lab(model=str(tiny_deep)) as (app, pilot):
        await ran(app, pilot)
        lane = await looking(app, pilot)
        await seen(pilot, lane)
        grids = []
        for _measure in range(3):
            grids.append([lane.lens._cell(row, column).colour for row in range(13) for column in range(6)])
            await pilot.press("c")
        assert len({tuple(one) for one in grids}) == 3
        assert all(set(one) <= {*palette(app).five, *palette(app).four} for one in grids)
        marked = [[row for row in range(13) if lane.lens._cell(row, column).marked] for column in range(6)]
        assert [rows[0] for rows in marked] == list(lens_of(lane).decided_at)[:6]


async def test_keys_pressed_before_the_view_is_there_are_not_lost(
    lab, tiny_deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ready, mount = asyncio.Event(), asyncio.Event(), InsidePane.mount

    async def mounted(pane: InsidePane, *widgets: Widget) -> None:
        begun.set()
        await ready.wait()
        await mount(pane, *widgets)

    monkeypatch.setattr(InsidePane, "mount", mounted)
    async with lab(model=str(tiny_deep)) as (app, pilot):
        await ran(app, pilot)
        pane = app.query_one(InsidePane)
        app.query_one(LanesPane).lanes[0].query_one(TokenFlow).focus()
        await pilot.pause()
        for name in ("ctrl+pageup", "l", "2"):
            app.simulate_key(name)  # the pilot would wait until everything rests
        await holds(begun.is_set)
        await holds(lambda: not app.message_queue_size)
        ready.set()
        await until(pilot, lambda: pane.opened and pane.picture == "attention")
        assert pane.both
        assert pane.lanes[0] in app.focused.ancestors


async def test_any_token_is_followed_through_the_layers(lab, tiny_deep: Path) -> None:
    async with lab(model=str(tiny_deep)) as (app, pilot):
        lane = await looking(app, pilot)
        await seen(pilot, lane)
        await until(pilot, lambda: bool(lane.lens._tracks))
        assert 1 <= len(lane.lens._tracks) <= 5
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, TextsDialog))
        await pilot.press(*" rain", "enter")
        rain = app.lab.tokenizer.encode_continuation(" rain")[0]
        await until(pilot, lambda: [track.id for track in lane.lens._tracks] == [rain])
        assert len(lane.lens._tracks[0].said) == 13
        await pilot.press("r")
        drawn = lane.lens.query_one(ChartView).text.splitlines()
        assert drawn[0] == "rank by layer"
        ranks = [line.split()[0] for line in drawn if "┤" in line]
        assert ranks[0] == "1"
        assert all(re.fullmatch("10*", rank.replace(",", "")) for rank in ranks)


async def test_a_low_screen_folds_and_keeps_the_layer_of_the_cursor(lab, tiny_deep: Path) -> None:
    async with lab(size=(80, 20), model=str(tiny_deep)) as (app, pilot):
        lane = await looking(app, pilot)
        await seen(pilot, lane)
        grid = lane.lens.grid
        assert grid.shown_rows()[0] == 12
        assert len(grid.shown_rows()) < 13
        grid.point(12 - 1, 0)
        assert 11 in grid.shown_rows()
        await pilot.press("down")
        assert grid.cursor[0] in grid.shown_rows()
        assert "layer" in said(lane, "lens-line")
        await pilot.resize_terminal(80, 36)
        await until(pilot, lambda: len(grid.shown_rows()) == 13)


async def test_attention_keeps_the_head_while_the_text_is_read(lab, tiny_deep: Path) -> None:
    async with lab(model=str(tiny_deep)) as (app, pilot):
        await ran(app, pilot)
        lane = await looking(app, pilot)
        await pilot.press("2")
        picture = lane.attention
        await until(pilot, lambda: picture.attention is not None)
        assert isinstance(app.focused, TokenFlow)
        await pilot.press("tab")
        assert isinstance(app.focused, Grid)
        await pilot.press("up", "up", "right", "w", "w", "w")
        await until(pilot, lambda: (picture.attention.layer, picture.attention.head) == (2, 1))
        await pilot.press("shift+tab", "left")
        position = lane.position
        await until(pilot, lambda: picture.attention.at == position)
        assert (picture.attention.layer, picture.attention.head) == (2, 1)
        weights = picture.attention.weights
        assert weights[0] is None
        await pilot.press("x")
        await until(pilot, lambda: picture.attention.weights[0] is not None)
        assert math.isclose(sum(picture.attention.weights), 1, abs_tol=1e-4)
        await pilot.press("v")
        await until(pilot, lambda: picture.attention.by_value)
        assert "by what it moves" in said(lane, "attention-title")
        await pilot.press("c")
        assert "the token before" in said(lane, "attention-measure")


async def test_shares_add_up_and_a_layer_opens_into_its_heads(lab, tiny_deep: Path) -> None:
    async with lab(model=str(tiny_deep)) as (app, pilot):
        await ran(app, pilot)
        lane = await looking(app, pilot)
        await pilot.press("3")
        picture = lane.attribution
        await until(pilot, lambda: picture.attribution is not None)
        found = picture.attribution
        assert math.isclose(sum(part.share for part in found.parts), found.difference, abs_tol=1e-3)
        assert found.a.id == lane.tokens[lane.position + 1].id
        bars = picture.bars.bars
        assert len(bars) == 1 + 2 * 12
        assert [abs(share) for _name, share in bars] == sorted((abs(share) for _name, share in bars), reverse=True)
        await pilot.press("s")
        assert [name for name, _share in picture.bars.bars][:3] == ["embedding", "attention 0", "feed-forward 0"]
        await pilot.press("home", "down", "enter")
        await until(pilot, lambda: [name for name, _share in picture.bars.bars][:1] == ["head 0.0"])
        assert [name for name, _share in picture.bars.bars] == [f"head 0.{head}" for head in range(4)] + [
            "feed-forward 0"
        ]
        await pilot.press("enter", "t")
        await until(pilot, lambda: isinstance(app.screen, TextsDialog))
        await pilot.press(*" rain", "tab", *" sky", "enter")
        wanted = [app.lab.tokenizer.encode_continuation(text)[0] for text in (" rain", " sky")]
        await until(pilot, lambda: [picture.attribution.a.id, picture.attribution.b.id] == wanted)


async def test_what_matters_is_measured_without_each_token(lab, tiny_deep: Path) -> None:
    async with lab(model=str(tiny_deep)) as (app, pilot):
        await ran(app, pilot)
        lane = await looking(app, pilot)
        await pilot.press("4")
        await until(pilot, lambda: lane.occlusion.occlusion is not None)
        found = lane.occlusion.occlusion
        assert found.token == lane.tokens[lane.position + 1].id
        assert len(found.without) == lane.position + 1 == len(lane.occlusion.bars.bars)
        assert "which words mattered" in said(lane, "occlusion-title")
        position = lane.position
        await pilot.press("left")
        await until(pilot, lambda: lane.occlusion.occlusion is not None)
        assert len(lane.occlusion.occlusion.without) == position


async def test_both_lanes_stand_side_by_side(lab, tiny_deep: Path) -> None:
    async with lab(model=str(tiny_deep)) as (app, pilot):
        await ran(app, pilot)
        a = await looking(app, pilot)
        pane = app.query_one(InsidePane)
        b = pane.lanes[1]
        assert (a.display, b.display) == (True, False)
        await pilot.press("l")
        await looking(app, pilot, lane=1)
        assert (a.display, b.display) == (True, True)
        await seen(pilot, a)
        await seen(pilot, b)
        await pilot.press("left")
        assert a.position == b.position
        await pilot.press("l", "a")
        assert (a.display, b.display, pane.lane) == (False, True, 1)
        assert [token.id for token in b.tokens] != [token.id for token in a.tokens]


async def test_a_weight_is_not_broken_off_its_token_on_a_low_screen(lab, tiny_deep: Path) -> None:
    async with lab(size=(80, 24), model=str(tiny_deep)) as (app, pilot):
        await ran(app, pilot)
        lane = await looking(app, pilot)
        await pilot.press("2")
        await until(pilot, lambda: lane.attention.attention is not None)
        _legend, *most = said(lane, "attention-most").splitlines()
        assert sum(line.count("%") for line in most) == 4
        assert all(cell_len(line) <= lane.query_one(".attention-text").size.width for line in most)


async def test_what_can_be_switched_off_is_offered_where_it_can_be_pointed_at(lab, tiny_deep: Path) -> None:
    def offered() -> bool:
        return any(one.binding.action == "off" and one.binding.show for one in app.screen.active_bindings.values())

    async with lab(model=str(tiny_deep)) as (app, pilot):
        await looking(app, pilot)
        pictures = {}
        for key in "12345":
            await pilot.press(key)
            pictures[key] = offered()
        assert [key for key, there in pictures.items() if there] == ["2", "3"]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_what_a_picture_must_not_be_read_as_has_room_on_a_line(language: str) -> None:
    try:
        choose(language)
        assert all(cell_len(sentence(_(words))) <= 78 for words in CAVEATS.values())
    finally:
        choose("en")


async def test_another_text_is_looked_at_anew_and_the_same_is_not(lab, tiny_deep: Path) -> None:
    async with lab(model=str(tiny_deep)) as (app, pilot):
        lane = await looking(app, pilot)
        record = lane.record
        await pilot.press("2", "3", "1", "left")
        assert lane.record is record
        app.query_one(PromptPane).insert(" city")
        await until(pilot, lambda: lane.record is not None and lane.record is not record)
        assert [token.text for token in lane.tokens][-1] == " city"
        app.query_one(PromptPane).show("")
        await until(pilot, lambda: lane.record is None)
        assert "Type a prompt" in said(lane, "inside-why")


async def test_escape_stops_looking_and_nothing_is_lost(lab, tiny_deep: Path, monkeypatch) -> None:
    begun = threading.Event()

    def endless(model, ids, *, report, cancelled, **options):
        begun.set()
        while not cancelled():
            threading.Event().wait(0.01)
        raise Cancelled

    async with lab(model=str(tiny_deep)) as (app, pilot):
        with monkeypatch.context() as patched:
            patched.setattr("engine.inside.record.record", endless)
            await pilot.press("ctrl+pageup")
            await until(pilot, begun.is_set)
            await pilot.press("escape")
            pane = app.query_one(InsidePane)
            await until(pilot, lambda: not pane.running)
            assert "stopped" in said(pane.lanes[0], "inside-why")
        assert app.query_one(PromptPane).text == "the sky above"


async def test_an_architecture_without_attention_says_so(lab, tiny_mamba: Path) -> None:
    async with lab(model=str(tiny_mamba)) as (app, pilot):
        lane = await looking(app, pilot)
        await seen(pilot, lane)
        await pilot.press("2")
        await until(pilot, lambda: "has no attention" in said(lane, "attention-title"))
        await pilot.press("4")
        await until(pilot, lambda: lane.occlusion.occlusion is not None)


async def test_bars_grow_from_the_middle(lab, tiny_deep: Path) -> None:
    async with lab(model=str(tiny_deep)) as (app, pilot):
        await looking(app, pilot)
        bars = SignedBars()
        await app.query_one(InsidePane).mount(bars)
        bars.show([("up", 2.0), ("down", -1.0), ("nothing", 0.0)])
        await pilot.pause()
        lines = ["".join(segment.text for segment in bars.render_line(row)) for row in range(3)]
        middle = {line.index("│") for line in lines}
        assert len(middle) == 1
        place = middle.pop()
        assert lines[0][place + 1] == "█"
        assert (lines[1][place - 1], lines[1][place + 1]) == ("█", " ")
        assert "█" not in lines[2]


async def test_all_that_is_seen_can_be_exported(lab, tiny_deep: Path) -> None:
    async with lab(model=str(tiny_deep)) as (app, pilot):
        await ran(app, pilot)
        lane = await looking(app, pilot)
        await seen(pilot, lane)
        for key, picture in (("2", lane.attention), ("3", lane.attribution), ("4", lane.occlusion)):
            await pilot.press(key)
            await until(
                pilot,
                lambda picture=picture: (
                    getattr(picture, type(picture).__name__.removesuffix("Picture").lower()) is not None
                ),
            )
        items = {item.file: item for item in exportables(app.workbench, app.lab.tokenizer, app.keeper.gather())}
        assert next(iter(items)) == "occlusion-a"
        for name in ("lens-a", "attention-a", "heads-a", "attribution-a", "occlusion-a"):
            forms = {form: text() for form, text in items[name].forms.items()}
            assert set(forms) == {"md", "json", "csv", "svg"}
            assert ElementTree.fromstring(forms["svg"]).tag.endswith("svg")
            assert forms["csv"].count("\n") > 2
        assert json.loads(items["lens-a"].forms["json"]())


async def test_a_map_that_was_filled_before_it_had_room_is_drawn_whole() -> None:
    def texts(grid: Grid) -> list[list[str]]:
        return [strip.text.split() for strip in grid.render_lines(Region(0, 0, 40, 11))]

    resized = asyncio.Event()

    class DrawnEarly(Grid):
        def on_resize(self) -> None:  # before the grid's: a terminal may be drawn in between
            texts(self)
            self.call_later(resized.set)

    class Maps(App[None]):
        CSS = "Grid { height: 1fr; display: none; }"

        def compose(self) -> ComposeResult:
            yield DrawnEarly(4, lambda row, column: None)

    async with Maps().run_test(size=(40, 12)) as pilot:
        grid = pilot.app.query_one(DrawnEarly)
        grid.show([str(row) for row in range(10)], ["0", "1"], lambda row, column: Cell("x"))
        resized.clear()
        grid.display = True
        await resized.wait()
        assert texts(grid) == [["0", "1"], *([str(row), "x", "x"] for row in reversed(range(10)))]
