"""Text ⇄ tokens, with exact byte spans.

A `Tokenizer` wraps a `tokenizers.Tokenizer` and knows the bytes every vocabulary entry
stands for, so that a prompt's tokens tile its UTF-8 bytes exactly and a generated token
that ends in the middle of a character can be shown as the bytes it is.
"""

import codecs
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import InputError, ModelFileError, TextError, first_line
from engine.base.language import _
from engine.text.conversation import Conversation
from engine.text.following import behind_an_anchor, spells, without_prefix_space
from engine.text.layout import TEMPLATE, lay_out
from engine.text.rendering import Layout, Rendered, rendered, twice_begun
from engine.text.spans import Place, ends_of
from engine.text.spelling import spelled
from engine.text.template import Variable, literal_text, variables
from engine.text.token import Token, utf8, visible

if TYPE_CHECKING:
    import tokenizers


MOST_GROWTH = 1_000


def _growth(part: Any) -> float:
    """How many characters a normalizer or decoder may make of one, at most; replacements can multiply."""
    state = json.loads(part.__getstate__()) if part is not None else {}

    def of(state: Any) -> float:
        match state:
            case {"type": "Sequence", "normalizers": list(parts)} | {"type": "Sequence", "decoders": list(parts)}:
                return math.prod(map(of, parts))
            case {"type": "Replace", "pattern": {"String": str(pattern)}, "content": str(content)} if pattern:
                return max(1, len(content) / len(pattern))
            case {"type": "Replace", "content": str(content)}:  # an expression may match between two characters
                return len(content) + 1
            case _:
                return 1.0

    return of(state)


class Tokenizer:
    """A vocabulary and the rules that cut text into its entries.

    Attributes:
        remote: whether it is asked over a network, and so beside the event loop.
        warning: why its tokens may be others than those the model learned with.
        rows: how many ids the network knows, once there is one; a text that becomes others is refused.
        other_templates: chat templates for something other than a conversation, such as one with tools, by name.

    Args:
        backend: the rules and the vocabulary.
        eos_ids: tokens that end a text.
        chat_template: Jinja template of the model's chat format, if it has one.
        special_tokens: what templates call some of them, such as `bos_token`.
    """

    remote = False
    warning: str | None = None
    rows: int | None = None
    other_templates: Mapping[str, str] = {}

    def __init__(
        self,
        backend: "tokenizers.Tokenizer",
        eos_ids: Iterable[int] = (),
        chat_template: str | None = None,
        special_tokens: Mapping[str, str] | None = None,
    ) -> None:
        if (most := max(_growth(backend.normalizer), _growth(backend.decoder))) > MOST_GROWTH:
            raise ModelFileError(
                _("this tokenizer makes {most:,.0f} characters of one; choose another model", most=most)
            )
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.eos_ids = frozenset(eos_ids)
        self.chat_template = chat_template
        self.special_tokens = special_tokens or {}
        self._special = {id for id, added in backend.get_added_tokens_decoder().items() if added.special}
        self._added = {id: added.content for id, added in backend.get_added_tokens_decoder().items()}
        self._decoders = _decoder_types(backend)
        self._marks_spaces = bool(self._decoders & {"Metaspace", "Replace"})
        self._labels: dict[int, str] = {}
        self._all_labels: list[str] | None = None
        self._following: tokenizers.Tokenizer | None = None  # what cuts a text that goes on
        self._letters: tokenizers.Tokenizer | None = None  # what knows no added tokens

    @classmethod
    def from_file(
        cls,
        path: Path,
        eos_ids: Iterable[int] = (),
        chat_template: str | None = None,
        special_tokens: Mapping[str, str] | None = None,
    ) -> "Tokenizer":
        """Read a `tokenizer.json`. Raises `ModelFileError` when it cannot be read."""
        import tokenizers

        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelFileError(
                _("{path} is no usable tokenizer: {error}", path=path, error=first_line(error))
            ) from error
        return cls(backend, eos_ids, chat_template, special_tokens)

    @property
    def highest_id(self) -> int:
        """The largest id of the vocabulary, those of tokens that were added to it aside."""
        ids = self.backend.get_vocab(with_added_tokens=True).values()
        return max((id for id in ids if id not in self._added), default=-1)

    @property
    def vocabulary_size(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    def is_special(self, id: int) -> bool:
        return id in self._special

    def bytes_of(self, id: int) -> bytes:
        """The UTF-8 bytes that entry `id` stands for, possibly a part of a character.

        An id the vocabulary lacks (models pad their output layer) gives no bytes.
        """
        if id in self._added:
            text = self._added[id]
            # Gemma's vocabulary has its runs of spaces among the added tokens.
            return (text.replace("▁", " ") if self._marks_spaces and id not in self._special else text).encode()
        spelling = self.backend.id_to_token(id)
        if spelling is None:
            return b""
        if "ByteLevel" in self._decoders:
            return spelled(spelling)
        if "ByteFallback" in self._decoders and len(spelling) == 6 and spelling.startswith("<0x"):
            return bytes([int(spelling[3:5], 16)])
        if self._marks_spaces:
            return spelling.replace("▁", " ").encode()
        if "WordPiece" in self._decoders:
            return (spelling[2:] if spelling.startswith("##") else " " + spelling).encode()
        return spelling.encode()

    def piece(self, id: int) -> str:
        """What entry `id` spells, with `�` for bytes that are no whole character."""
        return self.bytes_of(id).decode("utf-8", errors="replace")

    def label(self, id: int) -> str:
        """Entry `id` for the screen: whitespace and bytes made visible."""
        label = self._labels.get(id)
        if label is None:
            label = self._labels[id] = visible(self.bytes_of(id))
        return label

    def find(self, text: str) -> list[int]:
        """Entries whose label holds `text` (a space is as good as `·`), and the entry of that number, by id."""
        if self._all_labels is None:
            self._all_labels = [self.label(id) for id in range(self.vocabulary_size)]
        size = self.vocabulary_size if self.rows is None else min(self.rows, self.vocabulary_size)
        wanted = visible(utf8(text))
        found = [id for id, label in enumerate(self._all_labels[:size]) if wanted in label] if wanted else []
        if text.strip().isdecimal() and (id := int(text)) < size and id not in found:
            found.append(id)
        return sorted(found)

    @property
    def cuts(self) -> bool:
        """Whether it cuts texts at all; else it gives them whole."""
        return True

    @property
    def chats(self) -> bool:
        """Whether there is a chat template for conversations."""
        return self.chat_template is not None

    def encode_chat(self, text: str) -> list[Token]:
        """The tokens of `text` as a user's message in the model's chat template, ready for the answer.

        Raises:
            InputError: the model has no chat template, or it cannot be used.
        """
        return list(self.encode_conversation(Conversation.of(text)).tokens)

    def encode_conversation(self, conversation: Conversation) -> Rendered:
        """A conversation in the model's chat template, ready for the answer, and what each token comes from.

        Raises:
            InputError: the model has no chat template, or it cannot be used for these messages.
        """
        template = self.template_of(conversation)
        controls = self.control_tokens(template)
        layout = lay_out(template, conversation, self.special_tokens, controls)
        tokens = self._cut_layout(layout)
        return rendered(layout, tokens, twice_begun(tokens, self.special_tokens.get("bos_token")))

    def template_of(self, conversation: Conversation) -> str:
        """The template that a conversation goes into: the one it names, that for tools, or the default.

        Raises `InputError` where there is none.
        """
        templates = {**({} if self.chat_template is None else {"default": self.chat_template}), **self.other_templates}
        name = conversation.options.get(TEMPLATE)
        if name is None:
            name = "tool_use" if conversation.options.get("tools") and "tool_use" in templates else "default"
        if (template := templates.get(str(name))) is not None:
            return template
        if TEMPLATE in conversation.options:
            listed = ", ".join(templates) or _("none")
            raise InputError(
                _("this model has no chat template {name}; it has: {listed}", name=str(name)[:40], listed=listed)
            )
        if self.other_templates:
            raise InputError(
                _(
                    "this model's chat templates are for something else ({names}), none is called default; "
                    "leave --chat out",
                    names=", ".join(self.other_templates),
                )
            )
        raise InputError(_("this model has no chat template; leave --chat out, or choose an instruct model"))

    def template_variables(self, conversation: Conversation | None = None) -> tuple[Variable, ...]:
        """What the template of a conversation reads beside the messages. Raises `InputError`."""
        return variables(self.template_of(conversation or Conversation(())))

    def control_tokens(self, template: str) -> list[str]:
        """Names of tokens that are letters where a person types them: the special ones, and those a template writes."""
        literal = literal_text(template)
        return [
            name
            for id, name in self._added.items()
            if name and (id in self._special or (name in literal and not name.isspace()))
        ]

    def _cut_layout(self, layout: Layout) -> list[Token]:
        """The tokens of a layout, whose parts are cut each for itself where a control token was typed."""
        parts, whole = list(layout.parts), layout.text
        if len(parts) == 1:
            return self.encode(whole, template=False)
        ids: list[int] = []
        places: list[Place] = []
        start = 0
        cut: dict[tuple[str, bool, bool], list[tuple[int, int, int]]] = {}  # the same names come again and again
        for index, (text, letters) in enumerate(parts):
            key = (text, letters, index == 0)
            if key not in cut:
                backend = self._without_added() if letters else self.backend
                cut[key] = self._cut_part(backend, text, first=index == 0)
            found = cut[key]
            if letters and any(id in self._added and self._added[id] == text for id, _start, _end in found):
                raise InputError(_("“{text}” cannot be put as letters in this vocabulary; leave it out", text=text))
            ids += [id for id, _start, _end in found]
            places += [self._place(whole, id, start + begin, start + end, 0) for id, begin, end in found]
            start += len(text)
        self._check_rows(ids)
        return self._tokens(utf8(whole), ids, ends_of(whole, places))

    def _cut_part(self, backend: "tokenizers.Tokenizer", text: str, *, first: bool) -> list[tuple[int, int, int]]:
        """Ids and characters of a part; behind a line's end, as in transformers, so that no space is put before it."""
        utf8(text)
        if not first:
            before = self.backend.encode("\n", add_special_tokens=False).ids
            found = backend.encode("\n" + text, add_special_tokens=False)
            if found.ids[: len(before)] == before:
                behind = zip(found.ids[len(before) :], found.offsets[len(before) :])
                return [(id, max(0, start - 1), max(0, end - 1)) for id, (start, end) in behind]
        found = backend.encode(text, add_special_tokens=False)
        return [(id, start, end) for id, (start, end) in zip(found.ids, found.offsets)]

    def _without_added(self) -> "tokenizers.Tokenizer":
        """The same rules and vocabulary, without the tokens that are found in a text before it is cut."""
        import tokenizers

        if self._letters is None:
            self._letters = tokenizers.Tokenizer(self.backend.model)
            if self.backend.normalizer is not None:
                self._letters.normalizer = self.backend.normalizer
            if self.backend.pre_tokenizer is not None:
                self._letters.pre_tokenizer = self.backend.pre_tokenizer
        return self._letters

    def encode(self, text: str, *, template: bool = True) -> list[Token]:
        """Cut `text` into tokens whose spans tile its UTF-8 bytes without gap or overlap.

        Args:
            template: add the tokens that the tokenizer puts around a text, such as a beginning-of-text.

        Bytes that the vocabulary lacks altogether (some leave out control characters) give no token
        of their own; they belong to the span of a neighbour.

        Raises:
            TextError: `text` holds a lone surrogate, which no UTF-8 text can, or nothing but bytes
                that the vocabulary lacks.
        """
        data = utf8(text)
        encoding = self.backend.encode(text, add_special_tokens=template)
        if data and all(encoding.special_tokens_mask):
            raise _no_token(data)
        self._check_rows(encoding.ids)
        given = zip(encoding.ids, encoding.offsets, encoding.special_tokens_mask)
        ends = ends_of(text, [self._place(text, id, start, end, added) for id, (start, end), added in given])
        return self._tokens(data, encoding.ids, ends)

    def _place(self, text: str, id: int, start: int, end: int, added: int) -> Place:
        if added:
            return Place(start, end, b"", added=True)
        name = self._added.get(id, "").strip()
        return Place(start, end, self.bytes_of(id), whole=bool(name) and text[start:end].strip() == name)

    @property
    def beginning(self) -> tuple[int, ...]:
        """The ids that it puts before a text, such as a beginning-of-text."""
        encoding = self.backend.encode("a")
        return tuple(
            id for id, _added in takewhile(lambda one: one[1], zip(encoding.ids, encoding.special_tokens_mask))
        )

    def encode_ids(self, text: str) -> list[int]:
        """The ids of `text`, as `encode` gives them, without the spans."""
        utf8(text)
        ids: list[int] = self.backend.encode(text).ids
        self._check_rows(ids)
        return ids

    def encode_continuation(self, text: str) -> list[int]:
        """The ids that `text` becomes where it follows another: nothing is put before it, no space either.

        Raises:
            TextError: `text` holds a lone surrogate, a token that the model lacks, or nothing that gives a token.
        """
        data = utf8(text)
        if self._following is None:
            self._following = without_prefix_space(self.backend)
        # The other tokenizer may count its added tokens in another way.
        encoding = self._following.encode(text, add_special_tokens=False)
        ids = [id for token in encoding.tokens if (id := self.backend.token_to_id(token)) is not None]
        if not spells(ids, text, self.bytes_of):  # its beginning was changed in another way, or all of it is
            ids = list(behind_an_anchor(text, self._cut, self.bytes_of) or ids)
        if data and not ids:
            raise _no_token(data)
        self._check_rows(ids)
        return ids

    def _cut(self, text: str) -> list[int]:
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids

    def _check_rows(self, ids: Sequence[int]) -> None:
        """Raise `TextError` for ids that the network has no row for."""
        if self.rows is not None and ids and (highest := max(ids)) >= self.rows:
            raise TextError(
                _(
                    "the text holds “{token}”, token {id:,}, and this model knows none from {rows:,} on; leave it out",
                    token=self.label(highest),
                    id=highest,
                    rows=self.rows,
                )
            )

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, all of them at once. Raises `TextError`."""
        for text in texts:
            utf8(text)
        return [len(encoding.ids) for encoding in self.backend.encode_batch_fast(list(texts))]

    def _tokens(self, data: bytes, ids: Sequence[int], ends: Sequence[int]) -> list[Token]:
        decode = codecs.getincrementaldecoder("utf-8")().decode
        tokens = []
        start = 0
        for position, (id, end) in enumerate(zip(ids, ends)):
            text = decode(data[start:end])
            special = id in self._special
            piece = self.piece(id) if special or start == end else text
            label = visible(data[start:end]) or self.label(id)
            tokens.append(Token(position, id, piece, text, start, end, label, special))
            start = end
        return tokens

    def stream(self, position: int = 0) -> "TokenStream":
        """Turn generated ids into tokens one at a time; `position` is that of the first."""
        return TokenStream(self, position)


def _no_token(data: bytes) -> TextError:
    return TextError(
        _("the model's vocabulary has no token for “{data}”; type something else", data=visible(data[:40]))
    )


class TokenStream:
    """The growing text of one lane."""

    def __init__(self, tokenizer: Tokenizer, position: int) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._position = position
        self._end = 0
        self._owed = False  # a part of a character was there: its text may come with the next token
        self._pieces = ""  # the text with the names of special tokens
        self.text = ""

    def append(self, id: int, text: str | None = None) -> Token:
        """The token of `id`; `text` is its own, for a tokenizer that does not know what parts of characters spell."""
        special = self._tokenizer.is_special(id)
        data = b"" if special else self._tokenizer.bytes_of(id)
        if text is not None:
            part = "�" in data.decode("utf-8", "replace")
            if part or self._owed:
                data = text.encode()
            self._owed = part
        text = self._decoder.decode(data)
        piece = self._tokenizer.piece(id) if special else text
        label = self._tokenizer.label(id)
        token = Token(self._position, id, piece, text, self._end, self._end + len(data), label, special)
        self._position += 1
        self._end += len(data)
        self.text += text
        self._pieces += piece
        return token

    def just_wrote(self, wanted: str, token: Token) -> bool:
        """Whether `token`, the last one, completed the text or the special token `wanted`."""
        return wanted in self._pieces[-(len(wanted) + len(token.piece)) :]


def _decoder_types(backend: "tokenizers.Tokenizer") -> set[str]:
    if backend.decoder is None:
        return set()
    state: dict[str, Any] = json.loads(backend.decoder.__getstate__())
    return {part["type"] for part in state.get("decoders", [state])}
