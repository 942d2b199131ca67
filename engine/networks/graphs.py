"""On a GPU: single-token steps captured once as a CUDA graph and replayed, so that launching kernels costs nothing.

A graph replays the same kernels on the same memory. It therefore has keys and values of its own, as large as the
next multiple of `ROOM` positions, and a cache that begins to step moves into them; once that cache is gone the next one
of its size moves in, without another capture.
"""

import weakref
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from engine.networks.attention import FixedStep, KVCache
from engine.networks.changes import Change
from engine.networks.network import Network, Output
from engine.networks.watched import Anatomy, Size, Watch

WARM_UP = 3
# A capture takes about as long as so many steps: it is made for a cache that has taken as many.
PAYS_AFTER = 8
ROOM = 256
# Graphs whose cache is gone are kept for the next one, so many at most.
MOST_FREE = 2


class GraphedNetwork:
    """A network of ours whose decoding steps are replayed. See `engine.networks.Network`.

    Args:
        after: steps of a cache before one is captured for it.
    """

    def __init__(self, inner: Network, after: int = PAYS_AFTER) -> None:
        self._inner = inner
        self._after = after
        self.parameters = inner.parameters
        self.vocabulary_size = inner.vocabulary_size
        self.context_length = inner.context_length
        self._steps: WeakKeyDictionary[KVCache, _Step] = WeakKeyDictionary()
        self._taken: WeakKeyDictionary[KVCache, int] = WeakKeyDictionary()
        self._free: list[_Step] = []
        # Whether steps can be captured here at all is known before the first one is wanted, and said.
        first = self._captured(1, ROOM)
        self._captures = first is not None
        self.path = f"{inner.path}, CUDA graph" if first is not None else inner.path
        self._free += [first] if first is not None else []

    def prepare(self) -> None:
        self._inner.prepare()

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
        single = not siblings and ids.shape[1] == 1 and cache.length < cache.capacity
        step = self._step_of(cache) if single and self._captures else None
        if step is None:
            return self._inner.forward(ids, cache, siblings=siblings, all_logits=all_logits)  # type: ignore[return-value]
        output = step.replay(ids, cache.length)
        cache.length += 1
        return output

    def _step_of(self, cache: KVCache) -> "_Step | None":
        """The captured step that a cache lives in; `None` where it does not pay, or cannot be captured."""
        step = self._steps.get(cache)
        if step is not None and step.holds(cache):
            return step
        lanes, room = len(cache.padding), -(-cache.capacity // ROOM) * ROOM
        if step is None:  # else another network's step has taken the cache over, and it moves back
            step = self._taken_up(lanes, room)
            if step is None and self._pays(cache):
                step = self._captured(lanes, room)
        if step is None:
            return None
        step.move_in(cache)
        if cache not in self._steps:
            self._steps[cache] = step
            weakref.finalize(cache, self._free.append, step).atexit = False
        return step

    def _taken_up(self, lanes: int, room: int) -> "_Step | None":
        """One whose cache is gone. Those that become free are appended, perhaps by another thread meanwhile."""
        del self._free[:-MOST_FREE]
        for place, step in enumerate(self._free):
            if step.fits(lanes, room):
                return self._free.pop(place)
        return None

    def _pays(self, cache: KVCache) -> bool:
        taken = self._taken.get(cache, 0)
        self._taken[cache] = taken + 1
        return taken == self._after  # once: what cannot be captured is not tried at every step

    @torch.inference_mode()
    def _captured(self, lanes: int, room: int) -> "_Step | None":
        """A step that has been captured and computes what the network computes; `None` where there is none."""
        for free in (self._free, []):
            try:
                step = _Step(self._inner, self.cache(room, [0] * lanes))
                return step if step.is_right() else None
            except torch.OutOfMemoryError:
                if not free:
                    return None
                free.clear()  # for the room that it takes, and once more
            except RuntimeError:
                return None
        return None


class _Step:
    """One captured step, over keys and values of its own."""

    def __init__(self, network: Network, own: KVCache) -> None:
        self._network = network
        self._own = own
        self._view = FixedStep(own)
        self._ids = torch.zeros(len(own.padding), 1, dtype=torch.long, device=own.device)
        self._next = 0  # where the position after the last replay is
        now = torch.cuda.current_stream()
        side = torch.cuda.Stream()
        side.wait_stream(now)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                network.forward(self._ids, self._view)
        now.wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # A capture that fails leaves torch on its own stream: the outer one goes back to that of before.
        with torch.cuda.stream(now), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = network.forward(self._ids, self._view)

    def fits(self, lanes: int, room: int) -> bool:
        return (len(self._own.padding), self._own.capacity) == (lanes, room)

    def holds(self, cache: KVCache) -> bool:
        """Whether a cache's keys and values are those of the graph."""
        return cache.layers is self._own.layers

    def move_in(self, cache: KVCache) -> None:
        """Give a cache the graph's memory in place of its own."""
        for mine, theirs in zip(self._own.layers, cache.layers):
            mine[:, :, : cache.length] = theirs[:, :, : cache.length]
        self._view.place(cache.length, cache.padding)
        self._next = cache.length
        cache.layers = self._own.layers

    def replay(self, ids: Tensor, position: int) -> Output:
        if position != self._next:  # gone back: what lies behind is masked, but still must be a number
            self._view.clear(position)
        self._next = position + 1
        self._ids.copy_(ids)
        self._view.position.fill_(position)
        self._graph.replay()
        # The next replay writes over the captured output: hand out a copy of its hidden states.
        return Output(self._output.hidden.clone(), self._output.head)  # type: ignore[attr-defined]

    def is_right(self) -> bool:
        """Whether two replays give what the network gives; they leave the cache empty."""
        usual = self._network.cache(self._own.capacity, self._own.padding)
        for position in range(2):
            ids = (torch.arange(len(self._own.padding)) + position)[:, None] % self._network.vocabulary_size
            expected = self._network.forward(ids, usual).hidden
            got = self.replay(ids, position).hidden
            close = 1e-4 if got.dtype == torch.float32 else 5e-2
            if not bool((got - expected).norm() <= close * expected.norm()):
                return False
        return True
