"""From a catalogue entry to a `Model` that can generate."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from engine.base.errors import InputError, LogitlabError, ModelFileError, OutOfMemoryError, first_line
from engine.base.language import _
from engine.base.machine import free_memory, no_memory
from engine.generation.events import Loading
from engine.models import catalog
from engine.models.fetch import Cancelled, Report, fetch
from engine.models.tokenizer_files import load_tokenizer
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.generation.config import GenerationConfig
    from engine.generation.events import Event, Start
    from engine.generation.score import Scored
    from engine.networks import Network
    from engine.networks.sources import Source
    from engine.networks.transformers import TransformersNetwork
    from engine.remote import Capabilities, ServedModel
    from engine.text.tokenizer import Token

Precision = Literal["auto", "native", "bfloat16", "float32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
Device = Literal["auto", "cpu", "cuda", "mps"]
DEVICES: tuple[str, ...] = get_args(Device)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What there is to say about a loaded model.

    Attributes:
        architecture: transformers' model type, such as `llama`.
        parameters: number of weights.
        precision: of the weights as they run: `float32`, `bfloat16`, or a file's own such as `Q4_1`.
        threads: processor threads the network uses.
        hidden_size: numbers in the vector that stands for a position.
        path: which implementation runs.
        path_reason: why that one: what was measured, or what our own networks lack.
        memory_used, memory_free: bytes on the GPUs once loaded; `None` elsewhere.
        identity: hash of the weights, see `catalog.identity`.
    """

    name: str
    title: str
    architecture: str
    parameters: int
    precision: str
    device: str
    context_length: int
    vocabulary_size: int
    hidden_size: int
    threads: int
    path: str
    path_reason: str
    source: str
    license: str
    memory_used: int | None = None
    memory_free: int | None = None
    identity: str = ""


@dataclass(frozen=True)
class Model:
    """A loaded model: facts, tokenizer and network."""

    facts: ModelFacts
    tokenizer: Tokenizer
    network: "Network"
    capabilities: "Capabilities | None" = None  # of a server; what runs here can do everything

    def generate(
        self,
        prompts: "Sequence[str | Start]",
        configs: "Sequence[GenerationConfig]",
        *,
        paused: Callable[[], bool] = lambda: False,
        **options: Any,
    ) -> "Iterator[Event]":
        """Continue each prompt under the configuration beside it: see `loop.generate`."""
        from engine.generation.loop import generate

        return generate(self.network, self.tokenizer, prompts, configs, **options)

    def score(self, tokens: "Sequence[Token]") -> "Iterator[Scored]":
        """How well the model expected each token of a text: see `loop.score`."""
        from engine.generation.loop import score

        return score(self.network, tokens)

    def close(self) -> None:
        """Nothing is held that memory does not hold."""


def load_model(
    name: str | None = None,
    *,
    precision: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    offline: bool = False,
    cache_dir: Path | None = None,
    report: Report = lambda progress: None,
    cancelled: Callable[[], bool] = lambda: False,
    tokenizer_loaded: Callable[[Tokenizer], None] = lambda tokenizer: None,
) -> "Model | ServedModel":
    """Fetch a model where needed and load it, in the thread that will use it; or reach a server that has one.

    Args:
        name: as `catalog.find` takes it, or a server's address; the last used model when `None`.
        precision: `native` keeps a GGUF file's own numbers; `auto` is the fastest correct one.
        threads: processor threads; all of them when `None`.
        report: told of each stage: fetch, read, pack, ready.
        cancelled: asked now and then; True raises `fetch.Cancelled`.
        tokenizer_loaded: given the tokenizer as soon as it is there, before torch is imported.

    Raises:
        InputError, MachineError: with one line that says what to do.
    """
    if precision not in PRECISIONS:
        raise InputError(
            _("precision is {precision!r}; allowed: {names}", precision=precision, names=", ".join(PRECISIONS))
        )
    if device not in DEVICES:
        raise InputError(_("device is {device!r}; allowed: {names}", device=device, names=", ".join(DEVICES)))
    if threads is not None and not 1 <= threads <= 1024:
        raise InputError(_("threads is {threads}; allowed: from 1 to 1024", threads=threads))
    name = name or catalog.default_name()
    if catalog.is_address(name):
        return _served(name, report, offline=offline, cache_dir=cache_dir, cancelled=cancelled)
    return _load(name, precision, device, threads, offline, cache_dir, report, cancelled, tokenizer_loaded)


def load_local(name: str | None = None, **options: Any) -> Model:
    """`load_model` for what only a network that runs here can do. Raises `InputError` for a server's address."""
    model = None if name is not None and catalog.is_address(name) else load_model(name, **options)
    if not isinstance(model, Model):
        raise InputError(_("this needs the model's own numbers, which no server tells; leave --server out"))
    return model


def _load(
    name: str,
    precision: str,
    device: str,
    threads: int | None,
    offline: bool,
    cache_dir: Path | None,
    report: Report,
    cancelled: Callable[[], bool],
    tokenizer_loaded: Callable[[Tokenizer], None],
) -> Model:
    entry = catalog.find(name, cache_dir)
    path = fetch(entry, report, cache_dir=cache_dir, offline=offline, cancelled=cancelled)
    report(Loading("read", 0, entry.size, "tokenizer"))
    tokenizer = load_tokenizer(entry, path, cache_dir)
    tokenizer_loaded(tokenizer)
    report(Loading("read", 0, entry.size, "import torch"))
    import torch

    threads = threads or processors()
    torch.set_num_threads(threads)
    device = _device(device)
    try:
        if cancelled():
            raise Cancelled
        report(Loading("read", 0, entry.size, path.name))
        from engine.networks.sources import open_source

        source = open_source(path)
        network, ran, reason = _network(entry.name, source, precision, device, report, cache_dir)
    except (LogitlabError, Cancelled):
        raise
    except Exception as error:  # whatever a library says about a model it cannot use
        if no_memory(error):
            raise OutOfMemoryError(
                _("{title} does not fit into memory; try a smaller model or --precision bfloat16", title=entry.title)
            ) from error
        raise ModelFileError(_("{name} cannot be loaded: {error}", name=entry.name, error=first_line(error))) from error
    if tokenizer.highest_id >= network.vocabulary_size:
        raise ModelFileError(
            _(
                "{name} cannot be loaded: its tokenizer has ids up to {highest:,}, its vocabulary {size:,} entries",
                name=entry.name,
                highest=tokenizer.highest_id,
                size=network.vocabulary_size,
            )
        )
    facts = ModelFacts(
        name=entry.name,
        title=entry.title,
        architecture=str(source.config.get("model_type", "unknown")),
        parameters=network.parameters,
        precision=ran,
        device=device,
        context_length=network.context_length,
        vocabulary_size=network.vocabulary_size,
        hidden_size=int(source.config.get("hidden_size") or source.config.get("n_embd") or 0),
        threads=threads,
        path=network.path,
        path_reason=reason,
        source=entry.source,
        license=entry.license,
        identity=catalog.identity(entry, path),
        **_gpu_memory(device),
    )
    report(Loading("ready", 1, 1, entry.title))
    return Model(facts, tokenizer, network)


def _served(
    name: str, report: Report, *, offline: bool, cache_dir: Path | None, cancelled: Callable[[], bool]
) -> "ServedModel":
    """The model of a server."""
    from engine.remote import connect

    if offline:
        raise InputError(_("--offline is set, and a server needs a network; leave one of them out"))
    report(Loading("read", 0, 0, _("asking {name} what it can do", name=name)))
    model = connect(name, cache_dir=cache_dir, cancelled=cancelled)
    report(Loading("ready", 1, 1, model.facts.title))
    return model


def processors() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def other_tokenizers(name: str, cache_dir: Path | None = None) -> list[tuple[str, Tokenizer]]:
    """Tokenizers of the models in the cache but `name`, each with its model's name; those that can be used."""
    found = []
    for entry in catalog.available(cache_dir):
        if entry.path is not None and entry.name != name:
            with suppress(LogitlabError, OSError):
                found.append((entry.name, load_tokenizer(entry, entry.path, cache_dir)))
    return found


def load_reference(name: str, *, cache_dir: Path | None = None) -> "TransformersNetwork":
    """The same weights in transformers' own module, float32, on the CPU: what ours is compared with."""
    import torch

    from engine.networks.sources import open_source

    entry = catalog.find(name, cache_dir)
    if entry.path is None:
        raise InputError(_("{name} is not in the cache; fetch it with: logitlab models get {name}", name=name))
    return open_source(entry.path).reference(torch.float32)


def _network(
    name: str, source: "Source", precision: str, device: str, report: Report, cache_dir: Path | None
) -> tuple["Network", str, str]:
    """The fastest network that is right here, the precision it runs in, and why it is that one."""
    from engine.networks import agreement

    def progress(done: int, total: int, part: str) -> None:
        report(Loading("pack", done, total, part))

    dtype, native = source.dtype(precision, device)
    if device == "cpu":
        _check_memory(name, source, dtype.itemsize, native=native)
    dense = str(dtype).removeprefix("torch.")
    used = agreement.choose(
        name,
        source,
        dtype,
        native=native,
        device=device,
        cache_dir=cache_dir,
        measuring=lambda: report(Loading("check", 0, 0, _("our own network against transformers, once"))),
    )
    if not used.own:
        return source.reference(dtype, device=device, progress=progress), dense, used.why
    network = source.own(dtype, native=native, device=device, progress=progress)
    if device == "cuda":
        from engine.networks.graphs import GraphedNetwork

        network = GraphedNetwork(network)
    elif device == "cpu":
        from engine.networks.traced import TracedNetwork

        network = TracedNetwork(network)
    return network, source.encoding if native else dense, used.why


def _check_memory(name: str, source: "Source", bytes_each: int, *, native: bool) -> None:
    """Raise `OutOfMemoryError` for a model whose weights would not fit into what is free."""
    needed = source.native_bytes if native else source.weights * bytes_each
    free = free_memory()
    if free is None or needed <= free:
        return
    smaller = source.weights * 2
    advice = (
        _("--precision bfloat16 takes {smaller:.1f} GB", smaller=smaller / 1e9)
        if not native and bytes_each > 2 and smaller <= free
        else _("choose a smaller model, or close other programs")
    )
    raise OutOfMemoryError(
        _(
            "{name} takes about {needed:.1f} GB and {free:.1f} GB of memory are free; {advice}",
            name=name,
            needed=needed / 1e9,
            free=free / 1e9,
            advice=advice,
        )
    )


def _device(wanted: str) -> str:
    import torch

    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        return "cuda"
    if wanted in ("auto", "mps") and torch.backends.mps.is_available():
        return "mps"
    if wanted not in ("auto", "cpu"):
        raise InputError(_("this machine has no {wanted} device; use --device cpu or auto", wanted=wanted))
    return "cpu"


def _gpu_memory(device: str) -> dict[str, int]:
    """Bytes used by this process and free, over all GPUs."""
    if device != "cuda":
        return {}
    import torch

    gpus = range(torch.cuda.device_count())
    return {
        "memory_used": sum(torch.cuda.memory_allocated(gpu) for gpu in gpus),
        "memory_free": sum(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus),
    }
