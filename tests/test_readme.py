"""What the README tells people to type works."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SLOW = ("bench", "variants")  # run on a small model, where the others run on the embedded one
COMMANDS = re.findall(r"^\$ logitlab (.+)$", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(run_cli, tiny_llama: Path, command: str) -> None:
    arguments = shlex.split(command)
    if arguments[0] in SLOW and "--model" not in arguments:
        arguments += ["--model", str(tiny_llama)]
    process = run_cli(*arguments)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip()
    assert process.stderr == ""


def test_the_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / picture).read_text(encoding="utf-8").startswith("<svg") for picture in pictures)


def test_the_tree_is_as_the_readme_says() -> None:
    tree = README.split("## How it is built")[1].split("```")[1].splitlines()
    folders = {line.split("/")[0] for line in tree if line and not line.startswith(" ")}
    assert folders == {"engine", "tui", "tests", "benchmarks"}
    assert all((ROOT / folder).is_dir() for folder in folders)
    of_engine = tree[: next(index for index, line in enumerate(tree) if line.startswith("tui/"))]
    named = {name for line in of_engine if line.startswith("  ") for name in line[:19].split()}
    engine = [path for path in (ROOT / "engine").iterdir() if not path.name.startswith("__")]
    rooms = {f"{path.name}/" for path in engine if path.is_dir()} | {path.stem for path in engine if path.is_file()}
    assert named == rooms


def test_files_that_the_guide_names_are_there() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Texts")[0]
    named = {name for name in re.findall(r"`((?:engine|tui|tests)/[\w./]+)`", guide) if "NAME" not in name}
    assert len(named) > 10
    assert {name for name in named if not (ROOT / name).exists()} == {"engine/networks/glm.py"}
