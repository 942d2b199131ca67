"""A lesson's questions about the inside of the model, against transformers' module, and where there is no answer."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.base.errors import InputError
from engine.base.plain import percent
from engine.lessons.lesson import Answer, Live, Question
from engine.lessons.questions import answer
from engine.loading import load_model
from engine.models.local import LocalModel
from tests.tiny_models import save_model

TEXT = "the sky above the city looked calm, but rain"
WORDS = (" sky", " above", " city looked", ", but")
PARTS = ("1", "2", "3")


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LocalModel:
    return load_model(str(tiny_llama), precision="float32", threads=1)


def asked(model: LocalModel, question: Question, live: Live | None = None) -> Answer:
    (found,) = answer(model, question, live)
    return found


class Eager:
    """What transformers' module does with the text: `states` `[rows, positions, hidden]` and `added`, by part."""

    def __init__(self, folder: Path, ids: list[int]) -> None:
        self.module = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
        self.added: list[tuple[str, int, Tensor]] = []
        for number, layer in enumerate(self.module.model.layers):
            for kind, part in (("attention", layer.self_attn), ("feed-forward", layer.mlp)):
                part.register_forward_hook(self._keep(kind, number))
        with torch.inference_mode():
            output = self.module(torch.tensor([ids]), output_hidden_states=True, output_attentions=True)
        self.embedding = output.hidden_states[0][0]
        self.attentions = torch.stack(output.attentions)[:, 0]  # [layers, heads, positions, positions]
        self.logits = output.logits[0]
        norm, head = self.module.model.norm, self.module.lm_head
        with torch.inference_mode():
            early = [head(norm(state))[0] for state in output.hidden_states[:-1]]
        self.tops = torch.stack([*early, self.logits]).argmax(-1)  # [rows, positions]

    def _keep(self, kind: str, layer: int):
        def keep(_module: object, _inputs: object, output: object) -> None:
            value = output[0] if isinstance(output, tuple) else output
            self.added.append((f"{kind} of layer {layer}", layer, value.reshape(-1, value.shape[-1])))

        return keep

    @torch.inference_mode()
    def shares(self, at: int) -> dict[str, float]:
        """Of every part, by its name, in the best logit over the second."""
        a, b = self.logits[at].topk(2).indices
        parts = {name: value[at] for name, _layer, value in self.added}
        parts["embedding"] = self.embedding[at]
        stream = torch.stack(list(parts.values())).sum(0)
        scale = (stream.square().mean() + self.module.config.rms_norm_eps).sqrt()
        direction = self.module.model.norm.weight * (self.module.lm_head.weight[a] - self.module.lm_head.weight[b])
        return {name: float(value / scale @ direction) for name, value in parts.items()}


@pytest.fixture(scope="module")
def eager(tiny_llama: Path, model: LocalModel) -> Eager:
    return Eager(tiny_llama, model.tokenizer.encode_ids(TEXT))


def test_decided_is_the_lowest_row_from_which_the_top_token_stays(model: LocalModel, eager: Eager) -> None:
    rows = len(eager.tops)
    choices = tuple(map(str, range(rows)))  # as many parts as rows
    found = set()
    for at in range(eager.tops.shape[1]):
        tops = eager.tops[:, at].tolist()
        right = next(row for row in range(rows) if set(tops[row:]) == {tops[-1]})
        said = asked(model, Question("decided", "?", choices, of=TEXT, at=at))
        assert said.right == right
        assert f"“{model.tokenizer.label(tops[-1])}” stays on top from row {right} on" in said.said[0]
        found.add(right)
    assert len(found) > 1  # or it would be no test


def test_choices_divide_the_layers_into_equal_parts(model: LocalModel, eager: Eager) -> None:
    each = tuple(map(str, range(len(eager.tops))))
    for at in range(eager.tops.shape[1]):
        row = asked(model, Question("decided", "?", each, of=TEXT, at=at)).right
        assert row is not None
        halves = asked(model, Question("decided", "?", ("low", "high"), of=TEXT, at=at))
        assert halves.right == (0, 0, 1)[row]


def test_looks_at_is_the_mean_of_all_heads(model: LocalModel, eager: Eager) -> None:
    tokens = model.tokenizer.encode(TEXT)
    spans = [(TEXT.index(word) + 1, TEXT.index(word) + len(word)) for word in WORDS]
    spans[-1] = (TEXT.index(", but"), TEXT.index(", but") + 5)
    for at in (-1, -3):
        weights = eager.attentions.mean((0, 1))[at].tolist()
        right = [
            sum(weights[token.position] for token in tokens if token.start < end and start < token.end)
            for start, end in spans
        ]
        found = asked(model, Question("looks_at", "?", WORDS, of=TEXT, at=at))
        assert found.right == right.index(max(right))
        for line, weight in zip(found.said, right):
            assert percent(weight) in line
        assert tokens[at].label in found.said[-2]
        assert percent(weights[0]) in found.said[-1]


def test_of_a_word_in_several_tokens_all_weights_count(model: LocalModel) -> None:
    found = asked(model, Question("looks_at", "?", ("zzz", " sky"), of="the zzz sky above"))
    assert "3 tokens" in found.said[0]
    assert "tokens" not in found.said[1]


def test_wrote_is_the_kind_of_the_part_with_the_largest_share(model: LocalModel, eager: Eager) -> None:
    kinds = ("embedding", "attention", "feed-forward")
    right = set()
    for at in range(len(eager.logits)):
        shares = eager.shares(at)
        most = max(shares, key=lambda name: shares[name])
        found = asked(model, Question("wrote", "?", kinds, of=TEXT, at=at))
        assert found.right is not None
        assert most.startswith(kinds[found.right])
        name, share = found.said[1].rsplit(" ", 1)
        assert name == most
        assert float(share) == pytest.approx(shares[most], abs=0.006)
        right.add(found.right)
    assert len(right) > 1


def test_a_question_is_about_the_position_of_the_live_part(model: LocalModel) -> None:
    live = Live(prompt=TEXT, view="inside", look="lens", at=1)
    question = Question("decided", "?", PARTS)
    assert asked(model, question, live) == asked(model, Question("decided", "?", PARTS, of=TEXT, at=1))
    elsewhere = Live(prompt=TEXT, look="lane-a", at=1)  # a token of the lane, none of the prompt
    assert asked(model, question, elsewhere) == asked(model, Question("decided", "?", PARTS, of=TEXT, at=-1))
    with pytest.raises(InputError, match="no position 99"):
        asked(model, Question("decided", "?", PARTS, of=TEXT, at=99))


def test_a_word_that_begins_in_the_first_token_is_refused(model: LocalModel) -> None:
    assert model.tokenizer.encode("the sky")[0].label == "the"
    with pytest.raises(InputError, match="“he” is in the first token"):
        asked(model, Question("looks_at", "?", ("he", " sky"), of="the sky above"))


def test_an_architecture_without_attention_says_so_and_answers_the_rest(tmp_path: Path) -> None:
    mamba = load_model(str(save_model(tmp_path / "mamba", "mamba")), precision="float32", threads=1)
    assert asked(mamba, Question("decided", "?", PARTS, of=TEXT)).right is not None
    for question in (
        Question("looks_at", "?", WORDS, of=TEXT),
        Question("wrote", "?", ("embedding", "attention", "feed-forward"), of=TEXT),
    ):
        with pytest.raises(InputError) as raised:
            asked(mamba, question)
        assert "\n" not in str(raised.value)
        assert str(raised.value)


@pytest.mark.parametrize("ask", ["decided", "looks_at", "wrote"])
def test_a_question_about_the_inside_is_given_up(model: LocalModel, ask) -> None:
    choices = WORDS[:3]
    assert list(answer(model, Question(ask, "?", choices, of=TEXT), None, lambda: False)) == []
