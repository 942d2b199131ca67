"""Text ⇄ tokens by a server, or only what comes in its stream."""

import asyncio
from collections.abc import Iterable, Sequence

from engine.errors import TextError
from engine.language import _
from engine.remote.connection import Connection
from engine.remote.dialects import Dialect
from engine.tokens import Token, Tokenizer, ends_from_pieces, utf8

MOST_CHARACTERS = 200_000


class ServerTokenizer(Tokenizer):
    """The tokenizer of a served model, asked over the network; what was told once is remembered.

    A token without an id, as servers that tell only texts write them, gets a negative one of its own here.

    Args:
        size: entries in the vocabulary, 0 where the server does not tell.
    """

    remote = True

    def __init__(self, connection: Connection, dialect: Dialect, size: int) -> None:
        self.eos_ids = frozenset()
        self.chat_template = None
        self.special_tokens = {}
        self._connection = connection
        self._dialect = dialect
        self._size = size
        self._bytes: dict[int, bytes] = {}
        self._named: dict[bytes, int] = {}
        self._labels: dict[int, str] = {}
        self._special: set[int] = set()
        self._encoded: dict[str, list[Token]] = {}

    @property
    def highest_id(self) -> int:
        return self._size - 1

    @property
    def vocabulary_size(self) -> int:
        return self._size

    def is_special(self, id: int) -> bool:
        return False

    def named(self, data: bytes) -> int:
        """The id of a token of which only the text is known: the model's where it has been seen, else one below 0."""
        id = self._named.setdefault(data, -1 - len(self._named))
        self._bytes[id] = data
        return id

    def learn(self, id: int, data: bytes) -> None:
        """Remember what an id spells."""
        self._bytes.setdefault(id, data)
        if data and "�".encode() not in data:
            self._named.setdefault(data, id)

    def fetch(self, ids: Iterable[int]) -> None:
        """Ask what these ids spell, all at once, as far as it is not known."""
        missing = [id for id in dict.fromkeys(ids) if id not in self._bytes]

        async def ask() -> list[bytes]:
            return await asyncio.gather(*(self._dialect.bytes_of(self._connection, id) for id in missing))

        if missing:
            for id, data in zip(missing, self._connection.call(ask())):
                self.learn(id, data)

    def bytes_of(self, id: int) -> bytes:
        self.fetch([id])
        return self._bytes[id]

    def find(self, text: str) -> list[int]:
        """Among the entries that have been seen."""
        wanted = text.strip()
        return sorted(id for id in self._bytes if wanted and wanted in self.label(id))

    def encode(self, text: str, *, template: bool = True) -> list[Token]:
        data = utf8(text)
        if len(text) > MOST_CHARACTERS:
            raise TextError(
                _("the text has {count:,} characters; servers are asked for at most 200,000", count=len(text))
            )
        known = self._encoded.get(text)
        if known is None:
            if not self._dialect.capabilities.tokenizer:
                return self._tokens(data, [self.named(data)], [len(data)]) if data else []
            told = self._connection.call(self._dialect.tokenize(self._connection, text))
            for id, spelling in told:
                if spelling is not None:
                    self.learn(id, spelling)
            ids = [id for id, _spelling in told]
            self.fetch(ids)
            ends = ends_from_pieces(data, [self._bytes[id] for id in ids])
            known = self._tokens(data, ids, ends)
            self._encoded = {text: known}  # the last one only: a prompt that is typed
        return known

    def encode_ids(self, text: str, *, template: bool = True) -> list[int]:
        return [token.id for token in self.encode(text, template=template)]

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self.encode(text)) for text in texts]
