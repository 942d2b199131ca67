"""A run of the lanes: what follows its events, and what the lanes and the diagram show of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from engine.generation.branches import BranchTree
from engine.generation.config import GenerationConfig
from engine.generation.events import (
    Beamed,
    Event,
    Failed,
    Finished,
    Noted,
    Prefilled,
    Prefilling,
    Prompt,
    Start,
    Started,
    Stepped,
    Survived,
)
from engine.job import Job
from engine.lab import Lab
from engine.models.progress import Loading
from tui.background import in_background
from tui.panes.lanes import LanePane, LanesPane
from tui.panes.loop_diagram import LoopDiagram

# Text is drawn every frame, everything around it a few times a second: what the screen takes, the network lacks.
AROUND_SECONDS = 1 / 4
# What each step carries for the loop diagram; the inspector reads any depth off the step's logits.
CANDIDATES = 3
PACES: tuple[int | None, ...] = (None, 20, 5, 2, 1)


@dataclass
class Run:
    """A run that goes on.

    Attributes:
        shown: which lane on the screen each of its lanes is.
        trees: of all lanes, with the branches that are being written.
        what: undo's name for it.
        configs: by its lanes, complete, as it began; empty before.
    """

    job: Job[Event]
    shown: tuple[int, ...]
    trees: tuple[BranchTree, ...]
    what: str
    configs: dict[int, GenerationConfig] = field(default_factory=dict)

    @property
    def has_begun(self) -> bool:
        return bool(self.configs)


class LaneRuns:
    """The run that goes on in the lanes; one at a time.

    Args:
        pane: the lanes that are written into.
        diagram: is lit stage by stage.
        progressed: called with the run when what is around the lanes is to follow, and once more at its end.
        over: called as soon as nothing more will be written, to settle the run.
        failed: called with what went wrong.
        loads: called with the progress of a model that a lane names, and with `None` once the run has begun or ended.

    Attributes:
        run: the one that goes on, until it is settled.
        begun: how many runs have begun to write.
        pace: steps a second at most; `None` for as many as the machine can.
        listener: called with which lane on the screen each of a run's is, and with its events, frame by frame.
    """

    def __init__(
        self,
        lab: Lab,
        pane: LanesPane,
        diagram: LoopDiagram,
        *,
        progressed: Callable[[Run], object],
        over: Callable[[], object],
        failed: Callable[[Exception], object],
        loads: Callable[[Loading | None], object],
    ) -> None:
        self._lab = lab
        self._pane = pane
        self._diagram = diagram
        self._progressed = progressed
        self._over = over
        self._failed = failed
        self._loads = loads
        self.run: Run | None = None
        self.begun = 0
        self.pace: int | None = None
        self.listener: Callable[[Sequence[int], Sequence[Event]], object] | None = None

    @property
    def job(self) -> Job[Event] | None:
        """Of the run that goes on, if one does."""
        return None if self.run is None else self.run.job

    # What keys do with it.

    def start(
        self,
        starts: Sequence[Start | Prompt],
        configs: Sequence[GenerationConfig],
        lanes: Sequence[int],
        trees: tuple[BranchTree, ...],
        what: str,
        *,
        paused: bool = False,
    ) -> None:
        """Begin a run of some of the lanes; for its parts see `Run`."""
        job = self._lab.generate(starts, configs, candidates=CANDIDATES, paused=paused)
        job.pace(self.pace)
        job.keep_in_step(self._pane.locked)
        if paused:
            job.step()
        self.run = Run(job, tuple(lanes), trees, what)
        in_background(self._pane, "run", self._follow, self.run)

    def step(self) -> bool:
        """One more step of the run that goes on; False where there is none."""
        if self.job is None:
            return False
        self.job.step()
        return True

    def toggle_pause(self) -> None:
        if self.job is not None and self.job.paused:
            self.job.resume()
        elif self.run is not None:
            self.run.job.pause()
            if self.run.has_begun:  # what is around the lanes may be a moment behind, and no more frames may come
                self._bring_up_to_date(self.run)

    def stop(self) -> bool:
        """End the run; False where there is none."""
        if self.job is None:
            return False
        self.job.cancel()
        return True

    def next_pace(self) -> int | None:
        """Slower, down to a token a second, then as fast as the machine can; the pace from now on."""
        self.pace = PACES[(PACES.index(self.pace) + 1) % len(PACES)]
        if self.job is not None:
            self.job.pace(self.pace)
        self._diagram.pace = self.pace
        return self.pace

    def keep_in_step(self, wanted: bool) -> None:
        """Let the lanes that run write in step from here on, or each at its own pace."""
        if self.job is not None:
            self.job.keep_in_step(wanted)

    def behind(self) -> int | None:
        """The lane that has written less than another that runs with it, if one has; in step, one is a token ahead."""
        running = sorted((lane for lane in self._pane.lanes if lane.running), key=lambda lane: lane.written)
        return running[0].lane if running and running[-1].written > running[0].written + 1 else None

    def abandon(self) -> None:
        """End the run without keeping it."""
        self.stop()
        self._pane.workers.cancel_group(self._pane, "run")
        self.run = None

    # What came of it.

    def take(self, trees: tuple[BranchTree, ...]) -> tuple[Run | None, tuple[BranchTree, ...]]:
        """The run is over: it with the trees as it leaves them, and room for the next one."""
        written = self.written(trees)
        run, self.run = self.run, None
        if run is not None and run.has_begun:
            for lane in run.shown:
                self._pane.lanes[lane].running = False
        return run, written

    def written(self, trees: tuple[BranchTree, ...]) -> tuple[BranchTree, ...]:
        """These trees, with what the run that goes on has written so far."""
        run = self.run
        if run is None or not run.has_begun:
            return trees
        found = list(trees)
        for index, lane in enumerate(run.shown):
            pane, branch = self._pane.lanes[lane], run.trees[lane].shown
            if branch is not None:
                branch = replace(
                    branch,
                    config=run.configs[index],
                    steps=tuple(pane.steps),
                    reason=pane.reason or "cancelled",
                    prefill_seconds=pane.prefill_seconds,
                )
                found[lane] = run.trees[lane].update(branch)
                leader = pane.search.leader if pane.search is not None else None
                if pane.search is not None and leader is not None:
                    found[lane] = found[lane].search(branch, pane.search.beams, leader.id, pane.survivors)
        return tuple(found)

    def is_writing(self, lane: int) -> bool:
        """Whether what a lane shows is being written by the run that goes on."""
        return self.run is not None and self.run.has_begun and lane in self.run.shown

    # Following its events, frame by frame.

    async def _follow(self, run: Run) -> None:
        """Show a run as it goes on, to its end."""
        drawn = 0.0
        async for frame in run.job.frames():
            newest = self._take_in(run, frame)
            if run.has_begun and not any(lane.running for lane in self._lanes(run)) and self.run is run:
                self._over()  # now that its lanes say that they have ended, they can be gone on with
            slow = run.job.paused or self.pace is not None
            if newest is not None and (slow or time.monotonic() - drawn > AROUND_SECONDS):
                drawn = time.monotonic()
                self._draw_around(run, newest)
        self._loads(None)
        self._diagram.rest()
        self._progressed(run)
        if self.run is run:
            self._over()

    def _take_in(self, run: Run, frame: Sequence[Event | Failed]) -> Stepped | None:
        """What a frame brings to diagram and lanes; its newest step."""
        for event in frame:
            match event:
                case Loading():
                    self._loads(event)
                case Started():
                    self._loads(None)
                    self._begin(run, event)
                case Prefilling():
                    self._diagram.stage = "model"
                case Prefilled():
                    for index in event.lanes:
                        self._lanes(run)[index].prefill_seconds = event.seconds
                case Beamed():
                    self._lanes(run)[event.lane].preview(event)
                case Survived():
                    lane = self._lanes(run)[event.lane]
                    steps = tuple(replace(step, lane=lane.lane) for step in event.steps)
                    lane.survivors.append(replace(event, steps=steps))
                case Noted():
                    self._lanes(run)[event.lane].note = event.text
                case Failed():
                    self._failed(event.error)
        newest = self._write(run, [event for event in frame if isinstance(event, Stepped)])
        for event in frame:
            if isinstance(event, Finished):
                self._lanes(run)[event.lane].finish(event.reason)
        if self.listener is not None:
            self.listener(run.shown, frame)
        return newest

    def _begin(self, run: Run, event: Started) -> None:
        """The run has begun: its lanes show what it goes on from."""
        self.begun += 1
        self._diagram.stage = "tokens"
        for index, lane in enumerate(self._lanes(run)):
            run.configs[index] = event.configs[index]
            number = run.shown[index]
            branch = run.trees[number].shown
            assert branch is not None
            if branch.prompt != event.prompts[index]:  # it was cut by the tokenizer of a model that has come since
                branch = replace(branch, prompt=event.prompts[index])
                trees = [tree.update(branch) if lane == number else tree for lane, tree in enumerate(run.trees)]
                run.trees = tuple(trees)
            lane.start(event.configs[index], branch.steps, branch.limit, event.prompts[index])
        self._pane.begin_anew()

    def _write(self, run: Run, steps: Sequence[Stepped]) -> Stepped | None:
        """Add steps to the lanes they belong to; the newest one of the first lane that got any."""
        newest = None
        for index, (lane, number) in enumerate(zip(self._lanes(run), run.shown)):
            new = [step if step.lane == number else replace(step, lane=number) for step in steps if step.lane == index]
            if new:
                lane.extend(new)
                newest = newest or new[-1]
        return newest

    def _draw_around(self, run: Run, newest: Stepped) -> None:
        """Bring all but the lanes' text up to date."""
        self._diagram.advance(newest, slowly=run.job.paused)
        self._bring_up_to_date(run)

    def _bring_up_to_date(self, run: Run) -> None:
        """What stands around the lanes' text, as far as they are written."""
        self._progressed(run)
        for lane in self._lanes(run):
            lane.tell()

    def _lanes(self, run: Run) -> list[LanePane]:
        return [self._pane.lanes[lane] for lane in run.shown]
