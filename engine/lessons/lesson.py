"""Lessons: files of pages in Markdown, each with a live part and a question, that teachers can write.

`docs/lessons.md` describes the form.
"""

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from engine.base import paths
from engine.base.errors import InputError, LogitlabError
from engine.base.files import read_text
from engine.base.language import _
from engine.base.state import keep, recall
from engine.generation.config import GenerationConfig, config_from_dict, preset_config
from engine.timing.sweep import parse_lengths

MAX_FILE_BYTES = 2_000_000
MAX_PAGES = 100
FENCE = re.compile(r"^\+\+\+[ \t]*$", re.MULTILINE)
# A key by the name of what it does, as texts say it.
KEY = re.compile(r"\{(?:key|letter):([^{}]*)\}")

View = Literal["generate", "tokens", "prompts", "timing", "inside"]
Run = Literal["", "lanes", "step", "variants", "timing"]
Picture = Literal["lens", "attention", "attribution", "occlusion"]
Look = Literal["", "prompt", "tokens", "lane-a", "lane-b", "inspector", "prompts", "variants", "timing"] | Picture
Chart = Literal["length", "token", "cache", "overlay", "transformers"]
Ask = Literal["next", "count", "more", "agree", "repeat", "times", "surer", "decided", "looks_at", "wrote"]

PICTURES: tuple[str, ...] = get_args(Picture)
# Kinds of parts, in the order of the choices of a question that asks `wrote`.
WROTE = ("embedding", "attention", "mlp")

ConfigSource = str | dict[str, Any]

LESSONS = Path(__file__).parent  # a folder a language


class Live(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a page does in the lab.

    Attributes:
        prompt: the new prompt; `None` leaves the present one.
        a, b: configurations of the lanes: a preset's name, or settings.
        run: what is started.
        look: where the cursor goes then, in the view Inside a picture; `at` is the token that it points at, from 0,
            in the view Inside also below zero, from the prompt's end.
        lengths, repeats, cacheless, chart: settings of the Timing view.
    """

    prompt: str | None = None
    view: View = "generate"
    run: Run = ""
    a: ConfigSource | None = None
    b: ConfigSource | None = None
    look: Look = ""
    at: int | None = None
    lengths: str = "10,20,40,60"
    repeats: int = 2
    cacheless: bool = False
    chart: Chart = "length"


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prediction before the run, answered by the model.

    Attributes:
        ask: `next`: the most probable of the choices after the text. `count`: how many tokens the text has. `more`:
            which choice has the most tokens. `agree`: whether both configurations write the same (first choice: yes).
            `repeat`: whether configuration b writes the same twice (first choice: yes). `times`: how many times as
            long 48 tokens take as 12 without a cache: the nearest of the choices' numbers. `surer`: which of a and b
            writes tokens that the model finds more probable, by their mean surprisal. `decided`: in which of
            equal parts of the layers, the lowest first, the token that is said at last is on top for good. `looks_at`:
            which choice, a piece of the text, gets the most attention, the mean of all heads, the first token left
            out. `wrote`: of which kind the part is that adds most to the most probable token over its runner-up
            (choices: embedding, attention, feed-forward).
        of: the text that it is about; the live part's prompt when `None`.
        at: the token that `decided`, `looks_at` and `wrote` are about, from 0, below zero from the text's end; the live
            part's in the view Inside when `None`, else the last one.
        a, b: configurations; the live part's when `None`.
        system: of `next`: the text is a user's message behind this system message, in the model's chat template, and
            the choices begin the answer.
    """

    ask: Ask
    text: str
    choices: tuple[str, ...]
    of: str | None = None
    at: int | None = None
    a: ConfigSource | None = None
    b: ConfigSource | None = None
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The number of the right choice, from 0, `None` where none is right; and a line about each choice."""

    right: int | None
    said: tuple[str, ...]


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One page: `text` is Markdown; `practice` asks about the exercise, and `exercise` says what to do."""

    title: str
    text: str = ""
    live: Live | None = None
    question: Question | None = None
    exercise: str = ""
    practice: Question | None = None
    hints: tuple[str, ...] = ()


class Lesson(msgspec.Struct, frozen=True):
    """All pages, and the name of their file."""

    pages: tuple[Page, ...]
    source: str = ""


def read_lesson(path: Path, keys: Collection[str] | None = None) -> Lesson:
    """The lesson in a file; see `parse`. Raises `InputError` that names the faulty page."""
    return parse(read_text(path, MAX_FILE_BYTES), str(path), keys)


def parse(text: str, source: str = "lesson", keys: Collection[str] | None = None) -> Lesson:
    """A lesson from its text: for each page a `+++` line, TOML, a `+++` line, then Markdown.

    Args:
        keys: the names by which a text may say keys, `{key:run}`; any, where they are not known.

    Raises:
        InputError: a page is faulty; the message names it and the fault.
    """
    parts = FENCE.split(text)
    if len(parts) < 3 or len(parts) % 2 == 0 or parts[0].strip():
        raise InputError(
            _(
                "{source} is no lesson: each page begins with +++, its settings, and +++; see docs/lessons.md",
                source=source,
            )
        )
    heads, bodies = parts[1::2], parts[2::2]
    if len(heads) > MAX_PAGES:
        raise InputError(
            _(
                "{source} has {count} pages; at most {most} are allowed",
                source=source,
                count=len(heads),
                most=MAX_PAGES,
            )
        )
    pages = []
    for number, (head, body) in enumerate(zip(heads, bodies)):
        try:
            page = msgspec.convert(tomllib.loads(head) | {"text": body.strip()}, Page)
            _check(page)
            _check_keys(page, keys)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError, LogitlabError) as error:
            raise InputError(
                _("{source}, page {number}: {error}", source=source, number=number, error=error)
            ) from error
        pages.append(page)
    return Lesson(tuple(pages), source)


def settings(given: ConfigSource | None, default: str) -> GenerationConfig:
    """A configuration from a preset's name or from settings. Raises `InputError`."""
    if given is None or isinstance(given, str):
        return preset_config(given or default, _("a table of settings"))
    return config_from_dict({"name": "lesson"} | given)


def _check(page: Page) -> None:
    """Check what types cannot express. Raises `InputError`."""
    if not page.title.strip():
        raise InputError(_("the title is empty"))
    live, question = page.live, page.question
    if live is not None:
        if live.prompt is not None and not live.prompt:
            raise InputError(_("the live part's prompt is empty"))
        _check_look(live)
        settings(live.a, "greedy")
        settings(live.b, "creative")
        if not parse_lengths(live.lengths) or not 1 <= live.repeats <= 100:
            raise InputError(_("lengths or repeats of the live part make no sense"))
    for asked in (question, page.practice):
        if asked is not None:
            _check_question(asked, live)
    if page.practice is not None and not page.exercise.strip():
        raise InputError(_("the page asks about an exercise that it does not have"))


def _check_keys(page: Page, keys: Collection[str] | None) -> None:
    """Check that the keys which texts name are some action's. Raises `InputError`."""
    for text in (page.text, page.exercise, *page.hints):
        for name in KEY.findall(text):
            if keys is not None and name not in keys:
                raise InputError(
                    _("no action is called {name!r}, whose key is to be said; logitlab keys lists them", name=name)
                )


def _check_look(live: Live) -> None:
    inside = live.view == "inside"
    if (live.look in PICTURES) != inside and live.look not in ("", "prompt"):
        raise InputError(
            _(
                "look is {look!r}; the view inside has {pictures}, and no other view has them",
                look=live.look,
                pictures=", ".join(PICTURES),
            )
        )
    if live.at is not None and live.at < 0 and not inside:
        raise InputError(_("at is {at}; below zero it counts only in the view inside", at=live.at))


def _check_question(question: Question, live: Live | None) -> None:
    if len(question.choices) < 2 or not all(question.choices):
        raise InputError(_("the question needs at least two choices, none of them empty"))
    if len(set(question.choices)) < len(question.choices):
        raise InputError(_("the question has the same choice twice"))
    text = question.of if question.of is not None else live.prompt if live is not None else None
    if question.ask in ("next", "agree", "repeat", "surer", "decided", "looks_at", "wrote") and not text:
        raise InputError(
            _("the question asks {ask!r} of no text; give it `of`, or the live part a prompt", ask=question.ask)
        )
    if question.ask == "count" and (not text or not all(choice.isdecimal() for choice in question.choices)):
        raise InputError(_("the question asks 'count': it needs a text, and choices that are whole numbers"))
    if question.ask == "times" and not all(number_in(choice) for choice in question.choices):
        raise InputError(_("the question asks 'times': each choice needs a number"))
    if question.ask in ("agree", "repeat") and len(question.choices) != 2:
        raise InputError(
            _("the question asks {ask!r}: it needs two choices, the first of which says yes", ask=question.ask)
        )
    if question.ask == "surer" and len(question.choices) != 2:
        raise InputError(_("the question asks 'surer': it needs two choices, for lane A's settings and lane B's"))
    if question.ask == "looks_at" and not all(_stands_in(text or "", choice) for choice in question.choices):
        raise InputError(
            _("the question asks 'looks_at': each choice has to stand once in the text, and not at its beginning")
        )
    if question.ask == "wrote" and len(question.choices) != len(WROTE):
        raise InputError(
            _("the question asks 'wrote': it needs three choices: the embedding, an attention, a feed-forward")
        )
    if question.system is not None and question.ask != "next":
        raise InputError(_("the question asks {ask!r}; a system message goes with 'next' alone", ask=question.ask))
    settings(question.a, "greedy")
    settings(question.b, "creative")
    if question.ask in ("agree", "repeat", "surer"):
        own = (question.a or (live.a if live else None), question.b or (live.b if live else None))
        if any(one.names_model or one.amateur is not None for one in map(settings, own, ("greedy", "creative"))):
            raise InputError(
                _(
                    "the question asks {ask!r} of the model that is loaded: leave model, precision and amateur out of "
                    "its configurations",
                    ask=question.ask,
                )
            )


def _stands_in(text: str, choice: str) -> bool:
    """Whether a piece of a text stands in it once, behind something else."""
    return bool(choice.strip()) and text.count(choice) == 1 and bool(text[: text.find(choice)].strip())


def number_in(text: str) -> float:
    """The first number in a text; 0 where it has none."""
    found = re.search(r"\d+(\.\d+)?", text)
    return float(found.group()) if found else 0.0


def builtin(language: str, folder: Path = LESSONS, *, otherwise: str = "") -> Path:
    """The built-in lesson in `language`, else in `otherwise`. Raises `InputError` where there is neither."""
    path = folder / language / "lesson.md"
    if not path.is_file() and otherwise:
        path = folder / otherwise / "lesson.md"
    if not path.is_file():
        there = sorted(file.parent.name for file in folder.glob("*/lesson.md"))
        raise InputError(
            _("there is no lesson in {language!r}; there are: {names}", language=language, names=", ".join(there))
        )
    return path


def page_of(lesson: Lesson, number: int) -> int:
    """The page's number, from 0. Raises `InputError` where the lesson has no such page."""
    if not 0 <= number < len(lesson.pages):
        raise InputError(
            _("page is {number}; the lesson has pages 0 to {last}", number=number, last=len(lesson.pages) - 1)
        )
    return number


def described(lesson: Lesson) -> Sequence[Mapping[str, object]]:
    """What each page does, for `lesson check`."""
    return [
        {
            "page": number,
            "title": page.title,
            "view": page.live.view if page.live else "",
            "runs": page.live.run if page.live else "",
            "asks": page.question.ask if page.question else "",
            "hints": len(page.hints),
        }
        for number, page in enumerate(lesson.pages)
    ]


class LessonProgress(msgspec.Struct, frozen=True):
    """The reader's place in a lesson: the page, and the choice on each answered page, both from 0."""

    page: int = 0
    chosen: dict[str, int] = {}


def load_progress(source: str) -> LessonProgress:
    """The saved place in a lesson; its beginning where none was saved, or it cannot be read."""
    return _all_progress().get(source, LessonProgress())


def save_progress(source: str, progress: LessonProgress) -> None:
    """Save the place in a lesson; do nothing where the state folder cannot be written."""
    keep(paths.lesson_progress(), _all_progress() | {source: progress})


def _all_progress() -> dict[str, LessonProgress]:
    return recall(paths.lesson_progress(), dict[str, LessonProgress], MAX_FILE_BYTES) or {}
