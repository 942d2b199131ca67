"""The main screen as pictures, at three sizes. One lab shows what several of them are taken of."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, TabbedContent, TextArea

from engine.base import language
from engine.models.capabilities import Capabilities
from engine.models.model import ModelFacts
from engine.sessions.session import Session, SessionLane
from engine.text.conversation import Conversation, Message
from engine.timing.measurement import Measurement
from engine.timing.sweep import Sweep, TimedRun
from tests.conftest import save_tiny
from tests.engine.chat_templates import CHATML, OPTIONS
from tests.tui.conftest import SHORT, at_rest, until
from tui.app import LogitlabApp
from tui.dialogs.greeting import Greeting
from tui.panes.generate import GeneratePane
from tui.panes.inspector import Inspector
from tui.panes.lanes import LanesPane
from tui.panes.loop_diagram import LoopDiagram
from tui.panes.prompts import PromptsPane
from tui.panes.status import StatusLine
from tui.panes.timing import TimingPane
from tui.style import theme
from tui.widgets.candidate_list import CandidateList
from tui.widgets.token_flow import TokenFlow


async def run_and_hold(pilot) -> None:
    """Run both lanes to the end; what depends on the clock is then set to fixed values."""
    app = pilot.app
    app.animation_level = "none"
    app.query_one(TextArea).cursor_blink = False
    await until(pilot, lambda: not app.loader.loading and bool(app.workbench.prompt_area.tokens))
    await pilot.press("f5")
    lanes = app.query_one(LanesPane).lanes
    await until(pilot, lambda: all(lane.reason for lane in lanes) and not app.query_one(GeneratePane).running)
    await until(pilot, lambda: app.query_one(StatusLine).progress is None)
    await until(pilot, lambda: at_rest(app))
    hold(app)
    await settled(pilot)


def hold(app) -> None:
    """Fixed values for what depends on the clock."""
    app.query_one(StatusLine).rates = {"A": 250.0}
    for lane in app.query_one(LanesPane).lanes:
        lane.border_subtitle = f"{len(lane.steps)}/{lane._limit} · 125 tokens/s"


async def settled(pilot) -> None:
    """Wait until the picture no longer changes: Markdown and tabs arrive over several frames."""
    before: list[object] = []
    same = 0
    await pilot.pause()
    while same < 3:
        await asyncio.sleep(0.05)
        strips = pilot.app.screen._compositor.render_strips()
        now = [(segment.text, segment.style) for strip in strips for segment in strip]
        same = same + 1 if now == before else 0
        before = now


def opened(folder, threads: Sequence[Conversation] = ()) -> LogitlabApp:
    lanes = tuple(SessionLane(config) for config in SHORT)
    begun = Session(prompt="the sky above", lanes=lanes, threads=tuple(threads))
    return LogitlabApp(session=begun, model=str(folder), precision="float32", threads=1)


Size = tuple[int, int]
SIZES: list[Size] = [(80, 24), (120, 36), (200, 50)]
Show = Callable[[Pilot], Awaitable[object]]


class Drawn(App[str]):
    """A picture that is drawn already, as `snap_compare` takes it: it asks an app for one."""

    def __init__(self, picture: str) -> None:
        super().__init__()
        self._picture = picture

    def run(self, **_options: Any) -> str:
        return self._picture


def drawn(app: LogitlabApp, shows: Sequence[tuple[Size, Show]]) -> list[Drawn]:
    """The pictures of one lab, at each size after what is to be shown there."""
    pictures = []

    async def draw(pilot: Pilot) -> None:
        for size, show in shows:
            if app.size != size:
                await pilot.resize_terminal(*size)
                await settled(pilot)
            await show(pilot)
            await settled(pilot)
            await pilot.wait_for_scheduled_animations()
            pictures.append(Drawn(app.export_screenshot(title=app.title, simplify=True)))
        app.exit()

    app.run(headless=True, auto_pilot=draw, size=shows[0][0])
    return pictures


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
        await until(pilot, lambda: pilot.app.query_one(CandidateList).stage == "top_k")
        pilot.app.clear_notifications()
        hold(pilot.app)
        await settled(pilot)

    assert snap_compare(opened(tiny_llama), terminal_size=size, run_before=turn)


@pytest.mark.parametrize("size", SIZES)
def test_branches(snap_compare, tiny_llama, size) -> None:
    async def branch(pilot) -> None:
        await pointed(pilot)
        pane = pilot.app.query_one(GeneratePane)
        pane.branching.go_on(0, 2, (9,))
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
        await until(pilot, lambda: not app.loader.loading and bool(app.workbench.prompt_area.tokens))
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


THEMES = ["logitlab-dark", "logitlab-light"]
VIEWS = ["generate", "tokens", "prompts", "timing", "inside"]


def measured() -> Measurement:
    """Two lengths, three runs each, with and without a cache."""
    sweep = Sweep(lengths=(10, 20), repeats=3, runners=("logitlab", "without cache"))
    runs = [
        TimedRun(length, (0.1 + 0.01 * length**power) * (1 + repeat / 20), 0.1, (0.01,) * length, by)
        for by, power in (("logitlab", 1.0), ("without cache", 1.4))
        for length in sweep.lengths
        for repeat in range(sweep.repeats)
    ]
    names, sizes = ("tiny", "Tiny", "llama"), (512, 320, 48, 1)
    facts = ModelFacts(*names, 100_000, "float32", "cpu", *sizes, "own llama", "", "a test", "none")
    return Measurement(facts, sweep, tuple(runs), "2026-01-02T03:04:05+00:00")


def served() -> Measurement:
    """A server with one to eight readers."""
    sweep = Sweep(lengths=(20,), repeats=2, lanes=(1, 2, 4, 8), runners=("server",))
    runs = [
        TimedRun(20, 1 + 0.06 * n, 0.0, first, "server", n, (first,) * (n - 1))
        for _repeat in range(sweep.repeats)
        for n in sweep.lanes
        for first in ((0.08 + 0.02 * n, *(0.05 + 0.002 * n,) * 19),)
    ]
    facts = ModelFacts(
        "http://box:8000#lab/tiny", "tiny", "", 0, "vLLM 0.32.0", "box:8000", 512, 320, 0, 0, "", "", "", ""
    )
    return Measurement(facts, sweep, tuple(runs), "2026-01-02T03:04:05+00:00")


@pytest.mark.parametrize("size", SIZES)
def test_a_measured_server(snap_compare, tiny_llama, size) -> None:
    async def show(pilot) -> None:
        await run_and_hold(pilot)
        pane = pilot.app.query_one(TimingPane)
        pane.serve(Capabilities("vLLM", "0.32.0", 20))
        pane.restore([measured(), served()])
        pilot.app.query_one(TabbedContent).active = "timing-tab"
        pane.action_chart("latency" if size == SIZES[1] else "lanes")
        if size == SIZES[0]:
            pane.action_table()
        pane._tell()
        await settled(pilot)

    assert snap_compare(opened(tiny_llama), terminal_size=size, run_before=show)


# Every size in one theme; the other where all fits; the other languages where room is short.
DRAWN = [
    *((size, THEMES[0], "en") for size in SIZES),
    (SIZES[1], THEMES[1], "en"),
    *((size, THEMES[0], "ja") for size in SIZES[:2]),
]


DRAWN_BY_NAME = pytest.mark.parametrize(
    ("size", "theme", "language_name"), DRAWN, ids=[f"{w}x{h}-{theme}-{name}" for (w, h), theme, name in DRAWN]
)


@DRAWN_BY_NAME
@pytest.mark.parametrize("view", VIEWS)
def test_views(
    snap_compare, drawn_views, tiny_deep: Path, spoken, view: str, size: Size, theme: str, language_name: str
) -> None:
    spoken(language_name)
    if view == "inside":  # computes anew at another size
        show = functools.partial(show_view, view, theme)
        assert snap_compare(opened(tiny_deep), terminal_size=size, run_before=show)
    else:
        assert snap_compare(drawn_views(language_name)[view, size, theme])


@pytest.fixture(scope="module")
def drawn_views(tiny_llama: Path) -> Callable[[str], dict[tuple[str, Size, str], Drawn]]:
    """The pictures of all views but `inside`, by view, size and theme, in the language in use, which is named."""

    @functools.cache
    def pictures(name: str) -> dict[tuple[str, Size, str], Drawn]:
        looks = [(size, theme) for size, theme, one in DRAWN if one == name]
        drawings = [(view, *look) for look in looks for view in VIEWS if view != "inside"]
        shows = [(size, functools.partial(show_view, view, theme)) for view, size, theme in drawings]
        return dict(zip(drawings, drawn(opened(tiny_llama), shows), strict=True))

    return pictures


async def show_view(view: str, theme: str, pilot: Pilot) -> None:
    app = pilot.app
    app.theme = theme
    pane = app.query_one(TimingPane)
    if not pane.measurements:
        await run_and_hold(pilot)
        pane.restore([measured()])
    app.query_one(TabbedContent).active = f"{view}-tab"
    if view == "timing":
        pane._show()
    if view == "prompts":
        prompts = app.query_one(PromptsPane)
        await until(pilot, lambda: len(prompts.lengths) == len(prompts.prompts) == prompts.table.row_count)
        await settled(pilot)  # the chart has the size that is left to it
        prompts._draw()
    if view == "inside":
        await looked(pilot)
    await settled(pilot)


async def looked(pilot) -> None:
    """The lens and the way of its tokens are there."""
    inside = pilot.app.workbench.inside
    await until(pilot, lambda: inside.opened and inside.lanes[0].lens.lens is not None)
    lens = inside.lanes[0].lens
    await until(pilot, lambda: lens.lens is not None and len(lens.lens.rows) == lens.lens.blocks + 1)
    if lens.query_one(".lens-side").display:
        await until(pilot, lambda: bool(lens._charted) and lens._charted is lens._tracks)
    await until(pilot, lambda: all(worker.is_finished for worker in pilot.app.workers if worker.node.is_attached))


@pytest.mark.parametrize("key", ["2", "3", "4", "l"])
def test_pictures_of_the_inside(snap_compare, tiny_deep, key: str) -> None:
    async def show(pilot) -> None:
        await run_and_hold(pilot)
        pilot.app.query_one(TabbedContent).active = "inside-tab"
        await looked(pilot)
        await pilot.press(key)
        lane = pilot.app.workbench.inside.lanes[0]
        ready = {
            "2": lambda: lane.attention.attention is not None,
            "3": lambda: lane.attribution.attribution is not None,
            "4": lambda: lane.occlusion.occlusion is not None,
            "l": lambda: (lens := pilot.app.workbench.inside.lanes[1].lens.lens) is not None and len(lens.rows) == 13,
        }[key]
        await until(pilot, ready)
        await settled(pilot)

    assert snap_compare(opened(tiny_deep), terminal_size=SIZES[1], run_before=show)


@DRAWN_BY_NAME
def test_lesson(snap_compare, tiny_llama: Path, spoken, size: Size, theme: str, language_name: str) -> None:
    spoken(language_name)
    show = functools.partial(show_lesson, theme)
    assert snap_compare(opened(tiny_llama), terminal_size=size, run_before=show)


async def show_lesson(theme: str, pilot: Pilot) -> None:
    pilot.app.theme = theme
    await run_and_hold(pilot)
    await pilot.press("ctrl+l")
    await until(pilot, lambda: isinstance(pilot.app.focused, OptionList))
    await settled(pilot)
    await pilot.press("h")
    await settled(pilot)


@pytest.mark.parametrize("language_name", ["en", "ja"])
def test_greeting(snap_compare, tiny_llama, spoken, language_name: str) -> None:
    spoken(language_name)

    async def show(pilot) -> None:
        await until(pilot, lambda: isinstance(pilot.app.screen, Greeting))
        pilot.app.animation_level = "none"
        pilot.app.screen_stack[0].query_one(TextArea).cursor_blink = False
        await until(pilot, lambda: pilot.app.lab.facts is not None and not pilot.app.loader.loading)
        await settled(pilot)

    app = opened(tiny_llama)
    app._first, app._first_model = True, None  # the embedded model is what it introduces
    assert snap_compare(app, terminal_size=SIZES[0], run_before=show)


SIX = (
    Message("system", "You answer in one short sentence."),
    Message("user", "What is the capital of France?"),
    Message("assistant", "Paris is the capital of France.", special=True, thinking="a question about France"),
    Message("user", "And of Japan?\nIn two lines, please."),
    Message("assistant", "Tokyo.\nIt lies on Honshu.", special=True),
    Message("user", "Which is larger, and what does <|end|> mean?"),
)


@pytest.fixture(scope="session")
def chatting(tmp_path_factory) -> Path:
    folder = save_tiny(tmp_path_factory.mktemp("six-turns"), "llama")
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", language.languages())
@pytest.mark.parametrize("size", SIZES)
def test_conversation(snap_compare, chatting, spoken, size, name) -> None:
    spoken(name)
    threads = (Conversation(SIX), Conversation((*SIX[:4], replace(SIX[4], content="Tokyo, on Honshu."), SIX[5])))
    app = opened(chatting, threads)

    async def look(pilot) -> None:
        await run_and_hold(pilot)
        await pilot.press("up", "up")
        hold(pilot.app)
        await settled(pilot)

    assert snap_compare(app, terminal_size=size, run_before=look)


@pytest.mark.parametrize("name", [one.name for one in theme.THEMES])
def test_options_of_a_template(snap_compare, tmp_path, name) -> None:
    folder = save_tiny(tmp_path / "options", "llama")
    (folder / "chat_template.jinja").write_text(OPTIONS, encoding="utf-8")
    app = opened(folder, (Conversation(SIX, {"style": "formal", "loud": True, "today": "2026-01-31"}),))

    async def look(pilot) -> None:
        pilot.app.theme = name
        await run_and_hold(pilot)
        await pilot.press("up", "o")
        await until(pilot, lambda: isinstance(pilot.app.screen, ModalScreen))
        for field in pilot.app.screen.query(Input):
            field.cursor_blink = False
        await pilot.press("tab")
        await settled(pilot)

    assert snap_compare(app, terminal_size=(80, 24), run_before=look)
