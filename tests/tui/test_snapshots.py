"""The main screen as pictures, at three sizes."""

import pytest
from textual.screen import ModalScreen
from textual.widgets import Input, TextArea

from tests.tui.conftest import SHORT, until
from tui.app import LogitlabApp
from tui.panes.generate import GeneratePane
from tui.panes.lanes import LanesPane
from tui.panes.status import StatusLine


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
    app.query_one(StatusLine).tokens_per_second = 250.0
    for lane in lanes:
        lane.border_subtitle = "12/12 · 125 tokens/s · reached its length"
    await settled(pilot)


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
    return LogitlabApp(prompt="the sky above", model=str(folder), configs=SHORT, precision="float32", threads=1)


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)])
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
