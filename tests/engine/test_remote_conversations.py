"""Conversations in front of servers: put into the template here or there, or sent as messages.

The servers are stand-ins on 127.0.0.1; `test_remote_real.py` asks the real ones.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import InputError
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Failed, Finished, Prompt, Start, Stepped
from engine.generation.loop import generate
from engine.loading import load_model
from engine.models.local import LocalModel
from engine.text.conversation import Conversation, Message
from engine.text.tokenizer import Tokenizer
from tests.model_server import TEMPLATE, ModelServer, chat, serve

pytest.importorskip("openai")
from engine.remote.connect import connect
from engine.remote.served import ServedModel

GREEDY = GenerationConfig(max_new_tokens=6, ignore_eos=True)
PLAIN = GenerationConfig(max_new_tokens=6)
TURNS = (
    Message("system", "the robot"),
    Message("user", "the sky above"),
    Message("assistant", " the city"),
    Message("user", "and rain"),
)
TALK = Conversation(TURNS)
BEGUN = Conversation((*TURNS, Message("assistant", "the library")), continues=True)


@pytest.fixture(scope="module")
def local(tiny_llama: Path) -> LocalModel:
    model = load_model(str(tiny_llama), precision="float32", threads=1)
    assert isinstance(model, LocalModel)
    return model


@contextmanager
def served(local: LocalModel, dialect: str, cache: Path, **settings: Any) -> Iterator[tuple[ModelServer, ServedModel]]:
    with serve(local, dialect) as server:
        for name, value in settings.items():
            setattr(server, name, value)
        with closing(connect(server.url, cache_dir=cache)) as model:
            yield server, model


def with_template(local: LocalModel) -> Tokenizer:
    return Tokenizer(local.tokenizer.backend, chat_template=TEMPLATE)


def steps_of(events: Iterator[Event]) -> list[Stepped]:
    found = []
    for event in events:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Stepped):
            found.append(event)
    return found


def ids(steps: list[Stepped]) -> list[int]:
    return [step.token.id for step in steps]


def texts(steps: list[Stepped]) -> str:
    return "".join(step.token.text for step in steps)


@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("conversation", [TALK, BEGUN])
def test_a_conversation_is_what_it_is_here(
    dialect: str, conversation: Conversation, local: LocalModel, tmp_path: Path
) -> None:
    """Whether the server puts it into its template or says what that is: ids, where they come from, and the answer."""
    own = with_template(local).encode_conversation(conversation)
    template = TEMPLATE if dialect == "llama.cpp" else None
    with served(local, dialect, tmp_path, template=template) as (server, model):
        start = Prompt("", conversation).start(model.tokenizer)
        found = model.tokenizer.encode_conversation(conversation)
        assert [token.id for token in found.tokens] == [token.id for token in own.tokens]
        assert (found.text, found.messages, found.remarks) == (own.text, own.messages, ())
        expected = generate(local.network, local.tokenizer, [Start(own.tokens)], [GREEDY])
        assert ids(steps_of(model.generate([start], [GREEDY]))) == ids(steps_of(expected))
        assert server.texts_asked_for[-1]["prompt"] == [token.id for token in own.tokens]


def test_typed_control_tokens_are_letters_where_the_server_says_its_template(local: LocalModel, tmp_path: Path) -> None:
    for special in (False, True):
        typed = Conversation((Message("user", "a <|end|> [x] <b>", special=special),))
        own = with_template(local).encode_conversation(typed)
        with served(local, "llama.cpp", tmp_path, template=TEMPLATE) as (_server, model):
            found = model.tokenizer.encode_conversation(typed)
        assert [token.id for token in found.tokens] == [token.id for token in own.tokens]
        assert any(token.special for token in found.tokens) == special
        assert found.remarks == own.remarks


def test_where_they_cannot_be_letters_that_is_said(local: LocalModel, tmp_path: Path) -> None:
    typed = Conversation((Message("user", "a <|end|> b"),))
    with served(local, "vllm", tmp_path) as (_server, model):
        remarks = model.tokenizer.encode_conversation(typed).remarks
    assert "“<|end|>”: taken for control tokens; this server cannot take them as letters" in remarks[0]


def test_the_variables_of_a_template_are_listed_where_it_is_known(local: LocalModel, tmp_path: Path) -> None:
    loud = replace(TALK, options={"loud": True})
    with served(local, "llama.cpp", tmp_path, template=TEMPLATE) as (_server, model):
        assert [one.name for one in model.tokenizer.template_variables()] == ["loud", "add_generation_prompt"]
        assert model.tokenizer.encode_conversation(loud).text.endswith("!assistant:")
        with pytest.raises(InputError, match="reads no variable quiet"):
            model.tokenizer.encode_conversation(replace(TALK, options={"quiet": True}))
    with served(local, "vllm", tmp_path) as (server, model):
        with pytest.raises(InputError, match="does not say what its template reads"):
            model.tokenizer.template_variables()
        model.tokenizer.encode_conversation(replace(loud, options={"loud": True, "tools": [{"type": "function"}]}))
        asked = server.asked[-1][1]
        assert (asked["chat_template_kwargs"], asked["tools"]) == ({"loud": True}, [{"type": "function"}])


def test_a_template_that_makes_something_else_here_is_left_to_the_server(local: LocalModel, tmp_path: Path) -> None:
    with served(local, "llama.cpp", tmp_path, template="chatml") as (_server, model):
        found = model.tokenizer.encode_conversation(TALK)
        assert found.text == chat(TALK.to_list())
        assert set(found.messages) == {None, 0, 1, 2, 3}
        with pytest.raises(InputError, match="does not go on with an answer"):
            model.tokenizer.encode_conversation(BEGUN)


@pytest.mark.parametrize("messages", ["beside", "alone"])
def test_messages_go_to_a_server_that_has_chat_completions(messages: str, local: LocalModel, tmp_path: Path) -> None:
    with served(local, "openai", tmp_path, messages=messages, chat_logprobs=True) as (server, model):
        start = Prompt("", replace(TALK, options={"loud": True})).start(model.tokenizer)
        steps = steps_of(model.generate([start], [PLAIN]))
        own = generate(
            local.network, local.tokenizer, [Start(tuple(local.tokenizer.encode(chat(TALK.to_list()))))], [PLAIN]
        )
        expected = steps_of(own)
        assert texts(steps) == texts(expected)
        for step, one in zip(steps, expected):
            assert step.raw_probability == pytest.approx(one.raw_probability, rel=1e-4)
            assert len(step.candidates) == 20
        asked = server.texts_asked_for[-1]
        assert (asked["messages"], asked["chat_template_kwargs"]) == (TALK.to_list(), {"loud": True})
        assert "the text and its tokens are not known here" in model.tokenizer.encode_conversation(TALK).remarks[0]
        assert model.capabilities.messages == (messages == "alone")


def test_a_prompt_is_one_users_message_where_there_is_nothing_else(local: LocalModel, tmp_path: Path) -> None:
    with served(local, "openai", tmp_path, messages="alone") as (server, model):
        assert "a prompt goes as one user's message" in model.capabilities.remarks[0]
        steps_of(model.generate(["the sky"], [PLAIN]))
        assert server.texts_asked_for[-1]["messages"] == [{"role": "user", "content": "the sky"}]
        prompt, written = [tuple(model.tokenizer.encode(text)) for text in ("the sky", "above")]
        with pytest.raises(InputError, match="cannot go on from its middle"):
            steps_of(model.generate([Start(prompt, (written[0].id,))], [PLAIN]))


def test_what_is_thought_stands_between_marks(local: LocalModel, tmp_path: Path) -> None:
    with served(local, "openai", tmp_path, messages="alone", thinks=2) as (_server, model):
        events = list(model.generate([Prompt("", TALK).start(model.tokenizer)], [PLAIN]))
        steps = steps_of(iter(events))
        own = steps_of(
            generate(
                local.network, local.tokenizer, [Start(tuple(local.tokenizer.encode(chat(TALK.to_list()))))], [PLAIN]
            )
        )
        words = [step.token.text for step in own]
        assert texts(steps) == "".join(["<think>\n", *words[:2], "\n</think>\n\n", *words[2:]])
        assert events[-1] == Finished(0, "length")


@pytest.mark.parametrize("prefills", [{}, {"add_generation_prompt": False, "continue_final_message": True}])
def test_an_answer_is_gone_on_with_where_the_server_does_that(
    prefills: dict[str, Any], local: LocalModel, tmp_path: Path
) -> None:
    with served(local, "openai", tmp_path, messages="beside", prefills=prefills) as (server, model):
        steps = steps_of(model.generate([Prompt("", BEGUN).start(model.tokenizer)], [PLAIN]))
        text = chat(BEGUN.to_list(), open_ended=True)
        own = generate(local.network, local.tokenizer, [Start(tuple(local.tokenizer.encode(text)))], [PLAIN])
        assert texts(steps) == texts(steps_of(own))
        assert {name: server.texts_asked_for[-1][name] for name in prefills} == prefills
    with (
        served(local, "openai", tmp_path, messages="beside") as (_server, model),
        pytest.raises(InputError, match="does not go on with an answer"),
    ):
        model.tokenizer.encode_conversation(BEGUN)


def test_a_server_without_any_template_says_so(local: LocalModel, tmp_path: Path) -> None:
    with served(local, "openai", tmp_path) as (_server, model), pytest.raises(InputError, match="no chat template"):
        model.tokenizer.encode_conversation(TALK)
