"""Our own networks against transformers' modules."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.loading import load_model
from engine.networks import gpt2, kernels, llama_config
from engine.networks.pretrained import read_json
from engine.networks.sources import open_source
from tests.conftest import byte_level_tokenizer, save_tiny

LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
NEAR = {"rope_type": "default", "rope_theta": 10_000.0}
FAR = {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0}
SCALED = {"head_dim": 24, "query_pre_attn_scalar": 9, "sliding_window": 5, "final_logit_softcapping": 20.0}
SLIDING = {"use_sliding_window": True, "sliding_window": 5}
PARTLY = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
# By name: transformers' kind, and what is not as in `save_tiny`. Windows are shorter than the texts.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-own-head": ("llama", {"tie_word_embeddings": False}),
    "llama3-rope": ("llama", {"rope_parameters": LLAMA_3}),
    "linear-rope": ("llama", {"rope_parameters": LINEAR}),
    "wide-heads": ("llama", {"head_dim": 24}),
    "qwen2": ("qwen2", {}),
    "qwen2-window": ("qwen2", SLIDING | {"max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3-window": ("qwen3", SLIDING | {"layer_types": ["full_attention", "sliding_attention"]}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": 5}),
    "gemma": ("gemma", {"head_dim": 24}),
    "gemma2": ("gemma2", SCALED | {"attn_logit_softcapping": 3.0}),
    "gemma3": ("gemma3_text", SCALED | {"num_hidden_layers": 7}),
    "gemma3-far": (
        "gemma3_text",
        SCALED
        | {"rope_parameters": {"sliding_attention": NEAR, "full_attention": FAR}}
        | {"layer_types": ["full_attention", "sliding_attention"]},
    ),
    "phi3": ("phi3", {"sliding_window": 5, "pad_token_id": 0, "tie_word_embeddings": True}),
    "phi3-part": ("phi3", {"rope_parameters": PARTLY, "pad_token_id": 0}),
    "gpt2": ("gpt2", {}),
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, changes = FAMILIES[request.param]
    return with_uneven_norms(save_tiny(tmp_path_factory.mktemp(request.param), kind, **changes))


def with_uneven_norms(folder: Path) -> Path:
    """Norms of random models begin with ones, which would hide where they are left out."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    for name in weights:
        if name.endswith("norm.weight"):
            weights[name] += 0.2 * torch.randn(weights[name].shape, generator=generator)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_logits_equal_transformers(folder: Path) -> None:
    model = load_model(str(folder), precision="float32")
    assert model.facts.path.startswith("own")
    reference = open_source(folder).reference(torch.float32)
    ids = torch.randint(1, 300, (2, 11), generator=torch.Generator().manual_seed(0))
    mine = model.network.forward(ids, model.network.cache(20, [0, 0]), all_logits=True)
    theirs = reference.forward(ids, reference.cache(20, [0, 0]), all_logits=True)
    torch.testing.assert_close(mine.all_logits(), theirs.all_logits(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mine.hidden, theirs.hidden, atol=1e-4, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_any_split_of_a_prompt_gives_the_same_logits(tiny_gpt2: Path, tiny_llama: Path, cuts: list[int]) -> None:
    for folder in (tiny_gpt2, tiny_llama):
        network = NETWORKS.setdefault(folder, load_model(str(folder), precision="float32").network)
        ids = torch.randint(1, 300, (1, sum(cuts)), generator=torch.Generator().manual_seed(sum(cuts)))
        whole = network.forward(ids, network.cache(60, [0]), all_logits=True).all_logits()
        cache = network.cache(60, [0])
        parts = [network.forward(part, cache, all_logits=True).all_logits() for part in ids.split(cuts, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)


NETWORKS: dict[Path, object] = {}


def test_padding_siblings_and_truncation(folder: Path) -> None:
    network = load_model(str(folder), precision="float32").network
    prompt = torch.tensor([[5, 9, 7, 3]])
    alone = network.cache(20, [0])
    expected = network.forward(prompt, alone).logits()

    padded = network.cache(20, [0, 3])
    rows = torch.tensor([[8, 2, 6, 5, 9, 7, 3], [0, 0, 0, 5, 9, 7, 3]])
    both = network.forward(rows, padded).logits()
    torch.testing.assert_close(both[1:], expected, atol=1e-4, rtol=1e-4)
    lane = padded.gather([1])
    assert lane.padding == (3,)

    siblings = torch.tensor([[11, 12, 13]])
    output = network.forward(siblings, lane, siblings=True)
    for index, id in enumerate((11, 12, 13)):
        fresh = alone.gather([0])
        after = network.forward(torch.tensor([[id]]), fresh)
        torch.testing.assert_close(output.logits([index]), after.logits(), atol=1e-4, rtol=1e-4)
    lane.choose([1])
    alone_then = alone.gather([0])
    network.forward(torch.tensor([[12]]), alone_then)
    more = torch.tensor([[4]])
    torch.testing.assert_close(
        network.forward(more, lane).logits(), network.forward(more, alone_then).logits(), atol=1e-4, rtol=1e-4
    )
    alone_then.truncate(4)
    torch.testing.assert_close(
        network.forward(torch.tensor([[11]]), alone_then).logits(), output.logits([0]), atol=1e-4, rtol=1e-4
    )


def test_the_embedded_models_logits_equal_transformers(embedded: object) -> None:
    from engine.models import catalog

    reference = open_source(catalog.embedded_path()).reference(torch.float32)
    ids = torch.tensor([embedded.tokenizer.encode_ids("The sky above the city looked calm, but")])  # type: ignore[attr-defined]
    network = embedded.network  # type: ignore[attr-defined]
    mine = network.forward(ids, network.cache(20, [0]), all_logits=True).all_logits()
    theirs = reference.forward(ids, reference.cache(20, [0]), all_logits=True).all_logits()
    torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("precision", "length"), [("native", 23), ("bfloat16", 8), pytest.param("bfloat16", 23, marks=pytest.mark.long)]
)
def test_low_precision_stays_close_to_float32(embedded: object, precision: str, length: int) -> None:
    """Mean KL divergence to float32 over a fixed text, in nats."""
    text = "The library was quiet. Rain fell on the roof, and the old robot counted every drop until morning came."
    ids = torch.tensor([embedded.tokenizer.encode_ids(text)[:length]])  # type: ignore[attr-defined]
    low = load_model("smollm2-135m", precision=precision)
    exact = _step_by_step(embedded.network, ids).log_softmax(-1)  # type: ignore[attr-defined]
    rounded = _step_by_step(low.network, ids).log_softmax(-1)
    divergence = (exact.exp() * (exact - rounded)).sum(-1).mean()
    assert 0 <= float(divergence) < 0.005


def _step_by_step(network: object, ids: torch.Tensor) -> torch.Tensor:
    """Logits as decoding computes them, one position at a time: that is where low-bit products run."""
    cache = network.cache(ids.shape[1], [0])  # type: ignore[attr-defined]
    return torch.cat([network.forward(ids[:, i : i + 1], cache).logits() for i in range(ids.shape[1])])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "vaultgemma"}, "architecture vaultgemma"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "activation gelu"),
        ({"model_type": "gemma3_text", "hidden_activation": "silu"}, "activation silu"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "attention to what follows"),
        (
            {"model_type": "qwen3", "use_sliding_window": True, "num_hidden_layers": 1, "layer_types": ["new"]},
            "layers of type new",
        ),
        ({"model_type": "gemma3", "text_config": {"rope_scaling": {"rope_type": "yarn"}}}, "type yarn"),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "yarn"}}, "type yarn"),
        ({"model_type": "llama", "quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_what_the_llama_network_does_not_compute_exactly_is_named(config: dict[str, object], reason: str) -> None:
    assert reason in (llama_config.uncovered(config) or "")


def test_what_the_gpt2_network_does_not_compute_exactly_is_named() -> None:
    assert gpt2.uncovered({"model_type": "gpt2", "activation_function": "relu"}) == "activation relu"
    assert gpt2.uncovered({"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}) is not None
    assert gpt2.uncovered({"model_type": "llama"}) == "architecture llama"


def test_other_architectures_run_through_transformers(tmp_path: Path) -> None:
    folder = save_tiny(
        tmp_path,
        "gpt_neox",
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25},
    )
    model = load_model(str(folder), precision="float32")
    assert model.facts.path == "transformers"
    assert model.network.forward(torch.tensor([[1, 2]]), model.network.cache(9, [0])).logits().shape == (
        1,
        model.facts.vocabulary_size,
    )


def test_packed_products_equal_plain_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 96, generator=generator)
    bias = torch.randn(64, generator=generator)
    for rows in (1, 2, 3, 5, 40):
        x = torch.randn(rows, 96, generator=generator)
        expected = x @ weight.T + bias
        for roomy in (True, False):
            product = kernels.dense(weight, bias, roomy=roomy)(x)
            torch.testing.assert_close(product, expected, atol=1e-4, rtol=1e-4)
            assert product.is_contiguous()
        torch.testing.assert_close(kernels.Plain(weight, bias)(x), expected)
    norm = kernels.RmsNorm(torch.randn(96, generator=generator), 1e-5)
    torch.testing.assert_close(norm(x[:2]), norm(x)[:2], atol=1e-5, rtol=1e-5)


def test_an_operator_that_is_wrong_here_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "packed_works", lambda dtype: False)
    assert isinstance(kernels.dense(torch.zeros(16, 32)), kernels.Plain)
    assert not kernels._right(lambda x, weight: x @ weight.T + 1, 1e-4)
    assert not kernels._right(lambda x, weight: torch.ops.aten.no_such_operator(x), 1e-4)
    assert len(kernels.notes()) == 6


def test_an_eight_bit_product_rounds_weights_and_nothing_else() -> None:
    if not kernels.int8_works():
        pytest.skip("no 8-bit operator here")
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(-127, 128, (48, 64), generator=generator)
    whole[:, 0] = 127
    values, scales = kernels.eight_bit(whole * torch.rand(48, 1, generator=generator))
    weight = values.float() * scales.float()[:, None]
    layer = kernels.Int8(values, scales)
    for rows in (1, 2, 9):
        x = torch.randn(rows, 64, generator=generator) * torch.tensor([1.0, 1e-3, 1e3]).repeat(3)[:rows, None]
        error = (layer(x) - x @ weight.T).norm(dim=1) / (x @ weight.T).norm(dim=1)
        assert float(error.max()) < 1e-4
    assert layer(torch.zeros(1, 64)).eq(0).all()


def test_a_model_too_large_for_two_layouts_keeps_one() -> None:
    if not kernels.int4_works():
        pytest.skip("no 4-bit operator here")
    values = torch.randint(0, 16, (32, 64), dtype=torch.uint8)
    factors = torch.ones(32, 2)
    packed = kernels.pack_four_bit(values, factors, factors)
    narrow = kernels.Int4(*packed, None)
    both = kernels.Int4(*packed, None, lambda: kernels.dense((values + 1.0).bfloat16()))
    x = torch.randn(kernels.MANY_ROWS, 64).bfloat16()
    torch.testing.assert_close(narrow(x).float(), both(x).float(), atol=0.5, rtol=0.02)


def test_four_bit_products_are_those_of_the_dequantised_weights() -> None:
    if not kernels.int4_works():
        pytest.skip("no 4-bit operator here")
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 16, (32, 64), generator=generator, dtype=torch.uint8)
    scales, minima = torch.full((32, 2), 0.25), torch.full((32, 2), -2.0)
    weight = values.reshape(32, 2, 32) * 0.25 - 2.0
    bias = torch.randn(32, generator=generator).bfloat16()
    layer = kernels.Int4(*kernels.pack_four_bit(values, scales, minima), bias)
    for rows in (1, 2, 40):
        x = torch.randn(rows, 64, generator=generator).bfloat16()
        expected = x.float() @ weight.flatten(1).T + bias.float()
        torch.testing.assert_close(layer(x).float(), expected, atol=0.15, rtol=0.02)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_gguf_file_gives_the_logits_of_its_source(kind: str, tmp_path: Path) -> None:
    """A model written as GGUF by the gguf library, read back, against the folder it came from."""
    folder = save_tiny(tmp_path / "model", kind) if (tmp_path / "model").mkdir() is None else tmp_path
    path = write_gguf(folder, tmp_path / "model.gguf", kind)
    network, source = open_source(path).own(torch.float32), open_source(folder).own(torch.float32)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    torch.testing.assert_close(
        network.forward(ids, network.cache(9, [0])).logits(),
        source.forward(ids, source.cache(9, [0])).logits(),
        atol=1e-5,
        rtol=1e-5,
    )


def write_gguf(folder: Path, path: Path, kind: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Path:
    """A folder's model as the gguf library writes it.

    Args:
        settings: of the architecture, beside those that the folder has.
        options: for gguf's writer.
    """
    import gguf
    from safetensors.torch import load_file

    from engine.networks.gguf_file import _NAMES

    config = read_json(folder / "config.json")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, kind, **options)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    for key, value in (settings or {}).items():
        writer.add_key_value(f"{kind}.{key}", value, gguf.GGUFValueType.get_type(value))
    add_tokenizer(writer, config["vocab_size"])
    theirs = {ours: name for name, ours in _NAMES.items()}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        part, suffix = name.rsplit(".", 1)
        layer = part.split(".")[2] if part.startswith("model.layers.") else None
        key = part.split(".", 3)[3] if layer else part
        target = f"blk.{layer}.{theirs[key]}" if layer else theirs[key]
        values = tensor.float()
        if kind == "llama" and key.endswith(("q_proj", "k_proj")):
            count = heads if key.endswith("q_proj") else kv_heads
            values = values.reshape(count, 2, len(values) // count // 2, -1).transpose(1, 2).reshape(values.shape)
        writer.add_tensor(f"{target}.{suffix}", values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: Any, size: int) -> None:
    """A vocabulary of `size` entries that llama.cpp takes, too."""
    known = byte_level_tokenizer().get_vocab()
    texts = sorted(known, key=lambda text: known[text])[:size]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts + [f"<{index}>" for index in range(size - len(texts))])
    writer.add_token_merges(["a b"])
