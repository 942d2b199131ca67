"""Texts as they are given: an argument, a file or standard input."""

import sys
from pathlib import Path

from engine.base.errors import InputError
from engine.base.files import read_text
from engine.base.language import _
from engine.generation.events import Prompt, Start
from engine.text.conversation import Conversation
from engine.text.prompts import lines
from engine.text.tokenizer import Tokenizer

MAX_TEXT_BYTES = 16_000_000


def text_of(argument: str) -> str:
    """An argument, or standard input for `-`."""
    if argument != "-":
        return argument
    data = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise InputError(
            _(
                "standard input holds more than {most:,} bytes; give a shorter text",
                most=MAX_TEXT_BYTES,
            )
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            _("standard input is not UTF-8 (byte {start:,}); convert it first", start=error.start + 1)
        ) from error


def text_or_file(argument: str) -> str:
    """A file's text if there is one of that name, else the argument, or standard input for `-`."""
    try:
        path = Path(argument)
        if argument == "-" or not path.is_file():
            return text_of(argument)
    except (OSError, ValueError):  # a text too long to be a name
        return text_of(argument)
    return read_text(path, MAX_TEXT_BYTES)


def lines_of(argument: str) -> list[str]:
    """The lines of a file that are not blank, if there is a file of that name, else the argument alone."""
    text = text_or_file(argument)
    if text == argument:
        return [argument]
    found = lines(text)
    if not found:
        raise InputError(_("{argument} holds no line; give one prompt a line", argument=argument))
    return found


def start_of(tokenizer: Tokenizer, text: str, chat: bool) -> Start:
    """A lane's beginning: the text as it is, or in the model's chat template."""
    return Prompt(text, Conversation.of(text) if chat else None).start(tokenizer)


def require(prompt: str) -> None:
    if not prompt:
        raise InputError(_("the prompt is empty; type at least one character"))
