"""Checksums of large files, with progress."""

import hashlib
from pathlib import Path

from engine.base.language import _
from engine.models.progress import Loading, Report


def sha256(path: Path, report: Report) -> str:
    """A file's SHA-256 in hexadecimal digits; `report` gets the bytes read so far."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        done = 0
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            done += len(chunk)
            report(Loading("read", done, size, _("verify")))
    return digest.hexdigest()
