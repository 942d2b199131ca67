"""How far apart two models' predictions of one text are: Kullback-Leibler divergence at each position, in nats.

A text of any length is read in windows. The models read one window after the other, and of their logits only a stretch
is in memory at once; of each position a few numbers stay, from which the quantiles are exact.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.base.errors import Cancelled, InputError, MachineError
from engine.base.language import _
from engine.networks.divergence import divergence
from engine.networks.network import Network

# Tokens that a model reads at once, where its context holds as many.
WINDOW = 512
# Of each model, so many logits are in memory at once (64 MB), and so many of them are compared at once. A network whose
# parts cannot go through one after the other gives those of a window.
LOGITS = 16_000_000
COMPARED = 2_000_000
# Positions that go through a network at once at most.
AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Windows:
    """How a text is read.

    Attributes:
        length: tokens that a model reads at once, those that it puts before a text included.
        stride: tokens from the beginning of one window to that of the next.
    """

    length: int
    stride: int


@dataclass(frozen=True, slots=True)
class Window:
    """One of them: the text's tokens from `first` up to `end`, of which those before `counted` are context only."""

    first: int
    end: int
    counted: int


@dataclass(frozen=True, eq=False, slots=True)
class Reader:
    """A model as it reads a text.

    Attributes:
        title: for errors.
        beginning: ids that it puts before each window, such as a beginning-of-text; the first token of a text is
            predicted from them, and has no prediction where there are none.
    """

    title: str
    network: Network
    beginning: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """Progress, and what is known so far; `None` where one model reads alone."""

    done: int
    positions: int
    mean: float | None = None
    same_top: float | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Expected:
    """What one model expected at each position.

    Attributes:
        log_probability: of the token that stands there, in nats.
        top: id of its most probable token.
        top_log_probability: in nats.
    """

    log_probability: np.ndarray
    top: np.ndarray
    top_log_probability: np.ndarray

    @property
    def perplexity(self) -> float:
        with np.errstate(over="ignore"):
            return float(np.exp(-self.log_probability.mean()))


@dataclass(frozen=True, eq=False, slots=True)
class Difference:
    """What the models expected at the same positions.

    Attributes:
        places: which of the text's tokens those are, from 0.
        expected: of each model.
        kl: `Σ p_A (log p_A − log p_B)` over the vocabulary, in nats, A the first model; `None` for one model alone.
    """

    windows: Windows
    places: np.ndarray
    expected: tuple[Expected, ...]
    kl: np.ndarray | None = None

    @property
    def same_top(self) -> float:
        """Share of positions at which both models have the same most probable token."""
        first, second = self.expected
        return float((first.top == second.top).mean())

    def worst(self, count: int) -> list[int]:
        """The positions of largest divergence, as places in `places`; where there is none at all, none."""
        assert self.kl is not None
        order = np.argsort(-self.kl, kind="stable")[:count]
        return [int(at) for at in order if self.kl[at] > 0]


def windows_of(readers: Sequence[Reader], length: int | None = None, stride: int | None = None) -> Windows:
    """The windows that models can read: by default 512 tokens or what all of their contexts hold, every half of that.

    Raises:
        InputError: a length or a stride that cannot be used.
    """
    most = min(reader.network.context_length for reader in readers)
    room = max(len(reader.beginning) for reader in readers)
    if length is not None and not room + 2 <= length <= most:
        raise InputError(
            _("window is {length}; allowed: from {least} to {most:,}", length=length, least=room + 2, most=most)
        )
    length = min(WINDOW, most) if length is None else length
    if stride is not None and not 1 <= stride <= length - room:
        raise InputError(_("stride is {stride}; allowed: from 1 to {most:,}", stride=stride, most=length - room))
    return Windows(length, max(1, min(length // 2, length - room)) if stride is None else stride)


def cut(tokens: int, readers: Sequence[Reader], windows: Windows) -> Iterator[Window]:
    """The windows of a text of `tokens` tokens. Each token is counted once, those that nothing comes before never."""
    room = windows.length - max(len(reader.beginning) for reader in readers)
    context = 0 if all(reader.beginning for reader in readers) else 1  # tokens that a window's first prediction needs
    counted = first = 0
    while True:
        end = min(first + room, tokens)
        counted = max(counted, first + context)
        if counted < end:
            yield Window(first, end, counted)
        if end == tokens:
            return
        counted, first = end, first + windows.stride


@torch.inference_mode()
def difference(
    readers: Sequence[Reader],
    ids: Sequence[int],
    windows: Windows,
    *,
    report: Callable[[Reading], None] = lambda reading: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Difference:
    """Let one model read a text, or two the same tokens.

    Args:
        readers: of one vocabulary; where one network has rows for more ids than the other, which no token uses, they
            are left out of both.
        ids: the text's tokens, without what models put before them.
        report: called after each stretch.
        cancelled: asked between stretches; True ends with `Cancelled`.

    Raises:
        InputError: no token has a prediction.
        MachineError: a network gives something other than numbers.
        Cancelled: `cancelled` returned True.
    """
    if not ids:
        raise InputError(_("the text is empty; type at least one character"))
    cuts = list(cut(len(ids), readers, windows))
    positions = sum(window.end - window.counted for window in cuts)
    if not positions:
        raise InputError(_("the text has one token, which nothing comes before; give a longer one"))
    vocabulary = min(reader.network.vocabulary_size for reader in readers)
    kept = _Kept(len(readers), positions)
    at_once = max(1, min(AT_ONCE, LOGITS // vocabulary))
    compared = max(1, COMPARED // vocabulary)
    for window in cuts:
        stretches = [_stretches(reader, ids, window, at_once) for reader in readers]
        place = window.counted
        for together in zip(*stretches, strict=True):
            if cancelled():
                raise Cancelled
            for first in range(0, len(together[0]), compared):
                rows = [logits[first : first + compared, :vocabulary] for logits in together]
                tokens = torch.tensor(ids[place : place + len(rows[0])])
                kept.add(place, tokens, rows, readers)
                place += len(tokens)
            report(kept.reading())
    return kept.difference(windows)


def _stretches(reader: Reader, ids: Sequence[int], window: Window, at_once: int) -> Iterator[Tensor]:
    """The logits that predict a window's counted tokens, `[up to at_once, vocabulary]` at a time."""
    network = reader.network
    # The last token predicts what the window does not hold.
    given = torch.tensor([[*reader.beginning, *ids[window.first : window.end - 1]]])
    length = given.shape[1]
    begin = length - (window.end - window.counted)
    cache = network.cache(length, [0])
    if network.at_once(length, 1) > 1:  # its parts cannot go one after the other
        logits = network.forward(given, cache, all_logits=True).all_logits()[0, begin:]
        yield from logits.float().cpu().split(at_once)
        return
    for first in range(0, begin, WINDOW):
        network.forward(given[:, first : min(first + WINDOW, begin)], cache)
    for first in range(begin, length, at_once):
        output = network.forward(given[:, first : first + at_once], cache, all_logits=True)
        yield output.all_logits()[0].float().cpu()


class _Kept:
    """What is kept of each position."""

    def __init__(self, readers: int, positions: int) -> None:
        self._places = np.empty(positions, np.int64)
        self._own = np.empty((readers, positions))
        self._top = np.empty((readers, positions), np.int64)
        self._top_log = np.empty((readers, positions))
        self._kl = np.empty(positions) if readers > 1 else None
        self._done = 0
        self._kl_sum, self._same = 0.0, 0

    def add(self, place: int, tokens: Tensor, rows: Sequence[Tensor], readers: Sequence[Reader]) -> None:
        """Keep what is needed of the predictions of `tokens`, each `[positions, vocabulary]`."""
        now = slice(self._done, self._done + len(tokens))
        self._places[now] = np.arange(place, place + len(tokens))
        logs = [logits.double().log_softmax(-1) for logits in rows]
        for which, (log, reader) in enumerate(zip(logs, readers)):
            own = log.gather(1, tokens[:, None])[:, 0]
            if own.isnan().any():
                raise MachineError(
                    _(
                        "{title} gives no numbers before token {place:,}; try another precision",
                        title=reader.title,
                        place=place + int(own.isnan().int().argmax()),
                    )
                )
            top_log, top = log.max(-1)
            self._own[which, now], self._top[which, now], self._top_log[which, now] = own, top, top_log
        if self._kl is not None:
            self._kl[now] = divergence(*logs)
            self._kl_sum += float(self._kl[now].sum())
            self._same += int((self._top[0, now] == self._top[1, now]).sum())
        self._done = now.stop

    def reading(self) -> Reading:
        if self._kl is None:
            return Reading(self._done, len(self._places))
        return Reading(self._done, len(self._places), self._kl_sum / self._done, self._same / self._done)

    def difference(self, windows: Windows) -> Difference:
        expected = tuple(Expected(*one) for one in zip(self._own, self._top, self._top_log))
        return Difference(windows, self._places, expected, self._kl)
