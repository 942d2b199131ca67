"""How fast a server is for several readers at once, in the terms of `vllm bench serve`.

Time to first token (TTFT): from sending the request to its first token. Inter-token latency (ITL): between one token
and the next of a text. Throughput: tokens of all texts in the time that they took together.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median, quantiles
from typing import Any

from engine.config import GenerationConfig
from engine.errors import InputError
from engine.language import _
from engine.remote.connection import RemoteError
from engine.remote.dialects import End, Piece
from engine.remote.served import ServedModel

MOST_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: seconds to its first token, then between tokens, and in all."""

    ttft: float
    latencies: tuple[float, ...]
    seconds: float

    @property
    def tokens(self) -> int:
        return 1 + len(self.latencies)


@dataclass(frozen=True, slots=True)
class Level:
    """All requests with so many at once; `seconds` they took together."""

    concurrency: int
    seconds: float
    answered: tuple[Answered, ...]

    @property
    def tokens_per_second(self) -> float:
        return sum(one.tokens for one in self.answered) / self.seconds

    @property
    def requests_per_second(self) -> float:
        return len(self.answered) / self.seconds

    def ttft(self) -> tuple[float, float, float]:
        """Median, 95th and 99th percentile, in seconds."""
        return percentiles([one.ttft for one in self.answered])

    def itl(self) -> tuple[float, float, float]:
        """Median, 95th and 99th percentile, in seconds."""
        return percentiles([latency for one in self.answered for latency in one.latencies])

    def to_dict(self) -> dict[str, Any]:
        """The figures and every request."""
        names = ("median", "p95", "p99")
        return {
            "concurrency": self.concurrency,
            "seconds": self.seconds,
            "output_tokens_per_second": self.tokens_per_second,
            "requests_per_second": self.requests_per_second,
            "ttft_seconds": dict(zip(names, self.ttft())),
            "itl_seconds": dict(zip(names, self.itl())),
            "requests": [asdict(one) for one in self.answered],
        }


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, 95th and 99th percentile; zeros where there are no values."""
    if len(values) < 2:
        only = values[0] if values else 0.0
        return only, only, only
    cuts = quantiles(values, n=100, method="inclusive")
    return median(values), cuts[94], cuts[98]


def parse_concurrency(text: str) -> list[int]:
    """`1,2,4` as numbers. Raises `InputError`."""
    try:
        levels = [int(part) for part in text.split(",")]
    except ValueError:
        levels = []
    if not levels or not all(1 <= level <= MOST_AT_ONCE for level in levels):
        raise InputError(
            _("concurrency is {text!r}; allowed: numbers from 1 to 512, separated by commas, such as 1,2,4", text=text)
        )
    return levels


def load(
    served: ServedModel,
    prompt: str,
    tokens: int,
    levels: Sequence[int],
    *,
    requests: int = 16,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Level]:
    """Ask for `tokens` tokens, `requests` times at each level, after one request that does not count.

    Raises:
        RemoteError: a request failed.
        Cancelled: `cancelled` returned True.
    """
    wanted = GenerationConfig(max_new_tokens=tokens, ignore_eos="ignore_eos" in served.capabilities.settings)
    served.capabilities.check(wanted)
    body = served.dialect.body(served.prompt(served.tokenizer.encode(prompt), ()), wanted, tokens, None)
    served.connection.call(_ask(served, body), cancelled)
    for level in levels:
        began = time.perf_counter()
        answered = served.connection.call(_at_once(served, body, level, max(requests, level)), cancelled)
        yield Level(level, time.perf_counter() - began, tuple(answered))


async def _at_once(served: ServedModel, body: dict[str, Any], level: int, requests: int) -> list[Answered]:
    left = iter(range(requests))
    answered: list[Answered] = []

    async def reader() -> None:
        for _number in left:
            answered.append(await _ask(served, body))

    try:
        async with asyncio.TaskGroup() as readers:
            for _reader in range(level):
                readers.create_task(reader())
    except* RemoteError as errors:
        first = errors.exceptions[0]
    else:
        return answered
    raise first


async def _ask(served: ServedModel, body: dict[str, Any]) -> Answered:
    began = time.perf_counter()
    arrivals = []
    async for event in served.connection.stream(served.dialect.path, body):
        for part in served.dialect.read(event):
            if isinstance(part, Piece):
                arrivals.append(time.perf_counter())
            elif isinstance(part, End):
                break
    if not arrivals:
        raise RemoteError(_("{host} sent no token", host=served.connection.host))
    between = tuple(later - earlier for earlier, later in pairwise(arrivals))
    return Answered(arrivals[0] - began, between, time.perf_counter() - began)
