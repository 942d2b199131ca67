"""How fast a server is, for one reader and for several at once, in the terms of `vllm bench serve`.

Time to first token (TTFT): from sending a request to its first token. Inter-token latency (ITL): between one token and
the next of a text. All requests of a run are sent at once; the prompt is the same, so that what a server keeps of it
(its prefix cache) counts.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from itertools import pairwise
from typing import Any, cast

from engine.base.errors import Cancelled, InputError
from engine.base.language import _
from engine.models.model import Model
from engine.remote.connection import RemoteError
from engine.remote.dialects.dialect import Piece, Request
from engine.remote.served import ServedModel
from engine.timing.sweep import Runner, Sweep, TimedRun, carry_out


def time_server(model: Model, sweep: Sweep, proceed: Callable[[], bool] = lambda: True) -> Iterator[TimedRun]:
    """As `timing.time_runs`, each lane a stream of its own.

    Raises:
        InputError: the server does not tell its tokens one by one, or the texts do not fit its context.
        RemoteError: a request failed, or a text ended too early to be compared.
    """
    served = cast(ServedModel, model)  # which alone has requests to send
    capabilities, prompt = served.capabilities, served.tokenizer.encode(sweep.prompt)
    if not capabilities.top:
        raise InputError(
            _(
                "{dialect} servers without log-probabilities do not tell where a token ends",
                dialect=capabilities.dialect,
            )
        )
    served.check_context(len(prompt), max(sweep.lengths))

    def timed(by: Runner, length: int, lanes: int) -> TimedRun | None:
        dialect = served.dialect
        body = dialect.body(Request(served.prompt(prompt, ()), sweep.config(length), length, top=dialect.least_top))
        try:
            return served.connection.call(_at_once(served, body, length, lanes), lambda: not proceed())
        except Cancelled:
            return None

    return carry_out(sweep, timed)


async def _at_once(served: ServedModel, body: dict[str, Any], length: int, lanes: int) -> TimedRun:
    began = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_seconds_of_tokens(served, body, length)) for _lane in range(lanes)]
    except* RemoteError as errors:
        failed: BaseException = errors.exceptions[0]
    else:
        first, *others = (task.result() for task in tasks)
        return TimedRun(length, time.perf_counter() - began, 0.0, first, "server", lanes, tuple(others))
    raise failed


async def _seconds_of_tokens(served: ServedModel, body: dict[str, Any], length: int) -> tuple[float, ...]:
    """Of each token of one text, counted from the one before; of the first, from the request."""
    times = [time.perf_counter()]
    async with aclosing(served.connection.stream(served.dialect.path, body)) as events:
        async for event in events:
            times += [time.perf_counter() for part in served.dialect.read(event) if isinstance(part, Piece)]
    if len(times) - 1 < length:
        raise RemoteError(
            _(
                "{host} ended a text after {count} of {length} tokens; choose another prompt, or shorter lengths",
                host=served.connection.host,
                count=len(times) - 1,
                length=length,
            )
        )
    return tuple(later - earlier for earlier, later in pairwise(times))
