"""Where a model holds what decides between two answers: one prompt's stream put into another's run, place by place.

Activation patching (Meng et al. 2022, Wang et al. 2022): the corrupt prompt is run with one row of the stream at one
position from the clean one. The effect is `(patched − corrupt) / (clean − corrupt)`, of the difference of two tokens'
logits: 0 where it changes nothing, 1 where it makes the corrupt prompt's answer the clean one's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from engine.base.errors import Cancelled, ContextError, InputError
from engine.base.language import _
from engine.generation.intervening import stream_from
from engine.inside.tokens import check_tokens
from engine.models.local import with_network
from engine.models.model import Model
from engine.networks.changes import Change, Changeable
from engine.networks.network import Network
from engine.text.tokenizer import Tokenizer

MOST_TOKENS = 512
# Tokens that go through the network at once; the rows of a position are lanes of one batch.
TOKENS_AT_ONCE = 1_024
# Below this the two prompts give the same difference, in logits.
LEAST = 1e-4
NOWHERE = -(2**40)  # a position that no token has, padding neither


@dataclass(frozen=True, slots=True)
class Patching:
    """One position's column is known.

    Attributes:
        effects: by row of the stream, from the embedding up.
    """

    position: int
    effects: tuple[float, ...]
    done: int
    positions: int


@dataclass(frozen=True)
class PatchMap:
    """The effect of every row of the stream at every position.

    Attributes:
        a, b: ids of the two answers.
        clean, corrupt: the difference of their logits after each prompt.
        columns: effects by position, by row from the embedding up.
    """

    a: int
    b: int
    clean: float
    corrupt: float
    columns: dict[int, tuple[float, ...]]

    @property
    def rows(self) -> list[tuple[int, list[float]]]:
        """Effects by row, from the embedding up, then by position."""
        whole = [self.columns[position] for position in sorted(self.columns)]
        return [(row, list(effects)) for row, effects in enumerate(zip(*whole, strict=True))]

    def to_dict(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """What `patch --json` has beside `model` and the prompts' tokens."""
        return {
            "a": {"id": self.a, "text": tokenizer.label(self.a)},
            "b": {"id": self.b, "text": tokenizer.label(self.b)},
            "difference": {"clean": self.clean, "corrupt": self.corrupt},
            "effects": [{"layer": row, "positions": effects} for row, effects in self.rows],
        }


@dataclass(frozen=True)
class Answers:
    """What is compared.

    Attributes:
        clean, corrupt: the difference of the two tokens' logits after each prompt.
    """

    a: int
    b: int
    clean: float
    corrupt: float


def check_lengths(clean: Sequence[int], corrupt: Sequence[int]) -> None:
    """Raise `InputError` where two prompts cannot be laid over each other, token by token."""
    if not clean or not corrupt:
        raise InputError(_("the text is empty; type at least one character"))
    if len(clean) != len(corrupt):
        raise InputError(
            _(
                "tokens: {clean:,} in the clean prompt, {corrupt:,} in the corrupt one; patching wants as many in both",
                clean=len(clean),
                corrupt=len(corrupt),
            )
        )
    if len(clean) > MOST_TOKENS:
        raise InputError(
            _("prompts of {count:,} tokens are too long to patch; at most {most:,}", count=len(clean), most=MOST_TOKENS)
        )
    if list(clean) == list(corrupt):
        raise InputError(_("the two prompts are the same; change the words that decide the answer"))


@torch.inference_mode()
def patching(
    model: Model,
    clean: Sequence[int],
    corrupt: Sequence[int],
    a: int | None = None,
    b: int | None = None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Answers | Patching]:
    """The map position by position, the last one first: there the answer is read.

    Args:
        clean, corrupt: ids of two prompts.
        a, b: the two tokens; each prompt's most probable one when `None`.

    Raises:
        InputError: prompts of unequal length, the same prompts, tokens between which both prompts decide alike, or a
            model that has no single stream of vectors or runs behind a server.
        ContextError: the prompts do not fit the context.
        Cancelled: `cancelled` returned True.
    """
    network = with_network(
        model, _("patching needs the model's own numbers, which no server tells; choose a local model")
    ).network
    check_lengths(clean, corrupt)
    count = len(clean)
    if count > network.context_length:
        raise ContextError(
            _(
                "the text has {count:,} tokens, the model's context holds {context_length:,}; shorten it",
                count=count,
                context_length=network.context_length,
            )
        )
    stream = stream_from(network, clean, 0, cancelled)  # [rows, positions, hidden]
    before = network.cache(count, [0])
    at_corrupt = _through(network, torch.tensor([list(corrupt)]), before)[0]
    at_clean = _through(network, torch.tensor([list(clean)]), network.cache(count, [0]))[0]
    check_tokens([id for id in (a, b) if id is not None], len(at_clean))
    a = int(at_clean.argmax()) if a is None else a
    b = int(at_corrupt.argmax()) if b is None else b
    if a == b:
        raise InputError(_("both prompts are answered by the same token; name two"))
    found = Answers(a, b, float(at_clean[a] - at_clean[b]), float(at_corrupt[a] - at_corrupt[b]))
    if abs(found.clean - found.corrupt) < LEAST:
        raise InputError(_("both prompts decide alike between these two tokens, so there is no effect to look for"))
    yield found
    for done, position in enumerate(reversed(range(count)), start=1):
        patched: list[float] = []
        rows = list(range(len(stream)))
        together = max(1, TOKENS_AT_ONCE // (count - position)) if _together(network) else 1
        for first in range(0, len(rows), together):
            if cancelled():
                raise Cancelled
            some = rows[first : first + together]
            cache = before.gather([0] * len(some), count)
            cache.truncate(position)
            changed = cast(Changeable, network).changed(_puts(some, position, stream[:, position]))
            rest = torch.tensor([list(corrupt[position:])] * len(some))
            logits = _through(changed, rest, cache)
            patched += (logits[:, a] - logits[:, b]).tolist()
        scale = found.clean - found.corrupt
        effects = tuple((value - found.corrupt) / scale for value in patched)
        yield Patching(position, effects, done, count)


def patch_map(answers: Answers, columns: Sequence[Patching]) -> PatchMap:
    """What `patching` gave, together."""
    found = {one.position: one.effects for one in columns}
    return PatchMap(answers.a, answers.b, answers.clean, answers.corrupt, found)


def _puts(rows: Sequence[int], position: int, vectors: Tensor) -> list[Change]:
    """A lane for each row of the stream, in which that row is another one at a position.

    Args:
        vectors: of each of the stream's rows, `[rows, hidden]`.
    """
    found = []
    for lane, row in enumerate(rows):
        places = torch.full((len(rows), 1), NOWHERE)
        places[lane] = position
        found.append(Change("stream", row, "put", vector=vectors[row], position=places))
    return found


def _through(network: Network, ids: Tensor, cache: Any) -> Tensor:
    """Logits after texts `[lanes, positions]`, `[lanes, vocabulary]`, float32."""
    at_once = network.at_once(cache.length + ids.shape[1], TOKENS_AT_ONCE)
    for first in range(0, ids.shape[1], at_once):
        output = network.forward(ids[:, first : first + at_once], cache)
    return output.logits().float().cpu()


def _together(network: Network) -> bool:
    """Whether lanes go through in one forward, as changes that differ by lane want."""
    way = getattr(network, "way", None)
    return way is None or way.rows != "single"
