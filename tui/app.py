"""The lab on the screen: composition, keys, and where events go."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Footer, TabbedContent, TabPane

from engine.config import PRESETS, GenerationConfig
from engine.errors import LogitlabError
from engine.events import (
    Event,
    Failed,
    Finished,
    Loading,
    ModelLoaded,
    Prefilled,
    Prefilling,
    Started,
    Stepped,
    TokenizerLoaded,
)
from engine.lab import Job, Lab
from engine.loading import processors
from engine.timing import TimedRun
from engine.tokens import Token
from tui.panes.lanes import NAMES, LanesPane
from tui.panes.loop_diagram import LoopDiagram
from tui.panes.prompt import PromptPane
from tui.panes.status import StatusLine
from tui.panes.timing import TimingPane
from tui.panes.tokens import TokensPane, TokenTable
from tui.theme import THEMES

FRAME_SECONDS = 1 / 20
TELL_SECONDS = 1 / 4
LAB_ACTIONS = {"run", "step", "pause", "stop", "edit", "choose_model", "help", "view"}
# Longer prompts are cut into tokens beside the event loop, so that typing stays fluent.
TOKENIZE_AT_ONCE = 4_000


class LogitlabApp(App[None], inherit_bindings=False):
    """Prompt → tokens → lanes → events → panes."""

    CSS_PATH = "app.tcss"
    TITLE = "logitlab"
    ENABLE_COMMAND_PALETTE = True
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (150, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-tall")]

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5", "run", "run", key_display="F5", priority=True),
        Binding("ctrl+r", "run", "run", show=False, priority=True),
        Binding("f6", "step", "step", key_display="F6", priority=True),
        Binding("f7", "pause", "pause", key_display="F7", priority=True),
        Binding("escape", "stop", "stop", key_display="esc", priority=True),
        Binding("f3", "edit(0)", "edit A", key_display="F3", priority=True),
        Binding("f4", "edit(1)", "edit B", key_display="F4", priority=True),
        Binding("f2", "choose_model", "model", key_display="F2", priority=True),
        Binding("f1", "help", "help", key_display="F1", priority=True),
        Binding("f8", "view(1)", "view", key_display="F8", priority=True),
        Binding("ctrl+pagedown", "view(1)", show=False, priority=True),
        Binding("ctrl+pageup", "view(-1)", show=False, priority=True),
        Binding("ctrl+q", "quit", "quit", key_display="^q", priority=True),
        Binding("ctrl+c", "help_quit", show=False, system=True),
        # With priority, so that what is typed right after a tab goes where the tab went.
        Binding("tab", "app.focus_next", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", show=False, priority=True),
    ]

    def __init__(
        self,
        *,
        prompt: str = "",
        model: str | None = None,
        precision: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        offline: bool = False,
        cache_dir: Path | None = None,
        configs: Sequence[GenerationConfig] = (PRESETS["greedy"], PRESETS["creative"]),
    ) -> None:
        super().__init__()
        self._first_prompt = prompt
        self._first_model = model
        # The screen draws on one core while the network runs on the others.
        self._lab_options = {
            "precision": precision,
            "device": device,
            "threads": threads or max(1, processors() - 1),
            "offline": offline,
            "cache_dir": cache_dir,
        }
        self.lab: Lab
        self.configs = list(configs)
        self.prompt_tokens: Sequence[Token] = ()
        self._tokenized: str | None = None
        self._job: Job[Any] | None = None
        self._loading = True
        self._waiting: Callable[[], None] | None = None  # a run asked for before there is a model
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name

    # Composition.

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield PromptPane(self._first_prompt)
        yield TokensPane()
        with TabbedContent(id="views"):
            with TabPane("Generate", id="generate"), Vertical():
                yield LanesPane(*self.configs)
                yield LoopDiagram(id="loop")
            with TabPane("Tokens", id="tokens-tab"):
                yield TokenTable()
            with TabPane("Timing", id="timing-tab"):
                yield TimingPane()
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.lab = Lab(**self._lab_options)  # type: ignore[arg-type]
        self.query_one(PromptPane).focus()
        self.query_one(TokensPane).wait("the tokenizer is on its way…")
        self.call_after_refresh(self._load, self._first_model)

        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                number = getattr(signal, name)
                asyncio.get_running_loop().add_signal_handler(number, self._leave, number)

    def _leave(self, number: int) -> None:
        """Told to go: restore the terminal and end with the code shells expect."""
        self.exit(return_code=128 + number)

    async def on_unmount(self) -> None:
        await self.lab.close()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a dialog is open its own keys count."""
        return not isinstance(self.screen, ModalScreen) or action not in LAB_ACTIONS

    # The model.

    @work(group="load", exclusive=True)
    async def _load(self, name: str | None) -> None:
        status = self.query_one(StatusLine)
        self._loading = True
        status.message = ""
        status.progress = Loading("fetch", 0, 0, name or "")
        async for frame in self.lab.load(name).frames(FRAME_SECONDS):
            for event in frame:
                match event:
                    case Loading():
                        status.progress = event
                    case TokenizerLoaded():
                        self._tokenize()
                    case ModelLoaded():
                        status.facts = event.facts
                        self.query_one(LoopDiagram).vocabulary_size = event.facts.vocabulary_size
                        self._tokenize()
                        self._end_loading()
                    case Failed():
                        self._tell(event.error)
                        if self.lab.facts is None:
                            status.message = "no model: " + str(event.error)
                            self.query_one(TokensPane).wait("no tokenizer yet: F2 chooses a model")
        self._end_loading()

    def _end_loading(self) -> None:
        """The model is there, or will not be: start the run that waited for it, if there is one to run."""
        self.query_one(StatusLine).progress = None
        self._loading = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None and self.lab.facts is not None:
            waiting()

    # Dialogs are imported when they are opened: the first frame does not wait for them.

    def action_choose_model(self) -> None:
        from tui.dialogs.model_picker import ModelPicker

        current = self.lab.facts.name if self.lab.facts else None
        picker = ModelPicker(current, self.lab.cache_dir)

        def accept(name: str | None) -> None:
            if name:
                self._load(name)

        self.push_screen(picker, accept)

    # The prompt and its tokens.

    def on_prompt_pane_edited(self, event: PromptPane.Edited) -> None:
        self._tokenize()

    def _tokenize(self) -> None:
        tokenizer = self.lab.tokenizer
        text = self.query_one(PromptPane).text
        if tokenizer is None:
            return
        if len(text) <= TOKENIZE_AT_ONCE:
            self._show_tokens(text, tokenizer.encode(text))
        else:
            self._tokenize_aside(text)

    @work(group="tokenize", exclusive=True)
    async def _tokenize_aside(self, text: str) -> None:
        tokenizer = self.lab.tokenizer
        if tokenizer is None:
            return
        tokens = await asyncio.to_thread(tokenizer.encode, text)
        if text == self.query_one(PromptPane).text:
            self._show_tokens(text, tokens)

    def _show_tokens(self, text: str, tokens: Sequence[Token]) -> None:
        self.prompt_tokens = tokens
        facts = self.lab.facts
        self.query_one(TokensPane).show(tokens, text, facts.context_length if facts else None)
        self.query_one(TokenTable).show(tokens)

    def on_tokens_pane_pointed(self, event: TokensPane.Pointed) -> None:
        self.query_one(TokensPane).point(event.position)
        self.query_one(TokenTable).point(event.position)

    # Running.

    def action_run(self) -> None:
        if self.query_one(TabbedContent).active == "timing-tab":
            self.query_one(TimingPane).request()
        else:
            self._generate(paused=False)

    def action_step(self) -> None:
        if self._job is None or self._job.done:
            self._generate(paused=True)
        else:
            self._job.step()

    def action_pause(self) -> None:
        if self._job is None or self._job.done:
            return
        if self._job.paused:
            self._job.resume()
        else:
            self._job.pause()

    def action_stop(self) -> None:
        if self._job is not None and not self._job.done:
            self._job.cancel()
        elif self._waiting is not None:
            self._waiting = None
            self.notify("The run will not start.")
        elif self._loading:
            self.lab.cancel_loading()

    def _generate(self, *, paused: bool) -> None:
        text = self.query_one(PromptPane).text
        if not text:
            self.notify("The prompt is empty: type at least one character.", severity="warning")
            self.query_one(PromptPane).focus()
            return
        self.query_one(TabbedContent).active = "generate"
        if self._wait_for_model(lambda: self._generate(paused=paused)):
            return
        self._job = self.lab.generate(text, self.configs, paused=paused)
        if paused:
            self._job.step()
        self._follow(self._job)

    def _wait_for_model(self, run: Callable[[], None]) -> bool:
        """Whether there is no model yet; then `run` begins as soon as there is one."""
        if self._loading:
            self._waiting = run
            self.notify("The run starts as soon as the model is ready.")
        elif self.lab.facts is None:
            self.notify("There is no model: F2 chooses one.", severity="warning")
        else:
            return False
        return True

    @work(group="run", exclusive=True)
    async def _follow(self, job: Job[Event]) -> None:
        lanes = self.query_one(LanesPane)
        diagram = self.query_one(LoopDiagram)
        status = self.query_one(StatusLine)
        told = 0.0
        async for frame in job.frames(FRAME_SECONDS):
            steps: list[list[Stepped]] = [[] for _ in lanes.lanes]
            for event in frame:
                match event:
                    case Stepped():
                        steps[event.lane].append(event)
                    case Started():
                        diagram.stage = "tokens"
                        for lane, config in zip(lanes.lanes, event.configs):
                            lane.start(config)
                    case Prefilling():
                        diagram.stage = "model"
                    case Prefilled():
                        for lane in lanes.lanes:
                            lane.prefill_seconds = event.seconds
                    case Failed():
                        self._tell(event.error)
            newest = None
            for lane, new in zip(lanes.lanes, steps):
                if new:
                    lane.extend(new)
                    newest = newest or new[-1]
            for event in frame:
                if isinstance(event, Finished):
                    lanes.lanes[event.lane].finish(event.reason)
            # Text is drawn every frame, everything around it a few times a second: what the screen takes, the
            # network lacks.
            if newest is not None and (job.paused or time.monotonic() - told > TELL_SECONDS):
                told = time.monotonic()
                diagram.advance(newest)
                status.tokens_per_second = lanes.tokens_per_second
                for lane in lanes.lanes:
                    lane.tell()
        diagram.stage = ""
        status.tokens_per_second = lanes.tokens_per_second

    # The lanes' configurations.

    def action_edit(self, lane: int) -> None:
        from tui.dialogs.config_editor import ConfigEditor

        def accept(config: GenerationConfig | None) -> None:
            if config is not None:
                self.configs[lane] = config
                self.query_one(LanesPane).lanes[lane].configure(config)

        self.push_screen(ConfigEditor(NAMES[lane], self.configs[lane]), accept)

    # Timing.

    def on_timing_pane_sweep_requested(self, event: TimingPane.SweepRequested) -> None:
        if self._wait_for_model(lambda: self.query_one(TimingPane).request()):
            return
        self._job = self.lab.sweep(event.sweep, against_transformers=event.against_transformers)
        self.query_one(TimingPane).start(event.sweep, against_transformers=event.against_transformers)
        self._time(self._job)

    @work(group="run", exclusive=True)
    async def _time(self, job: Job[TimedRun | Loading]) -> None:
        pane = self.query_one(TimingPane)
        failed = False
        async for frame in job.frames(FRAME_SECONDS):
            pane.add([event for event in frame if isinstance(event, TimedRun)])
            for event in frame:
                if isinstance(event, Loading):
                    pane.prepare(event.note)
                elif isinstance(event, Failed):
                    failed = True
                    pane.fail(str(event.error))
        if not failed:
            pane.finish()

    # The rest.

    def action_view(self, by: int) -> None:
        """Go to the next or previous view."""
        views = self.query_one(TabbedContent)
        names = [str(pane.id) for pane in views.query(TabPane)]
        views.active = names[(names.index(views.active) + by) % len(names)]

    def action_help(self) -> None:
        from tui.dialogs.help import Help

        self.push_screen(Help())

    def _tell(self, error: Exception) -> None:
        if isinstance(error, LogitlabError):
            self.notify(str(error), severity="error", timeout=10, markup=False)
        elif os.environ.get("LOGITLAB_DEBUG"):
            raise error
        else:
            self.notify(f"unexpected {type(error).__name__}: {error}", severity="error", timeout=10, markup=False)
