"""Texts that go on: SentencePiece's tokenizers put a space before every text, and with it before what follows."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

ANCHORS = ("\n", "a", ".", "1")  # what a text is put after; one of them will not be one token with its beginning


def behind_an_anchor(
    text: str, cut: Callable[[str], list[int]], bytes_of: Callable[[int], bytes]
) -> Sequence[int] | None:
    """The ids that `text` has behind another, the first of the anchors that shows them; `None` where none does.

    Args:
        cut: gives the ids of a text with nothing put around it.
        bytes_of: what an id spells.
    """
    for anchor in ANCHORS:
        before = cut(anchor)
        ids = cut(anchor + text)
        if ids[: len(before)] == before and spells(following := ids[len(before) :], text, bytes_of):
            return following
    return None


def spells(ids: Sequence[int], text: str, bytes_of: Callable[[int], bytes]) -> bool:
    return b"".join(map(bytes_of, ids)) == text.encode()


def without_prefix_space(backend: "Backend") -> "Backend":
    """The same tokenizer, over the same vocabulary, without what it puts before a text; itself where that is nothing.

    Ids of added tokens may differ, their texts do not.
    """
    import tokenizers

    normalizer, prepends = _normalizer(backend.normalizer)
    pre_tokenizer, spaces = _pre_tokenizer(backend.pre_tokenizer)
    if not (prepends or spaces):
        return backend
    following = tokenizers.Tokenizer(backend.model)
    if normalizer is not None:
        following.normalizer = normalizer
    if pre_tokenizer is not None:
        following.pre_tokenizer = pre_tokenizer
    following.add_tokens([token for _id, token in sorted(backend.get_added_tokens_decoder().items())])
    return following


def _normalizer(normalizer: "Normalizer | None") -> "tuple[Normalizer | None, bool]":
    """It without what prepends, and whether something does."""
    from tokenizers import normalizers

    if isinstance(normalizer, normalizers.Prepend):
        return None, True
    if not isinstance(normalizer, normalizers.Sequence):
        return normalizer, False
    parts = [_normalizer(normalizer[index]) for index in range(len(normalizer))]
    if not any(changed for _part, changed in parts):
        return normalizer, False
    return normalizers.Sequence([part for part, _changed in parts if part is not None]), True


def _pre_tokenizer(pre_tokenizer: "PreTokenizer | None") -> "tuple[Any, bool]":
    """It without the space before a text, and whether it puts one there."""
    from tokenizers import pre_tokenizers

    match pre_tokenizer:
        case pre_tokenizers.Metaspace() if pre_tokenizer.prepend_scheme != "never":
            return pre_tokenizers.Metaspace(pre_tokenizer.replacement, "never", pre_tokenizer.split), True
        case pre_tokenizers.ByteLevel() if pre_tokenizer.add_prefix_space:
            return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre_tokenizer.use_regex), True
        case pre_tokenizers.Sequence():
            count = len(json.loads(pre_tokenizer.__getstate__())["pretokenizers"])  # it has no length
            parts = [_pre_tokenizer(pre_tokenizer[index]) for index in range(count)]
            if any(changed for _part, changed in parts):
                return pre_tokenizers.Sequence([part for part, _changed in parts]), True
    return pre_tokenizer, False
