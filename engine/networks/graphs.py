"""On a GPU: single-token steps captured once as a CUDA graph and replayed, so that launching kernels costs nothing.

Has not been run on a GPU yet; the self-check at load (`agreement`) decides on each machine whether our own
networks are used at all, and a capture that fails leaves steps as they are without it.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from engine.networks.attention import FixedStep, KVCache
from engine.networks.network import Network, Output
from engine.networks.watched import Anatomy, Size, Watch

WARM_UP = 3


class GraphedNetwork:
    """A network of ours whose decoding steps are replayed. See `engine.networks.Network`."""

    def __init__(self, inner: Network) -> None:
        self._inner = inner
        self.path = f"{inner.path}, CUDA graph"
        self.parameters = inner.parameters
        self.vocabulary_size = inner.vocabulary_size
        self.context_length = inner.context_length
        self._steps: WeakKeyDictionary[KVCache, _Step | None] = WeakKeyDictionary()

    def prepare(self) -> None:
        self._inner.prepare()

    def at_once(self, length: int, usual: int) -> int:
        return usual

    def cache(self, capacity: int, padding: Sequence[int]) -> KVCache:
        return self._inner.cache(capacity, padding)  # type: ignore[return-value]

    def size(self) -> Size:
        return self._inner.size()  # type: ignore[attr-defined]

    def look(self, ids: Tensor, first: int, watch: Watch) -> Anatomy:
        return self._inner.look(ids, first, watch)  # type: ignore[attr-defined]

    @torch.inference_mode()
    def forward(self, ids: Tensor, cache: KVCache, *, siblings: bool = False, all_logits: bool = False) -> Output:
        if siblings or ids.shape[1] != 1:
            return self._inner.forward(ids, cache, siblings=siblings, all_logits=all_logits)  # type: ignore[return-value]
        if cache not in self._steps:
            self._steps[cache] = self._capture(ids, cache)
        step = self._steps[cache]
        if step is None:
            return self._inner.forward(ids, cache, all_logits=all_logits)  # type: ignore[return-value]
        output = step.replay(ids, cache.length)
        cache.length += 1
        return output

    def _capture(self, ids: Tensor, cache: KVCache) -> "_Step | None":
        try:
            return _Step(self._inner, ids, cache)
        except RuntimeError:
            self.path = self._inner.path
            return None


class _Step:
    """One captured step over one cache."""

    def __init__(self, network: Network, ids: Tensor, cache: KVCache) -> None:
        self._view = FixedStep(cache)
        self._ids = ids.to(cache.device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                network.forward(self._ids, self._view)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = network.forward(self._ids, self._view)

    def replay(self, ids: Tensor, position: int) -> Output:
        self._ids.copy_(ids)
        self._view.position.fill_(position)
        self._graph.replay()
        # The next replay writes over the captured output: hand out a copy of its hidden states.
        return Output(self._output.hidden.clone(), self._output.head)  # type: ignore[attr-defined]
