"""The lesson beside the lab: a page of text, a question before the run, a live part, an exercise, hints."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Button, OptionList, Static

from engine.base.language import N_, _
from engine.base.plain import safe
from engine.lessons.lesson import Answer, Lesson, LessonProgress, Live, Page, Question, load_progress, save_progress
from tui.actions import bindings
from tui.sentences import keyed, sentence
from tui.style.colours import ink
from tui.widgets.hint import Hint, say

if TYPE_CHECKING:
    from textual.widgets import Markdown

WAITING = N_("asking the model…")


class LessonPanel(Vertical):
    """One page at a time.

    Args:
        teacher: one paragraph at a time, in a wider panel.
    """

    BINDINGS = bindings("lesson")

    @dataclass
    class LiveWanted(Message):
        """Do this in the lab."""

        live: Live

    @dataclass
    class AnswerWanted(Message):
        """Ask the model."""

        question: Question
        live: Live | None

    def __init__(self) -> None:
        super().__init__(id="lesson")
        self.lesson: Lesson | None = None
        self.number = 0
        self.teacher = False
        self._chosen: dict[str, int] = {}
        self._part = 0
        self._hints = 0
        self._urged = False
        self._practising = False
        self._opened = False
        self._text: Markdown  # of the page, once a lesson is open

    def compose(self) -> ComposeResult:
        if not self._opened:  # the first frame does not wait for what a lesson is shown with
            return
        from textual.widgets import Markdown

        yield Static(id="lesson-title")
        with VerticalScroll(id="lesson-body", can_focus=False):
            self._text = Markdown(id="lesson-text")
            yield self._text
            yield Static(id="lesson-question")
            yield OptionList(id="lesson-choices", compact=True)
            yield Static(id="lesson-answer")
            yield Static(id="lesson-exercise")
        yield Hint(id="lesson-says")
        with Horizontal(id="lesson-buttons"):
            yield Button(_("‹ back"), id="lesson-back", compact=True)
            yield Button(_("Do it"), id="lesson-do", compact=True, variant="primary")
            yield Button(_("next ›"), id="lesson-next", compact=True)

    # What there is.

    @property
    def page(self) -> Page | None:
        return self.lesson.pages[self.number] if self.lesson is not None else None

    @property
    def question(self) -> Question | None:
        """What is asked now: the page's question, or the one about its exercise."""
        page = self.page
        if page is None:
            return None
        return page.practice if self._practising else page.question

    @property
    def _place(self) -> str:
        """The question's name among the answers that are remembered."""
        return f"{self.number} practice" if self._practising else str(self.number)

    def possible(self, action: str) -> bool:
        """Whether an action can do something now."""
        return action != "practise" or (self.page is not None and self.page.practice is not None)

    async def open(self, lesson: Lesson, number: int | None = None, *, teacher: bool = False) -> None:
        """Begin a lesson, at a page or where it was left."""
        if not self._opened:
            self._opened = True
            await self.recompose()
        known = load_progress(lesson.source)
        self.lesson, self.teacher, self._chosen = lesson, teacher, dict(known.chosen)
        self.set_class(teacher, "teacher")
        self.number = min(known.page, len(lesson.pages) - 1) if number is None else number
        await self._show()

    async def action_turn(self, by: int) -> None:
        """The next or previous page; for a teacher the next or previous part of it first."""
        if self.lesson is None:
            return
        if self.teacher and 0 <= self._part + by < len(self._parts()):
            self._part += by
            await self._show_part()
        elif 0 <= self.number + by < len(self.lesson.pages):
            self.number += by
            await self._show(last=by < 0)
        else:
            say(
                self,
                sentence(_("This is the last page: {lesson} closes the lesson."))
                if by > 0
                else _("This is the first page."),
            )

    def action_do(self) -> None:
        """The live part; a question is to be answered before."""
        page = self.page
        if page is None or page.live is None:
            say(self, _("This page has nothing to run."))
        elif self.question is not None and self._place not in self._chosen and not self._urged:
            self._urged = True
            say(self, sentence(_("Predict first: choose an answer above. {lesson.do} once more runs without one.")))
            self._to_question()
        else:
            live, question = page.live, self.question
            if self._practising and question is not None:  # both of its settings side by side
                live = msgspec.structs.replace(live, a=question.a or live.a, b=question.b or live.b)
            self.post_message(self.LiveWanted(live))

    async def action_practise(self) -> None:
        """Ask about the exercise, or go back to the page's question."""
        if not self.possible("practise"):
            say(self, _("This page's exercise asks nothing."))
            return
        self._practising, self._urged = not self._practising, False
        self._show_choices()
        say(self, sentence(_("{lesson.practise} goes back to the first question.")) if self._practising else "")
        await self._show_part()

    def action_hint(self) -> None:
        """One more hint."""
        page = self.page
        if page is not None:
            self._hints = min(self._hints + 1, len(page.hints))
            self._show_exercise(page)
            exercise = self.query_one("#lesson-exercise")
            self.call_after_refresh(exercise.scroll_visible, animate=False, top=False)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "lesson-do":
            self.action_do()
        else:
            self.run_worker(self.action_turn(-1 if event.button.id == "lesson-back" else 1), group="turn")

    # The question.

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        page, question = self.page, self.question
        if page is None or question is None:
            return
        self._chosen[self._place] = event.option_index
        self._remember()
        self.query_one("#lesson-answer", Static).update(Text(_(WAITING), style="dim"))
        self.post_message(self.AnswerWanted(question, page.live))

    def tell(self, question: Question, answer: Answer) -> None:
        """What the model says to the question."""
        page = self.page
        if page is None or self.question is not question:
            return
        chosen = self._chosen.get(self._place)
        text = Text()
        if answer.right is None:
            text.append(_("None of them. "), style=f"bold {ink(self.app, 'warning')}")
        elif answer.right == chosen:
            text.append(_("✓ Yes. "), style=f"bold {ink(self.app, 'good')}")
        else:
            text.append(_("✗ Not this time. "), style=f"bold {ink(self.app, 'wrong')}")
            text.append(_("The model says: {choice}. ", choice=question.choices[answer.right].strip()), style="bold")
        for line in answer.said:
            text.append(f"\n{safe(line)}")
        self.query_one("#lesson-answer", Static).update(text)
        say(self, sentence(_("Now {lesson.do} does it in the lab.")) if page.live is not None else "")

    def fail(self, message: str) -> None:
        """The model could not be asked."""
        self.query_one("#lesson-answer", Static).update(Text(message, style=f"bold {ink(self.app, 'wrong')}"))

    def excuse(self, message: str) -> None:
        """This model cannot answer the question, and no fault of the reader's: greyed, and the lesson goes on."""
        self.query_one("#lesson-answer", Static).update(Text(message, style="dim"))
        say(self, "")

    # Showing.

    async def _show(self, *, last: bool = False) -> None:
        page = self.page
        assert page is not None
        assert self.lesson is not None
        self._hints, self._urged, self._practising = 0, False, False
        self._part = len(self._parts()) - 1 if last and self.teacher else 0
        title = Text(f" {self.number} ", style="bold reverse")
        title.append(f" {page.title}", style="bold")
        title.append(f"  {self.number + 1}/{len(self.lesson.pages)}", style="dim")
        self.query_one("#lesson-title", Static).update(title)
        self._show_choices()
        self.query_one("#lesson-do", Button).display = page.live is not None
        self.query_one("#lesson-body").scroll_home(animate=False)
        say(self, "")
        self._remember()
        await self._show_part()

    def _show_choices(self) -> None:
        """The choices of the question that is asked now, not answered yet."""
        choices, question = self.query_one(OptionList), self.question
        choices.clear_options()
        if question is not None:
            choices.add_options([Text(safe(choice).strip()) for choice in question.choices])
            choices.highlighted = self._chosen.get(self._place, 0)
        self.query_one("#lesson-answer", Static).update("")

    async def _show_part(self) -> None:
        page = self.page
        assert page is not None
        question = self.question
        parts = self._parts()
        shown = {parts[self._part]} if self.teacher else {"question", "exercise"}
        if self._practising:
            shown |= {"question", "exercise"}
        text = page.text if not self.teacher else parts[self._part] if shown <= set(page.text.split("\n\n")) else ""
        await self._text.update(keyed(text))
        asked = "question" in shown and question is not None
        self.query_one("#lesson-question").display = asked
        self.query_one("#lesson-choices").display = asked
        self.query_one("#lesson-answer").display = asked
        if question is not None:
            self.query_one("#lesson-question", Static).update(
                Text(f"? {question.text}", style=f"bold {ink(self.app, 'note')}")
            )
        self.query_one("#lesson-exercise").display = "exercise" in shown
        self._show_exercise(page)
        if asked:
            self._to_question()
        else:
            self.query_one("#lesson-next").focus()

    def _parts(self) -> list[str]:
        """What a teacher shows one after the other."""
        page = self.page
        assert page is not None
        parts = [part for part in page.text.split("\n\n") if part]
        return [*parts, *(["question"] if page.question else []), *(["exercise"] if page.exercise else [])]

    def _show_exercise(self, page: Page) -> None:
        text = Text()
        if page.exercise:
            text.append(_("Try: "), style=f"bold {ink(self.app, 'good')}")
            text.append(keyed(safe(page.exercise)))
        for hint in page.hints[: self._hints]:
            text.append(f"\n· {keyed(safe(hint))}", style="dim")
        if self._hints < len(page.hints):
            text.append(sentence(_("\n{lesson.hint} shows a hint")), style="dim")
        self.query_one("#lesson-exercise", Static).update(text)

    def _to_question(self) -> None:
        self.query_one(OptionList).focus()

    def _remember(self) -> None:
        assert self.lesson is not None
        save_progress(self.lesson.source, LessonProgress(self.number, self._chosen))
