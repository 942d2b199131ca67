"""Networks whose positions turn otherwise in long texts (LongRoPE): two of the same weights, and one cache.

Once a text crosses the boundary, or goes back over it, what is kept of its beginning was computed for texts of the
other kind: it is computed anew, once. Lanes on both sides of the boundary go through both networks.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.networks.attention import KVCache
from engine.networks.changes import Change
from engine.networks.network import Network, Output
from engine.networks.watched import Anatomy, Size, Watch

# Long texts go through in parts of so many tokens.
AT_ONCE = 512


class TurningCache:
    """Keys and values under the protocol's verbs, and the ids that they are of; see `engine.networks.Cache`.

    Attributes:
        ids: all that have been through, `[lanes, length]`, padding included.
        long: of each lane, whether what is kept of it was computed for long texts.
        offered: siblings that have been through, until one is chosen.
    """

    rewindable = True
    takes_drafts = True

    def __init__(self, inner: KVCache, ids: Tensor, long: Sequence[bool]) -> None:
        self.inner = inner
        self.ids = ids
        self.long = list(long)
        self.offered: Tensor | None = None

    @property
    def length(self) -> int:
        return self.inner.length

    @property
    def padding(self) -> tuple[int, ...]:
        return self.inner.padding

    def gather(self, lanes: Sequence[int], capacity: int | None = None) -> "TurningCache":
        long = [self.long[lane] for lane in lanes]
        return TurningCache(self.inner.gather(lanes, capacity), self.ids[list(lanes)], long)

    def truncate(self, length: int) -> None:
        self.inner.truncate(length)
        self.ids = self.ids[:, : self.length]

    def choose(self, siblings: Sequence[int]) -> None:
        assert self.offered is not None, "choose follows a forward of siblings"
        self.inner.choose(siblings)
        chosen = self.offered[torch.arange(len(siblings)), list(siblings)]
        self.ids, self.offered = torch.cat([self.ids, chosen[:, None]], dim=1), None


class TurningNetwork:
    """See `engine.networks.Network`.

    Args:
        short, long: for texts of up to `boundary` tokens, and for longer ones.
    """

    def __init__(self, short: Network, long: Network, boundary: int) -> None:
        self._networks = {False: short, True: long}
        self._boundary = boundary
        self.path = short.path
        self.parameters = short.parameters
        self.vocabulary_size = short.vocabulary_size
        self.context_length = short.context_length

    def each(self, made: Callable[[Network], Network]) -> "TurningNetwork":
        """The same of what `made` makes of both networks."""
        return TurningNetwork(made(self._networks[False]), made(self._networks[True]), self._boundary)

    def prepare(self) -> None:
        self._networks[False].prepare()

    def size(self) -> Size:
        """See `engine.networks.watched`."""
        return self._networks[False].size()  # type: ignore[attr-defined]

    def look(self, ids: Tensor, first: int, watch: Watch) -> Anatomy:
        """See `engine.networks.watched`."""
        return self._networks[ids.shape[1] > self._boundary].look(ids, first, watch)  # type: ignore[attr-defined]

    def changed(self, changes: Sequence[Change]) -> "TurningNetwork":
        """See `engine.networks.changes`."""
        return self.each(lambda inner: inner.changed(changes))  # type: ignore[attr-defined]

    def at_once(self, length: int, usual: int) -> int:
        return length if length > self._boundary else usual

    def cache(self, capacity: int, padding: Sequence[int]) -> TurningCache:
        inner = self._networks[False].cache(capacity, padding)
        ids = torch.zeros(len(padding), 0, dtype=torch.long)
        return TurningCache(inner, ids, [False] * len(padding))  # type: ignore[arg-type]

    @torch.inference_mode()
    def forward(self, ids: Tensor, cache: TurningCache, *, siblings: bool = False, all_logits: bool = False) -> Output:
        before = cache.length
        end = before + (1 if siblings else ids.shape[1])
        wanted = [end - padding > self._boundary for padding in cache.padding]
        for lane, long in enumerate(wanted):
            if cache.long[lane] != long:
                self._again(cache, lane, long=long)
        outputs: dict[bool, Output] = {}
        written: dict[bool, list[Tensor]] = {}
        kinds, new = sorted(set(wanted)), slice(before, before + ids.shape[1])
        for long in kinds:
            cache.inner.length = before
            outputs[long] = self._parts(ids, cache.inner, long=long, siblings=siblings)
            if len(kinds) > 1:  # the other network writes over it
                written[long] = [one[:, :, new].clone() for one in cache.inner.kept]
        for lane, long in enumerate(wanted if written else ()):
            for one, own in zip(cache.inner.kept, written[long], strict=True):
                one[lane, :, new] = own[lane]
        if siblings:
            cache.offered = ids
        else:
            cache.ids = torch.cat([cache.ids, ids], dim=1)
        hidden = outputs[kinds[0]].hidden
        if len(kinds) > 1:
            hidden = torch.stack([outputs[long].hidden[lane] for lane, long in enumerate(wanted)])
        return Output(hidden, outputs[kinds[0]].head)

    def _again(self, cache: TurningCache, lane: int, *, long: bool) -> None:
        """Compute what is kept of a lane for texts of the other kind."""
        cache.long[lane] = long
        padding, length = cache.padding[lane], cache.length
        if length <= padding:
            return
        alone = self._networks[long].cache(length - padding, [0])
        self._parts(cache.ids[lane : lane + 1, padding:], alone, long=long)  # type: ignore[arg-type]
        for mine, anew in zip(cache.inner.kept, alone.kept, strict=True):  # type: ignore[attr-defined]
            mine[lane, :, padding:length] = anew[0]

    def _parts(self, ids: Tensor, cache: KVCache, *, long: bool, siblings: bool = False) -> Output:
        """One network's answer, a part after the other where there are many positions."""
        if siblings or ids.shape[1] <= AT_ONCE:
            return self._networks[long].forward(ids, cache, siblings=siblings)  # type: ignore[return-value]
        outputs = [self._networks[long].forward(part, cache) for part in ids.split(AT_ONCE, dim=1)]
        return Output(torch.cat([one.hidden for one in outputs], dim=1), outputs[0].head)  # type: ignore[attr-defined]
