"""SentencePiece's `tokenizer.model`: pieces with scores, and how a text is changed before it is cut.

The format is sentencepiece's `sentencepiece_model.proto`, of which a few fields are read here; ids are those of
`SentencePieceProcessor.encode`.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import ModelFileError
from engine.base.language import _

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_UNIGRAM, _BPE = 1, 2
_FIXED_64, _BYTES, _FIXED_32 = 1, 2, 5  # protobuf's wire types; 0 is a number of 7 bits a byte


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a file holds of interest. Ids are −1 where there is no such token."""

    texts: list[str]
    scores: list[float]
    kinds: list[int]
    model: int
    byte_fallback: bool
    unknown: int
    bos: int
    eos: int
    charsmap: bytes
    adds_prefix: bool
    removes_extra_spaces: bool


def sentencepiece_backend(
    file: Path, renamed: Mapping[int, str], *, add_bos: bool, add_eos: bool
) -> "tuple[Backend, dict[str, str]]":
    """The tokenizer that a file describes, and what its special tokens are called.

    Args:
        renamed: other texts for pieces, by id.

    Raises:
        ModelFileError: it is damaged, or of a kind that is neither byte pairs nor unigram.
    """
    from tokenizers import AddedToken, Tokenizer, models, processors

    pieces = _read(file)
    for id, text in renamed.items():
        if id < len(pieces.texts) and text not in pieces.texts:
            pieces.texts[id] = text
    unknown = pieces.texts[pieces.unknown] if 0 <= pieces.unknown < len(pieces.texts) else None
    if pieces.model == _UNIGRAM:
        backend = Tokenizer(
            models.Unigram(
                list(zip(pieces.texts, _unigram_scores(pieces))),
                None if unknown is None else pieces.unknown,
                pieces.byte_fallback,
            )
        )
    elif pieces.model == _BPE:
        ids = {text: id for id, text in enumerate(pieces.texts)}
        backend = Tokenizer(
            models.BPE(
                ids,
                list(_merges(ids, pieces)),
                unk_token=unknown,
                fuse_unk=True,
                byte_fallback=pieces.byte_fallback,
            )
        )
    else:
        raise ModelFileError(
            _("{path} is of a kind of SentencePiece's that cannot be used: neither byte pairs nor unigram", path=file)
        )
    backend.normalizer = _normalizer(pieces)
    backend.decoder = _decoder(prefixed=pieces.adds_prefix)
    for kind in (_CONTROL, _USER_DEFINED):
        found = [text for text, its in zip(pieces.texts, pieces.kinds) if its == kind]
        backend.add_tokens([AddedToken(text, normalized=False, special=kind == _CONTROL) for text in found])
    if unknown is not None:
        backend.add_special_tokens([AddedToken(unknown, normalized=False, special=True)])
    named = {"bos_token": pieces.bos, "eos_token": pieces.eos, "unk_token": pieces.unknown}
    names = {name: pieces.texts[id] for name, id in named.items() if 0 <= id < len(pieces.texts)}
    around = [
        names.get("bos_token") if add_bos else None,
        "$A",
        names.get("eos_token") if add_eos else None,
    ]
    used = [part for part in around if part is not None]
    if len(used) > 1:
        backend.post_processor = processors.TemplateProcessing(
            single=used, special_tokens=[(part, pieces.texts.index(part)) for part in used if part != "$A"]
        )
    return backend, names


def _merges(ids: Mapping[str, int], pieces: Pieces) -> Iterator[tuple[str, str]]:
    """All pairs of pieces that make a piece, the piece of the highest score first."""
    usable = (_NORMAL, _USER_DEFINED, _UNUSED)
    for text in sorted(ids, key=lambda text: -pieces.scores[ids[text]]):
        if pieces.kinds[ids[text]] in usable:
            for cut in range(1, len(text)):
                left, right = text[:cut], text[cut:]
                if left in ids and right in ids:
                    yield left, right


def _unigram_scores(pieces: Pieces) -> Iterator[float]:
    """Scores that keep control and byte tokens out of a text; what users defined is found before the text is cut."""
    least = min((score for score, kind in zip(pieces.scores, pieces.kinds) if kind == _NORMAL), default=0.0)
    for score, kind in zip(pieces.scores, pieces.kinds):
        yield score if kind == _NORMAL else 0.0 if kind == _USER_DEFINED else least - 100.0


def _normalizer(pieces: Pieces) -> Any:
    from tokenizers import Regex, normalizers

    steps: list[Any] = []
    if pieces.charsmap:
        steps.append(normalizers.Precompiled(pieces.charsmap))
    if pieces.removes_extra_spaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if pieces.adds_prefix:
        steps.append(normalizers.Prepend("▁"))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])


def _decoder(*, prefixed: bool) -> Any:
    from tokenizers import decoders

    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefixed else parts)


def _read(file: Path) -> Pieces:
    try:
        return _pieces(file.read_bytes())
    except OSError as error:
        raise ModelFileError(_("cannot read {path}: {reason}", path=file, reason=error.strerror or error)) from error
    except (ValueError, IndexError, struct.error) as error:
        raise ModelFileError(_("{path} is no usable tokenizer: {error}", path=file, error=error)) from error


def _pieces(data: bytes) -> Pieces:
    texts, scores, kinds = [], [], []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(value))
            texts.append(piece.get(1, b"").decode())
            scores.append(struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0)
            kinds.append(piece.get(3, _NORMAL))
        elif number == 2:
            trainer |= dict(_fields(value))
        elif number == 3:
            normalizer |= dict(_fields(value))
    if not texts:
        raise ValueError(_("it holds no pieces"))
    return Pieces(
        texts,
        scores,
        kinds,
        model=trainer.get(3, _UNIGRAM),
        byte_fallback=bool(trainer.get(35, 0)),
        unknown=_signed(trainer.get(40, 0)),
        bos=_signed(trainer.get(41, 1)),
        eos=_signed(trainer.get(42, 2)),
        charsmap=normalizer.get(2, b""),
        adds_prefix=bool(normalizer.get(3, 1)),
        removes_extra_spaces=bool(normalizer.get(4, 1)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protobuf message: numbers, and bytes of all else."""
    at = 0
    while at < len(data):
        key, at = _number(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _number(data, at)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            size, at = _number(data, at)
        elif wire in (_FIXED_32, _FIXED_64):
            size = 4 if wire == _FIXED_32 else 8
        else:
            raise ValueError(_("it is no file of SentencePiece's"))
        if at + size > len(data):
            raise ValueError(_("it ends before its end"))
        yield key >> 3, data[at : at + size]
        at += size


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number, seven bits a byte from the lowest, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(_("it is no file of SentencePiece's"))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
