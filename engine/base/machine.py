"""What this machine has: memory that is free, and errors that say there is none."""

import os
import sys
from pathlib import Path

from engine.base.errors import LogitlabError, OutOfMemoryError
from engine.base.language import _

# What torch says on processors, where it has no error of its own for it.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")


def free_memory() -> int | None:
    """Bytes that this process may still take: of the machine or, where that is less, of its container.

    Linux alone tells; `None` elsewhere.
    """
    found = [bytes for bytes in (_available(Path("/proc/meminfo")), _of_container(Path("/sys/fs/cgroup"))) if bytes]
    return min(found, default=None)


def no_memory(error: Exception) -> bool:
    """Whether an error tells that memory ran out."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in NO_MEMORY)


def as_ours(error: Exception) -> Exception:
    """An error in words for people where it tells that memory ran out; any other as it is."""
    if not isinstance(error, LogitlabError) and no_memory(error):
        return OutOfMemoryError(
            _("memory ran out; take a shorter prompt, fewer lanes or tokens, or a smaller model (F2)")
        )
    return error


def _available(meminfo: Path) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration, IndexError):
        return None


def _of_container(cgroup: Path) -> int | None:
    try:
        limit = int((cgroup / "memory.max").read_text())
        return max(1, limit - int((cgroup / "memory.current").read_text()))
    except (OSError, ValueError):  # none, or "max"
        return None


def processors() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
