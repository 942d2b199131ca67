"""What the token under the cursor looks at: the text coloured by weight, and a map of all heads."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text
from textual import getters, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from engine.base.language import N_, _
from engine.base.plain import bar, percent
from engine.generation.events import Failed
from engine.text.token import drawn
from tui.actions import bindings
from tui.panes.lane_lab import LaneLab
from tui.panes.picture import LookedAt, Picture
from tui.style.colours import legend, palette
from tui.widgets.grid import Cell, Grid
from tui.widgets.token_flow import TokenFlow

if TYPE_CHECKING:
    from engine.export.inside import HeadMeasure
    from engine.inside.attention import Attention, HeadLook
    from engine.job import Job

KINDS = (N_("one head"), N_("mean of a layer"), N_("mean of all layers"), N_("rollout"))
MEASURE_NAMES: "tuple[HeadMeasure, ...]" = ("first", "previous", "entropy")
MEASURES = (N_("weight on the first token"), N_("weight on the token before"), N_("spread in bits"))
# Tokens that are named with their weights, on a low screen and on others.
FEW, MANY = 4, 10


@dataclass(frozen=True, slots=True)
class Weighed:
    """A token's share of the weights, as its colour tells it."""

    share: float | None


class AttentionPicture(Picture):
    """The text, each token coloured by how much it is looked at; and where every head looks."""

    BINDINGS = bindings("attention")

    grid = getters.query_one(Grid)
    flow = getters.query_one(TokenFlow)

    def __init__(self, lab: LaneLab, pointed: Callable[[int], object]) -> None:
        super().__init__(lab, "attention", pointed)
        self._seen: LookedAt | None = None
        self._kind = 1
        self._by_value = False
        self._leave_first = True
        self._measured = 0
        self.heads: tuple[tuple[HeadLook, ...], ...] = ()
        self.attention: Attention | None = None
        self._pointed = (0, 0)  # the head that was chosen; it stays while texts come and go

    def compose(self) -> ComposeResult:
        with Horizontal(classes="attention-room"):
            with Vertical(classes="attention-text"):
                yield Static(classes="attention-title")
                yield TokenFlow(moved=self._point_at)
                yield Static(classes="attention-most")
            with Vertical(classes="attention-heads"):
                yield Static(classes="attention-measure")
                yield Grid(4, self._choose_head, folds=True)

    def on_mount(self) -> None:
        self.flow.mode = "share"

    @property
    def measure(self) -> "HeadMeasure":
        """What the map of heads shows, by its name in exports."""
        return MEASURE_NAMES[self._measured]

    @property
    def part(self) -> str | None:
        """The head under the cursor, as an intervention names it."""
        layer, head = self.grid.cursor
        return f"head {layer}.{head}" if layer < len(self.heads) and head < len(self.heads[layer]) else None

    def show(self, seen: LookedAt | None) -> None:
        """Show another text, or another position of the same."""
        before, self._seen = self._seen, seen
        self.grid.folds = self.screen.has_class("-low")
        if seen is None:
            self.stop()
            self.heads, self.attention = (), None
            self.flow.clear()
            self.grid.show((), (), self._cell)
            return
        if before is None or before.tokens is not seen.tokens:
            self.flow.judged = ()
            self.flow.set_tokens(seen.tokens)
        self.flow.cursor = seen.position
        self._compute(seen)

    def _compute(self, seen: LookedAt) -> None:
        from engine.inside.attention import attention, attention_map

        self.stop()
        layer, head = self.grid.cursor
        kinds: tuple[dict[str, Any], ...] = (
            {"layer": layer, "head": head, "by_value": self._by_value},
            {"layer": layer, "by_value": self._by_value},
            {"by_value": self._by_value},
            {"rollout": True},
        )
        asked = kinds[self._kind]
        known = self.heads and self._mapped == (seen.record, seen.position, self._leave_first)

        def body(model: object, job: "Job[Any]") -> Any:
            common: dict[str, Any] = {"leave_first": self._leave_first, "cancelled": lambda: job.cancelled}
            if not known:
                yield attention_map(seen.record, seen.position, **common)
            yield attention(seen.record, seen.position, **asked, **common)

        self._job = self._lab.look(body)
        self._follow(self._job, seen)

    _mapped: tuple[object, int, bool] | None = None

    @work(group="attention", exclusive=True)
    async def _follow(self, job: "Job[Any]", seen: LookedAt) -> None:
        async for event in job:
            if seen is not self._seen:
                return
            if isinstance(event, Failed):
                self.attention = None
                self.query_one(".attention-title", Static).update(Text(str(event.error), style="dim"))
                self.query_one(".attention-most", Static).update("")
            elif isinstance(event, tuple):
                self.heads, self._mapped = event, (seen.record, seen.position, self._leave_first)
                self._show_map()
            else:
                self.attention = event
                self._show_weights(seen, event)

    def _show_map(self) -> None:
        heads = max(len(row) for row in self.heads)
        rows = [str(layer) for layer in range(len(self.heads))]
        before = self.grid.cursor
        self.grid.show(rows, [str(head) for head in range(heads)], self._cell, self._pointed)
        self._tell_measure()
        if self.grid.cursor != before and self._kind < 2:  # the head that was chosen for the text before
            self._again()

    def _tell_measure(self) -> None:
        title = Text(_("all heads: {measure}", measure=_(MEASURES[self._measured])), style="bold", no_wrap=True)
        self.query_one(".attention-measure", Static).update(title)

    def _show_weights(self, seen: LookedAt, found: "Attention") -> None:
        weights = found.weights[: seen.position + 1]
        whole = sum(weight for weight in weights if weight is not None) or 1.0
        self.flow.judged = [Weighed(None if weight is None else weight / whole) for weight in weights]
        self.flow.refresh()
        self.query_one(".attention-title", Static).update(self._title(seen, found))
        short = self.screen.has_class("-low")
        line = legend("share", palette(self.app), short=short)
        room = self.query_one(".attention-text").size.width
        taken = room  # of the line that is written on: a token and its weight stay together
        ordered = sorted(((weight, index) for index, weight in enumerate(weights) if weight is not None), reverse=True)
        for weight, index in ordered[: FEW if short else MANY]:
            label, value = drawn(seen.tokens[index].label), f"{weight:.2f}" if found.by_value else percent(weight)
            cells = cell_len(f"  {label} {value}")
            taken += cells
            if not short or taken > room:
                line.append("\n")
                taken = cells
            line.append("  " if short else "")
            line.append(f"{label} " if short else f" {set_cell_size(label, 16)} ", style="bold")
            line.append(value if short else f"{value:>8} ", style="dim")
            if not short:
                line.append(bar(weight, ordered[0][0], 20))
        self.query_one(".attention-most", Static).update(line)

    def _title(self, seen: LookedAt, found: "Attention") -> Text:
        kind = {
            "head": _("layer {layer}, head {head}", layer=found.layer, head=found.head),
            "mean": _("layer {layer}, mean of its heads", layer=found.layer),
            "all": _("mean of all layers"),
            "rollout": _("rollout through all layers"),
        }[found.kind]
        by = _("by what it moves (‖α·v·W‖)") if found.by_value else _("by weight")
        title = Text(_("“{token}” looks at", token=drawn(seen.tokens[seen.position].label)), style="bold")
        title.append(f" · {kind} · {by}", style="")
        if found.weights and found.weights[0] is None:
            title.append(" · " + _("first token left out"), style="dim")
        return title

    def _cell(self, row: int, column: int) -> Cell:
        if row >= len(self.heads) or column >= len(self.heads[row]):
            return Cell("", faint=True)
        look = self.heads[row][column]
        colours = palette(self.app).five
        if self._measured == 2:
            text, bin = f"{look.entropy_bits:.1f}", min(4, int(look.entropy_bits))
        else:
            share = look.first if self._measured == 0 else look.previous
            text, bin = f"{100 * share:.0f}", min(4, int(share * 5))
        return Cell(text, colours[bin])

    # Keys.

    def _choose_head(self, row: int, column: int) -> None:
        """A head is chosen; it stays while the text's cursor moves."""
        self._pointed = (row, column)
        if self._kind > 1:
            self._kind = 0
        if self._seen is not None:
            self._compute(self._seen)

    def action_kind(self) -> None:
        """One head, a layer's mean, all layers' mean, rollout."""
        self._kind = (self._kind + 1) % len(KINDS)
        self._again()

    def action_by_value(self) -> None:
        """By the weight, or by what it moves."""
        self._by_value = not self._by_value
        if self._kind == 3:
            self.notify(_("Rollout is of weights alone."))
        self._again()

    def action_first(self) -> None:
        """With the first token, or without it."""
        self._leave_first = not self._leave_first
        self._again()

    def action_measure(self) -> None:
        """Colour the map by the next measure."""
        self._measured = (self._measured + 1) % len(MEASURES)
        self._tell_measure()
        self.grid.refresh()

    def _again(self) -> None:
        if self._seen is not None:
            self._compute(self._seen)
