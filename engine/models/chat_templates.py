"""Where a model's folder keeps its chat templates, and which of several is for a conversation.

As transformers reads them (5.23): files of their own come before what `tokenizer_config.json` holds, one text or a list
of named ones; `chat_template.json` is an older place, a processor's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.networks.pretrained import read_json

DEFAULT = "default"


def chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The template of a conversation without tools, or `None`.

    Args:
        settings: what `tokenizer_config.json` holds.
    """
    if files := _files(folder):
        return files.get(DEFAULT)
    if (found := _default(settings.get("chat_template"))) is not None:
        return found
    legacy = folder / "chat_template.json"
    return _default(read_json(legacy).get("chat_template")) if legacy.is_file() else None


def _files(folder: Path) -> dict[str, str]:
    """Templates in files of their own, by name: the default one, and those of a folder, which may hold another."""
    places = {DEFAULT: folder / "chat_template.jinja"}
    places |= {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    return {name: file.read_text(encoding="utf-8", errors="replace") for name, file in places.items() if file.is_file()}


def _default(given: object) -> str | None:
    """The template of plain conversations among named ones, in either form that files have."""
    if isinstance(given, list):
        pairs = [(one.get("name"), one.get("template")) for one in given if isinstance(one, dict)]
        given = dict(pairs).get(DEFAULT)
    elif isinstance(given, dict):
        given = given.get(DEFAULT)
    return given if isinstance(given, str) else None
