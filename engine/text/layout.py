"""The text that a model's template makes of a conversation, and where each part of it comes from.

What a person wrote is put between marks that no text has before the template sees it. They show which message each
character comes from, and which names of control tokens were typed: those become letters, piece by piece as
transformers does it (5.23, `apply_chat_template(sanitize_control_tokens=True)`). Where marks between messages and
template change what the template writes, as where it measures a text, they are left out and messages are searched for.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any, Literal

from engine.base.errors import InputError
from engine.base.language import _
from engine.text import thinking
from engine.text.conversation import THINKING_FIELDS, Conversation, Message
from engine.text.rendering import Layout, Piece
from engine.text.template import TemplateError, literal_text, render, variables

MOST_MESSAGES = 30_000
TEMPLATE = "chat_template"  # the option that names one of several templates
# The option that says whether an answer's beginning stands behind the messages; it does unless one is continued.
ANSWER = "add_generation_prompt"
# Where a message's marks stand: around all of it, or without the white space around it, which a template may trim.
Around = Literal["message", "words"]


@dataclass(frozen=True, slots=True)
class Form:
    """What a template is given: contents as texts or in parts, calls' arguments as objects or written as JSON."""

    parts: bool = False
    written: bool = False


_MARKERS = re.compile(r"<<[^<>\s]{1,40}>>|<[^<>\s]{1,40}>|\[/?[A-Z_]{2,40}\]")


def lay_out(
    template: str,
    conversation: Conversation,
    special_tokens: Mapping[str, str],
    control_tokens: Sequence[str],
) -> Layout:
    """The text of a conversation, ready for the answer.

    Args:
        special_tokens: what templates call some of them, such as `bos_token`.
        control_tokens: those whose names are letters where a person typed them.

    Raises:
        InputError: the conversation cannot be put so.
    """
    if not conversation.messages:
        raise InputError(_("there is no message; give one at least"))
    if len(conversation.messages) > MOST_MESSAGES:
        raise InputError(
            _("{count:,} messages are more than {most:,}", count=len(conversation.messages), most=MOST_MESSAGES)
        )
    last = conversation.messages[-1]
    if conversation.continues and last.role != "assistant":
        raise InputError(_("only an assistant's message can be continued; the last one is from {role}", role=last.role))
    check_options(template, conversation.options)
    work = _Work(template, conversation, special_tokens, control_tokens)
    try:
        return work.laid_out()
    except TemplateError as error:
        others = tuple(one for one in conversation.messages if one.role not in ("system", "developer"))
        if others and len(others) < len(conversation.messages) and not _fails(replace_messages(work, others)):
            raise TemplateError(
                _(
                    "this model's template takes no system message here ({error}); "
                    "put its text into the first user message",
                    error=str(error).partition(": ")[2] or error,
                )
            ) from error
        raise


def check_options(template: str, options: Mapping[str, Any]) -> None:
    """Raise `InputError` for options that a template does not read."""
    known = [one.name for one in variables(template)]
    for name in options:
        if name not in known and name not in (TEMPLATE, ANSWER):
            listed = ", ".join(known) or _("none")
            raise InputError(
                _("this model's template reads no variable {name}; it reads: {listed}", name=name, listed=listed)
            )


def replace_messages(work: "_Work", messages: tuple[Message, ...]) -> "_Work":
    conversation = replace(work.conversation, messages=messages)
    return _Work(work.template, conversation, work.special_tokens, work.control_tokens)


def _fails(work: "_Work") -> bool:
    try:
        work.laid_out()
    except TemplateError:
        return True
    return False


class _Marks:
    """Characters that none of the texts holds: sixteen digits, and one for each kind of mark."""

    def __init__(self, texts: str, template: str) -> None:
        # Noncharacters first, which no text should hold, then private ones.
        bases = (0xFDD0, *range(0xF0000, 0xFFFE0, 32))
        self._base = next(
            base
            for base in bases
            if not any(chr(base + one) in texts or chr(base + one) in template for one in range(32))
        )
        self.start, self.end, self.open, self.shut, self.stop = (chr(self._base + 16 + one) for one in range(5))
        digits = f"{chr(self._base)}-{chr(self._base + 15)}"
        self.places = re.compile(f"{self.open}([{digits}]{{4}})|{self.shut}|{self.start}|{self.end}")

    def opening(self, number: int) -> str:
        return self.open + "".join(chr(self._base + int(digit, 16)) for digit in f"{number:04x}")

    def number(self, digits: str) -> int:
        return int("".join(f"{ord(digit) - self._base:x}" for digit in digits), 16)


class _Work:
    """One conversation and one template."""

    def __init__(
        self,
        template: str,
        conversation: Conversation,
        special_tokens: Mapping[str, str],
        control_tokens: Sequence[str],
    ) -> None:
        self.template = template
        self.conversation = conversation
        self.special_tokens = special_tokens
        self.control_tokens = control_tokens
        everything = json.dumps(
            [[one.to_dict() for one in conversation.messages], dict(conversation.options)], ensure_ascii=False
        )
        self._marks = _Marks(everything, template)
        longest_first = sorted(control_tokens, key=len, reverse=True)
        self._controls = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        literal = literal_text(template)
        self._thinking_marks = [mark for pair in thinking.OWN_MARKS for mark in pair if mark in literal]
        self._thinking = re.compile("|".join(map(re.escape, self._thinking_marks)) or "(?!)")
        read = [name for name in THINKING_FIELDS if re.search(rf"\b{name}\b", template)]
        self._fields = read or list(THINKING_FIELDS[:1])

    def laid_out(self) -> Layout:
        form = self._form()
        plain = self._rendered(None, form)
        last = self.conversation.messages[-1]
        if self.conversation.continues and self._content(last, last.content, 0, None).strip() not in plain:
            raise self._cannot_continue()
        tried = (self._rendered(around, form) for around in ("message", "words"))
        marked = next((one for one in tried if self._without_messages(one) == plain), None)
        pieces = self._pieces(plain if marked is None else marked)
        if marked is None:
            pieces = searched(list(pieces), self.conversation.messages)
        kept = tuple(piece for piece in pieces if piece.text or piece.breaks)
        opened = None if self.conversation.continues else thinking.open_mark("".join(piece.text for piece in kept))
        return Layout(kept, tuple(self._remarks(marked)), opened)

    def _form(self) -> Form:
        """The form in which the template shows most: contents as texts, and calls' arguments as objects, come first."""
        calls = [call for one in self.conversation.messages for call in one.extra.get("tool_calls") or ()]
        best, least = Form(), math.inf
        failed = None
        for form in (Form(*both) for both in product((False, True), (False, True) if calls else (False,))):
            try:
                text = self._rendered("words", form)
            except TemplateError as error:
                failed = failed or error
                continue
            faults = len(self._missing(text)) + any(_shown_as_python(self._sealed(call), text) for call in calls)
            if faults < least:
                best, least = form, faults
            if not faults:
                break
        if math.isinf(least) and failed is not None:
            raise failed
        return best

    def _rendered(self, around: Around | None, form: Form) -> str:
        """What the template writes, with marks around control tokens, and around messages where that is wanted."""
        conversation, marks = self.conversation, self._marks
        messages = [self._message(one, place, around, form) for place, one in enumerate(conversation.messages)]
        tag = f"{marks.stop} "
        if conversation.continues:
            _append(messages[-1], tag)
        given = {name: value for name, value in conversation.options.items() if name not in (TEMPLATE, ANSWER)}
        options = {name: self._sealed(value) for name, value in given.items()}
        text = render(
            self.template,
            messages,
            self.special_tokens,
            options,
            add_generation_prompt=not conversation.continues and bool(conversation.options.get(ANSWER, True)),
        )
        if not conversation.continues:
            return text
        place = text.rfind(marks.stop)
        if place < 0:
            raise self._cannot_continue()
        # As transformers does: a template that trims the message trims it at its end too.
        return text[:place] if text[place : place + 2] == tag else text[:place].rstrip()

    def _cannot_continue(self) -> TemplateError:
        return TemplateError(
            _("the template leaves out the answer that is to be continued; write it without the parts it drops")
        )

    def _message(self, message: Message, place: int, around: Around | None, form: Form) -> dict[str, Any]:
        """A message as the template gets it."""
        given = {name: _calls(name, value, written=form.written) for name, value in message.extra.items()}
        if not message.special:
            given = {name: self._sealed(value) for name, value in given.items()}
        content = self._content(message, message.content, 2 * place, around)
        if message.content or not message.extra.get("tool_calls"):
            given["content"] = [{"type": "text", "text": content}] if form.parts else content
        if message.thinking:
            thought = self._content(message, message.thinking, 2 * place + 1, around)
            given |= dict.fromkeys(self._fields, thought)
        return {"role": message.role, **given}

    def _content(self, message: Message, text: str, number: int, around: Around | None) -> str:
        """A text between marks; thinking that the template looks for in an answer stays as it is."""
        if message.role != "assistant" or not self._thinking.search(text):
            return self._between(text, number, around, message.special)
        parts, at = [], 0
        for found in self._thinking.finditer(text):
            parts += [self._between(text[at : found.start()], number, around, message.special), found[0]]
            at = found.end()
        return "".join([*parts, self._between(text[at:], number, around, message.special)])

    def _between(self, text: str, number: int, around: Around | None, special: bool) -> str:
        sealed = text if special else self._sealed(text)
        if around is None or not text.strip():
            return sealed
        core = sealed.strip() if around == "words" else sealed
        at = sealed.index(core)  # what stands around it may be trimmed
        return f"{sealed[:at]}{self._marks.opening(number)}{core}{self._marks.shut}{sealed[at + len(core) :]}"

    def _sealed(self, value: Any) -> Any:
        """All texts of a value, with marks around the control tokens in them."""
        match value:
            case str():
                return self._controls.sub(lambda found: f"{self._marks.start}{found[0]}{self._marks.end}", value)
            case dict():
                return {name: self._sealed(one) for name, one in value.items()}
            case list() | tuple():
                return [self._sealed(one) for one in value]
        return value

    def _without_messages(self, text: str) -> str:
        """A rendered text with the marks of control tokens alone."""
        marks = self._marks
        return marks.places.sub(lambda found: found[0] if found[0] in (marks.start, marks.end) else "", text)

    def _missing(self, text: str) -> set[int]:
        """Numbers of marks that are not in a rendered text."""
        found = {self._marks.number(one[1]) for one in self._marks.places.finditer(text) if one[1]}
        wanted = set()
        for place, message in enumerate(self.conversation.messages):
            wanted |= {2 * place} if message.content.strip() else set()
            wanted |= {2 * place + 1} if message.thinking.strip() else set()
        return wanted - found

    def _pieces(self, text: str) -> Iterator[Piece]:
        """The parts of a rendered text, without marks."""
        marks = self._marks
        at, message = 0, None
        found = list(marks.places.finditer(text))
        for index, mark in enumerate(found):
            yield Piece(text[at : mark.start()], message, breaks=False)
            at = mark.end()
            if mark[1]:
                message = marks.number(mark[1]) // 2
            elif mark[0] == marks.shut:
                message = None
            elif mark[0] == marks.start:
                end = found[index + 1] if index + 1 < len(found) else None
                name = text[at : end.start()] if end is not None and end[0] == marks.end else ""
                yield Piece("", message, breaks=True)
                if self._controls.fullmatch(name):
                    yield Piece(name, message, letters=True, breaks=True)
                    at = at + len(name)
            else:
                yield Piece("", message, breaks=True)
        yield Piece(text[at:], message)

    def _remarks(self, marked: str | None) -> Iterator[str]:
        messages = self.conversation.messages
        if marked is not None:
            missing = self._missing(marked)
            for place, message in enumerate(messages):
                if 2 * place in missing:
                    yield _("the template leaves out message {number} ({role})", number=place + 1, role=message.role)
                elif 2 * place + 1 in missing:
                    yield _("the template leaves out the thinking of message {number}", number=place + 1)
        literal = literal_text(self.template)
        for place, message in enumerate(messages):
            names = dict.fromkeys(self._controls.findall(message.content))
            if message.role == "assistant":
                names = {name: None for name in names if name not in self._thinking_marks}
            if names:
                listed = ", ".join(f"“{name}”" for name in list(names)[:5])
                yield (
                    _("message {number} holds {names}: taken for control tokens", number=place + 1, names=listed)
                    if message.special
                    else _("message {number} holds {names}: taken as letters", number=place + 1, names=listed)
                )
            markers = dict.fromkeys(
                one for one in _MARKERS.findall(message.content) if one in literal and one not in self.control_tokens
            )
            if message.role == "assistant":
                markers = {one: None for one in markers if one not in self._thinking_marks}
            if markers:
                listed = ", ".join(f"“{name}”" for name in list(markers)[:5])
                yield _(
                    "message {number} holds {names}, which the template writes too and no token is of its own: "
                    "the model cannot tell them apart",
                    number=place + 1,
                    names=listed,
                )


def _append(message: dict[str, Any], tag: str) -> None:
    """Put a tag behind a message's text, which a template must have, in parts or whole."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content[-1]["text"] += tag
    else:
        message["content"] = content + tag


def _calls(name: str, value: Any, *, written: bool) -> Any:
    """Calls of tools with their arguments as objects, or as OpenAI has them: JSON in a text."""
    if name != "tool_calls" or not isinstance(value, list):
        return value
    return [_call(one, written=written) for one in value]


def _call(call: Any, *, written: bool) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or isinstance(function.get("arguments"), str) == written:
        return call
    try:
        arguments = function["arguments"]
        own = json.dumps(arguments, ensure_ascii=False) if written else json.loads(arguments)
        return {**call, "function": {**function, "arguments": own}}
    except (KeyError, ValueError):
        return call


def _shown_as_python(call: Any, text: str) -> bool:
    """Whether a call's arguments stand in a text as no JSON is written: the template wants them as a text."""
    function = (_call(call, written=False) or {}).get("function") if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    return isinstance(arguments, dict) and str(arguments) != json.dumps(arguments) and str(arguments) in text


def searched(pieces: Sequence[Piece], messages: Sequence[Message]) -> Iterator[Piece]:
    """Pieces without messages, with those that are found in the text."""
    text = "".join(piece.text for piece in pieces)
    spans: list[tuple[int, int, int]] = []
    at = 0
    # Templates put turns in order, and what a system says anywhere.
    for index, message in sorted(enumerate(messages), key=lambda one: one[1].role in ("system", "developer")):
        core = message.content.strip()
        anywhere = message.role in ("system", "developer")
        start = 0 if anywhere else at
        place = text.find(core, start) if core else -1
        while (
            anywhere
            and place >= 0
            and (over := [one for one in spans if one[0] < place + len(core) and place < one[1]])
        ):
            place = text.find(core, over[0][1])
        if place < 0:
            continue
        whole = place - message.content.index(core)  # with the white space around it, where that stands there too
        if whole >= start and text.startswith(message.content, whole):
            spans.append((whole, whole + len(message.content), index))
        else:
            spans.append((place, place + len(core), index))
        at = at if anywhere else spans[-1][1]
    start = 0
    for piece in pieces:
        stop = start + len(piece.text)
        cuts = sorted({start, stop, *(edge for one in spans for edge in one[:2] if start < edge < stop)})
        for first, last in pairwise(cuts):
            own = next((index for begin, end, index in spans if begin <= first and last <= end), None)
            part = text[first:last]
            yield replace(piece, text=part, message=own, breaks=piece.breaks and last == stop)
        if start == stop:
            yield piece
        start = stop
