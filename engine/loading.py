"""From a catalogue entry to a `Model` that can generate."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from engine import catalog, paths
from engine.errors import InputError, LogitlabError, ModelFileError, OutOfMemoryError
from engine.events import Loading
from engine.fetch import Cancelled, Report, fetch
from engine.tokens import Tokenizer

if TYPE_CHECKING:
    import torch

    from engine.networks import Network
    from engine.networks.gguf_file import GgufFile
    from engine.networks.transformers import TransformersNetwork

Precision = Literal["auto", "native", "bfloat16", "float32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
Device = Literal["auto", "cpu", "cuda", "mps"]
DEVICES: tuple[str, ...] = get_args(Device)

TOKENIZER_FORMAT = 1


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What there is to say about a loaded model.

    Attributes:
        architecture: transformers' model type, such as `llama`.
        parameters: number of weights.
        precision: of the weights as they run: `float32`, `bfloat16`, or a file's own such as `Q4_1`.
        threads: processor threads the network uses.
        path: which implementation runs.
    """

    name: str
    title: str
    architecture: str
    parameters: int
    precision: str
    device: str
    context_length: int
    vocabulary_size: int
    threads: int
    path: str
    source: str
    license: str


@dataclass(frozen=True)
class Model:
    """A loaded model: facts, tokenizer and network."""

    facts: ModelFacts
    tokenizer: Tokenizer
    network: "Network"


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
) -> Model:
    """Fetch a model where needed and load it, in the thread that will use it.

    Args:
        name: as `catalog.find` takes it; the last used model when `None`.
        precision: `native` keeps a GGUF file's own numbers; `auto` is the fastest correct one.
        threads: processor threads; all of them when `None`.
        report: told of each stage: fetch, read, pack, ready.
        cancelled: asked now and then; True raises `fetch.Cancelled`.
        tokenizer_loaded: given the tokenizer as soon as it is there, before torch is imported.

    Raises:
        InputError, MachineError: with one line that says what to do.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}; allowed: {', '.join(PRECISIONS)}")
    if device not in DEVICES:
        raise InputError(f"device is {device!r}; allowed: {', '.join(DEVICES)}")
    if threads is not None and not 1 <= threads <= 1024:
        raise InputError(f"threads is {threads}; allowed: from 1 to 1024")
    entry = catalog.find(name or catalog.default_name(), cache_dir)
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
        if path.is_file():
            network, config, ran = _network_from_gguf(path, precision, device, report)
        else:
            network, config, ran = _network_from_folder(path, precision, device, report)
    except (LogitlabError, Cancelled):
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemoryError(
            f"{entry.title} does not fit into memory; try a smaller model or --precision bfloat16"
        ) from error
    except Exception as error:  # whatever a library says about a model it cannot use
        raise ModelFileError(f"{entry.name} cannot be loaded: {_first_line(error)}") from error
    facts = ModelFacts(
        name=entry.name,
        title=entry.title,
        architecture=str(config.get("model_type", "unknown")),
        parameters=network.parameters,
        precision=ran,
        device=device,
        context_length=network.context_length,
        vocabulary_size=network.vocabulary_size,
        threads=threads,
        path=network.path,
        source=entry.source,
        license=entry.license,
    )
    report(Loading("ready", 1, 1, entry.title))
    return Model(facts, tokenizer, network)


def processors() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def import_quietly() -> None:
    """Import torch and transformers without a word on the terminal."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="transformers|torch|huggingface_hub")
    import transformers

    transformers.utils.logging.disable_progress_bar()


def load_tokenizer(entry: catalog.Entry, path: Path, cache_dir: Path | None = None) -> Tokenizer:
    """The tokenizer of a model whose files are here; cheap, and without torch, once it is cached.

    Args:
        path: the model's folder or .gguf file.
    """
    if path.is_file():
        return _tokenizer_from_gguf(path, cache_dir)
    config = read_json(path / "config.json")
    generation = read_json(path / "generation_config.json") if (path / "generation_config.json").is_file() else {}
    eos_ids = _eos_ids(generation.get("eos_token_id", config.get("eos_token_id")))
    if (path / "tokenizer.json").is_file() and _plain(path):
        return Tokenizer.from_file(path / "tokenizer.json", eos_ids, _chat_template(path))
    import_quietly()
    import transformers

    try:
        loaded = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
        return Tokenizer(loaded.backend_tokenizer, eos_ids, _chat_template(path))
    except Exception as error:
        raise ModelFileError(f"{entry.name} has no tokenizer that can be used: {_first_line(error)}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model's folder. Raises `ModelFileError`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}; give a folder of a transformers model") from error
    except ValueError as error:
        raise ModelFileError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ModelFileError(f"{path} holds no JSON object")
    return data


def _plain(folder: Path) -> bool:
    """Whether `tokenizer.json` alone says everything: no flag of `tokenizer_config.json` changes the template."""
    file = folder / "tokenizer_config.json"
    flags = read_json(file) if file.is_file() else {}
    return not any(key in flags for key in ("add_bos_token", "add_eos_token", "add_prefix_space"))


def _chat_template(folder: Path) -> str | None:
    if (file := folder / "chat_template.jinja").is_file():
        return file.read_text(encoding="utf-8", errors="replace")
    file = folder / "tokenizer_config.json"
    template = read_json(file).get("chat_template") if file.is_file() else None
    return template if isinstance(template, str) else None


def _eos_ids(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [id for id in values if isinstance(id, int)]


def _tokenizer_from_gguf(path: Path, cache_dir: Path | None) -> Tokenizer:
    """Converted once by transformers, which takes seconds, then read from the cache."""
    with path.open("rb") as file:
        head = file.read(4 << 20)
    key = hashlib.sha256(head).hexdigest()[:24]
    folder = paths.tokenizers_dir(cache_dir) / f"{key}-{TOKENIZER_FORMAT}"
    if not (folder / "facts.json").is_file():
        try:
            _convert_tokenizer(path, folder)
        except OSError as error:
            raise ModelFileError(
                f"cannot write to {folder.parent}: {error.strerror or error}; choose another folder with --cache-dir"
            ) from error
    facts = read_json(folder / "facts.json")
    return Tokenizer.from_file(folder / "tokenizer.json", facts["eos_ids"], facts["chat_template"])


def _convert_tokenizer(path: Path, folder: Path) -> None:
    import_quietly()
    import transformers
    from tokenizers import pre_tokenizers

    from engine.networks.gguf_file import open_gguf

    metadata = open_gguf(path).metadata
    loaded = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    backend = loaded.backend_tokenizer
    if metadata.get("tokenizer.ggml.pre") == "smollm":
        # transformers' converter forgets that this vocabulary was learned with digits on their own.
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    facts = {
        "eos_ids": _eos_ids([metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]),
        "chat_template": metadata.get("tokenizer.chat_template"),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        backend.save(str(partial / "tokenizer.json"))
        (partial / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        try:
            partial.rename(folder)
        except OSError:
            if not (folder / "facts.json").is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _network_from_gguf(
    path: Path, precision: str, device: str, report: Report
) -> tuple["Network", dict[str, Any], str]:
    """Our own network straight from the file's blocks; transformers' module on devices other than the CPU."""
    import torch

    from engine.networks.gguf_file import open_gguf
    from engine.networks.llama import LlamaNetwork, uncovered
    from engine.networks.weights import GgufWeights

    report(Loading("read", 0, path.stat().st_size, path.name))
    file = open_gguf(path)
    config = file.config()
    native = precision in ("auto", "native") and file.quantized
    dtype = torch.bfloat16 if native or precision == "bfloat16" else torch.float32
    if device == "cpu" and uncovered(config) is None:
        weights = GgufWeights(file, dtype, native=native, read=_Packing(report, len(file.tensors)))
        network: Network = LlamaNetwork(config, weights, file.rope_factors)
        return network, config, file.encoding if native else _name(dtype)
    return reference_from_gguf(file, dtype, device), config, _name(dtype)


def reference_from_gguf(file: "GgufFile", dtype: "torch.dtype", device: str = "cpu") -> "TransformersNetwork":
    """transformers' own module with a file's weights dequantised to `dtype`."""
    import_quietly()
    import transformers

    from engine.networks.transformers import TransformersNetwork
    from engine.networks.weights import dequantize

    config = file.config()
    state = {name: dequantize(blocks, dtype) for name, blocks in file.tensors.items()}
    if config["tie_word_embeddings"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    kind = transformers.AutoConfig.for_model(**config)
    model_class = transformers.AutoModelForCausalLM._model_mapping[type(kind)]
    model = model_class.from_pretrained(None, config=kind, state_dict=state, dtype=dtype)
    if file.rope_factors is not None:
        model.model.rotary_emb.inv_freq /= file.rope_factors
    return TransformersNetwork(model.to(device), config["max_position_embeddings"])


def _network_from_folder(
    path: Path, precision: str, device: str, report: Report
) -> tuple["Network", dict[str, Any], str]:
    """Our own network where it covers the architecture exactly, else transformers' module."""
    import torch

    from engine.networks import gpt2, llama
    from engine.networks.kernels import fast_bfloat16
    from engine.networks.weights import SafetensorsWeights

    config = read_json(path / "config.json")
    if config.get("auto_map"):
        raise ModelFileError(f"{path.name} needs code from its repository, which is never run; choose another model")
    files = list(path.glob("*.safetensors"))
    if not files:
        raise ModelFileError(f"{path} has no safetensors weights, and pickled ones are never loaded")
    report(Loading("read", 0, sum(file.stat().st_size for file in files), path.name))
    half = precision == "bfloat16" or (precision == "auto" and (device == "cuda" or fast_bfloat16()))
    if precision == "native":
        half = str(config.get("dtype") or config.get("torch_dtype")) in ("bfloat16", "float16")
    dtype = torch.bfloat16 if half else torch.float32
    if device == "cpu":
        packing = _Packing(report, 0)
        if llama.uncovered(config) is None:
            weights = SafetensorsWeights(path, dtype, "model.", packing)
            return llama.LlamaNetwork(config, weights), config, _name(dtype)
        if gpt2.uncovered(config) is None:
            weights = SafetensorsWeights(path, dtype, "transformer.", packing)
            return gpt2.Gpt2Network(config, weights), config, _name(dtype)
    return reference_from_folder(path, dtype, device), config, _name(dtype)


def reference_from_folder(path: Path, dtype: "torch.dtype", device: str = "cpu") -> "TransformersNetwork":
    """transformers' own module from a folder."""
    import_quietly()
    import transformers

    from engine.networks.transformers import TransformersNetwork

    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, local_files_only=True, use_safetensors=True
    )
    return TransformersNetwork(model.to(device), _context_length(model.config.get_text_config()))


def load_reference(name: str, *, cache_dir: Path | None = None) -> "TransformersNetwork":
    """The same weights in transformers' own module, float32, on the CPU: what ours is compared with."""
    import torch

    from engine.networks.gguf_file import open_gguf

    entry = catalog.find(name, cache_dir)
    if entry.path is None:
        raise InputError(f"{name} is not in the cache; fetch it with: logitlab models get {name}")
    if entry.path.is_file():
        return reference_from_gguf(open_gguf(entry.path), torch.float32)
    return reference_from_folder(entry.path, torch.float32)


class _Packing:
    """Reports the tensors that have been read, for a bar."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0

    def __call__(self, name: str) -> None:
        self._done += 1
        self._report(Loading("pack", self._done, self._total, name))


def _name(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


def _context_length(config: Any) -> int:
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"):
        if isinstance(length := getattr(config, name, None), int) and length > 0:
            return length
    return 1 << 20


def _device(wanted: str) -> str:
    import torch

    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        return "cuda"
    if wanted in ("auto", "mps") and torch.backends.mps.is_available():
        return "mps"
    if wanted not in ("auto", "cpu"):
        raise InputError(f"this machine has no {wanted} device; use --device cpu or auto")
    return "cpu"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
