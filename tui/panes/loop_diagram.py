"""The generation loop, drawn; the active stage is lit, with the values that pass through it."""

from collections import deque

from rich.text import Text
from textual.reactive import reactive
from textual.timer import Timer
from textual.widget import Widget

from engine.base.language import N_, _, counted
from engine.base.plain import cells, number
from engine.generation.events import Stepped
from engine.text.token import drawn
from tui.sentences import sentence
from tui.style.motion import is_reduced

STAGES = (N_("prompt"), N_("tokens"), N_("model"), N_("probabilities"), N_("pick"), N_("append"))
# Within one step of a lane only these take part; prompt and tokens come before the first one.
STEP_STAGES = ("model", "probabilities", "pick", "append")
ARROW = " ─▶ "
# With so many rows each stage has one.
ROOMY = 14
# A pace at which each stage of a step can be followed by eye, in steps a second.
SLOW = 5
STAGE_SECONDS = 0.25


class LoopDiagram(Widget):
    """Lit stage by stage while lanes run.

    At full speed a step is faster than the eye, so each frame shows the next stage with the newest step's values;
    in slow motion, and step by step, every step goes through all of its stages.
    """

    stage: reactive[str] = reactive("")
    step: reactive[Stepped | None] = reactive(None)
    vocabulary_size: reactive[int] = reactive(0)
    hidden_size: reactive[int] = reactive(0)

    can_focus = True

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.pace: float | None = None
        self._to_come: deque[str] = deque()
        self._timer: Timer | None = None

    def advance(self, step: Stepped, *, slowly: bool = False) -> None:
        """Light the next stage of the loop, or with time for it all of them in turn; `step` is the newest one."""
        self.step = step
        if is_reduced(self.app):  # the last of them says what came of the step
            self.stage = STEP_STAGES[-1]
            return
        if slowly or (self.pace is not None and self.pace <= SLOW):
            self._to_come = deque(STEP_STAGES[1:])
            self.stage = STEP_STAGES[0]
            if self._timer is None:
                seconds = STAGE_SECONDS if self.pace is None else min(STAGE_SECONDS, 1 / self.pace / len(STEP_STAGES))
                self._timer = self.set_interval(seconds, self._next_stage)
            return
        following = STEP_STAGES.index(self.stage) + 1 if self.stage in STEP_STAGES else 0
        self.stage = STEP_STAGES[following % len(STEP_STAGES)]

    def rest(self) -> None:
        """The run is over; a step that is being shown is shown to its end."""
        if self._timer is None:
            self.stage = ""
        else:
            self._to_come.append("")

    def _next_stage(self) -> None:
        if self._to_come:
            self.stage = self._to_come.popleft()
        elif self._timer is not None:
            self._timer.stop()
            self._timer = None

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def render(self) -> Text:
        return self._in_rows() if self.size.height >= ROOMY else self._in_a_line()

    def _in_rows(self) -> Text:
        """Every stage a row, with what passes through it in the step that was last."""
        names = [_(stage) for stage in STAGES]
        width = max(map(cells, names))
        around = STAGES.index("model")
        drawn = [Text(_("The loop: from the last token back to the model, once a token"), style="bold"), Text()]
        last = len(STAGES) - 1
        for index, (stage, name) in enumerate(zip(STAGES, names)):
            back = "    " if index < around else " ┌▶ " if index == around else " └─ " if index == last else " │  "
            row = Text(back, style="dim", no_wrap=True, overflow="ellipsis")
            look = "not dim bold reverse" if stage == self.stage else "not dim bold"
            row.append(f" {name}{' ' * (width - cells(name))} ", style=look)
            row.append(f"  {self._values(stage)}", style="not dim")
            drawn.append(row)
            if index < last:
                drawn.append(Text(" │   ▼" if index >= around else "     ▼", style="dim"))
        if self.step is None:
            says = sentence(_("What passes through each stage stands here once a lane has run: {run}."))
            drawn += [Text(), Text(says, style="dim")]
        return Text("\n").join(drawn)

    def _in_a_line(self) -> Text:
        line = Text("▐" if self.has_focus else " ", no_wrap=True, overflow="ellipsis")
        start = 0
        for index, stage in enumerate(STAGES):
            if index:
                line.append(ARROW, style="dim")
            if stage == "model":
                start = line.cell_len
            lit = stage == self.stage
            line.append(
                f" {_(stage)} " if lit else _(stage),
                style="bold reverse" if lit else "bold" if self.step or self.has_focus else "",
            )
        line.append(" ─┐", style="dim")
        end = line.cell_len
        back = Text(" " * start + "▲" + "─" * (end - start - 2) + "┘", style="dim", no_wrap=True)
        return Text("\n").join([line, self._with_values(back)])

    def _with_values(self, back: Text) -> Text:
        values = self._values(self.stage)
        if self.size.width - back.cell_len - 2 >= cells(values):
            back.append("  " + values, style="not dim")
            return back
        return Text(" " + values, no_wrap=True, overflow="ellipsis") if values else back

    def _values(self, stage: str) -> str:
        """What passes through a stage in the step that was last."""
        step = self.step
        if step is None:
            return ""
        length = step.token.position
        lane = "AB"[step.lane]
        best = sorted(step.candidates, key=lambda candidate: candidate.rank)[:3]
        top = "  ".join(f"{candidate.text} {candidate.raw_probability:.0%}" for candidate in best)
        chosen = _("yours") if step.forced else _("picked")
        return {
            "model": counted(
                "{lane} step {index}: {count:,} id in",
                "{lane} step {index}: {count:,} ids in",
                length,
                lane=lane,
                index=step.index + 1,
            )
            if not self.hidden_size
            else counted(
                "{lane} step {index}: {count:,} id in, a vector of {hidden_size:,} out",
                "{lane} step {index}: {count:,} ids in, a vector of {hidden_size:,} out",
                length,
                lane=lane,
                index=step.index + 1,
                hidden_size=self.hidden_size,
            ),
            "probabilities": top
            if step.entropy_bits is None
            else _(
                "{vocabulary_size:,} scores, {entropy_bits:.1f} bits of doubt: {top}",
                vocabulary_size=self.vocabulary_size,
                entropy_bits=step.entropy_bits,
                top=top,
            ),
            "pick": _(
                "{chosen} “{label}”, {probability}, rank {rank}",
                chosen=chosen,
                label=drawn(step.token.label),
                probability=number(step.raw_probability, ".1%"),
                rank=number(step.rank),
            ),
            "append": _(
                "“{label}” joins: now {length:,} tokens, and again", label=drawn(step.token.label), length=length + 1
            ),
        }.get(stage, "")
