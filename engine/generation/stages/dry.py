"""DRY, don't repeat yourself (p-e-w 2024; by pi6am in koboldcpp and llama.cpp): what would go on a repetition."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.base.errors import ConfigError
from engine.base.language import N_, _
from engine.generation.ranges import is_list
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage

if TYPE_CHECKING:
    from torch import Tensor

BREAKERS = ("\n", ":", '"', "*")  # llama.cpp's
LONGEST_BREAKER = 40  # bytes, in llama.cpp
LONGEST_TAIL = 20  # tokens, in llama.cpp
MOST_LOG = 88.7228391  # log of what float32 can hold
Heads = Mapping[int, Sequence[tuple[int, ...]]]


@lru_cache(maxsize=2)
def heads_of(tokenizer: Any, breakers: tuple[str, ...]) -> Heads:
    """Each token in which a breaker begins, and the tokens that then must follow for all of it to stand there.

    A breaker within a token, which may stand anywhere in it, has nothing to follow.
    """
    found: dict[int, list[tuple[int, ...]]] = {}
    words = [(id, tokenizer.bytes_of(id)) for id in range(tokenizer.vocabulary_size)]
    for text in breakers:
        breaker = text.encode()[:LONGEST_BREAKER]
        for id, word in words:
            for tail in _tails(word, breaker, tokenizer):
                if tail not in found.setdefault(id, []):
                    found[id].append(tail)
    return {id: tails for id, tails in found.items() if tails}


def _tails(word: bytes, breaker: bytes, tokenizer: Any) -> Iterable[tuple[int, ...]]:
    if breaker in word:
        yield ()
        return
    for length in range(min(len(word), len(breaker) - 1), 0, -1):
        if word.endswith(breaker[:length]):
            rest = breaker[length:].decode(errors="replace")
            yield tuple(tokenizer.encode_continuation(rest)[:LONGEST_TAIL])


def limit(text: Sequence[int], heads: Heads) -> int:
    """How many of the last tokens come behind the last breaker."""
    for back, id in enumerate(reversed(text)):
        if id not in heads:
            continue
        behind = tuple(text[len(text) - back :])
        matching = [len(tail) for tail in heads[id] if behind[: len(tail)] == tail]
        if matching:
            return back - max(matching)
    return len(text)


def repeats(text: "Tensor", most: int) -> "tuple[Tensor, Tensor]":
    """The tokens that would go on a repetition, and how many tokens it has had so far, `most` at most, `[n]` each.

    Args:
        text: ids, `[length]`.
    """
    places = (text[:-1] == text[-1]).nonzero()[:, 0]  # where the last token stood before
    following, lengths = text[places + 1], places.new_ones(len(places))
    length = 1
    going = places
    rows = places.new_tensor(range(len(places)))
    while len(going) and length < most:
        inside = going >= length
        going, rows = going[inside], rows[inside]
        same = text[going - length] == text[-1 - length]
        going, rows = going[same], rows[same]
        length += 1
        lengths[rows] = length
    return following, lengths


def change(
    logits: "Tensor",
    reading: Reading,
    dry_multiplier: float,
    dry_base: float,
    dry_allowed_length: int,
    dry_window: int | None,
    dry_breakers: tuple[str, ...],
) -> "Tensor":
    """`logit − multiplier · base ^ (length − allowed length)` for a token that goes on a repetition of that length."""
    import torch

    text = reading.within(dry_window)
    if len(text) <= dry_allowed_length:
        return logits
    heads: Heads = heads_of(reading.tokenizer, dry_breakers) if dry_breakers else {}
    within = limit(text.tolist(), heads)
    if within < dry_allowed_length:
        return logits
    exponent = int(MOST_LOG / math.log(dry_base)) if dry_base > 1.000001 else 0
    most = min(within, dry_allowed_length + exponent)
    if most == 0:
        return logits
    ids, lengths = repeats(text, most)
    far = lengths >= dry_allowed_length
    longest: dict[int, int] = {}
    for id, length in zip(ids[far].tolist(), lengths[far].tolist()):
        if () not in heads.get(id, ()) and id < logits.numel():  # a breaker is what ends a repetition
            longest[id] = max(length, longest.get(id, 0))
    if not longest:
        return logits
    penalties = [dry_multiplier * dry_base ** (length - dry_allowed_length) for length in longest.values()]
    return logits.index_add(0, torch.tensor(list(longest)), -torch.tensor(penalties).clamp(max=1e30))


def _check_breakers(field: str, value: Any) -> None:
    if not is_list(value) or not all(isinstance(text, str) and text for text in value):
        raise ConfigError(field, value, _("a list of texts, none of them empty"))


def _summary(config: Any) -> str:
    return f"dry {config.dry_multiplier:g}" if config.dry_multiplier else ""


STAGE = Stage(
    name="dry",
    title="DRY",
    group="penalty",
    definition="multiplier · base ^ (length − allowed length) is taken off the logit of a token that would go on a "
    "repetition of that length, within what follows the last breaker (p-e-w 2024; koboldcpp, llama.cpp)",
    explanation=N_("what would go on a repetition becomes the less probable the longer that is"),
    reads="text",
    change=change,
    sampler="dry",
    summary=_summary,
    parameters=(
        Parameter(
            name="dry_multiplier",
            default=0.0,
            most=100.0,
            off=(0.0,),
            ladder=(0.0, 0.2, 0.4, 0.8, 1.0, 1.5, 2.0, 5.0),
            label="DRY",
            hint=N_("DRY: how strongly what goes on a repetition is penalised; 0 not at all, 0.8 usual"),
            help="DRY: strength, 0.8 usual.",
            servers={"llama.cpp": Sent("dry_multiplier")},
        ),
        Parameter(
            name="dry_base",
            default=1.75,
            least=1.0,
            most=10.0,
            ladder=(1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 3.0),
            label=N_("base"),
            hint=N_("DRY: by how much the penalty grows with each token of a repetition"),
            help="DRY: growth with each repeated token.",
            servers={"llama.cpp": Sent("dry_base")},
        ),
        Parameter(
            name="dry_allowed_length",
            default=2,
            type=int,
            least=1,
            most=1000,
            ladder=(1, 2, 3, 4, 6, 8, 16),
            label=N_("allowed"),
            hint=N_("DRY: tokens in a row that may repeat without a penalty"),
            help="DRY: tokens that may repeat.",
            servers={"llama.cpp": Sent("dry_allowed_length")},
        ),
        Parameter(
            name="dry_window",
            type=int,
            least=1,
            most=1_000_000,
            hint=N_("DRY: how many of the last tokens it reads, the prompt's among them; empty: all"),
            help="DRY: reads so many last tokens.",
            servers={"llama.cpp": Sent("dry_penalty_last_n", -1)},
        ),
        Parameter(
            name="dry_breakers",
            default=BREAKERS,
            type=None,
            check=_check_breakers,
            hint=N_("DRY: no repetition reaches back over these texts; several separated by | ; \\n is a line break"),
            help="DRY: a text no repetition reaches over; repeatable.",
            option="--dry-breaker",
            servers={"llama.cpp": Sent("dry_sequence_breakers")},
        ),
    ),
)
