"""The generation loop, drawn; the active stage is lit, with the values that pass through it."""

from rich.text import Text
from textual.reactive import reactive
from textual.widget import Widget

from engine.events import Stepped

STAGES = ("prompt", "tokens", "model", "probabilities", "pick", "append")
# Within one step of a lane only these take part; prompt and tokens come before the first one.
STEP_STAGES = ("model", "probabilities", "pick", "append")
ARROW = " ─▶ "


class LoopDiagram(Widget):
    """Lit stage by stage while lanes run; a step is faster than the eye, so each frame shows the next stage
    with the newest step's values."""

    stage: reactive[str] = reactive("")
    step: reactive[Stepped | None] = reactive(None)
    vocabulary_size: reactive[int] = reactive(0)

    def advance(self, step: Stepped | None) -> None:
        """Light the next stage of the loop; `step` is the newest one."""
        following = STEP_STAGES.index(self.stage) + 1 if self.stage in STEP_STAGES else 0
        self.stage = STEP_STAGES[following % len(STEP_STAGES)]
        self.step = step

    def render(self) -> Text:
        line = Text(" ", no_wrap=True, overflow="ellipsis")
        start = 0
        for index, stage in enumerate(STAGES):
            if index:
                line.append(ARROW, style="dim")
            if stage == "model":
                start = line.cell_len
            lit = stage == self.stage
            line.append(
                f" {stage} " if lit else stage, style="bold black on #9ece6a" if lit else "bold" if self.step else ""
            )
        line.append(" ─┐", style="dim")
        end = line.cell_len
        back = Text(" " * start + "▲" + "─" * (end - start - 2) + "┘", style="dim", no_wrap=True)
        return Text("\n").join([line, self._with_values(back)])

    def _with_values(self, back: Text) -> Text:
        values = self._values()
        if self.size.width - back.cell_len - 2 >= len(values):
            back.append("  " + values, style="not dim")
            return back
        return Text(" " + values, no_wrap=True, overflow="ellipsis") if values else back

    def _values(self) -> str:
        step = self.step
        if step is None:
            return ""
        length = step.token.position
        lane = "AB"[step.lane]
        return {
            "model": f"{lane} step {step.index + 1}: {length:,} tokens in",
            "probabilities": f"{self.vocabulary_size:,} scores out, {step.entropy_bits:.1f} bits of doubt",
            "pick": f"picked “{step.token.label}”, {step.raw_probability:.1%}, rank {step.rank:,}",
            "append": f"now {length + 1:,} tokens, and again",
        }.get(self.stage, "")
