"""A model that a server runs: it generates and scores as one in this process does, in the same events."""

import math
import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from secrets import randbits
from typing import TYPE_CHECKING

from engine.base.errors import ContextError, InputError
from engine.base.language import _
from engine.generation.config import GenerationConfig
from engine.generation.events import (
    Candidate,
    Event,
    Failed,
    Finished,
    FinishReason,
    Prefilled,
    Prefilling,
    Start,
    Started,
    Stepped,
)
from engine.generation.fair import furthest_behind
from engine.models.model import ModelFacts
from engine.models.own import OwnSettings
from engine.remote.connection import POLL_SECONDS, Connection, RemoteError
from engine.remote.dialects.dialect import Dialect, End, Part, Piece, Request
from engine.remote.inspection import ServedInspection
from engine.remote.tokenizer import ServerTokenizer
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer, TokenStream

if TYPE_CHECKING:
    from engine.generation.amateur import Amateur
    from engine.generation.score import Scored

MOST_BROKEN = 5
IMPOSSIBLE = -5000.0  # vLLM writes −9999 for −∞, in JSON


class ServedModel:
    """A model behind a server: what `engine.models.model.Model` says, in requests.

    Attributes:
        facts: what the screen says of it.
        capabilities: what the server can do; panes ask it before they offer anything.
    """

    def __init__(self, connection: Connection, dialect: Dialect, tokenizer: Tokenizer) -> None:
        if not dialect.capabilities.vocabulary_size:
            dialect.capabilities = replace(dialect.capabilities, vocabulary_size=tokenizer.vocabulary_size)
        self.connection = connection
        self.dialect = dialect
        self.tokenizer: Tokenizer = tokenizer
        self.capabilities = capabilities = dialect.capabilities
        self.own = OwnSettings(
            absent=_("no server sends the settings that its model brings; choose another configuration, or run locally")
        )
        self.facts = ModelFacts(
            name=f"{connection.root}#{dialect.model}",
            title=dialect.model.rstrip("/").rpartition("/")[2] or dialect.model,
            architecture="",
            parameters=0,
            precision=f"{capabilities.dialect} {capabilities.version}".strip(),
            device=connection.host,
            context_length=capabilities.context_length,
            vocabulary_size=tokenizer.vocabulary_size or capabilities.vocabulary_size,
            hidden_size=0,
            threads=0,
            path=capabilities.dialect,
            path_reason=_("served by {host}", host=connection.host),
            source=connection.root,
            license="unknown",
            identity=f"server:{connection.root}#{dialect.model}",
        )

    def close(self) -> None:
        """End every request and the connection's thread."""
        self.connection.close()

    def generate(
        self,
        prompts: Sequence[str | Start],
        configs: Sequence[GenerationConfig],
        *,
        candidates: int = 20,
        proceed: Callable[[], bool] = lambda: True,
        cancelled: Callable[[], bool] = lambda: False,
        paused: Callable[[], bool] = lambda: False,
        in_step: Callable[[], bool] = lambda: False,
        **_local: object,
    ) -> Iterator[Event]:
        """As `loop.generate`, each lane a stream of its own; a pause closes the streams, going on opens new ones."""
        run = self._enter(prompts, configs, range(len(configs)), candidates, cancelled, paused, in_step)
        yield Started(tuple(run.prompts.values()), tuple(run.configs.values()))
        try:
            yield from run.events(proceed)
        finally:
            run.close()

    def enter(
        self,
        prompts: Sequence[str | Start],
        configs: Sequence[GenerationConfig],
        *,
        numbers: Sequence[int],
        candidates: int = 20,
        cancelled: Callable[[], bool] = lambda: False,
        paused: Callable[[], bool] = lambda: False,
        in_step: Callable[[], bool] = lambda: False,
        **_local: object,
    ) -> "_Run":
        """Lanes for a run that another model's are in too; each is a stream of its own here as well."""
        return self._enter(prompts, configs, numbers, candidates, cancelled, paused, in_step)

    def _enter(
        self,
        prompts: Sequence[str | Start],
        configs: Sequence[GenerationConfig],
        numbers: Sequence[int],
        candidates: int,
        cancelled: Callable[[], bool],
        paused: Callable[[], bool],
        in_step: Callable[[], bool],
    ) -> "_Run":
        if not configs:
            raise InputError(_("no configuration to generate with"))
        for config in configs:
            self.capabilities.check(config)
        given = list(prompts) * len(configs) if len(prompts) == 1 else list(prompts)
        starts = [Start(tuple(self.tokenizer.encode(one))) if isinstance(one, str) else one for one in given]
        lanes = [self._lane(*one) for one in zip(numbers, configs, starts)]
        return _Run(self, lanes, candidates, cancelled, paused, in_step)

    def score(self, tokens: Sequence[Token]) -> Iterator["Scored"]:
        """How well the model expected each token of a text. Raises `InputError` where the server cannot tell."""
        from engine.generation.score import Scored

        if not tokens:
            raise InputError(_("the text is empty; type at least one character"))
        if not self.capabilities.prompt_scores:
            raise InputError(
                _("{dialect} servers do not score prompts; run locally", dialect=self.capabilities.dialect)
            )
        scores = self.connection.call(self.dialect.prompt_scores(self.connection, self.prompt(tokens, ())))
        for token, one in zip(tokens, scores):
            value = one.log_probability
            if value is None:
                yield Scored(token)
            else:
                yield Scored(token, math.exp(value), one.rank, -value / math.log(2), None)

    def inspect(self, start: Start, config: GenerationConfig, amateur: "Amateur | None" = None) -> ServedInspection:
        """The step after a text, which the server takes for it. Raises `InputError`, `RemoteError`."""
        for event in self.generate([start], [replace(config, max_new_tokens=1)]):
            if isinstance(event, Stepped):
                return ServedInspection(event, config, self.capabilities)
            if isinstance(event, Failed):
                raise event.error
        raise RemoteError(_("{host} sent no token", host=self.connection.host))

    def check_context(self, held: int, max_new_tokens: int) -> None:
        """Raise `ContextError` where so many tokens and new ones do not fit, as far as the context is known."""
        context = self.capabilities.context_length
        if context and held + max_new_tokens > context:
            raise ContextError(
                _(
                    "{held:,} tokens and {max_new_tokens:,} new ones exceed the server's context of {context:,}",
                    held=held,
                    max_new_tokens=max_new_tokens,
                    context=context,
                )
            )

    def prompt(self, tokens: Sequence[Token], written: Sequence[int]) -> list[int] | str:
        """What stands before the next token: ids where the server takes them, else its text."""
        if self.capabilities.token_ids and all(id >= 0 for id in (*(token.id for token in tokens), *written)):
            return [*(token.id for token in tokens), *written]
        data = b"".join((token.text or token.piece).encode() for token in tokens)
        data += b"".join(self.tokenizer.bytes_of(id) for id in written)
        return data.decode("utf-8", "ignore")

    def _lane(self, index: int, config: GenerationConfig, start: Start) -> "_Lane":
        if not start.prompt:
            raise InputError(_("the prompt is empty; type at least one character"))
        self.check_context(len(start.ids) + len(start.forced), config.max_new_tokens)
        if config.strategy == "sample" and config.seed is None:
            config = replace(config, seed=randbits(31))
        stream = self.tokenizer.stream(position=len(start.prompt))
        for id in start.written:
            stream.append(id)
        limit = len(start.written) + len(start.forced) + config.max_new_tokens
        return _Lane(index, config, start, stream, list(start.written), deque(start.forced), limit)


@dataclass
class _Lane:
    """A lane that goes on; `buffer` holds what has arrived and is not shown yet."""

    index: int
    config: GenerationConfig
    start: Start
    stream: TokenStream
    picked: list[int]
    forced: deque[int]
    limit: int
    buffer: deque[tuple[Part, float]] = field(default_factory=deque)
    open: "Future[None] | None" = None
    opened: int = 0  # streams, each known by its number
    asked: int = 0  # tokens that the open stream was asked for
    got: int = 0
    ended: bool = False  # whether the server said that it is at its end
    blank: int = 0  # single tokens, one after the other, that brought no text: parts of a character
    broken: int = 0  # streams that were broken off before they brought a token, one after the other
    last_time: float = 0.0
    done: bool = False

    @property
    def steps(self) -> int:
        """How many tokens the run has given it."""
        return len(self.picked) - len(self.start.written)


class _Run:
    """Some lanes, their streams, and the order in which their steps are shown."""

    def __init__(
        self,
        served: ServedModel,
        lanes: list[_Lane],
        candidates: int,
        cancelled: Callable[[], bool],
        paused: Callable[[], bool],
        in_step: Callable[[], bool],
    ) -> None:
        self._served = served
        self._lanes = lanes
        self._candidates = max(candidates, served.capabilities.top)
        self._cancelled = cancelled
        self._paused = paused
        self._in_step = in_step
        self._arrived: queue.SimpleQueue[tuple[_Lane, int, Part | Exception | None, float]]
        self._arrived = queue.SimpleQueue()
        self._prefilled = False
        self._began = 0.0
        self._failed = False
        self._trouble: deque[Failed] = deque()  # arrived in place of a token, and not shown yet

    def events(self, proceed: Callable[[], bool]) -> Iterator[Event]:
        """Every event but the first, of a run that no other model is in."""
        yield from self.begin()
        while not self.over:
            if self._paused():
                self.rest()
            if not proceed():
                yield from self.stop()
                return
            yield from self._go_on()
            if self._failed:
                return

    # As a part of a run that another model is in too: see `generation.together`.

    @property
    def prompts(self) -> dict[int, tuple[Token, ...]]:
        return {lane.index: lane.start.prompt for lane in self._lanes}

    @property
    def configs(self) -> dict[int, GenerationConfig]:
        return {lane.index: lane.config for lane in self._lanes}

    def begin(self, waited: float = 0.0) -> Generator[Event, None, "list[_Run]"]:
        """The prompts are sent with the first step, and others need not wait for what comes of it."""
        self._began = time.perf_counter() - waited
        yield Prefilling(0, 0)
        return [self]

    @property
    def steps(self) -> int:
        return min((lane.steps for lane in self._active), default=0)

    @property
    def over(self) -> bool:
        return self._failed or not self._active

    def ready(self, seconds: float) -> bool:
        """Whether a token has arrived, or an error in its place; so many seconds are waited for one."""
        active = self._active
        self._ask_for_tokens(active, one_step=False)
        until = time.perf_counter() + seconds
        while not self._trouble and not any(lane.buffer for lane in active):
            if not self._take(until - time.perf_counter()):
                break
        return bool(self._trouble) or any(lane.buffer for lane in active)

    def step(self) -> Iterator[Event]:
        """The tokens that have arrived, in step one for each lane; an error ends these lanes, not those of others."""
        yield from self._go_on()
        if self._failed:
            yield from self.stop()

    def rest(self) -> None:
        """Leave the streams: what they would bring is not waited for."""
        self._leave(self._active)

    def stop(self) -> Iterator[Event]:
        """End the lanes that go on."""
        for lane in self._active:
            yield from self._finish(lane, "cancelled")

    @property
    def _active(self) -> list[_Lane]:
        return [lane for lane in self._lanes if not lane.done]

    def _go_on(self) -> Iterator[Event]:
        """Wait for a token of any lane, in step of all whose turn it is, and show it."""
        active = self._active
        found = self._wait_for_tokens(active)
        if isinstance(found, Failed):
            self._failed = True
            yield found
            return
        if self._cancelled():
            return
        if not self._prefilled:
            yield self._prefill_ended(active)
        for lane in found:
            yield from self._show(lane)

    def _wait_for_tokens(self, active: list[_Lane]) -> list[_Lane] | Failed:
        """Wait for a token of any lane, in step of all whose turn it is; these lanes, or an error that came instead."""
        one_step = self._paused()
        in_step = one_step or self._in_step()
        while not self._cancelled():
            if self._trouble:
                return self._trouble.popleft()
            self._ask_for_tokens(active, one_step=one_step)
            # In step no lane waits for one that the server has no room for yet: that one catches up.
            begun = active if one_step else [lane for lane in active if lane.buffer or lane.open is not None]
            turn = furthest_behind(begun) if in_step else active
            ready = [lane for lane in turn if lane.buffer]
            if ready and (len(ready) == len(turn) or not in_step):
                return ready
            self._take(POLL_SECONDS)
        return []

    def _ask_for_tokens(self, active: list[_Lane], *, one_step: bool) -> None:
        """Open a stream for each lane that has none and nothing left to show, as far as the server has room."""
        for lane in furthest_behind(active) if one_step else active:
            if not lane.buffer and lane.open is None and self._has_room():
                left = lane.limit - len(lane.picked)
                self._ask(lane, min(1 + lane.blank, left) if one_step or lane.forced else left)

    def _has_room(self) -> bool:
        """Whether the server writes another text beside those that it is writing; else lanes go one after the other."""
        most = self._served.capabilities.at_once
        return not most or sum(lane.open is not None for lane in self._lanes) < most

    def _prefill_ended(self, active: list[_Lane]) -> Prefilled:
        now = time.perf_counter()
        self._prefilled = True
        for lane in active:
            lane.last_time = now
        lanes = tuple(lane.index for lane in active)
        return Prefilled(sum(len(lane.start.ids) for lane in active), now - self._began, lanes)

    def close(self) -> None:
        """Close the streams that are open; their servers stop."""
        self._leave(self._lanes)

    # Streams.

    def _ask(self, lane: _Lane, tokens: int) -> None:
        """Open a stream that goes on where the lane is."""
        served, seed = self._served, lane.config.seed
        conversation = lane.start.conversation
        dialect = served.dialect if conversation is None else served.dialect.chat or served.dialect
        if not dialect.capabilities.continues and (lane.picked or tokens < lane.limit):
            raise InputError(_("this server puts prompts into its chat template: a lane cannot go on from its middle"))
        seed = None if seed is None else seed + len(lane.picked)  # a server draws from the seed on each time
        prompt = served.prompt(lane.start.prompt, lane.picked)
        body, read = dialect.body(Request(prompt, lane.config, tokens, seed, None, conversation)), dialect.reader()
        lane.asked, lane.got, lane.ended = tokens, 0, False
        if self._prefilled and not lane.opened:
            lane.last_time = time.perf_counter()  # a lane that waited for others is timed from its own beginning
        lane.opened += 1
        number = lane.opened

        async def pump() -> None:
            events = served.connection.stream(dialect.path, body)
            try:
                async for event in events:
                    for part in read(event):
                        parts = await dialect.parted(served.connection, part) if isinstance(part, Piece) else [part]
                        for one in parts:
                            self._arrived.put((lane, number, one, time.perf_counter()))
                self._arrived.put((lane, number, None, time.perf_counter()))
            except Exception as error:  # the next token is waited for in another thread: it is raised there
                self._arrived.put((lane, number, served.connection.error(error), time.perf_counter()))
            finally:
                await events.aclose()

        lane.open = served.connection.begin(pump())

    def _take(self, seconds: float) -> bool:
        """Put what arrives in so many seconds into its lane's buffer, or an error aside; whether anything arrived."""
        try:
            arrived = self._arrived.get(timeout=seconds) if seconds > 0 else self._arrived.get_nowait()
        except queue.Empty:
            return False
        lane, number, part, at = arrived
        if number != lane.opened or lane.open is None:
            return True  # of a stream that was closed
        if isinstance(part, Exception):
            lane.open = None
            self._trouble.append(Failed(lane.index, part))
        elif part is None:
            lane.open = None
            if not lane.ended and lane.got < lane.asked:
                self._break_off(lane)
        elif isinstance(part, End):
            lane.ended = True
            if part.reason == "length" and not lane.got and lane.asked < lane.limit - len(lane.picked):
                lane.blank += 1
            elif part.reason != "length" or lane.got < lane.asked:  # else it wrote what it was asked for
                lane.buffer.append((part, at))
        else:
            lane.got += not part.mark
            lane.limit += part.mark
            lane.blank = lane.broken = 0
            lane.buffer.append((part, at))
        return True

    def _break_off(self, lane: _Lane) -> None:
        """An error, but where the server interrupts: then a new stream goes on where this one ended."""
        lane.broken += 1
        if self._served.capabilities.interrupts and lane.broken < MOST_BROKEN:
            return
        host = self._served.connection.host
        error = RemoteError(_("{host} broke off in the middle of its answer; what came stays", host=host))
        self._trouble.append(Failed(lane.index, error))

    def _leave(self, lanes: Sequence[_Lane]) -> None:
        for lane in lanes:
            if lane.open is not None:
                lane.open.cancel()
                lane.open = None

    # Steps.

    def _show(self, lane: _Lane) -> Iterator[Event]:
        part, at = lane.buffer.popleft()
        if isinstance(part, End):
            yield from self._finish(lane, part.reason)
            return
        forced = bool(lane.forced)
        step = self._stepped(lane, part, at, lane.forced.popleft() if forced else None)
        yield step
        if forced:  # what the server would have written goes
            lane.buffer.clear()
            self._leave([lane])
        if step.token.id in self._served.tokenizer.eos_ids and not lane.config.ignore_eos:
            yield from self._finish(lane, "end_of_text")
        elif any(lane.stream.just_wrote(stop, step.token) for stop in lane.config.stop):
            yield from self._finish(lane, "stop_sequence")
        elif len(lane.picked) >= lane.limit:
            yield from self._finish(lane, "length")

    def _finish(self, lane: _Lane, reason: FinishReason) -> Iterator[Finished]:
        lane.done = True
        lane.buffer.clear()
        self._leave([lane])
        yield Finished(lane.index, reason)

    def _stepped(self, lane: _Lane, piece: Piece, at: float, forced: int | None) -> Stepped:
        """One token of a lane, as the server wrote it or, where a person chose another, as forced."""
        tokenizer, raw = self._served.tokenizer, self._served.capabilities.raw
        own, listed = self._read(piece)
        id = own if forced is None else forced
        if piece.control and forced is None and isinstance(tokenizer, ServerTokenizer):
            tokenizer.learn_control(id)
        log_probability = piece.log_probability if forced is None else None
        if log_probability is None and id in listed:
            log_probability = listed[id]
        probability = None if log_probability is None else math.exp(log_probability)
        lane.picked.append(id)
        seconds, lane.last_time = max(0.0, at - lane.last_time), at
        return Stepped(
            lane=lane.index,
            index=len(lane.picked) - 1,
            token=lane.stream.append(id, piece.text if tokenizer.remote and forced is None else None),
            candidates=tuple(self._candidate(rank, *one) for rank, one in enumerate(listed.items(), start=1)),
            probability=None if raw else probability,
            raw_probability=probability if raw else None,
            rank=list(listed).index(id) + 1 if raw and id in listed else None,
            entropy_bits=None,
            final_entropy_bits=None,
            kept=None,
            cut_mass=None,
            seconds=seconds,
            forced=forced is not None,
        )

    def _read(self, piece: Piece) -> tuple[int, dict[int, float]]:
        """The id of the token that the server wrote, and the log-probability of each that it lists beside it."""
        listed = [one for one in piece.top if one.log_probability > IMPOSSIBLE][: self._candidates]
        own, *ids = self._ids([(piece.id, piece.data), *((one.id, one.data) for one in listed)])
        return own, {id: one.log_probability for id, one in zip(ids, listed)}

    def _ids(self, tokens: Sequence[tuple[int | None, bytes]]) -> list[int]:
        """Each token's id: the server's, or one of our own for what it spells."""
        tokenizer = self._served.tokenizer
        if not isinstance(tokenizer, ServerTokenizer):
            return [0 if id is None else id for id, _data in tokens]
        for id, data in tokens:
            if id is not None and data:
                tokenizer.learn(id, data)
        tokenizer.fetch(id for id, _data in tokens if id is not None)
        return [tokenizer.named(data) if id is None else id for id, data in tokens]

    def _candidate(self, rank: int, id: int, log_probability: float) -> Candidate:
        """A listed token; its probability is the model's own, or what the settings left where the server says that."""
        label, probability = self._served.tokenizer.label(id), math.exp(log_probability)
        if self._served.capabilities.raw:
            return Candidate(rank, id, label, probability, None, None, None)
        return Candidate(rank, id, label, None, None, None, probability)
