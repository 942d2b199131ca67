"""The kit for machines without a network, as far as it can be made without one."""

import subprocess
from pathlib import Path

import pytest

from engine.base.errors import InputError, MachineError
from engine.install import kit
from engine.models import catalog


def test_a_kit_holds_model_and_exact_versions_and_says_when_pip_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    folder = tmp_path / "kit"
    with pytest.raises(MachineError, match="pip could not gather the wheels") as raised:
        kit.make(folder, [catalog.EMBEDDED_NAME])
    assert "\n" not in str(raised.value)
    packed = catalog.find(catalog.EMBEDDED_NAME, folder / "cache")
    assert packed.cached
    pinned = (folder / "constraints.txt").read_text().splitlines()
    assert any(line.startswith("torch==") for line in pinned)
    assert not any("+" in line or line.startswith("pytest") for line in pinned)


def test_a_folder_that_is_no_kit_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="is no kit"):
        kit.make(tmp_path, [])
    with pytest.raises(InputError, match="of your own"):
        kit._model(tmp_path / "cache", str(tmp_path), lambda progress: None, offline=True)


def test_the_installer_is_a_whole_shell_script() -> None:
    assert subprocess.run(["sh", "-n"], input=kit.INSTALL, text=True, check=False).returncode == 0
