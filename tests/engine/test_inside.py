"""Looking inside our own networks and transformers' module, against the eager module's hidden states and attentions."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.inside.attention import attention, attention_map
from engine.inside.lens import lens
from engine.inside.record import record
from tests.engine.inside_families import FAMILIES, OWN, Folders, Models, ids_of


@dataclass(frozen=True)
class Eager:
    """What transformers' eager module gives for a text, float32.

    Attributes:
        rows: logits of each row of the lens, `[rows, positions, vocabulary]`.
        attentions: `[blocks, heads, positions, positions]`.
    """

    rows: Tensor
    attentions: Tensor


pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize("name", FAMILIES)
def test_the_lens_is_that_of_the_eager_module(name: str, model_of: Models, folder_of: Folders) -> None:
    model = model_of(name)
    assert model.network.path.startswith("own" if name in OWN else "transformers")
    ids = ids_of(model)
    right = eager(folder_of(name), ids).rows.log_softmax(-1)
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
def test_attention_is_that_of_the_eager_module(name: str, model_of: Models, folder_of: Folders) -> None:
    kept, right = (
        record(model_of(name), ids_of(model_of(name))),
        eager(folder_of(name), ids_of(model_of(name))).attentions,
    )
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
def test_rollout_is_the_product_in_numpy(name: str, model_of: Models, folder_of: Folders) -> None:
    ids = ids_of(model_of(name))
    product = np.eye(len(ids))
    for weights in eager(folder_of(name), ids).attentions.double().numpy():
        mixed = weights.mean(0) + np.eye(len(ids))
        product = mixed / mixed.sum(-1, keepdims=True) @ product
    kept = record(model_of(name), ids)
    for at in (0, 5, len(ids) - 1):
        assert attention(kept, at, rollout=True).weights == pytest.approx(product[at].tolist(), abs=1e-4)
