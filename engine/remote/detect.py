"""Which kind of server answers, and what it can do, found out by asking."""

import math
from dataclasses import replace
from typing import Any

from engine.base.language import _
from engine.models.capabilities import COMMON, Capabilities
from engine.remote.connection import Connection, RemoteError
from engine.remote.dialects.dialect import Dialect, Piece
from engine.remote.dialects.llama_cpp import LlamaCppPython, LlamaServer
from engine.remote.dialects.vllm import VLLM

MAX_TOP = 20  # of vLLM by default
TOLERANCE = 0.05  # nats; the same text may be computed in another batch


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
    """How many candidates a server lists, and of what: found out with one token at two temperatures."""
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
                return replace(dialect.capabilities, top=0)  # logits: of what mass they are part is not known
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
