"""How fast a server is, for one reader and for several at once, in the terms of `vllm bench serve`.

Time to first token (TTFT): from the beginning of a run to the first token of a text. Inter-token latency (ITL): between
one token and the next of a text; where tokens come several at a time, the time per output token (TPOT) stands in its
place: (end − first token) / (tokens − 1). All requests of a run are sent at once, or, to a server that writes fewer
texts at once, as soon as it has room. The prompt is the same, so that what a server keeps of it (its prefix cache)
counts.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

from engine.base.errors import Cancelled
from engine.base.language import _
from engine.models.model import Model
from engine.remote.connection import RemoteError
from engine.remote.dialects.dialect import End, Piece, Request
from engine.remote.served import ServedModel
from engine.timing.sweep import Runner, Sweep, TimedRun, carry_out


def time_server(model: Model, sweep: Sweep, proceed: Callable[[], bool] = lambda: True) -> Iterator[TimedRun]:
    """As `timing.time_runs`, each lane a stream of its own.

    Raises:
        InputError: the texts do not fit the server's context.
        RemoteError: a request failed, or a text ended too early to be compared.
    """
    served = cast(ServedModel, model)  # which alone has requests to send
    prompt = served.tokenizer.encode(sweep.prompt)
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
    room = asyncio.Semaphore(served.capabilities.at_once or lanes)
    began = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_timed_text(served, body, length, room)) for _lane in range(lanes)]
    except* RemoteError as errors:
        failed: BaseException = errors.exceptions[0]
    else:
        seconds = time.perf_counter() - began
        texts = [task.result() for task in tasks]
        in_groups = any(text.in_groups for text in texts)
        first, *others = (text.seconds(began, in_groups) for text in texts)
        return TimedRun(length, seconds, 0.0, first, "server", lanes, tuple(others), in_groups)
    raise failed


@dataclass(frozen=True)
class _TimedText:
    """When each token of a text was there; `in_groups` where some came several at a time."""

    times: list[float]
    in_groups: bool

    def seconds(self, began: float, in_groups: bool) -> tuple[float, ...]:
        """As `TimedRun.token_seconds`."""
        times = [self.times[0], self.times[-1]] if in_groups else self.times
        return tuple(later - earlier for earlier, later in pairwise([began, *times]))


async def _timed_text(served: ServedModel, body: dict[str, Any], length: int, room: asyncio.Semaphore) -> _TimedText:
    """Write one text of `length` tokens. Raises `RemoteError` where it ends before that."""
    times: list[float] = []
    in_groups, end, counted = False, None, None
    if not served.capabilities.top:  # a piece may be of several tokens: the server counts them
        body = body | {"stream_options": {"include_usage": True}}
    async with room, aclosing(served.connection.stream(served.dialect.path, body)) as events:
        async for event in events:
            parts = list(served.dialect.read(event))
            pieces = sum(isinstance(part, Piece) for part in parts)
            times += [time.perf_counter()] * pieces
            in_groups |= pieces > 1
            end = next((part for part in parts if isinstance(part, End)), end)
            counted = served.dialect.tokens_written(event) or counted
    if served.capabilities.top:
        counted = len(times)
    elif counted is None and end is not None and end.reason == "length":
        counted = length  # it does not count, but says that their number ended the text
    written = max(len(times), counted or 0)
    if not times or written < length:
        raise RemoteError(
            _(
                "{host} ended a text after {count} of {length} tokens; choose another prompt, or shorter lengths",
                host=served.connection.host,
                count=written,
                length=length,
            )
        )
    drafted = end is not None and end.drafted
    return _TimedText(times, in_groups or drafted or len(times) != length)
