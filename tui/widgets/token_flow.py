"""Tokens as coloured text that wraps, scrolls and grows at the end without being rebuilt."""

import re
from collections.abc import Callable, Sequence
from functools import cache

from rich.cells import cell_len, get_character_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.base.language import counted
from engine.text.sharing import Shared, shared_characters
from engine.text.token import Token, drawn, printable
from tui.actions import bindings
from tui.style.colours import palette, surprise
from tui.terminal.straight import JOINED_LETTERS

# A flow that is full scrolls by this many lines at once: text stands still while it is read, and scrolling, which
# draws everything anew, takes less from the network.
SCROLL_LINES = 4
BYTE_CELLS = 4  # of a byte in a label, `⟨E6⟩`


def readable(text: str) -> str:
    """Text of a token as prose: spaces stay, a line break shows and breaks, the rest is made visible."""
    return "".join("⏎\n" if char == "\n" else "⇥ " if char == "\t" else printable(char) for char in text)


class TokenFlow(ScrollView, can_focus=True):
    """Wrapped, coloured tokens with a cursor.

    Args:
        moved: called with the token that the cursor goes to by key or by mouse; what it changes is drawn in the same
            frame.
        labels: show each token's label (`·sky`) instead of its text.
        whole: show characters that several tokens share above their bytes, where there are rows left for it.
    """

    BINDINGS = bindings("token flow")

    cursor: reactive[int | None] = reactive(None)
    mode: reactive[str] = reactive("tokens")

    def __init__(
        self,
        *,
        moved: Callable[[int], object] = lambda index: None,
        labels: bool = False,
        whole: bool = False,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self._moved = moved
        self.labels = labels
        self._whole = whole
        self._above: set[int] = set()  # lines that hold whole characters, and no tokens
        self.tokens: list[Token] = []
        self.judged: Sequence[object] = ()  # what is known of each token, see `tui.style.colours`
        self.marked: int | None = None  # where something begins: underlined from there on
        self.messages: Sequence[int | None] = ()  # of a conversation: each token's message, none for the template's
        self._thoughts: Sequence[range] = ()  # what is written aside before an answer
        self._folds: Sequence[range] = ()  # of which one line stands for the rest
        self._lines: list[list[tuple[str, int]]] = [[]]  # (text, token index), wrapped
        self._used = 0
        self._first_line: list[int] = []  # of each token
        self._width = 0

    # What is shown.

    def clear(self) -> None:
        self.set_tokens(())

    def set_tokens(self, tokens: Sequence[Token]) -> None:
        """Show these tokens instead."""
        self.tokens = list(tokens)
        if self.cursor is not None and self.cursor >= len(self.tokens):
            self.cursor = len(self.tokens) - 1 if self.tokens else None
        self._rewrap()

    def extend(self, tokens: Sequence[Token]) -> None:
        """Add tokens at the end; only the lines they change are drawn again."""
        if not tokens:
            return
        follow = self.is_vertical_scroll_end
        first_changed = len(self._lines) - 1
        for token in tokens:
            self.tokens.append(token)
            self._place(len(self.tokens) - 1)
        self.refresh_lines(first_changed, len(self._lines) - first_changed)
        if self._grow() and follow:
            self.scroll_end(animate=False, immediate=True, x_axis=False)

    def token_at(self, index: int | None) -> Token | None:
        return self.tokens[index] if index is not None and 0 <= index < len(self.tokens) else None

    def think(self, thoughts: Sequence[range], folds: Sequence[range]) -> None:
        """Show some tokens as thinking, and of some only how many there are."""
        changed = [one.start for one in thoughts] != [one.start for one in self._thoughts]
        self._thoughts = thoughts
        if folds != self._folds:
            self._folds = folds
            self._rewrap()
        elif changed:
            self.refresh()

    def _fold_of(self, index: int) -> range | None:
        return next((fold for fold in self._folds if index in fold), None)

    # Wrapping.

    def _height(self) -> int:
        """Lines to scroll over: those of the text, with a few blank ones at the end of a full flow."""
        lines = len(self._lines)
        room = max(self.scrollable_content_region.height, self._most_lines() or 0)  # it may grow into
        return lines if lines <= room else -(-lines // SCROLL_LINES) * SCROLL_LINES

    def _most_lines(self) -> int | None:
        """How many lines the styles allow it, where they say so in lines."""
        most = self.styles.max_height
        return None if most is None else most.cells

    def _grow(self) -> bool:
        """Make room for the text's lines; whether there is more of it than before."""
        height = self._height()
        before = self.virtual_size.height
        if height == before:
            return False
        size = Size(self._width, height)
        shown = self.scrollable_content_region.height
        if (height > shown) == (before > shown):  # the scrollbar stays or stays away: nothing is laid out anew
            self.set_reactive(TokenFlow.virtual_size, size)
            self.vertical_scrollbar.window_virtual_size = height
        else:
            self.virtual_size = size
        return height > before

    def _wrap(self, room: int) -> None:
        self._width = room
        self._lines, self._used, self._first_line = [[]], 0, []
        for index in range(len(self.tokens)):
            self._place(index)
        self._above = set()
        if self._whole:
            self._put_above(shared_characters(self.tokens))

    def _rewrap(self) -> None:
        self._wrap(self._room())
        self.virtual_size = Size(self._width, self._height())
        self.refresh()

    def _room(self) -> int:
        """Columns for text; the scrollbar's are kept free before it shows, so that nothing wraps anew when it does."""
        bar = 0 if self.show_vertical_scrollbar else self.styles.scrollbar_size_vertical
        return max(1, self.scrollable_content_region.width - bar)

    def _place(self, index: int) -> None:
        token = self.tokens[index]
        shown = drawn(token.label) if self.labels or token.special else readable(token.text)
        if (fold := self._fold_of(index)) is not None:
            thought = counted("{count:,} token of thinking", "{count:,} tokens of thinking", len(fold))
            shown = f"▸ {thought} " if index == fold.start else ""
        self._first_line.append(-1)
        for part in re.split(r"(\n)", shown):
            if part == "\n":
                self._new_line([])
            elif part:
                for piece in JOINED_LETTERS.split(part):
                    self._place_part(piece, index)
        if self._first_line[index] < 0:  # nothing to see of it
            self._first_line[index] = len(self._lines) - 1

    def _place_part(self, part: str, index: int) -> None:
        while part:
            room = self._width - self._used
            if cell_len(part) <= room:
                self._put(part, index)
                return
            if self._used and (self.labels or part.startswith(" ")):
                self._new_line([])
                part = part if self.labels else part.lstrip(" ")
            elif self._used and (word := self._take_word()):
                self._new_line(word)
            elif self._used and room < get_character_cell_size(part[0]):
                self._new_line([])
            else:
                head = _head(part, room)
                self._put(part[:head], index)
                part = part[head:]

    def _put(self, part: str, index: int) -> None:
        self._lines[-1].append((part, index))
        self._used += cell_len(part)
        if self._first_line[index] < 0:
            self._first_line[index] = len(self._lines) - 1

    def _new_line(self, pieces: list[tuple[str, int]]) -> None:
        self._lines.append(pieces)
        self._used = sum(cell_len(text) for text, _ in pieces)

    def _take_word(self) -> list[tuple[str, int]]:
        """Take the unfinished word off the last line, or nothing if it is the whole line."""
        line = self._lines[-1]
        for start in range(len(line) - 1, 0, -1):
            if line[start][0].startswith(" "):
                word = line[start:]
                del line[start:]
                word[0] = (word[0][0].lstrip(" "), word[0][1])
                stayed = {index for _, index in line}
                for _, index in word:
                    if index not in stayed and self._first_line[index] == len(self._lines) - 1:
                        self._first_line[index] = len(self._lines)
                return word
        return []

    # Whole characters above their bytes.

    def _put_above(self, shared: Sequence[Shared]) -> None:
        """Put a line with whole characters above each line that has parts of them, where there is room for all."""
        above: dict[int, list[tuple[str, int]]] = {}
        for line, pieces in enumerate(self._lines):
            if found := self._over(pieces, shared):
                above[line] = found
        most = self._most_lines()
        if not above or (most is not None and len(self._lines) + len(above) > most):
            return
        lines: list[list[tuple[str, int]]] = []
        moved = []  # where each line goes
        for line, pieces in enumerate(self._lines):
            if line in above:
                self._above.add(len(lines))
                lines.append(above[line])
            moved.append(len(lines))
            lines.append(pieces)
        self._lines = lines
        self._first_line = [moved[line] for line in self._first_line]

    def _over(self, pieces: Sequence[tuple[str, int]], shared: Sequence[Shared]) -> list[tuple[str, int]]:
        """What stands above a line: each shared character over those of its bytes that the line has."""
        columns: dict[int, tuple[int, int]] = {}  # of each token in this line: from, to
        column = 0
        for text, index in pieces:
            columns[index] = (columns.get(index, (column, 0))[0], column + cell_len(text))
            column += cell_len(text)
        found: list[tuple[str, int]] = []
        written = 0
        for one in shared:
            there = [index for index in range(one.first, one.last + 1) if index in columns]
            if not there:
                continue
            start, end = columns[there[0]][0], columns[there[-1]][1]
            if there[0] == one.first:  # which may have other text before
                start = max(start, columns[one.first][1] - BYTE_CELLS * (self.tokens[one.first].end - one.start))
            if there[-1] == one.last:  # or behind
                end = min(end, columns[one.last][0] + BYTE_CELLS * (one.end - self.tokens[one.last].start))
            start = max(start, written)
            over = _bracket(drawn(one.character), end - start)
            found += [(" " * (start - written), there[0]), (over, there[-1])]
            written = start + cell_len(over)
        return found

    # Drawing.

    def render_line(self, y: int) -> Strip:
        row = y + self.scroll_offset.y
        width = self.scrollable_content_region.width
        base = self.rich_style
        if row >= len(self._lines):
            return Strip.blank(width, base)
        if row in self._above:
            segments = [Segment(text, base + Style(bold=True)) for text, _index in self._lines[row]]
        else:
            segments = [Segment(text, base + self.token_style(index)) for text, index in self._lines[row]]
        return Strip(segments).extend_cell_length(width, base).crop(0, width)

    def token_style(self, index: int) -> Style:
        """How token `index` is drawn."""
        colours = palette(self.app)
        colour, aside = self._ground(index, colours.tokens)
        if self.mode != "tokens":
            bin = surprise(self.judged[index], self.mode) if index < len(self.judged) else None
            colour = None if bin is None else colours.bins(self.mode)[bin]
        judged = self.judged[index] if index < len(self.judged) else None
        forced, draft = getattr(judged, "forced", False), getattr(judged, "draft", None)
        guessed = draft is not None and draft.outcome == "accepted"
        sole = getattr(judged, "by_grammar", False)
        pointed, marked = index == self.cursor, index == self.marked
        if (fold := self._fold_of(index)) is not None and self.cursor is not None:
            pointed = self.cursor in fold
        slanted = self.tokens[index].special or any(index in thought for thought in self._thoughts)
        return _style(colour, slanted, self.tokens[index].special, pointed, marked, forced, guessed, sole or aside)

    def _ground(self, index: int, colours: Sequence[str]) -> tuple[str | None, bool]:
        """The colour of a token's family, and whether it stands aside: what a template wrote, or thinking."""
        if index < len(self.messages):
            message = self.messages[index]
            # Two colours for each message, so that neighbours part in it and at its ends.
            return (None, True) if message is None else (colours[(2 * message + index % 2) % len(colours)], False)
        if any(index in thought for thought in self._thoughts):
            return (colours[-1] if index % 2 else None), False
        return colours[index % len(colours)], False

    def watch_mode(self) -> None:
        self.refresh()

    def mark(self, index: int | None) -> None:
        """Underline one token, or none."""
        for changed in {self.marked, index} - {None}:
            if changed is not None and changed < len(self._first_line):
                self.refresh_lines(self._first_line[changed], 3)
        self.marked = index

    def watch_cursor(self, before: int | None, now: int | None) -> None:
        for index in (before, now):
            if index is not None and index < len(self._first_line):
                self.refresh_lines(self._first_line[index], 3)
        if now is not None:
            self.reveal(now)

    def reveal(self, index: int) -> None:
        """Scroll to a token, where it is out of sight."""
        if index < len(self._first_line):
            row = self._first_line[index]
            top, height = self.scroll_offset.y, self.scrollable_content_region.height
            if not top <= row < top + height:
                self.scroll_to(y=max(0, row - height // 2), animate=False)

    def on_resize(self) -> None:
        if self._room() != self._width or self._whole:
            self._rewrap()

    # Moving the cursor.

    def action_move(self, by: int) -> None:
        if self.tokens:
            start = self.cursor if self.cursor is not None else (len(self.tokens) if by < 0 else -1)
            fold = self._fold_of(start)
            target = start + by if fold is None else fold.stop if by > 0 else fold.start - 1
            target = max(0, min(len(self.tokens) - 1, target))
            into = self._fold_of(target)
            self._go(target if into is None else into.start)

    def action_jump(self, index: int) -> None:
        if self.tokens:
            self._go(index % len(self.tokens))

    def action_move_line(self, by: int) -> None:
        if not self.tokens:
            return
        if self.cursor is None:
            self._go(0 if by > 0 else len(self.tokens) - 1)
            return
        column, line = self._column_of(self.cursor), self._line_of(self.cursor) + by
        while 0 <= line < len(self._lines):
            if self._lines[line] and line not in self._above:
                self._go(self._token_near(line, column))
                return
            line += by

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        line = offset.y + self.scroll_offset.y
        if line < len(self._lines) and self._lines[line]:
            self._go(self._token_near(line, offset.x))

    def _go(self, index: int) -> None:
        self.cursor = index
        self._moved(index)

    def _line_of(self, index: int) -> int:
        return self._first_line[index]

    def _column_of(self, index: int) -> int:
        column = 0
        for text, owner in self._lines[self._line_of(index)]:
            if owner == index:
                break
            column += cell_len(text)
        return column

    def _token_near(self, line: int, column: int) -> int:
        reached = 0
        for text, owner in self._lines[line]:
            reached += cell_len(text)
            if column < reached:
                return owner
        return self._lines[line][-1][1]


def _bracket(character: str, cells: int) -> str:
    """A character in the middle of a bracket of so many cells."""
    left = (cells - cell_len(character)) // 2
    right = cells - cell_len(character) - left
    return f"╭{'─' * (left - 1)}{character}{'─' * (right - 1)}╮" if left > 0 and right > 0 else character


@cache
def _style(
    colour: str | None,
    slanted: bool,
    special: bool,
    pointed: bool,
    marked: bool,
    forced: bool,
    guessed: bool = False,
    quiet: bool = False,
) -> Style:
    if pointed:
        return Style(reverse=True, bold=True)
    return Style(
        bgcolor=colour,
        dim=quiet or None,
        italic=slanted or forced or None,
        bold=special or forced or marked or None,
        underline=marked or guessed or None,
    )


def _head(text: str, room: int) -> int:
    """How many characters of `text` fit into `room` cells, at least one."""
    used = 0
    for count, char in enumerate(text):
        used += get_character_cell_size(char)
        if used > room:
            return max(1, count)
    return len(text)
