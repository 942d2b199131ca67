"""What the README tells people to type works."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ logitlab (.+)$", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(run_cli, command: str) -> None:
    process = run_cli(*shlex.split(command))
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip()
    assert process.stderr == ""


def test_the_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / picture).read_text(encoding="utf-8").startswith("<svg") for picture in pictures)


def test_the_tree_is_as_the_readme_says() -> None:
    for folder in ("engine", "tui", "tests", "benchmarks"):
        assert (ROOT / folder).is_dir()
    assert "SPEED_TABLE" not in README
