"""The tokenizer of a GGUF file, built from the file's own fields as llama.cpp builds it.

Source: llama.cpp, `src/llama-vocab.cpp`, as in llama-cpp-python 0.3.36. The `tokenizers` library differs from it in
little: of special tokens whose texts overlap it takes the first in a text, not the longest; Phi-3's take every kind of
space after them, not only ASCII's; among pieces of equal score their order decides, not their place in the text; and
in the vocabularies of encoders it normalises marks, invisible characters and Hangul as BERT and T5 do themselves.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import ModelFileError
from engine.base.language import _
from engine.models.gguf_fields import read_fields
from engine.models.gguf_vocabulary import SPECIAL, Kind, Vocabulary, read_vocabulary
from engine.text.spelling import byte_alphabet, spelled
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers


_NAMES_IN_TEMPLATES = {
    "bos": "bos_token",
    "eos": "eos_token",
    "unknown": "unk_token",
    "seperator": "sep_token",
    "padding": "pad_token",
    "mask": "mask_token",
}


class GgufTokenizer(Tokenizer):
    """A tokenizer whose entries spell what its file says.

    Attributes:
        warning: why its tokens may be others than those the model learned with.
    """

    def __init__(self, backend: "tokenizers.Tokenizer", vocabulary: Vocabulary) -> None:
        fields = vocabulary.fields
        template = fields.get("tokenizer.chat_template")
        super().__init__(
            backend,
            vocabulary.ends,
            template if isinstance(template, str) else None,
            {
                name: vocabulary.texts[vocabulary.named[key]]
                for key, name in _NAMES_IN_TEMPLATES.items()
                if key in vocabulary.named
            },
        )
        named = "tokenizer.chat_template."
        self.other_templates = {
            key.removeprefix(named): text
            for key, text in fields.items()
            if key.startswith(named) and isinstance(text, str)
        }
        self.warning = vocabulary.warning
        self._texts, self._kinds = vocabulary.texts, vocabulary.kinds
        self._marks_spaces = vocabulary.marks_spaces
        self._special = {id for id, kind in enumerate(vocabulary.kinds) if kind in SPECIAL}

    @property
    def highest_id(self) -> int:
        own = (id for id in reversed(range(len(self._texts))) if id not in self._added)
        return next(own, -1)

    @property
    def vocabulary_size(self) -> int:
        return len(self._texts)

    def bytes_of(self, id: int) -> bytes:
        if not 0 <= id < len(self._texts):
            return b""
        text, kind = self._texts[id], self._kinds[id]
        if kind in (*SPECIAL, Kind.USER_DEFINED):
            return text.encode()
        if kind == Kind.BYTE:
            return spelled(text, metaspace=True)
        return text.replace("▁", " ").encode() if self._marks_spaces else spelled(text)


def gguf_tokenizer(path: Path) -> GgufTokenizer:
    """The tokenizer of a file, whatever its architecture, with weights or without.

    Raises:
        ModelFileError: the file is damaged, holds no tokenizer, or one of a kind that cannot be built.
    """
    vocabulary = read_vocabulary(path.name, read_fields(path))
    build = {"llama": _pieces_by_score, "t5": _unigram, "bert": _word_pieces}.get(vocabulary.model, _byte_pairs)
    backend = build(vocabulary)
    _add_special(backend, vocabulary)
    _add_ends(backend, vocabulary)
    return GgufTokenizer(backend, vocabulary)


def _byte_pairs(vocabulary: Vocabulary) -> "tokenizers.Tokenizer":
    """Merges in the order of their list, within the words that the rule cuts."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    rule, ids = vocabulary.rule, dict(vocabulary.ids)
    merges = vocabulary.fields.get("tokenizer.ggml.merges", ())
    how = {"ignore_merges": rule.ignore_merges, "byte_fallback": rule.marks_spaces}
    try:
        model = models.BPE(ids, [tuple(text.split(" ", 1)) for text in merges], **how)
    except Exception:  # some merge makes no entry, or of none: the library names it and stops
        pairs = map(_pair, merges)
        whole = [(left, right) for left, right in pairs if left in ids and right in ids and left + right in ids]
        model = models.BPE(ids, whole, **how)
    backend = tokenizers.Tokenizer(model)
    cuts: list[Any] = [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated") for pattern in rule.patterns]
    if rule.marks_spaces:
        backend.normalizer = normalizers.Replace(" ", "▁")
        backend.decoder = _pieces_decoder(prefixed=False)
    else:
        cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        if lacking := "".join(sorted(byte_alphabet().keys() - ids.keys())):
            # The library would merge across a byte that the vocabulary lacks.
            cuts.append(pre_tokenizers.Split(tokenizers.Regex(f"[{_escaped(lacking)}]"), "isolated"))
        backend.decoder = decoders.ByteLevel()
    backend.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    return backend


def _pair(merge: str) -> tuple[str, str]:
    """The two parts of a merge, the first of which may begin with a space."""
    cut = merge.find(" ", 1)
    return (merge[:cut], merge[cut + 1 :]) if cut > 0 else ("", "")


def _escaped(chars: str) -> str:
    return "".join(f"\\x{{{ord(char):x}}}" for char in chars)


def _pieces_by_score(vocabulary: Vocabulary) -> "tokenizers.Tokenizer":
    """SentencePiece's byte pairs: of all neighbours that make an entry, those of the highest score are joined first."""
    import tokenizers
    from tokenizers import models, normalizers

    prefixed = vocabulary.flag("add_space_prefix", default=True)
    ids = dict(vocabulary.ids)
    unknown = vocabulary.named.get("unknown")
    backend = tokenizers.Tokenizer(
        models.BPE(
            ids,
            list(_merges_by_score(ids, vocabulary.scores)),
            unk_token=None if unknown is None else vocabulary.texts[unknown],
            byte_fallback=True,
        )
    )
    marks = [normalizers.Replace(" ", "▁")]
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), *marks] if prefixed else marks)
    backend.decoder = _pieces_decoder(prefixed=prefixed)
    return backend


def _merges_by_score(ids: Mapping[str, int], scores: Sequence[float]) -> Iterator[tuple[str, str]]:
    """All pairs of entries that make an entry, best entry first."""
    for text in sorted(ids, key=lambda text: -scores[ids[text]]):
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                yield left, right


def _pieces_decoder(*, prefixed: bool) -> Any:
    from tokenizers import decoders

    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefixed else parts)


def _unigram(vocabulary: Vocabulary) -> "tokenizers.Tokenizer":
    """SentencePiece's unigram model: the most probable pieces."""
    import tokenizers
    from tokenizers import decoders, models, normalizers

    kinds = vocabulary.kinds
    normal = [score for score, kind in zip(vocabulary.scores, kinds) if kind == Kind.NORMAL]
    least = min(normal, default=0.0)
    # Control and byte tokens are no part of a text: the score of the least probable piece keeps them out of it.
    scores = [
        score if kind in (Kind.NORMAL, Kind.UNUSED) else 0.0 if kind == Kind.USER_DEFINED else least
        for score, kind in zip(vocabulary.scores, kinds)
    ]
    pieces = list(zip(_distinct(vocabulary), scores))
    backend = tokenizers.Tokenizer(models.Unigram(pieces, vocabulary.named.get("unknown"), byte_fallback=False))
    steps: list[Any] = []
    if charsmap := vocabulary.fields.get("tokenizer.ggml.precompiled_charsmap"):
        data = bytes(value & 0xFF for value in charsmap)
        if int.from_bytes(data[:4], "little") + 4 >= len(data):  # the library would panic
            raise ModelFileError(_("the file's table of characters is damaged; fetch it again"))
        steps.append(normalizers.Precompiled(data))
    regex = tokenizers.Regex
    prefixed = vocabulary.flag("add_space_prefix", default=False)
    if vocabulary.flag("remove_extra_whitespaces", default=False):
        steps += [normalizers.Replace(regex(r"\A +| +\z"), ""), normalizers.Replace(regex(" +"), "▁")]
        steps.append(normalizers.Prepend("▁"))
    else:
        if prefixed:
            steps.append(normalizers.Replace(regex(r"\A(?=(?m:.*)[^ ])"), "▁"))
        steps.append(normalizers.Replace(" ", "▁"))
    backend.normalizer = normalizers.Sequence(steps)
    backend.decoder = decoders.Metaspace(prepend_scheme="always" if prefixed else "never")
    return backend


def _word_pieces(vocabulary: Vocabulary) -> "tokenizers.Tokenizer":
    """BERT's: each word as its longest entries from the left, the first of them marked with `▁`."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    unknown = vocabulary.texts[vocabulary.named["unknown"]] if "unknown" in vocabulary.named else "[UNK]"
    backend = tokenizers.Tokenizer(
        models.WordPiece(
            dict(vocabulary.ids),
            unk_token=unknown,
            continuing_subword_prefix="",
            max_input_chars_per_word=1_000_000_000,
        )
    )
    lowercase = vocabulary.flag("normalizer.lowercase", default=True)
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=True,
        strip_accents=vocabulary.flag("normalizer.strip_accents", default=lowercase),
        lowercase=lowercase,
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Metaspace(prepend_scheme="always", split=False)]
    )
    backend.decoder = decoders.Metaspace()
    return backend


def _distinct(vocabulary: Vocabulary) -> list[str]:
    """Texts by id, where of equal ones only the last keeps its own: the library knows an entry by its text."""
    if len(vocabulary.ids) == len(vocabulary.texts):
        return list(vocabulary.texts)
    many = Counter(vocabulary.texts)
    return [
        text if many[text] == 1 or vocabulary.ids[text] == id else f"{text}\ufdd0{id}"
        for id, text in enumerate(vocabulary.texts)
    ]


def _add_special(backend: "tokenizers.Tokenizer", vocabulary: Vocabulary) -> None:
    """Tokens that are found in a text before it is cut."""
    from tokenizers import AddedToken

    name = str(vocabulary.fields.get("general.name", "")).lower()
    strips = "phi-3" in name or "phi3" in name
    kept = ("<unk>", "<s>", "<|endoftext|>")
    for special in (True, False):
        backend.add_tokens(
            [
                AddedToken(
                    text,
                    special=special,
                    normalized=False,
                    rstrip=strips and text not in kept,
                    lstrip=text == _mask_that_strips(vocabulary),
                )
                for text, id in vocabulary.ids.items()
                if vocabulary.kinds[id] in (SPECIAL if special else (Kind.USER_DEFINED,))
            ]
        )


def _mask_that_strips(vocabulary: Vocabulary) -> str | None:
    """The mask token that takes the spaces before it, in the models where it does."""
    pre = str(vocabulary.fields.get("tokenizer.ggml.pre"))
    architecture = str(vocabulary.fields.get("general.architecture"))
    if any(part in pre for part in ("jina-v2-de", "jina-v2-es", "jina-v2-code")):
        return "<mask>"
    if any(part in architecture for part in ("nomic-bert-moe", "jina-bert-v3")):
        return "<mask>"
    return "[MASK]" if "modern-bert" in str(vocabulary.fields.get("general.name", "")).lower() else None


def _add_ends(backend: "tokenizers.Tokenizer", vocabulary: Vocabulary) -> None:
    """What is put around a text."""
    from tokenizers import processors

    rule, named = vocabulary.rule, vocabulary.named
    if vocabulary.model == "bert":
        before, after = named.get("bos"), named.get("seperator")
    else:
        adds_bos = vocabulary.flag("add_bos_token", default=vocabulary.model == "llama" or rule.add_bos)
        adds_eos = vocabulary.flag("add_eos_token", default=vocabulary.model == "t5")
        before = named.get("bos") if adds_bos or rule.always_bos else None
        after = named.get("eos") if adds_eos else None
    around = {key: id for key, id in (("before", before), ("after", after)) if id is not None}
    if around:
        backend.post_processor = processors.TemplateProcessing(
            single=[part for part in ("before", "$A", "after") if part in around or part == "$A"],
            special_tokens=[{"id": key, "ids": [id], "tokens": [vocabulary.texts[id]]} for key, id in around.items()],
        )
