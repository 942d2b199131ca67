"""`make test-pythons` runs the suite with every Python that is found, once each."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).with_name("pythons.sh")


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def run(tmp_path: Path, make: str) -> subprocess.CompletedProcess[str]:
    program(tmp_path / "make", f'echo "$@"\n{make}')
    environment = {"PATH": f"{tmp_path}/bin:{tmp_path}/shims:/usr/bin:/bin", "HOME": f"{tmp_path}/home"}
    environment["MAKE"] = str(tmp_path / "make")
    return subprocess.run(["sh", str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)


def test_every_python_from_3_11_on_is_tried_once_and_a_failure_is_told_at_the_end(tmp_path: Path) -> None:
    kept = tmp_path / "home" / ".pyenv" / "versions"
    pythons = {
        tmp_path / "bin" / "python3.97": "echo 3.97",
        tmp_path / "bin" / "python3.10": "echo 3.10",
        tmp_path / "shims" / "python3.99": "exit 127",  # the shim of a Python that is not there
        kept / "3.97.1" / "bin" / "python3.97": "echo 3.97",
        kept / "3.98.2" / "bin" / "python3.98": "echo 3.98",
    }
    for path, text in pythons.items():
        program(path, text)
    found = run(tmp_path, 'case "$2" in *3.97) exit 1 ;; esac')
    lines = found.stdout.splitlines()
    assert f"test VENV=.venv-3.97 PYTHON={tmp_path}/bin/python3.97" in lines
    assert f"test VENV=.venv-3.98 PYTHON={kept}/3.98.2/bin/python3.98" in lines
    assert sum("3.97" in line and line.startswith("test ") for line in lines) == 1
    assert not any("3.10" in line or "3.99" in line for line in lines)
    assert lines[-1].endswith("Failed: 3.97.")
    assert found.returncode == 1
    assert run(tmp_path, "exit 0").returncode == 0


def test_make_knows_the_command_and_sets_up_an_environment_for_each(tmp_path: Path) -> None:
    root = SCRIPT.parents[1]
    command = ["make", "--dry-run", "test", f"VENV={tmp_path}/.venv-3.99", "PYTHON=python3.99"]
    told = subprocess.check_output(command, cwd=root, text=True, env=os.environ | {"MAKEFLAGS": ""})
    assert f"python3.99 -m venv {tmp_path}/.venv-3.99" in told
    assert f"{tmp_path}/.venv-3.99/bin/python -m pytest" in told
    told = subprocess.check_output(["make", "--dry-run", "test-pythons"], cwd=root, text=True)
    assert "tests/pythons.sh" in told
