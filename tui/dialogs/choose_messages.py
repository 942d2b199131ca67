"""Messages from a file, as OpenAI has them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.app import App

from engine.base.errors import InputError
from engine.base.files import read_text
from engine.base.language import _
from engine.text.conversation import Conversation, from_json_lines
from tui.dialogs.choose_file import ChooseFile

MAX_FILE_BYTES = 64_000_000


def ask_messages(app: App[Any], take: Callable[[Conversation], object]) -> None:
    """Let a file be named, and take the conversation in it; of several the first, or that of a number."""

    def load(path: Path) -> None:
        found, number = read(path)
        take(found[number or 0])
        if number is None and len(found) > 1:
            said = _("The first of {count:,} conversations; FILE#2 opens the second.", count=len(found))
            app.notify(said, markup=False)

    hint = _("Messages as OpenAI has them: JSON, or JSONL with a conversation a line.")
    app.push_screen(ChooseFile(_("Open messages"), hint, load))


def read(path: Path) -> tuple[list[Conversation], int | None]:
    """The conversations in a file, and the place of the one that `FILE#2` names. Raises `InputError`."""
    name, _mark, number = path.name.rpartition("#")
    if not name or not number.isdecimal() or path.exists():
        return from_json_lines(read_text(path, MAX_FILE_BYTES)), None
    found = from_json_lines(read_text(path.with_name(name), MAX_FILE_BYTES))
    if not 1 <= int(number) <= len(found):
        raise InputError(_("{name} holds {count:,} conversations", name=name, count=len(found)))
    return found, int(number) - 1
