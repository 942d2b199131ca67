"""The fields at the head of a GGUF file, whole: names, numbers, texts and lists, and nothing of the tensors.

The format is ggml's (`docs/gguf.md`). gguf's own reader makes several objects of each of a vocabulary's 400,000 texts
and takes seconds; tensors are read by `networks.gguf_file`.
"""

import mmap
import struct
from pathlib import Path
from typing import Any

from engine.base.errors import ModelFileError
from engine.base.language import _

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_VERSIONS = (2, 3)
_MOST_NESTED = 4


def read_fields(path: Path) -> dict[str, Any]:
    """All fields of a file by name.

    Raises:
        ModelFileError: it cannot be read, is no GGUF file, or is damaged.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Head(data).fields()
    except OSError as error:
        raise ModelFileError(_("cannot read {path}: {reason}", path=path, reason=error.strerror or error)) from error
    except (ValueError, KeyError, struct.error, UnicodeError) as error:
        raise ModelFileError(
            _("{path} is not a usable GGUF file ({error}); fetch it again", path=path, error=error)
        ) from error


class _Head:
    """A reader that has come as far as `at`."""

    def __init__(self, data: mmap.mmap) -> None:
        if data[:4] != b"GGUF":
            raise ValueError(_("it does not begin with GGUF"))
        self._data = data
        self._at = 4
        self._order = "<"
        version = self._number("I")
        if version not in _VERSIONS and version & 0xFFFF == 0:  # written on a machine of the other byte order
            self._order = ">"
            self._at = 4
            version = self._number("I")
        if version not in _VERSIONS:
            raise ValueError(_("its version is {version}", version=version))

    def fields(self) -> dict[str, Any]:
        self._number("Q")  # tensors
        found: dict[str, Any] = {}
        for _field in range(self._number("Q")):
            name = self._texts(1)[0]
            found[name] = self._value(self._number("I"))
        return found

    def _number(self, format: str) -> Any:
        return self._numbers(format, 1)[0]

    def _numbers(self, format: str, count: int) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{format}") * count
        if size > len(self._data) - self._at:
            raise ValueError(_("a list is longer than the file"))
        found = struct.unpack_from(f"{self._order}{count}{format}", self._data, self._at)
        self._at += size
        return found

    def _texts(self, count: int) -> list[str]:
        data, at = self._data, self._at
        if count > (len(data) - at) // 8:
            raise ValueError(_("a list is longer than the file"))
        length_at = struct.Struct(f"{self._order}Q").unpack_from
        found = []
        for _text in range(count):
            start = at + 8
            at = start + length_at(data, at)[0]
            if at > len(data):
                raise ValueError(_("a text is longer than the file"))
            found.append(data[start:at].decode("utf-8", errors="replace"))
        self._at = at
        return found

    def _value(self, kind: int, nested: int = 0) -> Any:
        if kind == _TEXT:
            return self._texts(1)[0]
        if kind != _LIST:
            return self._number(_SCALARS[kind])
        if nested == _MOST_NESTED:
            raise ValueError(_("its lists are nested too deep"))
        kind, count = self._number("I"), self._number("Q")
        if kind == _TEXT:
            return self._texts(count)
        if kind == _LIST:
            if count > len(self._data) - self._at:
                raise ValueError(_("a list is longer than the file"))
            return [self._value(kind, nested + 1) for _item in range(count)]
        return self._numbers(_SCALARS[kind], count)
