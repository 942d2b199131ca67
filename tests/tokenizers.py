"""Small tokenizers of the kinds that people's models have."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

WORDS = ["Yes", "No", "ly", "is", "slow", "the", "sky", "Answer", ":"]


def pieces(*, prefix: str = "prepend", spaces: int = 0) -> "Backend":
    """SentencePiece's byte pairs, as Llama 2, Mistral and Gemma have them.

    Args:
        prefix: what puts a space before a text: a normalizer that prepends (`prepend`, Llama 2), the pre-tokenizer's
            `first` or `always` (converted by newer libraries), or nothing (`never`, Gemma).
        spaces: runs of spaces up to this length are added tokens (Gemma).
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "\u0301"]
    vocabulary += [*sorted({char for word in WORDS for char in word}), "日", "本"]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        merges += [(word[:cut], word[cut]) for cut in range(1, len(word))] + [("▁", word)]
    merges += [("▁", "▁"), ("▁▁", "▁")]
    vocabulary += dict.fromkeys(piece for pair in merges if (piece := "".join(pair)) not in vocabulary)
    ids = {piece: id for id, piece in enumerate(vocabulary)}
    backend = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    marks = normalizers.Replace(" ", "▁")
    if prefix in ("first", "always"):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    else:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), marks]) if prefix == "prepend" else marks
    strip = [] if prefix == "never" else [decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.add_tokens([AddedToken("▁" * count, normalized=False) for count in range(2, spaces + 1)])
    return backend


def composed() -> "Backend":
    """Bytes of text in Unicode's composed form, as Qwen's."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    backend = Tokenizer(
        models.BPE({char: id for id, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend
