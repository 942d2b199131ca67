"""Tokenizers that people use, against transformers, sentencepiece and mistral-common.

`LOGITLAB_TOKENIZERS` is the folder that `tests/tokenizers.sh` fills: a folder for each with what its package holds.
"""

import os
from pathlib import Path

import pytest

from engine.models.folder_tokenizer import folder_tokenizer
from engine.text.tokenizer import Tokenizer

ROOT = Path(os.environ.get("LOGITLAB_TOKENIZERS", "/nowhere"))
FOLDERS = sorted(folder for folder in ROOT.glob("*") if (folder / "tokenizer.json").is_file())
PIECES = sorted(ROOT.glob("*/tokenizer.model"))
TEKKEN = sorted(ROOT.glob("*/tekken.json"))
pytestmark = pytest.mark.skipif(not FOLDERS, reason="tests/tokenizers.sh fetches the tokenizers")

TEXTS = [
    "",
    " ",
    "Hello",
    " Hello",
    "The sky above the city looked calm, but",
    "a  b   c\t\td \n\n e\r\n",
    "    def f(x):\n        return x + 1\n",
    "12345 6.7e-8 1,000,000",
    "日本語のテキスト。全角　空白",
    "می‌خواهم بروم",
    "👩‍👩‍👧 🇯🇵 👍🏽 ✈️",
    "e\u0301 a\u0308 각 ﷺ ﬁ …",
    "naïve Straße Ελληνικά Русский हिन्दी ไทย",
    "<s>[INST] hi [/INST]</s> <|im_start|>user\n<bos><start_of_turn>model",
    "▁ literal ▁▁ marks",
    "\u00a0nbsp\u200b\ufeff",
    "Cửa Việt",
]


def ours(folder: Path) -> Tokenizer:
    return folder_tokenizer(folder)


@pytest.fixture(scope="module", params=FOLDERS, ids=[folder.name for folder in FOLDERS])
def pair(request: pytest.FixtureRequest) -> tuple[Tokenizer, object]:
    """Our tokenizer of a folder, and transformers' of its `tokenizer.json` as it is."""
    import transformers

    folder: Path = request.param
    return ours(folder), transformers.PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(pair: tuple[Tokenizer, object], text: str) -> None:
    tokenizer, theirs = pair
    assert tokenizer.encode_ids(text) == theirs(text)["input_ids"]  # type: ignore[operator]


@pytest.mark.parametrize("text", TEXTS)
def test_spans_tile_the_text(pair: tuple[Tokenizer, object], text: str) -> None:
    tokenizer, _theirs = pair
    tokens = tokenizer.encode(text)
    assert [token.start for token in tokens] == [0, *[token.end for token in tokens]][: len(tokens)]
    assert "".join(token.text for token in tokens) == text


@pytest.mark.parametrize("text", [text for text in TEXTS if "\u0301" not in text and "▁" not in text])
def test_a_continuation_spells_its_text_and_nothing_before_it(pair: tuple[Tokenizer, object], text: str) -> None:
    tokenizer, _theirs = pair
    assert b"".join(map(tokenizer.bytes_of, tokenizer.encode_continuation(text))) == text.encode()


@pytest.mark.parametrize("text", ["Hello", "  two\nlines ", "日本語 {{ 7 }}"])
def test_a_chat_is_that_of_transformers(pair: tuple[Tokenizer, object], text: str) -> None:
    tokenizer, theirs = pair
    if not tokenizer.chats:
        assert theirs.chat_template is None  # type: ignore[attr-defined]
        return
    expected = theirs.apply_chat_template(  # type: ignore[attr-defined]
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    assert [token.id for token in tokenizer.encode_chat(text)] == expected


@pytest.mark.parametrize("file", PIECES, ids=[file.parent.name for file in PIECES])
def test_ids_are_those_of_sentencepiece(file: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    theirs = sentencepiece.SentencePieceProcessor(str(file))
    tokenizer = ours(file.parent)
    control = [theirs.id_to_piece(id) for id in range(theirs.get_piece_size()) if theirs.is_control(id)]
    for text in TEXTS:
        if not any(name in text for name in control):  # which sentencepiece takes for text
            assert tokenizer.backend.encode(text, add_special_tokens=False).ids == theirs.encode(text), text


@pytest.mark.parametrize("file", TEKKEN, ids=[file.parent.name for file in TEKKEN])
def test_ids_are_those_of_mistral_common(file: Path) -> None:
    tekken = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    theirs = tekken.Tekkenizer.from_file(file)
    tokenizer = ours(file.parent)
    assert tokenizer.vocabulary_size == theirs.n_words
    for text in TEXTS:
        if "[INST]" not in text:  # which mistral-common takes for text
            assert tokenizer.encode_ids(text) == theirs.encode(text, bos=True, eos=False), text
