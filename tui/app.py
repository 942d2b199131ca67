"""The lab on the screen: composition, keys, and where events go."""

import gc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on, work
from textual.app import ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen
from textual.theme import Theme
from textual.widgets import Input

from engine.base import settings
from engine.base.errors import InputError, LogitlabError
from engine.base.language import _
from engine.base.machine import processors
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Prompt
from engine.job import Job
from engine.lab import Lab
from engine.lessons.lesson import Lesson
from engine.models import catalog
from engine.sessions.session import Session
from engine.sessions.store import SessionFile
from tui import keymap
from tui.actions import NOT_IN_DIALOGS, bindings
from tui.actions.action import Where
from tui.lesson_driver import LessonDriver
from tui.model_loader import ModelLoader
from tui.palette import commands
from tui.panes.generate import GeneratePane
from tui.panes.lane_states import NAMES
from tui.panes.lesson import LessonPanel
from tui.panes.prompt import PromptPane
from tui.panes.prompt_area import PromptArea
from tui.panes.timing import TimingPane
from tui.panes.variants import VariantsPane
from tui.screens import LabScreen, take_size
from tui.session_keeper import SessionKeeper
from tui.style import motion
from tui.style.colours import css_variables
from tui.style.theme import THEMES
from tui.terminal.lasting import LastingApp
from tui.trouble import tell, tell_of_keys
from tui.widgets.footer import Footer
from tui.workbench import LEAST_SIZE, Workbench

if TYPE_CHECKING:
    from tui.dialogs.greeting import Greeting


class LogitlabApp(LastingApp[None], inherit_bindings=False):
    """Prompt → tokens → lanes → events → panes.

    Args:
        model, precision, device, threads, offline, cache_dir, kernels: what is loaded first, and how; see `Lab`.
        lesson, lesson_page, teacher: the lesson to open with; see `LessonDriver`.
        session: what the panes hold first.
        session_file: where changes are saved; a new file at the first change when `None`.
        greeting: shown once the lab is open.
        first: whether the lab is opened here for the first time, and introduces itself.
    """

    CSS_PATH = "app.tcss"
    TITLE = "logitlab"
    ENABLE_COMMAND_PALETTE = True
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (LEAST_SIZE[0], "-narrow"), (100, "-normal"), (150, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (LEAST_SIZE[1], "-low"), (32, "-tall"), (46, "-high")]

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("lab"),
        Binding("ctrl+c", "help_quit", show=False, system=True),
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
        kernels: str | None = None,
        lesson: Lesson | None = None,
        lesson_page: int | None = None,
        teacher: bool = False,
        session: Session | None = None,
        session_file: SessionFile | None = None,
        greeting: str = "",
        first: bool = False,
    ) -> None:
        super().__init__()
        self._first_model = model
        self._first_session = session or Session()
        self._greeting = greeting
        self._first = first
        self._opens_lesson = lesson is not None
        self._first_screen: Greeting | None = None
        self.lab = Lab(
            precision=precision,
            device=device,
            # The screen draws on one core while the network runs on the others.
            threads=threads or max(1, processors() - 1),
            offline=offline,
            cache_dir=cache_dir,
            kernels=kernels,
        )
        self.workbench = Workbench(self.lab, self._first_session)
        self.keeper = SessionKeeper(self.workbench, self.lab, session_file)
        self.loader = ModelLoader(self.workbench, self.lab, self.keeper, self._arrived)
        self.lesson = LessonDriver(
            self.workbench,
            self.lab,
            self.loader,
            run=lambda paused: self._generate(paused=paused),
            run_variants=lambda: self._run_variants(again=False),
            lesson=lesson,
            page=lesson_page,
            teacher=teacher,
        )
        keys, self._complaints = keymap.read()
        keymap.use(keys)
        self.set_keymap(keys.for_textual())
        for theme in THEMES:
            self.register_theme(theme)
        chosen = settings.load()
        self.theme = chosen.theme if chosen.theme in self.available_themes else THEMES[0].name
        motion.reduce(self, chosen.reduced_motion)

    # Composition.

    def run(self, *arguments: Any, **options: Any) -> Any:
        gc.freeze()  # what is imported stays: looking through it for garbage would hold up the first frame
        return super().run(*arguments, **options)

    def compose(self) -> ComposeResult:
        yield self.workbench
        yield Footer()

    def on_mount(self) -> None:
        self.workbench.prompt.focus()
        self.workbench.prompt_area.wait(_("the tokenizer is on its way…"))
        self.keeper.restore(self._first_session)
        if self._greeting:
            self.notify(self._greeting, markup=False)
        tell_of_keys(self, self._complaints)
        self.keeper.start()
        if self._opens_lesson:
            self.call_after_refresh(self.action_lesson)
        elif self._first:
            self.call_after_refresh(self._greet)
        self.call_after_refresh(self.loader.load, self._first_model)
        self.theme_changed_signal.subscribe(self, self._remember_theme)
        self.watch_terminal()

    def _greet(self) -> None:
        """Introduce the lab, once; not in front of somebody who has begun already."""
        if self.screen.has_class("teaching") or self.loader.waiting is not None or len(self.screen_stack) > 1:
            settings.change(greeted=True)
            return
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
        self._first_screen = Greeting(entry, self.workbench.prompt.insert)
        self.push_screen(self._first_screen, begin)

    def _arrived(self) -> None:
        """A model is there."""
        if self._first_screen is not None and self._first_screen in self.screen_stack:
            self._first_screen.arrive()

    def _remember_theme(self, theme: Theme) -> None:
        settings.change(theme=theme.name)

    def exit(self, *arguments: Any, **options: Any) -> None:
        """Leave, with the session saved while its panes are still there."""
        self.keeper.close()
        self.loader.close()
        super().exit(*arguments, **options)

    async def on_unmount(self) -> None:
        self.keeper.close()
        await self.lab.close()

    def refresh_css(self, animate: bool = True) -> None:
        if self.screen_stack:  # before, nothing has a style that a theme could change
            super().refresh_css(animate)

    def get_css_variables(self) -> dict[str, str]:
        self.theme_variables = css_variables(self, super().get_css_variables())
        return self.theme_variables

    def get_default_screen(self) -> Screen[Any]:
        self.stylesheet.set_variables(self.get_css_variables())  # those of this terminal, which is known now
        screen = LabScreen(id="_default")
        take_size(screen, self.size, self.HORIZONTAL_BREAKPOINTS or (), self.VERTICAL_BREAKPOINTS or ())
        return screen

    def action_command_palette(self) -> None:
        """Every action by name."""
        if self.use_command_palette and not CommandPalette.is_open(self):  # type: ignore[arg-type]
            self.push_screen(CommandPalette(id="--command-palette", placeholder=_("Search for an action…")))

    # Keys and the palette.

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        bench = self.workbench
        panes: dict[Where, DOMNode] = {
            "messages": bench.prompt_area.messages,
            "lanes": bench.generate,
            "inspector": bench.inspector,
        }
        yield from commands(self, panes)

    def action_reduce_motion(self) -> None:
        """Let nothing move, or everything again; remembered."""
        self.notify(motion.turn(self))

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        motion.settle(self, event.widget)

    def action_linear(self) -> None:
        """Each event as a line, in place of the views; or the views again."""
        self.workbench.toggle_linear()

    def possible(self, action: str) -> bool:
        """Whether an action can do something now."""
        bench = self.workbench
        match action:
            case "zoom":
                return isinstance(self.screen, LabScreen) and self.screen.can_zoom
            case "pause":
                return bench.generate.running
            case "stop":
                return self._busy
            case "go('inspector')":
                return bench.inspector.settings is not None and bench.inspector not in self._panes_in_focus
            case "go('prompt')":
                return bench.prompt is not self.focused
            case "go('a')" | "go('b')":
                return bench.generate.lanes["ab".index(action[4])] not in self._panes_in_focus
        return True

    @property
    def _panes_in_focus(self) -> Sequence[DOMNode]:
        return self.focused.ancestors_with_self if self.focused is not None else ()

    @property
    def _busy(self) -> bool:
        """Whether there is something to stop."""
        bench = self.workbench
        running = bench.generate.running or bench.variants.running or bench.timing.running or bench.inside.running
        return running or self.loader.loading or self.loader.waiting is not None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a dialog is open its own keys count; in the prompt esc leaves while there is nothing to stop."""
        if action == "stop" and isinstance(self.focused, PromptPane) and not self._busy:
            return False
        return not isinstance(self.screen, ModalScreen) or action not in NOT_IN_DIALOGS

    # Running.

    def action_run(self) -> None:
        view = self.workbench.view
        if view == "timing":
            self.workbench.timing.request()
        elif view == "prompts":
            self._run_variants(again=False)
        else:
            self._generate(paused=False)

    def action_zoom(self) -> None:
        if isinstance(self.screen, LabScreen):
            self.screen.zoom()

    def action_step(self) -> None:
        if not self.workbench.generate.step():
            self._generate(paused=True)

    def action_pause(self) -> None:
        self.workbench.generate.runs.toggle_pause()

    def action_pace(self) -> None:
        self.workbench.generate.next_pace()

    def action_stop(self) -> None:
        bench = self.workbench
        closed = bench.inspector.close_filter()
        if self.screen.maximized is not None and not closed and not self._busy:
            self.screen.minimize()
        elif not (
            closed or bench.generate.runs.stop() or bench.variants.stop() or bench.timing.stop() or bench.inside.stop()
        ):
            if self._busy:
                self.loader.stop()
            elif isinstance(self.focused, Input):
                bench.land()

    def _prompt(self) -> str | None:
        """The text to run, or a word that there is none."""
        text = self.workbench.prompt_area.text
        if not text:
            self.notify(_("The prompt is empty: type at least one character."), severity="warning")
        return text or None

    def _generate(self, *, paused: bool) -> None:
        try:
            self.workbench.prompt_area.check()
        except InputError as error:
            self.notify(str(error), severity="warning", markup=False)
            self.workbench.prompt.focus()
            return
        if self.workbench.view != "inside":  # which shows what comes of it
            self.workbench.view = "generate"
        if not self.loader.wait_for_model(lambda: self._generate(paused=paused)):
            self._begin_run(paused)

    @work(group="begin", exclusive=True)
    async def _begin_run(self, paused: bool) -> None:
        generate = self.workbench.generate
        try:
            starts = await self.workbench.prompt_area.starts(generate.configs)
        except LogitlabError as error:
            tell(self, error)
        else:
            generate.run(starts, paused=paused)

    def _run_variants(self, *, again: bool) -> None:
        text = self._prompt()
        if text is None or self.loader.wait_for_model(lambda: self._run_variants(again=again)):
            return

        def draw(prompts: Sequence[Prompt], configs: Sequence[GenerationConfig]) -> Job[Event]:
            return self.lab.generate(list(prompts), configs, candidates=1)

        chats = self.lab.tokenizer is None or self.lab.tokenizer.chats
        self.workbench.variants.run(text, self.workbench.generate.configs[1], draw, again=again, chats=chats)

    @on(VariantsPane.RunWanted)
    def _variants_wanted(self, event: VariantsPane.RunWanted) -> None:
        self._run_variants(again=event.again)

    @on(TimingPane.SweepRequested)
    def _sweep_wanted(self, event: TimingPane.SweepRequested) -> None:
        timing = self.workbench.timing
        if not self.loader.wait_for_model(timing.request):
            timing.measure(self.lab.sweep(event.sweep, precision=event.precision, threads=event.threads))

    @on(GeneratePane.Trouble)
    @on(PromptArea.Trouble)
    def _tell(self, event: GeneratePane.Trouble | PromptArea.Trouble) -> None:
        tell(self, event.error)

    @on(GeneratePane.Configured)
    def _fit_models(self) -> None:
        self.loader.fit_lanes()

    @on(GeneratePane.Loads)
    def _show_loading(self, event: GeneratePane.Loads) -> None:
        self.workbench.status.progress = event.progress
        if event.progress is None:
            self.workbench.follow()

    # The lesson.

    async def action_lesson(self) -> None:
        await self.lesson.toggle()

    @on(LessonPanel.LiveWanted)
    def _do_live(self, event: LessonPanel.LiveWanted) -> None:
        self.lesson.do(event.live)

    @on(LessonPanel.AnswerWanted)
    def _answer(self, event: LessonPanel.AnswerWanted) -> None:
        self.lesson.answer(event)

    @on(GeneratePane.SpeedChanged)
    @on(GeneratePane.Written)
    @on(PromptArea.Tokenized)
    def _look(self) -> None:
        self.lesson.look()

    # Views and dialogs. These are imported when they are opened: the first frame does not wait for them.

    def action_view(self, by: int) -> None:
        self.workbench.turn(by)

    def action_open(self, view: str) -> None:
        self.workbench.view = view
        self.workbench.land()

    def action_go(self, place: str) -> None:
        self.workbench.go(place)

    def action_chat(self) -> None:
        self.workbench.prompt_area.toggle_conversation()

    def action_choose_model(self) -> None:
        from tui.dialogs.model_picker import ModelPicker

        def accept(name: str | None) -> None:
            if name:
                self.loader.load(name)

        facts = self.lab.facts
        in_memory = facts is None or facts.device == "cpu"
        self.push_screen(ModelPicker(facts.name if facts else None, self.lab.cache_dir, in_memory=in_memory), accept)

    def action_edit(self, lane: int) -> None:
        from tui.dialogs.config_editor import ConfigEditor
        from tui.dialogs.model_picker import ModelPicker

        def accept(config: GenerationConfig | None) -> None:
            if config is not None:
                pane.configure(lane, config)
                self.loader.remark_lanes()

        pane = self.workbench.generate
        config, facts = pane.configs[lane], self.lab.facts

        def pick(chosen: Callable[[str | None], None]) -> None:
            in_memory = facts is None or facts.device == "cpu"
            named = config.model or (facts.name if facts else None)
            self.push_screen(ModelPicker(named, self.lab.cache_dir, in_memory=in_memory), chosen)

        self.push_screen(ConfigEditor(NAMES[lane], config, self.lab.model_of(config), pick), accept)

    def action_sessions(self) -> None:
        self.keeper.choose(self.loader.load)

    def action_export(self) -> None:
        from tui.dialogs.export import ExportDialog
        from tui.exports import exportables

        def accept(done: str | None) -> None:
            if done:
                self.notify(done, markup=False)

        items = exportables(self.workbench, self.lab.tokenizer, self.keeper.gather())
        self.push_screen(ExportDialog(items), accept)

    def action_help(self) -> None:
        from tui.dialogs.help import Help

        focused = self.focused
        self.push_screen(Help([str(one.id) for one in focused.ancestors_with_self] if focused is not None else ()))

    def action_key_sheet(self) -> None:
        """The keys of the pane that has the focus, and the lab's."""
        from tui.dialogs.key_sheet import KeySheet, panes_of

        self.push_screen(KeySheet(panes_of(binding.id for _node, binding, *_ in self.screen.active_bindings.values())))
