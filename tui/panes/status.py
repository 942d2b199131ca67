"""The top line: the model, how it runs, how fast, and what it is waiting for."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text
from textual.app import App
from textual.reactive import reactive
from textual.widget import Widget

from engine.base.language import _
from engine.base.plain import cells, one_line
from engine.models.model import ModelFacts
from engine.models.progress import LOAD_STAGES, Loading
from tui.sentences import key, sentence
from tui.style.colours import ink

BAR_CELLS = 16

# Columns from which on there is room for what is seldom looked at.
ROOMY = 100


class StatusLine(Widget):
    """One line: model · precision · device · speed, or the progress of loading."""

    facts: reactive[ModelFacts | None] = reactive(None)
    progress: reactive[Loading | None] = reactive(None)
    lane: reactive[str] = reactive("")  # whose model it is, where lanes name models
    absent: reactive[str] = reactive("")  # the model that the lane names, while it is not loaded
    rates: reactive[Mapping[str, float]] = reactive({})  # tokens a second, by the lane's name
    message: reactive[str] = reactive("")

    def render(self) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(" logitlab ", style="bold reverse")
        line.append("  ")
        if self.message:
            line.append(self.message, style=f"bold {ink(self.app, 'wrong')}")
        elif self.progress is not None:
            line.append_text(loading_text(self.app, self.progress))
        elif self.facts is None:
            line.append(sentence(_("no model · {model} chooses one")), style="dim")
        elif self.absent:
            line.append(_("{lane}: {model}, not loaded", lane=self.lane, model=one_line(self.absent)), style="dim")
        else:
            if self.lane:
                line.append(f"{self.lane}: ", style="dim")
            line.append(one_line(self.facts.title), style="bold")
            here = bool(self.facts.threads)
            threads = f" ×{self.facts.threads}" if here and self.facts.device == "cpu" else ""
            line.append(one_line(f" · {self.facts.precision} · {self.facts.device}{threads}"))
            if self.facts.kernels == "compiled" and self.size.width >= ROOMY:
                line.append(_(" · compiled"), style="dim")
            if here and not self.facts.path.startswith("own"):
                line.append(_(" · through {path}", path=self.facts.path), style="dim")
            if self.facts.memory_used is not None and self.facts.memory_free is not None:
                line.append(
                    _(
                        " · {memory_used:.1f} GB used, {memory_free:.1f} free",
                        memory_used=self.facts.memory_used / 1e9,
                        memory_free=self.facts.memory_free / 1e9,
                    )
                )
            if self.rates:
                line.append(_(" · {rates} tokens/s", rates=self._rates()), style=f"bold {ink(self.app, 'good')}")
        palette = _("{key} palette ", key=key("palette", short=True))
        room = self.size.width - line.cell_len
        if room > cells(palette):
            line.append(" " * (room - cells(palette)))
            line.append(palette, style="dim")
        return line

    def _rates(self) -> str:
        if len(self.rates) == 1:
            return f"{next(iter(self.rates.values())):,.0f}"
        return " · ".join(f"{lane} {rate:,.0f}" for lane, rate in self.rates.items())


def loading_text(app: App[Any], progress: Loading) -> Text:
    """A stage of loading with a bar, such as `fetch ███▌   45 of 93 MB`."""
    text = Text(f"{_(LOAD_STAGES[progress.stage])} ", style="bold")
    if progress.total > 0 and progress.done:
        filled = round(BAR_CELLS * progress.done / progress.total)
        text.append("█" * filled, style=ink(app, "note"))
        text.append("░" * (BAR_CELLS - filled), style="dim")
        unit = (1, _("tensors")) if progress.stage == "pack" else (1_000_000, "MB")
        text.append(
            _(
                " {done:,} of {total:,} {unit}",
                done=progress.done // unit[0],
                total=progress.total // unit[0],
                unit=unit[1],
            )
        )
    else:
        text.append("…", style="dim")
    if progress.note:
        text.append(f"  {progress.note}", style="dim")
    return text
