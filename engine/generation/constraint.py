"""How far a lane has got in its grammar, and which tokens may come next.

llguidance answers for the whole vocabulary at each step. Where only one text can come, it allows the tokens alone that
the tokenizer itself cuts this text into. A grammar is of what the lane writes; the prompt is not looked at.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from engine.base.errors import InputError, TextError
from engine.base.language import _
from engine.base.plain import one_line
from engine.generation.config import GenerationConfig
from engine.generation.grammar import Grammar, limits, reason
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor

NAMED, FEW = 5, 50  # tokens that an error names, and of how many it can choose them

# Vocabularies as llguidance wants them: sorting one takes a good part of a second.
_sorted: "WeakKeyDictionary[Tokenizer, LLTokenizer]" = WeakKeyDictionary()
KEPT = 4  # grammars of a tokenizer
_built: "WeakKeyDictionary[Tokenizer, dict[Grammar, LLMatcher]]" = WeakKeyDictionary()


class Constraint:
    """A lane's grammar, and how far the lane has got in it.

    Args:
        grammar: what may be written.
        tokenizer: of the lane's model, one that runs here.
        written: ids that the lane has written, or that come whatever the strategy would pick.
        ends: whether an end-of-text may come; else the lane ends with the grammar alone.

    Raises:
        InputError: nothing fits the grammar, or `written` does not.
    """

    def __init__(
        self, grammar: Grammar, tokenizer: Tokenizer, written: Sequence[int] = (), *, ends: bool = True
    ) -> None:
        self._grammar, self._tokenizer, self._ends = grammar, tokenizer, ends
        self._vocabulary = vocabulary_of(tokenizer)
        self._size = self._vocabulary.vocab_size if tokenizer.eos_ids else self._vocabulary.vocab_size - 1
        self._matcher = _matcher_of(grammar, tokenizer)
        self._check()
        if not self.complete and not len(self._ids()):
            raise InputError(self._nothing_fits())
        self.check_fits(written)

    def copy(self) -> "Constraint":
        """Another that is as far and goes on by itself."""
        other = object.__new__(Constraint)
        other.__dict__ |= self.__dict__ | {"_matcher": self._matcher.deep_copy()}
        return other

    def allowed(self, size: int) -> "Tensor":
        """Which tokens may come next, `[size]` of bool, for the rows of a network.

        Raises:
            InputError: the grammar has become too large to be followed, or leaves no token.
        """
        import torch

        mask = torch.from_numpy(self._mask()[:size]).bool()
        found = torch.nn.functional.pad(mask, (0, size - len(mask))) if len(mask) < size else mask
        if not bool(found.any()):
            done = _("the {kind} is complete there, and nothing can follow", kind=self._grammar.kind)
            raise InputError(done if self.complete else self._nothing_fits())
        return found

    def forced(self) -> list[int]:
        """The tokens that have to come next, as the tokenizer cuts them; empty where there is a choice."""
        return list(self._matcher.compute_ff_tokens())

    def fitting(self, ids: Sequence[int]) -> int:
        """How many of these ids could come next, one after the other; an end-of-text where the grammar is complete."""
        return int(self._matcher.validate_tokens(list(ids)))

    def check_fits(self, ids: Sequence[int]) -> None:
        """Raise `InputError`, naming what could have come, where these ids cannot come next."""
        fitting = self.fitting(ids)
        if fitting == len(ids):
            return
        here = self.copy()
        for id in ids[:fitting]:
            here.append(id)
        ids_there = here._ids().tolist()
        if len(ids_there) <= FEW:  # the longest say most of what can follow
            ids_there.sort(key=lambda id: -len(self._tokenizer.bytes_of(id)))
        possible = [self._tokenizer.label(id) for id in ids_there[:NAMED]]
        raise InputError(
            _(
                "“{token}” does not fit the {kind} there; possible: {possible}",
                token=one_line(self._tokenizer.label(ids[fitting])),
                kind=self._grammar.kind,
                possible=" ".join(map(one_line, possible)) or _("nothing more"),
            )
        )

    def append(self, id: int) -> None:
        """Go on behind a token, which fits.

        Raises:
            InputError: it does not, or the grammar has become too large to be followed.
        """
        self._matcher.consume_token(id)
        self._check()

    def rollback(self, count: int) -> None:
        """Go back by so many tokens."""
        self._matcher.rollback(count)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether all is written that the grammar wants, and nothing more can come."""
        return self._matcher.is_stopped() and self._matcher.is_accepting()

    def _mask(self) -> Any:
        """1 for each token that may come next, an array `[vocabulary]` of bytes."""
        import numpy
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        bits = allocate_token_bitmask(1, self._vocabulary.vocab_size)
        fill_next_token_bitmask(self._matcher, bits)
        self._check()
        mask = numpy.unpackbits(bits.view(numpy.uint8)[0], count=self._size, bitorder="little")
        if not (self._ends and self._matcher.is_accepting()):
            mask[list(self._tokenizer.eos_ids)] = 0
        return mask

    def _ids(self) -> Any:
        """Ids that may come next, ascending, an array `[n]`."""
        return self._mask().nonzero()[0]

    def _check(self) -> None:
        if self._matcher.is_error():
            why = reason(self._matcher.get_error())
            if why.startswith("NoExtension"):
                raise InputError(self._nothing_fits())
            raise InputError(_("the {kind} cannot be followed: {why}", kind=self._grammar.kind, why=why))

    def _nothing_fits(self) -> str:
        return _("no text fits the {kind}; loosen it", kind=self._grammar.kind)


def constraint_of(
    config: GenerationConfig, tokenizer: Tokenizer, written: Sequence[int] = (), coming: Sequence[int] = ()
) -> Constraint | None:
    """The grammar of a configuration behind what is written; `None` where it has none.

    Args:
        coming: ids that come next whatever the strategy would pick; they are looked at, not gone behind.

    Raises:
        InputError: nothing fits, or `written` and `coming` do not.
    """
    grammar = config.constraint
    if grammar is None:
        return None
    found = Constraint(grammar, tokenizer, (*written, *coming), ends=not config.ignore_eos)
    for id in written:
        found.append(id)
    return found


def allowed_after(config: GenerationConfig, tokenizer: Tokenizer, written: Sequence[int], size: int) -> "Tensor | None":
    """Which tokens may come behind what a lane has written, `[size]` of bool; `None` without a grammar.

    Raises:
        InputError: what is written does not fit.
    """
    found = constraint_of(config, tokenizer, written)
    return None if found is None else found.allowed(size)


def _matcher_of(grammar: Grammar, tokenizer: Tokenizer) -> "LLMatcher":
    """A matcher at its beginning. Building one takes up to seconds, so the last ones are kept to be copied."""
    from llguidance import LLMatcher

    built = _built.setdefault(tokenizer, {})  # lanes and the inspector ask from threads of their own
    found = built.get(grammar)
    if found is None:
        found = LLMatcher(vocabulary_of(tokenizer), grammar.compiled(), log_level=0, limits=limits())
        built[grammar] = found
        for other in list(built)[:-KEPT]:
            built.pop(other, None)
    return found.deep_copy()


class _Words:
    """A vocabulary as llguidance's `TokenizerWrapper` takes it, which cuts texts as the tokenizer does.

    Attributes:
        ends: ids that end a text; where the vocabulary has none, one behind the vocabulary, which never comes.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        size = max(tokenizer.vocabulary_size, tokenizer.highest_id + 1, max(tokenizer.eos_ids, default=0) + 1)
        self.tokens = [tokenizer.bytes_of(id) for id in range(size)]
        self.special_token_ids = [id for id in range(size) if tokenizer.is_special(id)]
        self.ends = sorted(tokenizer.eos_ids)
        if not self.ends:
            self.ends = [size]
            self.tokens.append(b"")
            self.special_token_ids.append(size)
        self.bos_token_id, self.eos_token_id = None, self.ends[0]
        self._special = frozenset(self.special_token_ids)
        self._ids = {data: id for id, data in enumerate(self.tokens) if data and id not in self._special}
        self._longest = max(map(len, self._ids), default=1)
        self._tokenizer = ref(tokenizer)

    def __call__(self, data: bytes) -> list[int]:
        tokenizer = self._tokenizer()
        if tokenizer is not None:
            try:
                ids = tokenizer.encode_continuation(data.decode())
            except (TextError, UnicodeDecodeError):
                ids = []
            if b"".join(map(self.tokens.__getitem__, ids)) == data and self._special.isdisjoint(ids):
                return ids
        return self._greedily(data)  # a text that the tokenizer changes, or the name of a special token

    def _greedily(self, data: bytes) -> list[int]:
        """The longest token at each place, up to a byte that no token begins with."""
        ids, start = [], 0
        while start < len(data):
            ends = range(min(len(data), start + self._longest), start, -1)
            end = next((end for end in ends if data[start:end] in self._ids), None)
            if end is None:
                break
            ids.append(self._ids[data[start:end]])
            start = end
        return ids


def vocabulary_of(tokenizer: Tokenizer) -> "LLTokenizer":
    """A vocabulary sorted for llguidance, once for each tokenizer; takes up to some seconds for a large one."""
    from llguidance import LLTokenizer, TokenizerWrapper

    if tokenizer not in _sorted:
        words = _Words(tokenizer)
        _sorted[tokenizer] = LLTokenizer(TokenizerWrapper(words), eos_token=words.ends)
    return _sorted[tokenizer]
