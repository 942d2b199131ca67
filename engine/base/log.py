"""The log in the state folder: errors and where they happened, but no typed text unless `--debug` is set."""

import logging
import os
import sys
import traceback
from logging.handlers import RotatingFileHandler
from pathlib import Path

from engine.base import paths

MOST_BYTES = 500_000
KEPT = 3

log = logging.getLogger("logitlab")
log.addHandler(logging.NullHandler())
log.propagate = False


class _PrivateFile(RotatingFileHandler):
    """A log that only its owner can read, also after each rotation."""

    def _open(self):  # type: ignore[no-untyped-def]
        file = super()._open()
        Path(self.baseFilename).chmod(0o600)
        return file


def path() -> Path:
    """The log file."""
    return paths.state_dir() / "logitlab.log"


def start(*, debug: bool = False) -> None:
    """Write to the log from now on; do nothing where the state folder cannot be written."""
    try:
        paths.state_dir().mkdir(parents=True, exist_ok=True)
        handler = _PrivateFile(path(), maxBytes=MOST_BYTES, backupCount=KEPT, encoding="utf-8", delay=True)
    except OSError:
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk must not stop the program
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if debug else logging.INFO)


def crash(error: BaseException) -> None:
    """Log an unexpected error and where it happened; its message only with `--debug`, because it may quote a text."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    log.error("unexpected %s at %s", type(error).__name__, where or "?")
    log.debug("it says: %r", str(error))
    log.info("python %s on %s, pid %d", sys.version.split()[0], sys.platform, os.getpid())
