"""Columns stay straight in every terminal.

How wide a family of emoji is, a flag or a heart with a variation selector, terminals do not agree on: some draw its
parts one beside the other, and all that follows in the line would move. So the place where a line goes on after such a
character is written beside it.
"""

import re
from collections.abc import Iterator

from rich.cells import cell_len, split_graphemes

# Characters that join others: a joiner, variation selectors, skin tones, halves of flags.
_JOINS = re.compile("[\u200d\ufe0e\ufe0f\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff]")
# Rich gives what follows a joiner no room, which is right for emoji and wrong for letters.
JOINED_LETTERS = re.compile("(?<=\u200d)(?=[\u0600-\u1fff\ua800-\uabff])")
_HALF_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]")
_PARTS = re.compile(r"\x1b\[(?P<row>\d+);(?P<column>\d+)H|\x1b\[[0-9;:?<>=]*[@-~]|\x1b\].*?(?:\x1b\\|\x07)|\x1b.|\x1b")


def straight(drawn: str) -> str:
    """What is drawn, with the column after each joined character; it is at most as wide as the room it was given.

    >>> straight("\\x1b[1;1Ha👩\u200d👧b") == "\\x1b[1;1Ha\\x1b[2G  \\x1b[2G👩\u200d👧\\x1b[4Gb"
    True
    """
    if not _JOINS.search(drawn):
        return drawn
    written: list[str] = []
    column: int | None = None  # from 0, where it is known
    at = 0
    for part in _PARTS.finditer(drawn):
        text, column = _placed(drawn[at : part.start()], column)
        written += (text, part.group())
        at = part.end()
        if part["column"]:
            column = int(part["column"]) - 1
    written.append(_placed(drawn[at:], column)[0])
    return "".join(written)


def _placed(text: str, column: int | None) -> tuple[str, int | None]:
    """A text without escape sequences that begins at a column, and where it ends."""
    if not text or column is None:
        return text, column
    if any(char in text for char in "\r\n\b\t"):
        return text, None
    if not _JOINS.search(text):
        return text, column + cell_len(text)
    written = []
    for grapheme, cells in _graphemes(text):
        if _JOINS.search(grapheme) and not JOINED_LETTERS.search(grapheme):  # letters are not written over
            here = f"\x1b[{column + 1}G"
            written.append(f"{here}{' ' * cells}{here}{grapheme}\x1b[{column + cells + 1}G")
        else:
            written.append(grapheme)
        column += cells
    return "".join(written), column


def _graphemes(text: str) -> Iterator[tuple[str, int]]:
    """What is drawn as one, and its columns; two halves of a flag are."""
    half: tuple[str, int] | None = None
    for start, end, cells in split_graphemes(text)[0]:
        grapheme = text[start:end]
        if _HALF_FLAG.match(grapheme) and half is None:
            half = (grapheme, cells)
        elif half is not None and _HALF_FLAG.match(grapheme):
            yield half[0] + grapheme, half[1] + cells
            half = None
        else:
            if half is not None:
                yield half
                half = None
            yield grapheme, cells
    if half is not None:
        yield half
