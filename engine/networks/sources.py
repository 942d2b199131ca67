"""A model's files, and the networks that can be made of them: our own, and transformers' module."""

import math
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from engine.base.errors import ModelFileError, first_line
from engine.base.language import _
from engine.networks import gpt2, gpus, llama, llama_config, operators
from engine.networks.complete import (
    add_adapter,
    check_loaded,
    check_names,
    need_peft,
    reads_more_than_text,
    refuse_other_kinds,
    refuse_unknown,
)
from engine.networks.gguf_families import family_of
from engine.networks.gguf_file import Contents, in_our_words, open_contents, under_transformers_names
from engine.networks.gguf_modules import family_config, family_state, in_order
from engine.networks.kernels import fast_bfloat16
from engine.networks.network import Network
from engine.networks.pretrained import adapter_config, import_quietly, read_json, weight_files
from engine.networks.weights import GgufWeights, SafetensorsWeights, native_bytes

if TYPE_CHECKING:
    from engine.networks.transformers import TransformersNetwork

# Names of a whole model's weights, in files of today and of earlier versions -> those of its text part.
TEXT_PART = {r"^model\.language_model\.": "model.", r"^language_model\.model\.": "model."}
# Up to how many positions the layers of a comparison look back at, which its texts go beyond.
WINDOW = 8

# Floats of two bytes, by torch's names and by ggml's.
FEW_BYTES = {"float16": "F16", "bfloat16": "BF16"}

# Called with the number of parts read and of all parts, and the last one's name.
Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, name: str) -> None:
    """For callers that draw no bar."""


class Source(Protocol):
    """A model's files.

    Attributes:
        config: as transformers' `config.json` has it.
        size: bytes of the weights.
        weights: how many numbers they are.
        native_bytes: about what they take in memory in about the file's own precision.
        encoding: the file's own precision, such as `Q4_1`.
        own_name: of the network of ours that would run it.
        generation: what it says of how its tokens are to be chosen: `generation_config.json`, or the fields of a GGUF
            file under their names there; empty where it says nothing.
        spreads: whether transformers can spread its layers over several GPUs.
    """

    config: Mapping[str, Any]
    size: int
    weights: int
    native_bytes: int
    encoding: str
    own_name: str
    generation: Mapping[str, Any]
    spreads: bool

    def dtype(self, precision: str, device: str) -> tuple[torch.dtype, bool]:
        """What `--precision` means here: the type of activations, and whether weights keep the file's own bits."""
        ...

    def uncovered(self) -> str | None:
        """Why no network of ours computes exactly this model, or `None`."""
        ...

    def own(
        self,
        dtype: torch.dtype,
        *,
        native: bool = False,
        device: str = "cpu",
        layers: int | None = None,
        progress: Progress = silent,
    ) -> Network:
        """Our own network; only the first `layers` of it where given."""
        ...

    def reference(
        self, dtype: torch.dtype, *, device: str = "cpu", layers: int | None = None, progress: Progress = silent
    ) -> "TransformersNetwork":
        """transformers' own module with the same weights."""
        ...


def open_source(path: Path, adapter: Path | None = None) -> Source:
    """A folder of a transformers model, or a .gguf file.

    Args:
        adapter: a folder with an adapter for it.

    Raises:
        ModelFileError: it is damaged, or of a kind that cannot be used.
        MachineError: there is an adapter, and no library that puts it on.
    """
    if path.is_file() and adapter is not None:
        raise ModelFileError(_("an adapter goes on a folder of a transformers model, not on a GGUF file"))
    if not path.is_file():
        return FolderSource(path, adapter)
    with in_our_words(path):
        return GgufSource(open_contents(path))


class GgufSource:
    """A .gguf file of one of `FAMILIES`: our network uses its blocks as they are, where it computes such a model."""

    spreads = False

    def __init__(self, contents: Contents) -> None:
        metadata, name = contents.metadata, contents.path.name
        self._family = family_of(metadata, name)
        self.config: Mapping[str, Any] = family_config(metadata, contents.tensors, self._family, name)
        self.contents = replace(contents, tensors=in_order(contents.tensors, self._family, self.config))
        self.size = contents.size
        self.weights = sum(math.prod(blocks.shape) for blocks in contents.tensors.values())
        self.encoding = contents.encoding
        self.generation = _sampling(metadata)
        ours = self.uncovered() is None
        self._file = under_transformers_names(self.contents, self._family) if ours else None
        self.native_bytes = 2 * self.weights if self._file is None else native_bytes(self._file)
        self.own_name = "transformers" if self._file is None else llama.LlamaNetwork.path

    def dtype(self, precision: str, device: str) -> tuple[torch.dtype, bool]:
        ours, asked = self._file is not None, precision in ("auto", "native")
        quantized = ours and asked and (self.contents.quantized or _floats_stay(self.encoding, precision, device))
        native = quantized and device == "cpu"
        # Elsewhere there are no products with few bits, and torch's with few bits are fastest in bfloat16.
        half = quantized and not (native and operators.used().encodings)
        half = half or precision == "bfloat16" or (precision == "native" and not ours)
        half = half or (precision == "auto" and not quantized and (device == "cuda" or fast_bfloat16()))
        return (torch.bfloat16 if half else torch.float32), native

    def uncovered(self) -> str | None:
        return llama_config.uncovered(self.config)

    def own(
        self,
        dtype: torch.dtype,
        *,
        native: bool = False,
        device: str = "cpu",
        layers: int | None = None,
        progress: Progress = silent,
    ) -> Network:
        if self._file is None:
            raise NotImplementedError(self.uncovered())
        weights = GgufWeights(self._file, dtype, native=native, device=device, read=_Counter(progress, self._file))
        network = llama.llama_network(_shallow(self.config, layers), weights, self._factors())
        if layers is None:
            check_names((), weights.unread)
        return network

    def reference(
        self, dtype: torch.dtype, *, device: str = "cpu", layers: int | None = None, progress: Progress = silent
    ) -> "TransformersNetwork":
        config = _shallow(self.config, layers)
        kind, model_class = _module_of(config)
        with torch.device("meta"):
            names = {name: tuple(weight.shape) for name, weight in model_class(kind).state_dict().items()}
        tensors = {name: blocks for name, blocks in self.contents.tensors.items() if _among(name, layers)}
        state = family_state(names, self._family, self.contents.architecture, config, tensors, dtype)
        model = _filled(model_class, kind, state, dtype)
        if (factors := self._factors()) is not None:
            model.model.rotary_emb.inv_freq /= factors
        return _wrapped(model.to(device), config.get("max_position_embeddings") or config["n_positions"])

    def _factors(self) -> torch.Tensor | None:
        """What the rotary frequencies are divided by, `[head_size / 2]`, in texts of any length; `None` for nothing."""
        blocks = self.contents.tensors.get("rope_freqs.weight")
        return None if blocks is None else blocks.dequantize()


def _floats_stay(encoding: str, precision: str, device: str) -> bool:
    """Whether our operators use floats of two bytes as they lie in a file, times float32, and nothing is faster."""
    faster = device != "cpu" or (precision == "auto" and fast_bfloat16())
    return encoding in operators.used().encodings & set(FEW_BYTES.values()) and not faster


def _module_of(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """transformers' configuration of these settings, and the class of its module."""
    import_quietly()
    import transformers

    kind = transformers.AutoConfig.for_model(**config)
    return kind, transformers.AutoModelForCausalLM._model_mapping[type(kind)]


def _filled(model_class: Any, kind: Any, state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """A module with these weights. Raises `ModelFileError` where some lack, or fit nowhere."""
    model, found = model_class.from_pretrained(
        None, config=kind, state_dict=state, dtype=dtype, output_loading_info=True
    )
    check_loaded(found, shallow=False, parts=False)
    return model


def _wrapped(model: Any, context_length: int) -> "TransformersNetwork":
    from engine.networks.transformers import TransformersNetwork  # imports transformers, which is to be quiet by now

    return TransformersNetwork(model, context_length)


def _sampling(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a file says of how tokens are to be chosen."""
    return {name: value for name, value in metadata.items() if name.startswith("general.sampling.")}


class FolderSource:
    """A folder with `config.json` and safetensors."""

    spreads = True

    def __init__(self, path: Path, adapter: Path | None = None) -> None:
        self.path = path
        self.config: Mapping[str, Any] = read_json(path / "config.json")
        beside = adapter_config(path) is not None
        self._adapter = path if beside else adapter
        if self._adapter is not None:
            need_peft(self._adapter.name)
        self._files = files = weight_files(path)
        self.size = sum(file.stat().st_size for file in files)
        self.weights = sum(map(_weights_in, files))
        self.native_bytes = self.size
        encoding = str(self.config.get("dtype") or self.config.get("torch_dtype") or "float32")
        self.encoding = FEW_BYTES.get(encoding, encoding)
        self._gpt2 = self.config.get("model_type") == "gpt2"
        self.own_name = gpt2.Gpt2Network.path if self._gpt2 else llama.LlamaNetwork.path
        folder = path if self._adapter is None else self._adapter
        files = [one / "generation_config.json" for one in (folder, path)]
        self.generation: Mapping[str, Any] = next((read_json(file) for file in files if file.is_file()), {})

    def dtype(self, precision: str, device: str) -> tuple[torch.dtype, bool]:
        half = precision == "bfloat16" or (precision == "auto" and (device == "cuda" or fast_bfloat16()))
        if precision == "native":
            half = self.encoding in FEW_BYTES.values()
        stays = precision in ("auto", "native") and _floats_stay(self.encoding, precision, device)
        # GPT-2 keeps its weights the other way round.
        if stays and not fast_bfloat16() and not self._gpt2 and self.uncovered() is None:
            return torch.float32, True
        return (torch.bfloat16 if half else torch.float32), False

    def uncovered(self) -> str | None:
        if self._adapter is not None:
            return _("with the adapter {name}", name=self._adapter.name)
        return gpt2.uncovered(self.config) if self._gpt2 else llama_config.uncovered(self.config)

    def own(
        self,
        dtype: torch.dtype,
        *,
        native: bool = False,
        device: str = "cpu",
        layers: int | None = None,
        progress: Progress = silent,
    ) -> Network:
        config = _shallow(self.config, layers)
        prefix = "transformer." if self._gpt2 else "model."
        read = _Counter(progress)
        weights = SafetensorsWeights(self._files, dtype, prefix, native=native, device=device, read=read)
        network = gpt2.Gpt2Network(config, weights) if self._gpt2 else llama.llama_network(config, weights)
        if layers is None:
            unread = [name for name in weights.unread if not name.endswith("lm_head.weight")]
            check_names((), unread, parts="text_config" in self.config)
        return network

    def reference(
        self, dtype: torch.dtype, *, device: str = "cpu", layers: int | None = None, progress: Progress = silent
    ) -> "TransformersNetwork":
        import_quietly()
        import transformers
        from transformers.models.auto import modeling_auto
        from transformers.utils.logging import set_tqdm_hook

        from engine.networks.transformers import TransformersNetwork

        refuse_unknown(self.config, self.path.name)
        config = transformers.AutoConfig.from_pretrained(self.path, local_files_only=True, trust_remote_code=False)
        refuse_other_kinds(config, self.path.name)
        parts = bool(config.sub_configs)
        causal = config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMultimodalLM
        if layers is not None:  # of a whole model, its text part
            config = config.get_text_config()
            few = _shallow(self.config, layers)
            for name in few.keys() & {"num_hidden_layers", "n_layer", "layer_types", "sliding_window"}:
                setattr(config, name, few[name])
        before = set_tqdm_hook(lambda factory, args, kwargs: _counted(args, progress))
        try:
            with _without_adapter(self.path) as folder:
                options = {"dtype": dtype, "local_files_only": True, "use_safetensors": True}
                # Sizes that do not fit are found in the loading information, and are an error in our words.
                options |= {"trust_remote_code": False, "output_loading_info": True, "ignore_mismatched_sizes": True}
                if device == "cuda" and layers is None:
                    options |= gpus.placement(self.weights * dtype.itemsize)
                if layers is not None and parts:
                    causal, options["key_mapping"] = True, TEXT_PART
                    auto = transformers.AutoModelForCausalLM
                try:
                    model, found = auto.from_pretrained(folder, config=config, **options)
                    if found["missing_keys"] and causal and reads_more_than_text(config.model_type):
                        # The text part alone does not find its weights among those of the whole.
                        whole = transformers.AutoModelForMultimodalLM
                        model, found = whole.from_pretrained(folder, config=config, **options)
                except ImportError:  # of what its other parts need
                    text = config.get_text_config()
                    if text is config or text.model_type not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
                        raise
                    model, found = transformers.AutoModelForCausalLM.from_pretrained(
                        folder, config=text, key_mapping=TEXT_PART, **options
                    )
        finally:
            set_tqdm_hook(before)
        check_loaded(found, shallow=layers is not None, parts=parts)
        if self._adapter is not None:
            add_adapter(model, self._adapter)
        if getattr(model, "hf_device_map", None) is None:
            model = model.to(device)
        return TransformersNetwork(model, _context_length(model.config.get_text_config()))


@contextmanager
def _without_adapter(folder: Path) -> Iterator[Path]:
    """A model's folder without an adapter in it, which transformers would put on by itself and unchecked."""
    if adapter_config(folder) is None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="logitlab-") as elsewhere:
        for file in folder.iterdir():
            if not file.name.startswith("adapter_"):
                (Path(elsewhere) / file.name).symlink_to(file.resolve())
        yield Path(elsewhere)


def _weights_in(file: Path) -> int:
    """How many numbers a safetensors file holds, by its header. Raises `ModelFileError` where that is damaged."""
    import safetensors

    try:
        with safetensors.safe_open(file, "numpy") as opened:
            return sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ModelFileError(
            _("{path} is not a usable safetensors file ({error}); fetch it again", path=file, error=first_line(error))
        ) from error


def _counted(args: tuple[Any, ...], progress: Progress) -> Any:
    """transformers' bar over the weights it loads, passed to `progress` instead of drawn."""
    items = list(args[0]) if args else []

    def steps() -> Any:
        for done, item in enumerate(items, start=1):
            yield item
            progress(done, len(items), str(item[0]) if isinstance(item, tuple) else "")

    return steps()


class _Counter:
    """Counts the tensors that have been read."""

    def __init__(self, progress: Progress, file: Contents | None = None) -> None:
        self._progress = progress
        self._total = len(file.tensors) if file is not None else 0
        self._done = 0

    def __call__(self, name: str) -> None:
        self._done += 1
        self._progress(self._done, self._total, name)


def _shallow(config: Mapping[str, Any], layers: int | None) -> dict[str, Any]:
    """The configuration of the first layers alone."""
    if layers is None:
        return dict(config)
    if config.get("model_type") == "gpt2":
        return dict(config) | {"n_layer": min(layers, config["n_layer"])}
    return llama_config.shallow(config, layers, WINDOW)


def _among(name: str, layers: int | None) -> bool:
    """Whether a tensor belongs to the first layers, or to none, by transformers' name of it or by the file's."""
    layer = re.match(r"(?:model\.layers|blk)\.(\d+)\.", name)
    return layers is None or layer is None or int(layer[1]) < layers


def _context_length(config: Any) -> int:
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"):
        if isinstance(length := getattr(config, name, None), int) and length > 0:
            return length
    return 1 << 20
