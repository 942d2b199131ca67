"""The Generate view: both lanes, what each step chose from, and the loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from textual import getters, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widget import Widget

from engine.base.language import _, counted
from engine.generation.branches import BranchTree
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Prompt, Start
from engine.job import Job
from engine.lab import Lab
from engine.models.progress import Loading
from tui.actions import bindings
from tui.panes.branching import Branching
from tui.panes.colouring import Colouring
from tui.panes.inspecting import StepInspection
from tui.panes.inspector import EMPTY, Inspector
from tui.panes.lane_states import NAMES, LaneStates, State, compared, is_others
from tui.panes.lane_texts import OF_LOGITS, LaneTexts, fixed
from tui.panes.lanes import LanePane, LanesPane
from tui.panes.legend import Legend
from tui.panes.loop_diagram import LoopDiagram
from tui.panes.runs import LaneRuns, Run
from tui.panes.split import Split
from tui.sentences import key, sentence
from tui.widgets.candidate_list import CandidateList
from tui.widgets.token_flow import TokenFlow


class GeneratePane(Vertical):
    """Two lanes, the inspector, the loop.

    Args:
        lab: runs them.
        configs: of the lanes.

    Attributes:
        texts: what the lanes hold, with the run that is writing it.
        runs: the run that goes on.
        branching: goes on from within what a lane has written.
        colouring: of their tokens.
        talks: whether the prompt is a conversation, whose next turn what a lane writes can be.
    """

    BINDINGS = bindings("lanes")

    inspector = getters.query_one(Inspector)

    @dataclass
    class SpeedChanged(Message):
        """How fast each lane is: tokens a second, by its name."""

        rates: Mapping[str, float]

    @dataclass
    class Trouble(Message):
        """A run, or what was asked for, failed."""

        error: Exception

    @dataclass
    class Configured(Message):
        """The lanes' configurations are these now."""

        configs: Sequence[GenerationConfig]

    @dataclass
    class Coloured(Message):
        """Tokens are to be coloured by this mode, here and elsewhere."""

        mode: str

    class Faced(Message):
        """Another lane is looked at: what follows the lane that has the cursor goes along."""

    @dataclass
    class Loads(Message):
        """The model of a lane is on its way; `None` once it is there, or will not be."""

        progress: Loading | None

    @dataclass
    class AdoptWanted(Message):
        """What these lanes wrote is to be the assistant's turn."""

        lanes: Sequence[int]

    class Written(Message):
        """What the lanes hold is another text: a run is over, or another branch is shown."""

    def __init__(self, lab: Lab, configs: Sequence[GenerationConfig]) -> None:
        super().__init__(id="generate-view")
        self._lab = lab
        self._lanes_pane = LanesPane(configs, pointed=self._look_at_step)
        self._inspector_pane = Inspector()
        self._split = Split(self, self._lanes_pane, self._inspector_pane)
        self._legend = Legend()
        self._diagram = LoopDiagram(id="loop")
        self._apart = ""  # why tokens cannot be compared, as it was said
        self._active = 0  # the lane that is inspected
        self._behind_said = 0  # the run in which it was said that a lane catches up
        self.runs = LaneRuns(
            lab,
            self._lanes_pane,
            self._diagram,
            progressed=self._show_progress,
            over=self._settle,
            failed=self._fail,
            loads=lambda progress: self.post_message(self.Loads(progress)),
        )
        self.talks = False
        self.texts = LaneTexts(LaneStates(configs), self.runs, self._lanes_pane.lanes)
        self.colouring = Colouring(
            lab,
            self._lanes_pane,
            inspector=lambda: self.inspector,
            texts=self.texts,
            coloured=self._show_colours,
            changed=self.look_again,
            look_at=self.look_at,
            failed=self._fail,
        )
        self._inspection = StepInspection(
            lab,
            self._lanes_pane.lanes,
            lambda: self.inspector,
            self.texts,
            self.colouring.opinion,
            beside=lambda: self.colouring.compares and not self.running,
        )
        self.branching = Branching(
            self,
            lab,
            self._lanes_pane.lanes,
            self.texts,
            self.runs,
            busy=self._busy,
            began=self._begun,
            changed=self._show_state,
            failed=self._fail,
        )

    def compose(self) -> ComposeResult:
        yield self._lanes_pane
        yield self._legend
        yield self._inspector_pane
        yield self._diagram

    def on_resize(self) -> None:
        self._split.apply()

    @property
    def states(self) -> LaneStates:
        """What the lanes hold, and what undo goes back over."""
        return self.texts.states

    @property
    def configs(self) -> tuple[GenerationConfig, ...]:
        return self.states.configs

    @property
    def trees(self) -> tuple[BranchTree, ...]:
        return self.states.trees

    @property
    def state(self) -> State:
        """Configurations and branches, with what the run that goes on has written so far."""
        return self.configs, self.runs.written(self.trees)

    @property
    def job(self) -> Job[Event] | None:
        """The run that goes on, if one does."""
        return self.runs.job

    @property
    def mode(self) -> str:
        """How tokens are coloured, one of `tui.style.colours.MODES`."""
        return self.colouring.mode

    def _show_colours(self) -> None:
        self._legend.colour(self.mode)
        self.post_message(self.Coloured(self.mode))

    @property
    def running(self) -> bool:
        return self.runs.run is not None

    @property
    def lanes(self) -> tuple[LanePane, ...]:
        return self._lanes_pane.lanes

    @property
    def active(self) -> int:
        """The lane that is inspected."""
        return self._active

    def _face(self, lane: int) -> None:
        """Look at a lane."""
        if lane != self._active:
            self._active = lane
            self.post_message(self.Faced())

    def point_at(self, lane: int, position: int) -> None:
        """Put a lane's cursor on the token that follows a position of its text."""
        _tokens, prompt, _cursor = self.texts.text_of(lane)
        self._face(lane)
        index = position + 1 - prompt
        self.lanes[lane].point(index if index >= 0 else None)
        if self._lanes_pane.locked:
            self.lanes[1 - lane].point(self._lanes_pane.beside(lane, index) if index >= 0 else None)

    def possible(self, action: str) -> bool:
        """Whether an action can do something now."""
        lane = self._focused()
        match action:
            case "adopt(False)":
                return not self.running and self.talks and self.trees[lane].shown is not None
            case "adopt(True)":
                return not self.running and self.talks and all(tree.shown is not None for tree in self.trees)
            case "branch":
                return not self.running and self.lanes[lane].cursor is not None
            case "branches" | "sample_many":
                return not self.running and bool(self.trees[lane].branches)
            case "fold":
                return any(pane.thinks for pane in self.lanes)
            case "lock":
                return all(pane.steps for pane in self.lanes)
            case "opinion":
                return self.colouring.compares or (not self.running and self.colouring.opinion.possible())
            case "undo":
                return not self.running and self.states.can_undo
            case "redo":
                return not self.running and self.states.can_redo
        return True

    def configure(self, lane: int, config: GenerationConfig) -> None:
        """Another configuration for a lane's next run; what is written stays."""
        if self.states.configure(lane, config):
            self.lanes[lane].configure(config)
            self._say_what_is_wild()
            self.post_message(self.Configured(self.configs))

    def begin_anew(self) -> None:
        """There is another model: what the last one wrote cannot be gone on with."""
        self.runs.abandon()
        lanes = [NAMES[lane] for lane, tree in enumerate(self.trees) if tree.branches and not self._is_apart(lane)]
        if len(lanes) > 1:
            self.notify(_("Another model: both lanes begin anew."))
        elif lanes:
            self.notify(_("Another model: lane {lane} begins anew.", lane=lanes[0]))
        self.states.begin_anew()
        self._show_state()

    def _is_apart(self, lane: int) -> bool:
        """Whether nothing of a lane comes from the lab's model."""
        return is_others(self.configs[lane], self.trees[lane])

    def restore(self, configs: Sequence[GenerationConfig], trees: Sequence[BranchTree]) -> None:
        """Show what a session holds."""
        self.runs.abandon()
        self.texts.states = LaneStates(configs, trees)
        self._show_state()

    # Running.

    def run(self, prompts: Sequence[Start | Prompt], *, paused: bool = False) -> None:
        """Both lanes, each from its prompt; the run before ends, and stays as a branch."""
        self._settle()
        trees = self.states.begin([one.prompt if isinstance(one, Start) else () for one in prompts])
        self.runs.start(prompts, self.configs, (0, 1), trees, _("the run"), paused=paused)
        self._begun()

    def run_without(self, intervention: str) -> bool:
        """Run lane B as lane A was run, with one thing more done to the model, or without it where it was.

        Returns whether it runs.
        """
        shown = self.trees[0].shown
        if shown is None:
            self.notify(_("Lane {lane} has written nothing yet: {run} runs it.", lane=NAMES[0], run=key("run")))
            return False
        self._settle()
        config = compared(shown.config, self.configs[1], intervention)
        self.configure(1, config)
        trees = self.states.begin([shown.prompt, shown.prompt], lanes=(1,))
        self.runs.start([Start(shown.prompt)], [config], (1,), trees, _("the run of lane B"))
        self.refresh_bindings()
        done = "; ".join(config.interventions)
        self.notify(
            _("Lane B: as lane A, with {done}. The prompt goes through again, for this acts on it too.", done=done)
            if done
            else _("Lane B: as lane A, with nothing done to the model."),
            markup=False,
        )
        return True

    def step(self) -> bool:
        """One more step of the run that goes on; False where there is none."""
        stepped = self.runs.step()
        if stepped and self._behind_said != self.runs.begun and self._say_who_is_behind():
            self._behind_said = self.runs.begun  # not with every step
        return stepped

    def _say_who_is_behind(self) -> bool:
        """Which lane goes on alone before both write in step, if one does."""
        lane = self.runs.behind()
        if lane is not None:
            self.notify(_("Lane {lane} is behind: it catches up, then both write in step.", lane=NAMES[lane]))
        return lane is not None

    def next_pace(self) -> None:
        """Slower, down to a token a second, then as fast as the machine can."""
        pace = self.runs.next_pace()
        self.notify(
            _("Full speed.")
            if pace is None
            else counted(
                "At most {count} token a second in each lane.", "At most {count} tokens a second in each lane.", pace
            )
        )

    def _show_progress(self, run: Run) -> None:
        self._compare()
        self._lanes_pane.bring_together(self._active)
        self.post_message(self.SpeedChanged(self._lanes_pane.rates))
        self._inspect_newest(run.shown)

    def _settle(self) -> None:
        """A run is over, or another takes its place: its branches are what its lanes have written."""
        run, trees = self.runs.take(self.trees)
        self.refresh_bindings()
        if run is not None and run.has_begun:
            self.states.settle(trees, run.what)
            self._say_what_is_wild()
            self.post_message(self.Written())
            self.colouring.ask()

    def _fail(self, error: Exception) -> None:
        self.post_message(self.Trouble(error))

    def _compare(self) -> None:
        """Where the lanes part, in them and in the legend; of different vocabularies, where their texts do."""
        configs = [self.texts.config_of(lane) for lane in (0, 1)]
        apart = self._lab.why_apart(configs)
        unknown = any(self._lab.model_of(config) is None for config in configs)
        self._lanes_pane.by_text = bool(apart) or (unknown and configs[0].model != configs[1].model)
        if apart and apart != self._apart:
            self.notify(apart, markup=False, timeout=10)
        self._apart = apart
        self._lanes_pane.compare()
        self._legend.part(self._lanes_pane.parted, self._lanes_pane.by_text)

    def _begun(self) -> None:
        """Lanes write: what was said of their texts before is no longer true."""
        self._say_what_is_wild()
        self.refresh_bindings()

    def _say_what_is_wild(self) -> None:
        self._legend.say_what_is_wild(self.trees, self.configs, self.running)
        self._legend.say_what_is_guessed(self.trees)

    # Inspecting.

    def _look_at_step(self, lane: int, index: int) -> None:
        self._face(lane)
        self.refresh_bindings()
        self._inspection.show(lane, index)

    def _inspect_newest(self, lanes: Sequence[int]) -> None:
        """While nobody points at a step of the lane that is looked at, the newest is shown."""
        if self.lanes[self._active].cursor is not None:
            return
        lane = self._active if self._active in lanes else lanes[0]
        if (index := self._inspection.newest(lane)) is not None:
            self._face(lane)
            self._inspection.show(lane, index)

    @on(Inspector.Appeared)
    def _inspect_again(self) -> None:
        """While it could not be seen it was not brought up to date."""
        self._inspect_newest((self._active,))

    @on(Inspector.Turned)
    def _use_settings(self, event: Inspector.Turned) -> None:
        event.stop()
        own = self.configs[event.lane]
        kept = {name: getattr(own, name) for name in ("max_new_tokens", *OF_LOGITS, *fixed(event.config, own))}
        config = replace(event.config, **kept)
        self.configure(event.lane, replace(config, name="custom"))
        self.notify(_("Lane {lane} uses these settings from its next run on.", lane=NAMES[event.lane]))

    @on(Inspector.Chosen)
    def _take_candidate(self, event: Inspector.Chosen) -> None:
        event.stop()
        self.branching.go_on(event.lane, event.step, (event.candidate.id,))

    def look_at(self, lane: int, index: int | None, *, inspector: bool = False, focus: bool = True) -> bool:
        """Point at a step of a lane, and put the focus there or into the inspector; False before it is written."""
        pane = self.lanes[lane]
        if len(pane.steps) <= (index or 0):
            return False
        flow = pane.query_one(TokenFlow)
        if index is not None:
            flow.cursor = index
            self._face(lane)
            self._inspection.show(lane, index)
        target = self.query_one(CandidateList) if inspector else flow
        if inspector and not self.inspector.is_on_screen:
            self.action_inspector()
        if focus:
            target.focus()
        return True

    def entrance(self, place: str) -> Widget | None:
        """What takes the focus of lane `a` or `b`, with its step in the inspector, or of the `inspector`."""
        if place == "inspector":
            if self.inspector.settings is None:
                if not self.lanes[self._active].steps:
                    self.notify(sentence(_(EMPTY)), severity="warning")
                    return None
                self.look_again()  # a hidden inspector does not follow what is written
            if not self.inspector.display:
                self.action_inspector()
            return self.query_one(CandidateList)
        lane = "ab".index(place)
        pane = self.lanes[lane]
        if pane.cursor is not None and lane != self._active:
            self._face(lane)
            self._inspection.show(lane, pane.cursor)
        return pane.query_one(TokenFlow) if pane.has_class("begun") else pane

    # The conversation.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While there is no conversation, the keys that go on with an answer do what they do elsewhere."""
        return self.talks if action == "adopt" else True

    def action_adopt(self, both: bool) -> None:
        """What the lane wrote is the assistant's turn; or what each wrote, in a thread of its own."""
        lanes = (0, 1) if both else (self._focused(),)
        if self._busy(_("then the conversation can go on")):
            return
        for lane in lanes:
            if self.trees[lane].shown is None:
                self.notify(_("Lane {lane} has written nothing yet: {run} runs it.", lane=NAMES[lane], run=key("run")))
                return
        self.post_message(self.AdoptWanted(lanes))

    # Branches.

    def action_branch(self) -> None:
        """Go on from the token under the cursor with any text."""
        if (lane := self._pointed()) is not None:
            self.branching.ask(lane)

    def action_branches(self) -> None:
        """All that the lane has written, as a tree."""
        self.branching.open_tree(self._focused())

    def action_sample_many(self) -> None:
        """Draw many continuations from where the lane's cursor is."""
        self.branching.sample_many(self._focused())

    # Undo.

    def action_undo(self) -> None:
        self._go_back(self.states.undo, _("Undone: {what}."), _("There is nothing to undo."))

    def action_redo(self) -> None:
        self._go_back(self.states.redo, _("Done again: {what}."), _("There is nothing to redo."))

    def _go_back(self, move: Callable[[], str | None], done: str, nothing: str) -> None:
        if self._busy(sentence(_("{lanes.undo} undoes"))):
            return
        what = move()
        self.notify(done.format(what=what) if what else nothing)
        if what:
            self._show_state()
            self.post_message(self.SpeedChanged(self._lanes_pane.rates))

    def _show_state(self) -> None:
        """Show each lane's current branch, or its emptiness."""
        for lane, tree, config in zip(self.lanes, self.trees, self.configs):
            branch = tree.shown
            if branch is None:
                lane.show(config, (), None, config.max_new_tokens)
            elif lane.steps != list(branch.steps):
                lane.show(
                    branch.config,
                    branch.steps,
                    branch.reason,
                    branch.limit,
                    branch.prefill_seconds,
                    prompt=branch.prompt,
                    first=branch.fork,
                )
            if branch is None or config != branch.config:
                lane.configure(config)
        self._lanes_pane.begin_anew()
        self.post_message(self.Written())
        self.post_message(self.Configured(self.configs))
        self._compare()
        self.colouring.ask()
        self._say_what_is_wild()
        self.refresh_bindings()
        self.look_again()

    def look_again(self) -> None:
        """Inspect the token under the cursor, or the newest, of the lane that is inspected."""
        if self.lanes[self._active].steps:
            index = self.lanes[self._active].cursor
            self._inspection.show(self._active, len(self.lanes[self._active].steps) - 1 if index is None else index)
        else:
            self.inspector.wait(sentence(_(EMPTY)))

    # The other lane's model.

    def action_opinion(self) -> None:
        """Colour each lane by what the other's model thinks of it, and show both in the inspector; or as before."""
        if self.colouring.compares or not self._busy(_("then the other lane's model can read them")):
            self.colouring.compare()

    def action_disagreement(self, by: int) -> None:
        """To the next place of a lane where its model and the other's disagree most."""
        lane = self._focused()
        if self.colouring.judged(lane) or not self._busy(_("then the other lane's model can read them")):
            self.colouring.go(lane, by)

    # Colours, cursors, panes.

    def action_colour(self) -> None:
        """Colour tokens by the next measure of surprise, and by the other model's opinion where there is another."""
        self.colouring.turn(opinions=not self.running)

    def action_fold(self) -> None:
        """Show of what the lanes thought only how long it is, or all of it."""
        folded = not self.lanes[self._focused()].folded
        for lane in self.lanes:
            lane.fold(folded)

    def action_lock(self) -> None:
        """Move both lanes' cursors together, or each by itself."""
        pane = self._lanes_pane
        pane.locked = not pane.locked
        if pane.locked and all(lane.steps for lane in self.lanes):
            index = self.lanes[self._active].cursor
            if index is None:  # both go where there is something to compare
                index = min(pane.parted or 0, *(len(lane.steps) - 1 for lane in self.lanes))
                self.lanes[self._active].point(index)
                self._inspection.show(self._active, index)
            self.lanes[1 - self._active].point(pane.beside(self._active, index))
            self.refresh_bindings()
        self.runs.keep_in_step(pane.locked)
        if not pane.locked:
            self.notify(_("Each lane has its own cursor and its own pace."))
        elif not self._say_who_is_behind():
            self.notify(_("Both cursors move together, and the lanes write in step."))

    def action_inspector(self) -> None:
        """Show the inspector, or give its room to the lanes."""
        inspector = self.inspector
        inspector.display = not inspector.display
        self.set_class(inspector.display, "inspecting")
        self.call_after_refresh(self._split.apply)

    def action_split(self, by: int) -> None:
        """Give the inspector more rows, or the lanes."""
        self._split.move(by)

    def close_filter(self) -> bool:
        return self.inspector.close_filter()

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
            self.notify(
                sentence(
                    _("Point at a token first: {next_pane} to a lane, then {token_flow.previous} {token_flow.next}.")
                ),
                severity="warning",
            )
            return None
        return lane

    def _busy(self, then: str) -> bool:
        """Whether lanes run, and if so what to do about it."""
        if self.running:
            self.notify(
                _("The lanes are running: {stop} stops them, {then}. Nothing is lost.", then=then, stop=key("stop")),
                severity="warning",
            )
        return self.running
