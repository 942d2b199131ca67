"""The answer that a model wrote, as the next message of its conversation."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from engine.text.conversation import THINKING_FIELDS, Conversation, Message
from engine.text.thinking import open_mark, parted, thoughts
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer


def answered(
    conversation: Conversation,
    prompt: str,
    written: Sequence[Token],
    template: str | None,
    eos_ids: Collection[int] = (),
) -> Conversation:
    """A conversation with what was written behind it: a message of the assistant's, or more of its last one.

    What the model thought is apart where the template reads it so; else it stays in the answer, as it was written.
    Control tokens in it are those tokens, as the model wrote them.

    Args:
        prompt: the text that the model got.
        template: that the conversation went through; `None` where it is not known, and thinking is put apart.
        eos_ids: of tokens that end an answer, and are no part of it.
    """
    kept = list(written)
    while kept and kept[-1].id in eos_ids:
        kept.pop()
    text = "".join(token.piece for token in kept)
    before, message, opened = conversation.messages, Message("assistant", "", special=True), open_mark(prompt)
    if conversation.continues:
        before, message, opened = before[:-1], before[-1], None
        message = replace(message, special=message.special or any(token.special for token in kept))
        text = message.content + text
    if template is not None and not _reads_thinking(template):
        if opened is not None:
            text = prompt[prompt.rfind(opened) :] + text
    elif any(True for _thought in thoughts(text, opened)):
        thought, text = parted(text, opened)
        message = replace(message, thinking="\n\n".join(one for one in (message.thinking, thought) if one))
    return replace(conversation, messages=(*before, replace(message, content=text)), continues=False)


def known_template(tokenizer: Tokenizer, conversation: Conversation) -> str | None:
    """The template that a conversation goes through; `None` where a server keeps it to itself."""
    return None if tokenizer.remote and tokenizer.chat_template is None else tokenizer.template_of(conversation)


def _reads_thinking(template: str) -> bool:
    """Whether a template reads a message's thinking from a field."""
    names = "|".join(THINKING_FIELDS)
    return re.search(rf"\.(?:{names})\b|(['\"])(?:{names})\1", template) is not None
