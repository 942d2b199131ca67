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
