"""Every decision, and changing it: inspector, stages, branches, colours, slow motion; by keyboard."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from textual.widgets import Input, Static, Tree

from engine.generation.config import PRESETS, GenerationConfig
from engine.generation.distribution import distribution
from tests.tui.conftest import SHORT, ran, until
from tests.tui.test_app import ENDLESS, finished, lanes_of
from tui.actions import PALETTE as ACTIONS
from tui.dialogs.branch import BranchDialog
from tui.dialogs.branches import BranchesDialog
from tui.dialogs.samples import SamplesDialog
from tui.panes.generate import GeneratePane
from tui.panes.inspector import KNOBS, LADDERS, Inspector, climb
from tui.panes.lanes import LanesPane
from tui.panes.loop_diagram import LoopDiagram
from tui.panes.prompt import PromptPane
from tui.panes.status import StatusLine
from tui.panes.tokens import TokensPane
from tui.widgets.candidate_list import CandidateList
from tui.widgets.token_flow import TokenFlow

SAMPLED = (
    GenerationConfig(name="sampled", strategy="sample", temperature=1.3, top_k=30, seed=1, max_new_tokens=12),
    GenerationConfig(name="greedy", max_new_tokens=12),
)
SAMPLED = tuple(config.__class__(**(config.to_dict() | {"ignore_eos": True})) for config in SAMPLED)


def said(app) -> str:
    return " | ".join(note.message for note in app._notifications)


async def test_the_inspector_shows_the_engines_numbers_for_the_step_under_the_cursor(lab) -> None:
    async with lab(configs=SAMPLED) as (app, pilot):
        await ran(app, pilot)
        lane = lanes_of(app)[0]
        lane.query_one(TokenFlow).focus()
        await pilot.press("home", "right", "right")
        step = lane.steps[2]
        rows = app.query_one(CandidateList)
        logits = step.logits.row
        stage = distribution(logits, None, SAMPLED[0])
        order = logits.argsort(descending=True, stable=True).tolist()
        raw = logits.log_softmax(0).exp()
        for index in (0, 1, 29, 30, 31, len(order) - 1):
            candidate = rows.row(index)
            assert candidate is not None
            assert candidate.id == order[index]
            assert candidate.rank == index + 1
            assert candidate.raw_probability == pytest.approx(float(raw[candidate.id]), abs=1e-6)
            assert candidate.probability == pytest.approx(float(stage.probabilities[candidate.id]), abs=1e-6)
            assert candidate.cut_by == (None if index < 30 else "top_k")
        title = str(app.query_one(Inspector).border_title)
        assert "lane A · step 3" in title
        assert f"30 of {len(order):,} left" in title
        assert f"{step.cut_mass:.1%} of the mass cut" in title


async def test_stages_are_walked_with_one_key(lab) -> None:
    async with lab(configs=SAMPLED) as (app, pilot):
        await ran(app, pilot)
        rows = app.query_one(CandidateList)
        rows.focus()
        seen = [rows.stage]
        for _ in range(3):
            await pilot.press("s")
            seen.append(rows.stage)
        assert seen == ["pick", "raw", "temperature", "top_k"]


async def test_a_knob_redraws_the_bars_without_running_the_model(lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lab(configs=SAMPLED) as (app, pilot):
        await until(pilot, lambda: not app.lab._unprepared)
        pane = await ran(app, pilot)  # which the worker begins once the model is prepared
        forwards: list[object] = []
        network = app.lab._model.network
        monkeypatch.setattr(network, "forward", lambda *a, **k: forwards.append(a))
        inspector = app.query_one(Inspector)
        app.query_one(CandidateList).focus()
        await pilot.press("minus", "minus")
        assert inspector.settings.temperature == pytest.approx(1.0)
        await pilot.press("right", "minus")
        assert inspector.settings.top_k == 20
        row = app.query_one(CandidateList).row(0)
        step = lanes_of(app)[0].steps[-1]
        expected = distribution(step.logits.row, None, inspector.settings)
        assert row.probability == pytest.approx(float(expected.probabilities[row.id]), abs=1e-6)
        assert pane.configs[0] == SAMPLED[0]
        await pilot.press("a")
        assert (pane.configs[0].temperature, pane.configs[0].top_k) == (1.0, 20)
        await pilot.press("0")
        assert inspector.settings.temperature == 1.3
        assert forwards == []


def test_ladders_are_climbed_from_anywhere_and_end() -> None:
    assert climb(LADDERS["temperature"], 0.65, 1) == 0.7
    assert climb(LADDERS["temperature"], 0.65, -1) == 0.5
    assert climb(LADDERS["temperature"], 99.0, 1) == 5.0
    assert climb(LADDERS["top_k"], None, 1) is None
    assert climb(LADDERS["top_k"], None, -1) == 1000
    assert climb(LADDERS["min_p"], None, 1) == 0.001
    for name in KNOBS:
        for value in LADDERS[name]:
            strategy = "sample" if name == "typical_p" else "greedy"
            GenerationConfig(strategy=strategy, **{name: value})


async def test_a_setting_that_cannot_be_is_said_and_changes_nothing(lab) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        inspector = app.query_one(Inspector)
        app.query_one(CandidateList).focus()
        before = inspector.settings
        inspector.knob = KNOBS.index("typical_p")
        await pilot.press("minus")
        assert "only with strategy sample" in said(app)
        assert inspector.settings == before


async def test_contrastive_candidates_tell_why_the_winner_won(lab) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        lane = lanes_of(app)[1]
        lane.query_one(TokenFlow).focus()
        await pilot.press("home", "right", "right")
        step = lane.steps[2]
        inspection = app.query_one(Inspector)._inspection
        shown = inspection.of([candidate.id for candidate in step.candidates])
        for mine, theirs in zip(shown, step.candidates):
            assert mine.score == pytest.approx(theirs.score, abs=1e-5)
        assert inspection.choice.id == step.token.id
        assert "= " in str(app.query_one(Inspector).border_subtitle)


async def test_the_filter_finds_any_token_by_text_or_id(lab) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        rows = app.query_one(CandidateList)
        rows.focus()
        await pilot.press("slash", *"rain")
        await until(pilot, lambda: rows.row(0) is not None and "rain" in rows.row(0).text)
        assert all("rain" in rows.row(index).text for index in range(len(rows)))
        found = rows.row(0)
        await pilot.press(*["backspace"] * 4, *str(found.id))
        await until(pilot, lambda: any(rows.row(index).id == found.id for index in range(len(rows))))
        await pilot.press(*["backspace"] * len(str(found.id)), *"zzzzz")
        await until(pilot, lambda: "no token" in str(app.query_one("#inspector-says", Static).render()))
        await pilot.press("escape")
        assert not app.query_one("#filter", Input).display
        assert rows.row(0).rank == 1


async def test_enter_on_a_candidate_branches_and_the_old_text_stays(lab) -> None:
    async with lab() as (app, pilot):
        pane = await ran(app, pilot)
        lane = lanes_of(app)[0]
        before = [step.token.id for step in lane.steps]
        lane.query_one(TokenFlow).focus()
        await pilot.press("home", "right", "right", "right", "right")
        rows = app.query_one(CandidateList)
        rows.focus()
        await pilot.press("home", "down", "down", "down")
        wanted = rows.selected.id
        assert wanted != before[4]
        await pilot.press("enter")
        await until(pilot, lambda: not pane.running and len(pane.trees[0].branches) == 2)
        now = [step.token.id for step in lane.steps]
        assert now[:5] == [*before[:4], wanted]
        assert len(now) == 4 + 1 + 12
        assert lane.steps[4].forced
        assert not lane.steps[5].forced
        first, second = pane.trees[0].branches
        assert [step.token.id for step in first.steps] == before
        assert (second.parent, second.fork) == (first.id, 4)
        assert len(pane.trees[1].branches) == 1


async def test_any_text_can_be_typed_as_a_branch_and_undone(lab) -> None:
    async with lab() as (app, pilot):
        pane = await ran(app, pilot)
        lane = lanes_of(app)[0]
        before, speed, below = list(lane.steps), lane.tokens_per_second, str(lane.border_subtitle)
        lane.query_one(TokenFlow).focus()
        await pilot.press("home", "right", "right", "b")
        await until(pilot, lambda: isinstance(app.screen, BranchDialog))
        await pilot.press("enter")
        assert "at least one character" in str(app.screen.query_one("#branch-says", Static).render())
        app.screen.query_one("#branch-text", Input).value = " rain city"
        await pilot.press("enter")
        await until(pilot, lambda: not pane.running and len(pane.trees[0].branches) == 2)
        forced = [step for step in lane.steps if step.forced]
        assert "".join(step.token.text for step in forced) == " rain city"
        assert lane.steps[:2] == before[:2]
        branched = list(lane.steps)

        lane.query_one(TokenFlow).focus()
        await pilot.press("u")
        assert lane.steps == before
        assert str(lane.border_subtitle) == below, "its speed is counted from its first token again"
        assert app.query_one(StatusLine).rates["A"] == speed
        await pilot.press("r")
        assert lane.steps == branched
        await pilot.press("u", "u")
        assert not lane.steps
        await pilot.press("u")
        assert "nothing to undo" in said(app)
        await pilot.press("r", "r", "r")
        assert "nothing to redo" in said(app)
        assert lane.steps == branched


async def test_the_tree_switches_compares_and_deletes(lab) -> None:
    async with lab() as (app, pilot):
        pane = await ran(app, pilot)
        lane = lanes_of(app)[0]
        before = list(lane.steps)
        pane.branching.go_on(0, 3, (9,))
        await until(pilot, lambda: not pane.running and len(pane.trees[0].branches) == 2)
        lane.query_one(TokenFlow).focus()
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, BranchesDialog))
        tree = app.screen.query_one(Tree)
        await until(pilot, lambda: tree.cursor_node is not None and tree.cursor_node.data == 2)
        await pilot.press("up")
        await until(
            pilot, lambda: "the same for 3 tokens" in str(app.screen.query_one("#branch-compare", Static).render())
        )
        await pilot.press("enter")
        await until(pilot, lambda: lane.steps == before)
        assert pane.trees[0].current == 1

        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, BranchesDialog))
        tree = app.screen.query_one(Tree)
        await until(pilot, lambda: tree.cursor_node is not None and tree.cursor_node.data == 1)
        await pilot.press("delete")
        await until(pilot, lambda: [branch.id for branch in app.screen._tree] == [2])
        await pilot.press("delete")
        assert "last branch stays" in said(app)
        await pilot.press("escape")
        await until(pilot, lambda: [branch.id for branch in pane.trees[0]] == [2])
        assert lane.steps != before
        await pilot.press("u")
        assert len(pane.trees[0].branches) == 2
        assert lane.steps == before


async def test_branching_during_a_run_says_what_to_do_and_loses_nothing(lab, tiny_long: Path) -> None:
    async with lab(model=str(tiny_long), configs=ENDLESS) as (app, pilot):
        await pilot.press("f9", "f5")
        lane = lanes_of(app)[0]
        await until(pilot, lambda: len(lane.steps) > 5)
        lane.query_one(TokenFlow).focus()
        await pilot.press("home", "right", "b")
        assert "esc stops them" in said(app)
        count = len(lane.steps)
        await until(pilot, lambda: len(lane.steps) > count)
        await pilot.press("escape")
        await until(pilot, lambda: finished(app) and not app.query_one(GeneratePane).running)
        assert len(app.query_one(GeneratePane).trees[0].shown.steps) == len(lane.steps)


async def test_branching_without_a_cursor_says_how_to_point(lab) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        lanes_of(app)[0].query_one(TokenFlow).focus()
        await pilot.press("b")
        assert "Point at a token first" in said(app)


async def test_a_new_run_keeps_the_one_before_as_a_branch(lab, tiny_long: Path) -> None:
    async with lab(model=str(tiny_long), configs=ENDLESS) as (app, pilot):
        pane = app.query_one(GeneratePane)
        await pilot.press("f9", "f5")
        await until(pilot, lambda: len(lanes_of(app)[0].steps) > 3)
        await pilot.press("f5")
        await until(pilot, lambda: len(pane.trees[0].branches) == 1 and pane.running and bool(pane.runs.run.configs))
        await until(pilot, lambda: len(lanes_of(app)[0].steps) > 3)
        await pilot.press("escape")
        await until(pilot, lambda: not pane.running)
        assert len(pane.trees[0].branches) == 2
        assert all(len(branch.steps) > 3 for branch in pane.trees[0])


async def test_colours_tell_of_surprise_in_lanes_and_prompt(lab) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        lanes_of(app)[0].query_one(TokenFlow).focus()
        await pilot.press("c", "c")
        breakdown = app.query_one("#breakdown", TokenFlow)
        assert breakdown.mode == "rank"
        assert "top 1,000" in str(app.query_one("#legend", Static).render())
        await until(pilot, lambda: len(breakdown.judged) == len(app.workbench.prompt_area.tokens))
        network, ids = app.lab._model.network, torch.tensor([[token.id for token in app.workbench.prompt_area.tokens]])
        logits = network.forward(ids, network.cache(ids.shape[1], [0]), all_logits=True).all_logits()[0]
        expected = -logits.log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0] / math.log(2)
        got = torch.tensor([scored.surprisal_bits for scored in breakdown.judged[1:]])
        torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)
        title = str(app.query_one(TokensPane).border_title)
        assert f"{float(expected.sum()):.1f} bits" in title
        assert "perplexity" in title
        lane = lanes_of(app)[0]
        ranks = [step.rank for step in lane.steps]
        styles = [lane.query_one(TokenFlow).token_style(index).bgcolor.name for index in range(len(ranks))]
        for rank, style in zip(ranks, styles):
            assert (style == "#1d5c3a") == (rank <= 10)
        await pilot.press("c", "c", "c")
        assert breakdown.mode == "tokens"
        assert "perplexity" not in str(app.query_one(TokensPane).border_title)


async def test_where_the_lanes_part_is_marked_and_cursors_can_be_locked(lab) -> None:
    async with lab(configs=(SHORT[0], SHORT[0].biased(3, 0.0))) as (app, pilot):
        pane = await ran(app, pilot)
        lanes = app.query_one(LanesPane)
        assert lanes.parted is None
        first = lanes_of(app)[0].steps
        pane.branching.go_on(1, 4, (next(c.id for c in first[4].candidates if c.id != first[4].token.id),))
        await until(pilot, lambda: not pane.running and lanes.parted == 4)
        assert "part at token 5" in str(app.query_one("#legend", Static).render())
        assert all(lane.query_one(TokenFlow).token_style(4).underline for lane in lanes_of(app))
        lanes_of(app)[0].query_one(TokenFlow).focus()
        await pilot.press("home", "right", "l", "right")
        assert [lane.cursor for lane in lanes_of(app)] == [2, 2]
        await pilot.press("l", "right")
        assert [lane.cursor for lane in lanes_of(app)] == [3, 2]


async def test_a_lane_that_writes_leaves_the_one_that_is_pointed_at_in_the_inspector(lab) -> None:
    async with lab(configs=(SHORT[0], SHORT[0].biased(3, 0.0))) as (app, pilot):
        pane = await ran(app, pilot)
        lanes_of(app)[0].query_one(TokenFlow).focus()
        await pilot.press("home", "right")
        first = lanes_of(app)[0].steps
        pane.branching.go_on(1, 4, (next(c.id for c in first[4].candidates if c.id != first[4].token.id),))
        await until(pilot, lambda: app.query_one(LanesPane).parted == 4 and not pane.running)
        assert lanes_of(app)[1].cursor is None
        assert "lane A · step 2" in str(app.query_one(Inspector).border_title)
        await pilot.press("l", "right")
        assert [lane.cursor for lane in lanes_of(app)] == [2, 2]


async def test_slow_motion_lights_every_stage_with_its_values(lab) -> None:
    async with lab() as (app, pilot):
        diagram = app.query_one(LoopDiagram)
        seen: list[tuple[str, str]] = []
        watch = diagram.render

        def render():  # type: ignore[no-untyped-def]
            seen.append((diagram.stage, diagram._values(diagram.stage)))
            return watch()

        diagram.render = render  # type: ignore[method-assign]
        await pilot.press("f6")
        await until(pilot, lambda: {stage for stage, _ in seen} >= {"model", "probabilities", "pick", "append"})
        values = dict(seen)
        step = lanes_of(app)[0].steps[0]
        assert f"{len(app.workbench.prompt_area.tokens)} ids in, a vector of 48" in values["model"]
        assert f"{app.lab.facts.vocabulary_size} scores" in values["probabilities"]
        assert step.candidates[0].text in values["probabilities"]
        assert f"picked “{step.token.label}”" in values["pick"]
        assert f"now {len(app.workbench.prompt_area.tokens) + 1} tokens" in values["append"]


async def test_the_pace_slows_a_run_and_lets_it_go_again(lab, tiny_long: Path) -> None:
    async with lab(model=str(tiny_long), configs=ENDLESS) as (app, pilot):
        pane = app.query_one(GeneratePane)
        for expected in (20, 5, 2, 1):
            await pilot.press("f9")
            assert pane.runs.pace == expected
        await pilot.press("f5")
        lane = lanes_of(app)[0]
        await until(pilot, lambda: len(lane.steps) == 1)
        await pilot.press("f9")
        assert pane.runs.pace is None
        await until(pilot, lambda: len(lane.steps) > 20)
        await pilot.press("escape")


async def test_many_are_drawn_merged_and_one_becomes_a_branch(lab) -> None:
    async with lab(configs=SAMPLED) as (app, pilot):
        pane = await ran(app, pilot)
        lanes_of(app)[0].query_one(TokenFlow).focus()
        await pilot.press("home", "right", "m")
        await until(pilot, lambda: isinstance(app.screen, SamplesDialog))
        dialog = app.screen
        dialog.query_one("#sample-count", Input).value = "1000"
        await pilot.press("enter")
        assert "from 1 to 64" in str(dialog.query_one("#sample-says", Static).render())
        dialog.query_one("#sample-count", Input).value = "6"
        dialog.query_one("#sample-length", Input).value = "5"
        await pilot.press("enter")
        await until(pilot, lambda: "continuations, " in str(dialog.query_one("#sample-says", Static).render()))
        roots = dialog.query_one(Tree).root.children
        assert sum(int(str(node.label).split("×")[0]) for node in roots) == 6
        assert [len(steps) for steps in dialog._steps] == [5] * 6
        await pilot.press("home", "down", "enter")
        await until(pilot, lambda: len(pane.trees[0].branches) == 2)
        branch = pane.trees[0].shown
        assert (branch.fork, len(branch.steps)) == (1, 6)
        assert [step.token for step in lanes_of(app)[0].steps] == [step.token for step in branch.steps]


async def test_bans_and_favours_belong_to_the_lane_and_can_be_taken_back(lab) -> None:
    async with lab() as (app, pilot):
        pane = await ran(app, pilot)
        lane = lanes_of(app)[0]
        lane.query_one(TokenFlow).focus()
        await pilot.press("home")
        rows = app.query_one(CandidateList)
        rows.focus()
        await pilot.press("home", "x")
        banned = rows.selected.id
        assert pane.configs[0].banned == (banned,)
        assert rows.row(0).probability == 0
        await pilot.press("down", "f", "f")
        assert dict(pane.configs[0].logit_bias) == {rows.selected.id: 2.0}
        await ran(app, pilot)
        assert banned not in [step.token.id for step in lane.steps]
        assert "±2" in str(lane.border_title)
        lane.query_one(TokenFlow).focus()
        await pilot.press("home")
        rows.focus()
        await pilot.press("home", "x")
        assert pane.configs[0].banned == ()
        await pilot.press("u", "u")
        assert pane.configs[0].banned in ((), (banned,))


async def test_a_step_whose_logits_were_let_go_is_computed_again(lab) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        lane = lanes_of(app)[0]
        step = lane.steps[5]
        expected = step.logits.row.clone()
        step.logits.row = None
        lane.query_one(TokenFlow).focus()
        await pilot.press("home", *["right"] * 5)
        await until(pilot, lambda: app.query_one(CandidateList).display and step.logits.row is not None)
        torch.testing.assert_close(step.logits.row, expected, atol=1e-4, rtol=1e-4)


async def test_without_a_chat_template_the_switch_says_so(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("ctrl+t")
        assert "no chat template" in said(app)


async def test_the_chat_template_shows_every_special_token(lab) -> None:
    async with lab(model="smollm2-135m", prompt="Hello") as (app, pilot):
        await pilot.press("ctrl+t")
        await until(pilot, lambda: len(app.workbench.prompt_area.tokens) > 5)
        labels = [token.label for token in app.workbench.prompt_area.tokens]
        assert labels.count("<|im_start|>") == 3
        assert "Hello" in labels
        assert "Message 1 of 1 · user" in str(app.query_one(PromptPane).border_title)
        assert app.query_one(PromptPane).text == "Hello"
        await pilot.press("ctrl+t")
        await until(pilot, lambda: len(app.workbench.prompt_area.tokens) == 1)


async def test_every_action_is_in_the_palette_once_and_works_from_there(lab) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        commands = list(app.get_system_commands(app.screen))
        titles = [command.title for command in commands]
        assert sorted(title for title in titles if title in ACTIONS.values()) == sorted(ACTIONS.values())
        lanes_of(app)[0].query_one(TokenFlow).focus()
        (colour,) = [command for command in commands if command.title == ACTIONS["colour"]]
        await colour.callback()
        await pilot.pause()
        assert app.query_one(GeneratePane).mode == "probability"


async def test_another_model_begins_anew_with_both_lanes(lab, tiny_gpt2: Path) -> None:
    async with lab(configs=(SHORT[0].biased(5, 3.0), SHORT[1])) as (app, pilot):
        pane = await ran(app, pilot)
        app.loader.load(str(tiny_gpt2))
        await until(pilot, lambda: app.lab.facts.architecture == "gpt2" and not app.loader.loading)
        assert not any(lane.steps for lane in lanes_of(app))
        assert not any(tree.branches for tree in pane.trees)
        assert pane.configs[0].logit_bias == ()
        await pilot.press("u")
        await ran(app, pilot)
        assert all(len(lane.steps) == 12 for lane in lanes_of(app))


async def test_a_model_without_a_chat_template_gets_the_prompt_as_it_is(lab, tiny_llama: Path) -> None:
    async with lab(model="smollm2-135m", prompt="Hello") as (app, pilot):
        await pilot.press("ctrl+t")
        await until(pilot, lambda: len(app.workbench.prompt_area.tokens) > 5)
        app.loader.load(str(tiny_llama))
        await until(pilot, lambda: app.lab.facts.title != "SmolLM2-135M-Instruct" and not app.loader.loading)
        assert app.workbench.prompt_area.threads is None
        assert "no chat template" in said(app)
        assert "".join(token.text for token in app.workbench.prompt_area.tokens) == "Hello"
        await ran(app, pilot)


async def test_a_lane_that_many_candidates_made_wild_says_so_until_its_k_is_turned(lab) -> None:
    wide = replace(PRESETS["creative"], max_new_tokens=12, ignore_eos=True)
    async with lab(configs=(SHORT[0], wide)) as (app, pilot):
        pane = await ran(app, pilot)
        below = sum((step.rank or 0) > 4 for step in pane.lanes[1].steps)
        assert below >= 2  # of a random model, whose candidates are nearly alike
        legend = app.query_one("#legend", Static)
        assert f"k 40 makes B wild: {below} of 12 below rank 4 · F4" in str(legend.render())
        pane.configure(1, replace(wide, top_k=4))
        assert "wild" not in str(legend.render())
        await ran(app, pilot)
        assert "wild" not in str(legend.render())


async def test_the_hidden_inspector_opens_at_what_was_written_last(lab) -> None:
    async with lab(size=(80, 24)) as (app, pilot):
        inspector = app.query_one(Inspector)
        await pilot.press("escape", "I")
        await pilot.pause()
        assert not inspector.display
        assert len(app._notifications) == 1, "nothing is written yet, and that is said"
        await ran(app, pilot)
        await pilot.press("I")
        await until(pilot, lambda: inspector.settings is not None)
        assert inspector.display
        assert app.focused is app.query_one(CandidateList)
        assert len(app._notifications) == 1
        assert f"step {len(lanes_of(app)[0].steps)} " in str(inspector.border_title)
