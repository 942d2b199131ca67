"""The door every model passes once on a machine: whether what is kept between steps changes its answers.

Generation does not compute a text whole at every step: it goes on from what the network keeps of its beginning, keys
and values or states, in chunks, in rows of different lengths, with candidates beside each other. Each of these is
compared with one forward of the whole text by its logits and hidden states. Where they differ, transformers' module is
used in the next safer way; a network of ours is not used at all.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.base.errors import ModelFileError
from engine.base.language import _
from engine.base.machine import no_memory
from engine.networks.complete import reads_more_than_text
from engine.networks.network import Network
from engine.networks.transformers import TransformersNetwork
from engine.networks.used import NetworkUsed, record
from engine.networks.ways import Way

# Tokens of the longer text; longer where a sliding window of up to `LONGEST` is to be crossed.
TOKENS = 40
LONGEST = 200
# What configurations call the lengths from which on attention goes another way.
WINDOWS = ("sliding_window", "local_attn_chunk_length", "attention_chunk_size", "index_topk")
STEPS = 4
CANDIDATES = 40

# Norm of a position's difference over the norm of the right logits around their mean. In float32 the worst position
# counts; in few bits a router's choice between two experts may turn, so that the median does. A wrong way gives from
# 0.01 to 1.
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}


@dataclass(frozen=True)
class Texts:
    """What goes through the door: made of ids alone, which every vocabulary has."""

    long: Tensor  # [1, tokens]
    other: Tensor  # [1, tokens]: as long
    short: Tensor  # [1, fewer]
    candidates: Tensor  # [1, candidates]


def texts(vocabulary: int, tokens: int = TOKENS) -> Texts:
    """Texts of random ids, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    lowest = min(3, vocabulary - 1)  # special tokens are the first ones, and some modules treat padding apart

    def ids(count: int) -> Tensor:
        return torch.randint(lowest, vocabulary, (1, count), generator=generator)

    candidates = min(CANDIDATES, vocabulary - lowest)
    return Texts(
        ids(tokens),
        ids(tokens),
        ids(max(STEPS + 2, tokens * 3 // 5)),
        lowest + torch.randperm(vocabulary - lowest, generator=generator)[None, :candidates],
    )


@dataclass(frozen=True)
class Answer:
    """Logits and hidden states of some positions of one text, `[positions, …]`."""

    logits: Tensor
    hidden: Tensor

    def at(self, positions: slice) -> "Answer":
        return Answer(self.logits[positions], self.hidden[positions])


Whole = Callable[[Tensor], Answer]


def _remembering(whole: Whole) -> Whole:
    """Several checks go over the same texts."""
    known: dict[tuple[int, ...], Answer] = {}

    def answers(ids: Tensor) -> Answer:
        key = tuple(ids[0].tolist())
        if key not in known:
            known[key] = whole(ids)
        return known[key]

    return answers


class Door:
    """Compares what a network answers in one way with what it answers to whole texts.

    Args:
        whole: a text's answers with nothing kept.
        dtype: which the network computes in; says what differences are rounding.
    """

    def __init__(self, network: Network, whole: Whole, dtype: torch.dtype, texts: Texts) -> None:
        self._network = network
        self._whole = _remembering(whole)
        self._dtype = dtype
        self._texts = texts

    def passes(self, check: "Callable[[Door], list[float]]") -> bool:
        """Whether a check's differences are rounding; False, too, where the network fails in it."""
        try:
            found = torch.tensor(check(self))
        except Exception as error:
            if no_memory(error) or isinstance(error, torch.AcceleratorError):  # after which a GPU answers nothing
                raise
            return False
        worst = found.max() if self._dtype == torch.float32 else found.median()
        return bool(worst <= TOLERANCES[self._dtype])  # false for NaN

    def causal(self) -> list[float]:
        """Whether logits stay as they are when tokens follow."""
        text = self._texts.long
        cut = text.shape[1] // 2
        return differences(self._whole(text[:, :cut]), self._whole(text).at(slice(0, cut)))

    def steps(self) -> list[float]:
        """A prefill, then single steps, with another text's steps between them."""
        text, other = self._texts.long, self._texts.other
        cut = text.shape[1] - STEPS
        right, right_other = self._whole(text), self._whole(other)
        cache, cache_other = self._network.cache(text.shape[1], [0]), self._network.cache(text.shape[1], [0])
        found = differences(self._forward(text[:, :cut], cache), right.at(slice(0, cut)))
        found += differences(self._forward(other[:, :cut], cache_other), right_other.at(slice(0, cut)))
        for place in range(cut, text.shape[1]):
            step = slice(place, place + 1)
            found += differences(self._forward(text[:, step], cache), right.at(step))
            found += differences(self._forward(other[:, step], cache_other), right_other.at(step))
        return found

    def chunks(self) -> list[float]:
        """A prefill in parts."""
        text = self._texts.long
        right = self._whole(text)
        cache = self._network.cache(text.shape[1], [0])
        found, place = [], 0
        for part in (text.shape[1] // 2 - 1, 2, text.shape[1]):
            stretch = slice(place, min(place + part, text.shape[1]))
            found += differences(self._forward(text[:, stretch], cache), right.at(stretch))
            place = stretch.stop
        return found

    def padded(self) -> list[float]:
        """Two texts of different length in one cache, and the shorter one alone afterwards."""
        return self._rows(self._texts.long, self._texts.short)

    def equal(self) -> list[float]:
        """Two texts of one length in one cache."""
        return self._rows(self._texts.long, self._texts.other)

    def _rows(self, first: Tensor, second: Tensor) -> list[float]:
        pad = first.shape[1] - second.shape[1]
        rows = torch.cat([first, torch.cat([torch.zeros(1, pad, dtype=torch.long), second], dim=1)])
        right = [self._whole(first), self._whole(second)]
        cut = rows.shape[1] - STEPS
        cache = self._network.cache(rows.shape[1], [0, pad])
        # A long prompt goes through in parts: the first one ends within the padding.
        parts = [pad // 2, cut - pad // 2] if pad > 1 and self._network.at_once(cut, 1) == 1 else [cut]
        outputs = [self._network.forward(part, cache, all_logits=True) for part in rows[:, :cut].split(parts, dim=1)]
        logits = torch.cat([output.all_logits().float().cpu() for output in outputs], dim=1)
        hidden = torch.cat([output.hidden.float().cpu() for output in outputs], dim=1)
        found = differences(Answer(logits[0], hidden[0]), right[0].at(slice(0, cut)))
        found += differences(Answer(logits[1, pad:], hidden[1, pad:]), right[1].at(slice(0, cut - pad)))
        for place in range(cut, rows.shape[1]):
            if place == rows.shape[1] - 1:  # the first lane ends: the other goes on alone
                cache = cache.gather([1])
                found += differences(
                    self._forward(rows[1:, place : place + 1], cache), right[1].at(slice(place - pad, place - pad + 1))
                )
                break
            output = self._network.forward(rows[:, place : place + 1], cache)
            logits, hidden = output.logits().float().cpu(), output.hidden.float().cpu()
            for row, offset in ((0, 0), (1, pad)):
                at = slice(place - offset, place - offset + 1)
                found += differences(Answer(logits[row : row + 1], hidden[row]), right[row].at(at))
        return found

    def siblings(self) -> list[float]:
        """Candidates for one place beside each other, as contrastive search has them; one stays, and a step follows."""
        text, candidates = self._texts.long, self._texts.candidates
        cut = text.shape[1] - STEPS
        count = candidates.shape[1]
        cache = self._network.cache(cut + count, [0])
        self._network.forward(text[:, :cut], cache)
        output = self._network.forward(candidates, cache, siblings=True, all_logits=True)
        tried = sorted({0, 1, count // 2, count - 1})
        found: list[float] = []
        for which in tried:
            whole = torch.cat([text[:, :cut], candidates[:, which : which + 1]], dim=1)
            logits, hidden = output.logits([which]).float().cpu(), output.hidden[:, which].float().cpu()
            found += differences(Answer(logits, hidden), self._whole(whole).at(slice(cut, cut + 1)))
        cache.choose([tried[-1]])
        whole = torch.cat([whole, text[:, cut : cut + 1]], dim=1)
        right = self._whole(whole).at(slice(cut + 1, cut + 2))
        return found + differences(self._forward(text[:, cut : cut + 1], cache), right)

    def rewind(self) -> list[float]:
        """Back to the middle of a text, from a copy of it, and on with another one's end."""
        text, other = self._texts.long, self._texts.other
        cut = text.shape[1] // 2
        first = self._network.cache(text.shape[1], [0])
        self._network.forward(text, first)
        cache = first.gather([0], text.shape[1])
        cache.truncate(cut)
        whole = torch.cat([text[:, :cut], other[:, cut:]], dim=1)
        right = self._whole(whole)
        found = differences(self._forward(whole[:, cut:], cache), right.at(slice(cut, None)))
        step = slice(text.shape[1] - 1, text.shape[1])
        first.truncate(text.shape[1] - 1)
        return found + differences(self._forward(text[:, step], first), self._whole(text).at(step))

    def _forward(self, ids: Tensor, cache: Any) -> Answer:
        return answer(self._network.forward(ids, cache, all_logits=True))


def answer(output: Any) -> Answer:
    """What a network answers to one text."""
    return Answer(output.all_logits()[0].float().cpu(), output.hidden[0].float().cpu())


def differences(got: Answer, right: Answer) -> list[float]:
    """Of logits and of hidden states, the norm of each position's difference over that of the right ones."""
    if got.logits.shape != right.logits.shape or got.hidden.shape != right.hidden.shape:
        return [float("inf")]
    found: list[float] = []
    for one, other in ((got.logits, right.logits), (got.hidden, right.hidden)):
        spread = (other - other.mean(-1, keepdim=True)).norm(dim=-1).clamp_min(1e-6)
        found += ((one - other).norm(dim=-1) / spread).nan_to_num(float("inf")).tolist()
    return found


@torch.inference_mode()
def fails(network: Network, dtype: torch.dtype, whole: Whole | None = None) -> str | None:
    """Which check a network of ours does not pass, in words; `None` if it passes them all."""

    def alone(ids: Tensor) -> Answer:
        return answer(network.forward(ids, network.cache(ids.shape[1], [0]), all_logits=True))

    # Texts of a length whose parts may go through one after the other.
    tokens = next(length for length in range(TOKENS, STEPS, -1) if network.at_once(length, 1) == 1)
    door = Door(network, whole or alone, dtype, texts(network.vocabulary_size, tokens))
    for check, words in (
        (Door.steps, _("single steps change its answers")),
        (Door.chunks, _("prompts in parts change its answers")),
        (Door.padded, _("lanes of different lengths change its answers")),
        (Door.siblings, _("candidates beside each other change its answers")),
        (Door.rewind, _("going back changes its answers")),
    ):
        if not door.passes(check):
            return words
    return None


@torch.inference_mode()
def safe_way(network: TransformersNetwork) -> Way:
    """The fastest way to use transformers' module that changes none of its answers.

    Raises:
        ModelFileError: there is none.
    """
    config = network.model.config.get_text_config()
    boundary = turning_point(config)
    crossed = [window + 2 * STEPS for name in WINDOWS if isinstance(window := getattr(config, name, None), int)]
    tokens = max([TOKENS, *(length for length in crossed if length <= LONGEST)])
    tokens = max(2 * STEPS + 2, min(tokens, network.context_length - 2, (boundary or tokens) - 1))
    given = texts(min(network.vocabulary_size, _known_ids(network)), tokens)
    door = Door(network, lambda ids: answer(network.whole(ids)), network.model.dtype, given)
    start = Way(cached=network.cache_name is not None, boundary=boundary, head=not _gives_hidden(network, given.long))

    def passes(way: Way, *checks: Callable[[Door], list[float]]) -> bool:
        network.way = way
        return all(door.passes(check) for check in checks)

    if not passes(start, Door.causal):
        raise ModelFileError(
            _("its answers about a text's beginning change with what follows: it is no causal language model")
        )
    # One lane: what may follow what is kept, and from where one may go back.
    alone = replace(start, rows="single", siblings="lanes")
    lanes_alone = [
        replace(alone, chunks=True),
        replace(alone, chunks=False),
        replace(alone, cached=False, boundary=None),
    ]
    way = next(
        (
            way
            for way in lanes_alone
            if passes(way, Door.steps, Door.chunks, Door.rewind, Door.siblings) and (start.cached or not way.cached)
        ),
        None,
    )
    if way is None:
        raise ModelFileError(_("its answers change from one time to the next, so that none can be shown"))
    # Several lanes, then candidates, which are lanes as well.
    if boundary is None and passes(replace(way, rows="padded"), Door.padded, Door.siblings):
        way = replace(way, rows="padded")
    elif passes(replace(way, rows="equal"), Door.equal, Door.siblings):
        way = replace(way, rows="equal")
    if way.cached and way.rows != "single" and passes(replace(way, siblings="positions"), Door.siblings):
        way = replace(way, siblings="positions")
    return way


def _gives_hidden(network: TransformersNetwork, ids: Tensor) -> bool:
    """`network.gives_hidden`, the first time that the module runs. Raises `ModelFileError` where text is not enough."""
    try:
        return network.gives_hidden(ids)
    except Exception as error:
        wanted = re.search(r"pixel|image|audio|input_features|positional argument", str(error))
        if no_memory(error) or not wanted or not reads_more_than_text(network.model.config.model_type):
            raise
        raise ModelFileError(
            _(
                "its architecture, {kind}, does not run on text alone; choose a model that does",
                kind=network.model.config.model_type,
            )
        ) from error


def enter(
    network: TransformersNetwork,
    used: NetworkUsed,
    *,
    cache_dir: Path | None = None,
    measuring: Callable[[], None] = lambda: None,
) -> NetworkUsed:
    """Have a network use its module in the way that is safe here: from memory, or else measured now.

    Raises:
        ModelFileError: no way is safe.
    """
    if used.way is None:
        measuring()
        used = replace(used, way=safe_way(network))
        record(used, cache_dir)
    network.use(used.way or Way())
    return used


def turning_point(config: Any) -> int | None:
    """Up to how many tokens rotary positions are those of short texts; `None` where the length changes nothing."""
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    points = []
    for rope in nested or [parameters]:
        kind = str(rope.get("rope_type") or rope.get("type") or "")
        if kind == "longrope" or "dynamic" in kind:
            longest = getattr(config, "max_position_embeddings", 0)
            points.append(
                rope.get("original_max_position_embeddings")
                or getattr(config, "original_max_position_embeddings", None)
                or longest
            )
    return min(points, default=None)


def _known_ids(network: TransformersNetwork) -> int:
    """How many rows its embeddings have, where that is fewer than its vocabulary."""
    embeddings = network.model.get_input_embeddings()
    return getattr(embeddings, "num_embeddings", network.vocabulary_size)
