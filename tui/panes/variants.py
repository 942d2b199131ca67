"""Variants: the lab's prompt put in several ways, run as one batch under lane B's configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.text import Text
from textual import getters, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, Static

from engine.base.language import N_, _, counted
from engine.base.plain import one_line, shortened
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Failed, Finished, Prefilling, Prompt, Started, Stepped
from engine.job import Job
from engine.sessions.session import VariantResult, saved_step
from engine.text.prompts import PLACE, SYSTEM_VARIANTS, VARIANTS, Variant
from tui.actions import bindings
from tui.sentences import hint, key, sentence
from tui.widgets.hint import Hint, say

FRAME_SECONDS = 0.1
COLUMNS = ((N_("variant"), 12), (N_("seed"), 6), (N_("in"), 4), (N_("out"), 4), (N_("text"), 60))
LIMIT = 16
# Results of one variant beyond this many: the oldest go.
KEPT = 20
# Of a row's text, where there is room; and the lines around the rows: title, head, hint.
MOST_LINES = 6
AROUND = 3

Draw = Callable[[Sequence[Prompt], Sequence[GenerationConfig]], Job[Event]]


class VariantsPane(Vertical):
    """Each variant with what came of it, the newest first."""

    BINDINGS = bindings("variants")

    @dataclass
    class RunWanted(Message):
        """Run the variants of the lab's prompt; `again` with another seed."""

        again: bool

    table = getters.query_one("#variant-table", DataTable)

    def __init__(self) -> None:
        super().__init__(id="variants")
        self.variants: list[Variant] = list(VARIANTS)
        self.results: list[VariantResult] = []
        self._steps: list[list[Stepped]] = []
        self._job: Job[Event] | None = None
        self._runs = 0
        self._shown_lines: list[int] = []

    def compose(self) -> ComposeResult:
        yield Static(id="variants-title")
        yield DataTable[Text](id="variant-table", cursor_type="row", zebra_stripes=True)
        yield Hint(id="variants-say")

    def on_mount(self) -> None:
        table = self.table
        for title, width in COLUMNS:
            table.add_column(_(title), width=width, key=title)
        self._show()
        say(self, hint("variants"))

    def on_resize(self) -> None:
        """Texts take what room there is."""
        table = self.table
        others = sum(width + 2 for title, width in COLUMNS if title != "text")
        for name, column in table.columns.items():
            if name == "text":
                column.width = max(20, self.size.width - others - 3)
        table._require_update_dimensions = True  # Textual looks at a width again only when rows come or go
        table.refresh(layout=True)
        if self._lines() != self._shown_lines:
            self._show()

    @property
    def running(self) -> bool:
        return self._job is not None and not self._job.done

    def restore(self, variants: Sequence[Variant], results: Sequence[VariantResult]) -> None:
        """Show what a session holds."""
        self.stop()
        self.variants, self.results = list(variants), list(results)
        self._show()

    def describe(self, config: GenerationConfig) -> None:
        """Say under which configuration they run."""
        title = Text(_(" Variants of the prompt "), style="bold", no_wrap=True, overflow="ellipsis")
        title.append(_("· as one batch under lane B: {summary}", summary=config.summary), style="dim")
        self.query_one("#variants-title", Static).update(title)

    # Running.

    def run(self, prompt: str, config: GenerationConfig, draw: Draw, *, again: bool, chats: bool) -> None:
        """Every variant of a prompt at once.

        Args:
            draw: begins a run of prompts, each under the configuration beside it.
            again: with another seed than the last one; both stay.
            chats: whether the lab's model has a chat template.
        """
        if not self.variants:
            say(self, sentence(_("There are no variants: {variants.add} adds one.")), wrong=True)
            return
        if not chats and not config.names_model and any(one.system for one in self.variants):
            words = _(
                "A system message needs a chat template, which this model lacks: "
                "{variants.remove} removes such a variant."
            )
            say(self, sentence(words), wrong=True)
            return
        if again and config.strategy != "sample":
            how = _("greedy takes the most probable token") if config.strategy == "greedy" else _("contrastive search")
            say(
                self,
                _(
                    "{how}: it uses no chance, so another seed gives the same text. {edit_b} edits lane B.",
                    how=how,
                    edit_b=key("edit_b"),
                ),
                wrong=True,
            )
            return
        seed = config.seed
        if again and seed is not None:
            used = [one.config.seed for one in self.results if one.config.seed is not None]
            seed = max([seed, *used]) + 1
        prompts = [Prompt(one.fill(prompt), one.conversation(prompt)) for one in self.variants]
        self._steps = [[] for _ in prompts]
        self._runs += 1
        self._job = draw(prompts, [replace(config, seed=seed)] * len(prompts))
        self.refresh_bindings()
        self._follow(self._job, tuple(self.variants), tuple(prompts))

    def stop(self) -> bool:
        """End the run; False where there is none."""
        if self._job is None or self._job.done:
            return False
        self._job.cancel()
        return True

    @work(group="variants", exclusive=True)
    async def _follow(self, job: Job[Event], variants: Sequence[Variant], prompts: Sequence[Prompt]) -> None:
        """Results as they grow: they are the first rows of their variants."""
        before = list(self.results)
        made: list[VariantResult] = []
        failed = False
        async for frame in job.frames(FRAME_SECONDS):
            for event in frame:
                match event:
                    case Started():
                        made = [
                            VariantResult(
                                variant.name,
                                prompt.text,
                                len(event.prompts[index]),
                                event.configs[index],
                                system=variant.system,
                            )
                            for index, (variant, prompt) in enumerate(zip(variants, prompts))
                        ]
                    case Prefilling():
                        say(self, _("reading the prompts…"))
                    case Stepped():
                        self._steps[event.lane].append(event)
                    case Finished():
                        made[event.lane] = replace(made[event.lane], reason=event.reason)
                    case Failed():
                        failed = True
                        say(self, str(event.error), wrong=True)
            for index, steps in enumerate(self._steps[: len(made)]):
                known = len(made[index].steps)
                made[index] = replace(made[index], steps=(*made[index].steps, *map(saved_step, steps[known:])))
            if made and any(one.steps for one in made):
                self.results = _bounded([*made, *before])
                self._show()
            if not failed:
                say(
                    self,
                    counted(
                        "{count} token written · {stop} stops",
                        "{count} tokens written · {stop} stops",
                        sum(map(len, self._steps)),
                        stop=key("stop"),
                    ),
                )
        self.refresh_bindings()
        if not failed:
            say(self, (_("stopped · ") if job.cancelled else "") + hint("variants"))

    # The table.

    def _rows(self) -> list[tuple[Variant | None, VariantResult | None]]:
        """Each variant with its newest result, then its older ones; results of removed variants last."""
        rows: list[tuple[Variant | None, VariantResult | None]] = []
        for variant in self.variants:
            own = [result for result in self.results if result.variant == variant.name]
            rows.append((variant, own[0] if own else None))
            rows += [(None, result) for result in own[1:]]
        names = {variant.name for variant in self.variants}
        return rows + [(None, result) for result in self.results if result.variant not in names]

    @property
    def _text_width(self) -> int:
        return next(column.width for name, column in self.table.columns.items() if name == "text")

    def _lines(self) -> list[int]:
        """How many lines of text each row has: as many as it needs, where there is room for them."""
        rows, room = self._rows(), self.size.height - AROUND
        if len(rows) >= room:
            return [1] * len(rows)
        wrapped = [len(self._wrapped(_text(variant, result))) for variant, result in rows]
        most = next((most for most in range(MOST_LINES, 1, -1) if sum(min(one, most) for one in wrapped) <= room), 1)
        return [min(one, most) for one in wrapped]

    def _wrapped(self, text: str) -> Sequence[Text]:
        return list(Text(text).wrap(self.app.console, self._text_width))

    def _in_lines(self, text: str, lines: int, style: str) -> Text:
        """A text in so many lines, cut by an ellipsis."""
        wrapped = self._wrapped(text)
        if lines == 1 or len(wrapped) <= lines:
            return Text("\n" if lines > 1 else "", style=style).join(wrapped if lines > 1 else [Text(text)])
        last = shortened(" ".join(one.plain.rstrip() for one in wrapped[lines - 1 :]), self._text_width)
        return Text("\n", style=style).join([*wrapped[: lines - 1], Text(last)])

    def _show(self) -> None:
        table = self.table
        row = table.cursor_row
        table.clear()
        self._shown_lines = self._lines()
        for (variant, result), lines in zip(self._rows(), self._shown_lines, strict=True):
            name = variant.name if variant is not None else f"↳ {result.variant if result else ''}"
            seed = tokens = written = ""
            if result is not None:
                seed = str(result.config.seed) if result.config.strategy == "sample" else "–"
                tokens, written = str(result.prompt_tokens), str(len(result.steps))
            style = "dim" if result is None or variant is None else ""
            shown = self._in_lines(_text(variant, result), lines, style)
            shown.no_wrap, shown.overflow = True, "ellipsis"
            table.add_row(
                Text(one_line(name), style="bold" if variant is not None else "dim", no_wrap=True),
                *(Text(cell, style=style, no_wrap=True) for cell in (seed, tokens, written)),
                shown,
                height=lines,
            )
        table.move_cursor(row=min(row, table.row_count - 1))

    @property
    def chosen(self) -> tuple[Variant | None, VariantResult | None]:
        rows, row = self._rows(), self.table.cursor_row
        return rows[row] if 0 <= row < len(rows) else (None, None)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        variant, result = self.chosen
        if result is not None:
            from tui.dialogs.variant_result import VariantResultDialog

            self.app.push_screen(VariantResultDialog(result))
        elif variant is not None:
            self._edit(variant)

    # Editing.

    def action_add(self) -> None:
        if len(self.variants) < LIMIT:
            self._edit(None)
        else:
            say(self, _("{limit} variants are as many as run at once", limit=LIMIT), wrong=True)

    def action_edit(self) -> None:
        variant, _result = self.chosen
        if variant is not None:
            self._edit(variant)

    def _edit(self, variant: Variant | None) -> None:
        from tui.dialogs.edit_text import Edited, EditText

        def accept(edited: Edited | None) -> None:
            if edited is not None:
                new = Variant(*edited)
                if variant in self.variants and variant is not None:
                    self.variants[self.variants.index(variant)] = new
                else:
                    self.variants.append(new)
                self._show()

        title = _("A variant") if variant is None else _("The variant {name}", name=variant.name)
        shown = variant or Variant(_("variant {count}", count=len(self.variants) + 1), PLACE)
        says = _("{prompt} stands for the prompt · {use} uses it", prompt=PLACE, use=key("text_editor.use"))
        self.app.push_screen(
            EditText(
                title, shown.template, shown.name, system=shown.system, hint=says, check=lambda edited: Variant(*edited)
            ),
            accept,
        )

    def action_systems(self) -> None:
        """Three system messages that the prompt is put under come in; they go where they are all there."""
        missing = [one for one in SYSTEM_VARIANTS if one not in self.variants]
        if not missing:
            self.variants = [one for one in self.variants if one not in SYSTEM_VARIANTS]
        elif len(self.variants) + len(missing) > LIMIT:
            say(self, _("{limit} variants are as many as run at once", limit=LIMIT), wrong=True)
            return
        else:
            self.variants += missing
        self._show()

    def action_remove(self) -> None:
        """The chosen result; a variant once it has none."""
        variant, result = self.chosen
        if result is not None:
            self.results = [one for one in self.results if one is not result]
        elif variant is not None:
            self.variants.remove(variant)
        self._show()

    def action_again(self) -> None:
        self.post_message(self.RunWanted(again=True))


def _bounded(results: Sequence[VariantResult]) -> list[VariantResult]:
    """The newest of each variant."""
    kept: list[VariantResult] = []
    for result in results:
        if sum(one.variant == result.variant for one in kept) < KEPT:
            kept.append(result)
    return kept


def _text(variant: Variant | None, result: VariantResult | None) -> str:
    """What a row shows: what was written, or how the prompt is to be put."""
    if result is not None:
        return one_line(result.text.strip())
    if variant is None:
        return ""
    before = _("system: {text}", text=variant.system) + " · " if variant.system else ""
    return one_line(before + variant.template)
