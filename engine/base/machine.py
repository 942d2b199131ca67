"""What this machine has: free memory, processors, and errors for people where memory ran out."""

import os
from pathlib import Path
from typing import Literal

from engine.base.errors import LogitlabError, OutOfMemoryError
from engine.base.language import _

# What torch writes where it has no error class for it: on processors, and of libraries on a GPU.
NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "Cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def free_memory() -> int | None:
    """Bytes that this process may still take: of the machine or, where that is less, of its container.

    `None` where the system does not say.
    """
    found = (_of_machine(), _of_container(Path("/sys/fs/cgroup")))
    return min((free for free in found if free is not None), default=None)


Room = Literal["float32", "bfloat16", "none", "unknown"]


def room_for(weights: int, free: int | None) -> Room:
    """In which precision so many numbers fit into `free` bytes; `unknown` where one of them is not known."""
    if free is None or not weights:
        return "unknown"
    return "float32" if 4 * weights <= free else "bfloat16" if 2 * weights <= free else "none"


def no_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in NO_MEMORY)


def as_ours(error: Exception) -> Exception:
    """An `OutOfMemoryError` in place of an error that means that memory ran out; any other error as it is."""
    if not isinstance(error, LogitlabError) and no_memory(error):
        return OutOfMemoryError(_("memory ran out; take a shorter prompt, fewer lanes or tokens, or a smaller model"))
    return error


def _of_machine() -> int | None:
    import psutil

    try:
        return int(psutil.virtual_memory().available)
    except (OSError, RuntimeError):  # such as a Linux without /proc
        return None


def _of_container(cgroup: Path) -> int | None:
    """Bytes below the limit of version 2 of Linux's control groups; `None` without one, 1 where none is left."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        return max(1, limit - int((cgroup / "memory.current").read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return None


def processors() -> int:
    """Number of processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
