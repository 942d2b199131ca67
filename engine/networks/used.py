"""Which network each model ran through on this machine, and why: a small file beside the models."""

from dataclasses import dataclass
from pathlib import Path

from engine.base import paths
from engine.base.state import keep, recall
from engine.networks.ways import Way

MAX_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class NetworkUsed:
    """How a model ran when it was last loaded in one precision on one device.

    Attributes:
        own: whether it is a network of ours.
        network: which one.
        why: what was measured, or why no network of ours is used.
        key: of everything the outcome depends on.
        way: in which transformers' module is used; `None` for networks of ours, and before it is measured.
    """

    name: str
    precision: str
    device: str
    own: bool
    network: str
    why: str
    key: str
    way: Way | None = None

    @property
    def reason(self) -> str:
        """Why this network, and in which way where that is not the usual one."""
        return "; ".join(filter(None, (self.why, self.way.words if self.way else "")))


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
        if keep(file, [*others, used], mode=None):
            return  # measured again next time, where neither can be written


def _read(file: Path) -> list[NetworkUsed]:
    return recall(file, list[NetworkUsed], MAX_BYTES) or []


def _files(cache_dir: Path | None) -> tuple[Path, Path]:
    return paths.cache_dir(cache_dir) / "networks.json", paths.state_dir() / "networks.json"
