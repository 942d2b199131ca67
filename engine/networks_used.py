"""Which network each model ran through on this machine, and why: a small file beside the models."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from engine import paths
from engine.errors import MachineError
from engine.files import write_text


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
    """All outcomes, in the order they were measured; empty where none can be read."""
    try:
        return [NetworkUsed(**used) for used in json.loads(_file(cache_dir).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def record(used: NetworkUsed, cache_dir: Path | None = None) -> None:
    """Remember an outcome in place of the one before; silently not, where the cache cannot be written."""
    case = (used.name, used.precision, used.device)
    others = [other for other in recorded(cache_dir) if (other.name, other.precision, other.device) != case]
    try:
        paths.cache_dir(cache_dir).mkdir(parents=True, exist_ok=True)
        write_text(_file(cache_dir), json.dumps([asdict(one) for one in (*others, used)], indent=1) + "\n")
    except (OSError, MachineError):
        return  # it is measured again next time


def _file(cache_dir: Path | None) -> Path:
    return paths.cache_dir(cache_dir) / "networks.json"
