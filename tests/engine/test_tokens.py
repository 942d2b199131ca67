import codecs
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.base import plain
from engine.base.errors import ModelFileError, TextError
from engine.base.plain import OBEYED
from engine.text.sharing import shared_characters
from engine.text.token import FORMS, Token, drawn, visible
from engine.text.tokenizer import Tokenizer

PROMPT = "The sky above the city looked calm, but"


def spans_tile(text: str, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(text)
    data = text.encode()
    assert b"".join(data[token.start : token.end] for token in tokens) == data
    assert [token.start for token in tokens] == [0, *[token.end for token in tokens]][: len(tokens)]
    assert "".join(token.text for token in tokens) == text
    assert [token.position for token in tokens] == list(range(len(tokens)))


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_byte_for_byte(text: str) -> None:
    try:
        spans_tile(text, EMBEDDED)
    except TextError:
        assert not EMBEDDED.backend.encode(text).ids


def test_a_byte_the_vocabulary_lacks_belongs_to_its_neighbour(tokenizer: Tokenizer) -> None:
    spans_tile("a\x16b", tokenizer)
    with pytest.raises(TextError, match="no token for “⟨16⟩”"):
        tokenizer.encode("\x16")


@pytest.mark.parametrize(
    "text",
    [
        "",
        PROMPT,
        "日本語のテキスト",
        "🌍🚀👩‍👩‍👧",
        "e\u0301 a\u0308",
        "\x00\x1b[31m\r\n\t",
        "<|im_end|> in the text",
        "  12  345",
    ],
)
def test_awkward_text_comes_back(text: str, tokenizer: Tokenizer) -> None:
    spans_tile(text, tokenizer)


def test_ids_are_those_of_transformers_tokenizer(embedded_reference_tokenizer: object, tokenizer: Tokenizer) -> None:
    for text in (PROMPT, "日本語 🌍", "def f(x):\n    return x + 1\n", "It's 7 o'clock"):
        assert tokenizer.encode_ids(text) == embedded_reference_tokenizer(text)["input_ids"]  # type: ignore[operator]


def test_digits_stand_alone_as_the_vocabulary_was_learned(tokenizer: Tokenizer) -> None:
    assert [token.text for token in tokenizer.encode("In  2024")] == ["In", "  ", "2", "0", "2", "4"]


def test_special_tokens_are_marked(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("<|im_start|>hi")
    assert [(token.piece, token.special) for token in tokens] == [("<|im_start|>", True), ("hi", False)]


def test_a_character_split_over_tokens_shows_its_bytes(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("日")
    assert "".join(token.label for token in tokens) == "⟨E6⟩⟨97⟩⟨A5⟩"
    assert [token.text for token in tokens] == ["", "日"]


def test_a_lone_surrogate_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError, match=r"U\+D800.*character 3"):
        tokenizer.encode("ab\ud800")


def test_a_stream_joins_split_characters(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream(position=9)
    tokens = [stream.append(id) for id in tokenizer.encode_ids(" 日本 🌍")]
    assert stream.text == " 日本 🌍"
    assert tokens[0].position == 9
    assert tokens[-1].end == len(" 日本 🌍".encode())


def test_a_special_token_adds_no_text(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream()
    token = stream.append(2)
    assert (token.piece, token.text, token.special, stream.text) == ("<|im_end|>", "", True, "")


def test_an_id_outside_the_vocabulary_has_no_bytes(tokenizer: Tokenizer) -> None:
    assert tokenizer.bytes_of(10**6) == b""


def test_visible_text_has_nothing_that_steers_a_terminal() -> None:
    assert visible(b" a\t\r\n") == "·a⇥␍⏎"
    assert visible(b"\x1b[31m") == "⟨1B⟩[31m"
    assert visible("\u202e\u2028".encode()) == "⟨E2⟩⟨80⟩⟨AE⟩⟨E2⟩⟨80⟩⟨A8⟩"


def test_visible_text_keeps_spaces_of_other_widths_and_joiners() -> None:
    for text in ("全角\u3000空白", "a\u00a0b", "می\u200cخواهم", "👩\u200d👩\u200d👧", "co\u00adop", "\ue0b0", "\u2009"):
        assert visible(text.encode()) == plain.one_line(text)


def test_what_takes_no_room_of_its_own_stands_on_a_circle() -> None:
    for char in ("\u0301", "\u200c", "\u200d", "\ufe0f", "\u0e34"):
        assert visible(char.encode()) == f"◌{char}"
    assert visible("\u200cخ".encode()) == "\u200cخ"


def test_sentencepiece_vocabularies_tile_too() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, processors

    vocabulary = ["<unk>", "<s>", "▁", "a", "b", "▁a", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = Backend(
        models.BPE(
            {piece: index for index, piece in enumerate(vocabulary)},
            [("▁", "a")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.add_special_tokens(["<s>"])
    tokenizer = Tokenizer(backend)
    for text in ("a b", "日", "ab 日 a", " a"):
        spans_tile(text, tokenizer)
    tokens = tokenizer.encode("日")
    assert tokens[0].special
    assert (tokens[0].piece, tokens[0].text) == ("<s>", "")
    assert tokenizer.bytes_of(vocabulary.index("<0xE6>")) == b"\xe6"
    assert tokenizer.bytes_of(vocabulary.index("▁a")) == b" a"


def test_a_damaged_tokenizer_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{")
    with pytest.raises(ModelFileError, match="no usable tokenizer"):
        Tokenizer.from_file(file)


@pytest.fixture(scope="module")
def embedded_reference_tokenizer() -> object:
    import transformers

    from engine.models import catalog

    path = catalog.embedded_path()
    return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def _embedded_tokenizer() -> Tokenizer:
    from engine.models import catalog
    from engine.models.tokenizer_files import load_tokenizer

    entry = catalog.find("smollm2-135m")
    assert entry.path is not None
    return load_tokenizer(entry, entry.path)


EMBEDDED = _embedded_tokenizer()


def test_spaces_and_joiners_that_look_like_nothing_have_forms_on_a_screen() -> None:
    assert drawn(visible("全角\u3000空白".encode())) == "全角□空白"
    assert drawn(visible("a\u00a0b می\u200cخ 👩\u200d👧".encode())) == "a⍽b·می¦خ·👩⁀👧"
    assert [drawn(visible(char.encode())) for char in ("\u200d", "\u200c", "\u0301")] == ["⁀", "¦", "◌\u0301"]
    assert drawn(visible(b"\xe6\x97")) == "⟨E6⟩⟨97⟩"
    assert not any(OBEYED.match(char) for char in FORMS)  # text, never bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("日", [("日", 0, 1, 0, 3)]),
        ("a日本", None),
        ("plain text", []),
        ("", []),
        ("x👩\u200d💻 y 🦄!", None),
    ],
)
def test_characters_that_several_tokens_share_are_found(
    tokenizer: Tokenizer, text: str, expected: list[tuple[object, ...]] | None
) -> None:
    tokens = tokenizer.encode(text)
    found = shared_characters(tokens)
    if expected is not None:
        assert [(one.character, one.first, one.last, one.start, one.end) for one in found] == expected
    # Against the definition: a character is shared where its bytes are in more than one token's span.
    begins, shared = 0, []
    for character in text:
        span = range(begins, begins + len(character.encode()))
        places = [place for place, token in enumerate(tokens) if set(span) & set(range(token.start, token.end))]
        if len(places) > 1:
            shared.append((character, places[0], places[-1], span.start, span.stop))
        begins = span.stop
    assert [(one.character, one.first, one.last, one.start, one.end) for one in found] == shared


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
@settings(max_examples=200, deadline=None)
def test_shared_characters_are_those_whose_bytes_are_in_several_tokens(text: str) -> None:
    data = text.encode()
    tokens, decode = [], codecs.getincrementaldecoder("utf-8")().decode
    for place, byte in enumerate(data):  # the finest cut: a token a byte
        piece = bytes([byte])
        tokens.append(Token(place, byte, "", decode(piece), place, place + 1, visible(piece)))
    found = shared_characters(tokens)
    assert [one.character for one in found] == [char for char in text if len(char.encode()) > 1]
    assert all(data[one.start : one.end].decode() == one.character for one in found)
