"""The tokenizers of llama.cpp's vocabulary files against llama.cpp.

`make test-remote` fetches the files; without them the tests are skipped. They lie in the folder that
`LOGITLAB_VOCABULARIES` names, with texts (`.inp`) and the tokens that llama.cpp cuts them into (`.out`). Beside them
lie `llama-vocab.cpp`, the source that names the rules, and `words`, a program that cuts words by llama.cpp's code
(`words.cpp`). Where `LOGITLAB_LLAMA_PYTHON` names a Python with llama-cpp-python, it cuts random texts, too.
"""

import ast
import json
import os
import random
import re
import subprocess
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
import tokenizers
from tokenizers import pre_tokenizers

from engine.models.gguf_fields import read_fields
from engine.models.gguf_tokenizer import GgufTokenizer, gguf_tokenizer
from engine.models.pre_tokenizers import PRE_TOKENIZERS

FOLDER = Path(os.environ.get("LOGITLAB_VOCABULARIES") or "/nowhere")
PYTHON = os.environ.get("LOGITLAB_LLAMA_PYTHON", "")
FILES = sorted(FOLDER.glob("ggml-vocab-*.gguf"))
WORDS = FOLDER / "words"
TEXTS = 1_000
SEED = int(os.environ.get("LOGITLAB_SEED", "0"))
UNSPELLED = b"[UNK_BYTE_0x".hex()  # what llama.cpp writes for a character that spells no byte
pytestmark = pytest.mark.skipif(not FILES, reason="llama.cpp's vocabularies are not there: make test-remote")

# Reads texts as JSON, a line each, and writes what llama.cpp makes of them.
IN_LLAMA = """
import ctypes, json, sys
import llama_cpp
from llama_cpp import Llama
model = Llama(sys.argv[1], vocab_only=True, verbose=False)
vocab = llama_cpp.llama_model_get_vocab(model.model)
size = llama_cpp.llama_vocab_n_tokens(vocab)
pieces, buffer = [], ctypes.create_string_buffer(1024)
for id in range(size):
    length = llama_cpp.llama_token_to_piece(vocab, id, buffer, 1024, 0, True)
    pieces.append(buffer.raw[:length].hex())
ends = [id for id in range(size) if llama_cpp.llama_vocab_is_eog(vocab, id)]
unused = [id for id in range(size) if llama_cpp.llama_vocab_get_attr(vocab, id) in (0, 2)]
print(json.dumps({"pieces": pieces, "ends": ends, "unused": unused}))
for line in sys.stdin:
    text = json.loads(line).encode()
    plain = model.tokenize(text, add_bos=False, special=False)
    around = model.tokenize(text, add_bos=True, special=True)
    print(json.dumps([plain, around]))
"""


@cache
def tokenizer_of(path: Path) -> GgufTokenizer:
    return gguf_tokenizer(path)


def plain_ids(tokenizer: GgufTokenizer, text: str) -> list[int]:
    """As llama.cpp's texts are cut: no special token is seen in them, and none put around."""
    tokenizer.backend.encode_special_tokens = True
    try:
        return tokenizer.backend.encode(text, add_special_tokens=False).ids
    finally:
        tokenizer.backend.encode_special_tokens = False


def texts_of(path: Path) -> tuple[list[str], list[list[int]]]:
    """llama.cpp's texts beside a vocabulary file, and the tokens that it cuts them into."""
    texts = Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    wanted = [[int(id) for id in line.split()] for line in Path(f"{path}.out").read_text().splitlines()]
    return texts[: len(wanted)], wanted


@pytest.mark.parametrize("path", [path for path in FILES if Path(f"{path}.out").is_file()], ids=lambda path: path.stem)
def test_llama_cpps_texts_have_llama_cpps_tokens(path: Path) -> None:
    texts, wanted = texts_of(path)
    assert len(wanted) >= 46
    assert [plain_ids(tokenizer_of(path), text) for text in texts] == wanted


def test_every_name_that_llama_cpp_knows_is_known() -> None:
    source = (FOLDER / "llama-vocab.cpp").read_text(encoding="utf-8")
    names = set(re.findall(r'tokenizer_pre == "([^"]+)"', source))
    assert len(names) > 80
    assert names - PRE_TOKENIZERS.keys() == {"whitespace"}  # of a kind that is refused
    rules = source[source.index('tokenizer_pre == "minicpm5"') : source.index("unknown pre-tokenizer type")]
    for rule in rules.split("} else if ("):
        for name in re.findall(r'tokenizer_pre == "([^"]+)"', rule):
            if known := PRE_TOKENIZERS.get(name):
                assert known.ignore_merges == ("ignore_merges = true" in rule), name
                assert known.add_bos == ("add_bos = true" in rule), name


@cache
def expressions() -> dict[str, list[str]]:
    """llama.cpp's own, by the name of the rule in its source."""
    source = (FOLDER / "llama-vocab.cpp").read_text(encoding="utf-8")
    source = source[source.index("switch (vocab.get_pre_type())") : source.index("bool byte_encode = true;")]
    found: dict[str, list[str]] = {}
    rules: list[str] = []
    for line in map(str.strip, source.splitlines()):
        if rule := re.match(r"case LLAMA_VOCAB_PRE_TYPE_(\w+):|(default):", line):
            rules.append(rule[1] or "DEFAULT")
        elif line == "regex_exprs = {":
            found |= {rule: [] for rule in rules}
        elif line.startswith('"'):
            for rule in rules:
                found[rule].append(ast.literal_eval(line[: line.rindex('"') + 1]))
        elif line == "break;":
            rules = []
    return found


@pytest.mark.skipif(not WORDS.is_file(), reason="the program that cuts words is not there: make test-remote")
@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
def test_random_texts_have_llama_cpps_words(name: str) -> None:
    source = (FOLDER / "llama-vocab.cpp").read_text(encoding="utf-8")
    source = source[source.index('tokenizer_pre == "default"') :]
    found = re.search(rf'tokenizer_pre == "{re.escape(name)}"[^{{]*{{\s*pre_type = LLAMA_VOCAB_PRE_TYPE_(\w+);', source)
    assert found is not None
    theirs = expressions()[found[1]]
    assert theirs
    texts = [text for text in random_texts(UNUSUAL, random.Random(f"{name} {SEED}"), TEXTS) if text]
    lines = [str(len(theirs)), *(part.encode().hex() for part in [*theirs, *texts])]
    done = subprocess.run([WORDS], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    wanted = [[bytes.fromhex(word).decode() for word in line.split()] for line in done.stdout.splitlines()]
    assert len(wanted) == len(texts)
    cut = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated") for pattern in PRE_TOKENIZERS[name].patterns]
    )
    for text, words in zip(texts, wanted):
        assert [text[start:end] for _word, (start, end) in cut.pre_tokenize_str(text)] == words


@pytest.mark.skipif(not PYTHON, reason="llama-cpp-python is not there: make test-remote")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_random_texts_have_llama_cpps_tokens(path: Path) -> None:
    tokenizer = tokenizer_of(path)
    entries = [tokenizer.bytes_of(id).decode("utf-8", errors="ignore") for id in range(tokenizer.vocabulary_size)]
    model = read_fields(path)["tokenizer.ggml.model"]
    texts = list(random_texts(entries, random.Random(f"{path.name} {SEED}"), TEXTS))
    texts = [text for text in texts if not differs(model, text)]
    done = subprocess.run(
        [PYTHON, "-c", IN_LLAMA, str(path)],
        input="".join(json.dumps(text) + "\n" for text in texts),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    first, *lines = done.stdout.splitlines()
    vocabulary = json.loads(first)
    assert len(vocabulary["pieces"]) == tokenizer.vocabulary_size
    assert set(vocabulary["ends"]) == tokenizer.eos_ids
    spelled = [tokenizer.bytes_of(id).hex() for id in range(tokenizer.vocabulary_size)]
    assert {
        id: (wanted, ours)
        for id, (wanted, ours) in enumerate(zip(vocabulary["pieces"], spelled))
        if wanted != ours and id not in vocabulary["unused"] and UNSPELLED not in wanted
    } == {}
    assert len(lines) == len(texts) > TEXTS / 10
    wrong = []
    for text, line in zip(texts, lines):
        plain, around = json.loads(line)
        if plain_ids(tokenizer, text) != plain:
            wrong.append((text, plain_ids(tokenizer, text), plain))
        if tokenizer.encode_ids(text) != around:
            wrong.append((text, tokenizer.encode_ids(text), around))
    assert not wrong, f"{len(wrong)} of {2 * TEXTS}, such as {wrong[:3]}"


def differs(model: str, text: str) -> bool:
    """Whether the library normalises a text otherwise than llama.cpp: it does in vocabularies that only encoders have.

    BERT's is normalised as BERT did, of which llama.cpp does a part; SentencePiece's tables are applied to whole
    characters, with their marks. Phi-3's special tokens take every kind of space after them, there ASCII's.
    """
    kinds = {unicodedata.category(character)[0] for character in text if character not in "\t\n\r"}
    if model == "bert":
        return bool(kinds & {"M", "C"}) or "▁" in text or any("\uac00" <= character <= "\ud7a3" for character in text)
    if model == "t5":
        return bool(kinds & {"M", "C"})
    return model == "llama" and re.search(r"[>\]][ \t\n\r]*[\x85\xa0\u2003\u3000]", text) is not None


# Words on which the rules differ.
_UNUSUAL = """
hello World The ÉCOLE école ПриВет ΑΒΓαβγ nin's Ünal'ın it's IT'S don’t I'LL x_y a/b #include @name a. IMGIMGABCZ
<sentinel:12> 1234567 12 ١٢٣٤ ၁၂၃၄ ⅫⅣ ½ １２３ 9999999999 漢字 가나다 ひらがな カタカナ ｶﾅ ａｂｃ Ａ ﬁ ǅ ʰ ª ﷺ ꙳ က ကို
ไทย ລາວ ꧠ ᄀ 𠀀𠀁 豈 﨎 ⼀ 〇 々 ー ・ ！ ： 、 。 … “ ” ‘ ’ —
"""
UNUSUAL = [*_UNUSUAL.split(), " ", "  ", "   ", "\n\n", " \n", "\r\n", "\n/", "\t", " " * 600]


def random_texts(entries: Sequence[str], chance: random.Random, count: int) -> Iterator[str]:
    """Texts of all scripts, spaces, digits, code, emoji, and `entries`, which may be special tokens."""
    alphabets = [
        " ",
        " \t\n\r\u00a0\u3000\u2003",
        "\n",
        "0123456789",
        "٠١٢३४五½²Ⅷ",
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "éèüößñçåøłžőÀÉÜЖбгдЯΑβγΩשלוםمرحباनमस्तेกขคាន់",
        "日本語漢字かなカナ한국어中文。、，！「」",
        "🦙🌍👩‍👩‍👧🏽🇯🇵❤️",
        "\u0301\u0308\u0327\u200d\u200c\ufeff\u00ad",
        ".,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+~`",
        "\x00\x01\x07\x16\x1b\x7f\x85",
        "▁Ġ�",
    ]
    fragments = [
        "'s",
        "'S",
        "'re",
        "'LL",
        "I'm",
        "def f(x):\n    return x + 1\n",
        "http://a.b/c?d=1",
        "Cửa Việt",
        "don't",
    ]
    for _text in range(count):
        parts = []
        for _part in range(chance.randint(1, 12)):
            pick = chance.random()
            if pick < 0.6:
                parts.append("".join(chance.choices(chance.choice(alphabets), k=chance.choice([1, 1, 2, 3, 5, 20]))))
            elif pick < 0.7:
                parts.append(chance.choice(fragments))
            elif pick < 0.75:
                # Unicode's versions differ, so only what Python's older one has too.
                character = chr(chance.randrange(0x11000))
                parts.append("" if unicodedata.category(character) in ("Cn", "Cs") else character)
            else:
                parts.append(chance.choice(entries))
        yield "".join(parts)
