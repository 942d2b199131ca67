"""Chat templates of models that people use, against transformers' `apply_chat_template`.

`LOGITLAB_TOKENIZERS` is the folder that `tests/tokenizers.sh` fills: its `templates` are those of llama.cpp's source,
the folders beside it vocabularies, some with a template. Each template gets the vocabulary that knows most of its
control tokens, else the embedded model's with the template's own added to it.
"""

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from engine.models.folder_tokenizer import folder_tokenizer
from engine.text.template import literal_text
from engine.text.tokenizer import Tokenizer
from tests.engine.chat_oracle import Oracle, check_template

ROOT = Path(os.environ.get("LOGITLAB_TOKENIZERS", "/nowhere"))
VOCABULARIES = sorted(file.parent for file in ROOT.glob("*/tokenizer_config.json"))
TEMPLATES = sorted((ROOT / "templates").glob("*.jinja"))
MARKS = re.compile(r"<\|[^|<>\0]{1,40}\|>|<｜[^<>\0]{1,40}｜>|</?[a-z_]{2,30}>|\[/?[A-Z_]{2,40}\]|◁/?think▷")
pytestmark = pytest.mark.skipif(not TEMPLATES, reason="tests/tokenizers.sh fetches the templates")


@lru_cache(maxsize=1)  # some are large
def vocabulary(folder: Path) -> tuple[Tokenizer, Any]:
    """Our tokenizer of a folder, and transformers'."""
    import transformers

    return folder_tokenizer(folder), transformers.PreTrainedTokenizerFast.from_pretrained(folder)


@lru_cache(maxsize=1)
def control_tokens() -> dict[Path, set[str]]:
    """What each vocabulary has beside its words."""
    return {
        folder: set(
            re.findall(r'"content": "([^"]+)"', (folder / "tokenizer.json").read_text().partition('"model"')[0])
        )
        for folder in VOCABULARIES
    }


def knowing_most(marks: set[str]) -> Path | None:
    """The vocabulary that knows most of these marks, two at least."""
    known = {folder: len(names & marks) for folder, names in control_tokens().items()}
    best = max(known, key=lambda folder: known[folder], default=None)
    return best if best is not None and known[best] >= 2 else None


def with_marks(tokenizer: Tokenizer, marks: list[str]) -> tuple[Tokenizer, Any]:
    import tokenizers
    import transformers

    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.add_special_tokens([mark for mark in marks if "|" in mark or "｜" in mark or "[" in mark])
    backend.add_tokens(marks)
    named = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    return Tokenizer(backend, special_tokens=named), transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, **named
    )


@pytest.mark.parametrize("file", TEMPLATES, ids=[file.stem for file in TEMPLATES])
def test_ids_are_those_of_transformers(file: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all cases and options, with each message known by its tokens, and none of them searched for."""
    monkeypatch.setattr("engine.text.layout.searched", None)
    template = file.read_text()
    marks = list(dict.fromkeys(MARKS.findall(literal_text(template))))
    folder = knowing_most(set(marks))
    own, theirs = with_marks(tokenizer, marks) if folder is None else vocabulary(folder)
    monkeypatch.setattr(own, "chat_template", template)
    monkeypatch.setattr(own, "other_templates", {})
    check_template(own, Oracle(theirs, template))


@pytest.mark.parametrize("folder", VOCABULARIES, ids=[folder.name for folder in VOCABULARIES])
def test_a_vocabularys_own_template(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, theirs = vocabulary(folder)
    if own.chat_template is None:
        pytest.skip("it has none")
    check_template(own, Oracle(theirs, own.chat_template))
