"""A lane with strategy `beam`: its best text while it searches, and the steps of the result."""

from dataclasses import replace

from textual.widgets import Tree

from engine.base.plain import one_line
from engine.generation.config import GenerationConfig
from engine.generation.events import Beam
from engine.sessions.session import Session, from_json, from_trees, to_json, to_trees
from tests.tui.conftest import ran, until
from tests.tui.test_lane_models import alone, ids, said
from tui.dialogs.branches import ROWS, BranchesDialog, beam_rows
from tui.panes.generate import GeneratePane
from tui.widgets.token_flow import TokenFlow

GREEDY = GenerationConfig(name="greedy", max_new_tokens=10, ignore_eos=True)
BEAM = replace(GREEDY, name="custom", strategy="beam", beams=3)


async def test_a_lane_shows_its_best_beam_and_then_its_steps(lab) -> None:
    async with lab(configs=(BEAM, GREEDY)) as (app, pilot):
        pane = app.query_one(GeneratePane)
        for count in range(1, 4):
            await pilot.press("f6")
            await until(pilot, lambda count=count: f"round {count}, 3 beams" in str(pane.lanes[0].border_subtitle))
            assert len(pane.lanes[0].query_one(TokenFlow).tokens) == count
            assert pane.lanes[0].steps == []
        await pilot.press("escape")
        await until(pilot, lambda: not pane.running)
        assert len(pane.lanes[0].steps) == 3
        await ran(app, pilot)
        assert ids(pane, 0) == await alone(app, BEAM)
        flow = pane.lanes[0].query_one(TokenFlow)
        assert [token.id for token in flow.tokens] == ids(pane, 0)


def rows(app) -> list[str]:
    tree = app.screen.query_one(Tree)
    return [str(node.label) for top in tree.root.children for node in (top, *top.children)]


async def test_the_branch_tree_shows_the_beams_while_they_are_searched_and_goes_on_with_one(lab) -> None:
    async with lab(configs=(BEAM, GREEDY)) as (app, pilot):
        pane = app.query_one(GeneratePane)
        lane = pane.lanes[0]
        for count in (1, 2):
            await pilot.press("f6")
            await until(pilot, lambda count=count: lane.search is not None and lane.search.round == count)
        app.action_go("a")
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, BranchesDialog) and "round 2" in rows(app)[0])
        pane.step()
        await until(pilot, lambda: "round 3" in rows(app)[0])
        found = rows(app)[1:]
        assert len(found) == len(lane.search.beams)
        assert [row.startswith("★") for row in found] == [True] + [False] * (len(found) - 1)
        for beam in lane.search.beams:
            (row,) = [row for row in found if f"beam {beam.id + 1}: {beam.score:.3f}" in row]
            assert ("died in round" in row) == (beam.state == "died")
            assert one_line(beam.text).strip()[:8] in row
        await pilot.press("down", "enter")
        assert "The lanes are running" in said(app)
        pane.runs.toggle_pause()
        await until(pilot, lambda: not pane.running and "beam search" not in rows(app)[0])

        tree = pane.trees[0]
        best, *others = tree.branches
        assert best.beam is not None
        assert others
        assert all(branch.beam is not None and branch.beam.score <= best.beam.score for branch in others)
        assert len(rows(app)) == len(tree.branches) + len(best.beams)
        dead = len(rows(app)) - 1
        await pilot.press(*["down"] * dead)
        await until(pilot, lambda: app.screen.query_one(Tree).cursor_line == dead)
        await pilot.press("enter")
        assert "was left behind" in said(app)
        await pilot.press("home", "down", "enter")
        await until(pilot, lambda: pane.trees[0].current == others[0].id)
        assert ids(pane, 0) == list(others[0].ids) != list(best.ids)

        pane.branching.go_on(0, 4, (9,))
        await until(pilot, lambda: not pane.running and pane.trees[0].shown.parent == others[0].id)
        assert ids(pane, 0)[:5] == [*others[0].ids[:4], 9]
        lanes, prompts = from_trees(pane.configs, pane.trees)
        again = to_trees(from_json(to_json(Session(lanes=lanes, prompt_tokens=prompts))))
        for branch, other in zip(pane.trees[0], again[0], strict=True):
            assert (branch.beam, branch.beams, branch.ids) == (other.beam, other.beams, other.ids)


def test_a_long_search_shows_the_beams_that_died_last() -> None:
    beams = [Beam(id, 0, 1, (), -1.0 * id, "died", 0, id) for id in range(1, ROWS + 50)]
    alive = Beam(0, None, 0, (), -9.0)
    found = beam_rows([*beams, alive], alive)
    assert [beam.id for _label, beam in found[:3] if beam is not None] == [0, ROWS + 49, ROWS + 48]
    assert found[-1][1] is None
    assert str(len(beams) + 1 - ROWS) in str(found[-1][0])
