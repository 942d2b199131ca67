"""`logitlab keys`: the table, and checking a file of keys."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.base import paths

Run = Callable[..., "subprocess.CompletedProcess[str]"]  # type: ignore[name-defined]  # noqa: F821
FAULTS = [
    ('[lab]\nrun = "ctrl+i"', "lab.run ctrl+i: a terminal sends tab for it"),
    ('[lab]\nrun = "ctrl+m"', "a terminal sends enter for it"),
    ('[lab]\nrun = "ctrl+h"', "a terminal sends backspace for it"),
    ('[lab]\nrun = "ctrl+["', "a terminal sends esc for it"),
    ('[lab]\nrun = "ctrl+enter"', "most terminals do not send ctrl with it"),
    ('[lab]\nrun = "ctrl+1"', "most terminals do not send ctrl with it"),
    ('[lab]\nrun = "shift+enter"', "a terminal does not send shift with it"),
    ('[lab]\nrun = "shift+f5"', "many terminals send F17 for it"),
    ('[lab]\nrun = "shift+g"', "write the capital instead: G"),
    ('[lab]\nrun = "ctrl+shift+g"', "a terminal sends ctrl+g for it"),
    ('[lab]\nrun = "super+g"', "the desktop takes it"),
    ('[lab]\nrun = "ctrl+c"', "it copies"),
    ('[lab]\nrun = "hyperspace"', "there is no such key"),
    ("[lab]\nrun = 5", "keys are a text"),
    ('[lab]\nrun = "y"\nstep = "y"', "lab.step y: lab.run has this key too"),
    ('[lab]\nquit = ""', "there must be a key to leave with"),
    ('[lab]\nran = "g"', "lab.ran: there is no such action; there are stop, run"),
    ('[lob]\nrun = "g"', "[lob]: there is no such pane; there are lab, messages, prompt"),
    ('lab = "g"', "lab: a pane is a section; write [lab] above its lines"),
    ("[lab", "is no TOML"),
]
WARNINGS = [
    ('[lab]\nrun = "f10,g"', "lab.run f10: GNOME Terminal"),
    ('[lab]\nrun = "f11,g"', "full screen"),
    ('[lab]\nrun = "f1,g"\nhelp = "H"', "lab.run f1: GNOME Terminal"),
    ('[lanes]\nbranch = "ctrl+s"\n[lab]\nexport = "X"', "flow control"),
    ('[lab]\nrun = "ctrl+q"\nquit = "Q"', "flow control"),
    ('[lab]\nrun = "N"', "lab.run N: lab.step had this key; give it another"),
    ('[lab]\nrun = "b"', "lab.run b: where lanes.branch is, that has this key"),
    ('[lanes]\nbranch = "x"', "lanes.branch x: where inspector.ban is, that has this key"),
    ('[lanes]\nbranch = "f2"', "lanes.branch F2: in every pane lab.model has this key"),
    ('[lab]\nrun = "alt+b,alt+G"\nlane_b = "B"', "lab.run alt+b: many terminals send ctrl+left for it"),
    ('[lab]\nstop = "g"', "lab.stop escape: it always stops"),
]


def test_the_table_has_every_key(run_cli: Run) -> None:
    rows = json.loads(run_cli("keys", "--json").stdout)
    found = {(row["pane"], row["action"]): row for row in rows}
    assert found["lab", "run"]["keys"] == ["R", "F5", "ctrl+r"]
    assert found["token_flow", "previous"] == found["token_flow", "next"] | {
        "action": "previous",
        "keys": ["←"],
        "names": ["left"],
    }
    assert all(row["keys"] and row["does"] for row in rows)
    text = run_cli("keys").stdout
    assert text.splitlines()[0].split() == ["pane", "action", "keys", "what", "it", "does"]
    assert str(paths.keys_file()) in text


def test_a_file_that_is_right_is_right(run_cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text('[lab]\nrun = "f6,y"\nstep = ["f5"]\nhelp = ""\n[inspector]\nmore = "k"\nless = "+"\n')
    done = run_cli("keys", "--check", str(file))
    assert (done.returncode, done.stdout) == (0, "5 actions have other keys\n")
    file.write_text("")
    assert run_cli("keys", "--check", str(file)).stdout == "0 actions have other keys\n"


def test_the_tables_own_names_are_all_right(run_cli: Run, tmp_path: Path) -> None:
    """A file that says what is there anyway is no reason to complain."""
    rows = json.loads(run_cli("keys", "--json").stdout)
    panes: dict[str, list[str]] = {}
    for row in rows:
        panes.setdefault(row["pane"], []).append(f"{row['action']} = {json.dumps(row['names'])}")
    file = tmp_path / "keys.toml"
    file.write_text("".join(f"[{pane}]\n" + "\n".join(lines) + "\n" for pane, lines in panes.items()))
    done = run_cli("keys", "--check", str(file))
    assert (done.returncode, done.stdout) == (0, f"{len(rows)} actions have other keys\n")


@pytest.mark.parametrize(("text", "says"), FAULTS)
def test_what_cannot_be_used_is_said(run_cli: Run, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    done = run_cli("keys", "--check", str(file))
    assert done.returncode == 2
    assert says in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert len(done.stderr.splitlines()) == 1
    (complaint,) = json.loads(run_cli("keys", "--check", str(file), "--json").stdout)
    assert not complaint["used"]


@pytest.mark.parametrize(("text", "says"), WARNINGS)
def test_what_may_not_arrive_is_said_and_used(run_cli: Run, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    done = run_cli("keys", "--check", str(file))
    assert done.returncode == 0
    assert says in done.stdout


def test_a_file_that_is_not_there_is_said(run_cli: Run, tmp_path: Path) -> None:
    done = run_cli("keys", "--check", str(tmp_path / "none.toml"))
    assert done.returncode == 2
    assert "is not there" in done.stderr


def test_the_users_own_file_changes_the_table(run_cli: Run) -> None:
    paths.keys_file().write_text('[lab]\nrun = "y,ctrl+i"\n')
    done = run_cli("keys")
    assert "run                 y " in done.stdout
    assert "it has faults: logitlab keys --check" in done.stdout
