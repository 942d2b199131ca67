"""Text ⇄ tokens by a server, or only what comes in its stream."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from engine.base.errors import InputError, TextError
from engine.base.language import _
from engine.remote.connection import Connection
from engine.remote.conversing import Conversing, Encoded, ServerTokens
from engine.remote.dialects.dialect import Dialect
from engine.text.conversation import Conversation
from engine.text.following import behind_an_anchor, spells
from engine.text.rendering import Rendered
from engine.text.spelling import UNKNOWN, ends_from_pieces
from engine.text.template import Variable
from engine.text.token import Token, utf8

MOST_CHARACTERS = 200_000


class ServerTokenizer(ServerTokens):
    """The tokenizer of a served model, asked over the network; what it answered once is remembered.

    A token without an id, as servers write them that send only texts, gets a negative one here.

    Args:
        size: entries in the vocabulary, 0 where the server does not say.
    """

    remote = True

    def __init__(self, connection: Connection, dialect: Dialect, size: int) -> None:
        self.eos_ids = frozenset()
        self.chat_template = dialect.template
        self.other_templates = dialect.other_templates
        self.special_tokens = dialect.special_tokens
        self._connection = connection
        self._dialect = dialect
        self._size = size
        self._bytes: dict[int, bytes] = {}
        self._named: dict[bytes, int] = {}
        self._labels: dict[int, str] = {}
        self._special: set[int] = set()  # as far as they have been seen
        self._encoded: dict[tuple[str, str], list[Token]] = {}
        self._conversing = Conversing(connection, dialect, self)

    @property
    def highest_id(self) -> int:
        return self._size - 1

    @property
    def vocabulary_size(self) -> int:
        return self._size

    def named(self, data: bytes) -> int:
        """The id of a token of which only the text is known: the model's where it has been seen, else one below 0."""
        id = self._named.setdefault(data, -1 - len(self._named))
        self._bytes[id] = data
        return id

    def learn(self, id: int, data: bytes) -> None:
        """Remember what an id spells."""
        self._bytes.setdefault(id, data)
        if data and UNKNOWN not in data:
            self._named.setdefault(data, id)

    def learn_control(self, id: int) -> None:
        """Remember that an id is no text, but a control token such as end-of-text."""
        self._special.add(id)

    def fetch(self, ids: Iterable[int]) -> None:
        """Ask what these ids spell, all at once, as far as it is not known."""
        missing = [id for id in dict.fromkeys(ids) if id not in self._bytes]
        if missing:
            for id, data in zip(missing, self._connection.call(self._dialect.spellings(self._connection, missing))):
                self.learn(id, data)

    def bytes_of(self, id: int) -> bytes:
        self.fetch([id])
        return self._bytes[id]

    def find(self, text: str) -> list[int]:
        """Among the entries that have been seen."""
        wanted = text.strip()
        return sorted(id for id in self._bytes if wanted and wanted in self.label(id))

    @property
    def cuts(self) -> bool:
        return self._dialect.capabilities.tokenizer

    @property
    def chats(self) -> bool:
        return self._dialect.capabilities.chat

    def encode_conversation(self, conversation: Conversation) -> Rendered:
        """As `Tokenizer.encode_conversation`; a remark says what the server does in its way."""
        if not self.chats:
            raise InputError(_("this server uses no chat template; leave --chat out, or choose an instruct model"))
        if not conversation.messages:
            raise InputError(_("there is no message; give one at least"))
        last = conversation.messages[-1]
        if conversation.continues and last.role != "assistant":
            raise InputError(
                _("only an assistant's message can be continued; the last one is from {role}", role=last.role)
            )
        _within_bounds("".join(f"{one.content}{one.thinking}" for one in conversation.messages))
        return self._conversing.rendered(conversation)

    def template_variables(self, conversation: Conversation | None = None) -> tuple[Variable, ...]:
        if self.chat_template is None and self.chats:
            raise InputError(
                _("this server does not say what its template reads: any option goes to it as it is given")
            )
        return super().template_variables(conversation)

    def tokens_of(self, encoded: Encoded, text: str | None) -> list[Token]:
        """The tokens of ids and their spellings, which tile a text; what they spell where it is not given."""
        for id, spelling in encoded:
            if spelling is not None:
                self.learn(id, spelling)
        ids = [id for id, _spelling in encoded]
        self.fetch(ids)
        pieces = [self._bytes[id] for id in ids]
        data = b"".join(pieces) if text is None else utf8(text)
        return self._tokens(data, ids, ends_from_pieces(data, pieces))

    def encode(self, text: str, *, template: bool = True) -> list[Token]:
        data = _within_bounds(text)
        if not self.cuts:
            return self._tokens(data, [self.named(data)], [len(data)]) if data else []
        return self._asked(f"{template}", text, partial(self._dialect.tokenize, template=template))

    def _asked(self, how: str, text: str, ask: Callable[..., Coroutine[Any, Any, Encoded]]) -> list[Token]:
        """The tokens that the server cuts, remembered until the next text: a prompt that is typed."""
        known = self._encoded.get((how, text))
        if known is None:
            known = self.tokens_of(self._connection.call(ask(self._connection, text)), text)
            self._encoded = {(how, text): known}
        return known

    def encode_ids(self, text: str) -> list[int]:
        return [token.id for token in self.encode(text)]

    def encode_continuation(self, text: str) -> list[int]:
        """As `Tokenizer.encode_continuation`: after another text where the server puts a space before every text."""
        ids = self._cut(text)
        if spells(ids, text, self.bytes_of):
            return ids
        return list(behind_an_anchor(text, self._cut, self.bytes_of) or ids)

    def _cut(self, text: str) -> list[int]:
        return [token.id for token in self.encode(text, template=False)]

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self.encode(text)) for text in texts]


def _within_bounds(text: str) -> bytes:
    """The text's UTF-8. Raises `TextError` where it is none, or too long to be sent."""
    if len(text) > MOST_CHARACTERS:
        raise TextError(_("the text has {count:,} characters; servers are asked for at most 200,000", count=len(text)))
    return utf8(text)
