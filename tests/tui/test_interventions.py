"""What is done to a model, by keyboard: a head switched off for lane B, and the editor's fields."""

from dataclasses import replace
from pathlib import Path

from textual.widgets import Input, Static

from engine.generation.config import GenerationConfig
from engine.generation.events import Start, Stepped
from engine.generation.loop import generate
from engine.inside.patching import patch_map, patching
from engine.sessions.session import from_json, to_json
from tests.tui.conftest import SHORT, at_rest, ran, until
from tests.tui.test_inside import lens_of, looking, said, seen
from tui.dialogs.texts import TextsDialog
from tui.exports import exportables
from tui.panes.generate import GeneratePane
from tui.panes.inside import InsidePane
from tui.panes.inside_lane import InsideLane
from tui.panes.inspector import Inspector
from tui.panes.prompt import PromptPane
from tui.widgets.grid import Grid
from tui.widgets.hint import Hint

GREEDY = GenerationConfig(name="greedy", max_new_tokens=10, ignore_eos=True)


def written(app, config: GenerationConfig) -> list[int]:
    """What the lab's model writes after the prompt under a configuration."""
    model = app.lab._model
    start = Start(tuple(app.workbench.prompt_area.tokens))
    events = generate(model.network, model.tokenizer, [start], [config])
    return [event.token.id for event in events if isinstance(event, Stepped)]


def ids(pane: GeneratePane, lane: int) -> list[int]:
    return [step.token.id for step in pane.lanes[lane].steps]


async def over(app, pilot, configs: tuple[GenerationConfig, ...]) -> None:
    """Wait until lane B has been run under its configuration."""
    pane = app.query_one(GeneratePane)
    await until(
        pilot,
        lambda: (
            at_rest(app)
            and pane.trees[1].shown is not None
            and pane.trees[1].shown.config.interventions == configs[1].interventions
        ),
    )


async def looked_at(app, pilot, lane: int) -> InsideLane:
    """Look at one of the lanes."""
    if app.workbench.view != "inside":
        await pilot.press("ctrl+pageup")
    await until(pilot, lambda: app.query_one(InsidePane).opened and app.workbench.view == "inside")
    if app.query_one(InsidePane).lane != lane:
        await pilot.press("a")
    return await looking(app, pilot, lane)


async def test_o_runs_lane_b_as_lane_a_without_the_head_under_the_cursor(lab, tiny_deep: Path) -> None:
    async with lab(model=str(tiny_deep), configs=(GREEDY, SHORT[1])) as (app, pilot):
        pane = await ran(app, pilot)
        alone = ids(pane, 0)
        lane = await looking(app, pilot)
        await pilot.press("o")  # no head under the lens' cursor
        assert pane.configs[1] == SHORT[1]
        await pilot.press("2")
        await until(pilot, lambda: bool(lane.attention.heads))
        await pilot.press("tab")
        assert isinstance(app.focused, Grid)
        await pilot.press("up", "up", "right")
        await until(pilot, lambda: lane.attention.part == "head 2.1")
        await pilot.press("o")
        config = replace(GREEDY, name="custom", interventions=("head 2.1 off",))
        await over(app, pilot, (GREEDY, config))
        assert pane.configs == (GREEDY, config)
        assert app.workbench.view == "generate"
        assert ids(pane, 0) == alone
        assert ids(pane, 1) == written(app, config) != alone
        assert "head 2.1 off, plain steps" in str(pane.lanes[1].border_title)
        # Another head goes with it, and the same one comes back.
        lane = await looked_at(app, pilot, 1)
        await until(pilot, lambda: lane.attention.part == "head 0.0")
        await pilot.press("tab", "up", "up", "right", "right")
        await until(pilot, lambda: lane.attention.part == "head 2.2")
        await pilot.press("o")
        await over(app, pilot, (GREEDY, replace(config, interventions=("head 2.1 off", "head 2.2 off"))))
        lane = await looked_at(app, pilot, 1)  # where the head is still chosen
        await until(pilot, lambda: lane.attention.part == "head 2.2")
        await pilot.press("o")
        await over(app, pilot, (GREEDY, config))
        assert ids(pane, 1) == written(app, config)
        while pane.states.can_undo:
            pane.action_undo()
        assert pane.configs == (GREEDY, SHORT[1])


async def test_a_share_is_switched_off_where_it_is_shown(lab, tiny_deep: Path) -> None:
    async with lab(model=str(tiny_deep), configs=(GREEDY, GREEDY)) as (app, pilot):
        pane = await ran(app, pilot)
        lane = await looking(app, pilot)
        await pilot.press("3")
        await until(pilot, lambda: lane.attribution.attribution is not None)
        bars = lane.attribution.bars
        while lane.attribution.part is None:  # the embedding's share cannot be
            await pilot.press("down")
            assert bars.cursor < bars.row_count - 1
        part = lane.attribution.part
        await pilot.press("o")
        config = replace(GREEDY, name="custom", interventions=(f"{part} off",))
        await over(app, pilot, (GREEDY, config))
        assert ids(pane, 1) == written(app, config)


async def test_inside_looks_at_what_the_lane_did(lab, tiny_deep: Path) -> None:
    """Under the lane's interventions, so that the lens' last row is the lane's own answer."""
    done = replace(GREEDY, name="custom", interventions=("mlp 3 off", "block 5 skipped"))
    async with lab(model=str(tiny_deep), configs=(GREEDY, done)) as (app, pilot):
        pane = await ran(app, pilot)
        assert ids(pane, 0) != ids(pane, 1)
        lane = await looked_at(app, pilot, 1)
        await seen(pilot, lane)
        assert "under mlp 3 off; block 5 skipped" in said(lane, "inside-head")
        lens = lens_of(lane)
        for position in range(len(lane.tokens) - 12, len(lane.tokens) - 1):
            cell = lens.cell(lens.blocks, position)
            assert cell.top[0].id == lane.tokens[position + 1].id or position < len(lane.tokens) - 11
        await pilot.press("3")
        await until(pilot, lambda: "changes the stream between the parts" in said(lane, "attribution-title"))
        await pilot.press("4")
        await until(pilot, lambda: lane.occlusion.occlusion is not None)
        pane.configure(1, replace(done, interventions=('patch 2 at 0 from "the sky above"',)))
        app.workbench.view = "generate"
        await ran(app, pilot)
        lane = await looked_at(app, pilot, 1)
        await pilot.press("4")
        await until(pilot, lambda: "moves the positions" in said(lane, "occlusion-title"))


async def test_the_editor_takes_interventions_and_guidance(lab) -> None:
    async with lab(configs=(GREEDY, GREEDY)) as (app, pilot):
        pane = app.query_one(GeneratePane)
        await pilot.press("f4")
        await until(pilot, lambda: len(app.screen_stack) > 1)
        editor = app.screen
        says = editor.query_one("#editor-says", Static)
        editor.query_one("#field-interventions", Input).value = "head 1.2 gone"
        await until(pilot, lambda: "interventions is 'head 1.2 gone'; allowed: one of" in str(says.render()))
        text = 'head 1.2 off; patch 1 at 0 from "the sky; above"'
        editor.query_one("#field-interventions", Input).value = text
        editor.query_one("#field-guidance_scale", Input).value = "2.5"
        editor.query_one("#field-negative_prompt", Input).value = "rain\\nand"
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is not editor)
        config = pane.configs[1]
        assert config.interventions == ("head 1.2 off", 'patch 1 at 0 from "the sky; above"')
        assert (config.guidance_scale, config.negative_prompt) == (2.5, "rain\nand")
        await pilot.press("f4")
        await until(pilot, lambda: len(app.screen_stack) > 1)
        assert app.screen.query_one("#field-interventions", Input).value == text
        assert app.screen.query_one("#field-negative_prompt", Input).value == "rain\\nand"


async def test_what_cannot_be_done_is_one_sentence_and_nothing_is_lost(lab) -> None:
    async with lab(configs=(GREEDY, GREEDY)) as (app, pilot):
        pane = await ran(app, pilot)
        before = ids(pane, 1)
        for text, words in (
            ("head 9.0 off", "there is no layer 9"),
            ("steer 2 by /nowhere.gguf × 4", "cannot read /nowhere.gguf"),
            ('patch 1 at 0 from "one two three four five six"', "a patch wants as many"),
        ):
            pane.configure(1, replace(GREEDY, interventions=(text,)))
            await pilot.press("f5")
            await until(pilot, lambda words=words: any(words in str(note.message) for note in app._notifications))
            await until(pilot, lambda: at_rest(app))
            assert ids(pane, 1) == before
        pane.configure(1, GREEDY)
        await ran(app, pilot)
        assert ids(pane, 1) == before


async def test_the_inspector_shows_guidance_as_a_stage_and_keeps_what_ran(lab) -> None:
    guided = replace(GREEDY, name="custom", guidance_scale=3.0, negative_prompt="rain", interventions=("mlp 1 off",))
    async with lab(configs=(guided, GREEDY)) as (app, pilot):
        pane = await ran(app, pilot)
        inspector = app.query_one(Inspector)
        pane.look_at(0, 2)
        await until(pilot, lambda: inspector.settings is not None)
        assert "guidance" in str(app.query_one("#stages", Static).render())
        view = inspector._inspection
        right = [candidate.guided_probability for candidate in view.at(0, 5)]
        assert None not in right
        # Another configuration for the next run: the step is still what it was decided from, after a recall too.
        pane.configure(0, replace(GREEDY, interventions=("head 0.1 off",), guidance_scale=2.0))
        app.lab._logits.clear()
        pane.look_at(0, 3)
        pane.look_at(0, 2)
        await until(pilot, lambda: inspector._inspection is not None and inspector._inspection is not view)
        again = [candidate.guided_probability for candidate in inspector._inspection.at(0, 5)]
        assert all(abs(one - other) < 1e-5 for one, other in zip(again, right, strict=True))
        pane.look_at(1, 2)
        await until(pilot, lambda: inspector._lane == 1)
        assert "guidance" not in str(app.query_one("#stages", Static).render())


async def test_a_session_holds_them_and_computes_logits_again_under_them(lab) -> None:
    done = replace(GREEDY, name="custom", interventions=("head 1.1 mean", "mlp 0 off"))
    async with lab(configs=(done, GREEDY)) as (app, pilot):
        pane = await ran(app, pilot)
        session = from_json(to_json(app.keeper.gather()))
        probabilities = [step.raw_probability for step in pane.lanes[0].steps]
    async with lab(configs=(GREEDY, GREEDY), session=session) as (app, pilot):
        pane = app.query_one(GeneratePane)
        await until(pilot, lambda: len(pane.lanes[0].steps) == 10)
        assert pane.configs[0].interventions == done.interventions
        inspector = app.query_one(Inspector)
        for index in (4, 7):
            pane.look_at(0, index)
            await until(
                pilot,
                lambda index=index: inspector._inspection is not None and inspector._inspection.step.index == index,
            )
            step = pane.lanes[0].steps[index]
            found = inspector._inspection.of([step.token.id])[0]
            assert abs(found.raw_probability - probabilities[index]) < 1e-5


async def test_where_it_is_held_is_mapped_and_exported(lab, tiny_deep: Path) -> None:
    async with lab(model=str(tiny_deep), configs=(GREEDY, GREEDY), prompt="the sky above") as (app, pilot):
        lane = await looking(app, pilot)
        await pilot.press("5")
        picture = lane.patching
        assert "asks for another prompt" in said(lane, "patching-title")
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, TextsDialog))
        fields = app.screen.query(Input)
        fields[0].value = "the sky"
        await pilot.press("enter")
        await until(pilot, lambda: "in the other prompt" in str(app.screen.query_one(Hint).render()))
        assert picture.whole is None
        assert fields[0].value == "the sky", "what was typed is still there"
        seen, picture._seen = picture._seen, None  # as while a run that has ended is looked at
        await pilot.press("enter")
        await until(pilot, lambda: "try again" in str(app.screen.query_one(Hint).render()))
        picture._seen = seen
        fields[0].value = "the city above"
        await pilot.press("enter")
        await until(pilot, lambda: picture.whole is not None)
        model, found = app.lab._model, picture.whole
        ids = [[token.id for token in tokens] for tokens in (picture.clean, picture.corrupt)]
        answers, *columns = patching(model, *ids)
        assert found == patch_map(answers, columns)
        row, column = picture.grid.cursor
        assert (row, column) == (12, len(ids[0]) - 1)
        assert "+1.000" in said(lane, "patching-cell")
        await pilot.press("left")
        assert "+0.000" in said(lane, "patching-cell").replace("-0.000", "+0.000")
        items = {item.file for item in exportables(app.workbench, app.lab.tokenizer, app.keeper.gather())}
        assert "patching-a" in items
        # Another text has no map.
        app.query_one(PromptPane).insert(" rain")
        await until(pilot, lambda: picture.whole is None and lane.record is not None)
