"""Between bytes and the pieces of a vocabulary."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

UNKNOWN = "�".encode()  # what stands for bytes that are no whole character, where nobody tells which


def ends_from_pieces(data: bytes, pieces: Sequence[bytes]) -> list[int]:
    """Byte ends that tile `data`, from what the tokens spell: a piece that is not what comes next is no part of it."""
    ends, reached = [], 0
    for index, piece in enumerate(pieces):
        if data.startswith(piece, reached):
            reached += len(piece)
        elif index and data.startswith(piece.lstrip(), reached):
            reached += len(piece.lstrip())
        elif UNKNOWN in piece:  # part of a character, of which a server tells no more
            reached = min(reached + 1, len(data))
        ends.append(reached)
    if ends:
        ends[-1] = len(data)
    return ends


def running_total(lengths: Iterable[int]) -> list[int]:
    total = 0
    ends = []
    for length in lengths:
        total += length
        ends.append(total)
    return ends


def ends_from_offsets(text: str, offsets: Sequence[tuple[int, int]], added: Sequence[int]) -> list[int]:
    """Byte ends that tile `text`, from the character offsets of a tokenizer that normalises.

    Tokens that share one character (byte fallback) take one byte each, the last the rest;
    what the tokenizer skipped goes to the token that follows it.
    """
    byte_at = [0, *running_total(len(char.encode()) for char in text)]
    real = [index for index, from_template in enumerate(added) if not from_template]
    ends = [0] * len(offsets)
    reached = 0
    for order, index in enumerate(real):
        end = byte_at[offsets[index][1]]
        following = real[order + 1] if order + 1 < len(real) else None
        if following is None:
            end = byte_at[-1]
        elif offsets[following] == offsets[index] and end > reached:
            end = min(reached + 1, end)
        reached = max(reached, end)
        ends[index] = reached
    for index in range(len(ends)):
        if added[index]:
            ends[index] = ends[index - 1] if index else 0
    return ends


def spelled(name: str, *, metaspace: bool = False) -> bytes:
    """The bytes that a name in a vocabulary stands for: byte-level BPE's, or SentencePiece's `▁` and `<0x0A>`."""
    if metaspace:
        is_byte = len(name) == 6 and name.startswith("<0x") and name.endswith(">")
        return bytes([int(name[3:5], 16)]) if is_byte else name.replace("▁", " ").encode()
    table = byte_alphabet()
    return bytes(table[char] for char in name) if all(char in table for char in name) else name.encode()


@lru_cache(maxsize=1)
def byte_alphabet() -> dict[str, int]:
    """Byte-level BPE's spelling of the 256 bytes (Radford et al. 2019, GPT-2's `encoder.py`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}
