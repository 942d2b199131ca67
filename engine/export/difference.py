"""What two models expected of one text, as JSON and as a table of its positions."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.inside.difference import Difference
from engine.text.token import utf8
from engine.text.tokenizer import Tokenizer

LETTERS = "ab"
WORST = 10
CONTEXT_BYTES = 60  # of what stands before one of the worst positions
COLUMNS = (
    *("position", "id", "token", "kl", "log_probability_a", "log_probability_b"),
    *("top_a", "top_text_a", "top_log_probability_a", "top_b", "top_text_b", "top_log_probability_b"),
)
COLUMNS_APART = ("model", "position", "id", "token", "log_probability", "top", "top_text", "top_log_probability")


@dataclass(frozen=True, eq=False)
class Cut:
    """A text as one tokenizer cuts it, without what models put before it.

    Attributes:
        data: its UTF-8 bytes.
        ids, ends: of each token, the id and where it ends in `data`.
        position: of the first token, as `Token.position` counts.
    """

    data: bytes
    ids: tuple[int, ...]
    ends: np.ndarray
    position: int
    tokenizer: Tokenizer

    @classmethod
    def of(cls, text: str, tokenizer: Tokenizer) -> "Cut":
        tokens = tokenizer.encode(text, template=False)
        ends = np.fromiter((token.end for token in tokens), np.int64, len(tokens))
        ids = tuple(token.id for token in tokens)
        return cls(utf8(text), ids, ends, len(tokenizer.beginning), tokenizer)

    def sizes(self) -> np.ndarray:
        """The bytes of each token."""
        return np.diff(self.ends, prepend=0)

    def before(self, place: int, size: int = CONTEXT_BYTES) -> bytes:
        """Up to `size` bytes that stand before a token, from the beginning of a character on."""
        start = int(self.ends[place - 1]) if place else 0
        first = max(0, start - size)
        while first < start and self.data[first] & 0xC0 == 0x80:
            first += 1
        return self.data[first:start]

    def label(self, place: int) -> str:
        return self.tokenizer.label(self.ids[place])


@dataclass(frozen=True, slots=True)
class Fit:
    """How well one model expected a text.

    Attributes:
        tokens: how many have a prediction.
        bytes: that those stand for.
        perplexity: `e` to the mean of −log p.
        bits_per_byte: which may be compared across vocabularies.
    """

    tokens: int
    bytes: int
    perplexity: float
    bits_per_byte: float


def fit(found: Difference, side: int, cut: Cut) -> Fit:
    """How well one of the models of a difference expected the text."""
    expected, size = found.expected[side], int(cut.sizes()[found.places].sum())
    bits = -float(expected.log_probability.sum()) / math.log(2)
    return Fit(len(found.places), size, expected.perplexity, bits / size if size else math.nan)


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the divergence at all positions, in nats; quantiles lie between two positions as numpy's do."""

    mean: float
    median: float
    p99: float
    max: float


def spread(found: Difference) -> Spread:
    assert found.kl is not None
    median, p99 = np.quantile(found.kl, (0.5, 0.99))
    return Spread(float(found.kl.mean()), float(median), float(p99), float(found.kl.max()))


def to_dict(found: Sequence[Difference], cuts: Sequence[Cut]) -> dict[str, Any]:
    """What `diff --json` has beside `models`.

    Args:
        found: of both models together, or where their vocabularies differ of each alone.
        cuts: the text as each model's tokenizer cuts it.
    """
    both_sides = sides(found, cuts)
    fits = {letter: fit(one, side, cut) for letter, (one, side, cut) in zip(LETTERS, both_sides)}
    both = found[0] if len(found) == 1 else None
    kl = None if both is None else spread(both)
    return {
        "window": found[0].windows.length,
        "stride": found[0].windows.stride,
        "bytes": len(cuts[0].data),
        "tokens": {letter: one.tokens for letter, one in fits.items()},
        "positions": None if both is None else len(both.places),
        "kl": None if kl is None else _finite({"mean": kl.mean, "median": kl.median, "p99": kl.p99, "max": kl.max}),
        "same_top": None if both is None else both.same_top,
        "perplexity": _finite({letter: one.perplexity for letter, one in fits.items()}),
        "bits_per_byte": _finite({letter: one.bits_per_byte for letter, one in fits.items()}),
        "worst": [] if both is None else [_worst(both, at, cuts[0]) for at in both.worst(WORST)],
    }


def _worst(found: Difference, at: int, cut: Cut) -> dict[str, Any]:
    place = int(found.places[at])
    return {
        "position": place + cut.position,
        "id": cut.ids[place],
        "text": cut.label(place),
        "before": cut.before(place).decode("utf-8", errors="replace"),
        "kl": _number(float(found.kl[at])) if found.kl is not None else None,
    } | {
        letter: {
            "probability": math.exp(one.log_probability[at]),
            "top": {
                "id": int(one.top[at]),
                "text": cut.tokenizer.label(int(one.top[at])),
                "probability": math.exp(one.top_log_probability[at]),
            },
        }
        for letter, one in zip(LETTERS, found.expected)
    }


def columns(found: Sequence[Difference]) -> tuple[str, ...]:
    return COLUMNS if len(found) == 1 else COLUMNS_APART


def rows(found: Sequence[Difference], cuts: Sequence[Cut]) -> Iterator[tuple[object, ...]]:
    """The table of all positions; where the vocabularies differ, first those of one model, then those of the other."""
    if len(found) == 1 and found[0].kl is not None:
        cut, kl = cuts[0], found[0].kl
        for at, place in enumerate(found[0].places.tolist()):
            own = [_number(float(one.log_probability[at])) for one in found[0].expected]
            tops = [value for side in range(2) for value in _top(found[0], side, at, cut)]
            yield (place + cut.position, cut.ids[place], cut.label(place), _number(float(kl[at])), *own, *tops)
        return
    for letter, (one, side, cut) in zip(LETTERS, sides(found, cuts)):
        for at, place in enumerate(one.places.tolist()):
            alone = _number(float(one.expected[side].log_probability[at]))
            yield (letter, place + cut.position, cut.ids[place], cut.label(place), alone, *_top(one, side, at, cut))


def _top(found: Difference, side: int, at: int, cut: Cut) -> tuple[object, ...]:
    one = found.expected[side]
    id = int(one.top[at])
    return id, cut.tokenizer.label(id), _number(float(one.top_log_probability[at]))


def sides(found: Sequence[Difference], cuts: Sequence[Cut]) -> list[tuple[Difference, int, Cut]]:
    """Of each model: where it is found, which one there, and its text."""
    places = [(found[0], 0), (found[0], 1)] if len(found) == 1 else [(one, 0) for one in found]
    return [(one, side, cut) for (one, side), cut in zip(places, cuts)]


def _number(value: float) -> float | None:
    """`None` for what JSON has no number for."""
    return value if math.isfinite(value) else None


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}
