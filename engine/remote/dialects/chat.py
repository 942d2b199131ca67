"""Servers that take messages alone: OpenAI's chat completions (its API reference, `/v1/chat/completions`).

What a model thinks comes apart from its answer, in a field that is no part of OpenAI's: `reasoning_content`
(DeepSeek's documents, llama.cpp, vLLM), `reasoning` (Ollama, LM Studio).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from engine.models.capabilities import Capabilities
from engine.remote.dialects.dialect import Dialect, End, Part, Piece, Request
from engine.text.conversation import THINKING_FIELDS, Conversation
from engine.text.layout import ANSWER

OPENING, CLOSING = "<think>\n", "\n</think>\n\n"  # how thinking is shown that a server sends apart


class Chat(Dialect):
    """OpenAI's chat completions; a prompt without messages is one user's message.

    Attributes:
        prefill: fields that let the server go on with a last message from the assistant; `None` where it cannot.
    """

    path = "/v1/chat/completions"

    def __init__(self, model: str, capabilities: Capabilities) -> None:
        super().__init__(model, capabilities)
        self.chat = self
        self.prefill: Mapping[str, Any] | None = None

    def body(self, request: Request) -> dict[str, Any]:
        body = super().body(request)
        prompt, count = body.pop("prompt"), body.pop("logprobs", 0)
        conversation = request.conversation or Conversation.of(str(prompt))
        body |= conversation_fields(conversation)
        if conversation.continues:
            body |= self.prefill or {}
        return body | ({"logprobs": True, "top_logprobs": count} if count else {})

    def reader(self) -> Callable[[dict[str, Any]], Iterator[Part]]:
        """What reads the events of one stream, with marks around what is thought."""
        thinking = False

        def read(event: dict[str, Any]) -> Iterator[Part]:
            nonlocal thinking
            for choice in event.get("choices") or ():
                thought, answer = _texts(choice)
                if thought and not thinking:
                    yield _mark(OPENING)
                    thinking = True
                elif answer and thinking:
                    yield _mark(CLOSING)
                    thinking = False
                yield from self._pieces(choice)
                if choice.get("finish_reason"):
                    yield End(self._reason(choice))

        return read

    def _pieces(self, choice: dict[str, Any]) -> Iterator[Piece]:
        texts = _texts(choice)
        if (choice.get("logprobs") or {}).get("content"):
            yield from super()._pieces(choice)
        else:
            yield from (Piece(None, text.encode(), None) for text in texts if text)


def conversation_fields(conversation: Conversation) -> dict[str, Any]:
    """A conversation in the fields of OpenAI's chat; its template's variables go where vLLM and llama.cpp have them."""
    options = dict(conversation.options)
    fields: dict[str, Any] = {"messages": conversation.to_list()}
    fields |= {name: options.pop(name) for name in ("tools", ANSWER) if name in options}
    return fields | ({"chat_template_kwargs": options} if options else {})


def _mark(text: str) -> Piece:
    return Piece(None, text.encode(), None, mark=True)


def _texts(choice: dict[str, Any]) -> tuple[str, str]:
    """What is thought and what is answered in an event, or in an answer as a whole; calls of tools are answers."""
    given = choice.get("delta") or choice.get("message") or {}
    thought = next((given[name] for name in THINKING_FIELDS if isinstance(given.get(name), str)), "")
    functions = [one.get("function") or {} for one in given.get("tool_calls") or ()]
    calls = "".join(f"{one.get('name') or ''}{one.get('arguments') or ''}" for one in functions)
    return thought, (given.get("content") or "") + calls


def for_chat(dialect: Dialect, **changes: Any) -> Chat:
    """The chat of a server whose completions are known."""
    return Chat(dialect.model, replace(dialect.capabilities, **changes))
