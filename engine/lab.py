"""The laboratory as a screen sees it: what is asked of a model is a job of its worker, and events come out."""

import asyncio
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from engine.base.errors import InputError
from engine.base.language import _
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Prompt, Start, Stepped
from engine.generation.interventions import Treatment
from engine.generation.memory import LogitsMemory, StateMemory
from engine.job import Job
from engine.models import catalog
from engine.models.model import Model
from engine.models.progress import Loading, ModelLoaded, TokenizerLoaded
from engine.shelf import Shelf
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer
from engine.timing.measurement import Measurement
from engine.timing.sweep import Sweep, TimedRun
from engine.worker import Worker

if TYPE_CHECKING:
    from engine.generation.amateur import Amateur
    from engine.generation.drafts import DraftModel
    from engine.generation.inspection import Inspection
    from engine.generation.memory import KeptLogits
    from engine.generation.score import Scored
    from engine.generation.step_view import StepView
    from engine.inside.record import Record, Recording
    from engine.lessons.lesson import Answer, Live, Question
    from engine.models.capabilities import Capabilities
    from engine.models.local import LocalModel
    from engine.models.model import ModelFacts
    from engine.models.own import OwnSettings


class Lab:
    """A model and the thread that runs it.

    Args:
        threads: processor threads for the network; `None` for all.
        kernels: as `LoadOptions` takes them, like the rest.
    """

    def __init__(
        self,
        *,
        precision: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        offline: bool = False,
        cache_dir: Path | None = None,
        kernels: str | None = None,
    ) -> None:
        self.cache_dir = cache_dir
        self._how: dict[str, Any] = {
            "precision": precision,
            "device": device,
            "threads": threads,
            "offline": offline,
            "cache_dir": cache_dir,
            "kernels": kernels,
        }
        self.tokenizer: Tokenizer | None = None
        self.facts: ModelFacts | None = None
        self._model: Model | None = None
        self._shelf = Shelf(**self._how)
        self._lanes: Sequence[GenerationConfig] = ()  # whose models stay
        self._unprepared: list[LocalModel] = []
        self._loading: Job[Any] | None = None
        self._using: Job[Any] | None = None
        self._apart: dict[tuple[int, int], str] = {}  # of the two models that were compared last
        self._logits = LogitsMemory()
        self._states: dict[int, StateMemory] = {}  # by the model
        self._worker = Worker(lambda: bool(self._unprepared), self._prepare)

    def load(self, name: str | None = None) -> Job[Loading | TokenizerLoaded | ModelLoaded]:
        """Load a model in place of the present one, which stays if this fails."""

        def body(job: Job[Any]) -> Iterator[Any]:
            from engine.loading import load_model

            def tokenizer_loaded(tokenizer: Tokenizer) -> None:
                if self._model is None:
                    self.tokenizer = tokenizer
                    job.emit(TokenizerLoaded(tokenizer))

            model = load_model(
                name,
                **self._how,
                report=job.emit,
                cancelled=lambda: job.cancelled,
                tokenizer_loaded=tokenizer_loaded,
            )
            self._replace(model)
            yield TokenizerLoaded(model.tokenizer)
            self._prepare_later(model)
            yield ModelLoaded(model.facts)

        self.cancel()
        self.cancel_loading()
        self._loading = self._worker.start(body)
        return self._loading

    def _replace(self, model: "Model") -> None:
        """Put a model in the place of the present one, which goes."""
        self._logits.clear()
        former, self._model = self._model, model
        self.tokenizer, self.facts, self._shelf.own = model.tokenizer, model.facts, model
        if model.capabilities.network:  # a server may be gone the next time
            catalog.remember(model.facts.name)
        if former is not None:
            former.close()
            self._forget([former])
            del former
            _collect_garbage()
        # Libraries, vocabulary and model are there for long: looking through them for garbage would hold up keys.
        gc.freeze()

    def _prepare_later(self, model: "Model") -> None:
        if model.capabilities.network:
            self._unprepared.append(cast("LocalModel", model))

    def _prepare(self) -> None:
        """Make ready a model that has not run yet."""
        model = self._unprepared.pop(0)
        with suppress(Exception):  # what is wrong, the run that meets it will say
            model.network.prepare()

    def _forget(self, gone: "Sequence[Model]") -> None:
        """Keep nothing of models that are closed."""
        for model in gone:
            self._states.pop(id(model), None)
        self._unprepared = [one for one in self._unprepared if all(one is not model for model in gone)]

    # Lanes that name a model of their own.

    def use(self, configs: Sequence[GenerationConfig]) -> "Job[Loading]":
        """Load the models that lanes name, and let those go that none names any more; after the run that goes on."""
        self._lanes = tuple(configs)

        def body(job: Job[Any]) -> "Iterator[Loading]":
            self._bring(configs, job)
            return iter(())

        self._using = self._worker.start(body)
        return self._using

    def needs(self, configs: Sequence[GenerationConfig]) -> bool:
        """Whether `use` would load a model, let one go, or say that a lane names none."""
        try:
            return self._shelf.lacks(configs) or self._shelf.spares(configs)
        except InputError:
            return True

    def model_of(self, config: GenerationConfig | None = None) -> "Model | None":
        """The model of a lane; `None` while it is not loaded, or where there is none of that name."""
        if config is None:
            return self._model
        try:
            return self._shelf.find(config)
        except InputError:
            return None

    def amateur_of(self, config: GenerationConfig) -> "Model | None":
        """The amateur of a lane; `None` where it has none, or it is not loaded."""
        try:
            return self._shelf.amateur(config)
        except InputError:
            return None

    def draft_of(self, config: GenerationConfig) -> "Model | None":
        """The model that guesses for a lane, likewise."""
        try:
            return self._shelf.draft(config)
        except InputError:
            return None

    def _amateur(self, config: GenerationConfig, model: "Model") -> "Amateur | None":
        """The amateur of a lane of a model, for a run. Raises `InputError` where it cannot be one."""
        from engine.models.amateurs import amateur_for

        found = self._shelf.amateur(config)
        return amateur_for(model, found, None if found is None else self._states_of(found))

    def _draft(self, config: GenerationConfig, model: "Model") -> "DraftModel | None":
        """What guesses for a lane of a model, likewise."""
        from engine.models.amateurs import draft_for

        found = self._shelf.draft(config)
        return draft_for(model, found, None if found is None else self._states_of(found))

    def why_apart(self, configs: Sequence[GenerationConfig]) -> str:
        """In one sentence why the tokens of two lanes cannot be compared; empty where they can, or are not known."""
        from engine.text.vocabularies import why_apart

        first, second = (self.model_of(config) for config in configs)
        if first is None or second is None or first is second:
            return ""
        key = id(first), id(second)
        if key not in self._apart:
            self._apart = {key: why_apart(first.tokenizer, second.tokenizer)}
        return self._apart[key]

    def _bring(self, configs: Sequence[GenerationConfig], job: Job[Any]) -> "list[Model]":
        """The models of some lanes, in the worker; those that no lane names any more go first."""
        gone = self._shelf.let_go([*configs, *self._lanes])
        self._forget(gone)
        if changed := bool(gone):
            gone.clear()
            _collect_garbage()
        before = {id(model) for model in self._shelf.models}
        try:
            return self._shelf.bring(configs, report=job.emit, cancelled=lambda: job.cancelled)
        finally:
            new = [model for model in self._shelf.models if id(model) not in before]
            for model in new:
                self._prepare_later(model)
            if new or changed:
                gc.freeze()

    def _models(self, configs: Sequence[GenerationConfig], job: Job[Any]) -> "list[Model]":
        """The model of each lane of a run; those that are not there are loaded first."""
        if any(not config.names_model for config in configs):
            self._loaded()
        return self._bring(configs, job)

    def _states_of(self, model: "Model") -> StateMemory:
        return self._states.setdefault(id(model), StateMemory())

    def generate(
        self,
        prompt: str | Prompt | Start | Sequence[str | Prompt | Start],
        configs: Sequence[GenerationConfig],
        *,
        candidates: int = 20,
        paused: bool = False,
    ) -> Job[Event]:
        """Continue a prompt under each configuration, with the model that it names; cancels the run before it.

        `Loading` of a model that is not there comes before `Started`.

        Args:
            prompt: one for all configurations, or one for each. What is still known of a `Start` is used again.
            paused: wait for `step` or `resume` before the first step.
        """
        given = [prompt] if isinstance(prompt, (str, Prompt, Start)) else list(prompt)

        def body(job: Job[Any]) -> Iterator[Event]:
            from engine.models.side_by_side import generate

            models = self._models(configs, job)
            prompts = given * len(configs) if len(given) == 1 else given
            contrastive = any(config.strategy == "contrastive" for config in configs)
            return generate(
                models,
                [self._start_of(*one, hidden=contrastive) for one in zip(prompts, models, configs, strict=True)],
                configs,
                candidates=candidates,
                proceed=job.proceed,
                cancelled=lambda: job.cancelled,
                paused=lambda: job.paused,
                in_step=lambda: job.in_step,
                others=lambda model: {"keep_logits": self._logits.keep, "keep_state": self._states_of(model).keep},
                amateurs=[self._amateur(*one) for one in zip(configs, models, strict=True)],
                drafts=[self._draft(*one) for one in zip(configs, models, strict=True)],
            )

        return self._worker.run(body, paused=paused)

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
            from engine.sweeping import sweep_model

            return sweep_model(
                self._loaded(),
                sweep,
                precision=precision,
                threads=threads,
                how=self._how,
                report=job.emit,
                proceed=job.proceed,
                cancelled=lambda: job.cancelled,
            )

        return self._worker.run(body)

    def inspect(self, step: Stepped, context: Sequence[int], config: GenerationConfig) -> "StepView | None":
        """A step looked at closely, at once; `None` where its logits are no longer remembered: see `recall`.

        Args:
            context: ids of the prompt and of what was written before the step.
        """
        model = self.model_of(config)
        if model is not None and not model.capabilities.network:
            from engine.remote.inspection import ServedInspection

            return ServedInspection(step, config, model.capabilities)
        if step.logits is None or step.logits.row is None or model is None:
            return None
        return _inspection(step, step.logits, model, context, config)

    def recall(
        self, step: Stepped, context: Sequence[int], config: GenerationConfig, prompt: int = 0
    ) -> "Job[Inspection]":
        """The same, with the logits computed again, by the lane's model under its interventions.

        Args:
            prompt: how many of the ids are the prompt's.
        """

        def body(job: Job[Any]) -> Iterator["Inspection"]:
            from engine.generation.amateur import amateur_after
            from engine.generation.guidance import others_after
            from engine.generation.intervening import treated
            from engine.generation.loop import logits_after

            model = self._local(self._seated(config))
            how = treated(model.network, model.tokenizer, config.interventions, context[:prompt])
            state = self._states_of(model).find(context, hidden=False, treatment=how.treatment)
            row = logits_after(how.network, context, state, how.treatment)
            others = others_after(model.network, model.tokenizer, config, context[:prompt], context[prompt:])
            seat = self._amateur(config, model)
            amateur = amateur_after(config, seat, context[:prompt], context[prompt:])
            kept = self._logits.keep(row, others, amateur)
            if step.logits is not None:
                step.logits.row, step.logits.others, step.logits.amateur = row, others, amateur
            yield _inspection(step, kept, model, context, config)

        return self._worker.ask(body)

    def score(self, tokens: Sequence[Token], config: GenerationConfig | None = None) -> "Job[Scored]":
        """How well the model, or a lane's, expected each token of a text; while a run goes on, between its steps."""

        def body(job: Job[Any]) -> Iterator["Scored"]:
            for scored in self._seated(config).score(tokens):
                if job.cancelled:
                    return
                yield scored

        return self._worker.ask(body)

    def record(
        self, ids: Sequence[int], config: GenerationConfig | None = None, prompt: int = 0
    ) -> "Job[Recording | Record]":
        """What the model, or a lane's under its interventions, does inside with a text.

        Each block as it is through, at last the record.

        Args:
            prompt: how many of the ids are the prompt's.
        """

        def body(job: Job[Any]) -> "Iterator[Recording | Record]":
            from engine.inside.record import record

            model = self._treated(config, ids[:prompt])
            yield record(model, ids, report=job.emit, cancelled=lambda: job.cancelled)

        return self._worker.ask(body)

    def look(
        self,
        work: "Callable[[Model, Job[Any]], Iterator[Any]]",
        config: GenerationConfig | None = None,
        *,
        intervene: bool = False,
    ) -> Job[Any]:
        """What is read off a record or needs the model, or a lane's, once more: a part between the steps of a run.

        Args:
            intervene: under the lane's interventions; those of them that no prompt belongs to.
        """
        return self._worker.ask(lambda job: work(self._treated(config, ()) if intervene else self._seated(config), job))

    def compare(
        self,
        work: "Callable[[Sequence[Model], Job[Any]], Iterator[Any]]",
        configs: Sequence[GenerationConfig],
        prompt: Sequence[int] = (),
    ) -> Job[Any]:
        """What needs the models of two lanes, each under its interventions: a part between the steps of a run.

        Args:
            prompt: ids that the text begins with which they read.
        """
        return self._worker.ask(lambda job: work([self._treated(config, prompt) for config in configs], job))

    def answer(self, question: "Question", live: "Live | None") -> "Job[Answer]":
        """The answer to a lesson's question, read off the model; cancels the run before it."""

        def body(job: Job[Any]) -> Iterator["Answer"]:
            from engine.lessons.questions import answer

            return answer(self._loaded(), question, live, job.proceed)

        return self._worker.run(body)

    def cancel(self) -> None:
        """End the run, if there is one; a model that is loading goes on loading."""
        self._worker.cancel()

    def cancel_loading(self) -> None:
        """Stop waiting for the model that is loading, if one is."""
        for loading in (self._loading, self._using):
            if loading is not None:
                loading.cancel()

    async def close(self) -> None:
        """Cancel everything and wait for the worker, at most two seconds."""
        self.cancel()
        self.cancel_loading()
        await self._worker.close(seconds=2)
        for model in self._shelf.models:
            await asyncio.to_thread(model.close)

    @property
    def is_asked(self) -> bool:
        """Whether something that was asked for between the steps of a run is not done yet."""
        return self._worker.is_asked

    @property
    def working(self) -> bool:
        """Whether the worker's thread has not ended."""
        return self._worker.thread.is_alive()

    @property
    def capabilities(self) -> "Capabilities | None":
        """What can be done with the model; `None` while there is none."""
        return None if self._model is None else self._model.capabilities

    @property
    def own(self) -> "OwnSettings | None":
        """The settings that the model brings; `None` while there is none."""
        return None if self._model is None else self._model.own

    def _loaded(self) -> Model:
        if self._model is None:
            raise InputError(_("no model is loaded yet; wait for it, or choose one"))
        return self._model

    def _seated(self, config: GenerationConfig | None) -> Model:
        """The model of a lane. Raises `InputError` where it is not loaded, which `use` and `generate` change."""
        if config is None or not config.names_model:
            return self._loaded()
        model = self._shelf.find(config)
        if model is None:
            raise InputError(
                _("{model} is not loaded; a lane that names it loads it when it runs", model=config.model_label)
            )
        return model

    def _treated(self, config: GenerationConfig | None, prompt: Sequence[int]) -> Model:
        """The model of a lane under its interventions."""
        model = self._seated(config)
        done = () if config is None else config.interventions
        return self._local(model).treated(done, prompt) if done else model

    def _local(self, model: Model) -> "LocalModel":
        from engine.models.local import with_network

        refusal = _("this needs the model's own numbers, which no server tells; choose a local model")
        return with_network(model, refusal)

    def _start_of(
        self, prompt: str | Prompt | Start, model: "Model", config: GenerationConfig, *, hidden: bool
    ) -> str | Start:
        """Where a lane of a model begins, with what is still known of it."""
        if isinstance(prompt, Prompt):
            return prompt.start(model.tokenizer)
        if isinstance(prompt, str):
            return prompt
        treatment = Treatment.of(config.interventions, len(prompt.prompt))
        state = self._states_of(model).find(prompt.ids, hidden=hidden, treatment=treatment)
        return replace(prompt, state=state)


def _inspection(
    step: Stepped, logits: "KeptLogits", model: Model, context: Sequence[int], config: GenerationConfig
) -> "Inspection":
    """A step whose logits are there, looked at closely; of guidance and an amateur they are of what `config` names."""
    from engine.generation.inspection import Inspection

    assert logits.row is not None
    return Inspection(
        logits.row,
        model.tokenizer,
        context,
        config,
        step,
        logits.others,
        config.negative_prompt,
        logits.amateur,
        config.amateur,
    )


def _collect_garbage() -> None:
    gc.unfreeze()  # what is frozen is never looked through again
    gc.collect()
