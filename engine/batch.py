"""Many prompts under many configurations, from a file into a file; after a stop or a kill it goes on where it was.

A job is a line of JSON: `{"prompt": "…"}`, with an `id` of its own and a `config` (a preset, as `"sampled,seed=7"`, or
an object of settings laid over the batch's) where they are wanted. It may be a conversation: `messages` as OpenAI has
them, with `tools` and `chat_template_kwargs`, a `system` text, `chat_options`, `continue` where the last message, an
assistant's, is gone on with, `special` where control tokens typed in it are those tokens. A result is a line too,
written whole or not at all, once for each job; where the job has a draft, with what became of its guesses, as
`generate --json` has it; of a conversation with the answer as a `message`.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from engine.base.errors import Cancelled, ContextError, InputError, LogitlabError, MachineError
from engine.base.files import read_text
from engine.base.language import _
from engine.base.retry import retry
from engine.generation.config import LOOKUP, GenerationConfig, config_from_dict, names_own, preset_config
from engine.generation.events import Failed, Finished, Start, Stepped
from engine.generation.result import drafted
from engine.models.model import Model
from engine.models.own import OwnSettings
from engine.text.answer import answered, known_template
from engine.text.conversation import Conversation, Message, from_list
from engine.text.rendering import Rendered
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.generation.amateur import Amateur
    from engine.generation.drafts import DraftModel

# The second models of lanes that run together, as `amateurs` and `drafts`; and a model with those of its lanes.
Seconds: TypeAlias = "Mapping[str, Amateur | DraftModel | None]"
Brought: TypeAlias = "tuple[Model, Seconds]"

MOST_BYTES = 1_000_000_000
FIRST_WAIT = 0.5  # seconds before the second attempt
BEGINNING = b'{"id": '  # of each line of results, by which a cut one is recognised
FIELDS = ("id", "prompt", "config", "messages", "system", "chat_options", "continue", "special")
OF_OPENAI = ("tools", "documents", "chat_template_kwargs")  # beside messages


@dataclass(frozen=True, slots=True)
class BatchJob:
    """One prompt under one configuration; no other job has the same `id`.

    Attributes:
        prompt: empty where the job has messages alone.
        conversation: what goes to the model in its chat template, in the place of the prompt.
    """

    id: str
    prompt: str
    config: GenerationConfig
    conversation: Conversation | None = None


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """`done` of `total` jobs have a result, `failed` of them an error; `seconds_left` is `None` before the first."""

    done: int
    total: int
    failed: int
    seconds_left: float | None


def read_jobs(path: Path, base: GenerationConfig | None = None, own: OwnSettings | None = None) -> list[BatchJob]:
    """The jobs of a file, in its order. Raises `InputError` naming the line that is wrong.

    Args:
        base: of the jobs that name no configuration, and what a job's own settings are laid over.
        own: what the model brings; plain settings stand for it while the model is not known.
    """
    base = base or GenerationConfig()
    jobs: dict[str, BatchJob] = {}
    for number, line in enumerate(read_text(path, MOST_BYTES).split("\n"), start=1):
        if line.strip():
            try:
                job = _job(json.loads(line), number, base, own)
            except (ValueError, RecursionError, InputError) as error:
                raise InputError(_("{path}, line {number}: {error}", path=path, number=number, error=error)) from error
            if job.id in jobs:
                raise InputError(
                    _("{path}, line {number}: the id {id} is there twice", path=path, number=number, id=job.id)
                )
            jobs[job.id] = job
    if not jobs:
        raise InputError(
            _("{path} holds no job; give one a line, such as {example}", path=path, example='{"prompt": "The sky"}')
        )
    return list(jobs.values())


def talked(job: BatchJob) -> Conversation:
    """A job's conversation, or its prompt as a user's message."""
    return Conversation.of(job.prompt) if job.conversation is None else job.conversation


def run(
    model: Model,
    jobs: Sequence[BatchJob],
    out: Path,
    *,
    concurrency: int = 8,
    attempts: int = 5,
    stopped: Callable[[], bool] = lambda: False,
    bring: Callable[[GenerationConfig], Brought] | None = None,
) -> Iterator[BatchProgress]:
    """Do the jobs that `out` has no result of yet; each result is written at once.

    Args:
        model: of the jobs that name none, `bring` gives that of a configuration that names one, with its second ones;
            jobs of the same models are done together, and the next are brought when those before are done.
        concurrency: texts that are generated at once: streams of a server, or lanes of one run in this process.
        attempts: how often a job is tried before its error becomes its result.
        stopped: asked before each token; True ends the batch, and the next call goes on with it.

    Raises:
        MachineError: `out` cannot be written, or another batch writes into it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(f"{out}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise MachineError(_("another batch writes {out}; wait for it, or give another file", out=out)) from error
    try:
        with _results(out) as (file, done):
            left = [job for job in jobs if job.id not in done]
            results = _of_each_model(model, left, bring, concurrency, attempts, stopped)
            yield from _written_down(results, len(left), len(jobs), file)
    finally:
        lock.release()


def _written_down(results: Iterable[dict[str, Any]], left: int, total: int, file: IO[bytes]) -> Iterator[BatchProgress]:
    """Write each result as it comes; `left` of `total` jobs have none yet."""
    began, failed = time.monotonic(), 0
    for number, result in enumerate(results, start=1):
        failed += "error" in result
        file.write(json.dumps(result, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        file.flush()
        os.fsync(file.fileno())
        seconds = (time.monotonic() - began) / number * (left - number)
        yield BatchProgress(total - left + number, total, failed, seconds)


def _of_each_model(
    model: Model,
    jobs: Sequence[BatchJob],
    bring: Callable[[GenerationConfig], Brought] | None,
    concurrency: int,
    attempts: int,
    stopped: Callable[[], bool],
) -> Iterator[dict[str, Any]]:
    """Results of the jobs of one model after the other's. A model that cannot be had is the error of its jobs."""
    groups: dict[tuple[str | None, ...], list[BatchJob]] = {}
    for job in jobs:
        draft = None if job.config.draft == LOOKUP else job.config.draft
        groups.setdefault((job.config.model, job.config.precision, job.config.amateur, draft), []).append(job)
    for (name, *others), group in groups.items():
        if stopped():
            return
        theirs: Brought = model, {}
        if any((name, *others)):
            try:
                if bring is None:
                    raise InputError(_("a job names a model, and none is loaded here but the batch's own"))
                theirs = bring(group[0].config)
            except LogitlabError as error:
                yield from (_failure(name or model.facts.name, job, error) for job in group)
                continue
        yield from _results_of(*theirs, group, concurrency, attempts, stopped)


def _results_of(
    model: Model,
    beside: Seconds,
    jobs: Sequence[BatchJob],
    concurrency: int,
    attempts: int,
    stopped: Callable[[], bool],
) -> Iterator[dict[str, Any]]:
    """Results as they come, of a server's streams, or of lanes that run together in this process."""
    if model.capabilities.network:
        for first in range(0, len(jobs), concurrency):
            if stopped():
                return
            yield from _together(model, beside, jobs[first : first + concurrency], stopped)
        return
    waiting = iter(jobs)
    concurrency = min(concurrency, model.capabilities.at_once or concurrency)
    with ThreadPoolExecutor(concurrency, "logitlab-batch") as pool:
        running: set[Future[dict[str, Any] | None]] = set()
        try:
            while True:
                while len(running) < concurrency and not stopped() and (job := next(waiting, None)) is not None:
                    running.add(pool.submit(_alone, model, job, attempts, stopped))
                if not running:
                    return
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    result = future.result()
                    if result is not None:
                        yield result
        finally:
            pool.shutdown(cancel_futures=True)


def _alone(model: Model, job: BatchJob, attempts: int, stopped: Callable[[], bool]) -> dict[str, Any] | None:
    """One job's result, tried again while that may help; `None` once the batch is stopped."""
    try:
        [result] = retry(
            lambda: _written(model, {}, [job], stopped),
            attempts=attempts,
            wait=lambda error, backoff: backoff if _may_pass(error) else None,
            first_wait=FIRST_WAIT,
            stopped=stopped,
        )
        return result
    except LogitlabError as error:
        return None if stopped() else _failure(model.facts.name, job, error)
    except Cancelled:
        return None


def _may_pass(error: Exception) -> bool:
    """Whether the same job may succeed a little later."""
    return isinstance(error, LogitlabError) and not isinstance(error, InputError)


def _together(
    model: Model, beside: Seconds, jobs: Sequence[BatchJob], stopped: Callable[[], bool]
) -> list[dict[str, Any]]:
    """Results of some jobs as the lanes of one run; none where it was stopped."""
    try:
        return _written(model, beside, jobs, stopped)
    except Cancelled:
        return []
    except LogitlabError as error:
        if len(jobs) == 1:
            return [_failure(model.facts.name, jobs[0], error)]
        # One of them is at fault, and the others succeed without it.
        return [result for job in jobs for result in _together(model, beside, [job], stopped)]


def _written(
    model: Model, beside: Seconds, jobs: Sequence[BatchJob], stopped: Callable[[], bool]
) -> list[dict[str, Any]]:
    """Results of jobs that run together. Raises what the run fails with, and `Cancelled` where it was stopped."""
    begun = [_begun(model, job) for job in jobs]
    starts = [start for start, _rendered in begun]
    written: list[list[Token]] = [[] for _job in jobs]
    guessed: list[list[Stepped]] = [[] for _job in jobs]  # the steps of lanes with a draft
    reasons = [""] * len(jobs)
    began = time.monotonic()
    configs = [job.config for job in jobs]
    how: dict[str, Any] = {role: [one] * len(jobs) for role, one in beside.items() if one is not None}
    for event in model.generate(starts, configs, candidates=1, proceed=lambda: not stopped(), **how):
        match event:
            case Stepped():
                written[event.lane].append(event.token)
                if configs[event.lane].draft is not None:
                    guessed[event.lane].append(event)
            case Finished():
                reasons[event.lane] = event.reason
            case Failed():
                raise event.error
    if "cancelled" in reasons:
        raise Cancelled
    seconds = time.monotonic() - began
    return [
        _described(model.facts.name, job)
        | {"text": "".join(token.text for token in tokens), "tokens": len(tokens), "finish_reason": reason}
        | {"seconds": round(seconds, 4)}
        | ({} if job.config.draft is None else {"draft": asdict(drafted(steps))})
        | ({} if rendered is None else _message(model.tokenizer, start, rendered, tokens))
        for job, (start, rendered), tokens, reason, steps in zip(jobs, begun, written, reasons, guessed)
    ]


def _begun(model: Model, job: BatchJob) -> tuple[Start, Rendered | None]:
    """Where a job begins. Raises `InputError` where its conversation cannot be put, or does not fit."""
    if job.conversation is None:
        return Start(tuple(model.tokenizer.encode(job.prompt))), None
    rendered = model.tokenizer.encode_conversation(job.conversation)
    if why := rendered.not_fitting(model.facts.context_length, job.config.max_new_tokens):
        raise ContextError(why)
    return Start(rendered.tokens, conversation=job.conversation), rendered


def _message(tokenizer: Tokenizer, start: Start, rendered: Rendered, written: Sequence[Token]) -> dict[str, Any]:
    """What was written as a message, and what should be known of the conversation before it."""
    assert start.conversation is not None
    template = known_template(tokenizer, start.conversation)
    talked = answered(start.conversation, rendered.text, written, template, tokenizer.eos_ids)
    remarks = {"remarks": list(rendered.remarks)} if rendered.remarks else {}
    return {"message": talked.messages[-1].to_dict(), **remarks}


def _described(model: str, job: BatchJob) -> dict[str, Any]:
    messages = {} if job.conversation is None else {"messages": job.conversation.to_list()}
    options = dict(job.conversation.options) if job.conversation is not None else {}
    beside = messages | ({"chat_options": options} if options else {})
    return {"id": job.id, "model": model, "prompt": job.prompt, **beside, "config": job.config.to_dict()}


def _failure(model: str, job: BatchJob, error: LogitlabError) -> dict[str, Any]:
    return _described(model, job) | {"error": str(error)}


@contextmanager
def _results(path: Path) -> Iterator[tuple[IO[bytes], set[str]]]:
    """The file of results, opened for appending, without its cut last line; and the ids in it."""
    try:
        with path.open("a+b") as file:
            file.seek(0)
            ids, whole = _ids_in(file, path)
            file.truncate(whole)
            yield file, ids
    except OSError as error:
        raise MachineError(
            _("cannot write {path}: {why}; choose another place", path=path, why=error.strerror or error)
        ) from error


def _ids_in(file: IO[bytes], path: Path) -> tuple[set[str], int]:
    """Ids of the whole lines, and their length in bytes. Raises `InputError` for a file of anything else."""
    ids: set[str] = set()
    whole = 0
    for line in file:
        cut = not line.endswith(b"\n")
        if cut and (line.startswith(BEGINNING) or BEGINNING.startswith(line)):
            break
        try:
            ids.add(json.loads(line)["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(_("{path} holds something else than results; give another file", path=path)) from error
        whole += len(line)
    return ids, whole


def _job(data: object, number: int, base: GenerationConfig, own: OwnSettings | None) -> BatchJob:
    if not isinstance(data, dict) or not (_is_text(data.get("prompt")) or "messages" in data):
        raise InputError(
            _("a job is an object with a prompt or messages, such as {example}", example='{"prompt": "The sky"}')
        )
    known = (*FIELDS, *OF_OPENAI) if "messages" in data else FIELDS
    if unknown := sorted(set(data) - set(known)):
        raise InputError(_("unknown field {unknown!r}; known: {known}", unknown=unknown[0], known=", ".join(known)))
    conversation = _conversation(data)
    config = data.get("config", {})
    if isinstance(config, str):
        named = own.need() if own is not None and names_own(config) else None
        chosen = preset_config(config, _("an object of settings"), named)
        if named is not None and chosen.names_model:
            raise InputError(_("own takes the settings of the batch's model: name no other model with it"))
    elif isinstance(config, dict):
        chosen = config_from_dict(config, base)
    else:
        raise InputError(_("a config is a preset's name or an object of settings"))
    return BatchJob(str(data.get("id", number)), data.get("prompt") or "", chosen, conversation)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _conversation(data: Mapping[str, Any]) -> Conversation | None:
    """What a job says to the model; `None` for a prompt as it is."""
    kinds = {"prompt": str, "system": str, "chat_options": dict, "continue": bool, "special": bool}
    for name, kind in kinds.items():
        if not isinstance(data.get(name, kind()), kind):
            raise InputError(_("{name} is {value!r}, which it cannot be", name=name, value=str(data[name])[:40]))
    if not set(data) & {"messages", "system", "chat_options", "continue", "special"}:
        return None
    found = from_list(data) if "messages" in data else Conversation(())
    if data.get("prompt"):
        found = replace(found, messages=(*found.messages, Message("user", data["prompt"])))
    if "system" in data:
        found = found.with_system(data["system"])
    special = bool(data.get("special"))
    messages = tuple(replace(one, special=special) for one in found.messages)
    options = {**found.options, **data.get("chat_options", {})}
    found = Conversation(messages, options, continues=bool(data.get("continue")))
    if found.continues != (messages[-1].role == "assistant"):
        raise InputError(
            _("continue goes with a last message of the assistant's, and such a message with continue: true")
        )
    return found
