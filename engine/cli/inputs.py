"""Texts as they are given: an argument, a file or standard input."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.files import read_text
from engine.base.language import _
from engine.generation.events import Prompt, Start
from engine.text.conversation import Conversation
from engine.text.prompts import lines
from engine.text.rendering import Rendered
from engine.text.token import Token
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


@dataclass(frozen=True)
class Begun:
    """Where a lane begins.

    Attributes:
        text: as it was typed.
        rendered: the conversation in the model's chat template; `None` for a text as it is.
        remarks: what a person should know of it, a sentence each.
    """

    text: str
    start: Start
    rendered: Rendered | None = None
    remarks: tuple[str, ...] = ()

    def token_dicts(self, tokens: Sequence[Token]) -> list[dict[str, Any]]:
        """The prompt's tokens in JSON, in a conversation each with its message."""
        found = [asdict(token) for token in tokens]
        if self.rendered is None:
            return found
        # A server may have counted other tokens than were sent.
        own = self.rendered.messages if len(self.rendered.messages) == len(found) else (None,) * len(found)
        return [token | {"message": message} for token, message in zip(found, own)]

    def to_dict(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """The prompt in JSON, of a conversation with its messages and the text that the template made of them."""
        data: dict[str, Any] = {"text": self.text, "tokens": self.token_dicts(tokens)}
        conversation = self.start.conversation
        if conversation is None or self.rendered is None:
            return data
        options = {"chat_options": dict(conversation.options)} if conversation.options else {}
        return data | {"messages": conversation.to_list(), **options, "rendered": self.rendered.text}


def start_of(tokenizer: Tokenizer, text: str, chat: bool) -> Start:
    """A lane's beginning: the text as it is, or in the model's chat template."""
    return Prompt(text, Conversation.of(text) if chat else None).start(tokenizer)


def require(prompt: str) -> None:
    if not prompt:
        raise InputError(_("the prompt is empty; type at least one character"))
