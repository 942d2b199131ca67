"""Loading models: what the panes show meanwhile, and what waits for a model."""

from collections.abc import Callable
from dataclasses import replace

from engine.base.errors import LogitlabError
from engine.base.language import _
from engine.generation.config import OWN, PRESETS, GenerationConfig, config_from_dict
from engine.generation.events import Failed
from engine.lab import Lab
from engine.models import catalog
from engine.models.model import ModelFacts
from engine.models.progress import Loading, ModelLoaded, TokenizerLoaded
from engine.sessions.session import SessionModel
from tui.background import in_background
from tui.panes.lane_states import NAMES
from tui.screens import Dialog
from tui.sentences import sentence
from tui.session_keeper import SessionKeeper
from tui.trouble import tell
from tui.workbench import Workbench


class ModelLoader:
    """Loads one model at a time.

    Args:
        keeper: its session is for the model that is there.
        arrived: called once a model is there.

    Attributes:
        loading: whether a model is on its way.
        waiting: a run that was asked for before there is a model.
    """

    def __init__(self, workbench: Workbench, lab: Lab, keeper: SessionKeeper, arrived: Callable[[], object]) -> None:
        self._workbench = workbench
        self._lab = lab
        self._keeper = keeper
        self._arrived = arrived
        self._closed = False
        self.loading = True
        self.waiting: Callable[[], object] | None = None
        self._own: dict[int, GenerationConfig | None] = {}  # by the lane, that of its model before
        self._fitted: set[int] = set()  # the models of the lanes that were looked at last
        self._remarked: set[str] = set()
        # What the lanes named when it could not be loaded, or was stopped: it is not tried again until a run asks.
        self._refused: list[tuple[str | None, ...]] | None = None

    def load(self, name: str | None) -> None:
        """Load a model in place of the present one, which stays if this fails; the default for `None`."""
        if not self._closed:
            in_background(self._workbench, "load", self._load, name)

    def close(self) -> None:
        """Load nothing more: the panes go."""
        self._closed = True

    def wait_for_model(self, run: Callable[[], object]) -> bool:
        """Whether there is no model yet; then `run` begins as soon as there is one."""
        if self.loading:
            self.waiting = run
            self._workbench.refresh_bindings()
            self._workbench.notify(_("The run starts as soon as the model is ready."))
        elif self._lab.facts is None:
            self._workbench.notify(sentence(_("There is no model: {model} chooses one.")), severity="warning")
        else:
            return False
        return True

    def stop(self) -> None:
        """Forget the run that waits, or else stop loading."""
        if self.waiting is not None:
            self.waiting = None
            self._workbench.refresh_bindings()
            self._workbench.notify(_("The run will not start."))
        elif self.loading:
            self._lab.cancel_loading()

    async def _load(self, name: str | None) -> None:
        bench = self._workbench
        self.loading = True
        bench.refresh_bindings()
        bench.status.message = ""
        bench.status.progress = Loading("fetch", 0, 0, name or "")
        async for frame in self._lab.load(name).frames():
            for event in frame:
                match event:
                    case Loading():
                        bench.status.progress = event
                    case TokenizerLoaded():
                        bench.prompt_area.tokenize()
                        bench.prompts.use(name or catalog.default_name(), event.tokenizer)
                    case ModelLoaded():
                        await self._welcome(event.facts)
                        if not self._lacks_models():
                            self._end()
                    case Failed():
                        tell(bench.app, event.error)
                        if self._lab.facts is None:
                            bench.status.message = _("no model: ") + str(event.error)
                            bench.prompt_area.wait(sentence(_("no tokenizer yet: {model} chooses a model")))
        if self._lab.facts is not None and self._lacks_models():
            await self._bring()
        self._end()

    # Models that lanes name.

    def fit_lanes(self) -> None:
        """Load the models that lanes name now, and let those go that none names; after the lab's own, if it loads."""
        if self._closed or self.loading or self._lab.facts is None:
            return
        self._workbench.follow()
        if self._named != self._refused and self._lacks_models():
            self.loading = True  # before the worker begins
            in_background(self._workbench, "load", self._fit)

    @property
    def _named(self) -> list[tuple[str | None, ...]]:
        configs = self._workbench.generate.configs
        return [(config.model, config.precision, config.amateur, config.draft) for config in configs]

    def _lacks_models(self) -> bool:
        return self._lab.needs(self._workbench.generate.configs)

    async def _fit(self) -> None:
        await self._bring()
        self._end()

    async def _bring(self) -> None:
        """Load what lanes name, one after the other, until they name nothing else; what cannot be loaded is said."""
        bench = self._workbench
        self.loading = True
        bench.refresh_bindings()
        self._refused = None
        while self._lacks_models() and self._named != self._refused:
            self._refused = self._named
            async for frame in self._lab.use(bench.generate.configs).frames():
                for event in frame:
                    if isinstance(event, Loading):
                        bench.status.progress = event
                    elif isinstance(event, Failed):
                        tell(bench.app, event.error)
        self._take_own_settings()
        self._fit_lanes()
        self.remark_lanes()
        bench.inside.forget()
        bench.follow()
        bench.look_inside()
        bench.generate.look_again()

    async def _welcome(self, facts: ModelFacts) -> None:
        """A model is there: what another one wrote stays in its session, for its tokens are others."""
        bench, before = self._workbench, self._keeper.model
        if before is not None and before.identity != facts.identity:
            self._remarked.clear()
            if any(tree.branches for tree in bench.generate.trees):
                await self._keeper.begin_anew()
            bench.generate.begin_anew()
        bench.inside.forget()
        self._keeper.model = SessionModel.of(facts)
        self._take_own_settings()
        self._fit_lanes()
        self.remark_lanes()
        self._arrived()
        bench.follow()
        bench.generate.look_again()
        bench.prompt_area.tokenize()
        if self._lab.tokenizer is not None and self._lab.tokenizer.warning is not None:
            bench.notify(self._lab.tokenizer.warning, severity="warning", markup=False, timeout=15)

    def _take_own_settings(self) -> None:
        """Lanes of a model's own settings get those of the model that is there now, with what was changed in them."""
        for lane, config in enumerate(self._workbench.generate.configs):
            model = self._lab.model_of(config)
            if config.name != OWN or model is None:
                continue
            before = self._own.get(lane) or GenerationConfig(name=OWN)
            plain = before.to_dict()
            changed = {name: value for name, value in config.to_dict().items() if value != plain[name]}
            try:
                self._workbench.generate.configure(lane, config_from_dict(changed, model.own.need()))
            except LogitlabError as error:
                self._set_aside(lane, config, error)
            self._own[lane] = model.own.config
        for lane, config in enumerate(self._workbench.generate.configs):
            if (model := self._lab.model_of(config)) is not None:
                self._own[lane] = model.own.config

    def remark_lanes(self) -> None:
        """Say once of a model what a lane leaves out of the settings that it brings."""
        for config in self._workbench.generate.configs:
            model = self._lab.model_of(config)
            remark = "" if model is None else model.own.remark(config)
            if remark and remark not in self._remarked:
                self._remarked.add(remark)
                self._workbench.notify(remark, markup=False, timeout=10)

    def _fit_lanes(self) -> None:
        """Settings that a server does not know are put aside for some that it does, and that is said."""
        bench = self._workbench
        bench.timing.serve(self._lab.capabilities)
        said: set[str] = set()
        for lane, config in enumerate(bench.generate.configs):
            model = self._lab.model_of(config)
            if model is None:
                continue
            if id(model) not in self._fitted:
                said.update(model.capabilities.remarks)
            try:
                model.capabilities.check(config)
            except LogitlabError as error:
                self._set_aside(lane, config, error)
        self._fitted = {id(self._lab.model_of(config)) for config in bench.generate.configs}
        for remark in sorted(said):
            bench.notify(remark, severity="warning", markup=False, timeout=10)

    def _set_aside(self, lane: int, config: GenerationConfig, error: LogitlabError) -> None:
        """A lane cannot have its settings: it gets plain ones, and that is said."""
        preset = PRESETS["greedy" if lane == 0 else "sampled"]
        fit = replace(
            preset,
            temperature=1.0,
            max_new_tokens=config.max_new_tokens,
            model=config.model,
            precision=config.precision,
        )
        self._workbench.generate.configure(lane, fit)
        said = _("Lane {lane} is set to {name}: {error}", lane=NAMES[lane], name=fit.name, error=error)
        self._workbench.notify(said, severity="warning", markup=False, timeout=10)

    def _end(self) -> None:
        """The model is there, or will not be: start the run that waited for it, if there is one to run."""
        bench = self._workbench
        bench.status.progress = None
        screen = bench.app.screen
        if isinstance(screen, Dialog):  # Textual draws the last change beneath a dialog with the next one
            bench.call_after_refresh(screen.refresh)
        self.loading = False
        bench.refresh_bindings()
        waiting, self.waiting = self.waiting, None
        if waiting is not None and self._lab.facts is not None:
            waiting()
