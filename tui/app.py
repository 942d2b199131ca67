"""The lab on the screen: composition, keys, and where events go."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.containers import Horizontal, Vertical
from textual.filter import LineFilter
from textual.screen import ModalScreen, Screen
from textual.theme import Theme
from textual.widgets import Footer, Static, TabbedContent, TabPane

from engine.base import language, log, settings
from engine.base.errors import LogitlabError
from engine.base.language import N_, _
from engine.base.machine import processors
from engine.generation.config import PRESETS, GenerationConfig
from engine.generation.events import Event, Failed
from engine.job import Job
from engine.lab import Lab
from engine.lessons.lesson import Lesson, Live, Question, builtin, read_lesson
from engine.models import catalog
from engine.models.local import other_tokenizers
from engine.models.model import ModelFacts
from engine.models.progress import Loading, ModelLoaded, TokenizerLoaded
from engine.sessions.session import Session, SessionModel
from engine.sessions.store import SessionFile
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer
from engine.timing.measurement import Measurement
from engine.timing.sweep import TimedRun
from tui import lesson_driver
from tui.panes.generate import GeneratePane
from tui.panes.inspector import Inspector
from tui.panes.lanes import NAMES
from tui.panes.lesson import LessonPanel
from tui.panes.loop_diagram import LoopDiagram
from tui.panes.prompt import PromptPane
from tui.panes.prompts import PromptsPane
from tui.panes.status import StatusLine
from tui.panes.timing import TimingPane
from tui.panes.tokens import TokensPane, TokenTable
from tui.panes.variants import VariantsPane
from tui.screens import Dialog, LabScreen
from tui.session_keeper import SessionKeeper
from tui.style.colours import LANE_B_OF_16, few_colours
from tui.style.theme import THEMES
from tui.terminal.driver import is_there, terminal_driver
from tui.terminal.harmless import Harmless

if TYPE_CHECKING:
    from engine.generation.score import Scored
    from engine.lessons.questions import Answer
    from tui.dialogs.greeting import Greeting

FRAME_SECONDS = 1 / 20
WATCH_SECONDS = 1.0
HARMLESS = Harmless()
HANGUP = 1  # the signal, where there is one
# Columns and rows below which the panes would show nothing of use.
LEAST_SIZE = (60, 16)
LAB_ACTIONS = {
    *("run", "step", "pause", "pace", "stop", "edit", "choose_model", "chat", "help", "view"),
    *("sessions", "export", "lesson"),
}
# Longer prompts are not scored: every position's scores over the vocabulary take a product of their own.
SCORED_TOKENS = 1_000
# Longer prompts are cut into tokens beside the event loop, so that typing stays fluent.
TOKENIZE_AT_ONCE = 4_000


# What the palette calls each action.
ACTIONS = {
    "run": N_("Run both lanes"),
    "step": N_("One step of each lane"),
    "pause": N_("Pause, or go on"),
    "pace": N_("Change the pace"),
    "stop": N_("Stop"),
    "edit(0)": N_("Edit lane A"),
    "edit(1)": N_("Edit lane B"),
    "choose_model": N_("Choose the model"),
    "chat": N_("Wrap the prompt in the chat template"),
    "view(1)": N_("Next view"),
    "export": N_("Export what is on the screen: Markdown, JSON, CSV, SVG"),
    "lesson": N_("Lesson: open it, go to it, close it"),
    "sessions": N_("Sessions: open another, or begin a new one"),
    "branch": N_("Branch: go on from the token under the cursor with any text"),
    "branches": N_("Branches of the lane"),
    "sample_many": N_("Sample many continuations"),
    "colour": N_("Colour tokens by the next measure"),
    "lock": N_("Move both cursors together, or not"),
    "inspector": N_("Show or hide the inspector"),
    "undo": N_("Undo"),
    "redo": N_("Redo"),
    "stage(1)": N_("Next stage in the inspector"),
    "apply": N_("Use the inspector's settings for the lane"),
    "reset": N_("Inspector: back to how the step ran"),
    "filter": N_("Find a token by text or id"),
    "ban": N_("Ban the candidate, or allow it again"),
    "bias(1)": N_("Favour the candidate"),
    "bias(-1)": N_("Disfavour the candidate"),
}


class LogitlabApp(App[None], inherit_bindings=False):
    """Prompt → tokens → lanes → events → panes."""

    CSS_PATH = "app.tcss"
    TITLE = "logitlab"
    ENABLE_COMMAND_PALETTE = True
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (LEAST_SIZE[0], "-narrow"), (100, "-normal"), (150, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (LEAST_SIZE[1], "-low"), (32, "-tall"), (46, "-high")]

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5", "run", "run", key_display="F5", priority=True),
        Binding("ctrl+r", "run", "run", show=False, priority=True),
        Binding("f6", "step", "step", key_display="F6", priority=True),
        Binding("f7", "pause", "pause", key_display="F7", priority=True),
        Binding("escape", "stop", "stop", key_display="esc", priority=True),
        Binding("f8", "view(1)", "view", key_display="F8", priority=True),
        Binding("f1", "help", "help", key_display="F1", priority=True),
        Binding("ctrl+q", "quit", "quit", key_display="^q", priority=True),
        Binding("ctrl+l", "lesson", "lesson", key_display="^l", priority=True),
        Binding("f2", "choose_model", "model", key_display="F2", priority=True),
        Binding("f3", "edit(0)", "edit A", key_display="F3", priority=True),
        Binding("f4", "edit(1)", "edit B", key_display="F4", priority=True),
        Binding("f9", "pace", "pace", key_display="F9", priority=True),
        Binding("ctrl+s", "export", "export", key_display="^s", priority=True),
        Binding("ctrl+o", "sessions", "sessions", key_display="^o", priority=True),
        Binding("ctrl+t", "chat", "chat", key_display="^t", priority=True),
        Binding("ctrl+pagedown", "view(1)", show=False, priority=True),
        Binding("ctrl+pageup", "view(-1)", show=False, priority=True),
        Binding("ctrl+c", "help_quit", show=False, system=True),
        # With priority, so that what is typed right after a tab goes where the tab went.
        Binding("tab", "app.focus_next", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", show=False, priority=True),
    ]

    def __init__(
        self,
        *,
        model: str | None = None,
        precision: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        offline: bool = False,
        cache_dir: Path | None = None,
        lesson: Lesson | None = None,
        lesson_page: int | None = None,
        teacher: bool = False,
        session: Session | None = None,
        session_file: SessionFile | None = None,
        greeting: str = "",
        first: bool = False,
    ) -> None:
        super().__init__(driver_class=terminal_driver(self._lost, self._awake))
        self._loop: asyncio.AbstractEventLoop | None = None
        self.crash: Exception | None = None  # what nobody expected, and the lab ended of
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
        self.prompt_tokens: Sequence[Token] = ()
        self._tokenized: tuple[str, bool] | None = None  # the text and whether in the chat template
        self.chat = False
        self.session_model: SessionModel | None = None  # what the branches were written with
        self._first_session = session or Session()
        self._keeper = SessionKeeper(self, session_file)
        self._greeting = greeting
        self._first = first  # nobody has opened the lab here yet
        self._lesson = lesson
        self._lesson_page = lesson_page
        self._teacher = teacher
        self._live: Live | None = None  # of the lesson: where the cursor is to go once there is something
        self._live_from = 0  # and the run has begun that writes it
        self._first_screen: Greeting | None = None
        self._sweep: Job[Measurement | TimedRun | Loading] | None = None
        self._scoring: Job[Scored] | None = None
        self._loading = True
        self._leaving = False
        self._waiting: Callable[[], None] | None = None  # a run asked for before there is a model
        for theme in THEMES:
            self.register_theme(theme)
        chosen = settings.load().theme
        self.theme = chosen if chosen in self.available_themes else THEMES[0].name

    # Composition.

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        columns, rows = LEAST_SIZE
        yield Static(
            _("The lab needs {columns}×{rows}.\nMake the terminal larger;\nctrl+q leaves.", columns=columns, rows=rows),
            id="too-small",
        )
        with Horizontal(id="bench"):
            with Vertical(id="lab"):
                yield PromptPane(self._first_session.prompt)
                yield TokensPane()
                with TabbedContent(id="views"):
                    with TabPane(_("Generate"), id="generate-tab"):
                        yield GeneratePane([lane.config for lane in self._first_session.lanes])
                    with TabPane(_("Tokens"), id="tokens-tab"):
                        yield TokenTable()
                    with TabPane(_("Prompts"), id="prompts-tab"):
                        yield PromptsPane()
                    with TabPane(_("Timing"), id="timing-tab"):
                        yield TimingPane()
            yield LessonPanel()
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.lab = Lab(**self._lab_options)  # type: ignore[arg-type]
        self.query_one(GeneratePane).lab = self.lab
        self.query_one(PromptPane).focus()
        self.query_one(TokensPane).wait(_("the tokenizer is on its way…"))
        self._keeper.restore(self._first_session)
        self._title_prompt()
        if self._greeting:
            self.notify(self._greeting, markup=False)
        self._keeper.start()
        if self._lesson is not None:
            self.call_after_refresh(self.action_lesson)
        elif self._first:
            self.call_after_refresh(self._greet)
        self.call_after_refresh(self._load, self._first_model)
        self.theme_changed_signal.subscribe(self, self._remember_theme)
        self._loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                number = getattr(signal, name)
                self._loop.add_signal_handler(number, self._leave, number)
        if not self.is_headless:
            self.set_interval(WATCH_SECONDS, self._watch_terminal)

    def _greet(self) -> None:
        """Introduce the lab, once."""
        from tui.dialogs.greeting import Greeting, Wish

        async def begin(wish: Wish | None) -> None:
            settings.change(greeted=True)
            match wish:
                case "run":
                    self.action_run()
                case "lesson":
                    await self.action_lesson()
                case "help":
                    self.action_help()

        entry = catalog.find(self._first_model or catalog.default_name(), self.lab.cache_dir)
        self._first_screen = Greeting(entry, self.query_one(PromptPane).insert)
        self.push_screen(self._first_screen, begin)

    def _remember_theme(self, theme: Theme) -> None:
        settings.change(theme=theme.name)

    def _lost(self) -> None:
        """The terminal cannot be written to any more; called by the thread that writes."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._leave, HANGUP)

    def _awake(self) -> None:
        """The terminal takes something again, after some was dropped; called by a thread that waited for it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: self.refresh(layout=True))

    def _watch_terminal(self) -> None:
        """Whoever closes a terminal does not always say so."""
        if not is_there():
            self._leave(HANGUP)

    def _leave(self, number: int) -> None:
        """Told to go: restore the terminal and end with the code shells expect."""
        if not self._leaving:
            self.exit(return_code=128 + number)

    def _handle_exception(self, error: Exception) -> None:
        """Something nobody expected: save the session, write it down, and leave the terminal whole.

        Textual's own way is to print all it knows, the prompt among it; `--debug` and tests go that way.
        """
        log.crash(error)
        if os.environ.get("LOGITLAB_DEBUG") or self.is_headless:
            super()._handle_exception(error)
            return
        if self.crash is None:
            self.crash = error
            self.exit(return_code=1)

    def exit(self, *arguments: Any, **options: Any) -> None:
        """Leave, with the session saved while its panes are still there."""
        self._keeper.close()
        self._leaving = True
        self.workers.cancel_all()  # what goes on would look for panes that are gone
        super().exit(*arguments, **options)

    async def on_unmount(self) -> None:
        self._keeper.close()
        await self.lab.close()

    def get_css_variables(self) -> dict[str, str]:
        variables = super().get_css_variables()
        if few_colours(self) and not self.current_theme.dark:
            variables["lane-b"] = LANE_B_OF_16  # orange's nearest is yellow, which no one can read on white
        return variables

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), HARMLESS]

    def get_default_screen(self) -> Screen[Any]:
        return LabScreen(id="_default")

    def action_command_palette(self) -> None:
        """Every action by name."""
        if self.use_command_palette and not CommandPalette.is_open(self):  # type: ignore[arg-type]
            self.push_screen(CommandPalette(id="--command-palette", placeholder=_("Search for an action…")))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Every action by name, with its key: of the lab, of the lanes and of the inspector."""
        yield SystemCommand(
            _("Theme"), _("colours: dark, light, high contrast, safe for colour blindness"), self.search_themes
        )
        yield SystemCommand(_("Help"), _("key {key}", key="F1"), self.action_help)
        yield SystemCommand(_("Quit"), _("key {key}", key="^q"), self.action_quit)
        for where in (self, self.query_one(GeneratePane), self.query_one(Inspector)):
            keys = {binding.action: binding.key_display or key for key, binding in reversed(list(where._bindings))}
            for action, key in keys.items():
                if name := ACTIONS.get(action):
                    yield SystemCommand(_(name), _("key {key}", key=key), partial(self.run_action, action, where))

    def possible(self, action: str) -> bool:
        """Whether an action can do something now."""
        if action == "pause":
            return self.query_one(GeneratePane).running
        return action != "stop" or self._busy

    @property
    def _busy(self) -> bool:
        """Whether there is something to stop."""
        sweeping = self._sweep is not None and not self._sweep.done
        runs = self.query_one(GeneratePane).running or self.query_one(VariantsPane).running
        return self._loading or self._waiting is not None or sweeping or runs

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a dialog is open its own keys count."""
        return not isinstance(self.screen, ModalScreen) or action not in LAB_ACTIONS

    # The model.

    @work(group="load", exclusive=True)
    async def _load(self, name: str | None) -> None:
        if self._leaving:
            return
        status = self.query_one(StatusLine)
        self._loading = True
        self.refresh_bindings()
        status.message = ""
        status.progress = Loading("fetch", 0, 0, name or "")
        async for frame in self.lab.load(name).frames(FRAME_SECONDS):
            for event in frame:
                match event:
                    case Loading():
                        status.progress = event
                    case TokenizerLoaded():
                        self._tokenize()
                        self.query_one(PromptsPane).use(name or catalog.default_name(), event.tokenizer)
                    case ModelLoaded():
                        await self._welcome(event.facts)
                        if self._first_screen is not None and self._first_screen in self.screen_stack:
                            self._first_screen.arrive()
                        status.facts = event.facts
                        diagram = self.query_one(LoopDiagram)
                        diagram.vocabulary_size = event.facts.vocabulary_size
                        diagram.hidden_size = event.facts.hidden_size
                        self.query_one(GeneratePane).look_again()
                        self._tokenize()
                        self._end_loading()
                    case Failed():
                        self._tell(event.error)
                        if self.lab.facts is None:
                            status.message = _("no model: ") + str(event.error)
                            self.query_one(TokensPane).wait(_("no tokenizer yet: F2 chooses a model"))
        self._end_loading()

    async def _welcome(self, facts: ModelFacts) -> None:
        """A model is there: what another one wrote stays in its session, for its tokens are others."""
        before = self.session_model
        if before is not None and before.identity != facts.identity:
            pane = self.query_one(GeneratePane)
            if any(tree.branches for tree in pane.trees):
                await self._keeper.begin_anew()
            pane.begin_anew()
        self.session_model = SessionModel.of(facts)
        self._fit_lanes()

    def _fit_lanes(self) -> None:
        """Settings that a server does not know are put aside for some that it does, and that is said."""
        told, pane = self.lab.capabilities, self.query_one(GeneratePane)
        self.query_one(TimingPane).serve(told if told is not None and not told.network else None)
        if told is None:
            return
        for lane, config in enumerate(pane.configs):
            try:
                told.check(config)
            except LogitlabError as error:
                length = config.max_new_tokens
                fit = replace(PRESETS["greedy" if lane == 0 else "sampled"], temperature=1.0, max_new_tokens=length)
                pane.configure(lane, fit)
                said = _("Lane {lane} is set to {name}: {error}", lane=NAMES[lane], name=fit.name, error=error)
                self.notify(said, severity="warning", markup=False, timeout=10)

    def _end_loading(self) -> None:
        """The model is there, or will not be: start the run that waited for it, if there is one to run."""
        self.query_one(StatusLine).progress = None
        if isinstance(self.screen, Dialog):  # Textual draws the last change beneath a dialog with the next one
            self.call_after_refresh(self.screen.refresh)
        self._loading = False
        self.refresh_bindings()
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
        if self.chat and not tokenizer.chats:  # the model is another one
            self.action_chat()
            self.notify(_("This model has no chat template: the prompt goes as it is."))
        elif len(text) <= TOKENIZE_AT_ONCE and not tokenizer.remote:
            try:
                self._show_tokens(text, self._encoded(tokenizer, text))
            except LogitlabError as error:
                self.query_one(TokensPane).wait(str(error))
        else:
            self._tokenize_aside(text)

    def _encoded(self, tokenizer: Tokenizer, text: str) -> Sequence[Token]:
        """The prompt's tokens: of the text as it is, or in the chat template. Raises `InputError`."""
        return tokenizer.encode_chat(text) if self.chat and text else tokenizer.encode(text)

    @work(group="tokenize", exclusive=True)
    async def _tokenize_aside(self, text: str) -> None:
        tokenizer = self.lab.tokenizer
        if tokenizer is None:
            return
        try:
            tokens = await asyncio.to_thread(self._encoded, tokenizer, text)
        except LogitlabError as error:
            self.query_one(TokensPane).wait(str(error))
            return
        if text == self.query_one(PromptPane).text:
            self._show_tokens(text, tokens)

    def _show_tokens(self, text: str, tokens: Sequence[Token]) -> None:
        self.prompt_tokens, self._tokenized = tokens, (text, self.chat)
        facts = self.lab.facts
        uncut = self.lab.tokenizer is not None and not self.lab.tokenizer.cuts
        self.query_one(TokensPane).show(tokens, text, facts.context_length if facts else None, uncut=uncut)
        self.query_one(TokenTable).show(tokens)
        self._look()
        self._score_prompt()

    @property
    def tokenized(self) -> str | None:
        """The text whose tokens are shown."""
        return self._tokenized[0] if self._tokenized is not None else None

    def action_chat(self) -> None:
        """Give the prompt to the model as it is, or as a message in its chat template."""
        tokenizer = self.lab.tokenizer
        if not self.chat and (tokenizer is None or not tokenizer.chats):
            self.notify(_("This model has no chat template: F2 chooses another."), severity="warning")
            return
        self.chat = not self.chat
        self._title_prompt()
        self._tokenize()

    def _title_prompt(self) -> None:
        title = _("Prompt · as a message in the chat template") if self.chat else _("Prompt")
        self.query_one(PromptPane).border_title = title

    def _score_prompt(self) -> None:
        """While colours tell of surprise, the prompt's tokens are scored too."""
        if self._scoring is not None:
            self._scoring.cancel()
        tokens = self.prompt_tokens
        wanted = self.query_one(GeneratePane).mode != "tokens" and self.lab.facts is not None and len(tokens) > 1
        told = self.lab.capabilities
        if wanted and told is not None and not told.prompt_scores:
            self.query_one(TokensPane).leave_unjudged(_("this server does not score prompts"))
        elif wanted and len(tokens) <= SCORED_TOKENS:
            self._scoring = self.lab.score(tokens)
            self._follow_scores(self._scoring)

    @work(group="score", exclusive=True)
    async def _follow_scores(self, job: "Job[Scored]") -> None:
        scores: list[Scored] = []
        async for frame in job.frames(FRAME_SECONDS):
            for event in frame:
                if isinstance(event, Failed):
                    self._tell(event.error)
                else:
                    scores.append(event)
        if not job.cancelled:
            self.query_one(TokensPane).judge(scores)

    def on_generate_pane_coloured(self, event: GeneratePane.Coloured) -> None:
        self.query_one(TokensPane).colour(event.mode)
        self._score_prompt()

    def on_tokens_pane_colour_wanted(self, event: TokensPane.ColourWanted) -> None:
        self.query_one(GeneratePane).action_colour()

    def on_tokens_pane_pointed(self, event: TokensPane.Pointed) -> None:
        self.query_one(TokensPane).point(event.position)
        self.query_one(TokenTable).point(event.position)

    # Running.

    def action_run(self) -> None:
        view = self.query_one(TabbedContent).active
        if view == "timing-tab":
            self.query_one(TimingPane).request()
        elif view == "prompts-tab":
            self._run_variants(again=False)
        else:
            self._generate(paused=False)

    def action_step(self) -> None:
        if not self.query_one(GeneratePane).step():
            self._generate(paused=True)

    def action_pause(self) -> None:
        self.query_one(GeneratePane).toggle_pause()

    def action_pace(self) -> None:
        self.query_one(GeneratePane).next_pace()

    def action_stop(self) -> None:
        pane = self.query_one(GeneratePane)
        if pane.close_filter() or pane.stop() or self.query_one(VariantsPane).stop():
            return
        if self._sweep is not None and not self._sweep.done:
            self._sweep.cancel()
        elif self._waiting is not None:
            self._waiting = None
            self.refresh_bindings()
            self.notify(_("The run will not start."))
        elif self._loading:
            self.lab.cancel_loading()

    def _generate(self, *, paused: bool) -> None:
        text = self.query_one(PromptPane).text
        if not text:
            self.notify(_("The prompt is empty: type at least one character."), severity="warning")
            self.query_one(PromptPane).focus()
            return
        self.query_one(TabbedContent).active = "generate-tab"
        if not self._wait_for_model(lambda: self._generate(paused=paused)):
            self._begin_run(text, paused)

    @work(group="begin", exclusive=True)
    async def _begin_run(self, text: str, paused: bool) -> None:
        tokens = self.prompt_tokens
        if self._tokenized != (text, self.chat):
            assert self.lab.tokenizer is not None
            try:
                tokens = await asyncio.to_thread(self._encoded, self.lab.tokenizer, text)
            except LogitlabError as error:
                self._tell(error)
                return
        self.query_one(GeneratePane).run(tokens, paused=paused)

    def on_generate_pane_speed_changed(self, event: GeneratePane.SpeedChanged) -> None:
        self._look()
        self.query_one(StatusLine).tokens_per_second = event.tokens_per_second

    def on_generate_pane_trouble(self, event: GeneratePane.Trouble) -> None:
        self._tell(event.error)

    def _wait_for_model(self, run: Callable[[], None]) -> bool:
        """Whether there is no model yet; then `run` begins as soon as there is one."""
        if self._loading:
            self._waiting = run
            self.refresh_bindings()
            self.notify(_("The run starts as soon as the model is ready."))
        elif self.lab.facts is None:
            self.notify(_("There is no model: F2 chooses one."), severity="warning")
        else:
            return False
        return True

    # The lanes' configurations.

    def action_edit(self, lane: int) -> None:
        from tui.dialogs.config_editor import ConfigEditor

        def accept(config: GenerationConfig | None) -> None:
            if config is not None:
                pane.configure(lane, config)

        pane = self.query_one(GeneratePane)
        self.push_screen(ConfigEditor(NAMES[lane], pane.configs[lane], self.lab.capabilities), accept)

    # Prompts and their variants.

    def on_prompts_pane_wanted(self, event: PromptsPane.Wanted) -> None:
        self.query_one(PromptPane).show(event.text)
        self.notify(_("It is the prompt now: F8 goes on to Generate."))

    def on_prompts_pane_tokenizers_wanted(self, event: PromptsPane.TokenizersWanted) -> None:
        self._find_tokenizers()

    @work(group="tokenizers", exclusive=True)
    async def _find_tokenizers(self) -> None:
        """The tokenizers of the other models in the cache."""
        facts = self.lab.facts
        present = facts.name if facts is not None else ""
        found = await asyncio.to_thread(other_tokenizers, present, self.lab.cache_dir)
        self.query_one(PromptsPane).count_beside(found)
        if not found:
            self.notify(_("No other model is in the cache: F2, or logitlab models get gpt2, brings another tokenizer."))

    def on_variants_pane_run_wanted(self, event: VariantsPane.RunWanted) -> None:
        self._run_variants(again=event.again)

    def _run_variants(self, *, again: bool) -> None:
        text = self.query_one(PromptPane).text
        if not text:
            self.notify(_("The prompt is empty: type at least one character."), severity="warning")
            return
        if self._wait_for_model(lambda: self._run_variants(again=again)):
            return

        def draw(prompts: Sequence[str], configs: Sequence[GenerationConfig]) -> Job[Event]:
            return self.lab.generate(list(prompts), configs, candidates=1)

        self.query_one(VariantsPane).run(text, self.query_one(GeneratePane).configs[1], draw, again=again)

    def on_generate_pane_configured(self, event: GeneratePane.Configured) -> None:
        self.query_one(VariantsPane).describe(event.configs[1])

    # Sessions.

    def action_sessions(self) -> None:
        from tui.dialogs.sessions import SessionsDialog

        def accept(name: str | None) -> None:
            if name is not None:
                self._open_session(name)

        self.push_screen(SessionsDialog(self._keeper.name), accept)

    @work(group="session", exclusive=True)
    async def _open_session(self, name: str) -> None:
        """Go on with another session; a new one for an empty name."""
        from engine.sessions import store as sessions

        try:
            file, opened = sessions.open_listed(sessions.find(name)) if name else (None, Session())
        except LogitlabError as error:
            self._tell(error)
            return
        await self._keeper.switch(file, opened)
        self._title_prompt()
        self._tokenize()
        facts = self.lab.facts
        if opened.model is None and facts is not None:
            self.session_model = SessionModel.of(facts)
        elif opened.model is not None and (facts is None or facts.identity != opened.model.identity):
            self._load(opened.model.name)
        self.notify(_("A new session.") if not name else _("The session is open; the one before is saved."))

    # The lesson.

    async def action_lesson(self) -> None:
        """Open the lesson beside the lab, go to it, or close it."""
        panel = self.query_one(LessonPanel)
        showing = self.screen.has_class("teaching")
        if showing and (self.focused is None or panel not in self.focused.ancestors) and not self._narrow:
            panel.query_one("#lesson-choices").focus()
            return
        self.screen.set_class(not showing, "teaching")
        if showing:
            self.query_one(PromptPane).focus()
            return
        self.screen.set_focus(None)  # what is typed before the page is there is no longer meant for the prompt
        if panel.lesson is None:
            try:
                lesson = self._lesson or read_lesson(builtin(language.current(), otherwise=language.SOURCE))
            except LogitlabError as error:
                self._tell(error)
                return
            await panel.open(lesson, self._lesson_page, teacher=self._teacher)
        else:
            panel.query_one("#lesson-next").focus()

    @property
    def _narrow(self) -> bool:
        """Whether there is room for the lab or the lesson, not for both."""
        return self.size.width < 100

    def on_lesson_panel_live_wanted(self, event: LessonPanel.LiveWanted) -> None:
        live = event.live
        lesson_driver.prepare(self, live)
        if self._narrow:
            self.screen.remove_class("teaching")
            self.notify(_("ctrl+l goes back to the lesson."))
        if live.run in ("lanes", "step"):
            self._generate(paused=live.run == "step")
        elif live.run == "variants":
            self._run_variants(again=False)
        elif live.run == "timing":
            self.query_one(TimingPane).request()
        self._live = live
        self._live_from = self.query_one(GeneratePane).begun + (live.run in ("lanes", "step"))
        self.call_after_refresh(self._look)

    def _look(self) -> None:
        """Put the cursor where the lesson wants it, as soon as that is there."""
        live = self._live
        begun = self.query_one(GeneratePane).begun >= self._live_from
        if live is not None and begun and not self._waiting and lesson_driver.look(self, live):
            self._live = None

    def on_lesson_panel_answer_wanted(self, event: LessonPanel.AnswerWanted) -> None:
        panel = self.query_one(LessonPanel)
        if self._loading or self.lab.facts is None:
            waits = self._wait_for_model(lambda: self.on_lesson_panel_answer_wanted(event))
            panel.fail(
                _("waiting for the model…") if self._loading and waits else _("There is no model: F2 chooses one.")
            )
            return
        self._answer(event.question, self.lab.answer(event.question, event.live))

    @work(group="answer", exclusive=True)
    async def _answer(self, question: Question, job: "Job[Answer]") -> None:
        panel = self.query_one(LessonPanel)
        async for found in job:
            if isinstance(found, Failed):
                panel.fail(str(found.error))
            else:
                panel.tell(question, found)

    # Taking results home.

    def action_export(self) -> None:
        from tui.dialogs.export import ExportDialog
        from tui.exports import exportables

        def told(done: str | None) -> None:
            if done:
                self.notify(done, markup=False)

        items = exportables(self, self._keeper.gather(), self.query_one(TabbedContent).active)
        self.push_screen(ExportDialog(items), told)

    # Timing.

    def on_timing_pane_sweep_requested(self, event: TimingPane.SweepRequested) -> None:
        if self._wait_for_model(lambda: self.query_one(TimingPane).request()):
            return
        self._sweep = self.lab.sweep(event.sweep, precision=event.precision, threads=event.threads)
        self.query_one(TimingPane).prepare(_("the warm-up runs"))
        self.refresh_bindings()
        self._time(self._sweep)

    @work(group="sweep", exclusive=True)
    async def _time(self, job: Job[Measurement | TimedRun | Loading]) -> None:
        pane = self.query_one(TimingPane)
        async for frame in job.frames(FRAME_SECONDS):
            for event in frame:
                match event:
                    case Loading():
                        pane.prepare(event.note)
                    case Measurement():
                        pane.start(event)
                    case Failed():
                        pane.fail(str(event.error))
            pane.add([event for event in frame if isinstance(event, TimedRun)])
        pane.finish()
        self.refresh_bindings()

    # The rest.

    def action_view(self, by: int) -> None:
        """Go to the next or previous view."""
        views = self.query_one(TabbedContent)
        names = [str(pane.id) for pane in views.query(TabPane)]
        views.active = names[(names.index(views.active) + by) % len(names)]

    def on_tabbed_content_tab_activated(self, event: TabbedContent.TabActivated) -> None:
        event.stop()
        self.screen.set_class(event.pane.id in ("prompts-tab", "timing-tab"), "elsewhere")

    def action_help(self) -> None:
        from tui.dialogs.help import Help

        self.push_screen(Help([str(one.id) for one in self.focused.ancestors_with_self] if self.focused else ()))

    def _tell(self, error: Exception) -> None:
        if isinstance(error, LogitlabError):
            self.notify(str(error), severity="error", timeout=10, markup=False)
        elif os.environ.get("LOGITLAB_DEBUG"):
            raise error
        else:
            self.notify(
                _("unexpected {name}: {error}", name=type(error).__name__, error=error),
                severity="error",
                timeout=10,
                markup=False,
            )
