"""Fetching from the Hugging Face hub: the process `python -m engine.models.hub JOB`, which `fetch` starts.

The job is a JSON object: `repo_id`, `hub_dir` (`null` means huggingface_hub's own rule) and `language`. Each line of
the output is a JSON object too: progress with the fields of `Loading`, and last `{"path": …}` or `{"error": …}`.

huggingface_hub resumes the files that an attempt left unfinished.
"""

import hashlib
import io
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.base import language
from engine.base.errors import FetchError, first_line
from engine.base.language import _
from engine.base.retry import retry
from engine.models.checksums import sha256
from engine.models.progress import Loading, Report

ATTEMPTS = 5
WORTH_ANOTHER = (408, 429, 500, 502, 503, 504)
LONGEST_WAIT = 300  # seconds a hub may ask for: it counts requests in windows of five minutes
TIMEOUT = 10.0  # seconds of silence


def main() -> None:
    """Do the job that the command line names."""
    job = json.loads(sys.argv[1])
    language.choose(job["language"])
    out, sys.stdout = sys.stdout, sys.stderr
    one_at_a_time = threading.Lock()  # huggingface_hub fetches in several threads

    def tell(**line: object) -> None:
        with one_at_a_time:
            print(json.dumps(line), file=out, flush=True)

    try:
        folder = fetch(job["repo_id"], job["hub_dir"] and Path(job["hub_dir"]), lambda event: tell(**asdict(event)))
        tell(path=str(folder))
    except FetchError as error:
        tell(error=str(error))
    except BrokenPipeError:  # the parent process has ended
        os._exit(1)


def fetch(repo_id: str, hub_dir: Path | None, report: Report) -> Path:
    """The folder of a model that is whole; what fails for a moment is tried again. Raises `FetchError`."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    requests = _Requests(lambda: report(Loading("fetch", 0, 0, _again(repo_id, 0))))
    requests.watch()

    def attempt() -> Path:
        requests.forget()
        return _attempt(repo_id, hub_dir, report)

    try:
        return retry(
            attempt,
            attempts=ATTEMPTS,
            wait=_wait,
            before_wait=lambda seconds: report(Loading("fetch", 0, 0, _again(repo_id, seconds))),
        )
    except FetchError:
        raise
    except Exception as error:
        raise FetchError(_complaint(repo_id, error)) from error


class _Requests:
    """What huggingface_hub asks the hub for.

    It tries again by itself and shows that in its log alone. Here an answer that is worth another attempt is raised
    at once, for `retry` to wait and to show it; and a file that is asked for twice in an attempt shows that the
    connection broke.
    """

    def __init__(self, broken: Callable[[], None]) -> None:
        self._broken = broken
        self._asked: set[str] = set()

    def watch(self) -> None:
        """See the requests from now on."""
        from huggingface_hub import get_session, set_client_factory
        from huggingface_hub.utils import logging

        logging.set_verbosity_error()
        usual = get_session()
        hooks: dict[str, list[Callable[..., Any]]] = {
            "request": [*usual.event_hooks["request"], self._before_request],
            "response": [*usual.event_hooks["response"], self._after_response],
        }
        set_client_factory(
            lambda: type(usual)(event_hooks=hooks, follow_redirects=usual.follow_redirects, timeout=usual.timeout)
        )

    def forget(self) -> None:
        """Another attempt begins."""
        self._asked.clear()

    def _before_request(self, request: Any) -> None:
        if request.method == "GET":
            if str(request.url) in self._asked:
                self._broken()
            self._asked.add(str(request.url))

    def _after_response(self, response: Any) -> None:
        from huggingface_hub.utils import hf_raise_for_status

        if response.status_code in WORTH_ANOTHER:
            hf_raise_for_status(response)


def _attempt(repo_id: str, hub_dir: Path | None, report: Report) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.utils import filter_repo_objects
    from tqdm.std import tqdm

    class Watch(tqdm):
        """Counts the bytes that huggingface_hub reports to its progress bars."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **kwargs | {"file": io.StringIO(), "mininterval": math.inf})

        def update(self, n: float | None = 1) -> bool | None:
            result = super().update(n)
            if self.unit == "B" and self.total:
                report(Loading("fetch", int(self.n), max(total, int(self.total)), repo_id))
            return result

    patterns: dict[str, Any] = {
        "allow_patterns": ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md"],
        "ignore_patterns": ["*/*", "consolidated*", "*.fp16.safetensors", "*.fp16-*.safetensors"],
    }
    files = HfApi().model_info(repo_id, files_metadata=True, timeout=TIMEOUT).siblings or []
    wanted = list(filter_repo_objects(files, key=lambda file: file.rfilename, **patterns))
    weights = [file for file in wanted if file.rfilename.endswith(".safetensors")]
    if not weights:
        raise FetchError(
            _(
                "{repo_id} has no safetensors weights, and pickled ones are never loaded; choose another",
                repo_id=repo_id,
            )
        )
    if not any(file.rfilename == "config.json" for file in wanted):
        raise FetchError(
            _("{repo_id} has no config.json with safetensors weights; choose a causal language model", repo_id=repo_id)
        )
    total = sum(file.size or 0 for file in weights)
    needed = total - shutil.disk_usage(_existing(hub_dir or Path(constants.HF_HUB_CACHE))).free
    if needed > 0:
        raise FetchError(
            _(
                "{repo_id} needs {total:,.0f} MB, {needed:,.0f} MB more than the disk has free",
                repo_id=repo_id,
                total=total / 1e6,
                needed=needed / 1e6,
            )
        )
    folder = Path(snapshot_download(repo_id, tqdm_class=Watch, cache_dir=hub_dir, **patterns))
    _verify(repo_id, folder, wanted, report)
    return folder


class _Damaged(FetchError):
    """A file that arrived differs from the published one."""


def _wait(error: Exception, backoff: float) -> float | None:
    """Seconds until another attempt is worth it: what the hub asks for, else `backoff`; `None` where none is."""
    from huggingface_hub import errors

    if isinstance(error, _Damaged):
        return 0
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    if isinstance(cause, errors.HfHubHTTPError):
        if cause.response is None or cause.response.status_code not in WORTH_ANOTHER:
            return None
        asked = _asked_seconds(cause.response.headers)
        return backoff if asked is None else asked if asked <= LONGEST_WAIT else None
    families = {family.__name__ for family in type(cause).__mro__}  # of the httpx that huggingface_hub uses
    return backoff if "TransportError" in families and not families & {"ConnectError", "ProxyError"} else None


def _asked_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds that a hub asks to wait: `RateLimit` (draft-ietf-httpapi-ratelimit-headers-09), else `Retry-After`."""
    from huggingface_hub.utils import parse_ratelimit_headers

    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds + 1.0  # it is rounded down
    asked = headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else None


def _complaint(repo_id: str, error: Exception) -> str:
    """One line about an error of huggingface_hub, httpx or the system, and what to do."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return _("{repo_id} is gated; accept its terms on the hub and set HF_TOKEN", repo_id=repo_id)
        case errors.RepositoryNotFoundError():
            return _("the hub has no model {repo_id} (or it is private: set HF_TOKEN)", repo_id=repo_id)
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            return _(
                "{repo_id} is not in the cache and the hub cannot be reached; check the network or HF_ENDPOINT",
                repo_id=repo_id,
            )
        case errors.HfHubHTTPError():
            status = getattr(error.response, "status_code", _("an error"))
            return _("the hub answered {status} for {repo_id}; try again later", status=status, repo_id=repo_id)
        case OSError():
            return _(
                "fetching {repo_id} failed: {error}; check disk and network, then try again",
                repo_id=repo_id,
                error=first_line(error),
            )
        case _:  # httpx and xet raise their own families
            return _(
                "fetching {repo_id} failed: {error}; check the network, then try again",
                repo_id=repo_id,
                error=first_line(error),
            )


def _again(repo_id: str, seconds: float) -> str:
    if seconds:
        return _("{repo_id}: the hub failed, next attempt in {seconds:.0f} s", repo_id=repo_id, seconds=seconds)
    return _("{repo_id}: the connection broke, going on", repo_id=repo_id)


def _verify(repo_id: str, folder: Path, files: Sequence[Any], report: Report) -> None:
    """Compare the files with the hashes that the hub publishes, which huggingface_hub does not; delete what differs.

    Raises:
        FetchError: a file is missing, or differs.
    """
    missing = [published for published in files if not (folder / published.rfilename).is_file()]
    damaged = []
    for published in files:
        file = folder / published.rfilename
        if published in missing:
            continue
        if published.lfs is not None:
            whole = sha256(file, report) == published.lfs.sha256
        else:
            whole = published.blob_id is None or _git_hash(file) == published.blob_id
        if not whole:
            damaged.append(published)
            file.resolve().unlink(missing_ok=True)
            file.unlink(missing_ok=True)
    if damaged:
        raise _Damaged(
            _(
                "{name} of {repo_id} arrived damaged; it is deleted: try again",
                name=damaged[0].rfilename,
                repo_id=repo_id,
            )
        )
    if missing:
        raise _Damaged(
            _(
                "{name} of {repo_id} did not arrive; check the network, then try again",
                name=missing[0].rfilename,
                repo_id=repo_id,
            )
        )


def _git_hash(file: Path) -> str:
    """The SHA-1 by which git names a file's contents."""
    data = file.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


if __name__ == "__main__":
    main()
