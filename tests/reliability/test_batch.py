"""A batch whose server fails, and which is killed again and again: no job is lost or doubled."""

import random
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from engine.loading import load_model
from engine.models.local import LocalModel
from tests.engine.test_batch import results, write_jobs
from tests.model_server import ModelServer, send, serve
from tests.reliability.conftest import Figure, scale

pytest.importorskip("openai")


@pytest.fixture(scope="module")
def local(tiny_llama: Path) -> LocalModel:
    model = load_model(str(tiny_llama), precision="float32", threads=1)
    assert isinstance(model, LocalModel)
    return model


def failing(seed: int) -> Any:
    """One request in five fails."""
    generator = random.Random(seed)

    def fault(server: ModelServer, request: BaseHTTPRequestHandler, path: str, body: dict[str, Any]) -> bool:
        if not body.get("stream") or generator.random() > 0.2:
            return False
        if generator.random() < 0.5:
            send(request, {"error": {"message": "overloaded"}}, 503, Retry_After="0")
        else:
            request.close_connection = True
        return True

    return fault


def test_failures_and_kills_lose_and_double_nothing(local: LocalModel, tmp_path: Path, figure: Figure) -> None:
    count, kills = scale(40, 2_000), scale(2, 20)
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", count, tokens=1), tmp_path / "out.jsonl"
    with serve(local) as server:
        server.fault = failing(1)
        command = [sys.executable, "-c", "from engine.cli import main; main()", "batch", str(tmp_path / "jobs.jsonl")]
        command += ["--out", str(out), "--server", server.url, "--cache-dir", str(tmp_path), "--attempts", "20"]
        killed = 0
        while True:
            before = len(out.read_bytes().splitlines()) if out.exists() else 0
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            if killed == kills:
                assert process.wait(timeout=1000) == 0, process.stderr.read()
                break
            step = max(1, count // (kills + 2))
            deadline = time.monotonic() + 200
            while (len(out.read_bytes().splitlines()) if out.exists() else 0) < before + step:
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(random.Random(killed).choice((signal.SIGKILL, signal.SIGINT)))
            process.wait(timeout=60)
            killed += 1
        faults = len(server.texts_asked_for) - count
    found = results(out)
    assert sorted(one["id"] for one in found) == sorted(job.id for job in jobs)
    assert not [one for one in found if "error" in one]
    figure(
        "Jobs of a batch against a server of which one request in five fails",
        tried=count,
        lost=0,
        kills=kills,
        repeated=faults,
    )
