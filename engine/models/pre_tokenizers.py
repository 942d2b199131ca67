"""How text is cut into words before byte pairs are merged, by the name in a GGUF file (`tokenizer.ggml.pre`).

Source: llama.cpp, `src/llama-vocab.cpp` (`llm_tokenizer_bpe` and `llama_vocab::impl::load`) and `src/unicode.cpp`, as
in llama-cpp-python 0.3.36. Each expression cuts the pieces that the one before it left; what none matches is a piece.

llama.cpp is followed also where it cuts otherwise than the tokenizer it was converted from: a GGUF file's name stands
for llama.cpp's rule. So small and capital letters beyond ASCII are one class, `\\d` is ASCII, and where `unicode.cpp`
has a function in place of an expression, the expression here does what the function does. Letters that Unicode has
since its version 16 are letters here and nothing there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """One rule.

    Attributes:
        patterns: regular expressions (Oniguruma's), applied one after the other.
        ignore_merges: a word that is an entry is that entry, whatever the merges make of it.
        add_bos: a text begins with the beginning-of-text token where the file does not say.
        always_bos: it does so whatever the file says.
        marks_spaces: entries are spelled as SentencePiece's: `▁` for a space, `<0x0A>` for a byte.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    always_bos: bool = False
    marks_spaces: bool = False


_ENDING = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_SPACES = r"\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SIGNS_OR_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_LINES = r"\s*[\r\n]+"
_LLAMA3 = rf"{_ENDING}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_LINES}|{_SPACES}"
_QWEN2 = rf"{_ENDING}|{_WORD}|\p{{N}}|{_SIGNS}|{_LINES}|{_SPACES}"
_HALVINGS = "|".join(rf"\s{{{length}}}(?!\S)" for length in (512, 256, 128, 64, 32, 16, 8, 4))
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES}|{_SPACES}"
)
_SPARK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+|[\r\n]|{_SPACES}"
)
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
# The ranges hold spaces, which llama.cpp takes out of a text before it looks for them.
_CJK_AND_HANGUL = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff&&\\S]+"
_LATIN_GREEK_CYRILLIC = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
    "\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a"
    "\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_SIGNS = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3001-\u3002]+"
_CAPITAL, _SMALL = r"[\p{L}&&[^a-z]]", r"[\p{L}&&[^A-Z]]"
_CAPITAL_OR_MARK, _SMALL_OR_MARK = r"[[\p{L}\p{M}]&&[^a-z]]", r"[[\p{L}\p{M}]&&[^A-Z]]"
_NOT_SENTENCE_END = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
# Digits in threes from the right; `unicode_regex_split_custom_afmoe` leaves what precedes them with the first group.
_THREES_FROM_THE_RIGHT = r"\P{N}++\z|\P{N}*+\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
_AFMOE_SCRIPTS = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_YOUTU_SCRIPTS = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
    "\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
)
_HAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b820-\U0002ceaf\U0002ceb0-\U0002ebef\uf900-\ufaff\U0002f800-\U0002fa1f]"
)


def _cased(capital: str, small: str, rest: str) -> str:
    """Words as GPT-4o's: capitals then small letters, with their ending."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    return f"{lead}{capital}*{small}+{rest}|{lead}{capital}+{small}*{rest}"


_AFTER_CASED = rf"\p{{N}}{{1,3}}|{_SIGNS_OR_SLASH}|{_LINES}|{_SPACES}"
_LETTER_OR_MARK = r"[\p{L}\p{M}]"

DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))
_LLAMA3_WHOLE = PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True)
_DIGITS_THEN_GPT2 = PreTokenizer((r"\p{N}", _GPT2))
_GPT2_ALONE = PreTokenizer((_GPT2,))
_QWEN2_ALONE = PreTokenizer((_QWEN2,))
_DEEPSEEK3_ALL = PreTokenizer((r"\p{N}{1,3}", _CJK, _DEEPSEEK3))
_GPT4O = PreTokenizer((rf"{_cased(_CAPITAL, _SMALL, f'{_ENDING}?')}|{_AFTER_CASED}",))
_TINY_AYA = PreTokenizer(
    (_THREES_FROM_THE_RIGHT, rf"{_cased(_LETTER_OR_MARK, _LETTER_OR_MARK, f'{_ENDING}?')}|{_AFTER_CASED}")
)
_SENTENCES = PreTokenizer((_NOT_SENTENCE_END,))
_BAILING = PreTokenizer(
    (
        r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|"
        rf"{_WORD}|\p{{N}}|{_SIGNS}|\s*[\r\n]|{_SPACES}",
    )
)
_GEMMA4 = PreTokenizer((r"[^\n]+|\n+",), always_bos=True, marks_spaces=True)


def _table() -> Iterator[tuple[str, PreTokenizer]]:
    """Names, separated by spaces, and their rule."""
    yield "default", DEFAULT
    yield "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", _LLAMA3_WHOLE
    yield "dbrx smaug-bpe chatglm-bpe", PreTokenizer((_LLAMA3,))
    yield "glm4 glm5", PreTokenizer((_LLAMA3,), ignore_merges=True)
    yield (
        "jais-2",
        PreTokenizer((rf"{_ENDING}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_LINES}|{_HALVINGS}|\s{{1,2}}(?!\S)|\s",)),
    )
    yield (
        "minicpm5",
        PreTokenizer((r"\p{N}{1,3}", rf"{_ENDING}|{_WORD}|\p{{N}}+|{_SIGNS}|{_LINES}|{_SPACES}"), ignore_merges=True),
    )
    yield (
        "deepseek-llm",
        PreTokenizer(
            (r"[\r\n]", rf"\s?[{_LATIN_GREEK_CYRILLIC}]+", _DEEPSEEK_SIGNS, r"\s+\z", _CJK_AND_HANGUL, r"\p{N}+")
        ),
    )
    yield "deepseek-coder", PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_AND_HANGUL, r"\p{N}"))
    yield "deepseek-v3 hunyuan-dense joyai-llm hy_v4", _DEEPSEEK3_ALL
    yield "spark2_5", PreTokenizer((r"\p{N}{1,3}", _CJK, _SPARK, r"\p{N}"))
    yield (
        "youtu",
        PreTokenizer(
            (
                _YOUTU_SCRIPTS,
                rf"{_cased(_LETTER_OR_MARK, _LETTER_OR_MARK, f'{_ENDING}?')}"
                rf"|\p{{N}}|{_SIGNS_OR_SLASH}|{_LINES}|{_SPACES}",
            ),
            ignore_merges=True,
        ),
    )
    yield "falcon", PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"))
    yield "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", _DIGITS_THEN_GPT2
    yield "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert", _GPT2_ALONE
    yield "jina-v1-en jina-v2-code roberta-bpe mpt olmo jais trillion granite-docling exaone4", _GPT2_ALONE
    yield "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2", _QWEN2_ALONE
    yield (
        "qwen35",
        PreTokenizer(
            (
                rf"{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
                rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_LINES}|{_SPACES}",
            )
        ),
    )
    yield "poro-chat bloom gpt3-finnish", _SENTENCES
    yield "viking", PreTokenizer((_NOT_SENTENCE_END, r"\p{N}"))
    yield (
        "tekken",
        PreTokenizer(
            (rf"{_cased(_CAPITAL, _SMALL, '')}|\p{{N}}|{_SIGNS_OR_SLASH}|{_LINES}|{_SPACES}",),
            ignore_merges=True,
            add_bos=True,
        ),
    )
    yield (
        "chameleon",
        PreTokenizer(
            (
                "<sentinel:[0-9]+>",
                "IMGIMG[A-I]{1,4}Z",
                r"[\t\n]|    |  ",
                r"\p{N}",
                r"[\p{P}!-/:-@\[-`{-~]",
                _GPT2,
            ),
            add_bos=True,
        ),
    )
    yield "gpt-4o llama4 kanana2 talkie minimax-m2", _GPT4O
    yield (
        "granite-embed-multi-97m",
        PreTokenizer(
            (rf"{_cased(_CAPITAL_OR_MARK, _SMALL_OR_MARK, f'{_ENDING}?')}|{_AFTER_CASED}",), ignore_merges=True
        ),
    )
    yield "tiny_aya cohere2moe", _TINY_AYA
    yield (
        "kimi-k2",
        PreTokenizer(
            (
                rf"{_HAN}+|[^\r\n\p{{L}}\p{{N}}]?(?:(?!{_HAN})\p{{L}})+{_ENDING}?|\p{{N}}{{1,3}}"
                rf"|{_SIGNS}|{_LINES}|{_SPACES}",
            )
        ),
    )
    yield "superbpe", PreTokenizer((r"\p{N}+", "(?=([0-9]{3})+(?![0-9]))"))
    yield "bailingmoe bailingmoe2 llada-moe", _BAILING
    yield "seed-coder", PreTokenizer((rf"{_ENDING}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_LINES}|{_SPACES}",))
    yield "ufakzeka", PreTokenizer((rf"{_WORD}|\p{{N}}|{_SIGNS}|{_LINES}|{_SPACES}",))
    yield "afmoe", PreTokenizer((_THREES_FROM_THE_RIGHT, _AFMOE_SCRIPTS, _DEEPSEEK3))
    yield "laguna", PreTokenizer((r"[^\n]+|\n+", _QWEN2))
    yield (
        "exaone-moe",
        PreTokenizer(
            (
                rf"{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
                rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|{_SPACES}",
            )
        ),
    )
    yield "gemma4 granite-embed-multi-311m", _GEMMA4
    yield "sarvam-moe", PreTokenizer((r"[^\n]+|\n+",), marks_spaces=True)


PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {name: rule for names, rule in _table() for name in names.split()}
