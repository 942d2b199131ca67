"""Who may read and write what: a cache that several users share, files that belong to one."""

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.base import paths
from engine.models import catalog
from tests.conftest import EMBEDDED
from tests.warm import MAIN

AS_ANYBODY = f"from tests.rights import be_anybody; be_anybody(); {MAIN}"


@pytest.fixture
def shared(tiny_llama: Path, tmp_path: Path) -> Iterator[Path]:
    """A cache with the embedded model and one from the hub, which can only be read."""
    cache = tmp_path / "shared"
    embedded = catalog.find(EMBEDDED).path
    assert embedded is not None
    target = catalog.embedded_path(cache)
    target.parent.mkdir(parents=True)
    shutil.copy(embedded, target)
    if (measured := paths.cache_dir() / "networks.json").exists():  # as of somebody who has used it
        shutil.copy(measured, cache)
    snapshot = cache / "hub" / "models--lab--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(tiny_llama, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    everything = [cache, *cache.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield cache
    for path in everything:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def logitlab(run_cli) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """The command line, for which root is anybody."""
    return functools.partial(run_cli, code=AS_ANYBODY)


def test_anybody_is_held_to_what_files_allow(run_cli, shared: Path) -> None:
    code = f"from tests.rights import be_anybody; be_anybody(); open({str(shared / 'new')!r}, 'w')"
    assert "PermissionError" in run_cli(code=code).stderr


@pytest.mark.skipif(os.name == "nt", reason="rights are POSIX's")
def test_a_cache_that_can_only_be_read_serves_other_users(logitlab, shared: Path) -> None:
    before = sorted((str(path), path.stat().st_mtime_ns) for path in shared.rglob("*"))
    assert logitlab("doctor", "--json", "--cache-dir", str(shared)).returncode == 0
    for model in (EMBEDDED, "lab/tiny", "lab/tiny"):  # with nothing remembered, and with what could be
        ended = logitlab(
            *("generate", "the sky", "--model", model, "--offline", "--cache-dir", str(shared)),
            *("--max-new-tokens", "4", "--json"),
        )
        assert ended.returncode == 0, ended.stderr
        assert len(json.loads(ended.stdout)["lanes"][0]["tokens"]) == 4
    refused = logitlab("models", "remove", EMBEDDED, "--cache-dir", str(shared))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "unexpected" not in refused.stderr
    assert sorted((str(path), path.stat().st_mtime_ns) for path in shared.rglob("*")) == before


@pytest.mark.skipif(os.name == "nt", reason="rights are POSIX's")
def test_what_is_written_about_a_user_is_that_users_alone(logitlab, tiny_llama: Path) -> None:
    state = Path(os.environ["LOGITLAB_STATE_DIR"])
    before = os.umask(0)
    try:
        ended = logitlab("generate", "the secret sky", "--model", str(tiny_llama), "--temperature", "nonsense")
        assert ended.returncode == 2
        ended = logitlab("--model", str(tiny_llama / "none"))
        assert ended.returncode == 2
    finally:
        os.umask(before)
    assert not [path for path in state.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
