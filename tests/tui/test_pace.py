"""Lanes at their own pace on the screen: who is behind, cursors locked in the middle, each lane's speed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.generation.branches import parting
from engine.generation.config import GenerationConfig
from tests.tui.conftest import at_rest, until
from tests.tui.test_app import lanes_of
from tests.tui.test_generate import said
from tui.panes.generate import GeneratePane
from tui.panes.lanes import LanesPane
from tui.panes.status import StatusLine
from tui.widgets.entropy_line import EntropyLine
from tui.widgets.token_flow import TokenFlow

GREEDY = GenerationConfig(name="greedy", max_new_tokens=30_000, ignore_eos=True)
DEAR = replace(GREEDY, name="custom", strategy="contrastive", top_k=40)


def lengths(app: Any) -> tuple[int, int]:
    a, b = lanes_of(app)
    return len(a.steps), len(b.steps)


async def ahead(app: Any, pilot: Any, by: int = 20) -> None:
    """Let the lanes run until A, which is cheap, is ahead of B."""
    await until(pilot, lambda: lengths(app)[0] > lengths(app)[1] + by > by + 1)


async def test_pausing_stepping_and_locking_bring_lanes_of_unlike_length_together(lab, tiny_long: Path) -> None:
    async with lab(model=str(tiny_long), configs=(GREEDY, DEAR)) as (app, pilot):
        pane = app.query_one(GeneratePane)
        await pilot.press("f5")
        await ahead(app, pilot)
        await pilot.press("f7")
        await until(pilot, lambda: everything_around_is_up_to_date(app))
        # Step by step, the one that is behind goes on alone.
        for _step in range(3):
            before = lengths(app)
            await pilot.press("f6")
            await until(pilot, lambda before=before: lengths(app) != before)
            assert lengths(app) == (before[0], before[1] + 1)
        assert said(app).count("Lane B is behind: it catches up") == 1
        # Locked in the middle, it catches up, its cursor goes where the other one stands, and both go on in step.
        lanes_of(app)[0].query_one(TokenFlow).focus()
        await pilot.press("end")
        place = lanes_of(app)[0].cursor
        await pilot.press("l")
        assert lanes_of(app)[1].cursor is None
        before = lengths(app)
        assert place == before[0] - 1 > before[1]
        await pilot.press("f7")
        await until(pilot, lambda: lengths(app)[0] > before[0] + 5)
        assert lengths(app)[0] - lengths(app)[1] in (0, 1)
        await until(pilot, lambda: lanes_of(app)[1].cursor == place)
        await pilot.press("f7")
        await until(pilot, lambda: everything_around_is_up_to_date(app) and lengths(app)[0] == lengths(app)[1])
        # And each by itself again.
        await pilot.press("l", "f7")
        await ahead(app, pilot)
        await pilot.press("escape")
        await until(pilot, lambda: at_rest(app))
        for lane, tree in zip(lanes_of(app), pane.trees):
            assert tree.shown.steps == tuple(lane.steps)
            assert [step.index for step in lane.steps] == list(range(len(lane.steps)))


def everything_around_is_up_to_date(app: Any) -> bool:
    a, b = lanes_of(app)
    parted = parting(a.steps, b.steps)
    return (
        all(len(lane.query_one(EntropyLine)._values) == len(lane.steps) for lane in (a, b))
        and all(str(lane.border_subtitle).startswith(f"{len(lane.steps)}/") for lane in (a, b))
        and app.query_one(LanesPane).parted == parted
    )


async def test_a_run_with_locked_cursors_is_in_step_from_its_beginning(lab, tiny_long: Path) -> None:
    async with lab(model=str(tiny_long), configs=(GREEDY, DEAR)) as (app, pilot):
        app.query_one(LanesPane).locked = True
        await pilot.press("f5")
        furthest = 0

        def far() -> bool:
            nonlocal furthest
            a, b = lengths(app)
            furthest = max(furthest, abs(a - b))
            return a > 20

        await until(pilot, far)
        assert furthest <= 1
        await pilot.press("escape")


async def test_slow_motion_keeps_lanes_in_step(lab, tiny_long: Path) -> None:
    async with lab(model=str(tiny_long), configs=(GREEDY, DEAR)) as (app, pilot):
        await pilot.press("f9", "f5")
        await until(pilot, lambda: lengths(app)[0] >= 4)
        assert lengths(app)[0] - lengths(app)[1] in (0, 1)
        await pilot.press("escape")


@pytest.mark.parametrize(
    ("rates", "expected"),
    [({"A": 61.4, "B": 1009.0}, " · A 61 · B 1,009 tokens/s"), ({"B": 9.0}, " · 9 tokens/s"), ({}, "")],
)
async def test_the_status_line_says_each_lanes_speed(lab, rates: dict[str, float], expected: str) -> None:
    async with lab() as (app, _pilot):
        status = app.query_one(StatusLine)
        status.rates = rates
        line = status.render().plain
        assert (expected in line) if expected else ("tokens/s" not in line)


async def test_speeds_on_the_screen_are_those_of_the_lanes(lab, tiny_long: Path) -> None:
    async with lab(model=str(tiny_long), configs=(GREEDY, DEAR)) as (app, pilot):
        await pilot.press("f5")
        await ahead(app, pilot)
        await pilot.press("f7")
        await until(pilot, lambda: everything_around_is_up_to_date(app))
        for lane in lanes_of(app):
            last = [step.seconds for step in lane.steps[-40:]][1:]
            assert app.query_one(StatusLine).rates["AB"[lane.lane]] == pytest.approx(len(last) / sum(last))
            every = [step.seconds for step in lane.steps][1:]
            assert f"· {len(every) / sum(every):.0f} tokens/s" in str(lane.border_subtitle)
        await pilot.press("escape")
