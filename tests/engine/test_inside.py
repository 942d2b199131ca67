"""Looking inside our own networks and transformers' module, against the eager module's hidden states and attentions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.inside.attention import attention, attention_map
from engine.inside.lens import lens
from engine.inside.record import record
from engine.models.local import LocalModel
from engine.models.model import ModelFacts
from engine.networks.sources import open_source
from engine.text.tokenizer import Tokenizer
from tests.tiny_models import save_model

TEXT = "the sky above the city looked calm, but rain asked the robot library"
# Through our own networks where they cover it, else through transformers' module.
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("llama", {}),
    "gpt2": ("gpt2", {}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", {}),
    "gemma3": ("gemma3_text", {}),
    "gpt-neox": ("gpt_neox", {}),
    "gpt-neox in turn": ("gpt_neox", {"use_parallel_residual": False}),
    "olmo2": ("olmo2", {}),
    "mistral": ("mistral", {}),
    "granite": ("granite", {"residual_multiplier": 0.22, "logits_scaling": 8.0, "embedding_multiplier": 12.0}),
    "cohere": ("cohere", {}),
    "opt": ("opt", {}),
    "bloom": ("bloom", {}),
    "falcon": ("falcon", {}),
    "gptj": ("gptj", {}),
    "phi": ("phi", {}),
    "qwen2_moe": ("qwen2_moe", {}),
}
Folders = Callable[[str], Path]
Models = Callable[[str], LocalModel]
OWN = ("llama", "gpt2", "qwen3")


@dataclass(frozen=True)
class Eager:
    """What transformers' eager module gives for a text, float32.

    Attributes:
        rows: logits of each row of the lens, `[rows, positions, vocabulary]`.
        attentions: `[blocks, heads, positions, positions]`.
    """

    rows: Tensor
    attentions: Tensor


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    base = tmp_path_factory.mktemp("inside")

    @cache
    def folder(name: str) -> Path:
        kind, changes = FAMILIES.get(name, (name, {}))
        return save_model(base / name.replace(" ", "-"), kind, **changes)

    return folder


@pytest.fixture(scope="module")
def models(folders: Folders) -> Models:
    """Models as they are loaded, without the comparisons that loading makes the first time."""

    @cache
    def model(name: str) -> LocalModel:
        source = open_source(folders(name))
        network = source.own(torch.float32) if source.uncovered() is None else source.reference(torch.float32)
        tokenizer = Tokenizer.from_file(folders(name) / "tokenizer.json")
        return LocalModel(cast(ModelFacts, None), tokenizer, network)

    return model


@cache
def eager(folder: Path, ids: tuple[int, ...]) -> Eager:
    with torch.inference_mode():
        return _eager(folder, ids)


def _eager(folder: Path, ids: tuple[int, ...]) -> Eager:
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    output = reference(input_ids=torch.tensor([ids]), output_hidden_states=True, output_attentions=True)
    trunk = getattr(reference.base_model, "decoder", reference.base_model)
    norm = next(part for name in NORMS if (part := getattr(trunk, name, None)) is not None)
    states = [norm(one) for one in output.hidden_states[:-1]] + [output.hidden_states[-1]]
    rows = torch.cat([_head(reference, one) for one in states])
    torch.testing.assert_close(rows[-1], output.logits[0], atol=1e-5, rtol=1e-4)
    return Eager(rows, torch.cat(output.attentions))


NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


def _head(model: Any, state: Tensor) -> Tensor:
    logits = model.get_output_embeddings()(state)
    config = model.config
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits * getattr(config, "logit_scale", 1) / getattr(config, "logits_scaling", 1)


def ids_of(model: LocalModel, text: str = TEXT) -> tuple[int, ...]:
    return tuple(model.tokenizer.encode_ids(text))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_lens_is_that_of_the_eager_module(name: str, models: Models, folders: Folders) -> None:
    model = models(name)
    assert model.network.path.startswith("own" if name in OWN else "transformers")
    ids = ids_of(model)
    right = eager(folders(name), ids).rows.log_softmax(-1)
    found = lens(record(model, ids), top=3, tracked=[5, 7])
    assert sorted(found.rows) == list(range(len(right)))
    for row, expected in enumerate(right):
        for cell, logs in zip(found.rows[row].cells, expected, strict=True):
            top = logs.topk(3)
            assert [one.probability for one in cell.top] == pytest.approx(top.values.exp().tolist(), abs=1e-4)
            assert cell.entropy_bits == pytest.approx(_entropy(logs), abs=1e-3)
            for one, id in zip(cell.tracked, (5, 7), strict=True):
                assert one.id == id
                assert one.probability == pytest.approx(float(logs[id].exp()), abs=1e-4)
                assert abs(one.rank - int((logs > logs[id]).sum()) - 1) <= int((abs(logs - logs[id]) < 1e-3).sum())
    tops = right.argmax(-1).T.tolist()
    assert list(found.decided_at) == [_decided(column) for column in tops]


def _entropy(logs: Tensor) -> float:
    return float(torch.distributions.Categorical(logits=logs).entropy() / torch.log(torch.tensor(2.0)))


def _decided(tops: list[int]) -> int:
    row = len(tops) - 1
    while row and tops[row - 1] == tops[-1]:
        row -= 1
    return row


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_is_that_of_the_eager_module(name: str, models: Models, folders: Folders) -> None:
    kept, right = record(models(name), ids_of(models(name))), eager(folders(name), ids_of(models(name))).attentions
    for layer, weights in enumerate(right):
        for head, expected in enumerate(weights):
            found = attention(kept, -3, layer=layer, head=head).weights
            assert found == pytest.approx(expected[-3].tolist(), abs=1e-4)
        assert attention(kept, 4, layer=layer).weights == pytest.approx(weights[:, 4].mean(0).tolist(), abs=1e-4)
    assert attention(kept, 4).weights == pytest.approx(right[:, :, 4].mean((0, 1)).tolist(), abs=1e-4)
    assert attention(kept, 4, leave_first=True).weights[0] is None
    looks = attention_map(kept, 9)
    assert [len(heads) for heads in looks] == [len(weights) for weights in right]
    for weights, heads in zip(right[:, :, 9], looks, strict=True):
        assert [one.first for one in heads] == pytest.approx(weights[:, 0].tolist(), abs=1e-4)
        assert [one.previous for one in heads] == pytest.approx(weights[:, 8].tolist(), abs=1e-4)
        bits = torch.distributions.Categorical(probs=weights).entropy() / torch.log(torch.tensor(2.0))
        assert [one.entropy_bits for one in heads] == pytest.approx(bits.tolist(), abs=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_rollout_is_the_product_in_numpy(name: str, models: Models, folders: Folders) -> None:
    ids = ids_of(models(name))
    product = np.eye(len(ids))
    for weights in eager(folders(name), ids).attentions.double().numpy():
        mixed = weights.mean(0) + np.eye(len(ids))
        product = mixed / mixed.sum(-1, keepdims=True) @ product
    kept = record(models(name), ids)
    for at in (0, 5, len(ids) - 1):
        assert attention(kept, at, rollout=True).weights == pytest.approx(product[at].tolist(), abs=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_by_value_moves_is_computed_from_the_modules_weights(name: str, models: Models, folders: Folders) -> None:
    """Without its value, ‖α · v W_O‖ of every head is what the hooks on the module's own projection give."""
    kept = record(models(name), ids_of(models(name)))
    if name in VALUES_APART:
        with pytest.raises(InputError, match=r"what layer 0 weighs is not known|cannot"):
            attention(kept, 6, layer=0, head=0, by_value=True)
        return
    values, matrices = _values_and_matrices(folders(name), ids_of(models(name)))
    weights = eager(folders(name), ids_of(models(name))).attentions
    for layer, (value, matrix) in enumerate(zip(values, matrices, strict=True)):
        heads, size = weights.shape[1], value.shape[-1]
        for head in range(heads):
            moved = value[head // (heads // len(value))] @ matrix[head * size : (head + 1) * size]
            expected = (weights[layer, head, 6][:, None] * moved).norm(dim=-1)
            found = attention(kept, 6, layer=layer, head=head, by_value=True).weights
            assert found == pytest.approx(expected.tolist(), abs=1e-4, rel=1e-4)
