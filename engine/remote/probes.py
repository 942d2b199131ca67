"""What a server can do, measured: each answer comes from a request, none from a server's name.

The requests are small: some tokens of a text whose continuation is certain, so that no server ends it early.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Literal

from engine.base.errors import InputError
from engine.generation.config import GenerationConfig
from engine.models.capabilities import MOST_CANDIDATES, Capabilities
from engine.remote.connection import Connection, RemoteError
from engine.remote.dialects.chat import Chat
from engine.remote.dialects.dialect import Dialect, End, Part, Piece, Request
from engine.remote.dialects.llama_cpp import LlamaServer
from engine.text.conversation import Conversation, Message
from engine.text.template import render

TOLERANCE = 0.05  # nats; the same text may be computed in another batch
COUNTED = "one two three four five six seven eight nine ten eleven twelve\n" * 3
LONG = 256  # tokens that a text has at most which is to be interrupted
# Of one text, while another that was asked for does not begin; and how many times as long as the first one took.
PATIENCE_TOKENS, PATIENCE_SECONDS, PATIENCE_TIMES = 16, 0.5, 3
BUSY = (429, 503)  # HTTP's answers of a server that takes no more at present
ABSENT = (404, 405, 501)  # of what is not there
LEAST_TURN = 3  # tokens that a turn of one letter has, at least, where it is closed and another one opened
LEAST_TEMPLATE = 5  # tokens that a prompt of one letter has, at least, where a chat template is put around it

Overlap = Literal["together", "in turn", "interrupts", "unknown"]


async def chats(connection: Connection, dialect: Dialect) -> bool:
    """Whether the model has a chat template that the server uses for us."""
    try:
        return bool(await dialect.tokenize_chat(connection, Conversation.of("a")))
    except (RemoteError, LookupError, TypeError, ValueError):
        return False


async def template(connection: Connection, dialect: LlamaServer, props: Mapping[str, Any]) -> str | None:
    """The template that the server says it has, where ours makes of it what the server does."""
    told = props.get("chat_template")
    asked = Conversation((Message("user", "a"), Message("assistant", "b"), Message("user", "c")))
    if not isinstance(told, str):
        return None
    try:
        own = render(told, asked.to_list(), dialect.special_tokens, {}, add_generation_prompt=True)
        theirs = await dialect.templated(connection, asked)
    except (RemoteError, InputError, LookupError, TypeError):
        return None
    # The beginning of a text may be left to the tokenizer.
    return told if own.removeprefix(dialect.special_tokens.get("bos_token", "")).strip() in theirs else None


async def completes(connection: Connection, dialect: Dialect) -> bool:
    """Whether there are completions at all; any other refusal is none of their absence."""
    try:
        await connection.post(dialect.path, _body(dialect, "a", 1), retries=0)
    except RemoteError as error:
        return getattr(error.__cause__, "status_code", 0) not in ABSENT
    return True


async def takes_messages(connection: Connection, chat: Chat) -> bool:
    """Whether a message is answered."""
    try:
        return bool((await connection.post(chat.path, _body(chat, "a", 1), retries=0))["choices"])
    except (RemoteError, LookupError, TypeError):
        return False


async def prefill(connection: Connection, chat: Chat) -> Mapping[str, Any] | None:
    """With what fields the server goes on with an assistant's message; the number of tokens shows that it is open."""
    before = (Message("user", "a"),)
    try:
        alone = await _prompt_tokens(connection, chat, Conversation(before), {})
    except (RemoteError, LookupError, TypeError):
        return None
    for fields in ({}, {"add_generation_prompt": False, "continue_final_message": True}):
        begun = Conversation((*before, Message("assistant", "b")))
        with suppress(RemoteError, LookupError, TypeError):
            if alone < await _prompt_tokens(connection, chat, begun, fields) < alone + LEAST_TURN:
                return fields
    return None


async def _prompt_tokens(
    connection: Connection, chat: Chat, conversation: Conversation, fields: Mapping[str, Any]
) -> int:
    request = Request("", GenerationConfig(), 1, conversation=conversation)
    usage = (await connection.post(chat.path, {**chat.body(request), **fields}, retries=0))["usage"]
    return int(usage["prompt_tokens"])


async def echoes(connection: Connection, dialect: Dialect) -> bool:
    """Whether an echoed text has the scores that its tokens were written with; some servers' are a place off."""
    text = "Once upon a time"
    ask = {"model": dialect.model, "temperature": 0.0, "logprobs": 1}
    try:
        written = (await connection.post(dialect.path, ask | {"prompt": text, "max_tokens": 3}))["choices"][0]
        whole = ask | {"prompt": text + written["text"], "max_tokens": 1, "echo": True}
        echoed = (await connection.post(dialect.path, whole))["choices"][0]["logprobs"]["token_logprobs"]
        expected = written["logprobs"]["token_logprobs"]
        return all(math.isclose(one, other, abs_tol=TOLERANCE) for one, other in zip(expected, echoed[-4:-1]))
    except (RemoteError, LookupError, TypeError):
        return False


async def candidates(connection: Connection, dialect: Dialect) -> Capabilities:
    """How many candidates a server lists, and of what: found out with one token at two temperatures.

    A server that refuses to list so many is asked for fewer, until the most that it lists is found.
    """
    most, refused = 0, MOST_CANDIDATES + 1
    found = replace(dialect.capabilities, top=0)
    while refused - most > 1:
        top = MOST_CANDIDATES if refused > MOST_CANDIDATES else (most + refused) // 2
        try:
            cool, hot = [await _first(connection, dialect, temperature, top) for temperature in (1.0, 2.0)]
        except RemoteError:
            refused = top
            continue
        if cool is None or hot is None or not cool.top:
            break
        if math.fsum(math.exp(min(one.log_probability, 1.0)) for one in cool.top) > 1 + TOLERANCE:
            return replace(found, top=0, raw=False)  # logits: of what mass they are part is not known
        same = zip(cool.top[:top], hot.top[:top])  # what was drawn comes beside them
        raw = all(abs(one.log_probability - other.log_probability) < TOLERANCE for one, other in same)
        most, found = top, replace(found, top=top, raw=raw)
    return found


async def _first(connection: Connection, dialect: Dialect, temperature: float, top: int) -> Piece | None:
    """The first token of a text; `None` where the text ends before it, whatever is drawn."""
    config = GenerationConfig(strategy="sample", temperature=temperature, max_new_tokens=1)
    for seed in (1, 2, 3):
        body = _body(dialect, "a", 1, config, top, seed)
        for part in dialect.read(await connection.post(dialect.path, body, retries=0)):
            if isinstance(part, Piece):
                return part
    return None


async def sends_ids(connection: Connection, dialect: Dialect) -> bool:
    """Whether the ids of tokens come with them."""
    try:
        answer = await connection.post(dialect.path, _body(dialect, COUNTED, 1), retries=0)
    except RemoteError:
        return False
    return any(isinstance(part, Piece) and part.id is not None for part in dialect.read(answer))


async def drafts(connection: Connection, dialect: Dialect) -> bool:
    """Whether tokens come without probabilities that were asked for: those that a draft model guessed."""
    if not dialect.capabilities.top:
        return False
    try:
        answer = await connection.post(dialect.path, _body(dialect, COUNTED, 24), retries=0)
    except RemoteError:
        return False
    parts = list(dialect.read(answer))
    return any(isinstance(one, End) and one.drafted for one in parts) or any(
        isinstance(one, Piece) and one.log_probability is None for one in parts
    )


async def followed(connection: Connection, dialect: Dialect) -> frozenset[str]:
    """The settings that a server takes, less the kinds of grammar that it does not follow: each is to write a 7."""
    settings = dialect.capabilities.settings
    sevens: dict[str, Any] = {"schema": '{"const": 7}', "regex": "7", "grammar": 'start: "7"', "choices": ("7",)}
    wanted = {kind: GenerationConfig(**{kind: seven}) for kind, seven in sevens.items() if kind in settings}
    failed = {kind for kind, config in wanted.items() if await _written(connection, dialect, config) != b"7"}
    return settings - failed


async def _written(connection: Connection, dialect: Dialect, config: GenerationConfig) -> bytes:
    """Two tokens of a text under a configuration, or fewer; nothing where the server refuses it."""
    try:
        answer = await connection.post(dialect.path, _body(dialect, COUNTED, 2, config), retries=0)
    except RemoteError:
        return b""
    pieces = (part for part in dialect.read(answer) if isinstance(part, Piece) and not part.control)
    return b"".join((piece.text or "").encode() or piece.data for piece in pieces).strip()


async def continues(connection: Connection, dialect: Dialect) -> bool:
    """Whether a prompt is continued as it is; a chat template around it shows in the number of its tokens."""
    try:
        usage = (await connection.post(dialect.path, _body(dialect, "a", 1), retries=0)).get("usage") or {}
        return int(usage.get("prompt_tokens") or 0) < LEAST_TEMPLATE
    except (RemoteError, AttributeError, TypeError, ValueError):
        return True


async def overlap(connection: Connection, dialect: Dialect) -> Overlap:
    """What becomes of a text that a server writes when another is asked for.

    Both are written `together`; the other one waits, or is refused, and they come `in turn`; or the first is broken
    off: the server `interrupts`. It is `unknown` where the first one ended by itself too early.
    """
    seen = await _overlap(connection, dialect)
    # A connection may break by chance, too.
    return await _overlap(connection, dialect) if seen == "interrupts" else seen


async def _overlap(connection: Connection, dialect: Dialect) -> Overlap:
    asked = time.perf_counter()
    try:
        async with aclosing(_parts(connection, dialect, LONG)) as first:
            if not isinstance(await anext(first, None), Piece):
                return "unknown"
            patience = max(PATIENCE_SECONDS, PATIENCE_TIMES * (time.perf_counter() - asked))
            other = asyncio.create_task(_begun(connection, dialect))
            try:
                return await _seen(first, other, patience)
            finally:
                other.cancel()
    except RemoteError:
        return "unknown"


async def _seen(first: AsyncGenerator[Part, None], other: "asyncio.Task[Overlap]", patience: float) -> Overlap:
    """What happens to the first text from when the other one is asked for."""
    asked, more = time.perf_counter(), 0
    try:
        async for part in first:
            if other.done():
                return other.result()
            patient = time.perf_counter() - asked >= patience
            if isinstance(part, End):
                return "in turn" if patient else "unknown"
            more += 1
            if patient and more >= PATIENCE_TOKENS:
                return "in turn"
    except RemoteError:
        pass  # the connection is closed in the middle
    return "interrupts"


async def _begun(connection: Connection, dialect: Dialect) -> Overlap:
    """What becomes of a short text that is asked for beside another one."""
    try:
        async with aclosing(_parts(connection, dialect, 1)) as parts:
            return "together" if isinstance(await anext(parts, None), Piece) else "unknown"
    except RemoteError as error:
        return "in turn" if getattr(error.__cause__, "status_code", 0) in BUSY else "unknown"


async def _parts(connection: Connection, dialect: Dialect, tokens: int) -> AsyncGenerator[Part, None]:
    async with aclosing(connection.stream(dialect.path, _body(dialect, COUNTED, tokens))) as events:
        async for event in events:
            for part in dialect.read(event):
                yield part


def _body(
    dialect: Dialect,
    prompt: str,
    tokens: int,
    config: GenerationConfig | None = None,
    top: int | None = None,
    seed: int = 1,
) -> dict[str, Any]:
    asking = type(dialect)(dialect.model, replace(dialect.capabilities, top=top)) if top else dialect
    return asking.body(Request(prompt, config or GenerationConfig(), tokens, seed=seed, top=top))
