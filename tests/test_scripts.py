"""Every script in `benchmarks/` and `docs/` runs in a fresh clone, and does nothing to what its user has."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from engine.base import paths
from tests.warm import Warm

ROOT = Path(__file__).parents[1]
# The smallest work of each script, and what it writes into the repository. `TINY` stands for a tiny random model; tests
# marked `long` try these scripts with the embedded one, which they use by default.
TINY = ("--model", "TINY")
ONCE = ("--repeats", "1")
SCRIPTS: dict[str, tuple[Sequence[str], str]] = {
    "benchmarks/decode.py": (
        (*ONCE, "--tokens", "2", "--contexts", "16", "--precisions", "native", "--threads", "1", *TINY),
        "",
    ),
    "benchmarks/drafts.py": ((*ONCE, "--tokens", "8", "--threads", "1", *TINY), ""),
    "benchmarks/gpu.py": ((*ONCE, "--tokens", "4", "--prompt", "16"), ""),
    "benchmarks/grammar.py": ((*ONCE, "--tokens", "8", "--threads", "1", *TINY), ""),
    "benchmarks/inside.py": ((*ONCE, "--tokens", "4", "--threads", "1", *TINY), ""),
    "benchmarks/kernels.py": ((*ONCE, "--layers", "1", "--threads", "1"), ""),
    "benchmarks/on_screen.py": ((*ONCE, "--tokens", "24", "--keys", "5", "--only", "drawn", *TINY), ""),
    "benchmarks/prompts.py": (("--prompts", "40", "--keys", "2", *TINY), ""),
    "benchmarks/stages.py": (ONCE, ""),
    "benchmarks/startup.py": ((*ONCE, *TINY), ""),
    "benchmarks/two_models.py": ((*ONCE, "--tokens", "4", "--threads", "1", *TINY), ""),
    "docs/catalogues.py": ((), "engine/locale/"),
    "docs/encodings.py": ((), ""),
    "docs/licences.py": ((), "docs/licences.md"),
    "docs/models.py": (("llama",), ""),
    "docs/reliability.py": (("figures.jsonl", "make reliability"), "docs/reliability.md"),
    "docs/stages.py": ((), "docs/stages.md"),
    "docs/screenshots.py": (("lesson", *TINY), "docs/lesson.svg"),
}
MORE = {"benchmarks/on_screen.py": ("keys", "looks", "inside")}
AT_LENGTH = [
    pytest.param(script, (*arguments[: -len(TINY)], *MORE.get(script, ())), id=f"{script}-all", marks=pytest.mark.long)
    for script, (arguments, _written) in SCRIPTS.items()
    if arguments[-len(TINY) :] == TINY
]
OF_THE_CLONE = {"PYTHONDONTWRITEBYTECODE": "1"}
# As Python runs a file; the engine must be the clone's.
SCRIPT = """
import os, runpy, sys
import engine.cli
assert engine.cli.__file__.startswith(os.getcwd()), engine.cli.__file__
file = os.path.abspath({script!r})
sys.argv[0], sys.path[0] = {script!r}, os.path.dirname(file)
sys.dont_write_bytecode = True
runpy.run_path(file, run_name="__main__")
"""
OF_ANOTHER_ENVIRONMENT = "benchmarks/reference_4_49.py"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it is cloned, so that what a script writes is not written here."""
    folder = tmp_path_factory.mktemp("clone") / "logitlab"
    unwanted = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "__snapshots__")
    for name in ("engine", "tui", "tests", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    (folder / "figures.jsonl").write_text('{"what": "texts", "tried": 2, "used": 2, "refused": 0, "lost": 0}\n')
    return folder


@pytest.fixture(scope="module")
def begun(clone: Path) -> Iterator[Warm]:
    """A process that has imported the clone's engine, for scripts to begin as copies of it."""
    process = Warm(clone, os.environ | OF_THE_CLONE | {"PYTHONPATH": str(clone)})
    yield process
    process.close()


@pytest.fixture
def run(clone: Path, begun: Warm, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a script as its docstring says, for a user of another language, with a server and a saved state."""

    def run_script(script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("LOGITLAB_")} | {
            **OF_THE_CLONE,
            "PYTHONPATH": str(clone),  # whose engine is to be run, not the one that is installed
            "HOME": str(tmp_path),
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "LOGITLAB_CACHE_DIR": str(paths.cache_dir()),  # where the model lies
            "LOGITLAB_KERNELS": os.environ["LOGITLAB_KERNELS"],  # else each run has operators compiled
            "LANGUAGE": "ja",
            "LOGITLAB_SERVER": "http://127.0.0.1:9",
        }
        code = SCRIPT.format(script=script)
        return begun.run(arguments, b"", surroundings, seconds=500, code=code, folder=str(clone))

    return run_script


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder and the hash of what is in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_script_is_tried() -> None:
    scripts = [path for folder in ("benchmarks", "docs") for path in (ROOT / folder).glob("*.py")]
    runnable = {path.relative_to(ROOT).as_posix() for path in scripts if "__main__" in path.read_text(encoding="utf-8")}
    assert runnable == {*SCRIPTS, OF_ANOTHER_ENVIRONMENT}


@pytest.mark.parametrize(
    ("script", "arguments"),
    [*(pytest.param(script, arguments, id=script) for script, (arguments, _written) in SCRIPTS.items()), *AT_LENGTH],
)
def test_a_script_runs_as_it_says_and_leaves_everything_else_alone(
    clone: Path, run, tmp_path: Path, tiny_long: Path, script: str, arguments: Sequence[str]
) -> None:
    arguments = [str(tiny_long) if one == "TINY" else one for one in arguments]
    written = SCRIPTS[script][1]
    state = tmp_path / "state" / "logitlab"
    state.mkdir(parents=True)
    (state / "settings.json").write_text('{"theme": "mine"}')
    before = contents(clone)
    process = run(script, *arguments)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    if script.startswith("benchmarks/"):
        assert re.search(r"\d", process.stdout)
    changed = {name for name, _hash in before.items() ^ contents(clone).items()}
    assert all(written and name.startswith(written) for name in changed), changed
    assert contents(state) == {"settings.json": hashlib.sha256(b'{"theme": "mine"}').hexdigest()}


def test_what_the_catalogues_are_made_of_is_what_they_hold(run) -> None:
    assert "0 missing" in run("docs/catalogues.py").stdout


def test_a_script_of_another_environment_says_so(clone: Path, run, tmp_path: Path, tiny_llama: Path) -> None:
    exported = tmp_path / "exported"
    process = run(OF_ANOTHER_ENVIRONMENT, "--export", str(exported), "--model", str(tiny_llama))
    assert process.returncode == 0, process.stderr
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(contents(exported))
    before = contents(clone)
    process = run(OF_ANOTHER_ENVIRONMENT, str(exported))
    assert process.returncode == 1
    assert re.fullmatch(r"this is transformers [\d.]+; run this with transformers 4\.49\.0 in an .*\n", process.stderr)
    assert contents(clone) == before


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        (OF_ANOTHER_ENVIRONMENT, ()),
        ("docs/reliability.py", ()),
        ("docs/reliability.py", ("nowhere.jsonl", "make")),
        ("docs/screenshots.py", ("nothing",)),
    ],
)
def test_what_is_missing_is_said_in_a_line(run, script: str, arguments: Sequence[str]) -> None:
    process = run(script, *arguments)
    assert process.returncode == 2
    assert ": error: " in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr
