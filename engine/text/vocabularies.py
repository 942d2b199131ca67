"""Whether two tokenizers mean the same by an id."""

from engine.base.language import _
from engine.base.plain import one_line
from engine.text.tokenizer import Tokenizer


def first_other_token(a: Tokenizer, b: Tokenizer) -> int | None:
    """The first id that stands for other bytes in one vocabulary than in the other; `None` where none does.

    An id that one of them has no token for is no difference: models pad their vocabularies.
    """
    for id in range(min(a.vocabulary_size, b.vocabulary_size)):
        ours, theirs = a.bytes_of(id), b.bytes_of(id)
        if ours != theirs and ours and theirs:
            return id
    return None


def first_missing_token(a: Tokenizer, b: Tokenizer) -> int | None:
    """The first token of one vocabulary that stands for other bytes in the other, or that it lacks; `None` where none.

    A special token that the other lacks is no difference while its network has a row for it.
    """
    rows = b.vocabulary_size if b.rows is None else b.rows
    for id in range(a.vocabulary_size):
        ours, theirs = a.bytes_of(id), b.bytes_of(id)
        if ours and ours != theirs and (theirs or id >= rows or not a.is_special(id)):
            return id
    return None


def why_apart(a: Tokenizer, b: Tokenizer) -> str:
    """In one sentence why two models' tokens cannot be compared one by one; empty where they can."""
    if a is b:
        return ""
    if a.remote or b.remote:
        return _("a server here does not tell its vocabulary: texts are compared, not tokens")
    other = first_other_token(a, b)
    if other is None:
        return ""
    return _(
        "the vocabularies differ, token {id:,} is “{a}” in one and “{b}” in the other: texts are compared, not tokens",
        id=other,
        a=one_line(a.label(other)),
        b=one_line(b.label(other)),
    )
