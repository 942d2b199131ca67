"""A model server on 127.0.0.1 in the forms of several servers, with a tiny model that really generates.

Written from their documents: vLLM's OpenAI-compatible server; llama.cpp's `tools/server/README.md`, now and before
December 2024; llama-cpp-python's `llama_cpp/server`; Ollama's `docs/api.md` and `docs/openai.md`; LM Studio's REST API.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal

import torch
from llguidance.gbnf_to_lark import any_to_lark

from engine.generation.config import GenerationConfig
from engine.generation.events import Candidate, Finished, Start, Stepped
from engine.generation.loop import generate, logits_after
from engine.models.local import LocalModel
from engine.remote.probes import COUNTED
from engine.text.token import Token
from tests.loopback import listening

NAME = "lab/tiny"
TEMPLATE = (
    "{% for one in messages %}{{ one.role + ': ' + one.content + '\\n' }}{% endfor %}"
    "{% if loud %}{{ '!' }}{% endif %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
VLLM_GRAMMARS = {"regex": "regex", "grammar": "grammar", "choice": "choices"}
OPEN_AI = ("openai", "llama-cpp-python", "ollama", "lm-studio")
Fault = Callable[["ModelServer", BaseHTTPRequestHandler, str, dict[str, Any]], bool]


class ModelServer:
    """Serves one model.

    Attributes:
        dialect: whose form it speaks: `vllm`, `llama.cpp`, or one of `OPEN_AI`.
        asked: the bodies of all requests, by path.
        keys: what came as authorization.
        stopped: streams that the other side closed.
        fault: asked before each answer; True when it has answered, or failed to, in its own way.
        others: further names that it says it serves.
        step_seconds: time that each token takes.
        mode: vLLM's `--logprobs-mode`; most: its `--max-logprobs`.
        several: what it does with requests while it writes: llama-cpp-python `interrupts` by default; others
            `refuses` a second text.
        slots: what llama.cpp's `--parallel` says.
        group: tokens in one chunk of a stream, as vLLM sends them when it drafts or falls behind.
        drafts: llama.cpp has a draft model: two of three tokens are guessed.
        old: llama.cpp before December 2024; LM Studio before version 0.4.
        in_template: Ollama puts a prompt into the model's template.
        template: the chat template that llama.cpp says it has.
        messages: OpenAI's chat completions are there `beside` the others, or `alone`; empty for none.
        prefills: fields with which an assistant's last message is gone on with; `None` where it is closed.
        thinks: tokens of an answer that come as what is thought.
        chat_logprobs: log-probabilities come as in OpenAI's chat; `None` for none at all.
        writing, most_writing: streams that were asked for and have not ended, and the most that ever were at once.
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
        self.several: Literal["together", "in turn", "interrupts", "refuses"] = "together"
        self.slots = 0
        self.group = 1
        self.drafts = False
        self.old = False
        self.in_template = False
        self.chat_logprobs: bool | None = False
        self.template: str | None = None
        self.messages: Literal["", "beside", "alone"] = ""
        self.prefills: dict[str, Any] | None = None
        self.thinks = 0
        self.writing = self.most_writing = 0
        self._turn, self._change, self._waiting = threading.Lock(), threading.Condition(), 0

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        body = json.loads(request.rfile.read(length) or b"{}")
        path = request.path
        self.asked.append((path, body))
        self.keys.append(request.headers.get("Authorization"))
        if self.fault is not None and self.fault(self, request, path, body):
            return
        with ExitStack() as asked:
            if body.get("stream") and self.several == "refuses" and self.writing:
                return send(request, {"error": {"message": "one at a time"}}, 503)
            if body.get("stream"):
                asked.enter_context(self._counted())
            if self.several in ("together", "refuses"):
                return self._answer(request, path, body, asked)
            with self._change:
                self._waiting += 1
            with self._turn:
                with self._change:
                    self._waiting -= 1
                return self._answer(request, path, body, asked)

    @property
    def texts_asked_for(self) -> list[dict[str, Any]]:
        """The requests to write something, without those by which the lab finds out what the server can do."""
        return [body for _path, body in self.asked if body.get("stream") and not _is_probe(body)]

    def wait_until_idle(self) -> None:
        """Return once no text is written: one that was left is, until the server sees that."""
        with self._change:
            assert self._change.wait_for(lambda: not self.writing, 60)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._change:
            self.writing += 1
            self.most_writing = max(self.writing, self.most_writing)
        try:
            yield
        finally:
            with self._change:
                self.writing -= 1
                self._change.notify_all()

    def _answer(self, request: BaseHTTPRequestHandler, path: str, body: dict[str, Any], asked: ExitStack) -> None:
        tokenizer = self.model.tokenizer
        form = "openai" if self.dialect in OPEN_AI else self.dialect
        match self.dialect, path:
            case "llama-cpp-python", "/extras/tokenize":
                return send(request, {"tokens": tokenizer.encode_ids(body["input"])})
            case "llama-cpp-python", "/extras/detokenize":
                return send(request, {"text": tokenizer.backend.decode(body["tokens"], skip_special_tokens=False)})
            case "ollama", "/api/version":
                return send(request, {"version": "0.12.11" if self.chat_logprobs else "0.12.6"})
            case "lm-studio", "/api/v1/models" if not self.old:
                return send(request, {"models": [{"type": "llm", "key": NAME}]})
            case "lm-studio", "/api/v0/models" if self.old:
                return send(request, {"object": "list", "data": [{"id": NAME, "state": "loaded"}]})
        match form, path:
            case "vllm", "/v1/models":
                one = {"id": NAME, "object": "model", "owned_by": "vllm", "max_model_len": 512}
                data = [one, *(one | {"id": other} for other in self.others)]
                send(request, {"object": "list", "data": data})
            case "vllm", "/version":
                send(request, {"version": "0.11.0"})
            case "vllm", "/tokenize":
                open_ended = bool(body.get("continue_final_message"))
                asked_for = body["prompt"] if "prompt" in body else chat(body["messages"], open_ended=open_ended)
                ids = tokenizer.encode_ids(asked_for)
                names = [tokenizer.backend.id_to_token(id) for id in ids]
                send(request, {"count": len(ids), "max_model_len": 512, "tokens": ids, "token_strs": names})
            case "vllm", "/detokenize":
                send(request, {"prompt": tokenizer.backend.decode(body["tokens"], skip_special_tokens=False)})
            case "llama.cpp", "/v1/models":
                meta = {"n_vocab": tokenizer.vocabulary_size, "n_ctx_train": 512}
                send(request, {"object": "list", "data": [{"id": NAME, "owned_by": "llamacpp", "meta": meta}]})
            case "llama.cpp", "/props":
                props = {"default_generation_settings": {"n_ctx": 512}, "build_info": "b7000-tiny"}
                props |= {"chat_template": self.template} if self.template else {}
                send(request, props | ({"total_slots": self.slots} if self.slots else {}))
            case "llama.cpp", "/apply-template":
                send(request, {"prompt": chat(body["messages"])})
            case "llama.cpp", "/tokenize":
                backend = tokenizer.backend if body.get("parse_special", True) else tokenizer._without_added()
                ids = backend.encode(body["content"], add_special_tokens=False).ids
                tokens = [{"id": id, "piece": _piece(tokenizer.bytes_of(id))} for id in ids]
                send(request, {"tokens": [one["id"] for one in tokens] if self.old else tokens})
            case "llama.cpp", "/detokenize":
                send(request, {"content": tokenizer.backend.decode(body["tokens"], skip_special_tokens=False)})
            case "llama.cpp", "/completion" if body.get("stream"):
                self._stream(request, body, self._llama(body), asked)
            case "llama.cpp", "/completion":
                send(request, _whole(list(self._llama(body))))
            case "openai", "/v1/models":
                send(request, {"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": "somebody"}]})
            case "openai", "/v1/completions" if self.messages == "alone":
                send(request, {"detail": "Not Found"}, 404)
            case "openai", "/v1/chat/completions" if self.messages and body.get("stream"):
                self._stream(request, body, self._chat(body), asked)
            case "openai", "/v1/chat/completions" if self.messages:
                *events, last = self._chat(body)
                whole = [event["choices"][0] for event in events]
                message = {"role": "assistant", "content": "".join(one["delta"].get("content", "") for one in whole)}
                listed = [part for one in whole for part in (one["logprobs"] or {}).get("content", ())]
                choice = last["choices"][0] | {"message": message, "logprobs": {"content": listed} if listed else None}
                usage = {"prompt_tokens": len(tokenizer.encode_ids(self._put(body)))}
                send(request, {"object": "chat.completion", "choices": [choice], "usage": usage})
            case (("vllm" | "openai"), "/v1/completions") if body.get("stream"):
                self._stream(request, body, self._completion(body), asked)
            case (("vllm" | "openai"), "/v1/completions"):
                most = 5 if form == "openai" else self.most
                if body.get("logprobs", 0) > most:
                    return send(request, {"error": {"message": f"logprobs is at most {most}"}}, 400)
                *events, _last = self._completion(body)
                prompt = self._prompt(body)
                count = len(tokenizer.encode_ids(prompt) if isinstance(prompt, str) else prompt)
                more = {"prompt_logprobs": None, "usage": {"prompt_tokens": count}}
                send(request, events[0] | more | self._prompt_logprobs(body))
            case _:
                send(request, {"detail": "Not Found"}, 404)
        return None

    def _prompt(self, body: dict[str, Any]) -> Any:
        return chat([{"role": "user", "content": body["prompt"]}]) if self.in_template else body["prompt"]

    def _put(self, body: dict[str, Any]) -> str:
        """Messages in the template; one of the assistant's that ends them is gone on with where that is asked for."""
        asked = self.prefills is not None and all(body.get(name) == value for name, value in self.prefills.items())
        return chat(body["messages"], open_ended=asked and body["messages"][-1]["role"] == "assistant")

    def _chat(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Events of OpenAI's chat completions."""
        top = body.get("top_logprobs") if body.get("logprobs") else None
        asked = body | {"prompt": self._put(body), "logprobs": top}
        for place, event in enumerate(self._completion(asked)):
            choice = event["choices"][0]
            name = "reasoning_content" if place < self.thinks and body.get("stream") else "content"
            choice["delta"] = {name: text} if (text := choice.pop("text")) else {}
            yield event | {"object": "chat.completion.chunk"}

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
        tokenizer, top = self.model.tokenizer, None if self.chat_logprobs is None else body.get("logprobs")
        as_ids = self.dialect == "vllm" and body.get("return_tokens_as_token_ids")

        def name(id: int) -> str:
            return f"token_id:{id}" if as_ids else tokenizer.piece(id)

        def told(candidate: Candidate) -> float:
            final = candidate.probability if self.mode.startswith("processed") else candidate.raw_probability
            return (math.log(final) if final else -9999.0) + (3.0 if self.mode.endswith("logits") else 0.0)

        for event in self._steps(self._prompt(body), _config(body, body["max_tokens"])):
            choice: dict[str, Any] = {
                "index": 0,
                "text": "",
                "logprobs": None,
                "finish_reason": None,
                "stop_reason": None,
            }
            if isinstance(event, Stepped):
                choice["text"] = event.token.text
                if top is not None and self.chat_logprobs:
                    listed = [
                        {"token": c.text, "bytes": list(tokenizer.bytes_of(c.id)), "logprob": told(c)}
                        for c in event.candidates
                    ]
                    own = next(i for i, c in enumerate(event.candidates) if c.id == event.token.id)
                    choice["logprobs"] = {"content": [listed[own] | {"top_logprobs": listed[: max(top, 1)]}]}
                elif top is not None:
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
            if self.old:
                yield self._old_llama(event)
            elif isinstance(event, Stepped):
                own = told(event.token.id, event.raw_probability or 0)
                own["top_logprobs"] = [told(c.id, c.raw_probability) for c in event.candidates[: body["n_probs"]]]
                if self.drafts and event.index % 3:
                    own |= {"logprob": 0.0, "top_logprobs": []}
                yield {
                    "content": event.token.text,
                    "tokens": [event.token.id],
                    "stop": False,
                    "completion_probabilities": [own],
                }
            else:
                kind = {"length": "limit", "stop_sequence": "word"}.get(event.reason, "eos")
                timings = {"draft_n": 9, "draft_n_accepted": 6} if self.drafts else {}
                yield {"content": "", "tokens": [], "stop": True, "stop_type": kind, "timings": timings}

    def _old_llama(self, event: Stepped | Finished) -> dict[str, Any]:
        if isinstance(event, Stepped):
            listed = [{"tok_str": c.text, "prob": c.probability} for c in event.candidates[:3]]
            tokens = [{"content": event.token.text, "probs": listed}]
            return {"content": event.token.text, "stop": False, "completion_probabilities": tokens}
        why = {"length": "stopped_limit", "stop_sequence": "stopped_word"}.get(event.reason, "stopped_eos")
        return {"content": "", "stop": True, why: True}

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

    def _stream(
        self, request: BaseHTTPRequestHandler, body: dict[str, Any], events: Iterator[dict[str, Any]], asked: ExitStack
    ) -> None:
        begin_stream(request)
        written, most = 0, body.get("max_tokens", body.get("n_predict"))

        def counted() -> Iterator[dict[str, Any]]:
            nonlocal written
            for event in events:
                written += not _ends(event)
                yield event

        try:
            for event in _grouped(counted(), self.group) if self.group > 1 else counted():
                if _ends(event) or written == most:
                    asked.close()  # with the last token another text may be asked for
                if _ends(event):
                    event |= {"tokens_predicted": written} if self.dialect == "llama.cpp" else {}
                send_event(request, json.dumps(event).encode())
                if self.several == "interrupts" and self._waiting:
                    break
            if (body.get("stream_options") or {}).get("include_usage"):
                send_event(request, json.dumps({"choices": [], "usage": {"completion_tokens": written}}).encode())
            if self.dialect != "llama.cpp":
                send_event(request, b"[DONE]")
        except (BrokenPipeError, ConnectionResetError):
            self.stopped += not _is_probe(body)


def _is_probe(body: dict[str, Any]) -> bool:
    return COUNTED in (body.get("prompt"), *(one["content"] for one in body.get("messages", ())))


def _ends(event: dict[str, Any]) -> bool:
    return bool(event.get("stop") or any(choice["finish_reason"] for choice in event.get("choices", ())))


def _grouped(events: Iterator[dict[str, Any]], size: int) -> Iterator[dict[str, Any]]:
    """OpenAI's events, several tokens in each."""
    held: list[dict[str, Any]] = []
    for event in events:
        held.append(event)
        if len(held) < size and not event["choices"][0]["finish_reason"]:
            continue
        choices, held = [one["choices"][0] for one in held], []
        lists = [one["logprobs"] for one in choices if one["logprobs"]]
        choice = choices[-1] | {"text": "".join(one["text"] for one in choices)}
        choice["logprobs"] = (
            {key: [value for one in lists for value in one[key]] for key in lists[0]} if lists else None
        )
        yield event | {"choices": [choice]}


def _whole(events: list[dict[str, Any]]) -> dict[str, Any]:
    """llama.cpp's answer without a stream."""
    merged = events[-1] | {"content": "".join(event["content"] for event in events)}
    for name in ("tokens", "completion_probabilities"):
        if any(name in event for event in events):
            merged[name] = [one for event in events for one in event.get(name, ())]
    return merged


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
        **_grammar(body),
    )


def _grammar(body: dict[str, Any]) -> dict[str, Any]:
    """What the server's form of a grammar says; llguidance's own translator reads llama.cpp's."""
    outputs = body.get("structured_outputs") or {}
    schema = body.get("json_schema", outputs.get("json"))
    if body.get("grammar"):
        return {"grammar": any_to_lark(body["grammar"])}
    if schema is not None:
        return {"schema": json.dumps(schema)}
    return {ours: outputs[name] for name, ours in VLLM_GRAMMARS.items() if name in outputs}


def chat(messages: list[dict[str, str]], *, open_ended: bool = False) -> str:
    """A chat template; `TEMPLATE` is the same in Jinja."""
    text = "".join(f"{one['role']}: {one['content']}\n" for one in messages)
    return text[:-1] if open_ended else text + "assistant:"


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
