"""The answer that a model wrote, as the next message of its conversation."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from engine.text.conversation import THINKING_FIELDS, Conversation, Message
from engine.text.rendering import Rendered
from engine.text.thinking import parted, thoughts
from engine.text.token import Token


def answered(
    conversation: Conversation,
    rendered: Rendered,
    written: Sequence[Token],
    template: str | None,
    eos_ids: Collection[int] = (),
) -> Conversation:
    """A conversation with what was written behind it: a message of the assistant's, or more of its last one.

    What the model thought is apart where the template reads it so; else it stays in the answer, as it was written.

    Args:
        rendered: the conversation as the model got it.
        template: that it went through; `None` where it is not known, and thinking is put apart.
        eos_ids: of tokens that end an answer, and are no part of it.
    """
    kept = list(written)
    while kept and kept[-1].id in eos_ids:
        kept.pop()
    text = "".join(token.piece for token in kept)
    before = conversation.messages
    message = Message("assistant", "", special=True)
    if conversation.continues:
        before, message = before[:-1], before[-1]
        text = message.content + text
    apart = template is None or _reads_thinking(template)
    if rendered.opened is not None and not apart:
        text = rendered.text[rendered.text.rfind(rendered.opened) :] + text
    opened = rendered.opened if apart else None
    if apart and any(True for _thought in thoughts(text, opened)):
        thought, text = parted(text, opened)
        whole = "\n\n".join(one for one in (message.thinking, thought) if one)
        message = replace(message, thinking=whole)
    return replace(conversation, messages=(*before, replace(message, content=text)), continues=False)


def _reads_thinking(template: str) -> bool:
    """Whether a template reads a message's thinking from a field."""
    names = "|".join(THINKING_FIELDS)
    return re.search(rf"\.(?:{names})\b|(['\"])(?:{names})\1", template) is not None
