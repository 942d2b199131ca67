"""The laboratory as a screen sees it: one worker thread owns model and tensors, events come out.

Only this module knows about threads. The worker never waits for whoever reads its events,
and the reader is woken once for all events that have gathered since it last looked.
"""

import asyncio
import gc
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from engine.base.clock import now
from engine.base.errors import InputError
from engine.base.language import _
from engine.base.machine import as_ours
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Failed, Loading, ModelLoaded, Start, Stepped, TokenizerLoaded
from engine.generation.memory import LogitsMemory, StateMemory
from engine.models import catalog
from engine.models.fetch import Cancelled
from engine.text.tokenizer import Token, Tokenizer
from engine.timing.measurement import Measurement
from engine.timing.sweep import Sweep, TimedRun

if TYPE_CHECKING:
    from engine.generation.inspection import Inspection
    from engine.generation.score import Scored
    from engine.lessons.lesson import Live, Question
    from engine.lessons.questions import Answer
    from engine.loading import Model, ModelFacts
    from engine.remote import Capabilities, ServedModel
    from engine.remote.inspection import ServedInspection

IDLE_SECONDS = 0.3

T = TypeVar("T")
Body = Callable[["Job[Any]"], Iterator[Any]]


class Job(Generic[T]):
    """Work in the worker thread: an async iterator of its events, with pause, step and cancel.

    All methods may be called from any thread; iterate in the event loop that created it.
    """

    def __init__(
        self, body: Body, loop: asyncio.AbstractEventLoop, meanwhile: Callable[[], bool] = lambda: False
    ) -> None:
        self._body = body
        self._loop = loop
        self._meanwhile = meanwhile  # does a little of what else is asked; whether there is more
        self._iterator: Iterator[Any] | None = None
        self._events: deque[T | Failed] = deque()
        self._awake = asyncio.Event()
        self._control = threading.Condition()
        self._paused = False
        self._permits = 0
        self._step_seconds = 0.0
        self._due = 0.0
        self._woken = False
        self._cancelled = False
        self._done = False

    @property
    def done(self) -> bool:
        """Whether the worker is through with it; events may still be waiting to be read."""
        return self._done

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def pause(self) -> None:
        """Stop before the next step; takes effect within one step."""
        with self._control:
            self._paused = True

    def resume(self) -> None:
        with self._control:
            self._paused = False
            self._permits = 0
            self._control.notify_all()

    def step(self) -> None:
        """Pause, and let one step of every lane through."""
        with self._control:
            self._paused = True
            self._permits += 1
            self._control.notify_all()

    def cancel(self) -> None:
        """End the job; takes effect within one step."""
        with self._control:
            self._cancelled = True
            self._control.notify_all()

    def pace(self, steps_per_second: float | None) -> None:
        """Take no more steps a second than this; `None` for as many as the machine can."""
        with self._control:
            self._step_seconds = 1 / steps_per_second if steps_per_second else 0.0
            self._due = min(self._due, time.monotonic() + self._step_seconds)
            self._control.notify_all()

    def wake(self) -> None:
        """Something else was asked of the worker: it need not wait for the next step."""
        with self._control:
            self._woken = True
            self._control.notify_all()

    def proceed(self) -> bool:
        """Asked by the worker before each step: blocks while paused or ahead of the pace, False once cancelled."""
        while True:
            more = self._meanwhile()
            with self._control:
                if self._cancelled:
                    return False
                if self._paused and self._permits:
                    self._permits -= 1
                    break
                wait = None if self._paused else self._due - time.monotonic()
                if wait is not None and wait <= 0:
                    break
                if not more and not self._woken:
                    self._control.wait(wait)
                self._woken = False
        self._due = time.monotonic() + self._step_seconds
        return True

    def emit(self, event: T | Failed) -> None:
        """Called by the worker: hand one event over without waiting."""
        self._events.append(event)
        self._wake()

    async def frames(self, seconds: float = 0.0) -> AsyncIterator[list[T | Failed]]:
        """All events that have gathered, each time there are any, until the job is done.

        Args:
            seconds: least time from one frame to the next, for readers that draw.
        """
        while await self._any_event():
            yield [self._events.popleft() for _ in range(len(self._events))]
            await asyncio.sleep(seconds)

    async def __aiter__(self) -> AsyncIterator[T | Failed]:
        while await self._any_event():
            yield self._events.popleft()

    async def _any_event(self) -> bool:
        """Wait for an event; False once the job is done and all of them are read."""
        while not self._events:
            if self._done:
                return bool(self._events)
            # Clear, then look again: what the worker added before the clear did not wake us, what comes after will.
            self._awake.clear()
            if not self._events and not self._done:
                await self._awake.wait()
        return True

    def run(self) -> None:
        """The worker's part."""
        while self.advance():
            pass

    def advance(self) -> bool:
        """The worker's part, up to the next event; False once there is nothing left to do."""
        try:
            if self._iterator is None:
                self._iterator = iter(self._body(self)) if not self._cancelled else iter(())
            self.emit(next(self._iterator))
            return True
        except (Cancelled, StopIteration):
            pass
        except Exception as error:  # whatever happens in the worker is told as an event
            self.emit(Failed(None, as_ours(error)))
        self._done = True
        self._wake()
        return False

    def _wake(self) -> None:
        if not self._awake.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._awake.set)


class Lab:
    """A model and the thread that runs it.

    Args:
        threads: processor threads for the network; `None` for all.
    """

    def __init__(
        self,
        *,
        precision: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        offline: bool = False,
        cache_dir: Path | None = None,
    ) -> None:
        self.precision = precision
        self.device = device
        self.threads = threads
        self.offline = offline
        self.cache_dir = cache_dir
        self.tokenizer: Tokenizer | None = None
        self.facts: ModelFacts | None = None
        self._model: Model | ServedModel | None = None
        self._unprepared: Model | None = None
        self._loading: Job[Any] | None = None
        self._running: Job[Any] | None = None
        self._asked: deque[Job[Any]] = deque()
        self._logits = LogitsMemory()
        self._states = StateMemory()
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._work, name="logitlab-worker", daemon=True)
        self._worker.start()

    def load(self, name: str | None = None) -> Job[Loading | TokenizerLoaded | ModelLoaded]:
        """Load a model in place of the present one, which stays if this fails."""

        def body(job: Job[Any]) -> Iterator[Any]:
            from engine.loading import Model, load_model

            def tokenizer_loaded(tokenizer: Tokenizer) -> None:
                if self._model is None:
                    self.tokenizer = tokenizer
                    job.emit(TokenizerLoaded(tokenizer))

            model = load_model(
                name,
                precision=self.precision,
                device=self.device,
                threads=self.threads,
                offline=self.offline,
                cache_dir=self.cache_dir,
                report=job.emit,
                cancelled=lambda: job.cancelled,
                tokenizer_loaded=tokenizer_loaded,
            )
            self._states.clear()
            self._logits.clear()
            another = self._model is not None
            if self._model is not None:
                self._model.close()
            self._model, self.tokenizer, self.facts = model, model.tokenizer, model.facts
            self._unprepared = None
            if model.capabilities is None:  # a server may be gone the next time
                catalog.remember(model.facts.name)
            if another:  # the one before goes now: what is frozen is never looked through again
                gc.unfreeze()
                gc.collect()
            # Libraries, vocabulary and model are there for long: looking through them for garbage would hold up keys.
            gc.freeze()
            yield TokenizerLoaded(model.tokenizer)
            self._unprepared = model if isinstance(model, Model) else None
            yield ModelLoaded(model.facts)

        self.cancel()
        if self._loading is not None:
            self._loading.cancel()
        self._loading = self._start(body)
        return self._loading

    def generate(
        self,
        prompt: str | Start | Sequence[str | Start],
        configs: Sequence[GenerationConfig],
        *,
        candidates: int = 20,
        paused: bool = False,
    ) -> Job[Event]:
        """Continue a prompt under each configuration; cancels the run before it.

        Args:
            prompt: one for all configurations, or one for each. What is still known of a `Start` is used again.
            paused: wait for `step` or `resume` before the first step.
        """
        prompts = [prompt] if isinstance(prompt, (str, Start)) else list(prompt)

        def body(job: Job[Any]) -> Iterator[Event]:
            model = self._loaded()
            contrastive = any(config.strategy == "contrastive" for config in configs)
            return model.generate(
                [self._recalled(start, hidden=contrastive) if isinstance(start, Start) else start for start in prompts],
                configs,
                candidates=candidates,
                proceed=job.proceed,
                cancelled=lambda: job.cancelled,
                paused=lambda: job.paused,
                keep_logits=self._logits.keep,
                keep_state=self._states.keep,
            )

        return self._run(body, paused=paused)

    def sweep(
        self, sweep: Sweep, *, precision: str | None = None, threads: int | None = None
    ) -> Job[Measurement | TimedRun | Loading]:
        """Time generation at several lengths: a `Measurement` without runs, then its runs; cancels the run before it.

        A served model is timed as it is, by the runner `server`, whatever else is asked.

        Args:
            precision: loads the model once more, for the sweep alone, where it is not the present one.
            threads: for the sweep alone.
        """

        def body(job: Job[Any]) -> Iterator[Measurement | TimedRun | Loading]:
            from engine.loading import Model, load_local, load_reference

            model = self._loaded()
            if not isinstance(model, Model):
                yield from self._sweep_server(model, sweep, job.proceed)
                return

            import torch

            from engine.timing.sweep import time_runs

            before = torch.get_num_threads()
            try:
                if precision not in (None, model.facts.precision):
                    model = load_local(
                        model.facts.name,
                        precision=precision,
                        device=self.device,
                        threads=threads or before,
                        offline=True,
                        cache_dir=self.cache_dir,
                        report=job.emit,
                        cancelled=lambda: job.cancelled,
                    )
                    model.network.prepare()
                torch.set_num_threads(threads or before)
                reference = None
                if "transformers" in sweep.runners:
                    yield Loading("read", 0, 0, _("the same weights in transformers' own module, float32"))
                    reference = load_reference(model.facts.name, cache_dir=self.cache_dir)
                yield Measurement(replace(model.facts, threads=threads or before), sweep, at=now())
                yield from time_runs(model, sweep, job.proceed, reference)
            finally:
                torch.set_num_threads(before)

        return self._run(body)

    @staticmethod
    def _sweep_server(
        served: "ServedModel", sweep: Sweep, proceed: Callable[[], bool]
    ) -> Iterator[Measurement | TimedRun]:
        from engine.timing.served import time_server

        sweep = replace(sweep, runners=("server",))
        yield Measurement(served.facts, sweep, at=now())
        yield from time_server(served, sweep, proceed)

    def inspect(
        self, step: Stepped, context: Sequence[int], config: GenerationConfig
    ) -> "Inspection | ServedInspection | None":
        """A step looked at closely, at once; `None` where its logits are no longer remembered: see `recall`.

        Args:
            context: ids of the prompt and of what was written before the step.
        """
        if self.capabilities is not None:
            from engine.remote.inspection import ServedInspection

            return ServedInspection(step, config, self.capabilities)
        if step.logits is None or step.logits.row is None or self.tokenizer is None:
            return None
        from engine.generation.inspection import Inspection

        return Inspection(step.logits.row, self.tokenizer, context, config, step)

    def recall(self, step: Stepped, context: Sequence[int], config: GenerationConfig) -> "Job[Inspection]":
        """The same, with the logits computed again."""

        def body(job: Job[Any]) -> Iterator["Inspection"]:
            from engine.generation.inspection import Inspection
            from engine.generation.loop import logits_after

            model = self._local()
            row = logits_after(model.network, context, self._states.find(context, hidden=False))
            kept = self._logits.keep(row)
            if step.logits is not None:
                step.logits.row = kept.row
            yield Inspection(row, model.tokenizer, context, config, step)

        return self._ask(body)

    def score(self, tokens: Sequence[Token]) -> "Job[Scored]":
        """How well the model expected each token of a text; while a run goes on, a part between its steps."""

        def body(job: Job[Any]) -> Iterator["Scored"]:
            for scored in self._loaded().score(tokens):
                if job.cancelled:
                    return
                yield scored

        return self._ask(body)

    def answer(self, question: "Question", live: "Live | None") -> "Job[Answer]":
        """The answer to a lesson's question, read off the model; cancels the run before it."""

        def body(job: Job[Any]) -> Iterator["Answer"]:
            from engine.lessons.questions import answer

            return answer(self._loaded(), question, live, job.proceed)

        return self._run(body)

    def cancel(self) -> None:
        """End the run, if there is one; a model that is loading goes on loading."""
        if self._running is not None:
            self._running.cancel()

    def cancel_loading(self) -> None:
        """Stop waiting for the model that is loading, if one is."""
        if self._loading is not None:
            self._loading.cancel()

    async def close(self) -> None:
        """Cancel everything and wait for the worker, at most two seconds."""
        self.cancel()
        self.cancel_loading()
        self._jobs.put(None)
        await asyncio.to_thread(self._worker.join, 2)
        if self._model is not None:
            await asyncio.to_thread(self._model.close)

    @property
    def capabilities(self) -> "Capabilities | None":
        """What the server can do whose model this is; `None` for a model that runs here, which can do everything."""
        return None if self._model is None else self._model.capabilities

    def _loaded(self) -> "Model | ServedModel":
        if self._model is None:
            raise InputError(_("no model is loaded yet; wait for it, or choose one"))
        return self._model

    def _local(self) -> "Model":
        from engine.loading import Model

        model = self._loaded()
        if not isinstance(model, Model):
            raise InputError(_("this needs the model's own numbers, which no server tells; F2 chooses a local model"))
        return model

    def _recalled(self, start: Start, *, hidden: bool) -> Start:
        """The same start with what is still known of it."""
        return replace(start, state=self._states.find(start.ids, hidden=hidden))

    def _run(self, body: Body, *, paused: bool = False) -> Job[Any]:
        self.cancel()
        self._running = self._start(body, paused=paused)
        return self._running

    def _start(self, body: Body, *, paused: bool = False) -> Job[Any]:
        job: Job[Any] = Job(body, asyncio.get_running_loop(), self._serve)
        if paused:
            job.pause()
        self._jobs.put(job)
        return job

    def _ask(self, body: Body) -> Job[Any]:
        """Work that is done between the steps of a run, if one goes on."""
        job: Job[Any] = Job(body, asyncio.get_running_loop())
        self._asked.append(job)
        self._jobs.put(_SERVE)
        if self._running is not None:
            self._running.wake()
        return job

    def _serve(self) -> bool:
        """Do a little of what is asked, in the worker; whether there is more."""
        if self._asked and not self._asked[0].advance():
            self._asked.popleft()
        return bool(self._asked)

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            if job is _SERVE:
                while self._serve():
                    pass
            else:
                job.run()

    def _next_job(self) -> Job[Any] | None:
        """Wait for a job; a new model is prepared only when there is nothing else to do for a moment."""
        if self._unprepared is not None:
            try:
                return self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                model, self._unprepared = self._unprepared, None
                with suppress(Exception):  # what is wrong, the run that meets it will say
                    model.network.prepare()
        return self._jobs.get()


# In the queue of jobs: something is asked.
_SERVE: Any = object()
