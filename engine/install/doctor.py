"""`logitlab doctor`: the facts about an installation that a report of a fault needs."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from engine.base import log, paths
from engine.base.errors import LogitlabError, first_line
from engine.base.language import _, current
from engine.base.machine import free_memory
from engine.generation.config import GenerationConfig
from engine.models import catalog
from engine.text.prompts import DEFAULT_PROMPT

PACKAGES = ("textual", "torch", "transformers", "tokenizers", "huggingface-hub", "gguf", "safetensors", "numpy")
# The embedded model's greedy continuation of the default prompt in float32, as transformers' `generate` gives it.
EXPECTED = (260, 1512, 436, 8441, 351)

Finding = tuple[str, str, bool]  # the thing, its state, whether that is good


def findings(cache_dir: Path | None = None) -> Iterator[Finding]:
    """Yield the findings, the self-test last."""
    yield _("logitlab"), _version("logitlab"), True
    yield "Python", f"{platform.python_version()} · {platform.platform()}", sys.version_info >= (3, 11)
    for package in PACKAGES:
        found = _version(package)
        yield package, found, found != "–"
    yield _("language"), current(), True
    yield _("terminal"), _terminal(), os.environ.get("TERM", "") not in ("", "dumb")
    yield from _folders(cache_dir)
    yield from _machine(cache_dir)
    yield _self_test(cache_dir)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "–"


def _terminal() -> str:
    size = shutil.get_terminal_size()
    facts = [os.environ.get("TERM", "") or "–", os.environ.get("COLORTERM", "") or "–", f"{size.columns}×{size.lines}"]
    if "NO_COLOR" in os.environ:
        facts.append("NO_COLOR")
    return " · ".join(facts)


def _folders(cache_dir: Path | None) -> Iterator[Finding]:
    for name, folder in ((_("cache"), paths.cache_dir(cache_dir)), (_("state"), paths.state_dir())):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        writable = os.access(there, os.W_OK)
        rights = _("writable") if writable else _("read-only")
        yield name, _("{folder} · {rights} · {free:.1f} GB free", folder=folder, rights=rights, free=free / 1e9), True
    models = [entry.name for entry in catalog.available(cache_dir) if entry.cached]
    yield _("models"), ", ".join(models) or _("none yet; logitlab models get smollm2-135m"), True
    yield _("log"), str(log.path()), True


def _machine(cache_dir: Path | None) -> Iterator[Finding]:
    import torch

    from engine.base.machine import processors
    from engine.networks import kernels, operators

    operators.begin(cache_dir=cache_dir)
    free = free_memory()
    yield _("processors"), f"{processors()} · {torch.backends.cpu.get_cpu_capability()}", True
    yield _("memory"), _("{free:.1f} GB free", free=free / 1e9) if free is not None else "–", True
    yield "GPU", *_gpus()
    for note in kernels.notes():
        product, _colon, how = note.partition(": ")
        yield product, how, True
    yield _("operators for blocks of a GGUF file"), operators.note(), True


def _gpus() -> tuple[str, bool]:
    """The GPUs that torch can compute on, and whether it can where some are there."""
    import torch

    if torch.backends.mps.is_available():
        return "MPS", True
    try:
        count = torch.cuda.device_count()
        names = [torch.cuda.get_device_name(index) for index in range(count)]
        if count:
            torch.ones(1, device="cuda").sum().item()
    except (RuntimeError, AssertionError) as error:  # a driver too old, or a GPU that this torch has no kernels for
        return _("torch cannot use it: {error}", error=first_line(error)), False
    return ", ".join(names) or _("none"), True


def _self_test(cache_dir: Path | None) -> Finding:
    """Five tokens of the embedded model, which must be the known ones."""
    name = _("self-test")
    if catalog.find(catalog.EMBEDDED_NAME, cache_dir).path is None:
        return name, _("not run: the embedded model is not in the cache"), True
    try:
        written = _five_tokens(cache_dir)
    except LogitlabError as error:
        return name, str(error), False
    if written != EXPECTED:
        return name, _("wrong tokens: {ids}; expected {expected}", ids=list(written), expected=list(EXPECTED)), False
    return name, _("five tokens, all as they must be"), True


def _five_tokens(cache_dir: Path | None) -> tuple[int, ...]:
    from engine.generation.events import Stepped
    from engine.generation.loop import generate
    from engine.models.local import LoadOptions, load

    model = load(catalog.EMBEDDED_NAME, LoadOptions(precision="float32", cache_dir=cache_dir, offline=True))
    events = generate(model.network, model.tokenizer, [DEFAULT_PROMPT], [GenerationConfig(max_new_tokens=5)])
    return tuple(event.token.id for event in events if isinstance(event, Stepped))
