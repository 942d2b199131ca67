"""Characters that several tokens share, each of which has only some of the character's bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.text.token import Token


@dataclass(frozen=True, slots=True)
class Shared:
    """A character in the bytes of several tokens.

    Attributes:
        first, last: places of its tokens, both among them.
        start, end: its bytes in the text.
    """

    character: str
    first: int
    last: int
    start: int
    end: int


def shared_characters(tokens: Sequence[Token]) -> list[Shared]:
    """The characters of a text that no token has whole, in their order.

    A token's text begins with the character that it completes, so that character is shared where its bytes begin before
    the token does.
    """
    found = []
    begins = tokens[0].start if tokens else 0  # the byte at which the next character begins
    first = 0
    for place, token in enumerate(tokens):
        if not token.text:
            continue
        if begins < token.start:
            while tokens[first].end <= begins:
                first += 1
            character = token.text[0]
            found.append(Shared(character, first, place, begins, begins + len(character.encode())))
        begins += len(token.text.encode())
    return found
