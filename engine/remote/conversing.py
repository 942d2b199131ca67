"""Conversations in front of a server: rendered here where it sends its template, else put into it there."""

import json
import re
from collections.abc import Iterator

from engine.base.errors import InputError
from engine.base.language import _
from engine.remote.connection import Connection
from engine.remote.dialects.dialect import Dialect
from engine.text import thinking
from engine.text.conversation import Conversation, Message
from engine.text.layout import TEMPLATE, lay_out, searched
from engine.text.rendering import Layout, Piece, Rendered, rendered, twice_begun
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer

Encoded = list[tuple[int, bytes | None]]
# How names of control tokens look.
NAMES = re.compile(r"<[^<>\s]{1,60}>|\[[^\[\]\s]{1,60}\]")


class Conversing:
    """What puts conversations into the template of a served model.

    Args:
        tokenizer: remembers what ids spell.
    """

    def __init__(self, connection: Connection, dialect: Dialect, tokenizer: "ServerTokens") -> None:
        self._connection = connection
        self._dialect = dialect
        self._tokenizer = tokenizer
        self._controls: dict[str, bool] = {}  # names, and whether they are tokens
        self._last: tuple[Conversation, Rendered] | None = None

    def rendered(self, conversation: Conversation) -> Rendered:
        """A conversation as the server's model gets it. Raises `InputError`, `RemoteError`."""
        if self._last is not None and self._last[0] == conversation:
            return self._last[1]  # a prompt that is typed is asked for again and again
        if self._dialect.template is not None:
            found = self._laid_out(conversation)
        elif self._dialect.chat is not None:
            found = self._as_messages(conversation)
        else:
            found = self._put_there(conversation)
        self._last = conversation, found
        return found

    # Rendered here.

    def _laid_out(self, conversation: Conversation) -> Rendered:
        template = self._tokenizer.template_of(conversation)
        texts = [part for one in conversation.messages for part in (one.content, one.thinking)]
        beside = [[dict(one.extra) for one in conversation.messages], dict(conversation.options)]
        typed = self._names("\n".join([*texts, json.dumps(beside, ensure_ascii=False)]))
        layout = lay_out(template, conversation, self._dialect.special_tokens, typed)
        for name in self._names(layout.text):
            self._tokenizer.learn_control(self._cut(name)[0][0])
        cut: dict[tuple[str, bool, bool], Encoded] = {}
        encoded: Encoded = []
        for place, (text, letters) in enumerate(layout.parts):
            key = (text, letters, place == 0)
            if key not in cut:
                cut[key] = self._cut_part(text, letters=letters, first=place == 0)
            encoded += cut[key]
        tokens = self._tokenizer.tokens_of(encoded, layout.text)
        return rendered(layout, tokens, twice_begun(tokens, self._dialect.special_tokens.get("bos_token")))

    def _names(self, text: str) -> list[str]:
        """The names in a text that are control tokens, found by cutting it both ways."""
        found, letters = self._cut(text), {id for id, _data in self._cut(text, letters=True)}
        pieces = (data.decode("utf-8", "replace") for id, data in found if id not in letters and data)
        names = [name for name in dict.fromkeys(pieces) if name in text]
        for name in names:
            if name not in self._controls:
                ids, own = [[id for id, _data in self._cut(name, letters=way)] for way in (False, True)]
                self._controls[name] = len(ids) == 1 and ids != own
        return [name for name in names if self._controls[name]]

    def _cut(self, text: str, *, letters: bool = False) -> Encoded:
        dialect, connection = self._dialect, self._connection
        asked = (
            dialect.tokenize_letters(connection, text)
            if letters
            else dialect.tokenize(connection, text, template=False)
        )
        return self._connection.call(asked)

    def _cut_part(self, text: str, *, letters: bool, first: bool) -> Encoded:
        """A part's ids; behind a line's end, as in transformers, so that no space is put before it."""
        if not first:
            before, found = self._cut("\n"), self._cut("\n" + text, letters=letters)
            if found[: len(before)] == before:
                return found[len(before) :]
        return self._cut(text, letters=letters)

    # Put into the template there.

    def _put_there(self, conversation: Conversation) -> Rendered:
        if TEMPLATE in conversation.options:
            raise InputError(_("this server has one chat template; leave chat_template out"))
        encoded = self._connection.call(self._dialect.tokenize_chat(self._connection, conversation))
        tokens = self._tokenizer.tokens_of(encoded, None)
        text = "".join(token.text for token in tokens)
        pieces = tuple(searched([Piece(text)], conversation.messages))
        opened = None if conversation.continues else thinking.open_mark(text)
        names = {token.piece for token in tokens}
        remarks = [
            remark
            for place, message in enumerate(conversation.messages)
            for remark in self._remarks(place, message, names, shown=message.content.strip() in text)
        ]
        return rendered(Layout(pieces, tuple(remarks), opened), tokens)

    def _remarks(self, place: int, message: Message, names: set[str], *, shown: bool) -> Iterator[str]:
        if not shown:
            yield _("the template leaves out message {number} ({role})", number=place + 1, role=message.role)
        typed = [name for name in dict.fromkeys(NAMES.findall(message.content)) if name in names]
        if typed:
            listed = ", ".join(f"“{name}”" for name in typed[:5])
            said = _("message {number} holds {names}: taken for control tokens", number=place + 1, names=listed)
            yield said if message.special else said + _("; this server cannot take them as letters")

    # Messages alone.

    def _as_messages(self, conversation: Conversation) -> Rendered:
        chat = self._dialect.chat
        if conversation.continues and getattr(chat, "prefill", None) is None:
            raise InputError(_("this server does not go on with an answer that is begun; leave it out"))
        lines = [f"{one.role}: {one.content}\n" for one in conversation.messages]
        pieces = tuple(Piece(line, place) for place, line in enumerate(lines))
        tokens = self._tokenizer.tokens_of([(self._tokenizer.named(one.encode()), one.encode()) for one in lines], None)
        remarks = [_("this server puts messages into its template itself: the text and its tokens are not known here")]
        typed = [name for one in conversation.messages for name in NAMES.findall(one.content) if not one.special]
        if typed:
            listed = ", ".join(f"“{name}”" for name in list(dict.fromkeys(typed))[:5])
            remarks.append(
                _("the messages hold {names}: whether these become control tokens is not known", names=listed)
            )
        return rendered(Layout(pieces, tuple(remarks)), tokens)


class ServerTokens(Tokenizer):
    """What a tokenizer behind a server can do more."""

    def tokens_of(self, encoded: Encoded, text: str | None) -> list[Token]:
        """The tokens of ids and their spellings, which tile a text; what they spell where it is not given."""
        raise NotImplementedError

    def learn_control(self, id: int) -> None:
        """Remember that an id is no text, but a control token such as end-of-text."""
        raise NotImplementedError

    def named(self, data: bytes) -> int:
        """The id of a token of which only the text is known."""
        raise NotImplementedError
