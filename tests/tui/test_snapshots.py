"""The main screen as pictures, at three sizes."""

import pytest
from textual.screen import ModalScreen
from textual.widgets import Input, TextArea

from engine.session import Session, SessionLane
from tests.tui.conftest import SHORT, at_rest, until
from tui.app import LogitlabApp
from tui.candidate_list import CandidateList
from tui.panes.generate import GeneratePane
from tui.panes.inspector import Inspector
from tui.panes.lanes import LanesPane
from tui.panes.loop_diagram import LoopDiagram
from tui.panes.status import StatusLine
from tui.token_flow import TokenFlow


async def run_and_hold(pilot) -> None:
    """Run both lanes to the end; what depends on the clock is then set to fixed values."""
    app = pilot.app
    app.animation_level = "none"
    app.query_one(TextArea).cursor_blink = False
    await until(pilot, lambda: not app._loading and bool(app.prompt_tokens))
    await pilot.press("f5")
    lanes = app.query_one(LanesPane).lanes
    await until(pilot, lambda: all(lane.reason for lane in lanes) and not app.query_one(GeneratePane).running)
    await until(pilot, lambda: app.query_one(StatusLine).progress is None)
    await until(pilot, lambda: at_rest(app))
    hold(app)
    await settled(pilot)


def hold(app) -> None:
    """Fixed values for what depends on the clock."""
    app.query_one(StatusLine).tokens_per_second = 250.0
    for lane in app.query_one(LanesPane).lanes:
        lane.border_subtitle = f"{len(lane.steps)}/{lane._limit} · 125 tokens/s"


async def settled(pilot) -> None:
    """Wait until the picture no longer changes: Markdown and tabs arrive over several frames."""
    before, same = "", 0
    while same < 3:
        await pilot.pause(0.05)
        now = "".join(
            "".join(segment.text for segment in strip) for strip in pilot.app.screen._compositor.render_strips()
        )
        same = same + 1 if now == before else 0
        before = now


def opened(folder) -> LogitlabApp:
    begun = Session(prompt="the sky above", lanes=tuple(SessionLane(config) for config in SHORT))
    return LogitlabApp(session=begun, model=str(folder), precision="float32", threads=1)


SIZES = [(80, 24), (120, 36), (200, 50)]


async def pointed(pilot) -> None:
    """Both lanes have run, and lane A's cursor is on its third token, inspected."""
    await run_and_hold(pilot)
    if not pilot.app.query_one(Inspector).display:
        pilot.app.query_one(GeneratePane).action_inspector()
    flow = pilot.app.query_one(LanesPane).lanes[0].query_one(TokenFlow)
    flow.focus()
    await pilot.press("home", "right", "right")
    await settled(pilot)


@pytest.mark.parametrize("size", SIZES)
def test_inspector(snap_compare, tiny_llama, size) -> None:
    assert snap_compare(opened(tiny_llama), terminal_size=size, run_before=pointed)


@pytest.mark.parametrize("size", SIZES)
def test_stages_and_knobs(snap_compare, tiny_llama, size) -> None:
    async def turn(pilot) -> None:
        await pointed(pilot)
        pilot.app.query_one(CandidateList).focus()
        await pilot.press("right", *["minus"] * 7, "down", "x", "S")
        await until(pilot, lambda: pilot.app.query_one(CandidateList).stage == "truncation")
        pilot.app.clear_notifications()
        hold(pilot.app)
        await settled(pilot)

    assert snap_compare(opened(tiny_llama), terminal_size=size, run_before=turn)


@pytest.mark.parametrize("size", SIZES)
def test_branches(snap_compare, tiny_llama, size) -> None:
    async def branch(pilot) -> None:
        await pointed(pilot)
        pane = pilot.app.query_one(GeneratePane)
        pane._go_on(0, 2, (9,))
        await until(pilot, lambda: at_rest(pilot.app) and len(pane.trees[0].branches) == 2)
        hold(pilot.app)
        await pilot.press("t")
        await until(pilot, lambda: isinstance(pilot.app.screen, ModalScreen))
        await pilot.press("up")
        await settled(pilot)

    assert snap_compare(opened(tiny_llama), terminal_size=size, run_before=branch)


@pytest.mark.parametrize("size", SIZES)
def test_slow_motion(snap_compare, tiny_llama, size) -> None:
    async def step(pilot) -> None:
        app = pilot.app
        app.animation_level = "none"
        app.query_one(TextArea).cursor_blink = False
        await until(pilot, lambda: not app._loading and bool(app.prompt_tokens))
        await pilot.press("f6")
        diagram = app.query_one(LoopDiagram)
        await until(pilot, lambda: diagram.stage == "append" and diagram._timer is None)
        await until(pilot, lambda: app.query_one(StatusLine).progress is None)
        hold(app)
        await settled(pilot)

    assert snap_compare(opened(tiny_llama), terminal_size=size, run_before=step)


def test_colours_of_surprise(snap_compare, tiny_llama) -> None:
    async def colour(pilot) -> None:
        await pointed(pilot)
        await pilot.press("c", "c", "c", "c")
        breakdown = pilot.app.query_one("#breakdown", TokenFlow)
        await until(pilot, lambda: len(breakdown.judged) == len(breakdown.tokens))
        await settled(pilot)

    assert snap_compare(opened(tiny_llama), terminal_size=(120, 36), run_before=colour)


@pytest.mark.parametrize("size", SIZES)
def test_main_screen(snap_compare, tiny_llama, size) -> None:
    assert snap_compare(opened(tiny_llama), terminal_size=size, run_before=run_and_hold)


@pytest.mark.parametrize("key", ["f1", "f4"])
def test_dialogs(snap_compare, tiny_llama, key: str) -> None:
    async def open_dialog(pilot) -> None:
        await run_and_hold(pilot)
        await pilot.press(key)
        await until(pilot, lambda: isinstance(pilot.app.screen, ModalScreen))
        for field in pilot.app.screen.query(Input):
            field.cursor_blink = False
        await settled(pilot)

    assert snap_compare(opened(tiny_llama), terminal_size=(100, 30), run_before=open_dialog)


def test_tokens_view(snap_compare, tiny_llama) -> None:
    async def show(pilot) -> None:
        await run_and_hold(pilot)
        await pilot.press("f8")
        await settled(pilot)

    assert snap_compare(opened(tiny_llama), terminal_size=(100, 30), run_before=show)
