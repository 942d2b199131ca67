"""What blocks and heads add, against hooks that name each architecture's own modules."""

from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.base.errors import InputError
from engine.inside.attention import attention
from engine.inside.attribution import attribution, first_and_second
from engine.inside.record import record
from tests.engine.inside_families import Folders, Models, ids_of


@dataclass(frozen=True)
class Names:
    """What an architecture calls its parts.

    Attributes:
        attention, mlp: the modules of a block whose outputs are added to the stream.
        projection: after attention.
        values: the linear layer that gives values, and how they lie in what it gives.
        norm: between the projection and the stream.
    """

    blocks: str
    attention: str
    mlp: str
    projection: str
    values: str
    lies: str = "alone"
    norm: str = ""
    factor: float = 1.0
    final: str = "model.norm"


def _like_llama(**changes: Any) -> Names:
    usual = {"blocks": "model.layers", "attention": "self_attn", "mlp": "mlp"}
    usual |= {"projection": "self_attn.o_proj", "values": "self_attn.v_proj"}
    return Names(**(usual | changes))


POST = {
    "attention": "post_attention_layernorm",
    "mlp": "post_feedforward_layernorm",
    "norm": "post_attention_layernorm",
}
NAMES = {
    "llama": _like_llama(),
    "gpt2": Names("transformer.h", "attn", "mlp", "attn.c_proj", "attn.c_attn", "thirds", final="transformer.ln_f"),
    "qwen3": _like_llama(),
    "gemma2": _like_llama(**POST),
    "gemma3": _like_llama(**POST),
    "gpt-neox": Names(
        "gpt_neox.layers", "attention", "mlp", "attention.dense", "attention.query_key_value", "by head",
        final="gpt_neox.final_layer_norm",
    ),
    "gpt-neox in turn": Names(
        "gpt_neox.layers", "attention", "mlp", "attention.dense", "attention.query_key_value", "by head",
        final="gpt_neox.final_layer_norm",
    ),
    "olmo2": _like_llama(**POST),
    "mistral": _like_llama(),
    "granite": _like_llama(factor=0.22),
    "cohere": _like_llama(),
    "opt": Names(
        "model.decoder.layers", "self_attn", "fc2", "self_attn.out_proj", "self_attn.v_proj",
        final="model.decoder.final_layer_norm",
    ),
    "falcon": Names(
        "transformer.h", "self_attention", "mlp", "self_attention.dense", "self_attention.query_key_value", "last",
        final="transformer.ln_f",
    ),
    "bloom": Names(  # whose parts are handed the stream and give it back with what they add
        "transformer.h", "self_attention.dense", "mlp.dense_4h_to_h", "self_attention.dense",
        "self_attention.query_key_value", "by head", final="transformer.ln_f",
    ),
    "gptj": Names("transformer.h", "attn", "mlp", "attn.out_proj", "attn.v_proj", final="transformer.ln_f"),
    "phi": Names(
        "model.layers", "self_attn", "mlp", "self_attn.dense", "self_attn.v_proj", final="model.final_layernorm"
    ),
    "qwen2_moe": _like_llama(),
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Hooked:
    """What hooks on the named modules gave for a text.

    Attributes:
        model: transformers'.
        stream: the first block's input, then what each block left.
        attention, mlp, heads, values: by block.
    """

    model: Any
    stream: list[Tensor]
    attention: list[Tensor]
    mlp: list[Tensor]
    heads: list[Tensor]
    values: list[Tensor]
    weights: list[Tensor]


@cache
def hooked(folder: Path, name: str, ids: tuple[int, ...]) -> Hooked:
    names = NAMES[name]
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    found = Hooked(model, [], [], [], [], [], [])
    blocks = attrgetter(names.blocks)(model)
    first = lambda value: (value[0] if isinstance(value, tuple) else value).reshape(len(ids), -1).clone()  # noqa: E731

    def keep(kept: list[Tensor]) -> Any:
        return lambda module, args, output: kept.append(first(output))

    def before(kept: list[Tensor]) -> Any:
        return lambda module, args, kwargs: kept.append(first(args[0] if args else kwargs["hidden_states"]))

    blocks[0].register_forward_pre_hook(before(found.stream), with_kwargs=True)
    for block in blocks:
        block.register_forward_hook(keep(found.stream))
        attrgetter(names.attention)(block).register_forward_hook(keep(found.attention))
        attrgetter(names.mlp)(block).register_forward_hook(keep(found.mlp))
        attrgetter(names.projection)(block).register_forward_pre_hook(before(found.heads), with_kwargs=True)
        attrgetter(names.values)(block).register_forward_hook(keep(found.values))
    with torch.inference_mode():
        output = model(input_ids=torch.tensor([ids]), output_attentions=True)
    found.weights.extend(one[0] for one in output.attentions)
    for some in (found.attention, found.mlp):
        some[:] = [one * names.factor for one in some]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_blocks_add_is_what_hooks_on_their_modules_give(name: str, model_of: Models, folder_of: Folders) -> None:
    kept, right = record(model_of(name), ids_of(model_of(name))), hooked(folder_of(name), name, ids_of(model_of(name)))
    assert kept.attention is not None
    assert kept.mlp is not None
    torch.testing.assert_close(kept.stream, torch.stack(right.stream), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(kept.attention, torch.stack(right.attention), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(kept.mlp, torch.stack(right.mlp), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(kept.stream[:-1] + kept.attention + kept.mlp, kept.stream[1:], atol=1e-4, rtol=1e-4)


def _norm(module: Any, x: Tensor, part: Tensor) -> Tensor:
    """`γ ⊙ (part / s)` by a norm's definition, `s` of the vector `x`."""
    gain = module.weight + 1 if type(module).__name__.startswith("Gemma") else module.weight
    if "RMS" in type(module).__name__:
        epsilon = getattr(module, "variance_epsilon", None) or module.eps
        return gain * part / (x.square().mean() + epsilon).sqrt()
    epsilon = getattr(module, "variance_epsilon", None) or module.eps
    return gain * (part - part.mean(-1, keepdim=True)) / (x.var(correction=0) + epsilon).sqrt()


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_shares_are_those_of_the_definition_and_add_up(name: str, model_of: Models, folder_of: Folders) -> None:
    names, ids = NAMES[name], ids_of(model_of(name))
    kept, right = record(model_of(name), ids), hooked(folder_of(name), name, ids)
    a, b = first_and_second(kept, 7)
    found = attribution(kept, 7, a, b, layer=1)
    final, head = attrgetter(names.final)(right.model), right.model.get_output_embeddings()
    config = right.model.config
    factor = getattr(config, "logit_scale", 1) / getattr(config, "logits_scaling", 1)
    direction = (head.weight[a] - head.weight[b]) * factor
    x = right.stream[-1][7]

    def share(part: Tensor) -> float:
        return float(_norm(final, x, part) @ direction)

    expected = {"embedding": share(right.stream[0][7])}
    for layer, (added, mlp) in enumerate(zip(right.attention, right.mlp, strict=True)):
        if layer != 1:
            expected[f"attention {layer}"] = share(added[7])
        expected[f"mlp {layer}"] = share(mlp[7])
    shares = {part.name: part.share for part in found.parts}
    assert {key: shares[key] for key in expected} == pytest.approx(expected, abs=1e-4)
    logits = head(final(x)) * factor
    assert found.a.value == pytest.approx(float(logits[a]), abs=1e-4)
    assert found.difference == pytest.approx(float(logits[a] - logits[b]), abs=1e-4)
    assert abs(found.remainder) < 1e-3
    assert found.remainder == pytest.approx(found.difference - sum(shares.values()), abs=1e-9)
    # The heads of layer 1, through whatever stands between them and the stream.
    block = attrgetter(names.blocks)(right.model)[1]
    matrix, bias = _matrix(attrgetter(names.projection)(block))
    z, heads = right.heads[1][7], len(right.weights[1])
    size = len(z) // heads
    for index in range(heads):
        part = z[index * size : (index + 1) * size] @ matrix[index * size : (index + 1) * size]
        if names.norm:
            part = _norm(attrgetter(names.norm)(block), z @ matrix + bias, part)
        assert shares[f"head 1.{index}"] == pytest.approx(share(part * names.factor), abs=1e-4)
    whole = attribution(kept, 7, a, b)
    assert whole.remainder == pytest.approx(found.remainder, abs=1e-4)


def _matrix(projection: Any) -> tuple[Tensor, Tensor]:
    """Weights `[in, hidden]` and bias of a projection; GPT-2 keeps them so already."""
    weight = projection.weight if type(projection).__name__ == "Conv1D" else projection.weight.T
    bias = projection.bias if projection.bias is not None else torch.zeros(weight.shape[1])
    return weight, bias


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_by_value_is_what_the_weighed_values_move(name: str, model_of: Models, folder_of: Folders) -> None:
    names, ids = NAMES[name], ids_of(model_of(name))
    kept, right = record(model_of(name), ids), hooked(folder_of(name), name, ids)
    for layer, weights in enumerate(right.weights):
        heads = len(weights)
        matrix, _bias = _matrix(attrgetter(names.projection)(attrgetter(names.blocks)(right.model)[layer]))
        size = len(matrix) // heads
        value = right.values[layer]
        if names.lies == "thirds":
            value = value.chunk(3, -1)[2]
        if names.lies == "last":
            value = value[..., -size:]
        if names.lies == "by head":
            value = value.unflatten(-1, (heads, 3 * size))[..., 2 * size :].flatten(-2)
        value = value.unflatten(-1, (-1, size))  # [positions, key heads, head_size]
        group = heads // value.shape[1]
        for head in range(heads):
            moved = value[:, head // group] @ matrix[head * size : (head + 1) * size]
            expected = (weights[head, 6][:, None] * moved).norm(dim=-1)
            found = attention(kept, 6, layer=layer, head=head, by_value=True).weights
            assert found == pytest.approx(expected.tolist(), abs=1e-4, rel=1e-3)


def test_what_goes_through_a_gate_as_well_is_not_weighed_alone(model_of: Models) -> None:
    model = model_of("qwen3_next")
    kept = record(model, ids_of(model))
    assert attention(kept, 6, layer=3, head=0).weights
    with pytest.raises(InputError, match=r"what layer 3 weighs is not known"):
        attention(kept, 6, layer=3, head=0, by_value=True)
