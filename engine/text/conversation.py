"""A conversation: messages of system, user, assistant and tools, and what its template is given beside them.

In JSON it is OpenAI's list of `messages`, alone or as the field of an object.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.base.errors import InputError
from engine.base.language import _

ROLES = ("system", "developer", "user", "assistant", "tool")
# Under what names templates and servers have what an assistant thought (transformers 5.23, `_REASONING_FIELDS`).
THINKING_FIELDS = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        special: whether names of control tokens in it stand for those tokens; else they are letters.
        thinking: what an assistant thought before it, where that is known apart.
        extra: other fields of OpenAI's messages, such as `tool_calls`.
    """

    role: str
    content: str
    special: bool = False
    thinking: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """The message as OpenAI has it."""
        content = None if not self.content and self.extra.get("tool_calls") else self.content
        thinking = {THINKING_FIELDS[0]: self.thinking} if self.thinking else {}
        return {"role": self.role, "content": content, **thinking, **self.extra}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, and how the template puts them.

    Attributes:
        options: values of the template's own variables, by their names, such as `enable_thinking` or `tools`.
        continues: whether the last message, an assistant's, is the beginning of the answer that is to be written.
    """

    messages: tuple[Message, ...]
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    continues: bool = False

    @classmethod
    def of(cls, text: str, system: str | None = None) -> "Conversation":
        """A user's message, with a system message before it."""
        before = () if system is None else (Message("system", system),)
        return cls((*before, Message("user", text)))

    def with_system(self, text: str) -> "Conversation":
        """With this system message, in the place of the one it begins with."""
        others = self.messages[1:] if self.messages and self.messages[0].role == "system" else self.messages
        return replace(self, messages=(Message("system", text), *others))

    def last_of(self, role: str) -> str:
        """The last message of a role; empty where it has none."""
        return next((one.content for one in reversed(self.messages) if one.role == role), "")

    def to_list(self) -> list[dict[str, Any]]:
        """OpenAI's `messages`."""
        return [message.to_dict() for message in self.messages]


def from_list(given: object) -> Conversation:
    """A conversation from OpenAI's `messages`, or from an object that has them. Raises `InputError`."""
    options: Mapping[str, Any] = {}
    if isinstance(given, dict) and "messages" in given:
        own = given.get("chat_template_kwargs")
        options = {name: given[name] for name in ("tools", "documents") if given.get(name) is not None}
        options |= own if isinstance(own, dict) else {}
        given = given["messages"]
    if not isinstance(given, list):
        raise InputError(_('these are no messages: expected a list such as [{"role": "user", "content": "Hello"}]'))
    if not given:
        raise InputError(_("there is no message; give one at least"))
    return Conversation(tuple(_message(one, number) for number, one in enumerate(given, start=1)), options)


def from_json(text: str) -> Conversation:
    """A conversation from JSON. Raises `InputError`."""
    try:
        return from_list(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InputError(_("these messages are no JSON: {error}", error=str(error)[:200])) from error


def from_json_lines(text: str) -> list[Conversation]:
    """Conversations from JSON, one alone or one a line. Raises `InputError` naming the line.

    Lines that are single messages are one conversation.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    found = []
    for number, line in lines:
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            if number == lines[0][0]:  # one document, which may go over several lines
                return [from_json(text)]
            raise InputError(_("line {number} is no JSON: {error}", number=number, error=str(error)[:200])) from error
    if len(found) < 2 or all(map(_is_message, found)):
        return [from_list(found[0] if len(found) == 1 and not _is_message(found[0]) else found)]
    conversations = []
    for (number, _line), one in zip(lines, found):
        try:
            conversations.append(from_list(one))
        except InputError as error:
            raise InputError(_("line {number}: {error}", number=number, error=error)) from error
    return conversations


def _is_message(given: object) -> bool:
    return isinstance(given, dict) and "role" in given


def to_json(conversation: Conversation, *, indent: int | None = 2) -> str:
    """OpenAI's `messages`: a list, or an object where options stand beside them."""
    messages = conversation.to_list()
    if not conversation.options:
        return json.dumps(messages, ensure_ascii=False, indent=indent)
    beside = {name: conversation.options[name] for name in ("tools", "documents") if name in conversation.options}
    own = {name: value for name, value in conversation.options.items() if name not in beside}
    kwargs = {"chat_template_kwargs": own} if own else {}
    return json.dumps({"messages": messages, **beside, **kwargs}, ensure_ascii=False, indent=indent)


def to_json_lines(conversations: Iterable[Conversation]) -> str:
    """One conversation a line, each an object with `messages`."""
    return "".join(_line(one) + "\n" for one in conversations)


def _line(conversation: Conversation) -> str:
    text = to_json(conversation, indent=None)
    return text if conversation.options else f'{{"messages": {text}}}'


def _message(given: object, number: int) -> Message:
    if not isinstance(given, dict):
        raise InputError(_("message {number} is no object with a role and a content", number=number))
    role = given.get("role")
    if role not in ROLES:
        raise InputError(
            _(
                "message {number} has the role {role!r}; allowed: {allowed}",
                number=number,
                role=str(role)[:40],
                allowed=", ".join(ROLES),
            )
        )
    content = given.get("content")
    if content is None and not given.get("tool_calls"):
        raise InputError(_("message {number} has no content", number=number))
    thinking = next((given[name] for name in THINKING_FIELDS if isinstance(given.get(name), str)), "")
    own = {"role", "content", *THINKING_FIELDS}
    extra = {name: value for name, value in given.items() if name not in own and value is not None}
    return Message(str(role), _text(content, number), thinking=thinking, extra=extra)


def _text(content: object, number: int) -> str:
    """A message's text, which OpenAI has as one or in parts; llama.cpp joins them so too."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InputError(_("the content of message {number} is no text", number=number))
    parts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise InputError(
                _("message {number} holds {kind}; only texts can be shown here", number=number, kind=str(kind)[:40])
            )
        parts.append(text)
    return "\n".join(parts)
