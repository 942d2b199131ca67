"""Letters for what panes do, capitals for what the lab does, and a key for each place."""

import re
import tomllib
from itertools import cycle
from pathlib import Path

import pytest
from textual.widgets import Static, TabbedContent

from engine.base import paths
from tests.tui.conftest import at_rest, ran, until
from tui import keymap
from tui.actions import ACTIONS, BY_IDENTITY, SECTIONS, explained, named, section
from tui.actions.action import UNBOUND
from tui.actions.dialogs import ACTIONS as DIALOGS
from tui.actions.dialogs import TYPING
from tui.actions.prompts import HINTS
from tui.dialogs.config_editor import ConfigEditor
from tui.dialogs.export import ExportDialog
from tui.dialogs.help import Help
from tui.dialogs.key_sheet import KeySheet, key_rows
from tui.dialogs.sessions import SessionsDialog
from tui.panes.generate import GeneratePane
from tui.panes.lanes import LanePane
from tui.panes.prompt import PromptPane
from tui.sentences import help_rows
from tui.widgets.candidate_list import CandidateList
from tui.widgets.footer import Footer

KEYS_PAGE = Path(__file__).parents[2] / "docs" / "keys.md"
# What keys do in every pane that takes them: `enter` goes to the prompt where no pane has a use for it.
SHARED = {"enter"}


def letters(where: str) -> set[str]:
    return {key for action in ACTIONS[where] for key in action.bound if keymap.is_typed(key)}


# The table.


@pytest.mark.parametrize("where", [where for where in ACTIONS if where != "lab" and where not in DIALOGS])
def test_no_letter_of_the_lab_is_one_of_a_pane(where: str) -> None:
    assert letters(where) & letters("lab") <= SHARED


@pytest.mark.parametrize("where", list(ACTIONS))
def test_no_two_actions_of_a_pane_have_one_key(where: str) -> None:
    keys = [key for action in ACTIONS[where] for key in action.bound]
    assert len(keys) == len(set(keys))


def test_no_dialog_has_a_key_that_is_not_for_it() -> None:
    """Neither one that its text fields take, nor the one that closes all, nor one of the lab's that counts there."""
    everywhere = {key for action in ACTIONS["lab"] if action.in_dialogs for key in action.bound}
    everywhere = {key for key in everywhere if not keymap.is_typed(key)} | {"escape"}
    for where, actions in DIALOGS.items():
        keys = {key for action in actions for key in action.bound if where != "dialogs"}
        assert not keys & everywhere, where
        if where in TYPING:
            assert not {key for key in keys if keymap.character_of(key)}, where


def test_everything_the_lab_does_has_a_letter_and_a_way_from_text_fields() -> None:
    no_letter = {action.title for action in ACTIONS["lab"] if not action.letter}
    assert no_letter == {"stop", "next_pane", "previous_pane"}, "they are esc and tab everywhere"
    only_letter = {action.title for action in ACTIONS["lab"] if action.keys == UNBOUND}
    assert only_letter == {"timing", "inside", "keys"}, "F8 and F1 lead there"


def test_every_action_is_explained_alone_or_by_its_pair() -> None:
    for where, actions in ACTIONS.items():
        shown = " ".join(keys for keys, _does in key_rows(where))
        for action in actions:
            assert keymap.written(action.bound[0]) in shown.split(), f"{where}: {action.title}"
        assert all(does for _keys, does in key_rows(where))
    assert len(BY_IDENTITY) == sum(map(len, ACTIONS.values())), "every action has a name of its own"


def test_the_help_and_the_hints_name_keys_by_their_actions() -> None:
    for actions in ACTIONS.values():
        titles = {action.title for action in actions}
        for action in actions:
            if action.help is not None:
                assert set(named(action.help.keys)) <= titles, action.help
                assert set(named(action.help.keys)), action.help
    labs = {action.title for action in ACTIONS["lab"]}
    for where, text in HINTS.items():
        assert set(named(text)) <= {action.title for action in ACTIONS[where]} | labs
    assert all(keys and does for section in SECTIONS for keys, does in help_rows(section))


def test_the_page_of_keys_is_true() -> None:
    rows = re.findall(r"^\| (\w+) \| (`.*?) \| (.*) \|$", KEYS_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    said = {title: (re.findall(r"`(\S+)`", keys), does) for title, keys, does in rows}
    assert said == {
        action.title: ([keymap.written(key) for key in action.bound], action.explained) for action in ACTIONS["lab"]
    }
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (`.*?) \| (.*) \|$", KEYS_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [(pane, title, re.findall(r"`(\S+)`", keys), does) for pane, title, keys, does in rows] == [
        (section(where), action.title, [keymap.written(key) for key in action.bound], explained(where, action))
        for where in DIALOGS
        for action in ACTIONS[where]
    ]


# In the lab.


async def test_letters_type_in_the_prompt_and_esc_leaves_it(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("R", "question_mark", "A")
        assert app.query_one(PromptPane).text == "the sky aboveR?A"
        await pilot.press(*["backspace"] * 3, "escape")
        assert isinstance(app.focused, LanePane)
        await pilot.press("R")
        await until(pilot, lambda: all(lane.reason for lane in app.query_one(GeneratePane).lanes) and at_rest(app))
        await pilot.press("enter", "!")
        assert app.query_one(PromptPane).text == "the sky above!"
        await pilot.press("escape", "B", "P", "escape")
        assert app.query_one("#lane-b") in app.focused.ancestors, "back to where one was"


async def test_each_place_has_a_key_from_anywhere(lab) -> None:
    async with lab() as (app, pilot):
        pane = await ran(app, pilot)
        places = {
            "a": lambda: pane.lanes[0] in app.focused.ancestors,
            "b": lambda: pane.lanes[1] in app.focused.ancestors,
            "i": lambda: isinstance(app.focused, CandidateList),
            "p": lambda: isinstance(app.focused, PromptPane),
        }
        presses = cycle(("{upper}", "alt+{key}", "alt+shift+{key}"))
        for view in ("generate", "tokens", "prompts", "timing", "inside"):
            for key, there in places.items():
                app.workbench.view = view
                app.workbench.land()
                await pilot.pause()
                await pilot.press(next(presses).format(upper=key.upper(), key=key))
                await until(pilot, there)
                assert there()
                assert app.query_one(TabbedContent).active == (f"{view}-tab" if key == "p" else "generate-tab")
        await pilot.press("alt+b")
        assert places["b"](), "from a text field too"


async def test_a_lane_that_is_gone_to_is_inspected(lab) -> None:
    async with lab() as (app, pilot):
        pane = await ran(app, pilot)
        await pilot.press("escape", "B", "right", "A", "right", "right")
        assert "lane A · step 2" in str(pane.inspector.border_title)
        await pilot.press("B")
        assert "lane B · step 1" in str(pane.inspector.border_title)


async def test_without_a_step_there_is_no_inspector_to_go_to(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("escape", "I")
        assert isinstance(app.focused, LanePane)
        assert any("Run the lanes" in note.message for note in app._notifications)


async def test_tab_leads_from_the_prompt_by_its_tokens_to_the_lanes(lab) -> None:
    async with lab() as (app, pilot):
        pane = await ran(app, pilot)
        await pilot.press("tab", "right", "right")
        assert app.query_one("#breakdown").cursor == 1
        await pilot.press("tab", "right", "right")
        assert pane.lanes[0].cursor == 1
        assert app.query_one(TabbedContent).active == "generate-tab", "the arrows are not for the row of views"


async def test_another_view_takes_the_keys(lab) -> None:
    async with lab() as (app, pilot):
        await pilot.press("escape")
        for view in ("tokens", "prompts", "timing", "inside", "generate"):
            await pilot.press("V")
            await until(
                pilot,
                lambda view=view: (
                    app.workbench.view == view
                    and app.focused is not None
                    and app.focused.region.area > 0
                    and app.query_one(f"#{view}-tab") in app.focused.ancestors
                ),
            )
        await pilot.press("comma")
        await until(pilot, lambda: app.workbench.view == "inside")
        await pilot.press("D")
        await until(pilot, lambda: app.focused is app.workbench.timing.table)
        await pilot.press("shift+tab", "shift+tab", "shift+tab", "escape")
        assert app.focused is app.workbench.timing.table, "esc leaves a field"


# The key sheet.


async def test_one_key_opens_and_closes_the_keys_of_the_pane(lab) -> None:
    async with lab() as (app, pilot):
        await ran(app, pilot)
        await pilot.press("alt+i", "question_mark")
        await until(pilot, lambda: isinstance(app.screen, KeySheet) and bool(app.screen.query(Static)))
        assert app.screen._panes == ("candidates", "inspector", "lanes", "lab")
        await pilot.press("question_mark")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        assert isinstance(app.focused, CandidateList)
        for where in ("tokens", "prompts", "timing", "inside"):
            app.workbench.view = where
            app.workbench.land()
            await pilot.pause()
            await pilot.press("question_mark")
            await until(pilot, lambda: isinstance(app.screen, KeySheet))
            await pilot.press("escape")
            await until(pilot, lambda: len(app.screen_stack) == 1)


# Other keys.


def changed(text: str) -> None:
    paths.keys_file().write_text(text, encoding="utf-8")


async def test_a_file_gives_actions_other_keys_everywhere_they_are_shown(lab) -> None:
    changed('[lab]\nrun = "f6,y"\nstep = "f5"\nkeys = "f12"\nhelp = ""\n[inspector]\nmore = "k"\n')
    async with lab() as (app, pilot):
        assert not any(note.title == "Keys" for note in app._notifications)
        pane = app.query_one(GeneratePane)
        footer = app.query_one(Footer)
        await until(pilot, lambda: "F6 run" in footer.render().plain)
        assert footer.keys[-1][:2] == ("f12", "F12"), "? types in the prompt, and the other key does not"
        assert "F6 runs" in str(app.query_one("#lane-a .hint", Static).render())
        await pilot.press("f5")
        await until(pilot, lambda: all(len(lane.steps) == 1 for lane in pane.lanes))
        await pilot.press("ctrl+r", "R")
        assert all(len(lane.steps) == 1 for lane in pane.lanes), "the table's keys are gone"
        await pilot.press("escape", "escape", "y")
        await until(pilot, lambda: all(len(lane.steps) == 12 for lane in pane.lanes) and at_rest(app))
        (run,) = [one for one in app.get_system_commands(app.screen) if one.title == "Run both lanes"]
        assert "F6  y" in run.help
        assert ("f6  y", "Run both lanes") in [(keys.lower(), does) for keys, does in key_rows("lab")]
        assert ("k −", "Turn the knob") in key_rows("inspector")
        await pilot.press("I", "question_mark")
        assert len(app.screen_stack) == 1
        before = pane.inspector.settings
        await pilot.press("plus")
        assert pane.inspector.settings == before
        await pilot.press("k")
        assert pane.inspector.settings != before
        await pilot.press("f12")
        await until(pilot, lambda: isinstance(app.screen, KeySheet))
        await pilot.press("f12")
        await until(pilot, lambda: len(app.screen_stack) == 1)


async def test_what_is_right_in_a_file_counts_and_the_rest_is_said_once(lab) -> None:
    changed('[lab]\nrun = "f6,ctrl+i"\nnothing = "x"\n[nowhere]\na = "b"\n')
    async with lab() as (app, pilot):
        (note,) = [note for note in app._notifications if note.title == "Keys"]
        assert "lab.run ctrl+i: a terminal sends tab" in note.message
        assert len(note.message.splitlines()) <= 6
        await pilot.press("f6")
        await until(pilot, lambda: all(lane.reason for lane in app.query_one(GeneratePane).lanes) and at_rest(app))


@pytest.mark.parametrize(
    "text", [b"[lab", b"\xff\xfe", b'lab = 3\n"" = 1', b"[lab]\nrun = 3\nstep = [1]", b"a=" + b"[" * 9_999]
)
async def test_a_broken_file_never_stops_the_lab(lab, text: bytes) -> None:
    paths.keys_file().write_bytes(text)
    async with lab() as (app, pilot):
        assert any(note.title == "Keys" for note in app._notifications)
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, Help))


async def test_dialogs_take_their_keys_from_the_file_too(lab) -> None:
    changed(
        '[lab]\nrun = "f9"\npace = ""\n[dialogs]\nleave = "f10,escape"\n[lane_editor]\nuse = "f12"\n'
        'creative = "f9"\n[sessions]\nnew = "w"\n[export]\nform = "y,f8"\n'
    )
    async with lab() as (app, pilot):
        (note,) = [note for note in app._notifications if note.title == "Keys"]
        assert note.message.splitlines()[0].startswith("dialogs.leave f10: GNOME"), "and nothing else"
        assert len(note.message.splitlines()) == 2
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, ConfigEditor))
        shown = app.screen.query_one(Footer)
        await until(pilot, lambda: ("F12", "use") in [key[1:3] for key in shown.keys])
        await pilot.press("f2", "ctrl+s")
        assert isinstance(app.screen, ConfigEditor), "the table's keys are gone"
        await pilot.press("f9", "f12")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        pane = app.query_one(GeneratePane)
        assert pane.configs[1].name == "creative"
        assert all(not lane.steps for lane in pane.lanes), "F9 was the dialog's"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ExportDialog) and bool(app.screen.query("#export-file")))
        forms = []
        for key in ("y", "f8", "f6"):
            await pilot.press(key)
            forms.append(app.screen._form)
        assert forms == ["json", "csv", "csv"]
        await pilot.press("f10")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, SessionsDialog) and bool(app.screen.query("DataTable")))
        await pilot.press("n")
        assert isinstance(app.screen, SessionsDialog)
        await pilot.press("w")
        await until(pilot, lambda: len(app.screen_stack) == 1)


@pytest.mark.parametrize(
    ("section", "line", "says"),
    [
        ("lane_editor", 'use = "u"', "lane_editor.use u: the dialog's text field takes it"),
        ("sessions", 'new = "enter"', "sessions.new enter: the dialog's list takes it"),
        ("dialogs", 'leave = ""', "dialogs.leave: there must be a key to leave with"),
        ("help", 'close = "escape"', "help.close esc: dialogs.leave has this key too"),
        ("export", 'copy = "f6"', "export.copy F6: export.form had this key"),
        ("sessions", 'new = "tab"', "sessions.new tab: in every pane lab.next_pane has this key"),
        ("token_flow", 'next = "c"', "variant_result.colour c: where token_flow.next is"),
    ],
)
def test_keys_of_dialogs_are_checked_against_the_dialogs_own(section: str, line: str, says: str) -> None:
    keymap_, complaints = keymap.understood(tomllib.loads(f"[{section}]\n{line}"))
    assert [one for one in complaints if str(one).startswith(says)], complaints
    assert "escape" in keymap_.keys("dialogs", ACTIONS["dialogs"][0])


def test_keys_of_one_dialog_are_free_in_another_and_the_labs_letters_are_in_all() -> None:
    _keys, complaints = keymap.understood(
        {"sessions": {"new": "R"}, "branches": {"delete": "n"}, "export": {"copy": "f2"}, "lane_editor": {"use": "f9"}}
    )
    assert complaints == []
