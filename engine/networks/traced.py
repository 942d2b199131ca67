"""On the CPU: single-token steps as a TorchScript trace, which calls operators without Python in between.

A step of a small model is a thousand operator calls, and Python is a sixth of its time. A trace also lets go of
Python's lock, so that a screen can draw meanwhile. Tracing takes a quarter of a second; it is done by `prepare`, or
once so many steps have been taken that it pays. Weights in oneDNN's layout cannot be part of a trace: networks that
are all bfloat16 step as they are.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.networks.attention import KVCache, TracedStep
from engine.networks.changes import Change
from engine.networks.network import Network, Output
from engine.networks.watched import Anatomy, Size, Watch

PAYS_AFTER = 64

# The trace is compared with the step below; what the tracer warns of, the sizes of a step, is fixed by its kind.
warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)


class TracedNetwork:
    """A network of ours whose decoding steps are traced, for each number of lanes. See `engine.networks.Network`."""

    def __init__(self, inner: Network) -> None:
        self._inner = inner
        self.path = inner.path
        self.parameters = inner.parameters
        self.vocabulary_size = inner.vocabulary_size
        self.context_length = inner.context_length
        self._steps: dict[tuple[int, bool], Callable[..., Tensor] | None] = {}
        self._taken: Counter[tuple[int, bool]] = Counter()

    def prepare(self) -> None:
        self._inner.prepare()
        for lanes in (1, 2):
            cache = self.cache(2, [0] * lanes)
            self._inner.forward(torch.zeros(lanes, 1, dtype=torch.long), cache)
            self._taken[lanes, False] = PAYS_AFTER
            self.forward(torch.zeros(lanes, 1, dtype=torch.long), cache)

    def at_once(self, length: int, usual: int) -> int:
        return usual

    def cache(self, capacity: int, padding: Sequence[int]) -> KVCache:
        return self._inner.cache(capacity, padding)  # type: ignore[return-value]

    def size(self) -> Size:
        return self._inner.size()  # type: ignore[attr-defined]

    def changed(self, changes: Sequence[Change]) -> Network:
        """The network itself with changes, step by step: see `engine.networks.changes`."""
        return self._inner.changed(changes)  # type: ignore[attr-defined]

    def look(self, ids: Tensor, first: int, watch: Watch) -> Anatomy:
        return self._inner.look(ids, first, watch)  # type: ignore[attr-defined]

    @torch.inference_mode()
    def forward(self, ids: Tensor, cache: KVCache, *, siblings: bool = False, all_logits: bool = False) -> Output:
        kind = (len(ids), any(cache.padding))
        if siblings or ids.shape[1] != 1 or not self._pays(kind):
            return self._inner.forward(ids, cache, siblings=siblings, all_logits=all_logits)  # type: ignore[return-value]
        inputs = (ids, torch.tensor(cache.length), torch.tensor(cache.padding), *cache.layers)
        if kind not in self._steps:
            self._steps[kind] = self._trace(inputs, padded=kind[1])
        step = self._steps[kind]
        if step is None:
            return self._inner.forward(ids, cache, all_logits=all_logits)  # type: ignore[return-value]
        hidden = step(*inputs)
        cache.length += 1
        return Output(hidden, self._inner.head)  # type: ignore[attr-defined]

    def _pays(self, kind: tuple[int, bool]) -> bool:
        self._taken[kind] += 1
        return self._taken[kind] > PAYS_AFTER

    def _trace(self, inputs: tuple[Tensor, ...], *, padded: bool) -> Callable[..., Tensor] | None:
        def step(ids: Tensor, position: Tensor, padding: Tensor, *layers: Tensor) -> Tensor:
            return self._inner.forward(ids, TracedStep(layers, position, padding if padded else None)).hidden

        try:
            with torch.jit.optimized_execution(False):
                # `torch.jit.trace` would keep the weights for as long as the process lives; a function of its own
                # goes with the network.
                graph, (expected,) = torch._C._create_graph_by_tracing(step, inputs, lambda value: "", True, False)
                traced: Callable[..., Tensor] = torch._C._create_function_from_graph("step", graph)
                got = traced(*inputs)
        except Exception:  # whatever a torch without TorchScript says: the step works as it is
            return None
        return traced if torch.allclose(got, expected) else None  # type: ignore[arg-type]
