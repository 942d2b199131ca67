"""Any causal language model, through transformers' own module."""

import copy
import inspect
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from engine.networks.caches import Part, TransformersCache, has_positions
from engine.networks.watched import Anatomy, Size, Watch
from engine.networks.ways import Way

if TYPE_CHECKING:
    from engine.networks.changes import Change
    from engine.networks.module_changes import ModuleChanges

# So many tokens go one by one after what is kept, where they may not together; more than that, with the whole text.
FEW = 16
# Without a cache, siblings go through with their whole texts, so many tokens at once.
TOKENS_AT_ONCE = 8_192
CACHE_NAMES = ("past_key_values", "cache_params")


@dataclass(frozen=True, slots=True)
class ModuleOutput:
    """An `Output` whose logits the module has computed: what follows the last layer differs by architecture.

    Attributes:
        computed: `[lanes, positions, vocabulary]`, or the last position alone.
    """

    hidden: Tensor
    computed: Tensor

    def logits(self, positions: Sequence[int] | int = -1) -> Tensor:
        if isinstance(positions, int):
            return self.computed[:, positions]
        return self.computed[torch.arange(len(positions)), list(positions)]

    def all_logits(self) -> Tensor:
        return self.computed


class TransformersNetwork:
    """Wraps a `PreTrainedModel` with a language-model head.

    Attributes:
        way: how the module is used; `door.enter` sets the one that was found safe.
    """

    def __init__(self, model: Any, context_length: int) -> None:
        self.model = model.eval()
        self.path = "transformers"
        self.parameters = sum(weight.numel() for weight in model.parameters())
        self.vocabulary_size = model.config.get_text_config().vocab_size
        self.context_length = context_length
        accepted = inspect.signature(model.forward).parameters
        # A module that takes a cache in `**kwargs` alone says nothing and ignores it.
        self.cache_name = next((name for name in CACHE_NAMES if name in accepted), None)
        self._takes_positions = "position_ids" in accepted
        self._takes_keep = "logits_to_keep" in accepted
        self._own_cache = _own_cache(model)
        self._into_head: Tensor | None = None
        self._parts: list[Any] = []  # of each block, once they are asked for
        self._changes: ModuleChanges | None = None
        self.way = Way(cached=self.cache_name is not None)

    def use(self, way: Way) -> None:
        """Use the module in this way from now on, and say so."""
        self.way = way
        self.path = f"transformers, {way.words}" if way.words else "transformers"

    @property
    def device(self) -> torch.device:
        return self.model.device

    def prepare(self) -> None:
        pass

    def at_once(self, length: int, usual: int) -> int:
        """How many positions of a text of `length` are to go through at once, where networks take `usual` many."""
        return usual if self.way.chunks and not self._crosses(length) else length

    def cache(self, capacity: int, padding: Sequence[int]) -> TransformersCache:
        return TransformersCache.empty(padding, self.way, self.device)

    @torch.inference_mode()
    def forward(
        self, ids: Tensor, cache: TransformersCache, *, siblings: bool = False, all_logits: bool = False
    ) -> ModuleOutput:
        ids = ids.to(self.device)
        outputs: list[ModuleOutput | None] = []
        row = 0
        expanded: list[Part | list[Part] | None] = []
        for start, part in cache.starts():
            own = ids[row : row + part.lanes]
            row += part.lanes
            before = max(0, start - cache.length)  # padding that a lane alone does not need
            if siblings:
                output, copies = self._siblings(own, part)
                outputs.append(output)
                expanded.append(copies)
            elif before < own.shape[1]:
                outputs.append(_padded(self._append(own[:, before:], part, all_logits), before))
            else:
                outputs.append(None)
        if siblings:
            cache.offered, cache.expanded = ids, expanded
        if not siblings:
            cache.length += ids.shape[1]
        return _together(outputs, ids.shape[1])

    def size(self) -> Size:
        """See `engine.networks.watched`."""
        from engine.networks.module_look import size

        return size(self.model)

    def look(self, ids: Tensor, first: int, watch: Watch) -> Anatomy:
        """See `engine.networks.watched`."""
        from engine.networks.module_look import look

        if self._changes is None:
            return look(self.model, ids, first, watch)
        with self._changes.made(torch.arange(ids.shape[1])[None]):
            return self._changes.of(look(self.model, ids, first, watch))

    def changed(self, changes: "Sequence[Change]") -> "TransformersNetwork":
        """See `engine.networks.changes`. A mean wants whole texts, so nothing is kept of them."""
        from engine.networks.module_changes import ModuleChanges, parts_of

        if not self._parts:
            self._parts = parts_of(self.model, self.vocabulary_size)
        network = copy.copy(self)
        network._changes = ModuleChanges(self.model, self._parts, changes)
        if network._changes.takes_means:
            network.way = replace(self.way, cached=False, chunks=False, boundary=None)
        return network

    def _changed_at(self, positions: Tensor) -> AbstractContextManager[None]:
        """Changes in the forward of tokens at these positions, `[lanes, positions]`."""
        return nullcontext() if self._changes is None else self._changes.made(positions)

    @torch.inference_mode()
    def whole(self, ids: Tensor) -> ModuleOutput:
        """The module's answer to texts `[lanes, positions]` of one length, with nothing kept and nothing masked."""
        return self._module(ids.to(self.device), {"use_cache": False}, ids.shape[1], torch.arange(ids.shape[1])[None])

    @torch.inference_mode()
    def gives_hidden(self, ids: Tensor) -> bool:
        """Whether the module's last hidden states are one vector for each position."""
        result = self.model(input_ids=ids.to(self.device), output_hidden_states=True, return_dict=True, use_cache=False)
        return bool(result.hidden_states) and result.hidden_states[-1].shape[:-1] == ids.shape

    def _crosses(self, length: int) -> bool:
        return self.way.boundary is not None and length > self.way.boundary

    def _append(self, ids: Tensor, part: Part, all_logits: bool) -> ModuleOutput:
        """Tokens after those of a part, `[lanes, positions]`."""
        count = ids.shape[1]
        known = part.length
        part.ids = torch.cat([part.ids, ids], dim=1)
        keep = count if all_logits else 1
        if not self.way.cached or self._crosses(part.longest):
            part.inner = None
            return _last(self._without_cache(part.ids, part.padding, keep), count)
        if known and part.inner is not None and count > 1 and not self.way.chunks:
            if count > FEW:
                part.inner = None
            else:
                steps = [self._cached(ids[:, i : i + 1], part, known + i, 1) for i in range(count)]
                return ModuleOutput(*(torch.cat(both, dim=1) for both in zip(*((s.hidden, s.computed) for s in steps))))
        if part.inner is None and known:
            return _last(self._cached(part.ids, part, 0, keep), count)
        return self._cached(ids, part, known, keep)

    def _cached(self, ids: Tensor, part: Part, known: int, keep: int) -> ModuleOutput:
        """Tokens after the first `known` of a part, which `part.inner` holds."""
        if not known:
            part.inner = self._own_cache() if self._own_cache else DynamicCache(config=self.model.config)
        extra: dict[str, Any] = self._cache_argument(part)
        padding = torch.tensor(part.padding, device=self.device)[:, None]
        positions = torch.arange(known, known + ids.shape[1], device=self.device) - padding  # [lanes, positions]
        if any(part.padding) and (not known or has_positions(part.inner)):
            extra["attention_mask"] = (torch.arange(known + ids.shape[1], device=self.device) >= padding).long()
        elif max(part.padding) > known:  # of states alone, which no padding may go into
            extra["attention_mask"] = (positions >= 0).long()
        if self._takes_positions:
            extra["position_ids"] = positions.clamp(min=0)
        return self._module(ids, extra, keep, positions, part)

    def _without_cache(self, ids: Tensor, padding: Sequence[int], keep: int) -> ModuleOutput:
        extra: dict[str, Any] = {"use_cache": False}
        left = torch.tensor(padding, device=self.device)[:, None]
        columns = torch.arange(ids.shape[1], device=self.device)
        if any(padding):
            extra["attention_mask"] = (columns >= left).long()
            if self._takes_positions:
                extra["position_ids"] = (columns - left).clamp(min=0)
        return self._module(ids, extra, keep, columns - left)

    def _module(
        self, ids: Tensor, extra: dict[str, Any], keep: int, positions: Tensor, part: Part | None = None
    ) -> ModuleOutput:
        if self._takes_keep and not self.way.head:
            extra["logits_to_keep"] = keep
        with self._changed_at(positions):
            if self.way.head:
                head = self.model.get_output_embeddings().register_forward_pre_hook(self._keep_input)
                result = self.model(input_ids=ids, return_dict=True, **extra)
                head.remove()
                hidden, self._into_head = self._into_head, None
            else:
                result = self.model(input_ids=ids, output_hidden_states=True, return_dict=True, **extra)
                hidden = result.hidden_states[-1]
        if part is not None and self.cache_name is not None:
            part.inner = getattr(result, self.cache_name, None) or part.inner
        assert hidden is not None, "the output layer is part of every forward"
        return ModuleOutput(hidden, result.logits[:, -keep:].float())

    def _keep_input(self, layer: Any, inputs: tuple[Tensor, ...]) -> None:
        self._into_head = inputs[0]

    def _cache_argument(self, part: Part) -> dict[str, Any]:
        return {"use_cache": True} | ({self.cache_name: part.inner} if self.cache_name else {})

    def _siblings(self, ids: Tensor, part: Part) -> tuple[ModuleOutput, Part | list[Part] | None]:
        """Alternatives for a part's next token, `[lanes, siblings]`; for those run as lanes, the part they are in."""
        lanes, count = ids.shape
        crosses = self._crosses(part.longest + 1)
        if self.way.cached and not crosses and part.inner is not None and self.way.siblings == "positions":
            return self._as_positions(ids, part), None
        if self.way.cached and not crosses:
            if part.inner is None:  # what was kept is of no use any more: the text anew
                self._cached(part.ids, part, 0, 1)
            if self.way.rows == "single":
                copies = [part.select([0]) for _ in range(count)]
                return _stacked([self._append(ids[:, i : i + 1], copies[i], True) for i in range(count)]), copies
            wide = part.select([lane for lane in range(lanes) for _ in range(count)])
            output = self._append(ids.reshape(-1, 1), wide, True)
            return _shaped(output, lanes, count), wide
        texts = torch.cat([part.ids.repeat_interleave(count, dim=0), ids.reshape(-1, 1)], dim=1)
        padding = [pad for pad in part.padding for _ in range(count)]
        part.inner = None
        each = 1 if self.way.rows == "single" else max(1, TOKENS_AT_ONCE // texts.shape[1])
        outputs = [
            _last(self._without_cache(texts[first : first + each], padding[first : first + each], 1), 1)
            for first in range(0, len(texts), each)
        ]
        hidden, computed = (torch.cat(both) for both in zip(*((one.hidden, one.computed) for one in outputs)))
        return _shaped(ModuleOutput(hidden, computed), lanes, count), None

    def _as_positions(self, ids: Tensor, part: Part) -> ModuleOutput:
        lanes, count = ids.shape
        extra: dict[str, Any] = self._cache_argument(part)
        extra["attention_mask"] = self._sibling_mask(part, count)
        left = torch.tensor(part.padding, device=self.device)[:, None]
        if self._takes_positions:
            extra["position_ids"] = (part.length - left).expand(lanes, count)
        return self._module(ids, extra, count, (part.length - left).expand(lanes, count), part)

    def _sibling_mask(self, part: Part, count: int) -> Tensor:
        """Additive mask `[lanes, 1, siblings, length + siblings]`: the cache without padding, and oneself."""
        hidden = torch.finfo(self.model.dtype).min
        mask = torch.full((part.lanes, 1, count, part.length + count), hidden, dtype=self.model.dtype)
        for lane, padding in enumerate(part.padding):
            mask[lane, :, :, padding : part.length] = 0
        own = torch.arange(count)
        mask[:, :, own, part.length + own] = 0
        return mask.to(self.device)


def _own_cache(model: Any) -> Any:
    """The class of cache that an architecture brings with it; `None` for transformers' own."""
    names = vars(sys.modules[type(model).__module__]).values()
    return next(
        (
            kind
            for kind in names
            if isinstance(kind, type) and issubclass(kind, DynamicCache) and kind is not DynamicCache
        ),
        None,
    )


def _last(output: ModuleOutput, count: int) -> ModuleOutput:
    """Of a whole text's output, that of its last `count` positions."""
    return replace(output, hidden=output.hidden[:, -count:])


def _shaped(output: ModuleOutput, lanes: int, count: int) -> ModuleOutput:
    """What went through as lanes of one position, as positions of lanes."""
    return ModuleOutput(output.hidden.reshape(lanes, count, -1), output.computed.reshape(lanes, count, -1))


def _stacked(outputs: Sequence[ModuleOutput]) -> ModuleOutput:
    """What went through one after another, as positions of one lane."""
    return ModuleOutput(
        torch.cat([one.hidden for one in outputs], dim=1), torch.cat([one.computed for one in outputs], dim=1)
    )


def _padded(output: ModuleOutput, before: int) -> ModuleOutput:
    """With `before` positions of padding, which hold nothing."""
    if not before:
        return output
    alone = output.computed.shape[1] == 1 and output.hidden.shape[1] != 1
    pad = torch.nn.functional.pad
    computed = output.computed if alone else pad(output.computed, (0, 0, before, 0))
    return ModuleOutput(pad(output.hidden, (0, 0, before, 0)), computed)


def _together(outputs: Sequence[ModuleOutput | None], count: int) -> ModuleOutput:
    """The lanes of all parts; a part that is `None` has had nothing but padding so far."""
    there = next(output for output in outputs if output is not None)
    whole = [
        output
        if output is not None
        else ModuleOutput(
            there.hidden.new_zeros(1, count, there.hidden.shape[-1]),
            there.computed.new_zeros(1, there.computed.shape[1], there.computed.shape[-1]),
        )
        for output in outputs
    ]
    if len(whole) == 1:
        return whole[0]
    shortest = min(output.computed.shape[1] for output in whole)
    return ModuleOutput(
        torch.cat([output.hidden for output in whole]),
        torch.cat([output.computed[:, -shortest:] for output in whole]),
    )
