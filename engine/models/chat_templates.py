"""Where a model's folder keeps its chat templates, and which of several is for a conversation.

As transformers reads them (5.23): files of their own come before what `tokenizer_config.json` holds, one text or a list
of named ones; `chat_template.json` is an older place, a processor's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.networks.pretrained import read_json

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class ChatTemplates:
    """What a model's files have.

    Attributes:
        default: of a conversation without tools.
        others: those for something else, by name.
    """

    default: str | None = None
    others: Mapping[str, str] = field(default_factory=dict)


def chat_templates(folder: Path, settings: Mapping[str, Any]) -> ChatTemplates:
    """The templates of a folder.

    Args:
        settings: what `tokenizer_config.json` holds.
    """
    if files := _files(folder):
        return _of(files)
    if (given := settings.get("chat_template")) is not None:
        return _of(given)
    legacy = folder / "chat_template.json"
    return _of(read_json(legacy).get("chat_template")) if legacy.is_file() else ChatTemplates()


def _files(folder: Path) -> dict[str, str]:
    """Templates in files of their own, by name: the default one, and those of a folder, which may hold another."""
    places = {DEFAULT: folder / "chat_template.jinja"}
    places |= {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    return {name: file.read_text(encoding="utf-8", errors="replace") for name, file in places.items() if file.is_file()}


def _of(given: object) -> ChatTemplates:
    """One template, or named ones in either form that files have."""
    if isinstance(given, list):
        given = {one.get("name"): one.get("template") for one in given if isinstance(one, dict)}
    if not isinstance(given, dict):
        given = {DEFAULT: given}
    named = {str(name): text for name, text in given.items() if isinstance(text, str)}
    return ChatTemplates(named.pop(DEFAULT, None), named)
