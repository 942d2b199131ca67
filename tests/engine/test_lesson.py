"""Lessons: what a file may say, and answers that are the model's."""

import math
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from engine.base.errors import InputError
from engine.cli.screen import key_names
from engine.generation.config import PRESETS
from engine.generation.events import Stepped
from engine.lessons.lesson import (
    KEY,
    Answer,
    Ask,
    Lesson,
    LessonProgress,
    Live,
    Question,
    View,
    builtin,
    described,
    load_progress,
    page_of,
    parse,
    read_lesson,
    save_progress,
    settings,
)
from engine.lessons.questions import answer
from engine.loading import load_model
from engine.models.local import LocalModel
from tests.conftest import EMBEDDED

ROOT = Path(__file__).parents[2]
GOOD = '+++\ntitle = "One"\n+++\nText\n\n+++\ntitle = "Two"\n[live]\nprompt = "x"\n+++\n'


def english() -> Lesson:
    return read_lesson(builtin("en"))


def asked(model: LocalModel, question: Question, live: Live | None = None) -> Answer:
    (found,) = answer(model, question, live)
    return found


def test_pages_have_settings_and_text() -> None:
    lesson = parse(GOOD)
    assert [(page.title, page.text) for page in lesson.pages] == [("One", "Text"), ("Two", "")]
    assert page_of(lesson, 1) == 1
    with pytest.raises(InputError, match="pages 0 to 1"):
        page_of(lesson, 2)


def test_the_example_of_the_documentation_is_a_lesson() -> None:
    (example,) = re.findall(r"```\n(\+\+\+.*?)```", (ROOT / "docs/lessons.md").read_text(encoding="utf-8"), re.DOTALL)
    (page,) = parse(example).pages
    assert page.live is not None
    assert settings(page.live.b, "creative").temperature == 1.2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no lesson"),
        ("Text only", "is no lesson"),
        ("+++\ntitle = 'x'\n", "is no lesson"),
        ("before\n+++\ntitle = 'x'\n+++\n", "is no lesson"),
        ("+++\ntitle =\n+++\n", "page 0: Invalid value"),
        ("+++\n+++\n", "page 0: .*title"),
        ("+++\ntitle = ' '\n+++\n", "title is empty"),
        ("+++\ntitle='x'\n[question]\nask='more'\nsystem='s'\ntext='?'\nchoices=['a','b']\n+++\n", "with 'next' alone"),
        (GOOD + "+++\ntitle='x'\nhint='y'\n+++\n", "page 2: .*unknown field `hint`"),
        ("+++\ntitle='x'\n[live]\nrun='fly'\n+++\n", "Invalid enum value 'fly'"),
        ("+++\ntitle='x'\n[live]\nview='x'\n+++\n", "Invalid enum value"),
        ("+++\ntitle='x'\n[live]\na='wild'\n+++\n", "no configuration 'wild'"),
        ("+++\ntitle='x'\n[live]\nb={temperature=0}\n+++\n", "temperature is 0"),
        ("+++\ntitle='x'\n[live]\nlengths='a'\n+++\n", "lengths is 'a'"),
        ("+++\ntitle='x'\n[question]\nask='why'\ntext='?'\nchoices=['a','b']\n+++\n", "Invalid enum value 'why'"),
        ("+++\ntitle='x'\n[question]\nask='next'\ntext='?'\nchoices=['a','b']\n+++\n", "of no text"),
        ("+++\ntitle='x'\n[question]\nask='next'\nof='t'\ntext='?'\nchoices=['a']\n+++\n", "at least two"),
        ("+++\ntitle='x'\n[question]\nask='next'\nof='t'\ntext='?'\nchoices=['a','a']\n+++\n", "twice"),
        ("+++\ntitle='x'\n[question]\nask='count'\nof='t'\ntext='?'\nchoices=['a','2']\n+++\n", "whole numbers"),
        ("+++\ntitle='x'\n[question]\nask='agree'\nof='t'\ntext='?'\nchoices=['a','b','c']\n+++\n", "two choices"),
        ("+++\ntitle='x'\n[question]\nask='surer'\nof='t'\ntext='?'\nchoices=['a','b','c']\n+++\n", "two choices, for"),
        ("+++\ntitle='x'\n[practice]\nask='next'\nof='t'\ntext='?'\nchoices=['a','b']\n+++\n", "an exercise"),
        ("+++\ntitle='x'\n[question]\nask='times'\ntext='?'\nchoices=['a','b']\n+++\n", "needs a number"),
    ],
)
def test_what_is_wrong_is_said_with_its_page(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        parse(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("live", "question", "words"),
    [
        (
            "look='lens'",
            "",
            "look is 'lens'; the view inside has lens, attention, attribution, occlusion, and no other",
        ),
        ("view='inside'\nlook='lane-a'", "", "look is 'lane-a'; the view inside has"),
        ("view='inside'\nlook='heads'", "", "Invalid enum value 'heads'"),
        ("look='lane-a'\nat=-1", "", "at is -1; below zero it counts only in the view inside"),
        ("", "ask='decided'\nchoices=['low','high']", "'decided' of no text"),
        ("", "ask='agree'\nof='t'\nchoices=['a','b']\na='greedy,model=gpt2'", "leave model, precision and amateur out"),
        ("", "ask='surer'\nof='t'\nchoices=['a','b']\nb={amateur='gpt2'}", "leave model, precision and amateur out"),
        ("", "ask='wrote'\nof='t'\nchoices=['a','b']", "three choices: the embedding, an attention, a feed-forward"),
        ("", "ask='looks_at'\nof='a b c'\nchoices=['b','x']", "stand once in the text"),
        ("", "ask='looks_at'\nof='a b b'\nchoices=['b','b b']", "stand once in the text"),
        ("", "ask='looks_at'\nof='a b c'\nchoices=['a','b']", "not at its beginning"),
        ("", "ask='looks_at'\nof=' a b'\nchoices=['a','b']", "not at its beginning"),
        ("", "ask='looks_at'\nof='a b'\nchoices=[' ','b']", "stand once in the text"),
        ("", "ask='looks_at'\nat='x'\nof='a b'\nchoices=[' b','b']", "Expected `int | null`"),
    ],
)
def test_what_is_wrong_with_the_inside_is_said_with_its_page(live: str, question: str, words: str) -> None:
    table = f"[live]\n{live}" if live else f"[question]\ntext='?'\n{question}"
    with pytest.raises(InputError, match="page 0: ") as raised:
        parse(f"+++\ntitle='x'\n{table}\n+++\n")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_lab_s_own_lesson_has_fifteen_pages_that_all_do_something() -> None:
    lesson = english()
    assert len(lesson.pages) == 15
    for page in lesson.pages:
        assert page.text
        assert page.live is not None
        assert page.question is not None
        assert page.exercise
        assert page.hints
    asked_ones = {question.ask for page in lesson.pages for question in (page.question, page.practice) if question}
    assert asked_ones == set(get_args(Ask))
    assert {row["view"] for row in described(lesson)} == set(get_args(View))


def test_what_is_often_told_wrongly_is_taught() -> None:
    text = " ".join(page.text for page in english().pages)
    assert "A weight is **not a cause**" in text
    assert "*would*\nsay there, not what the model thinks" in text
    assert "that size is held fixed here" in text
    assert "**never their order**" in text
    assert "**no chance at all**" in text
    assert "transformers applies temperature before the cuts, llama.cpp after them" in text
    assert "nothing to do with contrastive *search*" in text


KEYED = "+++\ntitle='x'\nexercise='{exercise}'\nhints=['{hint}']\n+++\n{text}\n"


@pytest.mark.parametrize("place", ["text", "exercise", "hint"])
def test_a_key_that_no_action_has_is_refused_with_its_page(place: str) -> None:
    texts = {"text": "{prompt}", "exercise": "Press {letter:quit}, {key:lanes.branch}.", "hint": "{key:run}"}
    keys = key_names()
    assert parse(KEYED.format(**texts), keys=keys).pages[0].text == "{prompt}"
    for wrong in ("fly", "lanes.fly", "branch", " run", ""):
        said = KEYED.format(**texts | {place: f"{{key:{wrong}}}"})
        with pytest.raises(InputError, match=f"page 0: no action is called '{wrong}'"):
            parse(said, keys=keys)


def test_the_lessons_name_no_key_but_by_its_action() -> None:
    """`enter` alone is a list's own, which no file changes."""
    for name in ("en", "ja"):
        said = [text for page in read_lesson(builtin(name), key_names()).pages for text in (page.text, page.exercise)]
        said += [hint for page in read_lesson(builtin(name)).pages for hint in page.hints]
        for text in said:
            plain = re.sub(r"\{(key|letter):[^}]*\}", "", text)
            assert not re.search(r"\bF\d|ctrl|alt\+|\besc|\btab\b|[←↑→↓]|`[a-z0-9]`", plain.replace(" → ", "")), text


def test_the_japanese_lesson_does_the_same_on_every_page() -> None:
    english_pages, japanese = english().pages, read_lesson(builtin("ja")).pages
    assert [page.live for page in japanese] == [page.live for page in english_pages]
    for own, other in zip(japanese, english_pages, strict=True):
        assert own.question is not None
        assert other.question is not None
        assert (own.question.ask, own.question.of) == (other.question.ask, other.question.of)
        if own.question.ask in ("next", "looks_at"):  # pieces of a text, in any language
            assert own.question.choices == other.question.choices
        assert len(own.question.choices) == len(other.question.choices)
        assert (own.practice is None) == (other.practice is None)
        if own.practice is not None and other.practice is not None:
            same = ("ask", "of", "at", "a", "b", "system")
            assert [getattr(own.practice, name) for name in same] == [getattr(other.practice, name) for name in same]
            assert len(own.practice.choices) == len(other.practice.choices)
        assert len(own.hints) == len(other.hints)
        texts = [" ".join((one.text, one.exercise, *one.hints)) for one in (own, other)]
        assert sorted(KEY.findall(texts[0])) == sorted(KEY.findall(texts[1]))
        assert own.text.count("\n\n") == other.text.count("\n\n")


def test_a_language_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"no lesson in 'xx'; there are: .*en"):
        builtin("xx")


@pytest.fixture(scope="module")
def native() -> LocalModel:
    return load_model(EMBEDDED)


# Where the texts commit themselves: temperature never changes a greedy choice; contrastive search is deterministic;
# what is cut before the temperature is other; a schema's names are none that come by themselves; after layer 26 of 30
# or so; the country that is asked for; an attention, of layer 23.
COMMITTED = {4: 0, 5: 0, 6: 1, 7: 1, 10: 2, 11: 3, 12: 1}


@pytest.mark.parametrize("number", range(len(english().pages)))
def test_every_question_of_the_lesson_is_answered_by_the_embedded_model(native: LocalModel, number: int) -> None:
    """Whatever it answers, it says why; where the texts commit themselves, the model agrees."""
    page = english().pages[number]
    assert page.question is not None
    if page.question.ask != "times":
        found = asked(native, page.question, page.live)
        assert found.right is not None
        assert found.said
        assert COMMITTED.get(number, found.right) == found.right


def test_what_is_cut_first_leaves_what_the_model_finds_more_probable(native: LocalModel) -> None:
    page = english().pages[6]
    assert page.practice is not None
    assert asked(native, page.practice, page.live).right == 1


def test_under_a_system_message_another_beginning_is_the_favourite(native: LocalModel, tiny_llama: Path) -> None:
    page = english().pages[8]
    assert page.practice is not None
    found = asked(native, page.practice, page.live)
    assert found.right == 2
    plain = asked(native, msgspec.structs.replace(page.practice, system=""), page.live)
    assert plain.right == 0
    assert found.said != plain.said
    with pytest.raises(InputError, match="no chat template"):
        asked(load_model(str(tiny_llama)), page.practice, page.live)


@pytest.mark.long
def test_four_candidates_write_what_the_model_finds_probable_and_forty_what_it_does_not(native: LocalModel) -> None:
    """The exercise of the page on picking, against the tokens that plain runs pick."""
    page = english().pages[5]
    assert page.practice is not None
    found = asked(native, page.practice, page.live)
    assert found.right == 1
    for said, config in zip(found.said, ("creative", "creative,top_k=4"), strict=True):
        prompt = "The sky above the city looked calm, but"
        steps = [e for e in native.generate([prompt], [settings(config, "greedy")]) if isinstance(e, Stepped)]
        bits = sum(-math.log2(step.raw_probability or 0) for step in steps) / len(steps)
        below = len([step for step in steps if (step.rank or 0) > 4])
        assert f"{bits:.1f} bits of surprisal a token; {below} of {len(steps)} rank below 4" in said
        assert (below == 0) == (config == "creative,top_k=4")


def test_answers_are_those_of_plain_calls(embedded: LocalModel) -> None:
    from engine.generation.loop import logits_after

    ids = embedded.tokenizer.encode_ids("The capital of France is")
    best = int(logits_after(embedded.network, ids).argmax())
    choices = (" rain", embedded.tokenizer.piece(best), " the")
    assert asked(embedded, Question("next", "?", choices, of="The capital of France is")).right == 1
    assert asked(embedded, Question("count", "?", ("4", "5"), of="The capital of France is")).right == 1
    assert asked(embedded, Question("count", "?", ("1", "2"), of="The capital of France is")).right is None
    assert asked(embedded, Question("more", "?", ("a", "a b c", "a b"))).right == 1


def test_sampling_without_a_seed_does_not_repeat_itself(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    free = {"strategy": "sample", "temperature": 2.0, "max_new_tokens": 40, "ignore_eos": True}
    yes_no = ("yes", "no")
    assert asked(model, Question("repeat", "?", yes_no, of="the sky", b=free)).right == 1
    assert asked(model, Question("repeat", "?", yes_no, of="the sky", b=free | {"seed": 3})).right == 0
    times = asked(model, Question("times", "?", ("1 time", "10 times"), of="the sky"))
    assert "48 tokens took" in times.said[0]


def test_a_question_is_given_up_when_it_is_told_to(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    question = Question("agree", "?", ("yes", "no"), of="the sky")
    assert list(answer(model, question, None, lambda: False)) == []
    assert list(answer(model, Question("times", "?", ("1", "2")), None, lambda: False)) == []


def test_progress_is_remembered_for_each_lesson() -> None:
    assert load_progress("a") == LessonProgress()
    save_progress("a", LessonProgress(3, {"0": 1}))
    save_progress("b", LessonProgress(1))
    assert load_progress("a") == LessonProgress(3, {"0": 1})
    assert load_progress("b") == LessonProgress(1)


def test_presets_are_named_in_lessons() -> None:
    assert settings(None, "greedy") == PRESETS["greedy"]
    assert settings("creative", "greedy") == PRESETS["creative"]
