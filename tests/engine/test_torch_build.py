"""Which build of torch is installed, from package indexes on 127.0.0.1."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

import pytest

from engine.install import kit, torch_build
from engine.models import catalog
from tests.package_index import Fault, PackageIndex, serve

ROOT = Path(__file__).parents[2]
TORCH = next(line for line in (ROOT / "constraints.txt").read_text().split() if line.startswith("torch=="))[7:]
CPU, ORDINARY = f"{TORCH}+cpu", TORCH
# A project that needs torch and nothing else, and builds without anything that has to be fetched.
PROJECT = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{folder}/logitlab-0.1.0-py3-none-any.whl", "w") as wheel:
        info = "logitlab-0.1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: logitlab\\nVersion: 0.1.0\\n"
                       "Requires-Dist: torch>=2.9\\nProvides-Extra: remote\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return "logitlab-0.1.0-py3-none-any.whl"

build_wheel = build_editable
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the ordinary index has CPU builds")


def torch_wheel(folder: Path, version: str) -> Path:
    """An empty wheel of torch."""
    folder.mkdir()
    path = folder / f"torch-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        info = f"torch-{version}.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def cpu_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    """What stands for PyTorch's index of CPU builds; this machine has no NVIDIA driver."""
    monkeypatch.setattr(torch_build, "has_nvidia_driver", lambda: False)
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    with serve(torch_wheel(tmp_path / "cpu", CPU)) as index:
        monkeypatch.setenv("LOGITLAB_TORCH_INDEX", index.url)
        yield index


@pytest.fixture
def ordinary_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    """Where pip finds everything else, torch in its ordinary build too."""
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "MAKEFLAGS", "MAKEOVERRIDES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    with serve(torch_wheel(tmp_path / "ordinary", ORDINARY)) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        yield index


@linux
def test_without_a_driver_the_cpu_build_is_chosen(cpu_index: PackageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch_build.choose().index == cpu_index.url
    assert torch_build.choose("cpu").index == cpu_index.url
    assert torch_build.choose("cuda") == torch_build.TorchBuild()
    monkeypatch.setattr(torch_build, "has_nvidia_driver", lambda: True)
    assert torch_build.choose() == torch_build.TorchBuild()
    assert torch_build.choose("cpu").index == cpu_index.url
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert torch_build.choose("cpu") == torch_build.TorchBuild()


def test_elsewhere_than_on_linux_nothing_is_asked(cpu_index: PackageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(torch_build, "answers", lambda index: pytest.fail("it was asked"))
    assert torch_build.choose("cpu") == torch_build.TorchBuild()


@linux
def test_a_driver_is_found_by_its_library(tmp_path: Path) -> None:
    import _ctypes

    library = Path(_ctypes.__file__)  # any library that loads
    code = "from engine.install.torch_build import has_nvidia_driver; print(has_nvidia_driver())"

    def found(folder: Path) -> str:
        environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
        return subprocess.check_output([sys.executable, "-c", code], text=True, env=environment, cwd=ROOT).strip()

    (tmp_path / "without").mkdir()
    (tmp_path / "with").mkdir()
    shutil.copy(library, tmp_path / "with" / "libcuda.so.1")
    assert found(tmp_path / "with") == "True"
    if not torch_build.has_nvidia_driver():
        assert found(tmp_path / "without") == "False"


def slow(request: BaseHTTPRequestHandler, closing: Event) -> None:
    """Byte by byte, each before a socket's own limit."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Padding: ")
    while not closing.wait(0.05):
        request.wfile.write(b"x")
        request.wfile.flush()


def broken(request: BaseHTTPRequestHandler, closing: Event) -> None:
    request.wfile.write(b"nonsense\r\n\r\n")
    request.close_connection = True


FAULTS: dict[str, Callable[[BaseHTTPRequestHandler, Event], object]] = {
    "silent": lambda request, closing: closing.wait(),
    "slow": slow,
    "broken": broken,
    "missing": lambda request, closing: request.send_error(404),
}


def page_fault(index: PackageIndex, name: str) -> Fault:
    """Every page is answered by a fault."""
    return lambda request, page: (FAULTS[name](request, index.closing), True)[1]


@pytest.mark.parametrize("name", FAULTS)
def test_an_index_that_does_not_answer_in_time_is_let_go(cpu_index: PackageIndex, name: str) -> None:
    assert torch_build.answers(cpu_index.url, seconds=30)
    cpu_index.page_fault = page_fault(cpu_index, name)
    assert not torch_build.answers(cpu_index.url, seconds=0.5)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with our Makefile and an environment of its own, which the tests set up again and again."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "engine" / "install").mkdir(parents=True)
    shutil.copy(torch_build.__file__, folder / "engine" / "install" / "torch_build.py")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "constraints.txt").write_text(f"torch=={TORCH}\n")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    return folder


def set_up(project: Path, *arguments: str) -> tuple[str, str]:
    """What `make` says when it sets up the environment, and the version of torch that is in it then."""
    (project / ".venv" / "ready").unlink(missing_ok=True)
    python = project / ".venv" / "bin" / "python"
    if python.exists():
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "torch", "logitlab"], check=True)
    command = ["make", "--silent", ".venv/ready", f"PYTHON={sys.executable}", *arguments]
    run = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    code = "from importlib.metadata import version; print(version('torch'), version('logitlab'))"
    return run.stdout + run.stderr, subprocess.check_output([python, "-c", code], text=True).split()[0]


@linux
def test_make_installs_the_build_that_is_chosen(
    project: Path, cpu_index: PackageIndex, ordinary_index: PackageIndex
) -> None:
    said, version = set_up(project, "TORCH=cpu")
    assert version == CPU
    assert f"CPU build from {cpu_index.url}" in said
    assert ordinary_index.asked == 0

    (project / ".venv" / "ready").unlink()  # as after a change of pyproject.toml
    cpu_index.page_fault = page_fault(cpu_index, "missing")
    again = subprocess.run(["make", ".venv/ready", "TORCH=cpu"], cwd=project, capture_output=True, text=True)
    assert again.returncode == 0
    assert cpu_index.url not in again.stdout, "torch is there already"

    said, version = set_up(project, "TORCH=cuda")
    assert version == ORDINARY
    assert "CPU build" not in said


@linux
def test_make_goes_on_with_the_ordinary_index_and_says_so(
    project: Path, cpu_index: PackageIndex, ordinary_index: PackageIndex, tmp_path: Path
) -> None:
    cpu_index.page_fault = page_fault(cpu_index, "silent")
    said, version = set_up(project, "TORCH=cpu")
    assert version == ORDINARY
    assert len(re.findall(f"{cpu_index.url} does not answer; torch comes from where pip finds it", said)) == 1
    cpu_index.page_fault = None
    cpu_index.wheel = torch_wheel(tmp_path / "other", "1.0+cpu")  # no version that is wanted
    said, version = set_up(project, "TORCH=cpu")
    assert version == ORDINARY
    assert f"pip finds no torch at {cpu_index.url}" in said


def test_a_misspelt_build_is_turned_down() -> None:
    run = subprocess.run([sys.executable, torch_build.__file__, "gpu"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "'cpu', 'cuda'" in run.stderr.replace("cpu, cuda", "'cpu', 'cuda'")


@linux
def test_a_kit_holds_the_build_that_is_chosen_and_none_of_an_older_kit(
    tmp_path: Path,
    cpu_index: PackageIndex,
    ordinary_index: PackageIndex,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kit, "_requirement", lambda: str(project))
    monkeypatch.setattr(kit, "_model", lambda *arguments, **options: "no model")
    folder = tmp_path / "kit"

    def wheels(index: str | None) -> set[str]:
        kit.make(folder, [catalog.EMBEDDED_NAME], torch_index=index)
        return {path.name for path in (folder / "wheels").iterdir()}

    own = "logitlab-0.1.0-py3-none-any.whl"
    assert wheels(None) == {own, f"torch-{ORDINARY}-py3-none-any.whl"}
    assert wheels(cpu_index.url) == {own, f"torch-{CPU}-py3-none-any.whl"}
    assert wheels(None) == {own, f"torch-{ORDINARY}-py3-none-any.whl"}
    assert "1.6 GB (5.3 GB" in (folder / "README.txt").read_text()


@linux
def test_the_command_says_where_the_kit_takes_torch_from(
    cpu_index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from engine.cli import app

    made: list[object] = []
    monkeypatch.setattr(kit, "make", lambda *arguments, torch_index, **options: made.append(torch_index))
    runner = CliRunner()
    for arguments in ([], ["--torch", "cpu"], ["--torch", "cuda"], ["--torch", "cpu", "--offline"]):
        result = runner.invoke(app, ["kit", str(tmp_path / "kit"), *arguments])
        assert result.exit_code == 0, result.output
        assert (f"CPU build from {cpu_index.url}" in result.stderr) == (made[-1] is not None)
    assert made == [cpu_index.url, cpu_index.url, None, None]
    assert "cpu, cuda" in str(runner.invoke(app, ["kit", str(tmp_path / "kit"), "--torch", "gpu"]).exception)


def test_uv_takes_the_same_index() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
    (index,) = settings["index"]
    assert index == {"name": "pytorch-cpu", "url": torch_build.CPU_INDEX, "explicit": True}
    assert settings["sources"]["torch"] == [{"index": "pytorch-cpu", "marker": "sys_platform == 'linux'"}]
