"""Conversations as options give them: `--messages`, `--system`, `--chat-option` and those around them."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.base.errors import ContextError, InputError, MachineError
from engine.base.files import read_text, write_text
from engine.base.language import _
from engine.cli.inputs import MAX_TEXT_BYTES, Begun, require, text_of
from engine.cli.options import Chat
from engine.cli.output import answer_of, remark
from engine.generation.events import Start
from engine.generation.result import LaneResult
from engine.models.model import Model
from engine.text.answer import known_template
from engine.text.conversation import Conversation, Message, from_json_lines, to_json, to_json_lines
from engine.text.layout import ANSWER, TEMPLATE
from engine.text.rendering import twice_begun
from engine.text.template import JSON_VARIABLES
from engine.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class InTemplate:
    """How texts are put into the model's chat template."""

    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system message, in the place of the conversation's.")
    ] = None
    chat_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A variable of the chat template, as enable_thinking=false; repeatable. logitlab template lists them.",
        ),
    ] = None
    special: Annotated[
        bool, typer.Option("--special", help="Control tokens typed in messages are those tokens, not letters.")
    ] = False
    chat: Chat = False

    @property
    def wanted(self) -> bool:
        """Whether a text becomes a conversation."""
        return self.system is not None or bool(self.chat_option) or self.special or self.chat

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """The options of the template, as they were typed. Raises `InputError`."""
        return tuple(map(_parted, self.chat_option or ()))

    def put(self, conversation: Conversation) -> Conversation:
        """With the system message, and with control tokens as they are wanted."""
        if self.system is not None:
            conversation = conversation.with_system(self.system)
        if self.special:
            marked = tuple(replace(one, special=True) for one in conversation.messages)
            conversation = replace(conversation, messages=marked)
        return conversation


@dataclass(frozen=True)
class Talk(InTemplate):
    """How a prompt becomes a conversation, or a file is one."""

    messages: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A conversation: OpenAI's messages in JSON; - reads standard input."),
    ] = None
    prefill: Annotated[str | None, typer.Option(metavar="TEXT", help="What the assistant's answer begins with.")] = None
    goes_on: Annotated[bool, typer.Option("--continue", help="Go on with the last message, the assistant's.")] = False

    def read(
        self,
        prompt: str | None,
        name: str,
        *,
        take: Callable[[str], str] = text_of,
        answered: bool = False,
        empty: bool = False,
    ) -> "Asked":
        """What is asked for, as far as it needs no model. Raises `InputError`.

        Args:
            prompt: the command's argument: a user's message behind the conversation.
            name: of that argument.
            take: reads it.
            answered: whether a conversation may end with an answer, as where it is not gone on with.
            empty: whether a text alone may be.
        """
        if prompt == "-" and self.messages == "-":
            raise InputError(_("standard input is {name} or the messages, not both", name=name))
        if prompt is None and self.messages is None:
            raise InputError(_("{name} is missing; give it, or a conversation with --messages FILE", name=name))
        text = "" if prompt is None else take(prompt)
        talked = self.wanted or self.goes_on or self.messages is not None or self.prefill is not None
        if prompt is not None and not (empty and not talked):
            require(text)
        if not talked:
            return Asked(text)
        conversation = Conversation(()) if self.messages is None else read_conversation(self.messages)
        conversation = with_prompt(conversation, None if prompt is None else text)
        return Asked(text, self.put(self._begun(conversation, answered)), self.options)

    def _begun(self, conversation: Conversation, answered: bool) -> Conversation:
        """With the beginning of the answer, or without any."""
        ends = conversation.messages[-1].role == "assistant"
        if self.prefill is not None:
            if ends:
                raise InputError(_("the last message is the assistant's already; leave --prefill out"))
            more = Message("assistant", self.prefill)
            return replace(conversation, messages=(*conversation.messages, more), continues=True)
        if self.goes_on or not ends:
            return replace(conversation, continues=self.goes_on)
        if not answered:
            raise InputError(
                _("the last message is the assistant's: --continue goes on with it, or give a user's message behind it")
            )
        return replace(conversation, options={ANSWER: False, **conversation.options})


@dataclass(frozen=True)
class Asked:
    """A text, or a conversation with the options of its template that were typed."""

    text: str
    conversation: Conversation | None = None
    options: tuple[tuple[str, str], ...] = ()

    def begin(self, tokenizer: Tokenizer) -> Begun:
        """Where a lane with that tokenizer begins. Raises `InputError`."""
        if self.conversation is None:
            tokens = tuple(tokenizer.encode(self.text))
            said = twice_begun(tokens, tokenizer.special_tokens.get("bos_token"))
            return Begun(self.text, Start(tokens), remarks=(said,) if said else ())
        conversation = with_options(self.conversation, self.options, tokenizer)
        rendered = tokenizer.encode_conversation(conversation)
        return Begun(self.text, Start(rendered.tokens, conversation=conversation), rendered, rendered.remarks)

    def begin_all(self, models: Sequence[Model], new: Sequence[int]) -> list[Begun]:
        """Where lanes begin that are to write so many tokens; what a person should know goes to the error stream.

        Raises:
            InputError: the conversation cannot be put.
            ContextError: it does not fit.
        """
        begun = [self.begin(model.tokenizer) for model in models]
        for one, model, more in zip(begun, models, new, strict=True):
            if one.rendered is not None and (why := one.rendered.not_fitting(model.facts.context_length, more)):
                raise ContextError(why)
        say_remarks(begun)
        return begun


def say_remarks(begun: Sequence[Begun]) -> None:
    """Say on stderr what a person should know of prompts and conversations, each sentence once."""
    for text in dict.fromkeys(text for one in begun for text in one.remarks):
        remark(text)


def read_conversation(file: str) -> Conversation:
    """The conversation in a file, or in standard input for `-`. Raises `InputError` naming the file."""
    text = text_of(file) if file == "-" else read_text(Path(file), MAX_TEXT_BYTES)
    shown = _("standard input") if file == "-" else file
    try:
        found = from_json_lines(text)
    except InputError as error:
        raise InputError(_("{file}: {error}", file=shown, error=error)) from error
    if len(found) > 1:
        raise InputError(
            _("{file} holds {count:,} conversations; give one, or all to logitlab batch", file=shown, count=len(found))
        )
    return found[0]


def with_prompt(conversation: Conversation, prompt: str | None) -> Conversation:
    """A conversation with a prompt as one more message of the user's behind it."""
    if prompt is None:
        return conversation
    return replace(conversation, messages=(*conversation.messages, Message("user", prompt)))


def with_options(conversation: Conversation, typed: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> Conversation:
    """A conversation with options of its template as they were typed. Raises `InputError`."""
    if not typed:
        return conversation
    if named := [text for name, text in typed if name == TEMPLATE]:
        conversation = replace(conversation, options={**conversation.options, TEMPLATE: named[-1]})
    json_names = set(JSON_VARIABLES)
    if known_template(tokenizer, conversation) is not None:
        known = tokenizer.template_variables(conversation)
        json_names |= {one.name for one in known if one.kind == "json"}
    values = {name: _value(name, text, name in json_names) for name, text in typed}
    return replace(conversation, options={**conversation.options, **values})


def _parted(typed: str) -> tuple[str, str]:
    name, equals, value = typed.partition("=")
    if not equals or not name.strip():
        raise InputError(_("chat-option is {typed!r}; allowed: NAME=VALUE, as enable_thinking=false", typed=typed[:80]))
    return name.strip(), value


def _value(name: str, text: str, is_json: bool) -> Any:
    """JSON where it is some, and for a variable that is JSON what a file holds; else the text."""
    try:
        return _json(text)
    except ValueError:
        if not is_json:
            return text
    try:
        return _json(read_text(Path(text), MAX_TEXT_BYTES))
    except ValueError as error:
        raise InputError(_("{path} is no JSON: {error}", path=text, error=str(error)[:200])) from error
    except InputError as error:
        raise InputError(_("{name} takes JSON, or a file of JSON: {error}", name=name, error=error)) from error


def _json(text: str) -> Any:
    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        return json.loads(text, parse_constant=refuse)  # NaN and Infinity are none
    except RecursionError as error:
        raise ValueError(str(error)) from error


def save_answer(file: Path | None, model: Model, begun: Begun, lane: LaneResult) -> None:
    """Write the conversation with what a lane wrote behind it, as OpenAI's messages; none without a file.

    A `.jsonl` gets a line more, any other file is written anew.
    """
    talked = answer_of(model, begun, lane)
    if file is None or talked is None:
        return
    talked = replace(talked, options={name: one for name, one in talked.options.items() if name != ANSWER})
    if file.suffix != ".jsonl":
        write_text(file, to_json(talked) + "\n")
        return
    line = to_json_lines([talked]).encode("utf-8", "backslashreplace")
    try:
        with file.open("a+b") as lines:
            if lines.tell():
                lines.seek(-1, os.SEEK_END)
                line = line if lines.read(1) == b"\n" else b"\n" + line  # the last line was not ended
            lines.write(line)
    except OSError as error:
        why = error.strerror or error
        raise MachineError(_("cannot write {path}: {why}; choose another place", path=file, why=why)) from error
