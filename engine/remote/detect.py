"""Which kind of server answers, and what it can do, found out by asking."""

from dataclasses import replace
from typing import Any

from engine.base.language import _
from engine.generation.stages.registry import supported
from engine.models.capabilities import COMMON, Capabilities
from engine.remote import probes
from engine.remote.connection import Connection, RemoteError
from engine.remote.dialects.chat import for_chat
from engine.remote.dialects.dialect import Dialect
from engine.remote.dialects.llama_cpp import LlamaCppPython, LlamaServer
from engine.remote.dialects.vllm import VLLM


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
    listed = next((one for one in models if one["id"] == wanted), models[0])
    dialect = (
        await _vllm(connection, listed)
        or await _llama_server(connection, listed)
        or await _llama_cpp_python(connection, listed)
        or await _open_ai(connection, listed)
    )
    dialect.capabilities = await _with_overlap(connection, dialect)
    return dialect


async def _vllm(connection: Connection, listed: dict[str, Any]) -> Dialect | None:
    version = await _maybe(connection, "/version")
    if not isinstance(version, dict) or not (listed.get("owned_by") == "vllm" or "max_model_len" in listed):
        return None
    found = Capabilities(
        "vLLM",
        str(version.get("version", "")),
        settings=COMMON | supported("vLLM") | {"ignore_eos"},
        min_p_first=True,
        token_ids=True,
        tokenizer=True,
        prompt_scores=True,
        context_length=int(listed.get("max_model_len") or 0),
    )
    dialect = VLLM(listed["id"], found)
    dialect.capabilities = await probes.candidates(connection, dialect)
    dialect.capabilities = replace(
        dialect.capabilities,
        chat=await probes.chats(connection, dialect),
        settings=await probes.followed(connection, dialect),
    )
    return dialect


async def _llama_server(connection: Connection, listed: dict[str, Any]) -> Dialect | None:
    props = await _maybe(connection, "/props")
    if not isinstance(props, dict) or "default_generation_settings" not in props:
        return None
    meta, defaults = listed.get("meta") or {}, props["default_generation_settings"]
    found = Capabilities(
        "llama.cpp",
        str(props.get("build_info", "")),
        settings=COMMON | supported("llama.cpp") | {"ignore_eos"},
        tokenizer=True,
        context_length=int(defaults.get("n_ctx") or meta.get("n_ctx_train") or 0),
        vocabulary_size=int(meta.get("n_vocab") or 0),
        at_once=int(props.get("total_slots") or 0),
    )
    dialect = LlamaServer(listed["id"], found)
    names = ("bos_token", "eos_token")
    dialect.special_tokens = {name: props[name] for name in names if isinstance(props.get(name), str)}
    dialect.template = await probes.template(connection, dialect, props)
    if isinstance(tools := props.get("chat_template_tool_use"), str):
        dialect.other_templates = {"tool_use": tools}
    dialect.capabilities = await probes.candidates(connection, dialect)
    dialect.capabilities = replace(
        dialect.capabilities,
        token_ids=await probes.sends_ids(connection, dialect),
        drafts=await probes.drafts(connection, dialect),
        chat=await probes.chats(connection, dialect),
        settings=await probes.followed(connection, dialect),
    )
    return dialect


async def _llama_cpp_python(connection: Connection, listed: dict[str, Any]) -> Dialect | None:
    if not await _answers(connection, "/extras/tokenize", {"model": listed["id"], "input": "a"}):
        return None
    settings = COMMON | supported("llama-cpp-python")
    dialect = LlamaCppPython(listed["id"], Capabilities("llama-cpp-python", settings=settings, tokenizer=True))
    dialect.capabilities = await probes.candidates(connection, dialect)
    dialect.capabilities = replace(
        dialect.capabilities,
        prompt_scores=await probes.echoes(connection, dialect),
        settings=await probes.followed(connection, dialect),
    )
    await _add_chat(connection, dialect)
    return dialect


async def _open_ai(connection: Connection, listed: dict[str, Any]) -> Dialect:
    """Any other server: OpenAI's completions, which Ollama and LM Studio have too."""
    name, version, settings = "OpenAI", "", COMMON | supported("OpenAI")
    # What these two know of llama.cpp's penalties is not what OpenAI defines.
    theirs = settings - {"presence_penalty", "frequency_penalty"}
    answer = await _maybe(connection, "/api/version")
    if isinstance(answer, dict) and "version" in answer:
        name, version = "Ollama", str(answer["version"])
        settings = theirs - {"logit_bias"}  # it takes no notice of one
    elif await _is_lm_studio(connection):
        name, settings = "LM Studio", theirs
    dialect = Dialect(listed["id"], Capabilities(name, version, settings=settings))
    if not await probes.completes(connection, dialect):
        chat = for_chat(dialect, chat=True, messages=True, continues=False)
        if await probes.takes_messages(connection, chat):
            chat.capabilities = await probes.candidates(connection, chat)
            chat.prefill = await probes.prefill(connection, chat)
            return chat
    dialect.capabilities = await probes.candidates(connection, dialect)
    dialect.capabilities = replace(dialect.capabilities, continues=await probes.continues(connection, dialect))
    await _add_chat(connection, dialect)
    return dialect


async def _add_chat(connection: Connection, dialect: Dialect) -> None:
    """Find out whether conversations can go as messages to a server that has completions for texts."""
    chat = for_chat(dialect, continues=False)
    if await probes.takes_messages(connection, chat):
        chat.capabilities = await probes.candidates(connection, chat)
        chat.prefill = await probes.prefill(connection, chat)
        dialect.chat = chat
        dialect.capabilities = replace(dialect.capabilities, chat=True)


async def _is_lm_studio(connection: Connection) -> bool:
    """Whether a list of models is in LM Studio's form: its present one, or that from before version 0.4."""
    for path, name in (("/api/v1/models", "models"), ("/api/v0/models", "data")):
        answer = await _maybe(connection, path)
        if isinstance(answer, dict) and isinstance(answer.get(name), list):
            return True
    return False


async def _with_overlap(connection: Connection, dialect: Dialect) -> Capabilities:
    """How many texts the server writes at once: what it says of that, where it does write several."""
    match await probes.overlap(connection, dialect):
        case "in turn":
            return replace(dialect.capabilities, at_once=1)
        case "interrupts":
            return replace(dialect.capabilities, at_once=1, interrupts=True)
    return dialect.capabilities


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
