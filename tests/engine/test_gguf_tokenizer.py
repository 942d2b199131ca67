"""Tokenizers built from a GGUF file's own fields: each rule of llama.cpp's on a vocabulary made for it.

Whole vocabularies are compared with llama.cpp's own texts and ids in `test_gguf_vocabularies.py`.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from engine.base.errors import LogitlabError, ModelFileError
from engine.models.gguf_tokenizer import GgufTokenizer, gguf_tokenizer
from engine.models.gguf_vocabulary import Kind
from engine.models.pre_tokenizers import PRE_TOKENIZERS
from engine.text.spelling import byte_alphabet

ALPHABET = sorted(byte_alphabet(), key=byte_alphabet().__getitem__)  # by byte, so that ids are bytes
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
Maker = Callable[..., GgufTokenizer]


def write_vocabulary(
    path: Path,
    model: str,
    tokens: Sequence[str],
    *,
    kinds: Mapping[str, Kind] | None = None,
    scores: Mapping[str, float] | None = None,
    merges: Sequence[str] = (),
    **fields: object,
) -> Path:
    """A GGUF file with nothing but a vocabulary; `fields` are those of `tokenizer.ggml`."""
    import gguf

    writer = gguf.GGUFWriter(path, "an-architecture-of-tomorrow")
    writer.add_tokenizer_model(model)
    writer.add_token_list(list(tokens))
    byte = dict.fromkeys(BYTES, Kind.BYTE) if model != "gpt2" else {}
    writer.add_token_types([(byte | dict(kinds or {})).get(text, Kind.NORMAL) for text in tokens])
    if scores is not None:
        writer.add_token_scores([scores.get(text, 0.0) for text in tokens])
    if model in ("gpt2", "gemma4"):
        writer.add_token_merges(list(merges))
    for name, value in fields.items():
        key = f"tokenizer.ggml.{name}" if name != "chat_template" else "tokenizer.chat_template"
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_string(key, str(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.fixture
def made(tmp_path: Path) -> Maker:
    """Writes a vocabulary and reads its tokenizer."""

    def make(model: str, tokens: Sequence[str], **options: object) -> GgufTokenizer:
        return gguf_tokenizer(write_vocabulary(tmp_path / "made.gguf", model, tokens, **options))  # type: ignore[arg-type]

    return make


def pieces(made: Maker, *more: str, scores: Mapping[str, float] | None = None, **options: object) -> GgufTokenizer:
    """A vocabulary of SentencePiece's kind: `<unk>`, `<s>`, `</s>`, bytes, then `more`, each worse than the last."""
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *more]
    worth = {text: -float(rank) for rank, text in enumerate(more)}
    kinds = {"<unk>": Kind.UNKNOWN, "<s>": Kind.CONTROL, "</s>": Kind.CONTROL}
    kinds |= options.pop("kinds", {})  # type: ignore[arg-type]
    return made("llama", tokens, kinds=kinds, scores=worth if scores is None else scores, **options)


def ids_without_ends(tokenizer: GgufTokenizer, text: str) -> list[int]:
    return [token.id for token in tokenizer.encode(text, template=False)]


def texts(tokenizer: GgufTokenizer, text: str, *, template: bool = True) -> list[str]:
    return [tokenizer.piece(token.id) for token in tokenizer.encode(text, template=template)]


def test_a_word_that_is_an_entry_is_that_entry_whatever_the_merges_say(made: Maker) -> None:
    tokens, merges = [*ALPHABET, "ab", "abc"], ["a b"]
    whole = made("gpt2", tokens, merges=merges, pre="llama-bpe", add_bos_token=False)
    assert whole.encode_ids("abc") == [257]
    assert made("gpt2", tokens, merges=merges, pre="qwen2").encode_ids("abc") == [256, ord("c")]


@pytest.mark.parametrize(
    ("pre", "fields", "begins"),
    [
        *((pre, {}, True) for pre in ("llama-bpe", "llama3", "tekken", "falcon3", "pixtral", "lfm2", "chameleon")),
        *((pre, {}, False) for pre in ("qwen2", "gpt-2", "deepseek-v3", "gpt-4o", "glm4", "smollm", "default")),
        ("llama-bpe", {"add_bos_token": False}, False),
        ("qwen2", {"add_bos_token": True}, True),
        ("gemma4", {"add_bos_token": False}, True),
    ],
)
def test_a_text_begins_as_llama_cpp_has_it_where_the_file_does_not_say(
    made: Maker, pre: str, fields: dict[str, bool], begins: bool
) -> None:
    tokens = [*ALPHABET, "<bos>"]
    tokenizer = made("gpt2", tokens, pre=pre, kinds={"<bos>": Kind.CONTROL}, bos_token_id=256, **fields)
    assert tokenizer.encode_ids("a") == ([256] if begins else []) + [ord("a")]
    assert ids_without_ends(tokenizer, "a") == [ord("a")]


def test_texts_of_pieces_begin_and_texts_of_unigrams_end(made: Maker) -> None:
    assert pieces(made, "▁", "a").encode_ids("a")[0] == 1
    assert pieces(made, "▁", "a", add_bos_token=False, add_eos_token=True).encode_ids("a")[-1] == 2
    unigram = made("t5", ["<pad>", "</s>", "<unk>", "a"], kinds={"<unk>": Kind.UNKNOWN}, scores={"a": -1.0})
    assert unigram.encode_ids("a") == [3, 1]


def test_an_id_that_only_falcon_had_begins_no_text(made: Maker) -> None:
    tokenizer = made("gpt2", ALPHABET, pre="llama-bpe")
    assert tokenizer.encode_ids("a") == [ord("a")]
    assert not tokenizer.eos_ids


@pytest.mark.parametrize(
    ("prefix", "text", "wanted"),
    [
        (True, "a", [" a"]),
        (True, " a", [" ", " a"]),
        (True, "", []),
        (True, "a<s>a", [" a", "<s>", " a"]),
        (True, "a\na", [" a", "\n", "a"]),
        (False, "a", ["a"]),
        (False, " a", [" a"]),
        (False, "a<s> a", ["a", "<s>", " a"]),
    ],
)
def test_spaces_before_texts_of_pieces(made: Maker, prefix: bool, text: str, wanted: list[str]) -> None:
    tokenizer = pieces(made, "▁a", "▁", "a", add_space_prefix=prefix)
    assert texts(tokenizer, text, template=False) == wanted


def test_the_pair_of_the_highest_score_is_joined_first(made: Maker) -> None:
    letters = ("a", "b", "c")
    assert texts(pieces(made, "ab", "bc", *letters, add_space_prefix=False), "abc", template=False) == ["ab", "c"]
    assert texts(pieces(made, "bc", "ab", *letters, add_space_prefix=False), "abc", template=False) == ["a", "bc"]


def test_characters_that_are_no_entry_become_bytes(made: Maker) -> None:
    tokenizer = pieces(made, "▁", "a", add_space_prefix=False)
    assert ids_without_ends(tokenizer, "a日") == [260, 3 + 0xE6, 3 + 0x97, 3 + 0xA5]
    tokens = tokenizer.encode("日a", template=False)
    assert [token.text for token in tokens] == ["", "", "日", "a"]
    assert tokenizer.bytes_of(3 + 0xE6) == b"\xe6"


def test_a_byte_that_the_vocabulary_lacks_stands_between_its_neighbours(made: Maker) -> None:
    tokens = [letter for letter in ALPHABET if byte_alphabet()[letter] != 0x16] + ["ab"]
    tokenizer = made("gpt2", tokens, merges=["a b"], pre="gpt-2")
    assert texts(tokenizer, "ab") == ["ab"]
    assert texts(tokenizer, "a\x16b") == ["a", "b"]


def test_user_defined_tokens_are_found_before_a_text_is_cut(made: Maker) -> None:
    tokens, kinds = [*ALPHABET, "  ", "a b"], {"  ": Kind.USER_DEFINED, "a b": Kind.USER_DEFINED}
    tokenizer = made("gpt2", tokens, kinds=kinds, pre="gpt-2")
    assert tokenizer.encode_ids("xa b   y") == [ord("x"), 257, 256, ord(" "), ord("y")]
    assert not tokenizer.is_special(257)
    assert tokenizer.bytes_of(257) == b"a b"


def test_control_and_unknown_tokens_are_special_in_a_text(made: Maker) -> None:
    tokenizer = pieces(made, "<|x|>", "a", kinds={"<|x|>": Kind.CONTROL}, add_space_prefix=False)
    tokens = tokenizer.encode("a<|x|><unk>", template=False)
    assert [(token.id, token.special) for token in tokens] == [(260, False), (259, True), (0, True)]


@pytest.mark.parametrize(("name", "stripped"), [("Phi-3 mini", True), ("Phi 3", False)])
def test_phi_3_takes_the_spaces_after_a_special_token(tmp_path: Path, name: str, stripped: bool) -> None:
    import gguf

    path = write_vocabulary(tmp_path / "made.gguf", "gpt2", [*ALPHABET, "<|user|>"], kinds={"<|user|>": Kind.CONTROL})
    fields = {"general.name": name, "tokenizer.ggml.pre": "gpt-2"}
    reader, writer = gguf.GGUFReader(path), gguf.GGUFWriter(tmp_path / "named.gguf", "phi3")
    for key in ("model", "tokens", "token_type"):
        field = reader.fields[f"tokenizer.ggml.{key}"]
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=field.types[-1])
    for key, value in fields.items():
        writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    ids = gguf_tokenizer(tmp_path / "named.gguf").encode_ids("<|user|> \na")
    assert ids == [256, *([] if stripped else [32, 10]), ord("a")]


def test_nothing_is_appended_and_nothing_respelled(made: Maker) -> None:
    tokens = [*ALPHABET, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ""]
    kinds = dict.fromkeys(tokens[256:258], Kind.CONTROL)
    tokenizer = made("gpt2", tokens, kinds=kinds, pre="deepseek-llm", bos_token_id=256, eos_token_id=257)
    assert (tokenizer.vocabulary_size, tokenizer.highest_id) == (259, 258)
    assert [tokenizer.piece(id) for id in range(256, 259)] == [*tokens[256:258], "[EMPTY_258]"]
    assert tokenizer.special_tokens == {"bos_token": tokens[256], "eos_token": tokens[257]}
    assert tokenizer.bytes_of(259) == tokenizer.bytes_of(-1) == b""
    assert texts(tokenizer, "<｜begin▁of▁sentence｜>é") == [tokens[256], "�", "�"]


@pytest.mark.parametrize("model", ["gpt2", "llama", "t5"])
def test_of_equal_tokens_the_last_is_found_and_both_are_spelled(made: Maker, model: str) -> None:
    tokens = ["<unk>", "<s>", "</s>", *(ALPHABET if model == "gpt2" else BYTES), "é" if model != "gpt2" else "Ã©"]
    tokenizer = made(model, [*tokens, tokens[-1]], merges=["Ã ©"], pre="gpt-2", scores={"é": -1.0})
    assert tokenizer.vocabulary_size == len(tokens) + 1
    assert len(tokens) in tokenizer.encode_ids("é")
    assert len(tokens) - 1 not in tokenizer.encode_ids("é")
    assert tokenizer.bytes_of(len(tokens)) == tokenizer.bytes_of(len(tokens) - 1) == "é".encode()


@pytest.mark.parametrize(
    ("texts", "fields", "ends"),
    [
        (["<|im_end|>", "<|endoftext|>"], {}, {256, 257}),
        (["<|eot_id|>", "<|eom_id|>", "other"], {"eos_token_id": 258}, {256, 257, 258}),
        (["<end_of_turn>", "<EOT>", "</s>"], {}, {256, 257, 258}),
        (["x", "y"], {"eos_token_id": 256, "eot_token_id": 257}, {256, 257}),
        (["x", "y"], {"eom_token_id": 256}, {256}),
        (["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|fim_middle|>"], {}, {256, 257, 258}),
        (["<|end|>", "<|return|>", "<|call|>"], {}, {257, 258}),
        (["<|end|>", "<|flush|>", "<|calls|>"], {}, {257, 258}),
        (["<|end|>", "<|return|>"], {}, {256, 257}),
        (["</s>", "<|tool_response>", "<turn|>"], {}, {257, 258}),
        (["x"], {"eos_token_id": 4_000_000}, set()),
    ],
)
def test_tokens_that_end_a_text_are_known_by_number_and_by_name(
    made: Maker, texts: list[str], fields: dict[str, int], ends: set[int]
) -> None:
    assert made("gpt2", [*ALPHABET, *texts], pre="gpt-2", **fields).eos_ids == ends


def test_tokens_that_end_a_text_by_name_are_special_whatever_the_file_says(made: Maker) -> None:
    tokenizer = made("gpt2", [*ALPHABET, "<|im_end|>", "<|message|>"], pre="gpt-2", kinds={"<|message|>": Kind.CONTROL})
    assert tokenizer.encode_ids("<|im_end|><|message|>") == [256, 257]
    assert [tokenizer.is_special(id) for id in (256, 257)] == [True, False]


@pytest.mark.parametrize("model", ["rwkv", "plamo2", "whitespace", "hybriddna"])
def test_a_kind_that_cannot_be_built_is_named(made: Maker, model: str) -> None:
    with pytest.raises(ModelFileError, match=f"tokenizer of the kind '{model}'; those that can be read are gpt2, "):
        made(model, ["a"])


def test_a_file_without_a_vocabulary_says_so(made: Maker) -> None:
    with pytest.raises(ModelFileError, match=r"made\.gguf holds no tokenizer"):
        made("no_vocab", ["a"])


def test_a_rule_that_is_not_known_is_used_with_a_warning(made: Maker) -> None:
    assert made("gpt2", ALPHABET, pre="qwen2").warning is None
    assert "by 'of-tomorrow' (tokenizer.ggml.pre), which is not known" in str(
        made("gpt2", ALPHABET, pre="of-tomorrow").warning
    )
    assert "does not say how it cuts" in str(made("gpt2", ALPHABET).warning)
    assert pieces(made, "a", pre="of-tomorrow").warning is None


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("llama-bpe", "It'S 12345 ok", ["It", "'S", " ", "123", "45", " ok"]),
        ("qwen2", "It's 123", ["It", "'s", " ", "1", "2", "3"]),
        ("qwen35", "क्षि x", ["क्षि", " x"]),
        ("qwen2", "क्षि x", ["क", "्ष", "ि", " x"]),
        ("gpt-2", "It'S  a\n\n b", ["It", "'", "S", " ", " a", "\n\n", " b"]),
        ("starcoder", "a 12", ["a", " ", "1", "2"]),
        ("falcon", "x+=1234", ["x", "+=", "123", "4"]),
        ("deepseek-llm", "a\n日本12 ", ["a", "\n", "日本", "12", " "]),
        ("deepseek-v3", "a日本1234", ["a", "日本", "123", "4"]),
        ("command-r", "12", ["1", "2"]),
        ("tekken", "helloWorld ПриВет", ["hello", "World", " ПриВет"]),
        ("gpt-4o", "helloWorld's/\n", ["hello", "World's", "/\n"]),
        ("kimi-k2", "漢字abc漢 d", ["漢字", "abc", "漢", " d"]),
        ("superbpe", "a 1234567", ["a ", "1", "234", "567"]),
        ("afmoe", "ab1234567 日本", ["ab", "1", "234", "567", " ", "日本"]),
        ("tiny_aya", "x1234", ["x", "1", "234"]),
        ("viking", "a, b12", ["a", ",", " b", "1", "2"]),
        ("bloom", "a b,", ["a", " b", ","]),
        ("jais-2", "a" + " " * 7 + "b", ["a", " " * 4, " " * 2, " b"]),
        ("exaone-moe", "a b c", ["a b c"]),
        ("minicpm5", "a1234", ["a", "123", "4"]),
        ("ufakzeka", "Ali'nin", ["Ali", "'nin"]),
        ("chameleon", "xIMGIMGABZx<sentinel:3>", ["x", "IMGIMGABZ", "x", "<", "sentinel", ":", "3", ">"]),
        ("laguna", "a\n\nb", ["a", "\n\n", "b"]),
        ("default", "a 12,345", ["a", " ", "12", ",", "345"]),
    ],
)
def test_words(made: Maker, pre: str, text: str, words: list[str]) -> None:
    cut = made("gpt2", ALPHABET, pre=pre).backend.pre_tokenizer.pre_tokenize_str(text)
    assert [text[start:end] for _word, (start, end) in cut] == words


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_rule_leaves_every_byte(made: Maker, pre: str) -> None:
    marks = PRE_TOKENIZERS[pre].marks_spaces
    tokenizer = made("gpt2", BYTES if marks else ALPHABET, pre=pre, kinds=dict.fromkeys(BYTES, Kind.BYTE))
    text = "Ünï 12345 日本語\t\r\n\n  x's I'LL <sentinel:1> 🦙.cpp ၁၂၃ е́ #include\u3000end  "
    assert b"".join(map(tokenizer.bytes_of, ids_without_ends(tokenizer, text))) == (
        text.replace(" ", "▁").encode() if marks else text.encode()
    )


def test_byte_pairs_that_mark_spaces(made: Maker) -> None:
    tokens = ["<bos>", *BYTES, "▁", "a", "▁a", "\n", "\n\n"]
    kinds = {"<bos>": Kind.CONTROL}
    tokenizer = made("gemma4", tokens, kinds=kinds, merges=["▁ a", "\n \n"], bos_token_id=0)
    assert texts(tokenizer, " a\n\né") == ["<bos>", " a", "\n\n", "�", "�"]


def test_word_pieces(made: Maker) -> None:
    tokens = ["[CLS]", "[SEP]", "[UNK]", "▁hello", "▁wor", "ld", "▁!", "▁hel"]
    kinds = dict.fromkeys(tokens[:3], Kind.CONTROL)
    fields = {"bos_token_id": 0, "seperator_token_id": 1, "unknown_token_id": 2}
    tokenizer = made("bert", tokens, kinds=kinds, **fields)
    assert tokenizer.encode_ids("Hello, World!") == [0, 3, 2, 4, 5, 6, 1]
    assert tokenizer.piece(3) == " hello"
    assert made("bert", tokens, kinds=kinds, **fields, **{"normalizer.lowercase": False}).encode_ids("Hello") == [
        0,
        2,
        1,
    ]


@pytest.mark.parametrize(
    ("fields", "text", "wanted"),
    [
        ({"remove_extra_whitespaces": True}, "  a   b ", [" a", " b"]),
        ({"add_space_prefix": True}, "a  b", [" a", " ", " b"]),
        ({}, "a b", ["a", " b"]),
        ({}, "ab日b", ["a", "b", "<unk>", "b"]),
    ],
)
def test_unigrams(made: Maker, fields: dict[str, bool], text: str, wanted: list[str]) -> None:
    scores = {"▁": -2.0, "a": -3.0, "b": -3.0, "▁a": -1.0, "▁b": -1.0}
    tokens = ["<pad>", "</s>", "<unk>", *scores]
    kinds = {"<pad>": Kind.CONTROL, "</s>": Kind.CONTROL, "<unk>": Kind.UNKNOWN}
    assert texts(made("t5", tokens, kinds=kinds, scores=scores, **fields), text, template=False) == wanted


def test_any_vocabulary_is_cut_counted_and_chatted_with(tmp_path: Path, run_cli: Callable[..., object]) -> None:
    """Of an architecture that does not exist, without weights."""
    template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{{ eos_token }}"
    path = write_vocabulary(
        tmp_path / "words.gguf",
        "gpt2",
        [*ALPHABET, "<|user|>", "<|end|>"],
        kinds={"<|user|>": Kind.CONTROL},
        pre="of-tomorrow",
        eos_token_id=257,
        chat_template=template,
    )
    done = run_cli("tokens", "hi", "--chat", "--json", "--model", str(path))
    assert [token["id"] for token in json.loads(done.stdout)] == [256, ord("h"), ord("i"), 257]  # type: ignore[attr-defined]
    assert "which is not known here" in done.stderr  # type: ignore[attr-defined]
    done = run_cli("lengths", "hi", "--json", "--model", str(path))
    assert json.loads(done.stdout)[0]["tokens"] == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("table", [[255, 0, 0, 0, 1], [1], [0, 0, 0, 0]])
def test_a_damaged_table_of_characters_is_refused(made: Maker, table: list[int]) -> None:
    with pytest.raises(ModelFileError, match="table of characters is damaged"):
        made("t5", ["<pad>", "</s>", "<unk>", "a"], precompiled_charsmap=table)


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    whole = write_vocabulary(tmp_path / "whole.gguf", "gpt2", ALPHABET, pre="gpt-2").read_bytes()
    target, chance = tmp_path / "damaged.gguf", random.Random(0)
    messages = []
    for length in [0, 3, 4, 8, 24, *chance.sample(range(len(whole)), 100)]:
        target.write_bytes(whole[:length])
        with pytest.raises(LogitlabError, match=r"^[^\n]+$"):
            gguf_tokenizer(target)
    for _try in range(300):
        data = bytearray(whole)
        for at in chance.sample(range(200), 3):
            data[at] = chance.randrange(256)
        target.write_bytes(data)
        try:
            gguf_tokenizer(target)
        except LogitlabError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize("fields", [{}, {"add_space_prefix": False}, {"pre": "llama-spm"}])
def test_a_continuation_of_pieces_has_no_space_that_was_not_typed(made: Maker, fields: dict[str, object]) -> None:
    tokenizer = pieces(made, "▁is", "is", "▁", *"Aisly:", scores={"▁is": -1.0, "is": -2.0}, **fields)
    before = tokenizer.encode_ids("A:")
    for text in ("is", " is", "ly", " ", "日"):
        ids = tokenizer.encode_continuation(text)
        assert b"".join(map(tokenizer.bytes_of, ids)) == text.encode()
        assert tokenizer.encode_ids(f"A:{text}") == [*before, *ids]


@pytest.mark.parametrize("strips", [True, False])
def test_a_continuation_of_unigrams_has_no_space_that_was_not_typed(made: Maker, strips: bool) -> None:
    tokens = ["<pad>", "</s>", "<unk>", "▁is", "is", "▁A", "A", ":", "▁", "s"]
    scores = {text: -float(id) for id, text in enumerate(tokens) if id > 2}
    fields = {"add_space_prefix": True, "remove_extra_whitespaces": strips, "add_eos_token": False}
    tokenizer = made("t5", tokens, kinds={"<unk>": Kind.UNKNOWN}, scores=scores, **fields)
    before = tokenizer.encode_ids("A:")
    for text in ("is", " is", "A"):
        ids = tokenizer.encode_continuation(text)
        assert b"".join(map(tokenizer.bytes_of, ids)) == text.encode()
        assert tokenizer.encode_ids(f"A:{text}") == [*before, *ids]
