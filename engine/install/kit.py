"""`logitlab kit`: a folder for machines without a network: wheels, models, and a script that installs and opens."""

import json
import os
import shutil
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

from engine.base.errors import InputError, MachineError, first_line
from engine.base.files import write_text
from engine.base.language import _
from engine.install import torch_build
from engine.models import catalog
from engine.models.fetch import fetch
from engine.models.progress import Loading, Report
from engine.models.tokenizer_files import load_tokenizer

INSTALL = """#!/bin/sh
# Installs logitlab from this folder, without a network, and opens it. Run it again to open it at once.
#   sh install.sh                    the lab
#   sh install.sh generate "The sky" any command
set -eu
kit=$(cd "$(dirname "$0")" && pwd)
home=${LOGITLAB_HOME:-$HOME/.local/share/logitlab}
if [ ! -e "$home/venv/ready" ] || [ "$kit/constraints.txt" -nt "$home/venv/ready" ]; then
    echo "Installing logitlab into $home: this takes a minute, once."
    "${PYTHON:-python3}" -m venv "$home/venv"
    "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index \\
        --find-links "$kit/wheels" --constraint "$kit/constraints.txt" logitlab
    touch "$home/venv/ready"
fi
LOGITLAB_CACHE_DIR=${LOGITLAB_CACHE_DIR:-$kit/cache}
HF_HUB_OFFLINE=1
PIP_NO_INDEX=1
export LOGITLAB_CACHE_DIR HF_HUB_OFFLINE PIP_NO_INDEX
exec "$home/venv/bin/logitlab" "$@"
"""

ABOUT = """logitlab, for machines without a network
========================================

    sh install.sh

installs from this folder and opens the lab; the second time it opens at once. It needs Python {python} on
{platform}, and writes nothing but a virtual environment in ~/.local/share/logitlab (LOGITLAB_HOME changes it) and the
sessions of the person who uses it. The environment takes
{size}.

Thirty machines: put this folder on a share that all of them can read, or copy it. The model is read from where it
lies; nothing is written there, so one read-only copy serves every user. For one installation that all users share, an
administrator runs it once with LOGITLAB_HOME=/opt/logitlab.

The folder was made with `logitlab kit`. In it: wheels/ (Python packages), cache/ (the model), constraints.txt (exact
versions). Models: {models}.
"""


def make(
    folder: Path,
    names: list[str],
    report: Report = lambda progress: None,
    *,
    torch_index: str | None = None,
    offline: bool = False,
) -> None:
    """Gather a kit for machines like this one in `folder`.

    Args:
        names: models to put in, as `catalog.find` takes them.
        torch_index: where torch's CPU build comes from, see `torch_build.choose`.

    Raises:
        InputError: the folder exists and is no kit, or a model cannot be packed.
        MachineError: something could not be fetched or written.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "install.sh").is_file():
        raise InputError(_("{folder} is there and is no kit; give a new folder", folder=folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            _("cannot write {folder}: {reason}; choose another place", folder=folder, reason=error.strerror)
        ) from error
    titles = [_model(folder / "cache", name, report, offline=offline) for name in names]
    write_text(folder / "constraints.txt", "".join(f"{line}\n" for line in _installed()))
    report(Loading("fetch", 0, 0, _("wheels, with pip")))
    _wheels(folder, torch_index)
    write_text(folder / "install.sh", INSTALL)
    script = folder / "install.sh"
    script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    about = ABOUT.format(python=python, platform=_platform(), size=_size(folder), models=", ".join(titles))
    write_text(folder / "README.txt", about)


def _model(cache: Path, name: str, report: Report, *, offline: bool) -> str:
    """Put a model and its tokenizer into the kit's cache: copied from this machine, else fetched. Returns its title."""
    entry = catalog.find(name, cache)
    if entry.kind in ("folder", "gguf"):
        raise InputError(
            _("{name} is a file or folder of your own; copy it beside the kit and give its path", name=name)
        )
    here = catalog.find(name)
    if entry.path is None and here.path is not None and entry.kind == "embedded":
        target = catalog.embedded_path(cache)
        target.parent.mkdir(parents=True, exist_ok=True)
        report(Loading("read", 0, here.size, _("copying {title}", title=here.title)))
        shutil.copyfile(here.path, target)
        entry = catalog.find(name, cache)
    path = fetch(entry, report, cache_dir=cache, offline=offline)
    load_tokenizer(catalog.find(name, cache), path)
    return f"{entry.title} ({entry.license})"


def _installed() -> list[str]:
    """The installed versions of all packages that logitlab needs, as lines of a constraints file."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    waiting = ["logitlab"]
    while waiting:
        name = waiting.pop()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        key = distribution.metadata["Name"]
        if key in found:
            continue
        found[key] = distribution.version.partition("+")[0]
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return sorted((f"{name}=={version}" for name, version in found.items()), key=str.lower)


def _wheels(folder: Path, torch_index: str | None) -> None:
    """Every package as a wheel, logitlab's own too; none of an older kit stays, whose torch may be of another build."""
    gathered = folder / "wheels.new"
    shutil.rmtree(gathered, ignore_errors=True)
    gathered.mkdir()
    if torch_index is not None:
        _pip_wheel(folder, gathered, *torch_build.pip_options(torch_index))
    _pip_wheel(folder, gathered, "--find-links", str(gathered), _requirement())
    shutil.rmtree(folder / "wheels", ignore_errors=True)
    gathered.rename(folder / "wheels")


def _pip_wheel(folder: Path, gathered: Path, *what: str) -> None:
    command = [
        *(sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--quiet"),
        *("--wheel-dir", str(gathered), "--constraint", str(folder / "constraints.txt"), *what),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PIP_NO_INPUT": "1"})
    if run.returncode:
        lines = (
            [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or run.stderr.splitlines() or [""]
        )
        raise MachineError(
            _("pip could not gather the wheels: {error}; is there a network?", error=first_line(Exception(lines[-1])))
        )


def _size(folder: Path) -> str:
    """What an installation takes, by the build of torch that the kit holds."""
    if any((folder / "wheels").glob("nvidia_*.whl")):
        return "5.3 GB (1.6 GB with torch's CPU build: logitlab kit --torch cpu)"
    return "1.6 GB (5.3 GB with torch's CUDA build: logitlab kit --torch cuda)"


def _requirement() -> str:
    """What pip takes for this logitlab: its source folder, or its version on the index."""
    distribution = metadata.distribution("logitlab")
    origin = distribution.read_text("direct_url.json")
    if origin:
        url = urlparse(json.loads(origin).get("url", ""))
        if url.scheme == "file":
            return unquote(url.path)
    return f"logitlab=={distribution.version}"


def _platform() -> str:
    import platform

    return f"{platform.system()} {platform.machine()}"
