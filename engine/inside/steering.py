"""Directions that steer a model: the mean of the stream over prompts of one set, less that over the other's.

Turner et al. 2023 (activation addition), Zou et al. 2023 (difference of means), at each prompt's last position.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.base.errors import ContextError, InputError
from engine.base.language import _
from engine.generation.intervening import stream_from
from engine.models.local import with_network
from engine.models.model import Model

MOST_PROMPTS = 10_000


@dataclass(frozen=True, eq=False)
class Direction:
    """One row's direction.

    Attributes:
        row: of the stream, 0 for the embedding.
        vector: `[hidden]`, float32.
        stream_length: mean length of the stream's own vectors there, by which a strength can be chosen.
    """

    row: int
    vector: Tensor
    stream_length: float

    @property
    def length(self) -> float:
        return float(self.vector.norm())


@dataclass(frozen=True, slots=True)
class Reading:
    """Some of the prompts have been through."""

    done: int
    prompts: int


def directions(
    model: Model,
    toward: Sequence[Sequence[int]],
    away: Sequence[Sequence[int]],
    rows: Sequence[int],
    *,
    report: Callable[[Reading], None] = lambda reading: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Direction]:
    """Directions from one set of prompts to another, for rows of the stream.

    Args:
        toward, away: ids of each prompt.

    Raises:
        InputError: no prompts, an empty one, a row that is not there, or a model behind a server.
        ContextError: a prompt does not fit the context.
        Cancelled: `cancelled` returned True.
    """
    network = with_network(
        model, _("steering needs the model's own numbers, which no server tells; choose a local model")
    ).network
    for prompts in (toward, away):
        if not prompts or not all(prompts):
            raise InputError(_("both files need prompts, one a line, none of them empty"))
        if len(prompts) > MOST_PROMPTS:
            raise InputError(
                _("{count:,} prompts are too many; at most {most:,}", count=len(prompts), most=MOST_PROMPTS)
            )
        if (longest := max(map(len, prompts))) > network.context_length:
            raise ContextError(
                _(
                    "the text has {count:,} tokens, the model's context holds {context_length:,}; shorten it",
                    count=longest,
                    context_length=network.context_length,
                )
            )
    done, sums, lengths = 0, [], torch.zeros(len(rows), dtype=torch.float64)
    for prompts in (toward, away):
        total: Tensor | None = None
        for prompt in prompts:
            stream = stream_from(network, prompt, len(prompt) - 1, cancelled)[:, 0].double()  # [rows, hidden]
            for row in rows:
                if not 0 <= row < len(stream):
                    raise InputError(
                        _(
                            "there is no layer {layer}: this model has layers 0 to {last}",
                            layer=row,
                            last=len(stream) - 1,
                        )
                    )
            own = stream[list(rows)]
            total = own if total is None else total + own
            lengths += own.norm(dim=-1)
            done += 1
            report(Reading(done, len(toward) + len(away)))
        assert total is not None
        sums.append(total / len(prompts))
    found = (sums[0] - sums[1]).float()
    return [
        Direction(row, vector, float(length) / done) for row, vector, length in zip(rows, found, lengths, strict=True)
    ]
