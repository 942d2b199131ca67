"""The Prompts view: a list of prompts with their lengths, their tokens, and variants of the lab's prompt."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from rich.text import Text
from textual import events, getters, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.geometry import Size
from textual.message import Message
from textual.widgets import Label, Static

from engine.base.errors import InputError, LogitlabError
from engine.base.files import read_text
from engine.base.language import _, counted
from engine.base.plain import number as number_text
from engine.base.plain import one_line
from engine.lab import Lab
from engine.text.lengths import Length, count
from engine.text.prompts import EXAMPLE_PROMPTS, MAX_PROMPTS, lines
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer
from tui.actions import bindings
from tui.panes.variants import VariantsPane
from tui.sentences import hint, sentence
from tui.widgets.bar_chart import BarChart, Column
from tui.widgets.hint import Hint, say
from tui.widgets.token_flow import TokenFlow

BATCH = 200
MAX_FILE_BYTES = 16_000_000
SHOWN_TOKENS = 400
LABEL_CHARACTERS = 200
OTHERS = 3


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


class PromptList(BarChart):
    """The list; what is pasted into it becomes prompts."""

    @dataclass
    class Pasted(Message):
        text: str

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        self.post_message(self.Pasted(event.text))


class PromptsPane(Vertical):
    """The list, which is a chart, then the chosen prompt's tokens, then the variants."""

    BINDINGS = bindings("prompts")

    table = getters.query_one(PromptList)

    @dataclass
    class Wanted(Message):
        """This prompt is to be the lab's."""

        text: str

    def __init__(self, lab: Lab) -> None:
        super().__init__(id="prompts")
        self._lab = lab
        self.prompts: list[str] = list(EXAMPLE_PROMPTS)
        self._lengths: list[Length | None] = [None] * len(self.prompts)
        self._main: Counter | None = None
        self._others: list[Counter] = []
        self._lines: list[_TokenLine] = []

    def compose(self) -> ComposeResult:
        yield PromptList(_("prompt"), id="prompt-list")
        yield Hint(Text(hint("prompts"), style="dim"), id="prompts-say")
        yield Static(id="prompt-detail")
        yield Vertical(id="prompt-tokens")
        yield VariantsPane()

    def on_mount(self) -> None:
        self._show()

    def on_resize(self) -> None:
        self._space()

    def on_show(self) -> None:
        self.call_after_refresh(self._draw)

    # What there is.

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
            self._recount()

    def count_beside(self, others: Sequence[tuple[str, Tokenizer]]) -> None:
        """Count with these tokenizers too; with none of them, with the model's own alone."""
        self._others = [Counter(name, tokenizer) for name, tokenizer in others[:OTHERS]]
        self._recount()

    # Counting, in the background, a batch a time.

    def _recount(self) -> None:
        self._lengths = [None] * len(self.prompts)
        self._count()

    @work(group="count", exclusive=True)
    async def _count(self) -> None:
        """Count what is not counted yet; the list may change meanwhile."""
        self._show()
        main = self._main
        if main is None:
            return
        while batch := [text for text, length in zip(self.prompts, self._lengths) if length is None][:BATCH]:
            try:
                lengths = {one.prompt: one for one in await asyncio.to_thread(count, main.tokenizer, batch)}
                for other in self._others:
                    numbers = await asyncio.to_thread(other.tokenizer.count, batch)
                    other.tokens |= dict(zip(batch, numbers))
            except LogitlabError as error:
                say(self, str(error), wrong=True)
                return
            self._lengths = [
                lengths.get(text) if length is None else length for text, length in zip(self.prompts, self._lengths)
            ]
            self._show()
            if len(self.prompts) > BATCH:
                done = len(self.lengths)
                say(self, _("{start:,} of {count:,} prompts counted", start=done, count=len(self.prompts)))
        say(
            self,
            hint("prompts")
            if self.prompts
            else sentence(_("The list is empty: {add} adds a prompt, {open} opens a file of one a line."), "prompts"),
        )
        self._draw()

    def _show(self) -> None:
        """The list with its numbers, as far as they are known."""

        def of(number: Callable[[Length], float | None]) -> list[float | None]:
            return [None if one is None else number(one) for one in self._lengths]

        columns = [
            Column(_("tokens"), of(lambda one: one.tokens), ink=0, always=True),
            *(
                Column(other.title, [other.tokens.get(text) for text in self.prompts], ink=ink, always=True)
                for ink, other in enumerate(self._others, start=1)
            ),
            Column(_("chars"), of(lambda one: one.characters), ink="quiet", always=True),
            Column(_("bytes"), of(lambda one: one.bytes)),
            Column(_("words"), of(lambda one: one.words)),
            Column(_("t/word"), of(lambda one: one.tokens_per_word), form=".2f"),
        ]
        self._space()
        self.table.show([_label(text) for text in self.prompts], columns)

    def _space(self) -> None:
        """Rows stand apart where there is room for all of them in half of the view."""
        pitch = 2 if 2 * len(self.prompts) + BarChart.HEAD <= self.size.height // 2 else 1
        if pitch != self.table.pitch:
            self.table.pitch = pitch
            self.table.measure()

    def _update(self, index: int) -> None:
        """One prompt is another now."""
        assert self._main is not None
        (length,) = count(self._main.tokenizer, [self.prompts[index]])
        for other in self._others:
            other.tokens[length.prompt] = other.tokenizer.count([length.prompt])[0]
        self._lengths[index] = length
        self._show()
        self._draw()

    # Changing the list.

    @property
    def _row(self) -> int | None:
        """The chosen prompt, if there is one."""
        return self.table.cursor if self.prompts else None

    def action_add(self) -> None:
        self._edit(None)

    def action_edit(self) -> None:
        if self._row is not None:
            self._edit(self._row)

    def on_bar_chart_selected(self, event: BarChart.Selected) -> None:
        event.stop()
        self.action_edit()

    def _edit(self, index: int | None) -> None:
        from tui.dialogs.edit_text import Edited, EditText

        def accept(edited: Edited | None) -> None:
            if edited is None:
                return
            if index is None:
                self.add([edited.text])
            elif index < len(self.prompts):
                self.prompts[index] = edited.text
                self._update(index)

        title = _("A prompt") if index is None else _("Prompt {index:,}", index=index + 1)
        text = "" if index is None else self.prompts[index]
        self.app.push_screen(EditText(title, text, check=lambda typed: self._checked(typed.text)), accept)

    def _checked(self, text: str) -> None:
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
            first = len(self.prompts)
            self.prompts += prompts
            self._lengths += [None] * len(prompts)
            self._show()
            self.table.cursor = first
            self._count()

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
        if row is None:
            return
        gone = self.prompts.pop(row)
        del self._lengths[row]
        self._show()
        say(
            self,
            _("removed “{gone}”", gone=one_line(gone)[:40])
            if self.prompts
            else sentence(_("The list is empty: {prompts.add} adds a prompt.")),
        )
        self._draw()

    def action_move(self, by: int) -> None:
        """The chosen prompt up or down by one place."""
        row = self._row
        if row is None or not 0 <= row + by < len(self.prompts):
            return
        other = row + by
        prompts, lengths = self.prompts, self._lengths
        prompts[row], prompts[other] = prompts[other], prompts[row]
        lengths[row], lengths[other] = lengths[other], lengths[row]
        self._show()
        self.table.cursor = other

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
        from engine.models.local import other_tokenizers

        facts = self._lab.facts
        present = facts.name if facts is not None else ""
        found = await asyncio.to_thread(other_tokenizers, present, self._lab.cache_dir)
        self.count_beside(found)
        if not found:
            self.notify(
                sentence(
                    _("No other model is in the cache: {model}, or logitlab models get gpt2, brings another tokenizer.")
                )
            )

    # Looking at them.

    def on_bar_chart_highlighted(self, event: BarChart.Highlighted) -> None:
        event.stop()
        self._draw()

    def _draw(self) -> None:
        """What is chosen: its numbers and its tokens."""
        if not self.is_on_screen:
            return
        row = self._row
        detail = Text(" ", no_wrap=True, overflow="ellipsis")
        if row is not None:
            detail.append(_("Prompt {index:,}", index=row + 1), style="bold")
            length = self._lengths[row]
            if length is not None:
                detail.append(f"  {_in_words(length)}", style="dim")
        self.query_one("#prompt-detail", Static).update(detail, layout=False)
        self._show_tokens(row or 0)

    def _show_tokens(self, row: int) -> None:
        counters = [counter for counter in (self._main, *self._others) if counter is not None]
        names = [counter.name for counter in counters]
        if [line.name for line in self._lines] != names:
            room = self.query_one("#prompt-tokens")
            room.remove_children()
            self._lines = [_TokenLine(name) for name in names]
            room.mount(*self._lines)
        prompt = self.prompts[row] if row < len(self.prompts) else ""
        length = self._lengths[row] if row < len(self._lengths) else None
        numbers = [None if length is None else length.tokens, *(other.tokens.get(prompt) for other in self._others)]
        for line, counter, number in zip(self._lines, counters, numbers):
            line.show(counter.tokenizer, prompt, number)


@lru_cache(MAX_PROMPTS)
def _label(prompt: str) -> str:
    return one_line(prompt[:LABEL_CHARACTERS])


def _in_words(length: Length) -> str:
    """All of a prompt's numbers, those too for which the list has no room."""
    facts = [
        counted("{count:,} token", "{count:,} tokens", length.tokens),
        counted("{count:,} character", "{count:,} characters", length.characters),
        counted("{count:,} byte", "{count:,} bytes", length.bytes),
        counted("{count:,} word", "{count:,} words", length.words),
    ]
    if length.tokens_per_word is not None:
        facts.append(_("{number:.2f} tokens a word", number=length.tokens_per_word))
    return " · ".join(facts)


class _TokenLine(Horizontal):
    """The chosen prompt in one tokenizer."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, classes="token-line")
        self._tokens: list[Token] = []
        self._number: int | None = None

    def compose(self) -> ComposeResult:
        yield Label()
        yield _Tokens(labels=True)

    def on_mount(self) -> None:
        self._fill()

    def show(self, tokenizer: Tokenizer, prompt: str, number: int | None) -> None:
        """The first tokens, and how many there are of all."""
        self._tokens = tokenizer.encode(prompt[: SHOWN_TOKENS * 8])[:SHOWN_TOKENS]
        self._number = number
        if self.is_mounted:
            self._fill()

    def _fill(self) -> None:
        short = (self.name or "").split("/")[-1][:13]
        self.query_one(Label).update(Text(f"{short:<13} {number_text(self._number):>5}", style="dim"))
        self.query_one(TokenFlow).set_tokens(self._tokens)


class _Tokens(TokenFlow):
    """As high as its text is in the width that it is going to have; else what it took in no room at all is kept."""

    can_focus = False

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        room = max(1, width - self.styles.scrollbar_size_vertical)
        if room != self._width:
            self._wrap(room)
            self.set_reactive(TokenFlow.virtual_size, Size(room, len(self._lines)))
        return len(self._lines)
