"""How each kind of server is asked, and how its answers read.

vLLM: its OpenAI-compatible server's documentation (completions with extra parameters, `/tokenize`, `/version`).
llama.cpp: `tools/server/README.md` (`/completion`, `/tokenize`, `/props`). llama-cpp-python: `llama_cpp/server`.
"""

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine.base.language import _
from engine.generation.config import GenerationConfig
from engine.models.capabilities import COMMON, Capabilities
from engine.remote.connection import Connection, RemoteError
from engine.text.tokenizer import UNKNOWN, spelled

TOKEN_ID = "token_id:"  # how vLLM writes ids where others write texts
SEPARATOR = "\x1e"  # ASCII's record separator: in texts it hardly ever is
MAX_TOP = 20  # of vLLM unless it is told otherwise
TOLERANCE = 0.05  # nats; the same text may be computed in another batch
MOST_LOOKED_BACK = 8192

Ended = Literal["end_of_text", "stop_sequence", "length"]


@dataclass(frozen=True, slots=True)
class Alternative:
    """One token that a server tells of: its id where it has one, its bytes as far as they are known."""

    id: int | None
    data: bytes
    log_probability: float


@dataclass(frozen=True, slots=True)
class Piece:
    """One token that a server wrote.

    Attributes:
        log_probability: `None` where it tells none.
        top: the most probable tokens, best first.
        control: whether it is no text, but ends it.
        text: what the server added to its text with it, where that is told: of a character that is cut into several
            tokens nothing, then the whole with the last of them.
    """

    id: int | None
    data: bytes
    log_probability: float | None
    top: tuple[Alternative, ...] = ()
    control: bool = False
    text: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The text ends; `reason` is the server's."""

    reason: Ended


Part = Piece | End


@dataclass(frozen=True, slots=True)
class Request:
    """So many more tokens after a prompt, which is ids or a text.

    Attributes:
        top: candidates that are to be told of each token; as many as the server tells when `None`.
    """

    prompt: Sequence[int] | str
    config: GenerationConfig
    tokens: int
    seed: int | None = None
    top: int | None = None


@dataclass(frozen=True, slots=True)
class PromptScore:
    """How well the model expected one token of a prompt; `None` for the first."""

    log_probability: float | None
    rank: int | None


class Dialect:
    """OpenAI's completions and nothing more; `path` is where they are."""

    path = "/v1/completions"
    least_top = 1  # candidates to ask for, so that each token is told by itself

    def __init__(self, model: str, capabilities: Capabilities) -> None:
        self.model = model
        self.capabilities = capabilities

    def body(self, request: Request) -> dict[str, Any]:
        """The request in the server's form."""
        config = request.config
        body: dict[str, Any] = {"model": self.model, "prompt": request.prompt, "max_tokens": request.tokens}
        body["temperature"] = 0.0 if config.strategy == "greedy" else config.temperature
        if config.strategy == "sample":
            body |= {"top_p": config.top_p or 1.0, "seed": request.seed}
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

    def _pieces(self, choice: dict[str, Any]) -> Iterator[Piece]:
        told = choice.get("logprobs")
        if not told or not told.get("tokens"):
            if text := choice.get("text"):
                yield Piece(None, text.encode(), None)
            return
        nothing: list[Any] = [None] * len(told["tokens"])
        for token, log_probability, top in zip(
            told["tokens"], told.get("token_logprobs") or nothing, told.get("top_logprobs") or nothing
        ):
            id, data = self._token(token)
            yield Piece(id, data, _finite(log_probability), self._top(top))

    def _top(self, told: object) -> tuple[Alternative, ...]:
        if not isinstance(told, dict):
            return ()
        found = [Alternative(*self._token(token), value) for token, value in told.items() if _finite(value) is not None]
        return tuple(sorted(found, key=lambda one: -one.log_probability))

    def _token(self, token: str) -> tuple[int | None, bytes]:
        if token.startswith(TOKEN_ID) and token.removeprefix(TOKEN_ID).isdecimal():
            return _id(int(token.removeprefix(TOKEN_ID))), b""
        if token.startswith("bytes:"):
            return None, token.removeprefix("bytes:").encode().decode("unicode_escape").encode("latin-1")
        return None, token.encode()

    def _reason(self, choice: dict[str, Any]) -> Ended:
        return "length" if choice["finish_reason"] == "length" else "end_of_text"

    async def tokenize(self, connection: Connection, text: str, *, template: bool) -> list[tuple[int, bytes | None]]:
        """Ids of a text, with their bytes where the server tells them; `template` adds what begins a text."""
        raise NotImplementedError

    async def tokenize_chat(self, connection: Connection, text: str) -> list[tuple[int, bytes | None]]:
        """Ids of a message in the model's chat template, ready for the answer, as `tokenize` gives them."""
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


class VLLM(Dialect):
    """vLLM's server: token ids in and out, most settings, scores of prompts."""

    least_top = 0

    def __init__(self, model: str, capabilities: Capabilities) -> None:
        super().__init__(model, capabilities)
        self._between: int | Literal[False] | None = False  # not asked for yet

    def body(self, request: Request) -> dict[str, Any]:
        body, config = super().body(request), request.config
        body |= {"return_tokens_as_token_ids": True, "include_stop_str_in_output": True, "add_special_tokens": False}
        body |= {"ignore_eos": config.ignore_eos, "repetition_penalty": config.repetition_penalty}
        if config.strategy == "sample":
            body |= {"top_k": config.top_k or -1, "min_p": config.min_p or 0.0}
        return body

    def _pieces(self, choice: dict[str, Any]) -> Iterator[Piece]:
        pieces = list(super()._pieces(choice))
        if len(pieces) == 1:
            pieces = [replace(pieces[0], text=choice.get("text"))]
        if pieces and choice.get("finish_reason") and self._reason(choice) == "end_of_text":
            pieces[-1] = replace(pieces[-1], control=True)
        return iter(pieces)

    def _reason(self, choice: dict[str, Any]) -> Ended:
        if choice["finish_reason"] == "length":
            return "length"
        return "stop_sequence" if isinstance(choice.get("stop_reason"), str) else "end_of_text"

    async def tokenize(self, connection: Connection, text: str, *, template: bool) -> list[tuple[int, bytes | None]]:
        return await self._tokenized(connection, {"prompt": text, "add_special_tokens": template})

    async def tokenize_chat(self, connection: Connection, text: str) -> list[tuple[int, bytes | None]]:
        messages = [{"role": "user", "content": text}]
        return await self._tokenized(connection, {"messages": messages, "add_generation_prompt": True})

    async def _tokenized(self, connection: Connection, ask: dict[str, Any]) -> list[tuple[int, bytes | None]]:
        told = await connection.post("/tokenize", {"model": self.model, "return_token_strs": True} | ask)
        names = told.get("token_strs") or [None] * len(told["tokens"])
        metaspace = any("▁" in (name or "") for name in names)
        return [
            (_id(id), None if name is None else spelled(name, metaspace=metaspace))
            for id, name in zip(told["tokens"], names)
        ]

    async def bytes_of(self, connection: Connection, id: int) -> bytes:
        return (await self._detokenized(connection, [id])).encode()

    async def spellings(self, connection: Connection, ids: Sequence[int]) -> list[bytes]:
        """All in one request where the vocabulary has a token to put between them."""
        if len(ids) > 1 and (between := await self._separator(connection)) is not None:
            told = await self._detokenized(connection, [between, *(one for id in ids for one in (id, between))])
            parts = told.split(SEPARATOR)
            if len(parts) == len(ids) + 2:
                return [part.encode() for part in parts[1:-1]]
        return await super().spellings(connection, ids)

    async def _separator(self, connection: Connection) -> int | None:
        """The token that spells `SEPARATOR` and nothing else, found out once; `None` where there is none."""
        if self._between is False:
            ids = [id for id, _spelling in await self.tokenize(connection, SEPARATOR, template=False)]
            alone = len(ids) == 1 and await self._detokenized(connection, ids * 2) == SEPARATOR * 2
            self._between = ids[0] if alone else None
        return self._between

    async def _detokenized(self, connection: Connection, ids: Sequence[int]) -> str:
        return str((await connection.post("/detokenize", {"model": self.model, "tokens": list(ids)}))["prompt"])

    async def prompt_scores(self, connection: Connection, prompt: Sequence[int] | str) -> list[PromptScore]:
        told = await connection.post(
            self.path,
            {"model": self.model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 1},
        )
        rows = told["choices"][0].get("prompt_logprobs") or told.get("prompt_logprobs") or []
        scores = []
        for id, row in zip(prompt, rows):
            own = (row or {}).get(str(id))
            scores.append(PromptScore(own["logprob"], own.get("rank")) if own else PromptScore(None, None))
        return scores


class LlamaServer(Dialect):
    """llama.cpp's `llama-server`, in its own form, which tells ids and bytes."""

    path = "/completion"
    least_top = 0

    def body(self, request: Request) -> dict[str, Any]:
        config, top = request.config, self.capabilities.top if request.top is None else request.top
        body: dict[str, Any] = {"prompt": request.prompt, "n_predict": request.tokens, "n_probs": top}
        body |= {"cache_prompt": True, "return_tokens": True, "post_sampling_probs": False, "stop": list(config.stop)}
        body |= {"ignore_eos": config.ignore_eos, "repeat_penalty": config.repetition_penalty}
        body["repeat_last_n"] = self.capabilities.context_length or MOST_LOOKED_BACK  # the whole text, as ours
        body["samplers"] = ["penalties", "temperature", "top_k", "top_p", "min_p", "typ_p"]  # in the order of ours
        if config.strategy == "greedy":
            body |= {"temperature": 0.0, "top_k": 1}
        else:
            body |= {"temperature": config.temperature, "seed": request.seed, "top_k": config.top_k or 0}
            body |= {"top_p": config.top_p or 1.0, "min_p": config.min_p or 0.0, "typical_p": config.typical_p or 1.0}
        body["logit_bias"] = [[id, bias] for id, bias in config.logit_bias] + [[id, False] for id in config.banned]
        return body

    def read(self, event: dict[str, Any]) -> Iterator[Part]:
        told = event.get("completion_probabilities") or ()
        for one in told:
            own = self._told(one)
            top = tuple(map(self._told, one.get("top_logprobs") or ()))
            yield Piece(own.id, own.data, _finite(own.log_probability), top)
        if not told and (ids := event.get("tokens")):
            text = str(event.get("content", "")).encode()
            yield from (Piece(_id(id), text if len(ids) == 1 else b"", None) for id in ids)
        if event.get("stop"):
            kind = event.get("stop_type")
            yield End("length" if kind == "limit" else "stop_sequence" if kind == "word" else "end_of_text")

    def _told(self, one: dict[str, Any]) -> Alternative:
        data = bytes(one["bytes"]) if one.get("bytes") else str(one.get("token", "")).encode()
        value = _finite(one.get("logprob"))
        return Alternative(_id(one["id"]), data, -math.inf if value is None else value)

    async def tokenize_chat(self, connection: Connection, text: str) -> list[tuple[int, bytes | None]]:
        told = await connection.post("/apply-template", {"messages": [{"role": "user", "content": text}]})
        return await self.tokenize(connection, str(told["prompt"]), template=False)

    async def tokenize(self, connection: Connection, text: str, *, template: bool) -> list[tuple[int, bytes | None]]:
        told = await connection.post("/tokenize", {"content": text, "add_special": template, "with_pieces": True})
        return [(_id(one["id"]), _piece(one["piece"])) for one in told["tokens"]]

    async def bytes_of(self, connection: Connection, id: int) -> bytes:
        return str((await connection.post("/detokenize", {"tokens": [id]}))["content"]).encode()


class LlamaCppPython(Dialect):
    """llama-cpp-python's server: OpenAI's form, with a tokenizer beside it."""

    def body(self, request: Request) -> dict[str, Any]:
        body, config = super().body(request), request.config
        body["repeat_penalty"] = config.repetition_penalty
        if config.strategy == "sample":
            body |= {"top_k": config.top_k or 0, "min_p": config.min_p or 0.0}
        return body

    async def tokenize(self, connection: Connection, text: str, *, template: bool) -> list[tuple[int, bytes | None]]:
        told = await connection.post("/extras/tokenize", {"model": self.model, "input": text})
        return [(_id(id), None) for id in told["tokens"]]

    async def bytes_of(self, connection: Connection, id: int) -> bytes:
        try:
            told = await connection.post("/extras/detokenize", {"model": self.model, "tokens": [id]}, retries=0)
        except RemoteError:  # it cannot tell of a part of a character
            return UNKNOWN
        return str(told["text"]).encode()

    async def prompt_scores(self, connection: Connection, prompt: Sequence[int] | str) -> list[PromptScore]:
        told = await connection.post(
            self.path, {"model": self.model, "prompt": prompt, "max_tokens": 1, "echo": True, "logprobs": 1}
        )
        values = told["choices"][0]["logprobs"]["token_logprobs"]
        return [PromptScore(_finite(value), None) for value in values]


async def served_by(connection: Connection) -> list[dict[str, Any]]:
    """The models a server serves, as it lists them. Raises `RemoteError`: it serves none, or is no model server."""
    listed = await connection.get("/v1/models")
    models = [one for one in listed["data"] if isinstance(one, dict) and isinstance(one.get("id"), str)]
    if not models:
        raise RemoteError(_("{host} serves no model", host=connection.host))
    return models


async def detect(connection: Connection, wanted: str | None) -> Dialect:
    """How to speak with a server about the model `wanted`, or the first that it serves.

    Raises:
        RemoteError: it is no model server, or does not serve what is wanted.
    """
    models = await served_by(connection)
    names = [one["id"] for one in models]
    if wanted is not None and wanted not in names:
        raise RemoteError(
            _(
                "{host} has no model {wanted}; it serves {names}",
                host=connection.host,
                wanted=wanted,
                names=", ".join(names),
            )
        )
    one = next((one for one in models if one["id"] == wanted), models[0])
    name, meta = one["id"], one.get("meta") or {}
    version = await _maybe(connection, "/version")
    if isinstance(version, dict) and (one.get("owned_by") == "vllm" or "max_model_len" in one):
        settings = COMMON | {"top_k", "min_p", "repetition_penalty", "ignore_eos"}
        found = Capabilities("vLLM", str(version.get("version", "")), settings=settings, token_ids=True)
        found = replace(found, tokenizer=True, prompt_scores=True, context_length=int(one.get("max_model_len") or 0))
        dialect: Dialect = VLLM(name, await _probed(connection, VLLM(name, replace(found, min_p_first=True))))
        dialect.capabilities = replace(dialect.capabilities, chat=await _chats(connection, dialect))
        return dialect
    props = await _maybe(connection, "/props")
    if isinstance(props, dict) and "default_generation_settings" in props:
        settings = COMMON | {"top_k", "min_p", "typical_p", "repetition_penalty", "ignore_eos"}
        context = props["default_generation_settings"].get("n_ctx") or meta.get("n_ctx_train") or 0
        found = Capabilities("llama.cpp", str(props.get("build_info", "")), MAX_TOP, settings=settings, token_ids=True)
        found = replace(
            found, tokenizer=True, context_length=int(context), vocabulary_size=int(meta.get("n_vocab") or 0)
        )
        dialect = LlamaServer(name, found)
        dialect.capabilities = replace(found, chat=await _chats(connection, dialect))
        return dialect
    if await _answers(connection, "/extras/tokenize", {"model": name, "input": "a"}):
        settings = COMMON | {"top_k", "min_p", "repetition_penalty"}
        found = Capabilities("llama-cpp-python", settings=settings, tokenizer=True)
        dialect = LlamaCppPython(name, await _probed(connection, LlamaCppPython(name, found)))
        dialect.capabilities = replace(dialect.capabilities, prompt_scores=await _echoes(connection, dialect))
        return dialect
    return Dialect(name, await _probed(connection, Dialect(name, Capabilities("OpenAI"))))


async def _chats(connection: Connection, dialect: Dialect) -> bool:
    """Whether the model has a chat template that the server uses for us."""
    try:
        return bool(await dialect.tokenize_chat(connection, "a"))
    except (RemoteError, LookupError, TypeError, ValueError):
        return False


async def _echoes(connection: Connection, dialect: Dialect) -> bool:
    """Whether an echoed text has the scores that its tokens were written with; some servers' are a place off."""
    text = "Once upon a time"
    ask = {"model": dialect.model, "temperature": 0.0, "logprobs": 1}
    try:
        written = (await connection.post(dialect.path, ask | {"prompt": text, "max_tokens": 3}))["choices"][0]
        whole = ask | {"prompt": text + written["text"], "max_tokens": 1, "echo": True}
        echoed = (await connection.post(dialect.path, whole))["choices"][0]["logprobs"]["token_logprobs"]
        expected = written["logprobs"]["token_logprobs"]
        return all(math.isclose(one, other, abs_tol=0.05) for one, other in zip(expected, echoed[-4:-1]))
    except (RemoteError, LookupError, TypeError):
        return False


async def _probed(connection: Connection, dialect: Dialect) -> Capabilities:
    """How many candidates a server tells, and of what: found out with one token at two temperatures."""
    ask = {"model": dialect.model, "prompt": "a", "max_tokens": 1}
    for top in (MAX_TOP, 5, 1):
        try:
            cool, hot = [
                next(iter(dialect.read(await connection.post(dialect.path, ask | settings, retries=0))), None)
                for settings in ({"temperature": 1.0, "logprobs": top}, {"temperature": 2.0, "logprobs": top})
            ]
        except RemoteError:
            continue
        if isinstance(cool, Piece) and isinstance(hot, Piece) and cool.top:
            if math.fsum(math.exp(min(one.log_probability, 1.0)) for one in cool.top) > 1 + TOLERANCE:
                return replace(dialect.capabilities, top=0)  # logits: of what mass they are part is not told
            same = zip(cool.top[:top], hot.top[:top])  # what was drawn comes beside them
            raw = all(abs(one.log_probability - other.log_probability) < TOLERANCE for one, other in same)
            return replace(dialect.capabilities, top=top, raw=raw)
    return replace(dialect.capabilities, top=0)


async def _maybe(connection: Connection, path: str) -> Any:
    try:
        return await connection.get(path, retries=0)
    except RemoteError:
        return None


async def _answers(connection: Connection, path: str, body: dict[str, Any]) -> bool:
    try:
        return isinstance(await connection.post(path, body, retries=0), dict)
    except RemoteError:
        return False


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _id(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{value!r} is no token id")
    return value


def _piece(told: object) -> bytes:
    return bytes(told) if isinstance(told, list) else str(told).encode()
