"""What the README and the pages behind it tell people to type works, and what they point at is there."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {path: path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]}
SLOW = ("bench", "variants", "compare")  # run on a small model, where the others run on the embedded one
COMMANDS = list(
    dict.fromkeys(
        command for text in PAGES.values() for command in re.findall(r"^\$ logitlab (.+)$", text, re.MULTILINE)
    )
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(run_cli, tiny_llama: Path, command: str) -> None:
    arguments = shlex.split(command)
    if arguments[0] in SLOW and "--model" not in arguments:
        arguments += ["--model", str(tiny_llama)]
    process = run_cli(*arguments)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip()
    assert process.stderr == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_points_at_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if "://" in target:
            continue
        name, _, place = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if file.suffix == ".svg":
            assert file.read_text(encoding="utf-8").startswith("<svg")
        if place:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert place in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, target


def test_both_readmes_point_at_the_same_pages() -> None:
    english, japanese = (re.findall(r"\]\(([^)\s]+)\)", PAGES[ROOT / name]) for name in ("README.md", "README.ja.md"))
    assert {name for name in english if not name.startswith("README")} == {
        name for name in japanese if not name.startswith("README")
    }
    assert len(english) == len(japanese) > 10


def test_the_tree_is_as_the_page_says() -> None:
    tree = PAGES[ROOT / "docs" / "how-it-is-built.md"].split("```")[1].splitlines()
    folders = {line.split("/")[0] for line in tree if line and not line.startswith(" ")}
    assert folders == {"engine", "tui", "tests", "benchmarks"}
    assert all((ROOT / folder).is_dir() for folder in folders)
    of_engine = tree[: next(index for index, line in enumerate(tree) if line.startswith("tui/"))]
    named = {name for line in of_engine if line.startswith("  ") for name in line[:19].split()}
    engine = [path for path in (ROOT / "engine").iterdir() if not path.name.startswith("__")]
    rooms = {f"{path.name}/" for path in engine if path.is_dir()} | {path.stem for path in engine if path.is_file()}
    assert named == rooms


def test_files_that_the_guide_names_are_there() -> None:
    guide = PAGES[ROOT / "CONTRIBUTING.md"].split("## Texts")[0]
    named = {name for name in re.findall(r"`((?:engine|tui|tests)/[\w./]+)`", guide) if "NAME" not in name}
    assert len(named) > 10
    assert {name for name in named if not (ROOT / name).exists()} == {"engine/networks/glm.py"}
