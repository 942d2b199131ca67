"""Memory that is not there, the log, the doctor, and a network that nobody uses."""

import gc
import json
import logging
import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.base import log, machine
from engine.base.errors import MachineError, OutOfMemoryError
from engine.base.garbage import importing
from engine.loading import load_model
from tests.conftest import EMBEDDED
from tests.warm import MAIN

GB = 10**9


def test_free_memory_is_what_the_machine_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_of_container", lambda cgroup: None)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=5 * GB))
    assert machine.free_memory() == 5 * GB


def test_free_memory_is_at_most_what_the_container_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=5 * GB))
    of_container = machine._of_container
    monkeypatch.setattr(machine, "_of_container", lambda cgroup: of_container(tmp_path))
    assert machine.free_memory() == 5 * GB
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    assert machine.free_memory() == 1000
    (tmp_path / "memory.current").write_text("6000\n")
    assert machine.free_memory() == 1, "no room is known, and is not the same as unknown"
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory() == 5 * GB


def test_free_memory_is_unknown_where_nothing_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_proc() -> None:
        raise FileNotFoundError("/proc/meminfo")

    monkeypatch.setattr(machine, "_of_container", lambda cgroup: None)
    monkeypatch.setattr("psutil.virtual_memory", no_proc)
    assert machine.free_memory() is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux alone has /proc/meminfo")
def test_free_memory_is_the_kernels_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel() -> int:
        text = Path("/proc/meminfo").read_text()
        return 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith("MemAvailable:")))

    monkeypatch.setattr(machine, "_of_container", lambda cgroup: None)
    free = machine.free_memory()
    assert free is not None
    assert free == pytest.approx(kernel(), rel=0.5)


@pytest.mark.parametrize(
    ("free", "precision", "fast", "says"),
    [
        (
            300_000_000,
            "float32",
            True,
            "takes about 0.5 GB and 0.3 GB of memory are free; --precision bfloat16 takes 0.3",
        ),
        (100_000_000, "float32", True, r"takes about 0.5 GB and 0.1 GB of memory are free; choose a smaller model"),
        (100_000_000, "native", True, r"takes about 0.4 GB and 0.1 GB of memory are free; choose a smaller model"),
        (100_000_000, "native", False, r"takes about 0.2 GB and 0.1 GB of memory are free; choose a smaller model"),
    ],
)
def test_a_model_too_large_is_refused_with_numbers(
    monkeypatch: pytest.MonkeyPatch, free: int, precision: str, fast: bool, says: str
) -> None:
    """Without bfloat16 in hardware no second copy of 4-bit weights is made, and none is counted."""
    monkeypatch.setattr("engine.networks.small_weights.fast_bfloat16", lambda: fast)
    monkeypatch.setattr("engine.models.local.free_memory", lambda: free)
    with pytest.raises(OutOfMemoryError, match=says):
        load_model(EMBEDDED, precision=precision)


def test_the_estimate_covers_what_is_taken(tmp_path: Path) -> None:
    """The weights in memory are no more than what is asked for before they are read."""
    code = (
        "import resource, sys, torch\n"
        "from engine.loading import load_model\n"
        "from engine.networks.sources import open_source\n"
        "from engine.models import catalog\n"
        "import engine.networks.agreement, transformers\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"load_model({EMBEDDED!r}, precision='native')\n"
        "took = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024\n"
        f"print(took, open_source(catalog.find({EMBEDDED!r}).path).native_bytes)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took, asked = map(int, run.stdout.split())
    # Beside the weights there are the tokenizer, what transformers imports for it, and the products' workspaces.
    assert took < asked + 500_000_000


def test_errors_that_mean_no_memory_become_one_line() -> None:
    for error in (
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    ):
        assert isinstance(machine.as_ours(error), OutOfMemoryError)
    other = RuntimeError("something else")
    assert machine.as_ours(other) is other
    own = MachineError("ours")
    assert machine.as_ours(own) is own


@pytest.fixture
def logging_to_file():
    before = list(log.log.handlers)
    yield
    for handler in [handler for handler in log.log.handlers if handler not in before]:
        log.log.removeHandler(handler)
        with suppress(OSError):  # of the test whose disk is full
            handler.close()


def test_the_log_says_where_and_not_what_was_typed(logging_to_file: None) -> None:
    def fails(secret: str) -> None:
        raise ValueError(f"cannot use {secret}")

    log.start()
    try:
        fails("my private prompt")
    except ValueError as error:
        log.crash(error)
    text = log.path().read_text()
    assert "unexpected ValueError at test_machine.py" in text
    assert "private" not in text
    assert stat.S_IMODE(log.path().stat().st_mode) == 0o600


def test_with_debug_the_log_says_what(logging_to_file: None) -> None:
    log.start(debug=True)
    try:
        raise ValueError("my private prompt")
    except ValueError as error:
        log.crash(error)
    assert "my private prompt" in log.path().read_text()


def test_the_log_is_bounded_and_a_full_disk_is_no_reason_to_stop(logging_to_file: None) -> None:
    log.start()
    for _line in range(60):
        log.log.info("x" * 50_000)
    files = list(log.path().parent.glob("logitlab.log*"))
    assert len(files) == 1 + log.KEPT
    assert sum(file.stat().st_size for file in files) < (1 + log.KEPT) * (log.MOST_BYTES + 60_000)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    handler = log.log.handlers[-1]
    assert isinstance(handler, logging.Handler)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, handler.stream.fileno())  # type: ignore[attr-defined]
    os.close(full)
    log.log.info("into nothing")


def test_the_doctor_finds_an_installation_well(run_cli) -> None:
    process = run_cli("doctor")
    assert process.returncode == 0, process.stdout
    assert "five tokens, all as they must be" in process.stdout
    assert "smollm2-135m" in process.stdout
    found = json.loads(run_cli("doctor", "--json").stdout)
    assert all(one["well"] for one in found if one["what"] != "terminal")
    assert {"torch", "textual", "cache", "log", "self-test"} <= {one["what"] for one in found}


def test_the_doctor_names_a_model_that_writes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.install import doctor

    monkeypatch.setattr(doctor, "EXPECTED", (1, 2, 3, 4, 5))
    name, how, well = list(doctor.findings())[-1]
    assert (name, well) == ("self-test", False)
    assert how.startswith("wrong tokens: [260, 1512")


SOCKETS = (
    "import socket\n"
    "def refuse(*arguments, **options):\n"
    "    raise AssertionError('the network was used')\n"
    "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse\n"
)


@pytest.mark.parametrize(
    "arguments",
    [
        ["tokens", "The sky", "--offline"],
        ["models", "list"],
        ["models", "get", EMBEDDED],
        ["doctor"],
        ["bench", "--lengths", "2", "--repeats", "1"],
    ],
)
def test_no_network_is_used_unless_a_model_is_fetched(run_cli, arguments: list[str]) -> None:
    process = run_cli(*arguments, code=SOCKETS + MAIN, TERM="xterm")
    assert process.returncode == 0, process.stderr
    assert "network was used" not in process.stderr


def test_nor_while_everything_is_imported() -> None:
    code = f"import sys; sys.argv = ['logitlab', 'generate', 'The sky', '--max-new-tokens', '2']\n{SOCKETS}{MAIN}"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    assert "network was used" not in process.stderr


def test_telemetry_is_off() -> None:
    code = (
        "from engine.networks.pretrained import import_quietly; import_quietly(); "
        "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"


@pytest.mark.parametrize("on", [True, False])
def test_nothing_is_looked_through_while_libraries_are_imported(*, on: bool) -> None:
    was_on = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with importing("a library that is not there"):
            assert not gc.isenabled()
        assert gc.isenabled() == on
        with importing("sys"):  # which is there
            assert gc.isenabled() == on
        with suppress(ImportError), importing("a library that is not there"):
            raise ImportError
        assert gc.isenabled() == on
    finally:
        (gc.enable if was_on else gc.disable)()
