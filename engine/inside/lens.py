"""The logit lens (nostalgebraist 2020): what the output layer would say to the stream of every block.

Row l is `softmax(U · N(h_l))`; the last row is the model's own answer.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.base.errors import Cancelled, InputError
from engine.base.language import _
from engine.inside.record import Record
from engine.inside.tokens import check_tokens
from engine.networks.summary import Summary
from engine.text.tokenizer import Tokenizer

# Logits over the vocabulary that are in memory at once, and rows of the stream.
AT_ONCE = 16_000_000
ROWS_AT_ONCE = 16
# Cells computed at once, and the products that they may take: Esc waits for so many.
CELLS_AT_ONCE = 160
PRODUCTS_AT_ONCE = 12_000_000_000
MOST_TRACKED = 5


@dataclass(frozen=True, slots=True)
class Said:
    """A token in one cell.

    Attributes:
        rank: from 1; equals share the better rank.
    """

    id: int
    probability: float
    rank: int


@dataclass(frozen=True, slots=True)
class LensCell:
    """What the output layer says to one row of the stream at one position.

    Attributes:
        top: the most probable tokens, in order.
        final: the token that was picked: the next one of the text, and at its end the one on top in the last row.
        tracked: the tokens asked for, in their order.
    """

    position: int
    entropy_bits: float
    top: tuple[Said, ...]
    final: Said
    tracked: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class LensRow:
    """One row, 0 for the embedding and l + 1 for what block l leaves; a cell for each position looked at."""

    row: int
    cells: tuple[LensCell, ...]


@dataclass(frozen=True)
class Lens:
    """All rows that have been computed, the last row first or in any order.

    Attributes:
        rows: by number.
        blocks: of the model; the last row has this number.
    """

    blocks: int
    rows: dict[int, LensRow]

    def cell(self, row: int, position: int) -> LensCell | None:
        """A cell, by the position in the text; `None` where it is not computed."""
        cells = self.rows[row].cells if row in self.rows else ()
        place = position - cells[0].position if cells else 0
        return cells[place] if cells and 0 <= place < len(cells) else None

    @property
    def decided_at(self) -> tuple[int | None, ...]:
        """For each position, the lowest row from which on the top token stays the final one.

        `None` while rows that could lower it further are not computed.
        """
        last = self.rows.get(self.blocks)
        return tuple(self._decided(place) for place in range(len(last.cells))) if last else ()

    def _decided(self, place: int) -> int | None:
        final = self.rows[self.blocks].cells[place].top[0].id
        for row in range(self.blocks - 1, -1, -1):
            if row not in self.rows:
                return None
            if self.rows[row].cells[place].top[0].id != final:
                return row + 1
        return 0

    def to_dict(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """What `lens --json` has beside `model` and `tokens`."""
        return {
            "layers": [
                {
                    "layer": row.row,
                    "positions": [
                        {
                            "position": cell.position,
                            "entropy_bits": cell.entropy_bits,
                            "top": [
                                {"id": one.id, "text": tokenizer.label(one.id), "probability": one.probability}
                                for one in cell.top
                            ],
                            "tracked": [
                                {"id": one.id, "probability": one.probability, "rank": one.rank} for one in cell.tracked
                            ],
                        }
                        for cell in row.cells
                    ],
                }
                for _number, row in sorted(self.rows.items())
            ],
            "decided_at": list(self.decided_at),
        }


@torch.inference_mode()
def lens_rows(
    record: Record,
    *,
    rows: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    top: int = 10,
    tracked: Sequence[int] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[LensRow]:
    """The lens, row by row as they are computed.

    Args:
        rows: in the order wanted; from the last one down to the embedding when `None`.
        positions: of the text, below zero from its end; all that the record holds when `None`.
        top: most probable tokens of each cell.
        tracked: ids whose rank and probability are wanted in each cell.
        cancelled: asked between the parts of a row; True ends with `Cancelled`.

    Raises:
        InputError: a row, position or token that does not exist.
        Cancelled: `cancelled` returned True.
    """
    wanted = list(range(record.blocks, -1, -1) if rows is None else rows)
    places = [record.at(position) for position in (record.positions if positions is None else positions)]
    for row in wanted:
        if not 0 <= row <= record.blocks:
            raise InputError(_("there is no row {row}: this model has rows 0 to {last}", row=row, last=record.blocks))
    size = int(record.logits(record.stream[-1, places[:1]]).shape[-1])
    check_tokens(tracked, size)
    final = _picked(record, torch.tensor(places))
    asked = torch.cat([final[:, None], torch.tensor(list(tracked), dtype=torch.long).expand(len(final), -1)], 1)
    # Cells in the order wanted, many at once: each weight is read once for all of them. The first row comes by itself.
    count, whole = len(places), len(places) * len(wanted)
    most = max(1, min(CELLS_AT_ONCE, AT_ONCE // size, PRODUCTS_AT_ONCE // size // record.stream.shape[-1]))
    starts = [*range(0, count, most), *range(count, whole, most)]
    done: list[LensCell] = []
    numbers = iter(wanted)
    for start, end in zip(starts, [*starts[1:], whole]):
        if cancelled():
            raise Cancelled
        cells = torch.arange(start, end)
        kept, own = torch.tensor(places)[cells % count], asked[cells % count]
        said = record.said(record.stream[torch.tensor(wanted)[cells // count], kept], own, top)
        done += _cells(said, kept + record.first_position, own)
        while len(done) >= count:
            yield LensRow(next(numbers), tuple(done[:count]))
            del done[:count]


def lens(record: Record, **options: Any) -> Lens:
    """The whole lens, or the rows and positions asked for: see `lens_rows`."""
    return Lens(record.blocks, {row.row: row for row in lens_rows(record, **options)})


@dataclass(frozen=True, slots=True)
class Track:
    """One token on its way through the rows at one position.

    Attributes:
        said: one for each row, from the embedding up.
        best_rank, best_probability: the best that it ever reaches.
    """

    id: int
    said: tuple[Said, ...]

    @property
    def best_rank(self) -> int:
        return min(one.rank for one in self.said)

    @property
    def best_probability(self) -> float:
        return max(one.probability for one in self.said)


@torch.inference_mode()
def trajectory(
    record: Record,
    position: int,
    tokens: Sequence[int] | None = None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[Track, ...]:
    """Tokens through all rows at one position, ordered by the best rank, then the best probability, that they reach.

    Args:
        position: of the text, below zero from its end.
        tokens: ids; when `None` the distinct ones that are on top in any row, at most five: the final one, and the most
            probable ones of the others.
        cancelled: asked between parts; True ends with `Cancelled`.

    Raises:
        InputError: a position or token that does not exist.
        Cancelled: `cancelled` returned True.
    """
    stream = record.stream[:, record.at(position)]  # [rows, hidden]
    parts: list[Tensor] = []
    for part in stream.split(ROWS_AT_ONCE):
        if cancelled():
            raise Cancelled
        parts.append(record.logits(part))
    logits = torch.cat(parts)  # [rows, vocabulary]: of one position, so that all rows fit
    check_tokens(tokens or (), logits.shape[-1])
    log_mass = logits.logsumexp(-1, keepdim=True)
    ids = torch.tensor(list(tokens), dtype=torch.long) if tokens else _on_top(logits - log_mass)
    said = Summary.of(logits, ids.expand(len(logits), -1), 1)
    ranks = (said.above + 1).tolist()
    probabilities = (said.own - log_mass).exp().tolist()
    tracks = [
        Track(id, tuple(Said(id, p[column], rank[column]) for p, rank in zip(probabilities, ranks)))
        for column, id in enumerate(ids.tolist())
    ]
    return tuple(sorted(tracks, key=lambda track: (track.best_rank, -track.best_probability)))


def _on_top(logs: Tensor) -> Tensor:
    """The ids on top in any row of log-probabilities `[rows, vocabulary]`: the last row's, then the most probable."""
    highest = logs.max(-1)
    order = highest.values[:-1].argsort(descending=True).tolist()
    ids = highest.indices.tolist()
    return torch.tensor(list(dict.fromkeys([ids[-1], *(ids[row] for row in order)]))[:MOST_TRACKED])


def _picked(record: Record, places: Tensor) -> Tensor:
    """The next token of the text at each place, and at its end the one on top in the last row, `[places]`."""
    positions = (places + record.first_position).tolist()
    following = [record.ids[position + 1] if position + 1 < len(record.ids) else -1 for position in positions]
    if -1 in following:
        top = int(record.logits(record.stream[-1, -1:])[0].argmax())
        following = [top if id < 0 else id for id in following]
    return torch.tensor(following)


def _cells(said: Summary, positions: Tensor, asked: Tensor) -> list[LensCell]:
    """Cells of some positions; of the ids `[positions, asked]` the first one is the final token."""
    log_mass = said.log_mass[:, None]
    top_ranks = (said.values[:, :, None] < said.values[:, None, :]).sum(-1) + 1
    top_rows = [said.ids, (said.values - log_mass).exp(), top_ranks]
    asked_rows = [asked, (said.own - log_mass).exp(), said.above + 1]
    tops = [_said(*row) for row in zip(*(one.tolist() for one in top_rows))]
    others = [_said(*row) for row in zip(*(one.tolist() for one in asked_rows))]
    bits = (said.nats / math.log(2)).clamp(min=0)
    return [
        LensCell(position, spread, most, one[0], one[1:])
        for position, spread, most, one in zip(positions.tolist(), bits.tolist(), tops, others)
    ]


def _said(ids: list[int], probabilities: list[float], ranks: list[int]) -> tuple[Said, ...]:
    return tuple(map(Said, ids, probabilities, ranks))
