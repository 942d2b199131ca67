"""An answer becomes the next message; what was thought stands apart where the template reads it so."""

import pytest

from engine.text.answer import answered
from engine.text.conversation import Conversation, Message
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer
from tests.engine.chat_templates import CHATML, THINKING

ASKED = Conversation.of("Is rain wet?")


def written(tokenizer: Tokenizer, text: str) -> list[Token]:
    """A text as a model writes it, an end-of-text behind it."""
    stream = tokenizer.stream()
    end = next(id for id in tokenizer.eos_ids if tokenizer.piece(id) == "<|im_end|>")
    return [stream.append(id) for id in [*tokenizer.encode_continuation(text), end]]


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        (CHATML, " Yes.\n", Message("assistant", " Yes.\n", special=True)),
        (THINKING, "Water.\n</think>\n\nYes.", Message("assistant", "Yes.", special=True, thinking="Water.")),
        (
            CHATML + "{{ '<think>\n' }}",
            "It is water.\n</think>\n\nYes.",
            Message("assistant", "<think>\nIt is water.\n</think>\n\nYes.", special=True),
        ),
        (THINKING, "It is", Message("assistant", "", special=True, thinking="It is")),
    ],
)
def test_an_answer_is_a_message(template: str, text: str, expected: Message, tokenizer: Tokenizer) -> None:
    own = Tokenizer(tokenizer.backend, eos_ids=tokenizer.eos_ids, chat_template=template)
    rendered = own.encode_conversation(ASKED)
    found = answered(ASKED, rendered.text, written(own, text), template, own.eos_ids)
    assert found.messages == (*ASKED.messages, expected)


def test_a_continued_answer_is_one_message(tokenizer: Tokenizer) -> None:
    begun = Conversation((*ASKED.messages, Message("assistant", "Yes, ")), continues=True)
    own = Tokenizer(tokenizer.backend, eos_ids=tokenizer.eos_ids, chat_template=CHATML)
    found = answered(begun, own.encode_conversation(begun).text, written(own, "because"), CHATML, own.eos_ids)
    assert found == Conversation((*ASKED.messages, Message("assistant", "Yes, because")))


def test_what_is_adopted_is_what_was_written(tokenizer: Tokenizer) -> None:
    own = Tokenizer(tokenizer.backend, eos_ids=tokenizer.eos_ids, chat_template=CHATML)
    tokens = written(own, "It is.")
    first = own.encode_conversation(ASKED)
    after = own.encode_conversation(answered(ASKED, first.text, tokens, CHATML, own.eos_ids))
    ids = [token.id for token in (*first.tokens, *tokens)]
    assert [token.id for token in after.tokens[: len(ids)]] == ids
