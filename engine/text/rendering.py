"""A conversation as a template has put it: its text in pieces, its tokens, and where each comes from."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.base.language import _
from engine.text.token import Token


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a rendered text.

    Attributes:
        message: the message it comes from; `None` for what the template wrote.
        letters: names a control token, but is to be cut as any text.
        breaks: what follows is cut for itself.
    """

    text: str
    message: int | None = None
    letters: bool = False
    breaks: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A rendered text before it is cut into tokens.

    Attributes:
        remarks: what a person should know of it, a sentence each.
        opened: the mark that begins thinking, where the text ends behind it.
    """

    pieces: tuple[Piece, ...]
    remarks: tuple[str, ...] = ()
    opened: str | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def parts(self) -> Iterator[tuple[str, bool]]:
        """What is cut into tokens together, and whether as letters."""
        together: list[str] = []
        for piece in self.pieces:
            if (piece.letters or piece.breaks) and together:
                yield "".join(together), False
                together = []
            if piece.letters:
                yield piece.text, True
            elif piece.text:
                together.append(piece.text)
        if together:
            yield "".join(together), False


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as a model gets it.

    Attributes:
        text: what the template wrote.
        tokens: of it.
        messages: for each token the message it comes from, by its place; `None` where the template wrote it.
        remarks: what a person should know of it, a sentence each.
        opened: the mark that begins thinking, where the text ends behind it.
    """

    text: str
    tokens: tuple[Token, ...]
    messages: tuple[int | None, ...]
    remarks: tuple[str, ...] = ()
    opened: str | None = None

    def of_message(self, index: int) -> range | None:
        """The tokens from the first to the last of a message; `None` where it has none."""
        places = [place for place, message in enumerate(self.messages) if message == index]
        return range(places[0], places[-1] + 1) if places else None

    def not_fitting(self, context_length: int, new: int = 0) -> str:
        """In one sentence which message goes over a context; empty where all fit, with so many new tokens."""
        if not context_length or len(self.tokens) + new <= context_length:
            return ""
        over = next((one for one in self.messages[context_length:] if one is not None), None)
        held = len(self.tokens)
        if over is None:
            return _(
                "{held:,} tokens and {new:,} new ones exceed the model's context of {context:,}: leave out messages",
                held=held,
                new=new,
                context=context_length,
            )
        return _(
            "message {number} goes over the model's context: {held:,} tokens of {context:,}; leave out messages",
            number=over + 1,
            held=held,
            context=context_length,
        )


def twice_begun(tokens: Sequence[Token], begin: str | None) -> str:
    """In one sentence, where a text begins with two of the tokens that begin one; else empty.

    Args:
        begin: what the token spells; `None` where the model has none.
    """
    if begin is None or [token.piece for token in tokens[:2]] != [begin, begin]:
        return ""
    return _("the text begins with {token} twice: one of them is typed, or the template's", token=begin)


def rendered(layout: Layout, tokens: Sequence[Token], remark: str = "") -> Rendered:
    """A layout with its tokens; one that has a part of a message comes from it."""
    spans: list[tuple[int, int | None]] = []  # where parts end, in bytes
    end = 0
    for piece in layout.pieces:
        end += len(piece.text.encode())
        spans.append((end, piece.message))
    ends = [end for end, _message in spans]
    messages = []
    for token in tokens:
        first = bisect_right(ends, token.start)
        last = bisect_left(ends, max(token.end, token.start + 1))
        own = (spans[place][1] for place in range(first, min(last, len(spans) - 1) + 1))
        messages.append(next((one for one in own if one is not None), None) if token.end > token.start else None)
    remarks = (*((remark,) if remark else ()), *layout.remarks)
    return Rendered(layout.text, tuple(tokens), tuple(messages), remarks, layout.opened)
