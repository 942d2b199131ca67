"""One pass over a text that keeps what each block does, for the other views to read from.

Everything is float32, on the processor, of the very weights that lanes run on. Blocks are counted from 0; the stream's
row 0 is the embedding, with positions where an architecture adds them, and row l + 1 what block l leaves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from engine.base.errors import Cancelled, ContextError, InputError
from engine.base.language import _, counted
from engine.models.local import with_network
from engine.models.model import Model
from engine.networks.summary import Summary
from engine.networks.watched import Anatomy, Norm, OutputLayer, Point, Projection, Size, Watchable

# A record takes at most so many bytes; of a longer text the last positions are looked at.
BYTES = 256_000_000
# And at most so many positions.
POSITIONS = 2_048
# Of them, what keys and values of the whole text may take; a longer text is looked at without attention.
ATTENTION_SHARE = 0.5

# Norm of a difference over a norm: rounding of bfloat16 is below it.
MADE_OF = 0.02

ADDED, ATTENTION = ("attention", "mlp"), ("queries", "keys", "values", "weights")


@dataclass(frozen=True, slots=True)
class Recording:
    """A block has been through."""

    done: int
    blocks: int


@dataclass(frozen=True, eq=False)
class Record:
    """What a network did with a text, at its positions from `first_position` on.

    Attributes:
        ids: of the whole text.
        first_position: the first one looked at; 0 for the whole text. The record's positions are counted from it.
        stream: `[blocks + 1, positions, hidden]`.
        attention, mlp: what each block adds to the stream, `[blocks, positions, hidden]`; `None` where that is not
            known, and `unlike` says why.
        heads: what goes into each block's projection after attention, `[positions, heads · head_size]`; `None` for a
            block where that is not known.
        anatomy: final norm and output layer.
        unlike, unseen: see `engine.networks.watched.Anatomy`.
    """

    ids: tuple[int, ...]
    first_position: int
    stream: Tensor
    attention: Tensor | None
    mlp: Tensor | None
    heads: tuple[Tensor | None, ...]
    unlike: str
    unseen: str
    anatomy: Anatomy = field(repr=False)
    _queries: tuple[Tensor | None, ...] = field(repr=False)
    _keys: tuple[Tensor | None, ...] = field(repr=False)
    _values: tuple[Tensor | None, ...] = field(repr=False)
    _weights: tuple[Tensor | None, ...] = field(repr=False)

    @property
    def blocks(self) -> int:
        return len(self.stream) - 1

    @property
    def positions(self) -> range:
        """Those that are looked at, counted from the text's beginning."""
        return range(self.first_position, len(self.ids))

    @property
    def norm(self) -> Norm | None:
        """The final one."""
        return self.anatomy.norm

    @property
    def output(self) -> OutputLayer | None:
        """The output layer."""
        return self.anatomy.output

    def at(self, position: int) -> int:
        """The row of a position, which is counted from the text's beginning or, below zero, from its end.

        Raises:
            InputError: the record does not hold it.
        """
        place = position + len(self.ids) if position < 0 else position
        if not 0 <= place < len(self.ids):
            raise InputError(
                counted(
                    "there is no position {position}: the text has {count:,} token",
                    "there is no position {position}: the text has {count:,} tokens",
                    len(self.ids),
                    position=position,
                )
            )
        if place < self.first_position:
            raise InputError(
                _(
                    "position {position:,} is not kept: of a text this long, those from {first:,} on are looked at; "
                    "shorten it to look at earlier ones",
                    position=place,
                    first=self.first_position,
                )
            )
        return place - self.first_position

    def logits(self, stream: Tensor) -> Tensor:
        """What the output layer says to rows of the stream: `[rows, hidden]` → `[rows, vocabulary]`."""
        return self.anatomy.logits(stream).float().cpu()

    def said(self, stream: Tensor, asked: Tensor, top: int) -> Summary:
        """What is said of the logits of rows of the stream, `[rows, hidden]`.

        Args:
            asked: ids of others that are wanted beside the `top` largest, `[rows, asked]`.
        """
        if self.anatomy.summary is not None:
            return self.anatomy.summary(stream, asked, top)
        return Summary.of(self.logits(stream), asked, top)

    def projection(self, block: int) -> Projection | None:
        return self.anatomy.projections[self.block(block)]

    def weights(self, block: int, places: slice = slice(None)) -> Tensor:
        """Attention weights of one block, `[heads, positions, length]`: each row sums to one.

        Args:
            places: of the record's positions.

        Raises:
            InputError: there is no such block, or its weights are not known.
        """
        block = self.block(block)
        kept, queries, keys = self._weights[block], self._queries[block], self._keys[block]
        if kept is not None:
            return kept[:, places]
        if queries is None or keys is None:
            raise InputError(self.unseen or _("layer {layer} has no attention", layer=block))
        first = self.first_position + range(len(queries))[places].start
        window = self.anatomy.windows[block] if self.anatomy.windows else None
        return weights_from(queries[places], keys, self.anatomy.scale, first, window=window, cap=self.anatomy.cap)

    def sees(self, block: int) -> bool:
        """Whether a block's attention weights are known."""
        return self._weights[block] is not None or self._queries[block] is not None

    def values(self, block: int) -> Tensor:
        """What attention weighs, `[key heads, length, head_size]`.

        Raises:
            InputError: there is no such block, or its values are not known.
        """
        values = self._values[self.block(block)]
        if values is None:
            raise InputError(self.unseen or _("what layer {layer} weighs is not known", layer=block))
        return values.float().cpu()

    def block(self, block: int) -> int:
        """A block's number. Raises `InputError` where there is no such block."""
        if not 0 <= block < self.blocks:
            raise InputError(
                _("there is no layer {layer}: this model has layers 0 to {last}", layer=block, last=self.blocks - 1)
            )
        return block


def record(
    model: Model,
    ids: Sequence[int],
    *,
    positions: int | None = None,
    limit: int = BYTES,
    report: Callable[[Recording], None] = lambda recording: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Record:
    """Run a text through a model and keep what its blocks do.

    Args:
        ids: of the whole text.
        positions: how many of the last ones are looked at; all where there is room.
        limit: bytes that the record may take.
        report: called after each block.
        cancelled: asked within each block; True ends with `Cancelled`.

    Raises:
        InputError: an empty text, a model behind a server, or one that has no single stream of vectors.
        ContextError: the text does not fit the context.
        Cancelled: `cancelled` returned True.
    """
    local = with_network(
        model, _("looking inside needs the model's own numbers, which no server tells; choose a local model")
    )
    context_length = local.network.context_length
    if not ids:
        raise InputError(_("the text is empty; type at least one character"))
    if len(ids) > context_length:
        raise ContextError(
            _(
                "the text has {count:,} tokens, the model's context holds {context_length:,}; shorten it",
                count=len(ids),
                context_length=context_length,
            )
        )
    if positions is not None and positions < 1:
        raise InputError(_("positions is {positions}; allowed: from 1", positions=positions))
    network = cast(Watchable, local.network)
    keeper = _Keeper(len(ids), positions, network.size(), limit, report, cancelled)
    with torch.inference_mode():
        anatomy = network.look(torch.tensor([list(ids)]), keeper.first, keeper)
    return keeper.record(tuple(ids), anatomy)


def weights_from(
    queries: Tensor, keys: Tensor, scale: float, first: int, *, window: int | None = None, cap: float | None = None
) -> Tensor:
    """`softmax(q · k · scale)`, causal (Vaswani et al. 2017); heads share keys in groups (Ainslie et al. 2023).

    Args:
        queries: `[positions, heads, head_size]`.
        keys: of the whole text, `[key heads, length, head_size]`.
        first: where the first query stands in the text.
        window: up to how many positions are seen, a query's own included.
        cap: what the products stay below, softly (Gemma 2).

    Returns:
        `[heads, positions, length]`, float32; head h belongs to key head `h // group`.
    """
    count, heads, _size = queries.shape
    grouped = queries.float().permute(1, 0, 2).unflatten(0, (len(keys), heads // len(keys)))
    scores = grouped @ keys.float().cpu()[:, None].mT * scale  # [key heads, group, positions, length]
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    seen = torch.ones(count, keys.shape[1], dtype=torch.bool).tril(first)
    if window:
        seen &= torch.ones_like(seen).triu(first + 1 - window)
    return scores.masked_fill(~seen, -torch.inf).softmax(-1).flatten(0, 1)


class _Keeper:
    """What a forward is watched by: keeps its parts, and ends it where it was cancelled."""

    def __init__(
        self,
        length: int,
        positions: int | None,
        size: Size,
        limit: int,
        report: Callable[[Recording], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._size, self._report, self._cancelled = size, report, cancelled
        attention = size.text_bytes * length
        self._attends = attention <= ATTENTION_SHARE * limit
        room = (limit - attention * self._attends) // (size.position_bytes + size.weight_bytes * length * self._attends)
        kept = max(1, min(positions or length, length, room, POSITIONS))
        self.first = length - kept
        blocks = size.blocks
        self._stream = torch.empty(blocks + 1, kept, size.hidden)
        self._added = {name: torch.empty(blocks, kept, size.hidden) for name in ADDED}
        self._told = dict.fromkeys(ADDED, 0)
        self._others: dict[str, list[Tensor | None]] = {name: [None] * blocks for name in (*ATTENTION, "heads")}

    def __call__(self, point: Point, block: int, value: Tensor) -> Tensor:
        if self._cancelled():
            raise Cancelled
        if block < 0:  # nothing to keep
            return value
        if point == "stream":
            self._stream[block] = value
            if block:
                self._report(Recording(block, self._size.blocks))
        elif point in ADDED:
            self._added[point][block] = value
            self._told[point] += 1
        elif point in ("keys", "values"):  # those of our own networks lie in their cache
            self._others[point][block] = value if self._attends else None
        elif self._attends or point == "heads":
            self._others[point][block] = value.to("cpu", torch.float32, copy=True)
        return value

    def record(self, ids: tuple[int, ...], anatomy: Anatomy) -> Record:
        known = all(count == self._size.blocks for count in self._told.values()) and not anatomy.unlike
        for block, values in enumerate(self._others["values"]):
            weights, heads = self._others["weights"][block], self._others["heads"][block]
            if weights is not None and (heads is None or values is None or not _made_of(heads, weights, values)):
                self._others["values"][block] = None
        long = "" if self._attends else _("the text is too long to keep what attention looks at; shorten it")
        return Record(
            ids=ids,
            first_position=self.first,
            stream=self._stream,
            attention=self._added["attention"] if known else None,
            mlp=self._added["mlp"] if known else None,
            unlike=anatomy.unlike,
            unseen=anatomy.unseen or long,
            anatomy=anatomy,
            heads=tuple(self._others["heads"]),
            _queries=tuple(self._others["queries"]),
            _keys=tuple(self._others["keys"]),
            _values=tuple(self._others["values"]),
            _weights=tuple(self._others["weights"]),
        )


def _made_of(heads: Tensor, weights: Tensor, values: Tensor) -> bool:
    """Whether what goes into the projection is the weighed values and nothing else; some architectures gate it."""
    if len(weights) % len(values) or heads.shape[-1] != len(weights) * values.shape[-1]:
        return False
    shared = values.float().cpu().repeat_interleave(len(weights) // len(values), dim=0)
    made = (weights @ shared).transpose(0, 1).flatten(1)  # [positions, heads · head_size]
    return bool((made - heads).norm() <= MADE_OF * heads.norm())
