"""A list of tasks, done by keyboard alone, each in as few keys as there are."""

from pathlib import Path

from textual.widgets import Input

from tests.tui.conftest import at_rest, until
from tui.dialogs.model_picker import ModelPicker
from tui.panes.generate import GeneratePane
from tui.panes.inspector import Inspector
from tui.panes.lanes import LanesPane
from tui.widgets.candidate_list import CandidateList

# What is pressed, one task after the other, and how many keys it took while letters were the panes' alone.
TASKS = {
    "run": (["f5"], 1),
    "look at token 5": (["escape", *["right"] * 5], 8),
    "see its candidates at raw": (["I", "s"], 3),
    "find a token": (["slash", *" sky"], 5),
    "branch there": (["enter"], 2),
    "colour by rank": (["c", "c"], 2),
    "compare both lanes at the same place": (["l", "B"], 3),
    "measure 10 to 60": (["D", "R"], 3),
    "export it": (["X", "enter"], 2),
    "change model": (["M", "up", "enter"], 3),
    "leave": (["Q"], 1),
}


async def test_every_task_takes_as_few_keys_as_before_and_five_take_fewer(lab, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with lab() as (app, pilot):
        pane, inspector = app.query_one(GeneratePane), app.query_one(Inspector)

        async def do(task: str) -> None:
            await pilot.press(*TASKS[task][0])

        await do("run")
        await until(pilot, lambda: all(lane.reason for lane in pane.lanes) and at_rest(app))

        await do("look at token 5")
        assert pane.lanes[0].cursor == 4
        assert "lane A · step 5" in str(inspector.border_title)

        await do("see its candidates at raw")
        assert app.query_one(CandidateList).has_focus
        assert app.query_one(CandidateList).stage == "raw"

        await do("find a token")
        assert app.query_one(CandidateList).row(0).text == "·sky"

        await do("branch there")
        await until(pilot, lambda: pane.lanes[0].reason is not None and len(pane.trees[0].branches) == 2)
        await until(pilot, lambda: at_rest(app))
        assert pane.lanes[0].steps[4].token.text == " sky"
        assert not app.query_one("#filter", Input).display

        await do("colour by rank")
        assert pane.mode == "rank"

        await do("compare both lanes at the same place")
        assert pane.lanes[0].cursor == pane.lanes[1].cursor == app.query_one(LanesPane).parted
        assert f"lane B · step {pane.lanes[1].cursor + 1}" in str(inspector.border_title)

        await do("measure 10 to 60")
        timing = app.workbench.timing
        await until(pilot, lambda: timing.shown is not None and not timing.running)
        assert timing.shown.sweep.lengths == (10, 20, 40, 60)

        await do("export it")
        await until(pilot, lambda: (tmp_path / "timing.md").exists())

        name = app.lab.facts.name
        await pilot.press("M")
        await until(pilot, lambda: isinstance(app.screen, ModelPicker) and bool(app.screen._entries))
        await pilot.press(*TASKS["change model"][0][1:])
        await until(pilot, lambda: app.loader.loading or app.lab.facts is None or app.lab.facts.name != name, 60)

        await do("leave")
        await until(pilot, lambda: app._exit)

    taken = {task: (len(keys), before) for task, (keys, before) in TASKS.items()}
    assert all(now <= before for now, before in taken.values())
    assert sum(now < before for now, before in taken.values()) >= 5
