"""Conversations in the ways of many families, against transformers' `apply_chat_template`."""

import re
from typing import Any

import pytest

from engine.text.template import literal_text
from engine.text.tokenizer import Tokenizer
from tests.engine.chat_oracle import Oracle, check_template
from tests.engine.family_templates import FAMILIES

SPECIALS = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
MARKS = re.compile(r"<\|[^|<>\0]{1,40}\|>|<｜[^<>\0]{1,40}｜>|</?[a-z_]{2,30}>|\[/?[A-Z_]{2,40}\]|◁/?think▷")


@pytest.fixture(scope="module")
def both(tokenizer: Tokenizer) -> tuple[Tokenizer, Any]:
    """The embedded model's vocabulary with the families' marks, as our tokenizer and as transformers'."""
    import tokenizers
    import transformers

    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    marks = dict.fromkeys(mark for text in FAMILIES.values() for mark in MARKS.findall(literal_text(text)))
    backend.add_special_tokens([mark for mark in marks if "|" in mark or "｜" in mark or "[" in mark])
    backend.add_tokens(list(marks))  # those that are left are added as they are in many vocabularies, not as special
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIALS)
    return Tokenizer(backend, special_tokens=SPECIALS), theirs


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_those_of_transformers(name: str, both: tuple[Tokenizer, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In all cases and options, with each message known by its tokens, and none of them searched for."""
    monkeypatch.setattr("engine.text.layout.searched", None)
    tokenizer, theirs = both
    monkeypatch.setattr(tokenizer, "chat_template", FAMILIES[name])
    check_template(tokenizer, Oracle(theirs, FAMILIES[name]))
