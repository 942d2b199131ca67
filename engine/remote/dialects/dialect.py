"""How each kind of server is asked, and how its answers read.

vLLM: its OpenAI-compatible server's documentation (completions with extra parameters, `/tokenize`, `/version`).
llama.cpp: `tools/server/README.md` (`/completion`, `/tokenize`, `/props`). llama-cpp-python: `llama_cpp/server`.
"""

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.generation.config import GenerationConfig
from engine.generation.stages.registry import sent
from engine.models.capabilities import Capabilities
from engine.remote.connection import Connection
from engine.text.conversation import Conversation

TOKEN_ID = "token_id:"  # how vLLM writes ids where others write texts

Ended = Literal["end_of_text", "stop_sequence", "length"]


@dataclass(frozen=True, slots=True)
class Alternative:
    """One token that a server lists: its id where it has one, its bytes as far as they are known."""

    id: int | None
    data: bytes
    log_probability: float


@dataclass(frozen=True, slots=True)
class Piece:
    """One token that a server wrote.

    Attributes:
        log_probability: `None` where it gives none.
        top: the most probable tokens, best first.
        control: whether it is no text, but ends it.
        text: what the server added to its text with it, where it says that: of a character that is cut into several
            tokens nothing, then the whole with the last of them.
        mark: whether it is ours, and none of the server's tokens.
    """

    id: int | None
    data: bytes
    log_probability: float | None
    top: tuple[Alternative, ...] = ()
    control: bool = False
    text: str | None = None
    mark: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The text ends.

    Attributes:
        reason: the server's.
        drafted: whether some tokens were guessed ahead, and so came several at a time.
    """

    reason: Ended
    drafted: bool = False


Part = Piece | End


@dataclass(frozen=True, slots=True)
class Request:
    """A request for more tokens after a prompt, which is ids or a text.

    Attributes:
        top: candidates to list for each token; as many as the server lists when `None`.
        conversation: messages that the server is to put into its template in the place of the prompt.
    """

    prompt: Sequence[int] | str
    config: GenerationConfig
    tokens: int
    seed: int | None = None
    top: int | None = None
    conversation: Conversation | None = None


@dataclass(frozen=True, slots=True)
class PromptScore:
    """How well the model expected one token of a prompt; `None` for the first."""

    log_probability: float | None
    rank: int | None


class Dialect:
    """OpenAI's completions and nothing more; `path` is where they are.

    Attributes:
        chat: how conversations go to it as messages, where it does not put them into its template for us.
        template, other_templates: its chat template where it sends it, and those for something else, by name.
        special_tokens: what templates call some of its tokens.
    """

    path = "/v1/completions"
    form = "OpenAI"  # whose fields the stages' parameters go in
    least_top = 1  # candidates to ask for, so that each token comes by itself

    template: str | None = None
    other_templates: Mapping[str, str] = {}
    special_tokens: Mapping[str, str] = {}

    def __init__(self, model: str, capabilities: Capabilities) -> None:
        self.model = model
        self.capabilities = capabilities
        self.chat: Dialect | None = None

    def body(self, request: Request) -> dict[str, Any]:
        """The request in the server's form."""
        config = request.config
        body: dict[str, Any] = {"model": self.model, "prompt": request.prompt, "max_tokens": request.tokens}
        sampled = config.strategy == "sample"
        body |= sent(self.form, config, truncations=sampled)
        body |= {"seed": request.seed} if sampled else {"temperature": 0.0}
        if config.stop:
            body["stop"] = list(config.stop)
        biases = dict(config.logit_bias) | dict.fromkeys(config.banned, -100.0)
        if biases:
            body["logit_bias"] = {str(id): bias for id, bias in biases.items()}
        if self.capabilities.top:
            body["logprobs"] = self.capabilities.top if request.top is None else request.top
        return body

    def read(self, event: dict[str, Any]) -> Iterator[Part]:
        """The tokens of one event of a stream."""
        for choice in event.get("choices") or ():
            yield from self._pieces(choice)
            if choice.get("finish_reason"):
                yield End(self._reason(choice))

    def reader(self) -> Callable[[dict[str, Any]], Iterator[Part]]:
        """What reads the events of one stream."""
        return self.read

    async def parted(self, connection: Connection, piece: Piece) -> list[Piece]:
        """The tokens of a piece, where a server sends several as one."""
        return [piece]

    def tokens_written(self, event: dict[str, Any]) -> int | None:
        """How many tokens the server says that it has written; `None` where an event does not say that."""
        return checked_count((event.get("usage") or {}).get("completion_tokens"))

    def _pieces(self, choice: dict[str, Any]) -> Iterator[Piece]:
        listed = choice.get("logprobs") or {}
        if listed.get("content"):  # as in OpenAI's chat: so llama-server and Ollama
            yield from map(self._from_chat, listed["content"])
            return
        if not listed.get("tokens"):
            if text := choice.get("text"):
                yield Piece(None, text.encode(), None)
            return
        nothing: list[Any] = [None] * len(listed["tokens"])
        for token, log_probability, top in zip(
            listed["tokens"], listed.get("token_logprobs") or nothing, listed.get("top_logprobs") or nothing
        ):
            id, data = self._token(token)
            yield Piece(id, data, finite(log_probability), self._top(top))

    def _from_chat(self, one: dict[str, Any]) -> Piece:
        own = _alternative(one)
        top = [_alternative(other) for other in one.get("top_logprobs") or ()]
        return Piece(None, own.data, finite(one.get("logprob")), tuple(top))

    def _top(self, listed: object) -> tuple[Alternative, ...]:
        if not isinstance(listed, dict):
            return ()
        found = [
            Alternative(*self._token(token), value) for token, value in listed.items() if finite(value) is not None
        ]
        return tuple(sorted(found, key=lambda one: -one.log_probability))

    def _token(self, token: str) -> tuple[int | None, bytes]:
        if token.startswith(TOKEN_ID) and token.removeprefix(TOKEN_ID).isdecimal():
            return checked_id(int(token.removeprefix(TOKEN_ID))), b""
        if token.startswith("bytes:"):
            return None, token.removeprefix("bytes:").encode().decode("unicode_escape").encode("latin-1")
        return None, token.encode()

    def _reason(self, choice: dict[str, Any]) -> Ended:
        return "length" if choice["finish_reason"] == "length" else "end_of_text"

    async def tokenize(self, connection: Connection, text: str, *, template: bool) -> list[tuple[int, bytes | None]]:
        """Ids of a text, with their bytes where the server sends them; `template` adds what begins a text."""
        raise NotImplementedError

    async def tokenize_chat(self, connection: Connection, conversation: Conversation) -> list[tuple[int, bytes | None]]:
        """Ids of a conversation in the model's chat template, ready for the answer, as `tokenize` gives them."""
        raise NotImplementedError

    async def tokenize_letters(self, connection: Connection, text: str) -> list[tuple[int, bytes | None]]:
        """Ids of a text in which names of control tokens are letters."""
        raise NotImplementedError

    async def bytes_of(self, connection: Connection, id: int) -> bytes:
        """What one id spells."""
        raise NotImplementedError

    async def spellings(self, connection: Connection, ids: Sequence[int]) -> list[bytes]:
        """What each of these ids spells."""
        return await asyncio.gather(*(self.bytes_of(connection, id) for id in ids))

    async def prompt_scores(self, connection: Connection, prompt: Sequence[int] | str) -> list[PromptScore]:
        """How well the model expected each token of a prompt."""
        raise NotImplementedError


def _alternative(one: dict[str, Any]) -> Alternative:
    data = bytes(one["bytes"]) if one.get("bytes") else str(one.get("token", "")).encode()
    value = finite(one.get("logprob"))
    return Alternative(None, data, -math.inf if value is None else value)


def finite(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def checked_count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def checked_id(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{value!r} is no token id")
    return value
