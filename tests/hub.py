"""A Hugging Face hub on 127.0.0.1: the parts of its protocol that huggingface_hub uses, faults included."""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.loopback import listening

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves folders as models.

    Attributes:
        url: for `HF_ENDPOINT`.
        requests: how often each path was asked for.
        status: answer every request with this code instead, when set; a client need not wait before it tries again.
        faults: asked before each answer; True when it has answered, or failed to, in its own way.
        break_after: close the connection after so many bytes of a file, `breaks` times.
        named: further names that a model's list of files holds, of files that it has not.
        closing: set when the hub ends, for faults that wait.
    """

    def __init__(self) -> None:
        self.models: dict[str, Path] = {}
        self.requests: Counter[str] = Counter()
        self.status: int | None = None
        self.error_code = ""
        self.break_after: int | None = None
        self.breaks = 0
        self.url = ""
        self.named: list[str] = []
        self.closing = threading.Event()
        self.faults: Callable[[Hub, BaseHTTPRequestHandler, str], bool] | None = None

    @contextmanager
    def failing(self, faults: "Callable[[Hub, BaseHTTPRequestHandler, str], bool]") -> Iterator[None]:
        """Have these faults for the length of a `with`."""
        self.faults = faults
        try:
            yield
        finally:
            self.faults = None

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests[path] += 1
        if self.faults is not None and self.faults(self, request, path):
            return None
        if self.status is not None:
            headers = {"Retry-After": "0"} | ({"X-Error-Code": self.error_code} if self.error_code else {})
            return self._send(request, self.status, b"{}", headers)
        if found := re.fullmatch(r"/api/models/(.+?)(?:/(revision|tree)/[^/]+)?/?", path):
            folder = self.models.get(found[1])
            if folder is None:
                return self._send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
            files = [self._file(file) for file in sorted(folder.iterdir()) if file.is_file()]
            more = [
                {"type": "file", "path": name, "rfilename": name, "size": 4, "oid": "0" * 40} for name in self.named
            ]
            if found[2] == "tree":
                return self._send(request, 200, json.dumps(files + more).encode())
            info = {"id": found[1], "modelId": found[1], "sha": COMMIT, "private": False, "tags": []}
            return self._send(
                request,
                200,
                json.dumps(
                    info | {"siblings": [self._sibling(folder / str(f["path"])) for f in files] + more}
                ).encode(),
            )
        if found := re.fullmatch(r"/(.+?)/resolve/[^/]+/(.+)", path):
            folder = self.models.get(found[1])
            if folder is None or not (folder / found[2]).is_file():
                return self._send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
            return self._send_file(request, folder / found[2])
        return self._send(request, 404, b"{}")

    def _sibling(self, file: Path) -> dict[str, object]:
        """As the hub describes a file with its metadata: large ones by SHA-256, small ones by git's hash."""
        data = file.read_bytes()
        told: dict[str, object] = {"rfilename": file.name, "size": len(data)}
        told["blobId"] = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        if file.suffix == ".safetensors":
            told["lfs"] = {"sha256": _etag(file), "size": len(data), "pointerSize": 134}
        return told

    def _file(self, file: Path) -> dict[str, object]:
        return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _etag(file)[:40]}

    def _send_file(self, request: BaseHTTPRequestHandler, file: Path) -> None:
        data = file.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(file)}"', "Accept-Ranges": "bytes"}
        start = 0
        if wanted := re.match(r"bytes=(\d+)-", request.headers.get("Range", "")):
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        request.send_response(206 if start else 200)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        if self.break_after is not None and self.breaks > 0 and len(body) > self.break_after:
            self.breaks -= 1
            request.wfile.write(body[: self.break_after])
            request.close_connection = True
            return
        request.wfile.write(body)

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        request.send_response(status)
        for name, value in (
            {"Content-Length": str(len(body)), "Content-Type": "application/json"} | (headers or {})
        ).items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub in a thread for the length of a `with`."""
    hub = Hub()
    with listening(hub.answer) as hub.url:
        try:
            yield hub
        finally:
            hub.closing.set()


def _etag(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
