"""Any causal language model, through transformers' own module."""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class TransformersCache:
    """transformers' `DynamicCache` under the protocol's verbs."""

    def __init__(self, inner: DynamicCache, padding: Sequence[int], length: int = 0) -> None:
        self.inner = inner
        self.padding = tuple(padding)
        self.length = length
        self.siblings = 0
        self.expanded = False

    @property
    def rewindable(self) -> bool:
        return all(type(layer) is DynamicLayer for layer in self.inner.layers)

    def gather(self, lanes: Sequence[int], capacity: int | None = None) -> "TransformersCache":
        inner = copy.deepcopy(self.inner)
        if self.length:
            inner.batch_select_indices(torch.tensor(lanes))
        return TransformersCache(inner, [self.padding[lane] for lane in lanes], self.length)

    def truncate(self, length: int) -> None:
        if length < self.length:
            self.inner.crop(length - self.length)
            self.length = length

    def choose(self, siblings: Sequence[int]) -> None:
        if self.expanded:
            chosen = [lane * self.siblings + index for lane, index in enumerate(siblings)]
            self.inner.batch_select_indices(torch.tensor(chosen))
        else:
            rows = torch.arange(len(siblings))
            chosen_positions = self.length + torch.tensor(siblings)
            for layer in self.inner.layers:
                for states in (layer.keys, layer.values):
                    states[:, :, self.length] = states[rows, :, chosen_positions]
            self.inner.crop(1 - self.siblings)
        self.length += 1
        self.siblings = 0
        self.expanded = False


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
    """Wraps a `PreTrainedModel` with a language-model head."""

    def __init__(self, model: Any, context_length: int) -> None:
        self.model = model.eval()
        self.path = "transformers"
        self.parameters = sum(weight.numel() for weight in model.parameters())
        self.vocabulary_size = model.config.get_text_config().vocab_size
        self.context_length = context_length
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._takes_keep = "logits_to_keep" in accepted
        self._siblings_as_positions: bool | None = None

    @property
    def device(self) -> torch.device:
        return self.model.device

    def prepare(self) -> None:
        pass

    def cache(self, capacity: int, padding: Sequence[int]) -> TransformersCache:
        return TransformersCache(DynamicCache(config=self.model.config), padding)

    @torch.inference_mode()
    def forward(
        self, ids: Tensor, cache: TransformersCache, *, siblings: bool = False, all_logits: bool = False
    ) -> "ModuleOutput":
        ids = ids.to(self.device)
        if not siblings:
            output = self._run(ids, cache, all_logits)
            cache.length += ids.shape[1]
            return output
        if self._siblings_as_positions is None:
            self._siblings_as_positions = self._probe_siblings(ids, cache)
        if self._siblings_as_positions:
            output = self._run(ids, cache, True, siblings=True)
        else:
            cache.inner.batch_repeat_interleave(ids.shape[1])
            output = self._expand(ids, cache)
            cache.expanded = True
        cache.siblings = ids.shape[1]
        return output

    def _run(self, ids: Tensor, cache: TransformersCache, all_logits: bool, siblings: bool = False) -> "ModuleOutput":
        lanes, positions = ids.shape
        padding = torch.tensor(cache.padding, device=self.device)[:, None]
        offsets = torch.zeros(positions, dtype=torch.long) if siblings else torch.arange(positions)
        where = cache.length + offsets.to(self.device) - padding  # [lanes, positions]
        extra: dict[str, Any] = {}
        if siblings:
            extra["attention_mask"] = self._sibling_mask(cache, lanes, positions)
        elif any(cache.padding):
            columns = torch.arange(cache.length + positions, device=self.device)
            extra["attention_mask"] = (columns >= padding).long()
        if self._takes_positions and (siblings or any(cache.padding)):
            extra["position_ids"] = where.clamp(min=0)
        if self._takes_keep and not all_logits:
            extra["logits_to_keep"] = 1
        result = self.model(
            input_ids=ids, past_key_values=cache.inner, use_cache=True, output_hidden_states=True, **extra
        )
        return ModuleOutput(result.hidden_states[-1], result.logits.float())

    def _sibling_mask(self, cache: TransformersCache, lanes: int, positions: int) -> Tensor:
        """Additive mask `[lanes, 1, positions, length + positions]`: the cache without padding, and oneself."""
        hidden = torch.finfo(self.model.dtype).min
        mask = torch.full((lanes, 1, positions, cache.length + positions), hidden, dtype=self.model.dtype)
        for lane, padding in enumerate(cache.padding):
            mask[lane, :, :, padding : cache.length] = 0
        own = torch.arange(positions)
        mask[:, :, own, cache.length + own] = 0
        return mask.to(self.device)

    def _expand(self, ids: Tensor, cache: TransformersCache) -> "ModuleOutput":
        """Siblings as lanes of a repeated cache: for architectures that take no mask of ours."""
        lanes, positions = ids.shape
        repeated = [pad for pad in cache.padding for _ in range(positions)]
        wide = TransformersCache(cache.inner, repeated, cache.length)
        output = self._run(ids.reshape(-1, 1), wide, True)
        return ModuleOutput(output.hidden.reshape(lanes, positions, -1), output.computed.reshape(lanes, positions, -1))

    def _probe_siblings(self, ids: Tensor, cache: TransformersCache) -> bool:
        """Whether this architecture gives the same logits for siblings as positions as for siblings as lanes."""
        if not cache.rewindable:
            return False
        few = ids[:, :2]
        as_positions, as_lanes = cache.gather(range(len(ids))), cache.gather(range(len(ids)))
        try:
            mine = self._run(few, as_positions, True, siblings=True).computed
        except (RuntimeError, ValueError, TypeError):
            return False
        as_lanes.inner.batch_repeat_interleave(few.shape[1])
        theirs = self._expand(few, as_lanes).computed
        return bool(torch.cosine_similarity(mine, theirs, dim=-1).min() > 0.9995)
