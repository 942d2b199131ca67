"""Runs begun, paused, stepped, branched, cancelled, under changing models and sizes, in any order; and long days."""

import asyncio
import gc
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.generation.config import GenerationConfig
from engine.generation.events import Stepped
from engine.lab import Lab
from engine.models.amateurs import with_seats
from engine.sessions.session import Session, SessionLane
from tests.engine.test_lane_models import other_words as other_words
from tests.reliability.conftest import Figure, scale
from tests.tui.conftest import at_rest
from tui.app import LogitlabApp
from tui.panes.generate import GeneratePane
from tui.panes.inspector import Inspector
from tui.panes.prompt import PromptPane
from tui.widgets.token_flow import TokenFlow

ACTIONS = (
    *("f5", "f5", "f6", "f6", "f7", "escape", "f8", "tab", "u", "r", "c", "i", "left", "home", "enter", "f9"),
    *("letter", "wait", "small", "large", "other model", "branch", "fork", "lesson", "help"),
    *("lane model", "lane model", "lane precision", "lane without", "o", "n", "b lane"),
    *("intervene", "impossible", "guide", "plain", "off", "map"),
    *("amateur", "amateur", "amateur a", "no amateur", "other amateur", "knobs", "u", "f6"),
)
LANES = (
    GenerationConfig(name="greedy", max_new_tokens=30, ignore_eos=True),
    GenerationConfig(name="sampled", strategy="sample", max_new_tokens=30, seed=3, ignore_eos=True),
)


async def act(app: LogitlabApp, pilot, action: str, models: tuple[str, str, str]) -> None:
    pane = app.query_one(GeneratePane)
    match action:
        case "letter":
            app.query_one(PromptPane).insert("a")
        case "wait":
            await pilot.pause(0.05)
        case "small":
            await pilot.resize_terminal(64, 20)
        case "large":
            await pilot.resize_terminal(180, 48)
        case "other model":
            current = app.lab.facts.name if app.lab.facts is not None else models[1]
            app.loader.load(models[current == models[0]])
        case "lane model":
            pane.configure(1, replace(pane.configs[1], model=models[pane.configs[1].model == models[0]]))
        case "lane precision":
            named = {"bfloat16": None, None: "bfloat16"}[pane.configs[1].precision]
            pane.configure(1, replace(pane.configs[1], precision=named))
        case "lane without":
            pane.configure(1, replace(pane.configs[1], model=None, precision=None))
        case "b lane":
            app.action_go("b")
        case "branch":
            pane.lanes[0].query_one(TokenFlow).focus()
            await pilot.press("home", "b", "x", "enter")
        case "fork":
            if pane.trees[1].shown is not None and len(pane.trees[1].shown.steps) > 1:
                pane.branching.go_on(1, 1, (5,))
        case "intervene":
            pane.configure(1, replace(pane.configs[1], interventions=("head 1.2 mean", "mlp 0 off")))
        case "impossible":
            pane.configure(1, replace(pane.configs[1], interventions=("head 9.0 off", 'patch 1 at 0 from "a b"')))
        case "guide":
            pane.configure(0, replace(pane.configs[0], guidance_scale=2.0, negative_prompt="rain"))
        case "amateur":
            pane.configure(1, replace(pane.configs[1], amateur=models[pane.configs[1].amateur == models[0]]))
        case "amateur a":
            pane.configure(0, replace(pane.configs[0], amateur=models[1], amateur_cut=0.02))
        case "no amateur":
            for lane in (0, 1):
                pane.configure(lane, replace(pane.configs[lane], amateur=None))
        case "other amateur":  # of another vocabulary: it is refused
            pane.configure(1, replace(pane.configs[1], amateur=models[2]))
        case "knobs":  # those of guidance and of the amateur too, where the step has them
            inspector = app.query_one(Inspector)
            inspector.action_knob(-1)
            inspector.action_turn(1)
            inspector.action_apply()
        case "plain":
            pane.configure(1, replace(pane.configs[1], interventions=()))
        case "off":  # the head under the cursor, for lane B
            await pilot.press("escape", "U", "2", "tab", "up", "o")
        case "map":
            await pilot.press("escape", "U", "5", "t", *"the sky robot", "enter", "escape")
        case "lesson":
            await pilot.press("ctrl+l")
        case "help":
            await pilot.press("f1", "escape")
        case key:
            await pilot.press(key)


def settled(app: LogitlabApp) -> bool:
    return at_rest(app) and not app.loader.loading and app.loader.waiting is None


def agrees(app: LogitlabApp) -> None:
    """What the screen shows is what the engine wrote, without a step of another run."""
    pane = app.query_one(GeneratePane)
    for lane, tree in zip(pane.lanes, pane.trees):
        if tree.shown is None:
            assert not lane.steps
            continue
        assert lane.steps == list(tree.shown.steps)
        start = len(tree.shown.prompt)
        assert [step.index for step in lane.steps] == list(range(len(lane.steps)))
        assert [step.token.position for step in lane.steps] == [start + index for index in range(len(lane.steps))]
        assert {step.lane for step in lane.steps} <= {lane.lane}
        flow = lane.query_one(TokenFlow)
        assert [token.id for token in flow.tokens] == [step.token.id for step in lane.steps]


async def sequence(actions: list[str], models: tuple[str, str, str]) -> None:
    begun = Session(prompt="the sky above", lanes=tuple(SessionLane(config) for config in LANES))
    app = LogitlabApp(session=begun, model=models[0], precision="float32", threads=1)
    async with asyncio.timeout(60), app.run_test(size=(100, 30)) as pilot:
        for action in actions:
            await act(app, pilot, action, models)
        while len(app.screen_stack) > 1:
            app.pop_screen()
        while not settled(app):
            await pilot.press("escape")
            await pilot.pause(0.02)
        await pilot.pause()
        agrees(app)
        named = with_seats(app.query_one(GeneratePane).configs)
        assert not app.lab._shelf.spares(named) or app.loader._refused is not None, "models that no lane names stay"
        assert len(app.lab._shelf.models) <= 1 + len(named)
        app.exit()
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("logitlab")]
    assert not left, left


def test_any_order_of_actions_ends_well(tiny_llama: Path, tiny_gpt2: Path, other_words: Path, figure: Figure) -> None:
    tried = 0

    @settings(
        max_examples=scale(4, 500),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(st.lists(st.sampled_from(ACTIONS), min_size=3, max_size=14))
    def any_order(actions: list[str]) -> None:
        nonlocal tried
        tried += 1
        asyncio.run(sequence(actions, (str(tiny_llama), str(tiny_gpt2), str(other_words))))

    any_order()
    figure("Random sequences of actions in the lab, two models", tried=tried, lost=0)


def resident() -> int:
    """Kilobytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells how much memory a process holds")
async def test_a_long_day_takes_no_more_at_its_end(tiny_llama: Path, tiny_gpt2: Path, figure: Figure) -> None:
    """Runs of 40 tokens in two lanes, models changed in between: memory, handles and threads stay as they were."""
    rounds, each = scale(4, 50), scale(10, 40)
    config = GenerationConfig(max_new_tokens=40, ignore_eos=True)
    lab = Lab(precision="float32", threads=1)
    memory, speeds, steps = [], [], 0
    counts = []
    try:
        for number in range(rounds):
            async for _event in lab.load(str((tiny_llama, tiny_gpt2)[number % 2])):
                pass
            for _run in range(each):
                began = time.perf_counter()
                written = [
                    event async for event in lab.generate(["the sky"], [config, config]) if isinstance(event, Stepped)
                ]
                assert len(written) == 80
                steps += len(written)
                speeds.append(time.perf_counter() - began)
            gc.collect()
            if number % 2:  # the same model as two rounds before
                memory.append(resident())
                counts.append((handles(), threading.active_count()))
    finally:
        await lab.close()
    warm = memory[len(memory) // 5] if len(memory) > 4 else memory[0]
    growth = memory[-1] / warm - 1
    assert growth < 0.05, memory
    assert counts[-1] == counts[0]
    slower = median(speeds[-100:]) / median(speeds[:100]) - 1
    figure(
        "Runs of 40 tokens in two lanes, model changed in between",
        tried=rounds * each,
        lost=0,
        memory_growth=f"{growth:+.1%}",
        slower=f"{slower:+.1%}",
        models_loaded=rounds,
    )
