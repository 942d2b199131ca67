"""Surprisal, rank and perplexity against transformers' loss and log-softmax."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.base.errors import ContextError, InputError
from engine.generation.score import by_message, total
from engine.generation.scoring import score
from engine.loading import load_model
from engine.models.continuation import continuation
from engine.models.local import LocalModel
from engine.networks.sources import open_source
from engine.text.conversation import Conversation, Message
from tests.engine.chat_templates import CHATML

TEXT = "the sky above the city looked calm, but rain asked the robot library"


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LocalModel:
    return load_model(str(tiny_llama), precision="float32")


def test_the_perplexity_is_that_of_transformers_loss(model: LocalModel, tiny_llama: Path) -> None:
    reference = open_source(tiny_llama).reference(torch.float32)
    ids = torch.tensor([model.tokenizer.encode_ids(TEXT * 3)])
    loss = float(reference.model(input_ids=ids, labels=ids).loss)
    whole = total(score(model.network, model.tokenizer.encode(TEXT * 3)))
    assert whole.tokens == ids.shape[1] - 1
    assert whole.perplexity == pytest.approx(torch.tensor(loss).exp().item(), rel=1e-3)


def test_every_token_has_its_rank_and_entropy(model: LocalModel, tiny_llama: Path) -> None:
    reference = open_source(tiny_llama).reference(torch.float32)
    tokens = model.tokenizer.encode(TEXT)
    ids = torch.tensor([[token.id for token in tokens]])
    logits = reference.model(input_ids=ids).logits[0]
    scores = list(score(model.network, tokens))
    assert scores[0].probability is None
    assert [one.token for one in scores] == tokens
    for place, one in enumerate(scores[1:]):
        raw = logits[place].log_softmax(-1)
        own = raw[one.token.id]
        assert one.probability == pytest.approx(float(own.exp()), rel=1e-3, abs=1e-7)
        assert one.rank == int((raw > own).sum()) + 1
        entropy = torch.distributions.Categorical(logits=logits[place]).entropy() / torch.log(torch.tensor(2.0))
        assert one.entropy_bits == pytest.approx(float(entropy), abs=1e-3)


def test_the_answers_perplexity_is_that_of_transformers_loss_over_them_alone(
    model: LocalModel, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [Message(role, TEXT[start:]) for start, role in enumerate(("system", "user", "assistant", "user"))]
    turns.append(Message("assistant", "rain asked the robot"))
    conversation = Conversation(tuple(turns), {"add_generation_prompt": False})
    monkeypatch.setattr(model.tokenizer, "chat_template", CHATML)
    rendered = model.tokenizer.encode_conversation(conversation)
    found = by_message(list(score(model.network, rendered.tokens)), rendered.messages, conversation)
    reference = open_source(tiny_llama).reference(torch.float32)
    ids = torch.tensor([[token.id for token in rendered.tokens]])
    for wanted, ours in (((2, 4), found.answers), *(((one.message,), one.total) for one in found.messages)):
        labels = [id if own in wanted else -100 for id, own in zip(ids[0].tolist(), rendered.messages)]
        loss = reference.model(input_ids=ids, labels=torch.tensor([labels])).loss
        assert ours.perplexity == pytest.approx(float(loss.exp()), rel=1e-3)
        assert ours.tokens == sum(label != -100 for label in labels)
    assert [one.role for one in found.messages] == ["system", "user", "assistant", "user", "assistant"]
    parts = [found.template, *(one.total for one in found.messages)]
    assert sum(one.tokens for one in parts) == len(rendered.tokens) - 1


def test_what_cannot_be_scored_says_why(model: LocalModel) -> None:
    with pytest.raises(InputError, match="text is empty"):
        list(score(model.network, []))
    with pytest.raises(ContextError, match="context holds 512"):
        list(score(model.network, model.tokenizer.encode("sky " * 600)))


def test_one_token_alone_has_no_perplexity(model: LocalModel) -> None:
    whole = total(score(model.network, model.tokenizer.encode(TEXT)[:1]))
    assert (whole.tokens, whole.bits, whole.perplexity, whole.mean_bits) == (0, 0, None, None)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 280), min_size=1, max_size=6))
def test_a_continuation_is_as_likely_as_its_tokens_in_turn(model: LocalModel, ids: list[int]) -> None:
    context = model.tokenizer.encode_ids("the sky")
    whole = continuation(model, context, "…", ids)
    product = 1.0
    for place, likely in enumerate(whole.tokens):
        cache = model.network.cache(64, [0])
        raw = model.network.forward(torch.tensor([context + ids[:place]]), cache).logits()[0].softmax(-1)
        assert likely.probability == pytest.approx(float(raw[ids[place]]), rel=1e-3, abs=1e-9)
        product *= likely.probability
    assert whole.probability == pytest.approx(product, rel=1e-6)
