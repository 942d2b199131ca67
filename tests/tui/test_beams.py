"""A lane with strategy `beam`: its best text while it searches, and the steps of the result."""

from dataclasses import replace

from engine.generation.config import GenerationConfig
from tests.tui.conftest import ran, until
from tests.tui.test_lane_models import alone, ids
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
