"""The Generate view: both lanes, what each step chose from, and the loop; it owns the runs and what came of them."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.css.query import NoMatches
from textual.message import Message
from textual.widgets import Static

from engine.base.errors import LogitlabError
from engine.base.language import _
from engine.generation.branches import BranchTree
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Failed, Finished, Prefilled, Prefilling, Start, Started, Stepped
from engine.job import Job
from engine.lab import Lab
from engine.text.token import Token
from tui.panes.inspector import EMPTY, Inspector
from tui.panes.lane_states import History
from tui.panes.lanes import NAMES, LanePane, LanesPane
from tui.panes.loop_diagram import LoopDiagram
from tui.style.colours import MODES, legend, palette
from tui.widgets.candidate_list import CandidateList
from tui.widgets.token_flow import TokenFlow

if TYPE_CHECKING:
    from engine.generation.inspection import Inspection

FRAME_SECONDS = 1 / 20
TELL_SECONDS = 1 / 4
# What each step carries for the loop diagram; the inspector reads any depth off the step's logits.
CANDIDATES = 3
PACES: tuple[float | None, ...] = (None, 20, 5, 2, 1)

# What undo goes back over: the lanes' configurations and their branches.
State = tuple[tuple[GenerationConfig, ...], tuple[BranchTree, ...]]


@dataclass
class Run:
    """A run that goes on.

    Attributes:
        shown: which lane here each of its lanes is.
        trees: of all lanes, with the branches that are being written.
        configs: as it began, complete; empty before.
        what: undo's name for it.
    """

    job: Job[Event]
    shown: tuple[int, ...]
    trees: tuple[BranchTree, ...]
    what: str
    configs: dict[int, GenerationConfig] = field(default_factory=dict)


class GeneratePane(Vertical):
    """Two lanes, the inspector, the loop."""

    BINDINGS = [
        Binding("b", "branch", "branch"),
        Binding("t", "branches", "branches"),
        Binding("m", "sample_many", "sample many"),
        Binding("c", "colour", "colour"),
        Binding("i", "inspector", "inspector"),
        Binding("u,ctrl+z", "undo", "undo", key_display="u"),
        Binding("r,ctrl+y", "redo", "redo", key_display="r"),
        Binding("l", "lock", "lock cursors"),
    ]

    class SpeedChanged(Message):
        """So many tokens a second, over both lanes."""

        def __init__(self, tokens_per_second: float) -> None:
            self.tokens_per_second = tokens_per_second
            super().__init__()

    class Trouble(Message):
        """A run, or what was asked for, failed."""

        def __init__(self, error: Exception) -> None:
            self.error = error
            super().__init__()

    class Configured(Message):
        """The lanes' configurations are these now."""

        def __init__(self, configs: Sequence[GenerationConfig]) -> None:
            self.configs = configs
            super().__init__()

    class Coloured(Message):
        """Tokens are to be coloured by this mode, here and elsewhere."""

        def __init__(self, mode: str) -> None:
            self.mode = mode
            super().__init__()

    def __init__(self, configs: Sequence[GenerationConfig]) -> None:
        super().__init__(id="generate-view")
        self.lab: Lab | None = None
        self.mode = MODES[0]
        self.pace: float | None = None
        self._run: Run | None = None
        self.begun = 0  # runs whose first event has come
        self._told_parted: int | None = None
        self._active = 0  # the lane that is inspected
        self.history: History[State] = History((tuple(configs), tuple(BranchTree() for _ in configs)))

    def compose(self) -> ComposeResult:
        yield LanesPane(*self.configs)
        yield Static(id="legend")
        yield Inspector()
        yield LoopDiagram(id="loop")

    def on_mount(self) -> None:
        self._legend()

    # What there is.

    @property
    def configs(self) -> tuple[GenerationConfig, ...]:
        return self.history.state[0]

    @property
    def trees(self) -> tuple[BranchTree, ...]:
        return self.history.state[1]

    @property
    def job(self) -> Job[Event] | None:
        """The run that goes on, if one does."""
        return None if self._run is None else self._run.job

    @property
    def running(self) -> bool:
        return self._run is not None

    @property
    def lanes(self) -> tuple[LanePane, ...]:
        return self.query_one(LanesPane).lanes

    def possible(self, action: str) -> bool:
        """Whether an action can do something now."""
        lane = self._focused()
        match action:
            case "branch":
                return not self.running and self.lanes[lane].cursor is not None
            case "branches" | "sample_many":
                return not self.running and bool(self.trees[lane].branches)
            case "lock":
                return all(pane.steps for pane in self.lanes)
            case "undo":
                return not self.running and self.history.can_undo
            case "redo":
                return not self.running and self.history.can_redo
        return True

    def configure(self, lane: int, config: GenerationConfig) -> None:
        """Another configuration for a lane's next run; what is written stays."""
        if config == self.configs[lane]:
            return
        self.history.push(
            (_replaced(self.configs, lane, config), self.trees), _("the settings of lane {lane}", lane=NAMES[lane])
        )
        self.lanes[lane].configure(config)
        self.post_message(self.Configured(self.configs))

    def begin_anew(self) -> None:
        """There is another model: its tokens are others, so what the last one wrote cannot be gone on with."""
        self._abandon()
        if any(tree.branches for tree in self.trees):
            self.notify(_("Another model: both lanes begin anew."))
        plain = tuple(replace(config, logit_bias=(), banned=()) for config in self.configs)
        self.history = History((plain, tuple(BranchTree() for _ in plain)))
        self._show_state()

    def _abandon(self) -> None:
        """End the run without keeping it."""
        self.stop()
        self.workers.cancel_group(self, "run")
        self._run = None

    # Running.

    def run(self, prompt: Sequence[Token], *, paused: bool = False) -> None:
        """Both lanes from the prompt; the run before ends, and stays as a branch."""
        self._settle()
        start = Start(tuple(prompt))
        trees = tuple(tree.begin(prompt, config) for tree, config in zip(self.trees, self.configs))
        self._start([start], self.configs, (0, 1), trees, _("the run"), paused=paused)

    def step(self) -> bool:
        """One more step of the run that goes on; False where there is none."""
        if self.job is None:
            return False
        self.job.step()
        return True

    def toggle_pause(self) -> None:
        if self.job is not None and self.job.paused:
            self.job.resume()
        elif self.job is not None:
            self.job.pause()

    def stop(self) -> bool:
        """End the run; False where there is none."""
        if self.job is None:
            return False
        self.job.cancel()
        return True

    def next_pace(self) -> None:
        """Slower, down to a token a second, then as fast as the machine can."""
        self.pace = PACES[(PACES.index(self.pace) + 1) % len(PACES)]
        if self.job is not None:
            self.job.pace(self.pace)
        self.query_one(LoopDiagram).pace = self.pace
        self.notify(
            _("Full speed.")
            if self.pace is None
            else _("At most {pace:g} tokens a second in each lane.", pace=self.pace)
        )

    def _start(
        self,
        starts: Sequence[Start],
        configs: Sequence[GenerationConfig],
        lanes: Sequence[int],
        trees: tuple[BranchTree, ...],
        what: str,
        *,
        paused: bool = False,
    ) -> None:
        assert self.lab is not None
        job = self.lab.generate(starts, configs, candidates=CANDIDATES, paused=paused)
        job.pace(self.pace)
        if paused:
            job.step()
        self._run = Run(job, tuple(lanes), trees, what)
        self.refresh_bindings()
        self._follow(self._run)

    @work(group="run", exclusive=True)
    async def _follow(self, run: Run) -> None:
        with suppress(NoMatches):  # the app is leaving, and so are its panes
            await self._show_run(run)

    async def _show_run(self, run: Run) -> None:
        """Show a run as it goes on, and remember what came of it."""
        pane, diagram = self.query_one(LanesPane), self.query_one(LoopDiagram)
        lanes = [pane.lanes[lane] for lane in run.shown]
        told = 0.0
        async for frame in run.job.frames(FRAME_SECONDS):
            steps: list[list[Stepped]] = [[] for _ in lanes]
            for event in frame:
                match event:
                    case Stepped():
                        lane = run.shown[event.lane]
                        steps[event.lane].append(event if event.lane == lane else replace(event, lane=lane))
                    case Started():
                        self.begun += 1
                        diagram.stage = "tokens"
                        for index, lane_pane in enumerate(lanes):
                            run.configs[index] = event.configs[index]
                            branch = run.trees[run.shown[index]].shown
                            assert branch is not None
                            lane_pane.start(event.configs[index], branch.steps, branch.limit)
                        pane.begin_anew()
                    case Prefilling():
                        diagram.stage = "model"
                    case Prefilled():
                        for lane_pane in lanes:
                            lane_pane.prefill_seconds = event.seconds
                    case Failed():
                        self.post_message(self.Trouble(event.error))
            newest = None
            for lane_pane, new in zip(lanes, steps):
                if new:
                    lane_pane.extend(new)
                    newest = newest or new[-1]
            for event in frame:
                if isinstance(event, Finished):
                    lanes[event.lane].finish(event.reason)
            if run.configs and not any(lane_pane.running for lane_pane in lanes) and self._run is run:
                self._settle()  # what says that it has ended can be gone on with at once
            # Text is drawn every frame, everything around it a few times a second: what the screen takes, the
            # network lacks.
            if newest is not None and (run.job.paused or self.pace or time.monotonic() - told > TELL_SECONDS):
                told = time.monotonic()
                diagram.advance(newest, slowly=run.job.paused)
                self._compare()
                self.post_message(self.SpeedChanged(pane.tokens_per_second))
                self._inspect_newest(run.shown)
                for lane_pane in lanes:
                    lane_pane.tell()
        diagram.rest()
        self._compare()
        self.post_message(self.SpeedChanged(pane.tokens_per_second))
        if self._run is run:
            self._settle()
        self._inspect_newest(run.shown)

    def _settle(self) -> None:
        """A run is over, or another takes its place: its branches are what its lanes have written."""
        state = self.state
        run, self._run = self._run, None
        self.refresh_bindings()
        if run is None or not run.configs:
            return
        for lane in run.shown:
            self.lanes[lane].running = False
        self.history.push(state, run.what)

    @property
    def state(self) -> State:
        """Configurations and branches, with what the run that goes on has written so far."""
        run, trees = self._run, list(self.trees)
        if run is not None and run.configs:
            for index, lane in enumerate(run.shown):
                pane, branch = self.lanes[lane], run.trees[lane].shown
                if branch is not None:
                    written = replace(
                        branch,
                        config=run.configs[index],
                        steps=tuple(pane.steps),
                        reason=pane.reason or "cancelled",
                        prefill_seconds=pane.prefill_seconds,
                    )
                    trees[lane] = run.trees[lane].update(written)
        return self.configs, tuple(trees)

    def restore(self, configs: Sequence[GenerationConfig], trees: Sequence[BranchTree]) -> None:
        """Show what a session holds."""
        self._abandon()
        self.history = History((tuple(configs), tuple(trees)))
        self._show_state()

    def _compare(self) -> None:
        """Where the lanes part, in them and in the legend."""
        pane = self.query_one(LanesPane)
        pane.compare()
        if pane.parted != self._told_parted:
            self._told_parted = pane.parted
            self._legend()

    # Inspecting.

    def on_lane_pane_step_pointed(self, event: LanePane.StepPointed) -> None:
        event.stop()
        self._active = event.lane
        self.refresh_bindings()
        self._inspect(event.lane, event.step.index)

    def _inspect_newest(self, lanes: Sequence[int]) -> None:
        """While nobody points at a step, the newest is shown."""
        lane = self._active if self._active in lanes else lanes[0]
        if self.lanes[lane].cursor is None and self.lanes[lane].steps and self.query_one(Inspector).is_on_screen:
            self._active = lane
            self._inspect(lane, len(self.lanes[lane].steps) - 1)

    def _inspect(self, lane: int, index: int) -> None:
        inspector = self.query_one(Inspector)
        step = self.lanes[lane].steps[index]
        assert self.lab is not None
        context, config = self._ids_before(lane, index), self.lanes[lane].config
        inspection = self.lab.inspect(step, context, config)
        if inspection is not None:
            inspector.show(inspection, lane, step)
        else:
            inspector.wait(_("computing this step's logits again…"))
            self._recall(lane, step, self.lab.recall(step, context, config))

    @work(group="recall", exclusive=True)
    async def _recall(self, lane: int, step: Stepped, job: "Job[Inspection]") -> None:
        async for inspection in job:
            if isinstance(inspection, Failed):
                self.query_one(Inspector).wait(str(inspection.error))
            else:
                self.query_one(Inspector).show(inspection, lane, step)

    def _ids_before(self, lane: int, index: int) -> list[int]:
        """Ids of the prompt and of what was written before a step."""
        pane = self.lanes[lane]
        running = self._run is not None and lane in self._run.shown and bool(self._run.configs)
        branch = (self._run.trees if self._run is not None and running else self.trees)[lane].shown
        prompt = branch.prompt if branch is not None else ()
        return [token.id for token in prompt] + [step.token.id for step in pane.steps[:index]]

    def on_inspector_turned(self, event: Inspector.Turned) -> None:
        event.stop()
        config = replace(event.config, max_new_tokens=self.configs[event.lane].max_new_tokens)
        self.configure(event.lane, replace(config, name="custom"))
        self.notify(_("Lane {lane} uses these settings from its next run on.", lane=NAMES[event.lane]))

    def on_inspector_chosen(self, event: Inspector.Chosen) -> None:
        event.stop()
        self._go_on(event.lane, event.step, (event.candidate.id,))

    def look_at(self, lane: int, index: int | None, *, inspector: bool = False) -> bool:
        """Point at a step of a lane, and put the focus there or into the inspector; False before it is written."""
        pane = self.lanes[lane]
        if len(pane.steps) <= (index or 0):
            return False
        flow = pane.query_one(TokenFlow)
        if index is not None:
            flow.cursor = index
            self._active = lane
            self._inspect(lane, index)
        target = self.query_one(CandidateList) if inspector else flow
        if inspector and not self.query_one(Inspector).is_on_screen:
            self.action_inspector()
        target.focus()
        return True

    # Branches.

    def action_branch(self) -> None:
        """Go on from the token under the cursor with any text."""
        lane = self._pointed()
        if lane is None or self._busy(_("b branches")):
            return
        from tui.dialogs.branch import BranchDialog

        pane, index = self.lanes[lane], self.lanes[lane].cursor
        assert index is not None
        before = "".join(step.token.text for step in pane.steps[:index])

        def accept(text: str | None) -> None:
            if text:
                self._branch(lane, index, text)

        self.app.push_screen(BranchDialog(NAMES[lane], before, pane.steps[index].token.label), accept)

    @work(group="branch", exclusive=True)
    async def _branch(self, lane: int, index: int, text: str) -> None:
        if self.lab is None or self.lab.tokenizer is None:
            return
        try:
            encode = partial(self.lab.tokenizer.encode_ids, text, template=False)
            ids = await asyncio.to_thread(encode) if self.lab.tokenizer.remote else encode()
        except LogitlabError as error:
            self.post_message(self.Trouble(error))
            return
        self._go_on(lane, index, tuple(ids))

    def _go_on(self, lane: int, index: int, forced: tuple[int, ...]) -> None:
        """Leave what a lane has written at a step, with other tokens, and let it write on."""
        branch = self.trees[lane].shown
        if self._busy(_("then this branches")) or branch is None:
            return
        config = self.configs[lane]
        tree = self.trees[lane].begin(branch.prompt, config, parent=branch.id, fork=index, forced=len(forced))
        start = Start(branch.prompt, branch.ids[:index], forced)
        trees = _replaced(self.trees, lane, tree)
        self._start([start], [config], (lane,), trees, _("the branch of lane {lane}", lane=NAMES[lane]))

    def action_branches(self) -> None:
        """All that the lane has written, as a tree."""
        from tui.dialogs.branches import BranchesDialog, Outcome

        lane = self._focused()
        if self._busy(_("t shows the branches")):
            return
        if not self.trees[lane].branches:
            self.notify(_("Lane {lane} has written nothing yet: F5 runs it.", lane=NAMES[lane]))
            return

        def accept(outcome: Outcome | None) -> None:
            if outcome is not None:
                state = (self.configs, _replaced(self.trees, lane, outcome.tree))
                self.history.push(state, _("the change of lane {lane}'s branches", lane=NAMES[lane]))
                self._show_state()

        self.app.push_screen(BranchesDialog(NAMES[lane], self.trees[lane]), accept)

    def action_sample_many(self) -> None:
        """Draw many continuations from where the lane's cursor is."""
        from tui.dialogs.samples import SamplesDialog

        lane = self._focused()
        branch = self.trees[lane].shown
        if self._busy(_("m samples")):
            return
        if branch is None or self.lab is None:
            self.notify(_("Run the lanes once (F5): many are drawn from a lane's prompt or from its cursor."))
            return
        index = self.lanes[lane].cursor or 0
        start = Start(branch.prompt, branch.ids[:index])
        lab = self.lab

        def draw(configs: Sequence[GenerationConfig]) -> Job[Event]:
            return lab.generate([start] * len(configs), configs, candidates=CANDIDATES)

        def accept(steps: tuple[Stepped, ...] | None) -> None:
            if steps:
                self._adopt(lane, index, steps)

        self.app.push_screen(SamplesDialog(NAMES[lane], self.configs[lane], draw), accept)

    def _adopt(self, lane: int, index: int, steps: Sequence[Stepped]) -> None:
        """Make a continuation that was drawn a branch of its own."""
        branch = self.trees[lane].shown
        assert branch is not None
        tree = self.trees[lane].begin(branch.prompt, self.configs[lane], parent=branch.id, fork=index)
        assert tree.shown is not None
        whole = (*tree.shown.steps, *(replace(step, lane=lane) for step in steps))
        tree = tree.update(replace(tree.shown, steps=whole, reason="length", limit=len(whole)))
        self.history.push((self.configs, _replaced(self.trees, lane, tree)), _("the sampled branch"))
        self._show_state()

    # Undo.

    def action_undo(self) -> None:
        self._go_back(self.history.undo, _("Undone: {what}."), _("There is nothing to undo."))

    def action_redo(self) -> None:
        self._go_back(self.history.redo, _("Done again: {what}."), _("There is nothing to redo."))

    def _go_back(self, move: Callable[[], str | None], done: str, nothing: str) -> None:
        if self._busy(_("u undoes")):
            return
        what = move()
        self.notify(done.format(what=what) if what else nothing)
        if what:
            self._show_state()

    def _show_state(self) -> None:
        """Show each lane's current branch, or its emptiness."""
        for lane, tree, config in zip(self.lanes, self.trees, self.configs):
            branch = tree.shown
            if branch is None:
                lane.show(config, (), None, config.max_new_tokens)
            elif lane.steps != list(branch.steps):
                lane.show(branch.config, branch.steps, branch.reason, branch.limit, branch.prefill_seconds)
            if branch is None or config != branch.config:
                lane.configure(config)
        self.query_one(LanesPane).begin_anew()
        self.post_message(self.Configured(self.configs))
        self._compare()
        self.refresh_bindings()
        self.look_again()

    def look_again(self) -> None:
        """Inspect the token under the cursor, or the newest, of the lane that is inspected."""
        if self.lanes[self._active].steps:
            index = self.lanes[self._active].cursor
            self._inspect(self._active, len(self.lanes[self._active].steps) - 1 if index is None else index)
        else:
            self.query_one(Inspector).wait(_(EMPTY))

    # Colours, cursors, panes.

    def action_colour(self) -> None:
        """Colour tokens by the next measure of surprise."""
        self.mode = MODES[(MODES.index(self.mode) + 1) % len(MODES)]
        self.query_one(LanesPane).colour(self.mode)
        self._legend()
        self.post_message(self.Coloured(self.mode))

    def _legend(self) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        if self._told_parted is not None:
            line.append(
                _(" the lanes part at token {told_parted}", told_parted=self._told_parted + 1), style="bold underline"
            )
            line.append("  ·", style="dim")
        line.append_text(legend(self.mode, palette(self.app)))
        self.query_one("#legend", Static).update(line)

    def action_lock(self) -> None:
        """Move both lanes' cursors together, or each by itself."""
        pane = self.query_one(LanesPane)
        pane.locked = not pane.locked
        if pane.locked and (index := self.lanes[self._active].cursor) is not None:
            self.lanes[1 - self._active].point(index)
        self.notify(_("Both cursors move together.") if pane.locked else _("Each lane has its own cursor."))

    def action_inspector(self) -> None:
        """Show the inspector, or give its room to the lanes."""
        inspector = self.query_one(Inspector)
        inspector.display = not inspector.display
        self.set_class(inspector.display, "inspecting")
        if inspector.display:
            self.call_after_refresh(self._inspect_newest, (self._active,))

    def close_filter(self) -> bool:
        return self.query_one(Inspector).close_filter()

    # Small things.

    def _focused(self) -> int:
        """The lane that has the focus, else the one that is inspected."""
        focused = self.screen.focused
        for index, lane in enumerate(self.lanes):
            if focused is not None and lane in focused.ancestors:
                return index
        return self._active

    def _pointed(self) -> int | None:
        """The lane with a token under its cursor, or a word on how to point at one."""
        lane = self._focused()
        if self.lanes[lane].cursor is None:
            self.notify(_("Point at a token first: tab to a lane, then ← →."), severity="warning")
            return None
        return lane

    def _busy(self, then: str) -> bool:
        """Whether lanes run, and if so what to do about it."""
        if self.running:
            self.notify(
                _("The lanes are running: esc stops them, {then}. Nothing is lost.", then=then), severity="warning"
            )
        return self.running


def _replaced(items: Sequence[Any], index: int, item: Any) -> tuple[Any, ...]:
    return tuple(item if place == index else old for place, old in enumerate(items))
