"""The Prompts view: a list of prompts with their lengths, their tokens, and variants of the lab's prompt."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text
from textual import events, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.coordinate import Coordinate
from textual.message import Message
from textual.widgets import DataTable, Label

from engine.base.errors import InputError, LogitlabError
from engine.base.files import read_text
from engine.base.language import N_, _
from engine.base.plain import at_right, cells, for_grid, one_line
from engine.lab import Lab
from engine.models.local import other_tokenizers
from engine.text.lengths import Length, count
from engine.text.prompts import EXAMPLE_PROMPTS, MAX_PROMPTS, lines
from engine.text.tokenizer import Tokenizer
from tui.actions import HINTS, bindings
from tui.panes.variants import VariantsPane
from tui.widgets.hint import Hint, say
from tui.widgets.token_flow import TokenFlow

if TYPE_CHECKING:
    from textual_plotext import PlotextPlot

COLUMNS = (
    (N_("prompt"), 40),
    (N_("chars"), 6),
    (N_("bytes"), 6),
    (N_("words"), 6),
    (N_("tokens"), 8),
    (N_("t/word"), 6),
)
LEAST_PROMPT = 12
BATCH = 200
MAX_FILE_BYTES = 16_000_000
SHOWN_TOKENS = 400
OTHERS = 3
HINT = HINTS["prompts"]


@dataclass
class Counter:
    """A tokenizer and how many tokens each prompt has in it, as far as they are counted."""

    name: str
    tokenizer: Tokenizer
    tokens: dict[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Of its column."""
        return _("tokens of {model}", model=self.name.split("/")[-1])


class PromptList(DataTable[Text | str]):
    """The table; what is pasted into it becomes prompts."""

    @dataclass
    class Pasted(Message):
        text: str

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        self.post_message(self.Pasted(event.text))


class PromptsPane(Vertical):
    """List and chart above, the chosen prompt's tokens and the variants below."""

    BINDINGS = bindings("prompts")

    @dataclass
    class Wanted(Message):
        """This prompt is to be the lab's."""

        text: str

    def __init__(self, lab: Lab) -> None:
        super().__init__(id="prompts")
        self._lab = lab
        self.prompts: list[str] = list(EXAMPLE_PROMPTS)
        self._lengths: list[Length | None] = []
        self._main: Counter | None = None
        self._others: list[Counter] = []
        self._plot: PlotextPlot | None = None
        self._keys = 0

    def compose(self) -> ComposeResult:
        with Horizontal(id="prompts-top"):
            yield PromptList(id="prompt-list", cursor_type="row", zebra_stripes=True)
            yield Vertical(id="prompt-chart-room")
        yield Hint(Text(_(HINT), style="dim"), id="prompts-say")
        yield Vertical(id="prompt-tokens")
        yield VariantsPane()

    def on_mount(self) -> None:
        self._columns()

    async def on_show(self) -> None:
        """The plotting library is imported when there is something to see."""
        room = self.query_one("#prompt-chart-room")
        if self._plot is None and room.is_attached:
            from textual_plotext import PlotextPlot

            self._plot = PlotextPlot(id="prompt-chart")
            await room.mount(self._plot)
        self.call_after_refresh(self._draw)

    # What there is.

    @property
    def table(self) -> PromptList:
        return self.query_one(PromptList)

    @property
    def lengths(self) -> list[Length]:
        """Of the prompts that are counted."""
        return [length for length in self._lengths if length is not None]

    @property
    def others(self) -> list[tuple[str, list[int | None]]]:
        """Other tokenizers' names and counts, prompt by prompt."""
        return [(other.name, [other.tokens.get(one.prompt) for one in self.lengths]) for other in self._others]

    def restore(self, prompts: Sequence[str]) -> None:
        """Show these prompts instead."""
        self.prompts = list(prompts)
        self._recount()

    def use(self, name: str, tokenizer: Tokenizer) -> None:
        """Count with this tokenizer from now on."""
        if self._main is None or self._main.tokenizer is not tokenizer:
            self._main = Counter(name, tokenizer)
            self._others = [other for other in self._others if other.name != name]
            self._columns()
            self._recount()

    def count_beside(self, others: Sequence[tuple[str, Tokenizer]]) -> None:
        """Count with these tokenizers too; with none of them, with the model's own alone."""
        self._others = [Counter(name, tokenizer) for name, tokenizer in others[:OTHERS]]
        self._columns()
        self._recount()

    def _columns(self) -> None:
        table = self.table
        table.clear(columns=True)
        for title, width in COLUMNS:
            shown = _(title) if title == "prompt" else at_right(_(title), width)
            table.add_column(shown, width=max(width, cells(shown)), key=title)
        for other in self._others:
            table.add_column(other.title, width=cells(other.title), key=other.name)
        self.call_after_refresh(self._fit)

    def on_resize(self) -> None:
        self.call_after_refresh(self._fit)
        self.call_after_refresh(self._draw)

    def _fit(self) -> None:
        """The prompts take what room the numbers leave."""
        table = self.table
        others = sum(column.width + 2 for key, column in table.columns.items() if key != "prompt")
        width = max(LEAST_PROMPT, table.size.width - others - 3)
        if "prompt" in table.columns and table.columns["prompt"].width != width:  # type: ignore[index]
            table.columns["prompt"].width = width  # type: ignore[index]
            table._require_update_dimensions = True  # Textual looks at a width again only when rows come or go
            table.refresh(layout=True)

    # Counting, in the background, a batch a time.

    def _recount(self) -> None:
        row = self.table.cursor_row
        self.table.clear()
        self._lengths = [None] * len(self.prompts)
        self._count(row)

    @work(group="count", exclusive=True)
    async def _count(self, row: int = 0) -> None:
        main = self._main
        if main is None:
            return
        for start in range(0, len(self.prompts), BATCH):
            batch = self.prompts[start : start + BATCH]
            try:
                counted = await asyncio.to_thread(count, main.tokenizer, batch)
                for other in self._others:
                    numbers = await asyncio.to_thread(other.tokenizer.count, batch)
                    other.tokens |= dict(zip(batch, numbers))
            except LogitlabError as error:
                say(self, str(error), wrong=True)
                return
            self._lengths[start : start + len(batch)] = counted
            for length in counted:
                self._keys += 1
                self.table.add_row(*self._cells(length), key=str(self._keys))
            if len(self.prompts) > BATCH:
                say(
                    self,
                    _(
                        "{start:,} of {count:,} prompts counted",
                        start=min(start + BATCH, len(self.prompts)),
                        count=len(self.prompts),
                    ),
                )
        if row:
            self.table.move_cursor(row=min(row, len(self.prompts) - 1))
        say(
            self,
            _(HINT) if self.prompts else _("The list is empty: a adds a prompt, o opens a file of one a line."),
        )
        self._draw()

    def _cells(self, length: Length) -> list[Text | str]:
        """A row; numbers are plain texts, of which ten thousand rows hold fewer objects than of styled ones."""
        per_word = f"{length.tokens_per_word:.2f}" if length.tokens_per_word is not None else "–"
        numbers = (length.characters, length.bytes, length.words, length.tokens)
        return [
            Text(one_line(length.prompt[:200]), no_wrap=True, overflow="ellipsis"),
            *(f"{number:,}".rjust(width) for number, (_title, width) in zip(numbers, COLUMNS[1:])),
            per_word.rjust(COLUMNS[-1][1]),
            *(f"{other.tokens.get(length.prompt, 0):,}".rjust(cells(other.title)) for other in self._others),
        ]

    def _update(self, index: int) -> None:
        """One prompt is another now."""
        assert self._main is not None
        (length,) = count(self._main.tokenizer, [self.prompts[index]])
        for other in self._others:
            other.tokens[length.prompt] = other.tokenizer.count([length.prompt])[0]
        self._lengths[index] = length
        for column, cell in enumerate(self._cells(length)):
            self.table.update_cell_at(Coordinate(index, column), cell)
        self._draw()

    # Changing the list.

    @property
    def _row(self) -> int | None:
        """The chosen prompt, if there is one and it is counted."""
        row = self.table.cursor_row
        return row if 0 <= row < self.table.row_count else None

    def action_add(self) -> None:
        self._edit(None)

    def action_edit(self) -> None:
        if self._row is not None:
            self._edit(self._row)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        if event.data_table is self.table:
            event.stop()
            self.action_edit()

    def _edit(self, index: int | None) -> None:
        from tui.dialogs.edit_text import EditText

        def accept(edited: tuple[str, str] | None) -> None:
            if edited is None:
                return
            if index is None:
                self.add([edited[1]])
            elif index < len(self.prompts):
                self.prompts[index] = edited[1]
                self._update(index)

        title = _("A prompt") if index is None else _("Prompt {index:,}", index=index + 1)
        text = "" if index is None else self.prompts[index]
        self.app.push_screen(EditText(title, text, check=self._checked), accept)

    def _checked(self, name: str, text: str) -> None:
        if not text:
            raise InputError(_("the prompt is empty; type at least one character"))
        if self._main is not None:
            self._main.tokenizer.encode_ids(text)

    def add(self, prompts: Sequence[str]) -> None:
        """Add prompts at the end."""
        if len(self.prompts) + len(prompts) > MAX_PROMPTS:
            say(
                self,
                _(
                    "{count:,} prompts are more than {most:,}",
                    count=len(self.prompts) + len(prompts),
                    most=MAX_PROMPTS,
                ),
                wrong=True,
            )
            return
        if prompts:
            self.prompts += prompts
            self._lengths += [None] * len(prompts)
            self.table.clear()
            self._count(len(self.prompts) - 1 if len(prompts) == 1 else len(self.prompts) - len(prompts))

    def on_prompt_list_pasted(self, event: PromptList.Pasted) -> None:
        event.stop()
        self.add(lines(event.text))

    def action_open(self) -> None:
        from tui.dialogs.choose_file import ChooseFile

        def load(path: Path) -> None:
            found = lines(read_text(path, MAX_FILE_BYTES))
            if not found:
                raise InputError(_("{path} holds no line; give one prompt a line", path=path))
            if len(self.prompts) + len(found) > MAX_PROMPTS:
                raise InputError(
                    _(
                        "{path} holds {count:,} prompts; the list takes {most:,}",
                        path=path,
                        count=len(found),
                        most=MAX_PROMPTS,
                    )
                )
            self.add(found)

        hint = _("A text file with one prompt a line; they are added to the list.")
        self.app.push_screen(ChooseFile(_("Open prompts"), hint, load))

    def action_remove(self) -> None:
        row = self._row
        if row is None or row >= len(self._lengths):
            return
        gone = self.prompts.pop(row)
        del self._lengths[row]
        self.table.remove_row(self.table.ordered_rows[row].key)
        say(
            self,
            _("removed “{gone}”", gone=one_line(gone)[:40])
            if self.prompts
            else _("The list is empty: a adds a prompt."),
        )
        self._draw()

    def action_move(self, by: int) -> None:
        """The chosen prompt up or down by one place."""
        row = self._row
        if row is None or not 0 <= row + by < self.table.row_count:
            return
        other = row + by
        prompts, lengths = self.prompts, self._lengths
        prompts[row], prompts[other] = prompts[other], prompts[row]
        lengths[row], lengths[other] = lengths[other], lengths[row]
        for index in (row, other):
            length = self._lengths[index]
            assert length is not None
            for column, cell in enumerate(self._cells(length)):
                self.table.update_cell_at(Coordinate(index, column), cell)
        self.table.move_cursor(row=other)

    def action_use(self) -> None:
        """The chosen prompt becomes the lab's."""
        if self._row is not None:
            self.post_message(self.Wanted(self.prompts[self._row]))

    def action_tokenizers(self) -> None:
        """Other models' tokenizers beside the model's own, or not."""
        if self._others:
            self.count_beside([])
        else:
            self._find_tokenizers()

    @work(group="tokenizers", exclusive=True)
    async def _find_tokenizers(self) -> None:
        """Count with the tokenizers of the other models in the cache too."""
        facts = self._lab.facts
        present = facts.name if facts is not None else ""
        found = await asyncio.to_thread(other_tokenizers, present, self._lab.cache_dir)
        self.count_beside(found)
        if not found:
            self.notify(_("No other model is in the cache: F2, or logitlab models get gpt2, brings another tokenizer."))

    # Looking at them.

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        if event.data_table is self.table:
            event.stop()
            self._draw()

    def _draw(self) -> None:
        """Chart and tokens of what is chosen."""
        if self._plot is None or not self.is_on_screen:
            return
        plot = self._plot.plt
        plot.clear_figure()
        row = self._row or 0
        room = max(1, (self.query_one("#prompt-chart-room").size.height - 3) // 2)
        first = max(0, min(row - room // 2, self.table.row_count - room))
        shown = [
            (index, length)
            for index, length in enumerate(self._lengths[first : first + room], start=first)
            if length is not None
        ]
        if shown:
            plot.title(for_grid(_("tokens")))
            for index, length in shown:
                chosen = index == row
                colour = (158, 206, 106) if chosen else (122, 162, 247)
                plot.bar([-index - 1], [length.tokens], orientation="h", color=colour, width=0.6)
            labels = [for_grid(f"{index + 1} {one_line(length.prompt)[:14]}") for index, length in shown]
            plot.yticks([-index - 1 for index, _length in shown], labels)
            plot.xlim(0, max(max(length.tokens for _index, length in shown), 1))
            plot.xfrequency(4)
        self._plot.refresh()
        self._show_tokens(row)

    def _show_tokens(self, row: int) -> None:
        room = self.query_one("#prompt-tokens")
        counters = [counter for counter in (self._main, *self._others) if counter is not None]
        names = [counter.name for counter in counters]
        if [line.name for line in room.children] != names:
            room.remove_children()
            room.mount(*(_TokenLine(name) for name in names))
        prompt = self.prompts[row] if row < len(self.prompts) else ""
        self.call_after_refresh(self._fill_tokens, counters, prompt)

    def _fill_tokens(self, counters: Sequence[Counter], prompt: str) -> None:
        for line, counter in zip(self.query(_TokenLine), counters):
            line.show(counter.tokenizer, prompt)


class _TokenLine(Horizontal):
    """The chosen prompt in one tokenizer."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, classes="token-line")

    def compose(self) -> ComposeResult:
        yield Label(Text((self.name or "").split("/")[-1][:18], style="dim"))
        flow = TokenFlow(labels=True)
        flow.can_focus = False
        yield flow

    def show(self, tokenizer: Tokenizer, prompt: str) -> None:
        """The tokens, and how many there are."""
        if len(self.children) < 2:
            return  # it is on its way in or out
        tokens = tokenizer.encode(prompt[: SHOWN_TOKENS * 8])
        short = (self.name or "").split("/")[-1][:14]
        self.query_one(Label).update(Text(f"{short:<14} {len(tokens):>3}", style="dim"))
        self.query_one(TokenFlow).set_tokens(tokens[:SHOWN_TOKENS])
