"""llama.cpp: `tools/server/README.md` (`/completion`, `/tokenize`, `/props`); llama-cpp-python: `llama_cpp/server`."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from engine.base.errors import InputError
from engine.base.language import _
from engine.generation.grammar import gbnf_choices
from engine.generation.stages.order import samplers
from engine.generation.stages.registry import sent
from engine.remote.connection import Connection, RemoteError
from engine.remote.dialects.chat import conversation_fields
from engine.remote.dialects.dialect import (
    Alternative,
    Dialect,
    End,
    Ended,
    Part,
    Piece,
    PromptScore,
    Request,
    checked_count,
    checked_id,
    finite,
)
from engine.text.conversation import Conversation
from engine.text.spelling import UNKNOWN

MOST_LOOKED_BACK = 8192


class LlamaServer(Dialect):
    """llama.cpp's `llama-server`, in its own form, which sends ids and bytes.

    Builds from before December 2024 send texts without ids, and probabilities of what their settings left, by text:
    these are not read.
    """

    path = "/completion"
    form = "llama.cpp"
    least_top = 0

    def body(self, request: Request) -> dict[str, Any]:
        config, top = request.config, self.capabilities.top if request.top is None else request.top
        body: dict[str, Any] = {"prompt": request.prompt, "n_predict": request.tokens, "n_probs": top}
        body |= {"cache_prompt": True, "return_tokens": True, "post_sampling_probs": False, "stop": list(config.stop)}
        sampled = config.strategy == "sample"
        body["repeat_last_n"] = self.capabilities.context_length or MOST_LOOKED_BACK  # the whole text, as ours
        body |= {"ignore_eos": config.ignore_eos} | sent(self.form, config, truncations=sampled)
        body["samplers"] = samplers(config.order)
        body |= {"seed": request.seed} if sampled else {"temperature": 0.0, "top_k": 1}
        if config.schema is not None:
            body["json_schema"] = json.loads(config.schema)
        if config.choices:
            body["grammar"] = gbnf_choices(config.choices)
        body["logit_bias"] = [[id, bias] for id, bias in config.logit_bias] + [[id, False] for id in config.banned]
        return body

    def read(self, event: dict[str, Any]) -> Iterator[Part]:
        listed = [one for one in event.get("completion_probabilities") or () if "id" in one]
        for one in listed:
            own = self._alternative(one)
            top = tuple(map(self._alternative, one.get("top_logprobs") or ()))
            # What a draft model guessed says 0, which is certain, and lists nothing: its probability is not known.
            yield Piece(own.id, own.data, finite(own.log_probability) if top else None, top)
        if not listed and (ids := event.get("tokens")):
            text = str(event.get("content", "")).encode()
            yield from (Piece(checked_id(id), text if len(ids) == 1 else b"", None) for id in ids)
        elif not listed and event.get("content"):
            yield Piece(None, str(event["content"]).encode(), None)
        if event.get("stop"):
            yield End(self._ended(event), drafted=bool((event.get("timings") or {}).get("draft_n")))

    async def parted(self, connection: Connection, piece: Piece) -> list[Piece]:
        """A character's tokens, which come as one: the last one's id, with the bytes of all.

        Those before it have no probability. Where they cannot be found, the piece has no id.
        """
        own = next((one.data for one in piece.top if one.id == piece.id), None)
        if piece.id is None or piece.data.isascii() or own == piece.data:
            return [piece]
        try:
            cut = await self.tokenize(connection, piece.data.decode(), template=False)
        except UnicodeDecodeError:  # a part of a character: its own bytes
            return [piece]
        except RemoteError:
            return [replace(piece, id=None)]
        for count in range(1, len(cut) + 1):  # a space may stand before them, which the tokenizer puts there
            last = cut[-count:]
            if b"".join(data or b"" for _id, data in last) == piece.data and last[-1][0] == piece.id:
                before = [Piece(id, data or b"", None) for id, data in last[:-1]]
                return [*before, replace(piece, data=last[-1][1] or piece.data)]
        return [replace(piece, id=None)]

    def tokens_written(self, event: dict[str, Any]) -> int | None:
        return checked_count(event.get("tokens_predicted")) if event.get("stop") else None

    def _ended(self, event: dict[str, Any]) -> Ended:
        if event.get("stop_type") == "limit" or event.get("stopped_limit"):
            return "length"
        return "stop_sequence" if event.get("stop_type") == "word" or event.get("stopped_word") else "end_of_text"

    def _alternative(self, one: dict[str, Any]) -> Alternative:
        data = bytes(one["bytes"]) if one.get("bytes") else str(one.get("token", "")).encode()
        value = finite(one.get("logprob"))
        return Alternative(checked_id(one["id"]), data, -math.inf if value is None else value)

    async def tokenize_chat(self, connection: Connection, conversation: Conversation) -> list[tuple[int, bytes | None]]:
        text = await self.templated(connection, conversation)
        last = conversation.messages[-1].content.rstrip()
        if conversation.continues and not text.rstrip().endswith(last):
            raise InputError(_("this server does not go on with an answer that is begun; leave it out"))
        return await self.tokenize(connection, text, template=False)

    async def templated(self, connection: Connection, conversation: Conversation) -> str:
        """What the server makes of a conversation."""
        return str((await connection.post("/apply-template", conversation_fields(conversation)))["prompt"])

    async def tokenize(self, connection: Connection, text: str, *, template: bool) -> list[tuple[int, bytes | None]]:
        return await self._tokenized(connection, {"content": text, "add_special": template})

    async def tokenize_letters(self, connection: Connection, text: str) -> list[tuple[int, bytes | None]]:
        return await self._tokenized(connection, {"content": text, "add_special": False, "parse_special": False})

    async def _tokenized(self, connection: Connection, ask: dict[str, Any]) -> list[tuple[int, bytes | None]]:
        answer = await connection.post("/tokenize", ask | {"with_pieces": True})
        return [
            (checked_id(one["id"]), _piece(one["piece"])) if isinstance(one, dict) else (checked_id(one), None)
            for one in answer["tokens"]
        ]

    async def bytes_of(self, connection: Connection, id: int) -> bytes:
        return str((await connection.post("/detokenize", {"tokens": [id]}))["content"]).encode()


class LlamaCppPython(Dialect):
    """llama-cpp-python's server: OpenAI's form, with a tokenizer beside it."""

    form = "llama-cpp-python"

    def body(self, request: Request) -> dict[str, Any]:
        body = super().body(request)
        return body | {"grammar": gbnf_choices(request.config.choices)} if request.config.choices else body

    async def tokenize(self, connection: Connection, text: str, *, template: bool) -> list[tuple[int, bytes | None]]:
        answer = await connection.post("/extras/tokenize", {"model": self.model, "input": text})
        return [(checked_id(id), None) for id in answer["tokens"]]

    async def bytes_of(self, connection: Connection, id: int) -> bytes:
        try:
            answer = await connection.post("/extras/detokenize", {"model": self.model, "tokens": [id]}, retries=0)
        except RemoteError:  # it has no text for a part of a character
            return UNKNOWN
        return str(answer["text"]).encode()

    async def prompt_scores(self, connection: Connection, prompt: Sequence[int] | str) -> list[PromptScore]:
        answer = await connection.post(
            self.path, {"model": self.model, "prompt": prompt, "max_tokens": 1, "echo": True, "logprobs": 1}
        )
        values = answer["choices"][0]["logprobs"]["token_logprobs"]
        return [PromptScore(finite(value), None) for value in values]


def _piece(answer: object) -> bytes:
    return bytes(answer) if isinstance(answer, list) else str(answer).encode()
