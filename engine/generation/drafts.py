"""Speculative decoding: guesses of the next tokens, and the rule that takes or rejects each.

Guesses go through the lane's model in one forward, so that its distribution after each is known. At each position the
lane's configuration makes its final distribution `p` of these logits, as it does without a draft, with the tokens
before in the text. `q` is the distribution that the guess was drawn from.

- Greedy: a guess stays if it is the most probable token, else that one comes in its place.
- Sampling (Leviathan, Kalman and Matias 2023, arXiv:2211.17192, algorithm 1; Chen et al. 2023, arXiv:2302.01318): a
  guess `x` stays with probability `min(1, p(x) / q(x))`, else the token is drawn from `max(0, p − q)` made to sum to
  one. The text is distributed as without a draft.

Prompt lookup (Saxena 2023; transformers' `prompt_lookup_num_tokens`, vLLM's `ngram`) guesses what followed the text's
last n tokens where they stood first. Its guess is certain, `q(x) = 1`, so the rule is: stay with probability `p(x)`,
else a draw from the others. Drawing one token from `p` and comparing it with the guess does exactly that, so that the
text is, besides, that of the same seed without a draft.

A second model guesses at every position of a sampled lane, also at the one behind the last guess that stayed: so the
text depends on seed and draft alone, and not on how many tokens are guessed at a time or where the lane went on from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.base.errors import ContextError, InputError
from engine.base.language import _
from engine.generation.config import LOOKUP, GenerationConfig
from engine.generation.distribution import Distribution, distribution
from engine.generation.memory import StateMemory, common_prefix
from engine.generation.stages.order import reads_text
from engine.generation.strategies import inverted
from engine.networks.network import Cache, Network
from engine.text.tokenizer import Tokenizer

FIRST_GUESSES = 2  # at a time, until it is known how many stay
FIRST_REST, LONGEST_REST = 4, 64  # tokens without a guess, after guesses of which none stayed


@dataclass(frozen=True, eq=False)
class DraftModel:
    """A second model of the lane's vocabulary that guesses: see `engine.models.amateurs`.

    Attributes:
        states: what it still knows of texts, where that is kept.
    """

    network: Network
    title: str
    states: StateMemory | None = None


@dataclass(frozen=True, eq=False)
class Guess:
    """A token that may come next, and the distribution that it is from; `None` for lookup, which has no doubts.

    Attributes:
        certain: nothing else can come, so that it is no guess.
    """

    id: int
    stage: Distribution | None = None
    certain: bool = False

    @property
    def probability(self) -> float:
        """q of it."""
        return 1.0 if self.stage is None else float(self.stage.probability(torch.tensor(self.id)))


class Proposer(Protocol):
    """Makes guesses of a lane's next tokens.

    Attributes:
        always: whether each token of the lane is to be guessed first.
    """

    always: bool

    def propose(self, ids: Sequence[int], most: int) -> list[Guess]:
        """What may follow a text of these ids, `most` tokens at most; may be none."""
        ...

    def learn(self, guessed: int, stayed: int) -> None:
        """So many tokens of those that were guessed together stayed."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What became of a guess: the token that comes, and the draw that `p / q` was compared with."""

    id: int
    stays: bool
    draw: float


def sampled_verdict(guess: Guess, stage: Distribution, draw: Tensor) -> Verdict:
    """The rule for a guess of a second model.

    Args:
        draw: of [0, 1), float64. Where the guess goes, what is left of the number picks the token in its place: under
            that condition it is again uniform, so that each token takes one draw.
    """
    assert guess.stage is not None
    one = torch.tensor(guess.id)
    ratio = stage.probability(one).double() / guess.stage.probability(one).double()
    if draw < ratio:
        return Verdict(guess.id, True, float(draw))
    left = (stage.probabilities.double() - guess.stage.probabilities.double()).clamp_min(0)
    if not left.sum() > 0:  # p and q are one distribution but for rounding
        left = stage.probabilities.double()
    return Verdict(inverted(left, (draw - ratio) / (1 - ratio)), False, float(draw))


class Lookup:
    """Prompt lookup: what followed the last tokens where they stood for the first time.

    As many tokens as `length` go at once: twice as many when all stayed, and when none did none at all for a while,
    then one. So a text that does not repeat costs little more than without: one token more in a forward is cheap.

    Args:
        most: tokens to guess at a time, at most.
        ngram: how many of the last tokens are looked for, at most; the longest that is found counts.
    """

    always = False

    def __init__(self, most: int, ngram: int) -> None:
        self._most = most
        self._ngram = ngram
        self._ids: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}  # of each n-gram, the place behind where it stood first
        self.length = min(FIRST_GUESSES, most)
        self._rest, self._left = FIRST_REST, 0

    def propose(self, ids: Sequence[int], most: int) -> list[Guess]:
        place = self._place(ids)
        if place is None:
            return []
        if self._left > 0:
            self._left -= 1
            return []
        return [Guess(id) for id in ids[place : place + min(most, self.length)]]

    def continuation(self, ids: Sequence[int], count: int) -> list[int]:
        """What followed the last tokens of a text where they stood first, `count` of it at most; empty if nowhere."""
        place = self._place(ids)
        return [] if place is None else list(ids[place : place + count])

    def learn(self, guessed: int, stayed: int) -> None:
        if stayed:
            self.length = min(self._most, 2 * self.length) if stayed == guessed else stayed
            self._rest = FIRST_REST
        else:
            self.length = 1
            self._left, self._rest = self._rest, min(LONGEST_REST, 2 * self._rest)

    def _place(self, ids: Sequence[int]) -> int | None:
        """Where the last tokens' continuation begins."""
        if tuple(ids[: len(self._ids)]) != tuple(self._ids):
            self._ids, self._ends = [], {}
        for end in range(len(self._ids) + 1, len(ids) + 1):
            for size in range(1, min(self._ngram, end) + 1):
                self._ends.setdefault(tuple(ids[end - size : end]), end)
        self._ids = list(ids)
        for size in range(min(self._ngram, len(ids) - 1), 0, -1):
            place = self._ends[tuple(ids[-size:])]
            if place < len(ids):
                return place
        return None


class Second:
    """A second model's guesses: greedy for a greedy lane, else drawn under the lane's configuration.

    Of `length` tokens, two more are guessed when all stayed and one fewer when not (transformers' `heuristic`).

    Args:
        cache: holds a beginning of the text that `known` are the ids of.
        size: of the lane's vocabulary.
        tokenizer: for stages that read what tokens spell.
    """

    def __init__(
        self,
        network: Network,
        config: GenerationConfig,
        cache: Cache,
        known: Sequence[int],
        prompt: int,
        size: int,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self._network = network
        self._config = config
        self.cache = cache
        self._known = list(known)
        self._prompt = prompt
        self._size = size
        self._tokenizer = tokenizer
        self.always = config.strategy == "sample"
        self.length = min(FIRST_GUESSES, config.draft_tokens)

    @property
    def known(self) -> tuple[int, ...]:
        """The ids that its cache holds."""
        return tuple(self._known)

    def propose(self, ids: Sequence[int], most: int) -> list[Guess]:
        text, guesses = list(ids), list[Guess]()
        if any(id >= self._network.vocabulary_size for id in ids[len(self._known) :]):
            return []  # its embeddings end before
        while len(guesses) < min(most, self.length):
            stage = self._after(text)
            position = len(text) - self._prompt
            if self.always:
                uniform = _uniform(self._config.seed or 0, position)
                guess = Guess(inverted(stage.probabilities, torch.tensor(uniform, dtype=torch.float64)), stage)
            else:
                guess = Guess(stage.top, stage)
            guesses.append(guess)
            text.append(guess.id)
        return guesses

    def learn(self, guessed: int, stayed: int) -> None:
        self.length = max(1, min(self._config.draft_tokens, self.length + (2 if stayed == guessed else -1)))

    def _after(self, text: list[int]) -> Distribution:
        """Its distribution after a text, of which what it does not know goes through it."""
        shared = min(common_prefix(self._known, text), len(text) - 1)
        self.cache.truncate(self.cache.padding[0] + shared)
        logits = self._network.forward(torch.tensor([text[shared:]]), self.cache).logits()[0].float().cpu()
        self._known = list(text)
        context = torch.tensor(text) if reads_text(self._config) else None
        how: dict[str, Any] = {"prompt": self._prompt, "tokenizer": self._tokenizer}
        return distribution(fitted(logits, self._size), context, self._config, **how)


def fitted(logits: Tensor, size: int) -> Tensor:
    """A draft's logits over the rows of the lane's vocabulary; rows that only one of both has stand for no token."""
    if len(logits) >= size:
        return logits[:size]
    return torch.cat([logits, logits.new_full((size - len(logits),), -torch.inf)])


def _uniform(seed: int, position: int) -> float:
    """A number of [0, 1) for each position of a seed's text, however often and in which order they are asked for."""
    digest = blake2b(f"draft {seed} {position}".encode(), digest_size=7).digest()
    return (int.from_bytes(digest) >> 3) / 2**53


def check_draft(
    config: GenerationConfig, draft: DraftModel | None, prompt: Sequence[int], text: Sequence[int], limit: int
) -> None:
    """Raise for a lane whose draft is not there, or cannot read its text.

    Args:
        prompt: ids of the lane's prompt, with which its `text` begins.
        limit: how many tokens the lane writes behind the prompt, at most.

    Raises:
        InputError: the configuration names a model and none is loaded, or it lacks a token of the text.
        ContextError: the text does not fit its context.
    """
    if config.draft in (None, LOOKUP):
        return
    if draft is None:
        raise InputError(_("the draft {name} is not loaded here; leave it out", name=config.draft))
    most = draft.network.context_length
    if len(prompt) + limit > most:
        raise ContextError(
            _(
                "the prompt's {count:,} tokens and {max_new_tokens:,} new ones exceed the draft's context of "
                "{context_length:,}; shorten it, or choose another draft",
                count=len(prompt),
                max_new_tokens=limit,
                context_length=most,
            )
        )
    if unknown := [id for id in text if id >= draft.network.vocabulary_size]:
        raise InputError(
            _(
                "the draft {name} does not know token {id:,} of the text; leave it out",
                name=draft.title,
                id=unknown[0],
            )
        )
