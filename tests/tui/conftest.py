"""The lab under Textual's Pilot, with a tiny model."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual import _wait
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet
from textual.pilot import Pilot

from engine.generation.config import GenerationConfig
from engine.sessions.session import Session, SessionLane
from tui.app import LogitlabApp
from tui.panes.generate import GeneratePane

SHORT = (
    GenerationConfig(name="greedy", max_new_tokens=12, ignore_eos=True),
    GenerationConfig(name="custom", strategy="contrastive", top_k=4, max_new_tokens=12, ignore_eos=True),
)

# After each key the pilot looks whether the app rests: here every 5 ms instead of every 20, and at the screen's thread
# alone. A model that computes in its worker is waited for with `until`, not for a second after each key.
_wait.SLEEP_GRANULARITY = 1 / 200
_wait.SLEEP_IDLE = _wait.SLEEP_GRANULARITY / 10
_wait.process_time = time.thread_time  # type: ignore[assignment]

# Every app reads the same stylesheets: each of them is parsed once for each theme, not for each app.
_parsed: dict[tuple[object, ...], list[RuleSet]] = {}
_parse_rules = Stylesheet._parse_rules


def _parse_once(stylesheet: Stylesheet, css: str, *arguments: Any, **options: Any) -> list[RuleSet]:
    key = (css, *arguments, *options.items(), *stylesheet._variables.items())
    if key not in _parsed:
        _parsed[key] = _parse_rules(stylesheet, css, *arguments, **options)
    return _parsed[key]


Stylesheet._parse_rules = _parse_once  # type: ignore[method-assign]


async def until(pilot: Pilot[Any], condition: Callable[[], bool], seconds: float = 60) -> None:
    """Let the app work until something holds; fail when it never does."""
    await holds(condition, seconds)
    await pilot.pause()


async def holds(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Likewise, where a widget still waits for something then."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)  # the pilot's own pause asks every widget for a word each time


def at_rest(app: LogitlabApp) -> bool:
    """Whether no run goes on and all that follows one has been told."""
    return not app.query_one(GeneratePane).running and not any(
        worker.group == "run" and not worker.is_finished for worker in app.workers
    )


async def ran(app: LogitlabApp, pilot: Pilot[Any]) -> GeneratePane:
    """Run both lanes to the end."""
    pane = app.query_one(GeneratePane)
    await pilot.press("f5")
    await until(pilot, lambda: all(lane.reason for lane in pane.lanes) and all(tree.shown for tree in pane.trees))
    await until(pilot, lambda: at_rest(app))
    return pane


@pytest.fixture
def lab(tiny_llama: Path):
    """`async with lab(size=…) as (app, pilot)`: the model is loaded when it begins."""

    @asynccontextmanager
    async def opened(
        size: tuple[int, int] = (120, 36), *, wait: bool = True, **options: Any
    ) -> AsyncIterator[tuple[LogitlabApp, Pilot[None]]]:
        settings = {"model": str(tiny_llama), "prompt": "the sky above", "configs": SHORT, "precision": "float32"}
        settings |= options
        lanes = tuple(SessionLane(config) for config in settings.pop("configs"))
        begun = Session(prompt=settings.pop("prompt"), lanes=lanes)
        app = LogitlabApp(**({"session": begun} | settings))
        async with app.run_test(size=size) as pilot:
            if wait:
                await until(pilot, lambda: not app.loader.loading and bool(app.workbench.prompt_area.tokens))
            yield app, pilot
            app.exit()  # as users leave: what goes on is ended first

    return opened
