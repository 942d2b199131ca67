"""Texts that go on, and whose bytes a token is: vocabularies that put a space before a text, and those that compose."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import TextError
from engine.loading import load_model
from engine.remote.tokenizer import ServerTokenizer
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer
from tests.conftest import save_tiny
from tests.tokenizers import composed, pieces

PREFIXES = ("prepend", "first", "always")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with Llama 2's kind of tokenizer."""
    backend = pieces()
    folder = save_tiny(tmp_path_factory.mktemp("pieces"), "llama", vocab_size=backend.get_vocab_size())
    backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("prefix", [*PREFIXES, "never"])
@pytest.mark.parametrize("text", ["Yes", " is", "ly", " ", "  is", "日本", " the sky", "</s>", "\n"])
def test_a_continuation_has_no_space_that_was_not_typed(prefix: str, text: str) -> None:
    tokenizer = Tokenizer(pieces(prefix=prefix))
    ids = tokenizer.encode_continuation(text)
    assert b"".join(map(tokenizer.bytes_of, ids)) == text.encode()


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_continuation_has_the_ids_that_follow_in_the_whole_text(prefix: str) -> None:
    tokenizer = Tokenizer(pieces(prefix=prefix))
    before = tokenizer.encode_ids("Answer:")
    for text in ("Yes", " is", " the sky", "ly"):
        assert tokenizer.encode_ids(f"Answer:{text}") == [*before, *tokenizer.encode_continuation(text)]
    assert len(tokenizer.encode_continuation(" is")) == 1


def test_byte_level_vocabularies_with_a_space_before_a_text_too() -> None:
    from tokenizers import pre_tokenizers

    backend = composed()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    tokenizer = Tokenizer(backend)
    assert len(tokenizer.encode_ids("ly")) == 3
    assert b"".join(map(tokenizer.bytes_of, tokenizer.encode_continuation("ly"))) == b"ly"


@pytest.mark.parametrize("marks", ["spaces", "start", "metaspace"])
def test_unigrams_that_strip_a_text_too(marks: str) -> None:
    from tokenizers import Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    words = ["▁", "▁Answer", "Answer", ":", "▁Yes", "Yes", "▁is", "is", "ly", "a", "1", "."]
    backend = Backend(models.Unigram([("<unk>", -20.0), *((word, -float(len(words))) for word in words)], 0))
    strip = [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if marks == "metaspace":
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), *strip])
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    else:
        start = normalizers.Prepend("▁") if marks == "spaces" else normalizers.Replace(Regex(r"\A(?=[^ ])"), "▁")
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), *strip, start, normalizers.Replace(" ", "▁")])
    backend.decoder = decoders_of_spaces()
    tokenizer = Tokenizer(backend)
    before = tokenizer.encode_ids("Answer:")
    with pytest.raises(TextError, match="no token"):  # it would be as probable as nothing: 100 %
        tokenizer.encode_continuation("   ")
    for text, pieces_of_it in (("Yes", ["Yes"]), (" is", ["▁is"]), ("ly", ["ly"]), (" Yes is", ["▁Yes", "▁is"])):
        ids = tokenizer.encode_continuation(text)
        assert [backend.id_to_token(id) for id in ids] == pieces_of_it
        assert tokenizer.encode_ids(f"Answer:{text}") == [*before, *ids]


def decoders_of_spaces() -> Any:
    from tokenizers import decoders

    return decoders.Metaspace(prepend_scheme="always")


def test_added_tokens_keep_their_ids_in_a_continuation() -> None:
    backend = pieces()
    highest = backend.get_vocab_size()
    backend.add_special_tokens(["<|end|>"])
    assert Tokenizer(backend).encode_continuation("Yes<|end|>")[-1] == highest


def test_the_command_line_takes_texts_as_they_follow(run_cli, folder: Path) -> None:
    common = ("--model", str(folder), "--precision", "float32")
    process = run_cli("next", "Answer:", "--token", "Yes", "--token", " is", "--json", *common)
    yes, its = json.loads(process.stdout)["tokens"]
    assert ([one["token"] for one in yes["tokens"]], [one["token"] for one in its["tokens"]]) == (["Yes"], ["·is"])
    banned = run_cli("next", "Answer:", "--ban", " is", "--logit-bias", "ly=3", *common)
    assert (banned.returncode, banned.stderr) == (0, "")


def test_the_space_before_a_text_spans_nothing() -> None:
    tokenizer = Tokenizer(pieces())
    tokens = tokenizer.encode("日本語")
    assert [(token.label, token.text, token.start, token.end) for token in tokens] == [
        ("<s>", "", 0, 0),
        ("·", "", 0, 0),
        ("日", "日", 0, 3),
        ("本", "本", 3, 6),
        ("⟨E8⟩", "", 6, 7),
        ("⟨AA⟩", "", 7, 8),
        ("⟨9E⟩", "語", 8, 9),
    ]
    assert [(token.text, token.start, token.end) for token in tokenizer.encode("Yes is")[1:]] == [
        ("Yes", 0, 3),
        (" is", 3, 6),
    ]
    # One space is typed and one is put before it; after a special token comes another.
    tokens = tokenizer.encode(" is</s> is</s>No")
    assert [(token.text, token.start, token.end) for token in tokens[1:]] == [
        ("", 0, 0),
        (" is", 0, 3),
        ("</s>", 3, 7),
        ("", 7, 7),
        (" is", 7, 10),
        ("</s>", 10, 14),
        ("No", 14, 16),
    ]


def test_combining_marks_that_are_composed_belong_to_the_token_before() -> None:
    tokenizer = Tokenizer(composed())
    text = "xe\u0301y \u1112\u1161\u11ab."
    spans = [(token.text, token.end) for token in tokenizer.encode(text) if token.text]
    assert spans == [("x", 1), ("e\u0301", 4), ("y", 5), (" ", 6), ("\u1112\u1161\u11ab", 15), (".", 16)]
    assert [token.label for token in tokenizer.encode("e\u0301")][-1] == "e\u0301"


def test_what_changes_only_in_part_is_exact_elsewhere() -> None:
    tokenizer = Tokenizer(composed())
    tokens = tokenizer.encode("日e\u0301")
    assert [(token.start, token.end) for token in tokens[:3]] == [(0, 1), (1, 2), (2, 3)]


def test_white_space_that_was_dropped_belongs_to_what_follows() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers

    backend = Backend(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = Tokenizer(backend).encode(" a  b ")
    assert [(token.text, token.start, token.end) for token in tokens] == [(" a", 0, 2), ("  b ", 2, 6)]


def test_runs_of_spaces_that_are_added_tokens_are_spaces() -> None:
    tokenizer = Tokenizer(pieces(prefix="never", spaces=3))
    (id,) = tokenizer.encode_continuation("   ")
    assert tokenizer.backend.get_added_tokens_decoder()[id].content == "▁▁▁"
    assert (tokenizer.bytes_of(id), tokenizer.label(id), tokenizer.stream().append(id).text) == (b"   ", "···", "   ")
    assert tokenizer.backend.decode([id]) == "   "


def test_more_ids_than_rows_load_and_only_a_text_with_such_an_id_is_refused(run_cli, tmp_path: Path) -> None:
    backend = pieces()
    rows = backend.get_vocab_size()
    save_tiny(tmp_path, "llama", vocab_size=rows)
    backend.add_special_tokens(["<image_soft_token>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    model = load_model(str(tmp_path), precision="float32")
    assert len(model.tokenizer.encode("Yes")) == 2
    refusal = f"“<image_soft_token>”, token {rows}, and this model knows none from {rows} on"
    for encode in (model.tokenizer.encode, model.tokenizer.encode_ids, model.tokenizer.encode_continuation):
        with pytest.raises(TextError, match=refusal):
            encode("Yes<image_soft_token>")
    assert model.tokenizer.find("image_soft") == model.tokenizer.find(str(rows)) == []
    process = run_cli("generate", "Yes", "--max-new-tokens", "2", "--model", str(tmp_path))
    assert process.returncode == 0, process.stderr
    process = run_cli("generate", "a <image_soft_token>", "--model", str(tmp_path))
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)


class Asked(ServerTokenizer):
    """A server's tokenizer without the server: what it would answer is what a tokenizer here says."""

    def __init__(self, here: Tokenizer) -> None:
        self._here = here

    def encode(self, text: str, *, template: bool = True) -> list[Token]:
        return self._here.encode(text, template=template)

    def bytes_of(self, id: int) -> bytes:
        return self._here.bytes_of(id)


@pytest.mark.parametrize("backend", [pieces(), pieces(prefix="first"), pieces(prefix="never"), composed()])
@pytest.mark.parametrize("text", ["Yes", " is", "ly", " ", "日本", "\n", "", "a", "the sky"])
def test_a_servers_tokenizer_is_asked_for_a_text_that_follows(backend: Any, text: str) -> None:
    here = Tokenizer(backend)
    assert Asked(here).encode_continuation(text) == here.encode_continuation(text)
