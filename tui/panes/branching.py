"""Going on from within what a lane has written: branches, their tree, and many drawn at once."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from textual.widget import Widget

from engine.base.errors import LogitlabError
from engine.base.language import _
from engine.generation.branches import Branch, BranchTree
from engine.generation.config import GenerationConfig
from engine.generation.events import Beamed, Event, Start, Stepped
from engine.job import Job
from engine.lab import Lab
from tui.background import in_background
from tui.panes.lane_states import NAMES
from tui.panes.lane_texts import LaneTexts
from tui.panes.lanes import LanePane
from tui.panes.runs import CANDIDATES, LaneRuns
from tui.sentences import key, sentence


class Branching:
    """Branches of the lanes, by dialog or by a candidate that was chosen.

    Args:
        view: opens the dialogs and says what is to be said.
        busy: whether lanes run; says so, and what happens after the key that stops them.
        began: called once a branch is being written.
        changed: called when a lane shows another branch.
        failed: called with what went wrong.
    """

    def __init__(
        self,
        view: Widget,
        lab: Lab,
        lanes: Sequence[LanePane],
        texts: LaneTexts,
        runs: LaneRuns,
        *,
        busy: Callable[[str], bool],
        began: Callable[[], object],
        changed: Callable[[], object],
        failed: Callable[[Exception], object],
    ) -> None:
        self._view = view
        self._lab = lab
        self._lanes = lanes
        self._texts = texts
        self._runs = runs
        self._busy = busy
        self._began = began
        self._changed = changed
        self._failed = failed

    def ask(self, lane: int) -> None:
        """Go on from the token under the lane's cursor with any text."""
        branch, index = self._shown(lane), self._lanes[lane].cursor
        if self._busy(sentence(_("{lanes.branch} branches"))) or branch is None or index is None:
            return
        if self._is_others(lane, branch):
            return
        from tui.dialogs.branch import BranchDialog

        steps = self._lanes[lane].steps
        before = "".join(step.token.text for step in steps[:index])

        def accept(text: str | None) -> None:
            if text:
                in_background(self._view, "branch", self._branch, lane, index, text)

        self._view.app.push_screen(BranchDialog(NAMES[lane], before, steps[index].token.label), accept)

    async def _branch(self, lane: int, index: int, text: str) -> None:
        model = self._lab.model_of(self._texts.states.configs[lane])
        if model is None:
            return
        tokenizer = model.tokenizer
        try:
            encode = partial(tokenizer.encode_continuation, text)
            ids = await asyncio.to_thread(encode) if tokenizer.remote else encode()
        except LogitlabError as error:
            self._failed(error)
            return
        self.go_on(lane, index, tuple(ids))

    def go_on(self, lane: int, index: int, forced: tuple[int, ...]) -> None:
        """Leave what a lane has written at a step, with other tokens, and let it write on."""
        branch = self._shown(lane)
        if self._busy(_("then this branches")) or branch is None or self._is_others(lane, branch):
            return
        states = self._texts.states
        start = Start(branch.prompt, branch.ids[:index], forced, last=branch.steps[index - 1] if index else None)
        trees = states.branch(lane, index, len(forced))
        what = _("the branch of lane {lane}", lane=NAMES[lane])
        self._runs.start([start], [states.configs[lane]], (lane,), trees, what)
        self._began()

    def open_tree(self, lane: int) -> None:
        """All that the lane has written, as a tree; while it searches with beams, these too."""
        from tui.dialogs.branches import BranchesDialog, Outcome

        def look() -> tuple[BranchTree, Beamed | None]:
            return self._texts.tree(lane), self._lanes[lane].search if self._runs.is_writing(lane) else None

        tree, search = look()
        if search is None and self._busy(sentence(_("{lanes.branches} shows the branches"))):
            return
        if not tree.branches:
            said = _("Lane {lane} has written nothing yet: {run} runs it.", lane=NAMES[lane], run=key("run"))
            self._view.notify(said)
            return

        def accept(outcome: Outcome | None) -> None:
            if outcome is not None:
                self._texts.states.change(lane, outcome.tree)
                self._changed()

        self._view.app.push_screen(BranchesDialog(NAMES[lane], look), accept)

    def sample_many(self, lane: int) -> None:
        """Draw many continuations from where the lane's cursor is."""
        from tui.dialogs.samples import SamplesDialog

        branch = self._shown(lane)
        if self._busy(sentence(_("{lanes.sample_many} samples"))):
            return
        if branch is None:
            self._view.notify(
                sentence(_("Run the lanes once ({run}): many are drawn from a lane's prompt or from its cursor."))
            )
            return
        if self._is_others(lane, branch):
            return
        index = self._lanes[lane].cursor or 0
        start = Start(branch.prompt, branch.ids[:index], last=branch.steps[index - 1] if index else None)

        def draw(configs: Sequence[GenerationConfig]) -> Job[Event]:
            return self._lab.generate([start] * len(configs), configs, candidates=CANDIDATES)

        def accept(steps: tuple[Stepped, ...] | None) -> None:
            if steps:
                self._texts.states.adopt(lane, index, steps)
                self._changed()

        self._view.app.push_screen(SamplesDialog(NAMES[lane], self._texts.states.configs[lane], draw), accept)

    def _shown(self, lane: int) -> Branch | None:
        return self._texts.states.trees[lane].shown

    def _is_others(self, lane: int, branch: Branch) -> bool:
        """Whether the lane has another model now than wrote the branch, whose tokens are not its own; and says so."""
        wrote, writes = branch.config, self._texts.states.configs[lane]
        if (wrote.model, wrote.precision) == (writes.model, writes.precision):
            if self._lab.model_of(writes) is not None:
                return False
            said = _("The model of lane {lane} is not loaded: {run} loads it.", lane=NAMES[lane], run=key("run"))
            self._view.notify(said, severity="warning")
            return True
        models = [self._lab.model_of(config) for config in (wrote, writes)]
        if None not in models and not self._lab.why_apart([wrote, writes]):
            return False
        said = _(
            "Lane {lane} has another model now than wrote this: {run} runs it first.", lane=NAMES[lane], run=key("run")
        )
        self._view.notify(said, severity="warning")
        return True
