"""Why this token and not that one: what each part of the network adds to one logit over another."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual import getters, work
from textual.app import ComposeResult
from textual.widgets import Static

from engine.base.language import _
from engine.generation.events import Failed
from tui.actions import bindings
from tui.panes.lane_lab import LaneLab
from tui.panes.picture import LookedAt, Picture, first_token
from tui.sentences import key, sentence
from tui.widgets.signed_bars import SignedBars

if TYPE_CHECKING:
    from engine.inside.attribution import Attribution, Part
    from engine.job import Job


class AttributionPicture(Picture):
    """Signed bars of embedding, attention and feed-forward of every layer, or of a layer's heads."""

    BINDINGS = bindings("attribution")

    bars = getters.query_one(SignedBars)

    def __init__(self, lab: LaneLab, pointed: Callable[[int], object]) -> None:
        super().__init__(lab, "attribution", pointed)
        self._seen: LookedAt | None = None
        self._chosen: tuple[int | None, int | None] = (None, None)
        self._layer: int | None = None
        self._by_size = True
        self._parts: list[Part] = []
        self.attribution: Attribution | None = None

    def compose(self) -> ComposeResult:
        yield Static(classes="attribution-title")
        yield SignedBars()

    @property
    def part(self) -> str | None:
        """What the bar under the cursor is the share of, as an intervention names it."""
        part = self._parts[self.bars.cursor] if self.attribution and self.bars.cursor < len(self._parts) else None
        return part.name if part is not None and part.kind in ("head", "attention", "mlp") else None

    def show(self, seen: LookedAt | None) -> None:
        """Show another text, or another position of the same."""
        if seen is None or self._seen is None or seen.tokens is not self._seen.tokens:
            self._chosen, self._layer = (None, None), None
        self._seen = seen
        if seen is None:
            self.stop()
            self.attribution = None
            self.bars.show(())
            self.query_one(".attribution-title", Static).update("")
        else:
            self._compute(seen)

    def _compute(self, seen: LookedAt) -> None:
        from engine.inside.attribution import attribution, first_and_second

        self.stop()
        layer, (chosen, against) = self._layer, self._chosen

        def body(model: object, job: "Job[Any]") -> Any:
            a, b = first_and_second(seen.record, seen.position, seen.picked if chosen is None else chosen)
            yield attribution(seen.record, seen.position, a, b if against is None else against, layer=layer)

        self._job = self._lab.look(body)
        self._follow(self._job, seen)

    @work(group="attribution", exclusive=True)
    async def _follow(self, job: "Job[Any]", seen: LookedAt) -> None:
        async for event in job:
            if seen is not self._seen:
                return
            if isinstance(event, Failed):
                self.attribution = None
                self.bars.show(())
                self.query_one(".attribution-title", Static).update(Text(str(event.error), style="dim"))
            else:
                self.attribution = event
                self._draw()

    def _draw(self) -> None:
        found, seen = self.attribution, self._seen
        if found is None or seen is None:
            return
        parts = [part for part in found.parts if self._layer is None or part.layer == self._layer]
        if self._by_size:
            parts.sort(key=lambda part: -abs(part.share))
        self._parts = parts
        self.bars.show([(named(part), part.share) for part in parts])
        a, b = seen.label(found.a.id), seen.label(found.b.id)
        title = Text(_("why “{a}” and not “{b}”", a=a, b=b), style="bold")
        title.append(
            "  "
            + _(
                "logits {a:.2f} − {b:.2f} = {difference:+.2f}",
                a=found.a.value,
                b=found.b.value,
                difference=found.difference,
            )
        )
        title.append(
            "\n"
            + _(
                "the parts add up to {sum:+.3f}, remainder {remainder:+.4f}",
                sum=found.sum,
                remainder=round(found.remainder, 4) + 0.0,
            ),
            style="dim",
        )
        if self._layer is not None:
            title.append(
                "  " + _("layer {layer}, its heads · {choose} goes back", layer=self._layer, choose=key("bars.choose")),
                style="bold",
            )
        self.query_one(".attribution-title", Static).update(title)

    # Keys.

    def on_signed_bars_chosen(self, event: SignedBars.Chosen) -> None:
        """Enter shows the heads of a layer, and goes back."""
        event.stop()
        part = self._parts[event.index]
        if self._layer is not None:
            self._layer = None
        elif part.kind == "attention":
            self._layer = part.layer
        else:
            self.notify(sentence(_("{bars.choose} on an attention shows its heads.")))
            return
        if self._seen is not None:
            self._compute(self._seen)

    def action_order(self) -> None:
        """By size, or in the order of layers."""
        self._by_size = not self._by_size
        self._draw()

    def action_tokens(self) -> None:
        """Other tokens to compare."""
        from tui.dialogs.texts import TextsDialog

        if self._seen is None or self.attribution is None:
            return

        label = self._seen.label
        fields = [
            (_("why this token"), _("empty: the picked one (now “{token}”)", token=label(self.attribution.a.id))),
            (_("and not that one"), _("empty: its runner-up (now “{token}”)", token=label(self.attribution.b.id))),
        ]
        hint = _("A space in front begins a new word. Enter compares them.")
        self.app.push_screen(TextsDialog(_("Two tokens"), fields, hint, self._choose))

    def _choose(self, texts: Sequence[str]) -> None:
        """Compare the tokens that two texts are; the picked one and its runner-up where a text is empty."""
        tokenizer = self._tokenizer
        a, b = (first_token(self, tokenizer, text) if text else None for text in texts)
        self._chosen = (a, b)
        if self._seen is not None:
            self._compute(self._seen)


def named(part: "Part") -> str:
    """A part's name in the reader's language."""
    match part.kind:
        case "embedding":
            return _("embedding")
        case "attention":
            return _("attention {layer}", layer=part.layer)
        case "mlp":
            return _("feed-forward {layer}", layer=part.layer)
        case "head":
            return _("head {layer}.{head}", layer=part.layer, head=part.head)
    return _("biases") if part.layer is None else _("biases {layer}", layer=part.layer)
