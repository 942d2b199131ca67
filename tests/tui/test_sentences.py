"""Sentences say the keys that actions have now: no text writes a key down."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.widgets import Static

from engine.base import paths
from tests.tui.conftest import until
from tui import keymap
from tui.actions import BY_IDENTITY
from tui.dialogs.greeting import Greeting
from tui.dialogs.help import HERE, Help
from tui.keymap import Keymap
from tui.sentences import PLACE, key, keyed, letter, sentence

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tui").rglob("*.py"))
# A key as texts write it; `enter` in a field or a list is the field's own, and no file changes it.
KEY = re.compile(
    r"\bF\d|\b(ctrl|alt|shift)\+|\b[Ee]sc\b|\btab\b|\^[a-z]\b|[←→↑↓] [←→↑↓]|"
    r"(^|[(·;:,.] )[a-z/?] [a-z]+s\b|\([a-z0-9]\)"  # `b branches`, `(t)`
)
# Texts that are about keys as such, or about something else that looks like one.
NOT_A_KEY = (
    "tui/keymap.py",  # what is wrong with a file of keys
    "Signs in tokens",
    "in the prompt and other text fields",
)


def calls(names: tuple[str, ...]) -> Iterator[tuple[str, ast.Call]]:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield file.relative_to(ROOT).as_posix(), node


def texts(names: tuple[str, ...]) -> Iterator[tuple[str, str, ast.Call]]:
    for file, call in calls(names):
        for argument in call.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield file, argument.value, call


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    """No keys but those of the table."""
    keymap.use(Keymap())
    yield
    keymap.use(Keymap())


def test_no_text_writes_a_key_down() -> None:
    written = [
        f"{file}: {text}"
        for file, text, _call in texts(("_", "N_", "counted"))
        if KEY.search(PLACE.sub("", text)) and not any(one in (file, text[: len(one)]) for one in NOT_A_KEY)
    ]
    values = [node for _file, call in calls(("_", "N_", "counted")) for one in call.keywords for node in ast.walk(one)]
    filled = [node.value for node in values if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    written += [text for text in filled if KEY.search(text)]
    assert not written, "\n".join(written)
    assert KEY.search("press F5"), "the search finds keys"
    assert KEY.search("the branch (t)")
    assert KEY.search("← → look")
    assert KEY.search("nothing yet: b branches")


def test_every_key_that_a_text_names_is_an_actions() -> None:
    named = [text for _file, text, _call in texts(("key", "letter"))]
    for _file, text, call in texts(("_", "N_")):
        if not call.keywords:  # whose values are filled in by name
            named += [name for _kind, name in PLACE.findall(text) if "." in name]
    assert len(named) > 80
    unknown = {name for name in named if name not in keymap.names() and name != "actions.name"}
    assert not unknown


def test_a_sentence_says_the_key_that_works_there() -> None:
    assert sentence("{run}, {letter:run}, {lanes.branch}, {key:stop}, {nothing}") == "F5, R, b, esc, {nothing}"
    assert sentence("{add}", "prompts") == "a"
    assert keyed("{prompt} {key:run} {letter:lane_a} {key:nothing}") == "{prompt} F5 A {key:nothing}"
    assert (key("lane_a"), letter("lane_a"), key("palette", short=True)) == ("alt+A", "A", "^p")
    keymap.use(Keymap({"lab.run": ("y", "f9"), "lanes.branch": ("k",), "lab.chat": ()}))
    assert sentence("{run}, {letter:run}, {lanes.branch}") == "F9, y, k"
    assert sentence("{chat}") == "“Conversation: make messages of the prompt, or go back to it”", (
        "what the palette calls it"
    )


def test_every_place_of_a_text_gets_a_key_whatever_the_file_says() -> None:
    """Each of the lab's texts about a pane, with every action on a key of its own that no text could hold by itself."""
    keymap.use(Keymap({name: (f"f{number}",) for number, name in enumerate(BY_IDENTITY, start=100)}))
    for text in HERE.values():
        said = sentence(text)
        assert not PLACE.search(said)
        assert len(re.findall(r"F1\d\d|F2\d\d", said)) == len(PLACE.findall(text))
        assert not KEY.search(re.sub(r"F\d{3}", "", said)), said


async def test_greeting_hints_and_help_say_keys_of_the_file(lab) -> None:
    paths.keys_file().write_text(
        '[lab]\nrun = "f9,R"\npace = ""\nlane_a = "q"\nhelp = "f12"\nlesson = "f8"\nnext_view = "V"\n'
        '[lanes]\nbranch = "k"\n[dialogs]\nleave = "escape,ctrl+g"\n',
        encoding="utf-8",
    )
    async with lab(first=True, wait=False) as (app, pilot):
        await until(pilot, lambda: isinstance(app.screen, Greeting) and bool(app.screen.query("#greeting-says")))
        said = str(app.screen.query_one("#greeting-says", Static).render())
        assert "\nF9 " in said
        assert "\nF8 " in said
        assert "q and B go to the lanes" in said
        assert "\nF12 " in said
        await pilot.press("f5", "f1", "ctrl+l")
        assert isinstance(app.screen, Greeting), "they are not the lab's any more"
        await pilot.press("f12")
        await until(pilot, lambda: isinstance(app.screen, Help) and bool(app.screen.query(Static)))
        said = str(app.screen.query(Static).first().render())
        assert "F9 lets both lanes continue it" in said
        await pilot.press("f12")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        assert "F9 runs" in str(app.query_one("#lane-a .hint", Static).render())


async def test_one_of_a_thing_is_said_in_the_singular(lab) -> None:
    async with lab(prompt="the") as (app, pilot):
        assert len(app.workbench.prompt_area.tokens) == 1
        await pilot.press("f9", "f9", "f9", "f9")
        words = "At most 1 token a second in each lane."
        await until(pilot, lambda: words in [str(one.message) for one in app._notifications])
        await pilot.press("f9", "f6")
        await until(pilot, lambda: "step 1: 1 id in" in app.workbench.loop_diagram._values("model"))
