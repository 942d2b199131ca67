"""Which build of torch is installed: its CPU build where there is no NVIDIA driver, 1.6 GB in all instead of 5.3.

    python engine/install/torch_build.py [cpu|cuda]

installs the CPU build for the Python that runs this, or leaves torch to the `pip install` that follows. It runs before
anything is installed, so it uses the standard library alone.
"""

import argparse
import ctypes
import os
import ssl
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Thread
from urllib.request import Request, urlopen

CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # pyproject.toml has it for uv
ANSWER_SECONDS = 3
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def N_(message: str) -> str:
    """Marks a text for translation, as the language's own `N_` does, which needs the packages around it."""
    return message


TAKEN = N_("torch comes as its CPU build from {index} (1.6 GB in all; 5.3 GB with CUDA)")
SILENT = N_("{index} does not answer; torch comes from where pip finds it (5.3 GB in all with CUDA, 1.6 GB without)")
REFUSED = N_(
    "pip finds no torch at {index}; it comes from where pip finds it (5.3 GB in all with CUDA, 1.6 GB without)"
)


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """Where torch comes from.

    Attributes:
        index: of CPU builds, to be asked for torch alone; `None` leaves torch to pip's ordinary index.
        why: a sentence to say, with `{index}` in it; empty where nothing is out of the ordinary.
        asked: the index that `why` names.
    """

    index: str | None = None
    why: str = ""
    asked: str = ""


def choose(wanted: str | None = None) -> TorchBuild:
    """The build that is `wanted` (`cpu` or `cuda`), or the one that fits this machine.

    On macOS and Windows the ordinary index has CPU builds. Nothing is asked where pip may ask no index either.
    """
    if wanted == "cuda" or sys.platform != "linux" or _pip_asks_no_index():
        return TorchBuild()
    if wanted is None and has_nvidia_driver():
        return TorchBuild()
    asked = os.environ.get("LOGITLAB_TORCH_INDEX") or CPU_INDEX
    return TorchBuild(asked, TAKEN, asked) if answers(asked) else TorchBuild(None, SILENT, asked)


def has_nvidia_driver() -> bool:
    """Whether the driver's library loads, by the name by which torch loads it."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def answers(index: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Whether an index has torch and says so in time.

    The limit is a thread's, for a socket's bounds neither the look-up of a name nor an answer that comes byte by byte.
    """
    answered: list[int] = []

    def ask() -> None:
        certificates = ssl.create_default_context()
        with suppress(OSError, HTTPException, ValueError):
            if own := os.environ.get("PIP_CERT"):
                certificates.load_verify_locations(own)
            request = Request(f"{index.rstrip('/')}/torch/", headers={"User-Agent": "logitlab"})
            with urlopen(request, timeout=seconds, context=certificates) as reply:
                answered.append(reply.status)

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return bool(answered)


def pip_options(index: str) -> tuple[str, ...]:
    """What pip needs to take torch, and nothing that torch needs, from an index of CPU builds."""
    return "--no-deps", "--index-url", index, "torch"


def _pip_asks_no_index() -> bool:
    return os.environ.get("PIP_NO_INDEX", "").lower() in ("1", "true", "yes", "on")


def _is_installed() -> bool:
    """Whether torch is here in the version that is to be installed, in either build."""
    with suppress(PackageNotFoundError):
        return f"torch=={version('torch').partition('+')[0]}" in CONSTRAINTS.read_text(encoding="utf-8").split()
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wanted", nargs="?", choices=("cpu", "cuda"))
    wanted = parser.parse_args().wanted
    if _is_installed():
        return
    build = choose(wanted)
    if build.why:
        print(build.why.format(index=build.asked), flush=True)
    if build.index is not None:
        pip = (sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--constraint", str(CONSTRAINTS))
        if subprocess.run([*pip, *pip_options(build.index)], check=False).returncode:
            print(REFUSED.format(index=build.asked), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
