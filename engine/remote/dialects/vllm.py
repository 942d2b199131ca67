"""vLLM: its OpenAI-compatible server's documentation (completions with extra parameters, `/tokenize`, `/version`)."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from engine.generation.stages.registry import PARAMETERS
from engine.models.capabilities import Capabilities
from engine.remote.connection import Connection
from engine.remote.dialects.chat import conversation_fields
from engine.remote.dialects.dialect import Dialect, Ended, Piece, PromptScore, Request, checked_id
from engine.text.conversation import Conversation
from engine.text.layout import ANSWER
from engine.text.spelling import spelled

SEPARATOR = "\x1e"  # ASCII's record separator: it is hardly ever in a text


class VLLM(Dialect):
    """vLLM's server: token ids in and out, most settings, scores of prompts."""

    form = "vLLM"
    least_top = 0

    def __init__(self, model: str, capabilities: Capabilities) -> None:
        super().__init__(model, capabilities)
        self._between: int | Literal[False] | None = False  # not asked for yet

    def body(self, request: Request) -> dict[str, Any]:
        body, config = super().body(request), request.config
        body |= {"return_tokens_as_token_ids": True, "include_stop_str_in_output": True, "add_special_tokens": False}
        body |= {"ignore_eos": config.ignore_eos}
        if (grammar := config.constraint) is not None:
            value: Any = json.loads(grammar.source) if grammar.kind in ("schema", "choices") else grammar.source
            body["structured_outputs"] = {PARAMETERS[grammar.kind].servers[self.form].field: value}
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

    async def tokenize_chat(self, connection: Connection, conversation: Conversation) -> list[tuple[int, bytes | None]]:
        open_ended = conversation.continues
        ways = {
            "add_generation_prompt": not open_ended and bool(conversation.options.get(ANSWER, True)),
            "continue_final_message": open_ended,
            "add_special_tokens": False,  # the template has them
        }
        return await self._tokenized(connection, conversation_fields(conversation) | ways)

    async def _tokenized(self, connection: Connection, ask: dict[str, Any]) -> list[tuple[int, bytes | None]]:
        answer = await connection.post("/tokenize", {"model": self.model, "return_token_strs": True} | ask)
        names = answer.get("token_strs") or [None] * len(answer["tokens"])
        metaspace = any("▁" in (name or "") for name in names)
        return [
            (checked_id(id), None if name is None else spelled(name, metaspace=metaspace))
            for id, name in zip(answer["tokens"], names)
        ]

    async def bytes_of(self, connection: Connection, id: int) -> bytes:
        return (await self._detokenized(connection, [id])).encode()

    async def spellings(self, connection: Connection, ids: Sequence[int]) -> list[bytes]:
        """All in one request where the vocabulary has a token to put between them."""
        if len(ids) > 1 and (between := await self._separator(connection)) is not None:
            texts = await self._detokenized(connection, [between, *(one for id in ids for one in (id, between))])
            parts = texts.split(SEPARATOR)
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
        answer = await connection.post(
            self.path,
            {"model": self.model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 1},
        )
        rows = answer["choices"][0].get("prompt_logprobs") or answer.get("prompt_logprobs") or []
        scores = []
        for id, row in zip(prompt, rows):
            own = (row or {}).get(str(id))
            scores.append(PromptScore(own["logprob"], own.get("rank")) if own else PromptScore(None, None))
        return scores
