"""A package index on 127.0.0.1 that serves one wheel to pip, faults included."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.loopback import listening

Fault = Callable[[BaseHTTPRequestHandler, bytes], bool]


class PackageIndex:
    """Serves `wheel`.

    Set `fault` to answer requests for the wheel otherwise: it is given the request and the wheel's bytes, and returns
    whether it answered. `page_fault` does the same for the page that names the wheel. `closing` is set when the index
    ends, for faults that wait.
    """

    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel
        self.fault: Fault | None = None
        self.page_fault: Fault | None = None
        self.asked = 0
        self.closing = threading.Event()
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path.startswith("/simple/"):
            page = f'<!DOCTYPE html><a href="/files/{self.wheel.name}">{self.wheel.name}</a>'.encode()
            if self.page_fault is None or not self.page_fault(request, page):
                send(request, page, "text/html")
            return
        data = self.wheel.read_bytes()
        self.asked += 1
        if self.fault is None or not self.fault(request, data):
            send(request, data, "application/octet-stream")


def send(request: BaseHTTPRequestHandler, data: bytes, kind: str, told: int | None = None) -> None:
    """Send bytes, and say that there are as many, or that there are `told`."""
    request.send_response(200)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(data) if told is None else told))
    request.end_headers()
    request.wfile.write(data)
    request.wfile.flush()
    if told is not None:
        request.close_connection = True


@contextmanager
def serve(wheel: Path) -> Iterator[PackageIndex]:
    """Run an index in a thread for the length of a `with`."""
    index = PackageIndex(wheel)
    with listening(index.answer) as url:
        index.url = f"{url}/simple/"
        try:
            yield index
        finally:
            index.closing.set()


def in_index(monkeypatch: pytest.MonkeyPatch, index: PackageIndex) -> None:
    """Point pip at an index and nowhere else."""
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    for name, value in (("INDEX_URL", index.url), ("EXTRA_INDEX_URL", ""), ("RETRIES", "1"), ("TIMEOUT", "1")):
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
