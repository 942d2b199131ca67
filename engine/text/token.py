"""A token, and how it is shown."""

import unicodedata
from dataclasses import dataclass

from engine.base.errors import TextError
from engine.base.language import _
from engine.base.plain import OBEYED, cells


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text.

    Attributes:
        position: from 0, counted from the first token of the prompt.
        id: the vocabulary entry.
        piece: what the entry spells; for special tokens their name.
        text: what it adds to the readable text. A character that is split over several
            tokens belongs to the one that completes it, so texts concatenate to the whole;
            empty for special tokens that the tokenizer or the model added.
        start, end: span in the UTF-8 bytes of the text.
        label: what to show of it on a screen, see `visible`.
        special: a control token such as end-of-text.
    """

    position: int
    id: int
    piece: str
    text: str
    start: int
    end: int
    label: str
    special: bool = False


WHITESPACE = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}


# Spaces and joiners that look like nothing, as a screen draws them: as Japanese editors draw the wide space, ISO 9995-7
# the one that does not break, and a tie and a broken bar for what joins letters and what parts them.
FORMS = {"\u3000": "□", "\u00a0": "⍽", "\u200d": "⁀", "\u200c": "¦"}
_FORMS = str.maketrans(FORMS)


def drawn(label: str) -> str:
    """A label as a screen draws it: what looks like nothing has a form.

    >>> drawn("a\u3000b"), drawn("◌\u200d")
    ('a□b', '⁀')
    """
    if label.isascii() or not any(char in label for char in FORMS):
        return label
    return (label[1:] if label[0] == "◌" and label[1] in FORMS else label).translate(_FORMS)


def visible(data: bytes) -> str:
    """Bytes of a token as printable text: whitespace as `·⏎⇥`, incomplete or control bytes as `⟨E7⟩`.

    >>> visible(" sky\\n".encode()), visible(b"\\xe7")
    ('·sky⏎', '⟨E7⟩')
    """
    text = data.decode("utf-8", errors="surrogateescape")
    shown = "".join(WHITESPACE.get(char) or printable(char) for char in text)
    return f"◌{shown}" if text and _takes_no_room(text[0], shown) else shown


def _takes_no_room(first: str, shown: str) -> bool:
    """Whether a token would be lost, or change the one before: a combining mark, or nothing but joiners."""
    if first.isascii():
        return False
    category = unicodedata.category(first)
    return bool(unicodedata.combining(first)) or category in ("Mn", "Me") or (category == "Cf" and not cells(shown))


def printable(char: str) -> str:
    """A character, or its bytes as `⟨1B⟩` where it is a part of one or would steer the terminal."""
    if not OBEYED.match(char):
        return char
    return "".join(f"⟨{byte:02X}⟩" for byte in char.encode("utf-8", errors="surrogateescape"))


def utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            _(
                "the text holds a lone surrogate (U+{code:04X}) at character {start}, which is no valid Unicode; "
                "remove it",
                code=ord(text[error.start]),
                start=error.start + 1,
            )
        ) from error
