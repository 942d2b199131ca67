"""The lesson: opens and closes it, does its live parts with the real panes, and asks the model its questions."""

from collections.abc import Callable

from textual.widget import Widget

from engine.base import language
from engine.base.errors import InputError, LogitlabError
from engine.base.language import _
from engine.generation.events import Failed
from engine.job import Job
from engine.lab import Lab
from engine.lessons.lesson import PICTURES, Answer, Lesson, Live, Question, builtin, read_lesson, settings
from tui import keymap
from tui.background import in_background
from tui.model_loader import ModelLoader
from tui.panes.lesson import LessonPanel
from tui.sentences import sentence
from tui.trouble import tell
from tui.workbench import Workbench


class LessonDriver:
    """What the lesson does to the lab.

    Args:
        run: runs the lanes; paused for step by step.
        run_variants: runs the variants of the prompt.
        lesson: the one to open; by default the lab's own, in the language in use.
        page: the one to begin with; by default where it was left.
        teacher: one paragraph at a time, in a wider panel.
    """

    def __init__(
        self,
        workbench: Workbench,
        lab: Lab,
        loader: ModelLoader,
        *,
        run: Callable[[bool], object],
        run_variants: Callable[[], object],
        lesson: Lesson | None,
        page: int | None,
        teacher: bool,
    ) -> None:
        self._workbench = workbench
        self._lab = lab
        self._loader = loader
        self._run = run
        self._run_variants = run_variants
        self._lesson = lesson
        self._page = page
        self._teacher = teacher
        self._live_from = 0  # the run that writes what the cursor is to go to
        self._leads = True  # whether the focus goes with the cursor: nobody turned to something else meanwhile
        self._text = ""  # of the prompt then
        self.live: Live | None = None  # done, but the cursor is still to go where it wants it

    async def toggle(self) -> None:
        """Open the lesson beside the lab, go to it, or close it."""
        bench, screen = self._workbench, self._workbench.screen
        panel = bench.lesson
        self._leads = False
        showing = screen.has_class("teaching")
        elsewhere = screen.focused is None or panel not in screen.focused.ancestors
        if showing and elsewhere and panel.lesson is not None and not bench.is_narrow:
            panel.query_one("#lesson-choices").focus()
            return
        screen.set_class(not showing, "teaching")
        if showing:
            bench.prompt.focus()
            return
        screen.set_focus(None)  # what is typed before the page is there is no longer meant for the prompt
        if panel.lesson is not None:
            panel.query_one("#lesson-next").focus()
            return
        try:
            lesson = self._lesson or self._built_in()
        except LogitlabError as error:
            tell(bench.app, error)
            return
        await panel.open(lesson, self._page, teacher=self._teacher)

    def _built_in(self) -> Lesson:
        """The lab's own lesson, in the language in use. Raises `InputError`."""
        return read_lesson(builtin(language.current(), otherwise=language.SOURCE), keymap.names())

    # The live part of a page.

    def do(self, live: Live) -> None:
        """Put the panes as the page wants them, and run what it wants run."""
        bench = self._workbench
        self._prepare(live)
        if bench.is_narrow:
            bench.screen.remove_class("teaching")
            bench.notify(sentence(_("{lesson} goes back to the lesson.")))
        if live.run in ("lanes", "step"):
            self._run(live.run == "step")
        elif live.run == "variants":
            self._run_variants()
        elif live.run == "timing":
            bench.timing.request()
        self.live, self._leads, self._text = live, True, bench.prompt.text
        self._live_from = bench.generate.runs.begun + (live.run in ("lanes", "step"))
        bench.call_after_refresh(self.look)

    def look(self) -> None:
        """Put the cursor where the page wants it, as soon as that is there; what is typed elsewhere stays there."""
        live = self.live
        begun = self._workbench.generate.runs.begun >= self._live_from
        if live is not None and begun and self._loader.waiting is None:
            self._leads &= self._workbench.prompt.text == self._text
            if self._looked(live):
                self.live = None

    def _prepare(self, live: Live) -> None:
        """Put prompt, configurations and measurement as the page wants them, and open its view."""
        bench = self._workbench
        if live.prompt is not None:
            bench.prompt_area.go_back(live.prompt)
        for lane, (given, default) in enumerate(((live.a, "greedy"), (live.b, "creative"))):
            if given is not None:
                bench.generate.configure(lane, settings(given, default))
        if live.view == "timing":
            bench.timing.propose(live.lengths, live.repeats, cacheless=live.cacheless, chart=live.chart)
        bench.view = live.view

    def _looked(self, live: Live) -> bool:
        """Put the cursor where the page wants it; False while there is nothing there yet."""
        bench = self._workbench
        target: Widget | None = None
        if live.look in PICTURES:
            return self._looked_inside(live)
        match live.look:
            case "lane-a" | "lane-b" | "inspector":
                lane = 1 if live.look == "lane-b" else 0
                inspector = live.look == "inspector"
                return bench.generate.look_at(lane, live.at, inspector=inspector, focus=self._leads)
            case "tokens":
                if not bench.prompt_area.tokens or live.prompt not in (None, bench.prompt_area.tokenized):
                    return False
                bench.prompt_area.point(live.at or 0)
                bench.token_table.point(live.at or 0)
                target = bench.token_table
            case "prompt":
                target = bench.prompt
            case "prompts":
                target = bench.prompts.table
            case "variants":
                target = bench.variants.table
            case "timing":
                target = bench.timing.table
        if target is not None and self._leads:
            target.focus()
        return True

    def _looked_inside(self, live: Live) -> bool:
        """Open a picture of the view Inside; False while lanes write: their text is not whole yet."""
        bench = self._workbench
        tokens = bench.prompt_area.tokens
        if not tokens or live.prompt not in (None, bench.prompt_area.tokenized) or self._writing:
            return False
        at = live.at
        bench.look_inside()  # what the lanes have now: a text that came later would put the cursor elsewhere
        position = at if at is None or at >= 0 else max(0, len(tokens) + at)
        bench.inside.look(live.look, position, focus=self._leads)
        return True

    @property
    def _writing(self) -> bool:
        """Whether lanes are being written, and not paused."""
        job = self._workbench.generate.job
        return job is not None and not job.paused

    # The question of a page.

    def answer(self, wanted: LessonPanel.AnswerWanted) -> None:
        """Ask the model, as soon as there is one."""
        panel = self._workbench.lesson
        if not self._loader.loading and self._lab.facts is not None:
            job = self._lab.answer(wanted.question, wanted.live)
            in_background(self._workbench, "answer", self._answer, wanted.question, job)
        elif self._loader.wait_for_model(lambda: self.answer(wanted)) and self._loader.loading:
            panel.fail(_("waiting for the model…"))
        else:
            panel.fail(sentence(_("There is no model: {model} chooses one.")))

    async def _answer(self, question: Question, job: Job[Answer]) -> None:
        panel = self._workbench.lesson
        async for found in job:
            if isinstance(found, Failed) and isinstance(found.error, InputError):
                panel.excuse(str(found.error))
            elif isinstance(found, Failed):
                panel.fail(str(found.error))
            else:
                panel.tell(question, found)
