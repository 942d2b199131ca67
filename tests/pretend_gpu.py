"""A GPU that is none: tensors that say they are on `cuda:0`, lie in main memory, and refuse what a GPU refuses.

Tensors of two devices are not mixed, as torch has it: but for numbers of no dimension, indexes, and copies. A CUDA
graph is recorded operator by operator and replayed on the same memory; while it is recorded, nothing may come from the
processor's memory or go there. Numbers are those of the processor, so a network that runs right here runs right there
as far as devices are concerned. What only a real one shows, kernels, rounding and speed, is in `make gpu`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda:0")
aten = torch.ops.aten
COPIES = {Tensor.copy_, aten.copy_.default, aten._to_copy.default}
INDEXED = {
    Tensor.__getitem__,
    Tensor.__setitem__,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# What waits for the GPU, which nothing may while a graph is captured.
WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default, aten.unique_dim.default}
MEMORY = (60_000_000_000, 80_000_000_000)  # free and all


class OnGpu(Tensor):
    """A tensor on the pretended device; `here` holds its numbers."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "OnGpu":
        with torch.inference_mode(here.is_inference()):  # a view of a tensor made outside that mode is of outside too
            made = Tensor._make_wrapper_subclass(
                cls,
                here.shape,
                strides=here.stride(),
                storage_offset=here.storage_offset(),
                dtype=here.dtype,
                device=CUDA,
            )
        made.here = here
        return made

    def __repr__(self, **options: Any) -> str:
        return f"OnGpu({self.here})"

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self.clone()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Gpu.now().run(func, args, kwargs or {})


class Stream:
    """There is one, and all wait for one another."""

    def wait_stream(self, other: "Stream") -> None:
        """Nothing runs beside."""


class Graph:
    """Operators in the order they ran, with the tensors they ran on."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        """As `torch.cuda.CUDAGraph.replay`."""
        Gpu.now().replays += 1
        for func, args, kwargs, results in self.steps:
            anew = func(*args, **kwargs)
            for old, new in zip(_flat(results), _flat(anew), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Gpu:
    """The one of this test.

    Attributes:
        capturing: the graph that is being recorded.
        graphs: how many have been recorded.
        replays: how many times one was replayed.
        waits: how many times a number was read from the GPU.
        fails: called where a capture ends; may raise.
    """

    _now: "Gpu | None" = None

    def __init__(self) -> None:
        self.capturing: Graph | None = None
        self.graphs = self.replays = self.waits = 0
        self.fails: Callable[[], None] = lambda: None

    @classmethod
    def now(cls) -> "Gpu":
        assert cls._now is not None, "a tensor of a GPU outlived its test"
        return cls._now

    def waited(self) -> None:
        """The processor waits for the GPU. Raises while a graph is recorded."""
        self.waits += 1
        if self.capturing is not None:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    @contextmanager
    def capture(self, graph: Graph, **options: Any) -> Iterator[None]:
        """As `torch.cuda.graph`."""
        self.capturing = graph
        try:
            yield
        finally:
            self.capturing = None
            self.fails()
        self.graphs += 1

    def run(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """One operator, on the processor, with the checks of a GPU."""
        tensors = [one for one in _flat((args, kwargs)) if isinstance(one, Tensor)]
        wanted = kwargs.get("device") or next((one for one in args if isinstance(one, torch.device)), None)
        there = any(isinstance(one, OnGpu) for one in tensors)
        if not there and not _is_gpu(wanted):
            return func(*args, **kwargs)
        if isinstance(func, OpOverload) and func.overloadpacket is aten.to:
            with _Operators():  # in inference mode torch has not made a copy of it yet
                return func.decompose(*args, **kwargs)
        if func in WAITS:
            self.waited()
        if func in COPIES:
            source = args[0] if func is aten._to_copy.default else args[1]
            target = CUDA if isinstance(args[0], OnGpu) else torch.device("cpu")
            if func is aten._to_copy.default and wanted is not None:
                target = CUDA if _is_gpu(wanted) else torch.device(wanted)
            on_gpu = target.type == "cuda"
            if isinstance(source, OnGpu) != on_gpu:
                self.waited()
        else:
            on_gpu = _is_gpu(wanted) or (there and wanted is None)
            self._check(func, args, kwargs)
        inner_args, inner_kwargs = _each(
            (tuple(args), dict(kwargs)), lambda one: one.here if isinstance(one, OnGpu) else one
        )
        if _is_gpu(inner_kwargs.get("device")):
            inner_kwargs["device"] = torch.device("cpu")
        if inner_kwargs.get("pin_memory"):
            inner_kwargs["pin_memory"] = False
        results = func(*inner_args, **inner_kwargs)
        if self.capturing is not None:
            self.capturing.steps.append((func, inner_args, inner_kwargs, results))
        known = {id(one.here): one for one in tensors if isinstance(one, OnGpu)}
        given = {id(one) for one in tensors}

        def outside(one: Any) -> Any:
            if not isinstance(one, Tensor) or not on_gpu or id(one) in given:
                return one
            return known[id(one)] if id(one) in known else OnGpu(one)

        if func is aten._to_copy.default and on_gpu is False:
            return results
        return _each(results, outside)

    def _check(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if func in INDEXED:
            indexed, indexes, *values = args
            if func is Tensor.__setitem__ and not any(isinstance(one, Tensor) for one in _flat(indexes)):
                if isinstance(indexed, OnGpu) != any(isinstance(one, OnGpu) for one in values):
                    self.waited()  # a copy from one to the other
                return
            if isinstance(indexed, OnGpu):  # indexes may lie in main memory, and are copied then
                places = [one for one in _flat(indexes) if isinstance(one, Tensor)]
                if not all(isinstance(one, OnGpu) for one in places):
                    self.waited()
                args, kwargs = (indexed, *values[:1]), {}
        mixed = [one for one in _flat((args, kwargs)) if isinstance(one, Tensor) and one.dim()]
        if len({isinstance(one, OnGpu) for one in mixed}) > 1:
            raise RuntimeError(f"Expected all tensors to be on the same device: {func}")
        numbers = [one for one in _flat((args, kwargs)) if isinstance(one, Tensor) and not one.dim()]
        if any(isinstance(one, OnGpu) for one in numbers) and any(not isinstance(one, OnGpu) for one in mixed):
            raise RuntimeError(f"Expected all tensors to be on the same device: {func}")


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _with_index(value: Any) -> Any:
    """Without an index torch asks the driver which device is meant."""
    if isinstance(value, str):
        return CUDA if value in ("cuda", "cuda:0") else value
    return CUDA if isinstance(value, torch.device) and value.type == "cuda" else value


def _flat(value: Any) -> Iterator[Any]:
    """What lies in tuples, lists and dicts, in order; torch's own walk takes most of a test's time."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        for one in value:
            yield from _flat(one)
    else:
        yield value


def _each(value: Any, made: Callable[[Any], Any]) -> Any:
    """The same tuples, lists and dicts of what `made` makes of each thing in them."""
    if isinstance(value, dict):
        return {key: _each(one, made) for key, one in value.items()}
    if isinstance(value, tuple | list):
        kind = list if isinstance(value, list) else tuple
        return kind(_each(one, made) for one in value)
    return made(value)


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """Within, torch has one GPU."""
    gpu = Gpu()
    monkeypatch.setattr(Gpu, "_now", gpu)
    for name, value in {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda index=0: "Pretend GPU",
        "get_device_capability": lambda index=0: (9, 0),
        "mem_get_info": lambda index=0: MEMORY,
        "memory_allocated": lambda index=0: 1_000_000,
        "memory_reserved": lambda index=0: 3_000_000,
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: gpu.waited(),
        "Stream": Stream,
        "current_stream": lambda device=None: Stream(),
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": Graph,
        "graph": gpu.capture,
        "graph_pool_handle": lambda: (0, 1),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with torch.no_grad(), _Functions(), _Operators():
            yield gpu
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Gpu.now().run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Functions that choose kernels by the device before any operator runs."""

    # The first chooses its kernel by the device, the others ask the driver for the current one.
    WHOLE = frozenset(
        (
            F.scaled_dot_product_attention,
            Tensor.__getitem__,
            Tensor.__setitem__,
            Tensor.__invert__,
            Tensor.contiguous,
            Tensor.copy_,
        )
    )
    READS = frozenset((Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.__int__, Tensor.__bool__, Tensor.__index__))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.device:
            args, kwargs = _each((tuple(args), kwargs), _with_index)
        if func in (torch.tensor, torch.as_tensor) and _is_gpu(kwargs.get("device")):  # made here, then copied
            return func(*args, **(kwargs | {"device": "cpu"})).to(CUDA)
        if func in self.READS and isinstance(args[0], OnGpu):
            Gpu.now().waited()
            return func(args[0].here)
        if func in self.WHOLE and any(isinstance(one, OnGpu) for one in _flat((args, kwargs))):
            return Gpu.now().run(func, args, kwargs)
        return func(*args, **kwargs)
