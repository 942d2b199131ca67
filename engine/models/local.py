"""A model in this process."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, cast

from engine.base.errors import (
    Cancelled,
    InputError,
    LogitlabError,
    MachineError,
    ModelFileError,
    ModelNameError,
    OutOfMemoryError,
    first_line,
)
from engine.base.garbage import importing
from engine.base.language import _
from engine.base.machine import free_memory, no_memory, processors, room_for
from engine.models import catalog
from engine.models.capabilities import LOCAL, Capabilities
from engine.models.fetch import fetch
from engine.models.model import DEVICES, KERNELS, PRECISIONS, Model, ModelFacts
from engine.models.own import NONE, OwnSettings, own_settings
from engine.models.progress import Loading, Report
from engine.models.tokenizer_files import load_tokenizer
from engine.networks.pretrained import adapted_model
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.generation.amateur import Amateur
    from engine.generation.config import GenerationConfig
    from engine.generation.drafts import DraftModel
    from engine.generation.events import Event, Start
    from engine.generation.inspection import Inspection
    from engine.generation.memory import KeptLogits, LaneState
    from engine.generation.score import Scored
    from engine.generation.together import Entered
    from engine.networks.network import Network
    from engine.networks.sources import Source
    from engine.networks.transformers import TransformersNetwork
    from engine.text.token import Token


@dataclass(frozen=True)
class LocalModel:
    """A `Model` whose network is in this process."""

    facts: ModelFacts
    tokenizer: Tokenizer
    network: "Network"
    capabilities: Capabilities = LOCAL
    own: OwnSettings = NONE

    def generate(
        self,
        prompts: "Sequence[str | Start]",
        configs: "Sequence[GenerationConfig]",
        *,
        paused: Callable[[], bool] = lambda: False,
        **options: Any,
    ) -> "Iterator[Event]":
        """See `loop.generate`."""
        from engine.generation.loop import generate

        return generate(self.network, self.tokenizer, prompts, configs, **options)

    def enter(
        self,
        prompts: "Sequence[str | Start]",
        configs: "Sequence[GenerationConfig]",
        *,
        numbers: Sequence[int],
        candidates: int = 20,
        cancelled: Callable[[], bool] = lambda: False,
        keep_logits: "Callable[..., KeptLogits] | None" = None,
        keep_state: "Callable[[LaneState], None] | None" = None,
        amateurs: "Sequence[Amateur | None]" = (),
        drafts: "Sequence[DraftModel | None]" = (),
        **_served: object,
    ) -> "Entered":
        """See `loop.enter`."""
        from engine.generation.loop import enter
        from engine.generation.telling import Telling

        telling = Telling(self.tokenizer, candidates, keep_logits, keep_state)
        how: dict[str, Any] = {"numbers": numbers, "cancelled": cancelled}
        return enter(self.network, prompts, configs, telling, amateurs=amateurs, drafts=drafts, **how)

    def score(self, tokens: "Sequence[Token]") -> "Iterator[Scored]":
        """See `scoring.score`."""
        from engine.generation.scoring import score

        return score(self.network, tokens)

    def inspect(self, start: "Start", config: "GenerationConfig", amateur: "Amateur | None" = None) -> "Inspection":
        """The step after a text, all of it. Raises `InputError`, `ContextError`."""
        from engine.generation.amateur import amateur_after
        from engine.generation.context import check_context
        from engine.generation.guidance import others_after
        from engine.generation.inspection import Inspection
        from engine.generation.loop import logits_after

        check_context(len(start.ids), replace(config, max_new_tokens=1), self.network.context_length)
        prompt = [token.id for token in start.prompt]
        logits = logits_after(self.treated(config.interventions, prompt).network, start.ids)
        others = others_after(self.network, self.tokenizer, config, prompt, start.written)
        second = amateur_after(config, amateur, prompt, start.written)
        return Inspection(
            logits,
            self.tokenizer,
            start.ids,
            config,
            others=others,
            negative=config.negative_prompt,
            amateur=second,
            amateur_name=config.amateur,
            prompt=len(prompt),
        )

    def treated(self, interventions: Sequence[str], prompt: Sequence[int]) -> "LocalModel":
        """The model under a configuration's interventions, as it continues a prompt. Raises `InputError`."""
        from engine.generation.intervening import treated

        return replace(self, network=treated(self.network, self.tokenizer, interventions, prompt).network)

    def close(self) -> None:
        """Do nothing: there is no connection."""


def with_network(model: Model, otherwise: str) -> LocalModel:
    """The model as a `LocalModel`. Raises `InputError` with the sentence `otherwise` where a server runs it."""
    if not model.capabilities.network:
        raise InputError(otherwise)
    return cast(LocalModel, model)


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded. Invalid values raise `InputError` at construction.

    Attributes:
        precision: `native` keeps a GGUF file's own numbers; `auto` is the fastest correct one.
        threads: processor threads; all of them when `None`.
        kernels: `auto`, or `torch` for no operators of our own; by default what `LOGITLAB_KERNELS` says, else `auto`.
        report: called with each stage: fetch, read, check, pack, ready.
        cancelled: asked between the stages and ten times a second while fetching; True ends with `Cancelled`.
        tokenizer_loaded: called with the tokenizer, before torch is imported.
    """

    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    offline: bool = False
    cache_dir: Path | None = None
    kernels: str | None = None
    report: Report = lambda progress: None
    cancelled: Callable[[], bool] = lambda: False
    tokenizer_loaded: Callable[[Tokenizer], None] = lambda tokenizer: None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            names = ", ".join(PRECISIONS)
            raise InputError(_("precision is {precision!r}; allowed: {names}", precision=self.precision, names=names))
        if self.device not in DEVICES:
            raise InputError(_("device is {device!r}; allowed: {names}", device=self.device, names=", ".join(DEVICES)))
        if self.kernels is not None and self.kernels not in KERNELS:
            names = ", ".join(KERNELS)
            raise InputError(_("kernels is {kernels!r}; allowed: {names}", kernels=self.kernels, names=names))
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise InputError(_("threads is {threads}; allowed: from 1 to 1024", threads=self.threads))


def load(name: str, options: LoadOptions) -> LocalModel:
    """Fetch a model where needed and load it, in the thread that will use it.

    Args:
        name: as `catalog.find` takes it.

    Raises:
        InputError: no such model, a damaged file, or an option that this machine or model cannot follow.
        MachineError: the model could not be fetched, or memory ran out.
        Cancelled: `options.cancelled` returned True.
    """
    report = options.report
    entry = catalog.find(name, options.cache_dir)
    path, adapter = _files(entry, options)
    report(Loading("read", 0, entry.size, "tokenizer"))
    tokenizer = load_tokenizer(entry, path)
    options.tokenizer_loaded(tokenizer)
    report(Loading("read", 0, entry.size, "import torch"))
    with importing("torch"):
        import torch

        from engine.networks import gpus, operators
        from engine.networks.sources import open_source

    threads = options.threads or processors()
    torch.set_num_threads(threads)
    device = _device(options.device)
    with _in_our_words(entry, device):
        if options.cancelled():
            raise Cancelled
        report(Loading("read", 0, entry.size, path.name))
        # They are the processor's: nothing compiles for a model on a GPU.
        operators.begin(options.kernels if device == "cpu" else "torch", options.cache_dir)
        source = open_source(path, adapter)
        network, ran, reason = _network(entry.name, source, options.precision, device, report, options.cache_dir)
    _check_vocabulary(entry, tokenizer, network)
    tokenizer.rows = network.vocabulary_size
    identity = catalog.identity(entry, path)
    if adapter is not None:
        identity = f"{identity}+{catalog.identity(entry, adapter)}"
    facts = ModelFacts(
        name=entry.name,
        title=entry.title,
        architecture=str(source.config.get("model_type", "unknown")),
        parameters=network.parameters,
        precision=ran,
        device=device,
        context_length=network.context_length,
        vocabulary_size=network.vocabulary_size,
        hidden_size=_hidden_size(source.config),
        threads=threads,
        path=network.path,
        kernels="compiled" if operators.used().encodings else "torch",
        path_reason=reason,
        source=entry.source,
        license=entry.license,
        identity=identity,
        **(gpus.memory() if device == "cuda" else {}),
    )
    report(Loading("ready", 1, 1, entry.title))
    own = own_settings(source.generation, source.config, entry.title)
    return LocalModel(facts, tokenizer, network, own=own)


def needed_bytes(name: str, options: LoadOptions) -> int:
    """About what a model's weights take in this machine's memory; nothing on a GPU. Raises as `load` does."""
    entry = catalog.find(name, options.cache_dir)
    path, adapter = _files(entry, options)
    device = _device(options.device)
    with _in_our_words(entry, device):
        from engine.networks import operators
        from engine.networks.sources import open_source

        operators.begin(options.kernels if device == "cpu" else "torch", options.cache_dir)
        source = open_source(path, adapter)
        dtype, native = source.dtype(options.precision, device)
    return _bytes_of(source, dtype.itemsize, native=native) if device == "cpu" else 0


def _hidden_size(config: Mapping[str, Any]) -> int:
    text = config.get("text_config")
    return int(config.get("hidden_size") or config.get("n_embd") or (_hidden_size(text) if text else 0))


def _files(entry: catalog.Entry, options: LoadOptions) -> tuple[Path, Path | None]:
    """Where a model's files are, fetched where needed; for an adapter, those of the model it is for, and its own."""

    def fetched(wanted: catalog.Entry) -> Path:
        how = {"cache_dir": options.cache_dir, "offline": options.offline, "cancelled": options.cancelled}
        return fetch(wanted, options.report, **how)  # type: ignore[arg-type]

    path = fetched(entry)
    base = adapted_model(path)
    if base is None:
        return path, None
    try:
        return fetched(catalog.find(base, options.cache_dir)), path
    except ModelNameError as error:
        raise ModelFileError(
            _("{name} is an adapter for {base}, which is not on this machine", name=entry.title, base=base)
        ) from error


@contextmanager
def _in_our_words(entry: catalog.Entry, device: str) -> Iterator[None]:
    """Turn an error of a library about a model into one line: `ModelFileError` or `OutOfMemoryError`."""
    try:
        yield
    except (LogitlabError, Cancelled):
        raise
    except Exception as error:
        if no_memory(error):
            clear_frames(error.__traceback__)  # which hold what has been read so far
            raise OutOfMemoryError(
                _("{title} does not fit into memory; try a smaller model or --precision bfloat16", title=entry.title)
                if device == "cpu"
                else _(
                    "{title} does not fit into the GPU's memory; try a smaller model, --precision bfloat16 or --device "
                    "cpu",
                    title=entry.title,
                )
            ) from error
        if device != "cpu" and type(error).__name__ == "AcceleratorError":
            raise MachineError(
                _(
                    "the GPU fails: {error}; start again, with --device cpu if it goes on",
                    error=first_line(error),
                )
            ) from error
        if packages := re.findall(r"pip install (?:-U )?([\w.-]+\w)", str(error)) * isinstance(error, ImportError):
            raise MachineError(
                _(
                    "{name} needs packages that are not installed: pip install {packages}",
                    name=entry.name,
                    packages=" ".join(dict.fromkeys(packages)),
                )
            ) from error
        raise ModelFileError(_("{name} cannot be loaded: {error}", name=entry.name, error=first_line(error))) from error


def _check_vocabulary(entry: catalog.Entry, tokenizer: Tokenizer, network: "Network") -> None:
    """Raise `ModelFileError` for a tokenizer of another model: some have tokens added that the network has no row for,
    but a vocabulary has a row for each of its own."""
    if tokenizer.highest_id >= network.vocabulary_size:
        raise ModelFileError(
            _(
                "{name} cannot be loaded: its tokenizer has ids up to {highest:,}, its vocabulary {size:,} entries",
                name=entry.name,
                highest=tokenizer.highest_id,
                size=network.vocabulary_size,
            )
        )


def other_tokenizers(name: str, cache_dir: Path | None = None) -> list[tuple[str, Tokenizer]]:
    """Usable tokenizers of all models in the cache but `name`, each with its model's name."""
    found = []
    for entry in catalog.available(cache_dir):
        if entry.path is not None and entry.name != name:
            with suppress(LogitlabError, OSError):
                found.append((entry.name, load_tokenizer(entry, entry.path)))
    return found


def reference_precision(facts: ModelFacts) -> str:
    """In which precision transformers' own module is compared with a model: float32, on a GPU the model's."""
    return "float32" if facts.device == "cpu" else facts.precision


def load_reference(
    name: str, *, precision: str = "float32", device: str = "cpu", cache_dir: Path | None = None
) -> "TransformersNetwork":
    """The same weights in transformers' own module, to compare with. Raises `InputError`.

    Args:
        precision: `float32` or `bfloat16`.
    """
    import torch

    from engine.networks.door import safe_way
    from engine.networks.sources import open_source

    entry = catalog.find(name, cache_dir)
    if entry.path is None:
        raise InputError(_("{name} is not in the cache; fetch it with: logitlab models get {name}", name=name))
    base = adapted_model(entry.path)
    path = entry.path if base is None else catalog.find(base, cache_dir).path or entry.path
    network = open_source(path, None if base is None else entry.path).reference(
        getattr(torch, precision), device=device
    )
    network.use(safe_way(network))
    return network


def _network(
    name: str, source: "Source", precision: str, device: str, report: Report, cache_dir: Path | None
) -> tuple["Network", str, str]:
    """The fastest network that is correct on this machine, the precision it runs in, and why it was chosen."""
    from engine.networks import agreement, gpus

    def progress(done: int, total: int, part: str) -> None:
        report(Loading("pack", done, total, part))

    dtype, native = source.dtype(precision, device)
    spread = False
    if device == "cpu":
        _check_memory(name, source, dtype.itemsize, native=native)
    if device == "cuda":
        spread = bool(gpus.placement(source.weights * dtype.itemsize, spreads=source.spreads))
    dense = str(dtype).removeprefix("torch.")
    used = agreement.choose(
        name,
        source,
        dtype,
        native=native,
        device=device,
        spread=spread,
        cache_dir=cache_dir,
        measuring=lambda: report(Loading("check", 0, 0, _("our own network against transformers, once"))),
    )
    if not used.own:
        from engine.networks import door  # imports transformers

        if device == "cpu":
            _check_memory(name, source, dtype.itemsize, native=False)
        module = source.reference(dtype, device=device, progress=progress)
        used = door.enter(
            module,
            used,
            cache_dir=cache_dir,
            measuring=lambda: report(Loading("check", 0, 0, _("what the model keeps between steps, once"))),
        )
        return module, dense, used.reason
    network = agreement.stepping(source.own(dtype, native=native, device=device, progress=progress), device)
    return network, source.encoding if native else dense, used.why


def _bytes_of(source: "Source", bytes_each: int, *, native: bool) -> int:
    """About what the weights take in memory."""
    return source.native_bytes if native else source.weights * bytes_each


def _check_memory(name: str, source: "Source", bytes_each: int, *, native: bool) -> None:
    """Raise `OutOfMemoryError` where the weights would not fit into the free memory."""
    needed = _bytes_of(source, bytes_each, native=native)
    free = free_memory()
    if free is None or needed <= free:
        return
    smaller = source.weights * 2
    advice = (
        _("--precision bfloat16 takes {smaller:.1f} GB", smaller=smaller / 1e9)
        if not native and bytes_each > 2 and room_for(source.weights, free) != "none"
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
