"""What lies in a model's folder beside its weights: tokenizers and chat templates, against transformers."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import InputError, ModelFileError
from engine.models.folder_tokenizer import folder_tokenizer
from engine.text.tokenizer import Tokenizer
from tests.conftest import byte_level_tokenizer
from tests.tokenizers import pieces

TEXTS = (
    "Hello",
    " Hello",
    "a  b ",
    "日本語 ﷺ",
    "  two\nlines\n\n",
    "Answer: Yes",
    "",
    " ",
    "<s>Yes</s> is<|tool|>",
    "e\u0301",
)
BOTH = "{{ bos_token }}[{{ messages[0].content }}]{{ eos_token }}{% if add_generation_prompt %}>{% endif %}"
MARKED = (
    "{% set who = 'A' %}{% generation %}{% set who = 'B' %}{{ messages[0].content }}{%- endgeneration %}{{ who }}"
    "{% for m in messages %}{% generation -%}\n {{ m.role }}\n{% endgeneration %}{% endfor %}"
)


def folder_of(path: Path, backend: Any = None, **files: object) -> Path:
    """A folder with a tokenizer and JSON or text files, whose names have `__` for dots."""
    path.mkdir(exist_ok=True)
    (pieces() if backend is None else backend).save(str(path / "tokenizer.json"))
    for name, content in ({"config__json": {"model_type": "llama"}} | files).items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return path


def as_it_is(folder: Path) -> Any:
    """transformers' reading of a `tokenizer.json`; `AutoTokenizer` builds some classes' anew."""
    import transformers

    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": True, "legacy": False},
        {"add_bos_token": False, "add_prefix_space": False, "bos_token": "<s>", "eos_token": "</s>"},
        {"added_tokens_decoder": {"400": {"content": "<|tool|>", "special": False, "lstrip": True}}},
        {"additional_special_tokens": ["<|tool|>"], "pad_token": {"content": "is", "__type": "AddedToken"}},
        {"extra_special_tokens": {"image_token": "<|tool|>"}},
    ],
)
def test_a_tokenizer_file_is_read_as_it_is(tmp_path: Path, settings: dict[str, object]) -> None:
    folder = folder_of(tmp_path / "model", tokenizer_config__json=settings)
    ours, theirs = folder_tokenizer(folder), as_it_is(folder)
    for text in TEXTS:
        assert ours.encode_ids(text) == theirs(text)["input_ids"], text
    assert {id for id in range(ours.vocabulary_size) if ours.is_special(id)} == {
        id for id, token in theirs.added_tokens_decoder.items() if token.special
    }


def test_a_space_that_is_typed_counts_beside_the_one_that_is_put_before(tmp_path: Path) -> None:
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    tokenizer = folder_tokenizer(folder_of(tmp_path / "model", tokenizer_config__json=settings))
    assert [token.label for token in tokenizer.encode(" Yes")] == ["<s>", "·", "·Yes"]


def test_the_newest_of_several_tokenizer_files_is_read(tmp_path: Path) -> None:
    names = ["tokenizer.json", "tokenizer.4.0.0.json", "tokenizer.4.2.0.json", "tokenizer.4.9.0.json"]
    folder = folder_of(tmp_path / "model", byte_level_tokenizer(), tokenizer_config__json={})
    for name, prefix in zip(names[1:3], ("prepend", "never")):
        pieces(prefix=prefix).save(str(folder / name))
    for named in (names[:1], names[:2], names[:3]):
        (folder / "tokenizer_config.json").write_text(json.dumps({"fast_tokenizer_files": named}))
        assert folder_tokenizer(folder).encode_ids("Yes is") == as_it_is(folder)("Yes is")["input_ids"]
    (folder / "tokenizer_config.json").write_text(json.dumps({"fast_tokenizer_files": names}))  # one is not there
    assert folder_tokenizer(folder).encode_ids("Yes") == Tokenizer(pieces(prefix="never")).encode_ids("Yes")


def test_reading_a_tokenizer_file_takes_no_transformers(tmp_path: Path) -> None:
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_prefix_space": True}
    folder = folder_of(tmp_path / "model", tokenizer_config__json=settings)
    code = (
        "import sys; from pathlib import Path; from engine.models.folder_tokenizer import folder_tokenizer;"
        "folder_tokenizer(Path(sys.argv[1])).encode('Yes'); print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


IMAGE = {"image_token": "is"}
OTHERS = "{{ boi_token }}{{ bos_token }}"
ADDED = {"content": "</s>", "__type": "AddedToken"}
NAMED = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": BOTH}]


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config__json": {"chat_template": NAMED, "bos_token": "<s>", "eos_token": ADDED}},
        {"tokenizer_config__json": {"chat_template": BOTH}, "special_tokens_map__json": {"bos_token": "<s>"}},
        {
            "tokenizer_config__json": {"chat_template": BOTH, "bos_token": "</s>"},
            "special_tokens_map__json": {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>"},
        },
        {
            "tokenizer_config__json": {"chat_template": BOTH, "added_tokens_decoder": {}, "eos_token": "</s>"},
            "special_tokens_map__json": {"bos_token": "<s>"},
        },
        {"tokenizer_config__json": {"chat_template": "other", "bos_token": "<s>"}, "chat_template__jinja": BOTH},
        {"tokenizer_config__json": {"chat_template": MARKED}},
        {
            "tokenizer_config__json": {
                "chat_template": "{{ image_token }}",
                "extra_special_tokens": {"image_token": "is"},
            }
        },
        {
            "tokenizer_config__json": {
                "chat_template": "{{ boi_token }}{{ bos_token }}",
                "boi_token": "is",
                "bos_token": None,
            }
        },
    ],
)
@pytest.mark.parametrize("text", ["Yes", "  two\nlines "])
def test_a_chat_is_rendered_as_transformers_does(tmp_path: Path, files: dict[str, object], text: str) -> None:
    folder = folder_of(tmp_path / "model", **files)
    ours, theirs = folder_tokenizer(folder), as_it_is(folder)
    messages = [{"role": "user", "content": text}]
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    tokens = ours.encode_chat(text)
    assert [token.id for token in tokens] == expected
    rendered = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert "".join(token.text for token in tokens) == rendered


@pytest.mark.parametrize("files", [{"chat_template__jinja": BOTH}, {"chat_template__jinja": ""}, {}])
@pytest.mark.parametrize("more", [{"tool_use": "tools"}, {"default": "<{{ bos_token }}>", "rag": "r"}])
def test_templates_in_files_of_their_own(tmp_path: Path, files: dict[str, str], more: dict[str, str]) -> None:
    settings = {"chat_template": "other", "bos_token": "<s>", "eos_token": "</s>"}
    folder = folder_of(tmp_path / "model", tokenizer_config__json=settings, **files)
    (folder / "additional_chat_templates").mkdir()
    for name, template in more.items():
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(template)
    ours, theirs = folder_tokenizer(folder), as_it_is(folder)
    messages = [{"role": "user", "content": "Yes"}]
    if not ours.chats:
        with pytest.raises(ValueError, match="no default"):
            theirs.apply_chat_template(messages)
        return
    rendered = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert "".join(token.text for token in ours.encode_chat("Yes")) == rendered


def test_a_processors_template_is_a_chat_template_where_there_is_no_other(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", chat_template__json={"chat_template": "<{{ messages[0].content }}>"})
    assert "".join(token.text for token in folder_tokenizer(folder).encode_chat("Yes")) == "<Yes>"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "[{{ messages[0].content }}]"}))
    assert "".join(token.text for token in folder_tokenizer(folder).encode_chat("Yes")) == "[Yes]"


def test_templates_for_tools_alone_are_none_for_a_conversation(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", tokenizer_config__json={"chat_template": NAMED[:1]})
    tokenizer = folder_tokenizer(folder)
    assert not tokenizer.chats
    with pytest.raises(InputError, match=r"for something else \(tool_use\), none is called default"):
        tokenizer.encode_chat("Yes")


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({"generation_config__json": {"eos_token_id": [2, 5]}, "config__json": {"eos_token_id": 1}}, {2, 5}),
        ({"config__json": {"eos_token_id": 1}, "generation_config__json": {}}, {1}),
        ({"config__json": {"text_config": {"eos_token_id": [2]}}}, {2}),
        ({"config__json": {}, "tokenizer_config__json": {"eos_token": "</s>"}}, {2}),
        ({"config__json": {}}, set()),
    ],
)
def test_what_ends_a_text(tmp_path: Path, files: dict[str, object], ends: set[int]) -> None:
    assert folder_tokenizer(folder_of(tmp_path / "model", **files)).eos_ids == ends


# Folders without a tokenizer.json.

SENTENCES = [
    "The sky above the city looked calm, but the rain came.",
    "A robot entered the library and asked for a book about the sky.",
    "日本語の文章、全角の　空白。",
    "x = f(1, 23) + 456.7",
] * 30  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "bpe", "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
        {"model_type": "bpe", "add_dummy_prefix": False, "user_defined_symbols": ["<|tool|>"]},
        {"model_type": "unigram", "byte_fallback": True},
        {"model_type": "unigram", "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
        {"model_type": "bpe", "control_symbols": ["[INST]"], "bos_id": 3, "unk_id": 0, "eos_id": 1, "pad_id": 2},
    ],
)
def test_sentencepieces_file_gives_sentencepieces_ids(tmp_path: Path, options: dict[str, Any]) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    given = {"vocab_size": 420, "byte_fallback": options["model_type"] == "bpe", "hard_vocab_limit": False} | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_prefix=str(tmp_path / "tokenizer"), minloglevel=2, **given
    )
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    theirs = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    ours = folder_tokenizer(tmp_path)
    bos = [theirs.bos_id()] if theirs.bos_id() >= 0 else []
    for text in (*SENTENCES[:4], "Hello", " lead", "a  b", "trail ", "naïve 🌍 ﬁ ｆｕｌｌ", "x<|tool|>y", "sky▁sky"):
        ids = theirs.encode(text)
        assert ours.backend.encode(text).ids == [*bos, *ids], text
        if theirs.unk_id() not in ids:
            assert ours.backend.decode(ids) == theirs.decode(ids), text
    assert ours.special_tokens["eos_token"] == theirs.id_to_piece(theirs.eos_id())
    assert ours.vocabulary_size == theirs.get_piece_size()


def test_settings_beside_sentencepieces_file_count(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_prefix=str(tmp_path / "tokenizer"), minloglevel=2, vocab_size=100,
        hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    added = {"content": "<|tool|>", "special": True}
    settings = {"add_bos_token": False, "add_eos_token": True, "added_tokens_decoder": {"100": added}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = folder_tokenizer(tmp_path)
    ids = tokenizer.encode_ids("the sky<|tool|>")
    assert ids[0] != 1
    assert ids[-1] == 2
    assert tokenizer.is_special(ids[-2])


def test_mistrals_file_is_as_transformers_converts_it(tmp_path: Path) -> None:
    from transformers.integrations.mistral.tokenizer import MistralConverter

    words = [" sky", " s", "sk", "ky", "the", "th", "he", " t", " the", "日".encode()]
    tokens = [bytes([byte]) for byte in range(256)] + [
        word.encode() if isinstance(word, str) else word for word in words
    ]
    special = ["<unk>", "<s>", "</s>", "[INST]"]
    data = {
        "config": {
            "pattern": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+",
            "default_vocab_size": len(tokens) + 8,
            "default_num_special_tokens": 8,
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for rank, token in enumerate([*tokens, b"not in the vocabulary"])
        ],
        "special_tokens": [{"rank": rank, "token_str": text} for rank, text in enumerate(special)],
    }
    file = tmp_path / "tekken.json"
    file.write_text(json.dumps(data))
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    theirs, ours = MistralConverter(str(file)).converted(), folder_tokenizer(tmp_path)
    for text in (*TEXTS, "the sky", "[INST] the</s>", "日本"):
        assert ours.encode_ids(text) == [1, *theirs.encode(text).ids], text
    assert ours.vocabulary_size == len(tokens) + 8
    assert ours.eos_ids == {2}
    del data["special_tokens"]
    data["config"] |= {"default_vocab_size": len(tokens) + 20, "default_num_special_tokens": 20}
    file.write_text(json.dumps(data))
    assert folder_tokenizer(tmp_path).backend.id_to_token(17) == "[SYSTEM_PROMPT]"


@pytest.mark.parametrize("name", ["tokenizer.model", "tekken.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff\xff", b"\x0a\xff\xff\xff\xff\x0fab", b"{}", b'{"config": {}, "vocab": 3}']
)
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError) as refused:
        folder_tokenizer(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_file_that_only_a_library_converts_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "xglm"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XGLMTokenizer"}')
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x03\x0a\x01a")
    monkeypatch.setattr("engine.models.folder_tokenizer._has_converters", lambda: False)
    with pytest.raises(ModelFileError, match=r"tokenizer\.model.*sentencepiece.*pip install 'logitlab\[tokenizers\]'"):
        folder_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelFileError, match="holds no tokenizer"):
        folder_tokenizer(tmp_path)


def test_a_byte_level_tokenizer_has_no_names_by_default(tmp_path: Path) -> None:
    settings = {"tokenizer_class": "LlamaTokenizerFast", "chat_template": BOTH}
    folder = folder_of(tmp_path / "bytes", byte_level_tokenizer(), tokenizer_config__json=settings)
    assert folder_tokenizer(folder).special_tokens == {}
    folder = folder_of(tmp_path / "pieces", tokenizer_config__json=settings)
    tokenizer: Tokenizer = folder_tokenizer(folder)
    assert tokenizer.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
