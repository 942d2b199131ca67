"""The files that a GGUF model lies in: one, or parts named `NAME-00001-of-00003.gguf`."""

import re
from pathlib import Path

from engine.base.errors import ModelFileError
from engine.base.language import _

_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def gguf_parts(path: Path) -> list[Path]:
    """All files of a model in order, the one with its settings first.

    Args:
        path: of any of them.

    Raises:
        ModelFileError: one is missing.
    """
    found = _PART.fullmatch(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    files = [path.with_name(f"{found['name']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    missing = [file.name for file in files if not file.is_file()]
    if missing or path not in files:
        name = missing[0] if missing else f"{found['name']}-00001-of-{count:05}.gguf"
        raise ModelFileError(
            _("{path} is one of {count} parts, and {missing} is not beside it", path=path, count=count, missing=name)
        )
    return files


def gguf_title(path: Path) -> str:
    """A model's name by that of its file."""
    found = _PART.fullmatch(path.name)
    return found["name"] if found else path.stem
