"""Which network each model ran through on this machine, and why: a small file beside the models."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.base import paths
from engine.base.errors import MachineError
from engine.base.files import write_text


@dataclass(frozen=True, slots=True)
class NetworkUsed:
    """How a model ran when it was last loaded in one precision on one device.

    Attributes:
        own: whether it is a network of ours.
        network: which one.
        why: what was measured, or why no network of ours is used.
        key: of everything the outcome depends on.
    """

    name: str
    precision: str
    device: str
    own: bool
    network: str
    why: str
    key: str


def recorded(cache_dir: Path | None = None) -> list[NetworkUsed]:
    """All outcomes, in the order they were measured: those beside the models, then this user's own."""
    found: dict[tuple[str, str, str], NetworkUsed] = {}
    for file in _files(cache_dir):
        for used in _read(file):
            found[used.name, used.precision, used.device] = used
    return list(found.values())


def record(used: NetworkUsed, cache_dir: Path | None = None) -> None:
    """Remember an outcome in place of the one before: beside the models, or for this user where they are read-only."""
    case = (used.name, used.precision, used.device)
    for file in _files(cache_dir):
        others = [other for other in _read(file) if (other.name, other.precision, other.device) != case]
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps([asdict(one) for one in (*others, used)], indent=1) + "\n")
            return
        except (OSError, MachineError):
            continue  # measured again next time, where neither can be written


def _read(file: Path) -> list[NetworkUsed]:
    try:
        return [NetworkUsed(**used) for used in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _files(cache_dir: Path | None) -> tuple[Path, Path]:
    return paths.cache_dir(cache_dir) / "networks.json", paths.state_dir() / "networks.json"
