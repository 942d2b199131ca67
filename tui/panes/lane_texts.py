"""What the lanes hold, whether a run is still writing it or not: their texts, and what gave each step its logits."""

from collections.abc import Sequence
from dataclasses import replace

from engine.generation.branches import Branch, BranchTree
from engine.generation.config import GenerationConfig
from engine.text.token import Token
from tui.panes.lane_states import LaneStates
from tui.panes.lanes import LanePane
from tui.panes.runs import LaneRuns

# Settings that a step's logits belong to; the others say what becomes of them.
OF_LOGITS = ("model", "precision", "interventions", "negative_prompt", "amateur")


def fixed(ran: GenerationConfig, now: GenerationConfig) -> tuple[str, ...]:
    """Settings of guidance and of an amateur that say nothing of a step where a lane has another one now, or none."""
    guided = ran.guidance_scale != 1 and ran.negative_prompt == now.negative_prompt
    seconded = ran.amateur is not None and ran.amateur == now.amateur
    return (*(() if guided else ("guidance_scale",)), *(() if seconded else ("amateur_weight", "amateur_cut")))


class LaneTexts:
    """Reads the lanes' branches together with the run that goes on.

    Args:
        states: what the lanes hold, and what undo goes back over; another takes its place when a session is opened.
        runs: the run that goes on.
        lanes: show them.
    """

    def __init__(self, states: LaneStates, runs: LaneRuns, lanes: Sequence[LanePane]) -> None:
        self.states = states
        self._runs = runs
        self._lanes = lanes

    def shown(self, lane: int) -> Branch | None:
        """What a lane shows, with the run that is writing it."""
        return self.tree(lane).shown

    def config_of(self, lane: int) -> GenerationConfig:
        """The lane's settings, with the model that wrote what it shows, and what was done to it."""
        return self._under(self.shown(lane), lane)

    def config_at(self, lane: int, index: int) -> GenerationConfig:
        """Likewise with what gave one of its steps the logits."""
        return self._under(self._wrote(lane, index), lane)

    def text_of(self, lane: int) -> tuple[Sequence[Token], int, int | None]:
        """A lane's tokens, how many of them are the prompt's, and the written one under its cursor, if one is."""
        pane, branch = self._lanes[lane], self.shown(lane)
        if branch is None:
            return (), 0, None
        tokens = [*branch.prompt, *(step.token for step in pane.steps)]
        return tokens, len(branch.prompt), pane.cursor

    def ids_of(self, lane: int) -> tuple[Sequence[int], int]:
        """Ids of a lane's tokens, and how many of them are the prompt's."""
        tokens, prompt, _cursor = self.text_of(lane)
        return [token.id for token in tokens], prompt

    def ids_before(self, lane: int, index: int) -> tuple[list[int], int]:
        """Ids of the prompt and of what was written before a step, and how many of them are the prompt's."""
        branch = self.shown(lane)
        prompt = [] if branch is None else [token.id for token in branch.prompt]
        return prompt + [step.token.id for step in self._lanes[lane].steps[:index]], len(prompt)

    def tree(self, lane: int) -> BranchTree:
        """A lane's branches, with the one that a run is writing."""
        run = self._runs.run
        return (run.trees if run is not None and self._runs.is_writing(lane) else self.states.trees)[lane]

    def _wrote(self, lane: int, index: int) -> Branch | None:
        """The branch in which a step of the one shown was written, under its own configuration."""
        tree = self.tree(lane)
        branch = tree.shown
        while branch is not None and branch.parent is not None and index < branch.fork:
            branch = tree.get(branch.parent)
        return branch

    def _under(self, branch: Branch | None, lane: int) -> GenerationConfig:
        """The lane's settings, with what gave a branch's steps their logits: those are not computed anew for others."""
        config = self._lanes[lane].config
        ran = config if branch is None else branch.config
        values = {name: getattr(ran, name) for name in (*OF_LOGITS, *fixed(ran, config))}
        if values["amateur"] is not None or values.get("guidance_scale", config.guidance_scale) != 1:
            values["draft"] = None  # which a step's logits do not depend on, and which goes with neither
        return replace(config, **values)
