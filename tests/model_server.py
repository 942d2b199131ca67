"""A model server on 127.0.0.1 in the forms of vLLM, llama.cpp and OpenAI, with a tiny model that really generates."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import torch

from engine.generation.config import GenerationConfig
from engine.generation.events import Candidate, Finished, Start, Stepped
from engine.generation.loop import generate, logits_after
from engine.models.local import LocalModel
from engine.text.token import Token
from tests.loopback import listening

NAME = "lab/tiny"
Fault = Callable[["ModelServer", BaseHTTPRequestHandler, str, dict[str, Any]], bool]


class ModelServer:
    """Serves one model.

    Attributes:
        dialect: whose form it speaks: `vllm`, `llama.cpp` or `openai`.
        asked: the bodies of all requests, by path.
        keys: what came as authorization.
        stopped: streams that the other side closed.
        fault: asked before each answer; True when it has answered, or failed to, in its own way.
        others: further names that it says it serves.
        step_seconds: time that each token takes.
        mode: vLLM's `--logprobs-mode`; most: its `--max-logprobs`.
    """

    def __init__(self, model: LocalModel, dialect: str) -> None:
        self.model = model
        self.dialect = dialect
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[str | None] = []
        self.stopped = 0
        self.fault: Fault | None = None
        self.step_seconds = 0.0
        self.url = ""
        self.others: list[str] = []
        self.mode = "raw_logprobs"
        self.most = 20

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        body = json.loads(request.rfile.read(length) or b"{}")
        path = request.path
        self.asked.append((path, body))
        self.keys.append(request.headers.get("Authorization"))
        if self.fault is not None and self.fault(self, request, path, body):
            return
        tokenizer = self.model.tokenizer
        match self.dialect, path:
            case "vllm", "/v1/models":
                one = {"id": NAME, "object": "model", "owned_by": "vllm", "max_model_len": 512}
                data = [one, *(one | {"id": other} for other in self.others)]
                send(request, {"object": "list", "data": data})
            case "vllm", "/version":
                send(request, {"version": "0.11.0"})
            case "vllm", "/tokenize":
                ids = tokenizer.encode_ids(body["prompt"] if "prompt" in body else chat(body["messages"]))
                names = [tokenizer.backend.id_to_token(id) for id in ids]
                send(request, {"count": len(ids), "max_model_len": 512, "tokens": ids, "token_strs": names})
            case "vllm", "/detokenize":
                send(request, {"prompt": tokenizer.backend.decode(body["tokens"], skip_special_tokens=False)})
            case "llama.cpp", "/v1/models":
                meta = {"n_vocab": tokenizer.vocabulary_size, "n_ctx_train": 512}
                send(request, {"object": "list", "data": [{"id": NAME, "owned_by": "llamacpp", "meta": meta}]})
            case "llama.cpp", "/props":
                send(request, {"default_generation_settings": {"n_ctx": 512}, "build_info": "b7000-tiny"})
            case "llama.cpp", "/apply-template":
                send(request, {"prompt": chat(body["messages"])})
            case "llama.cpp", "/tokenize":
                tokens = [
                    {"id": id, "piece": _piece(tokenizer.bytes_of(id))} for id in tokenizer.encode_ids(body["content"])
                ]
                send(request, {"tokens": tokens})
            case "llama.cpp", "/detokenize":
                send(request, {"content": tokenizer.backend.decode(body["tokens"], skip_special_tokens=False)})
            case "llama.cpp", "/completion":
                self._stream(request, self._llama(body))
            case "openai", "/v1/models":
                send(request, {"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": "somebody"}]})
            case (("vllm" | "openai"), "/v1/completions") if body.get("stream"):
                self._stream(request, self._completion(body))
            case (("vllm" | "openai"), "/v1/completions"):
                most = 5 if self.dialect == "openai" else self.most
                if body.get("logprobs", 0) > most:
                    return send(request, {"error": {"message": f"logprobs is at most {most}"}}, 400)
                *events, _last = self._completion(body)
                send(request, events[0] | {"prompt_logprobs": None} | self._prompt_logprobs(body))
            case _:
                send(request, {"detail": "Not Found"}, 404)
        return None

    def _steps(self, prompt: list[int] | str, config: GenerationConfig) -> Iterator[Stepped | Finished]:
        tokenizer = self.model.tokenizer
        ids = tokenizer.encode_ids(prompt) if isinstance(prompt, str) else prompt
        start = Start(tuple(Token(place, id, "", "", 0, 0, "") for place, id in enumerate(ids)))
        for event in generate(self.model.network, tokenizer, [start], [config], candidates=tokenizer.vocabulary_size):
            if isinstance(event, Stepped | Finished):
                time.sleep(self.step_seconds)  # a larger model takes its time
                yield event

    def _completion(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Events of OpenAI's completions, with vLLM's additions where they are asked for."""
        tokenizer, top = self.model.tokenizer, body.get("logprobs")
        as_ids = self.dialect == "vllm" and body.get("return_tokens_as_token_ids")

        def name(id: int) -> str:
            return f"token_id:{id}" if as_ids else tokenizer.piece(id)

        def told(candidate: Candidate) -> float:
            final = candidate.probability if self.mode.startswith("processed") else candidate.raw_probability
            return (math.log(final) if final else -9999.0) + (3.0 if self.mode.endswith("logits") else 0.0)

        for event in self._steps(body["prompt"], _config(body, body["max_tokens"])):
            choice: dict[str, Any] = {
                "index": 0,
                "text": "",
                "logprobs": None,
                "finish_reason": None,
                "stop_reason": None,
            }
            if isinstance(event, Stepped):
                choice["text"] = event.token.text
                if top is not None:
                    choice["logprobs"] = {
                        "tokens": [name(event.token.id)],
                        "token_logprobs": [next(told(c) for c in event.candidates if c.id == event.token.id)],
                        "top_logprobs": [{name(c.id): told(c) for c in event.candidates[: max(top, 1)]}],
                        "text_offset": [0],
                    }
            else:
                choice["finish_reason"] = "length" if event.reason == "length" else "stop"
                if event.reason == "stop_sequence":
                    choice["stop_reason"] = body["stop"][0]
            yield {"id": "cmpl-1", "object": "text_completion", "model": NAME, "choices": [choice]}

    def _llama(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        def told(id: int, probability: float) -> dict[str, Any]:
            data = self.model.tokenizer.bytes_of(id)
            text = data.decode("utf-8", "replace")
            return {"id": id, "token": text, "bytes": list(data), "logprob": math.log(max(probability, 1e-30))}

        for event in self._steps(body["prompt"], _config(body, body["n_predict"])):
            if isinstance(event, Stepped):
                own = told(event.token.id, event.raw_probability or 0)
                own["top_logprobs"] = [told(c.id, c.raw_probability) for c in event.candidates[: body["n_probs"]]]
                yield {
                    "content": event.token.text,
                    "tokens": [event.token.id],
                    "stop": False,
                    "completion_probabilities": [own],
                }
            else:
                kind = {"length": "limit", "stop_sequence": "word"}.get(event.reason, "eos")
                yield {"content": "", "tokens": [], "stop": True, "stop_type": kind}

    def _prompt_logprobs(self, body: dict[str, Any]) -> dict[str, Any]:
        if not body.get("prompt_logprobs"):
            return {}
        ids, rows = body["prompt"], [None]
        for place in range(1, len(ids)):
            scores = logits_after(self.model.network, ids[:place]).log_softmax(-1)
            rank = int((scores > scores[ids[place]]).sum()) + 1
            best = int(scores.argmax())
            row = {str(best): {"logprob": float(scores[best]), "rank": 1, "decoded_token": ""}}
            rows.append(
                row | {str(ids[place]): {"logprob": float(scores[ids[place]]), "rank": rank, "decoded_token": ""}}
            )
        return {"choices": [{"index": 0, "text": "", "finish_reason": "length", "prompt_logprobs": rows}]}

    def _stream(self, request: BaseHTTPRequestHandler, events: Iterator[dict[str, Any]]) -> None:
        begin_stream(request)
        try:
            for event in events:
                send_event(request, json.dumps(event).encode())
            if self.dialect != "llama.cpp":
                send_event(request, b"[DONE]")
        except (BrokenPipeError, ConnectionResetError):
            self.stopped += 1


def begin_stream(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Type", "text/event-stream")
    request.send_header("Connection", "close")
    request.end_headers()
    request.close_connection = True


def send_event(request: BaseHTTPRequestHandler, data: bytes) -> None:
    request.wfile.write(b"data: " + data + b"\n\n")
    request.wfile.flush()


def send(request: BaseHTTPRequestHandler, answer: object, status: int = 200, **headers: str) -> None:
    data = json.dumps(answer).encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(data)))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(data)


@contextmanager
def serve(model: LocalModel, dialect: str = "vllm", *, tls: bool = False) -> Iterator[ModelServer]:
    """Run a server in a thread for the length of a `with`."""
    torch.set_num_threads(1)
    server = ModelServer(model, dialect)
    with listening(server.answer, tls=tls) as server.url:
        yield server


def _config(body: dict[str, Any], tokens: int) -> GenerationConfig:
    greedy = body["temperature"] == 0
    return GenerationConfig(
        strategy="greedy" if greedy else "sample",
        max_new_tokens=tokens,
        temperature=body["temperature"] or 1.0,
        top_k=None if greedy or body.get("top_k", 0) <= 0 else body["top_k"],
        seed=body.get("seed"),
        stop=tuple(body.get("stop") or ()),
        ignore_eos=bool(body.get("ignore_eos")),
    )


def chat(messages: list[dict[str, str]]) -> str:
    """A chat template."""
    return "".join(f"{one['role']}: {one['content']}\n" for one in messages) + "assistant:"


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
