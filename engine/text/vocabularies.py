"""Whether two tokenizers mean the same by an id."""

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
