"""Hostile text: whatever it holds, the terminal gets none of it raw, and nothing is taken for markup."""

import csv
import io
import json
import random
import re
import shutil
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pytest

from engine.base import plain
from engine.base.errors import InputError
from engine.cli import main
from engine.export.sheet import Sheet
from engine.timing import charts
from tests.conftest import EMBEDDED
from tests.reliability.conftest import LONG, Figure, scale
from tests.terminal.terminal import Terminal, both_ended

PAYLOADS = (
    *("\x1b[5;35;46mEVIL", "\x1b]0;owned\x07", "\x1b]52;c;ZXZpbA==\x07", "\x1bPq#0\x1b\\", "\x9b31m", "\x1b[2J\x1b[H"),
    *("\x08\x08\x08", "\r", "\x00", "\x07", "\x0e", "\x7f", "\u202eevil\u202c", "\u2066x\u2069", "\u200f", "\ufeff"),
    *("[red]x[/red]", "[@click=app.bell]press[/]", "[link=file:///etc/passwd]x[/link]", "[/]", "[bold", "\\[red]"),
    *("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1+1", "\n=1+1", "```", "<script>", "|", "a" * 5_000),
    *(
        "e" + "\u0301" * 10_000,
        "👩\u200d👩\u200d👧\u200d👦" * 50,
        "\u0600\u06dd",
        "漢字",
        "\U000e0041",
        "{0}{name}",
        "%s%n",
    ),
)
# What Textual itself never writes, and the text of a payload would.
NEVER = re.compile(rb"\x1b\](?:0|52);|\x1bP|\x1b\[5;35;46m|[\x00\x07\x08\x0e\x7f]|\xc2\x9b")
HIDDEN = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\U000e0041]")


def hostile(generator: random.Random) -> str:
    parts = [generator.choice((*PAYLOADS, "the sky ", " and ")) for _ in range(generator.randrange(1, 5))]
    return "".join(part if len(part) < 1_000 or generator.random() < 0.1 else part[:40] for part in parts)


def harmless(text: str) -> bool:
    """Nothing in it but what is printed, joiners among it, new lines, and tabs."""
    steering = [char for char in text if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") and char not in "\n\t"]
    return not steering and not HIDDEN.search(text)


def test_made_visible_every_text_is_harmless(figure: Figure) -> None:
    inputs = scale(2_000, 50_000)
    for seed in range(inputs):
        text = hostile(random.Random(seed))
        assert harmless(plain.safe(text))
        assert "\n" not in plain.one_line(text)
        assert harmless(str(InputError(text)))
    figure("Hostile texts made visible", tried=inputs, lost=0)


@pytest.mark.parametrize("command", ["tokens", "lengths"])
def test_the_command_line_prints_none_of_it_raw(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, figure: Figure, tiny_llama: Path, command: str
) -> None:
    inputs = scale(40, 1_000)
    model = EMBEDDED if LONG else str(tiny_llama)
    for seed in range(inputs):
        text = hostile(random.Random(seed)).replace("\x00", "")  # which no shell can pass
        monkeypatch.setattr("sys.argv", ["logitlab", command, "--model", model, "--", text])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert harmless(out), (seed, out)
        assert harmless(err), (seed, err)
        assert ended.value.code in (0, 2)
        if ended.value.code == 2:
            assert err.count("\n") == 1
    figure(f"Hostile texts through `logitlab {command}`", tried=inputs, lost=0)


def test_tables_that_are_taken_home_hold_no_formula_and_no_markup(figure: Figure) -> None:
    inputs = scale(300, 10_000)
    for seed in range(inputs):
        generator = random.Random(seed)
        texts = [hostile(generator) for _ in range(3)]
        sheet = Sheet(hostile(generator), ("a", "b", "c"), [tuple(texts)])
        rows = list(csv.reader(io.StringIO(sheet.to_csv())))
        assert len(rows) == 2
        assert not [cell for cell in rows[1] if cell[:1] in tuple("=+-@\t\r\n")], (seed, rows[1])
        assert all(harmless(cell) for cell in rows[1])
        assert harmless(sheet.to_markdown())
        table = [line for line in sheet.to_markdown().splitlines() if line.startswith("|")]
        assert len(table) == 3, "no cell ends its row"
        assert json.loads(sheet.to_json()) == [dict(zip("abc", texts))]
    figure("Hostile texts in CSV, Markdown and JSON", tried=inputs, lost=0)


def test_the_lab_shows_all_of_it_as_text(tiny_llama, tmp_path, figure: Figure) -> None:
    """A file of hostile prompts is opened, gone through, continued, exported: the terminal gets none of them raw."""
    generator = random.Random(7)
    prompts = [hostile(generator).replace("\n", " ").replace("\r", " ") for _ in range(scale(30, 300))]
    prompts[:3] = ["[@click=app.bell]press[/] \x1b[5;35;46mEVIL", "\u202eevil [red]x[/red]", "\x1b]0;owned\x07 the sky"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts), encoding="utf-8")
    prompt = "[@click=app.bell]press[/] \x1b[5;35;46mEVIL \u202e[red]x"
    with Terminal(["--model", str(tiny_llama), "--prompt", prompt], 120, 40) as terminal:
        terminal.wait("cpu ×")
        terminal.wait("[@click=app.bell]press[/]")
        terminal.press("F5")
        terminal.wait(both_ended)
        terminal.press("F8", "F8")
        terminal.wait("Variants")
        terminal.press("\t", "\t", "o")
        terminal.wait("path of a file")
        terminal.press(str(tmp_path / "prompts.txt"), "enter")
        terminal.wait("[@click=app.bell]press[/] ␛[5")
        for _ in range(len(prompts) // 10):
            terminal.press("\x1b[6~")
        terminal.press("ctrl+q")
        assert terminal.finish() == 0
    written = re.sub(rb"\x1b\]22;[a-z-]*\x07", b"", terminal.raw)  # Textual sets the shape of the mouse pointer
    assert not NEVER.search(written), NEVER.search(written)
    assert not HIDDEN.search(terminal.raw.decode("utf-8", "replace"))
    figure("Hostile prompts opened in the lab", tried=len(prompts), lost=0)


EVIL = "[@click=app.bell]x[] \x1b[5;35;46mEVIL \u202e\x1b]0;owned\x07{0}%s"


def test_names_and_errors_are_shown_as_text_too(tiny_llama, tmp_path, figure: Figure) -> None:
    """A folder, a configuration that is refused, a session: each with a name that would steer the terminal."""
    named = tmp_path / EVIL
    shutil.copytree(tiny_llama, named)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_llama, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": EVIL}))
    written = b""
    with Terminal(["--model", str(named), "--prompt", "the sky"], 120, 40) as terminal:
        terminal.wait("cpu ×")
        terminal.press("F2")
        terminal.wait("or a Hugging Face id")
        terminal.press(str(broken), "enter")
        terminal.wait("has the architecture")
        terminal.wait(lambda text: "cpu ×" in text.splitlines()[0])  # the model that was there stays
        terminal.press("ctrl+q")
        assert terminal.finish() == 0
        written += terminal.raw
    for command in (
        ["generate", "x", "--model", str(named), "--max-new-tokens", "1", "--config", EVIL],
        ["open", EVIL],
    ):
        with Terminal(command, 120, 40) as terminal:
            assert terminal.finish() == 2
            assert "logitlab: " in terminal.text
            written += terminal.raw
    written = re.sub(rb"\x1b\]22;[a-z-]*\x07", b"", written)
    assert not NEVER.search(written), NEVER.search(written)
    assert not HIDDEN.search(written.decode("utf-8", "replace"))
    figure("Hostile names of models, files, settings and sessions", tried=4, lost=0)


def test_pictures_are_whole_whatever_they_hold(figure: Figure) -> None:
    inputs = scale(50, 1_000)
    for seed in range(inputs):
        generator = random.Random(seed)
        picture = charts.as_svg(plain.safe(hostile(generator)), hostile(generator))
        assert harmless(picture)
        assert ElementTree.fromstring(picture).tag.endswith("svg")
    figure("Hostile titles of charts, as SVG", tried=inputs, lost=0)
