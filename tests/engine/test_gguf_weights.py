"""GGUF blocks: their exact values, and the forms with few bits that products keep them in."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType as GGML

from engine.base.errors import OutOfMemoryError
from engine.loading import load_model
from engine.networks import kernels, small_weights
from engine.networks.agreement import divergence
from engine.networks.blocks import Blocks, dequantize
from engine.networks.sources import open_source
from tests.conftest import byte_level_tokenizer

# Where an encoding's float16 factors lie in a block.
FACTORS = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
}  # fmt: skip


def random_blocks(encoding: str, rows: int, width: int, *, seed: int = 0) -> Blocks:
    """Any bytes are blocks of any encoding, so long as their factors are numbers."""
    kind = GGML[encoding]
    chance = np.random.default_rng(seed)
    if encoding in ("F32", "F16", "BF16"):
        values = chance.normal(size=(rows, width), scale=width**-0.5).astype(np.float32)
        return Blocks(kind, (rows, width), gguf.quants.quantize(values, kind))
    count, size = gguf.GGML_QUANT_SIZES[kind]
    raw = chance.integers(0, 256, (rows, width // count, size), dtype=np.uint8)
    factors = chance.uniform(0.5, 1.5, (len(FACTORS[encoding]), rows, width // count, 1))
    scale = 1.0
    for _time in range(2):  # the second time as large as weights are
        for at, factor in zip(FACTORS[encoding], factors):
            raw[:, :, at : at + 2] = (scale * factor).astype(np.float16).view(np.uint8)
        blocks = Blocks(kind, (rows, width), raw.reshape(rows, -1))
        scale = 0.8 / (width**0.5 * float(blocks.dequantize().std()))
    return blocks


@pytest.mark.parametrize("encoding", FACTORS)
def test_every_block_decodes_to_the_same_bits_as_ggufs(encoding: str) -> None:
    blocks = random_blocks(encoding, 70, 8192)  # several parts
    torch.testing.assert_close(dequantize(blocks), blocks.dequantize(), atol=0, rtol=0)


@pytest.mark.parametrize("encoding", ["F32", "F16", "BF16"])
def test_floats_are_read_as_they_are(encoding: str) -> None:
    values = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    data = gguf.quants.quantize(values, GGML[encoding])
    expected = torch.from_numpy(gguf.quants.dequantize(data, GGML[encoding]).astype(np.float32))
    torch.testing.assert_close(dequantize(Blocks(GGML[encoding], (6, 64), data)), expected, atol=0, rtol=0)


@pytest.mark.parametrize("encoding", FACTORS)
@pytest.mark.parametrize("shapes", [[(64, 512)], [(64, 512), (32, 512), (48, 512)], [(24, 512), (96, 512)]])
def test_products_are_those_of_the_exact_weights(encoding: str, shapes: list[tuple[int, int]]) -> None:
    if not small_weights.work():
        pytest.skip("no 4-bit operator here")
    parts = [random_blocks(encoding, *shape, seed=seed) for seed, shape in enumerate(shapes)]
    bias = [torch.randn(shape[0]).bfloat16() for shape in shapes]
    weight = torch.cat([part.dequantize() for part in parts])
    products = [small_weights.linear(parts, bias, roomy=roomy) for roomy in (False, True)]
    for rows in (1, 3, kernels.MANY_ROWS):
        x = torch.randn(rows, 512, generator=torch.Generator().manual_seed(rows)).bfloat16()
        expected = x.float() @ weight.T + torch.cat(bias).float()
        for product in products:
            assert float((product(x).float() - expected).norm() / expected.norm()) < small_weights.COARSEST


def test_rows_with_outliers_become_groups() -> None:
    if not small_weights.work():
        pytest.skip("no 4-bit operator here")
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    weight[:, 7] *= 100
    data = gguf.quants.quantize(weight.numpy(), GGML.Q8_0)
    blocks = Blocks(GGML.Q8_0, (64, 256), data)
    product = small_weights.linear([blocks], [None], roomy=False)
    assert isinstance(product, kernels.Sliced) == kernels.int8_rows_work()
    x = torch.randn(2, 256, generator=torch.Generator().manual_seed(1)).bfloat16()
    x[:, 7] = 0  # what the outliers would drown
    expected = x.float() @ dequantize(blocks).T
    assert float((product(x).float() - expected).norm() / expected.norm()) < 0.01


@pytest.mark.parametrize("encoding", ["Q4_K", "Q6_K", "Q8_0", "F16"])
def test_rows_are_looked_up_exactly(encoding: str) -> None:
    blocks = random_blocks(encoding, 70, 512)
    rows = small_weights.FileRows(blocks, torch.bfloat16)
    ids = torch.tensor([[3, 69], [0, 3]])
    torch.testing.assert_close(rows(ids, torch.float32), dequantize(blocks)[ids], atol=0, rtol=0)
    assert rows(ids[0]).dtype == torch.bfloat16


def write_model(path: Path, encoding: str, *, layers: int = 3, hidden: int = 256, vocabulary: int = 512) -> Path:
    """A llama whose matrices are random blocks of one encoding."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(256)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(512)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    tokens = sorted(byte_level_tokenizer().get_vocab().items(), key=lambda entry: entry[1])
    texts = [text for text, _id in tokens][:vocabulary]
    writer.add_token_list(texts + [f"<{index}>" for index in range(vocabulary - len(texts))])
    writer.add_token_merges([])
    shapes = {"attn_q": (hidden, hidden), "attn_k": (hidden // 2, hidden), "attn_v": (hidden // 2, hidden)}
    shapes |= {"attn_output": (hidden, hidden), "ffn_gate": (512, hidden), "ffn_up": (512, hidden)}
    names = {
        f"blk.{i}.{part}": shape
        for i in range(layers)
        for part, shape in (shapes | {"ffn_down": (hidden, 512)}).items()
    }
    for seed, (name, shape) in enumerate((names | {"token_embd": (vocabulary, hidden)}).items()):
        blocks = random_blocks(encoding, *shape, seed=seed)
        raw = None if blocks.stored.dtype != np.uint8 else blocks.type
        writer.add_tensor(f"{name}.weight", blocks.stored, raw_dtype=raw)
    for name in ["output_norm", *(f"blk.{i}.{part}" for i in range(layers) for part in ("attn_norm", "ffn_norm"))]:
        writer.add_tensor(f"{name}.weight", np.ones(hidden, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("encoding", ["Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K", "Q8_0"])
def test_a_model_of_few_bits_gives_nearly_the_logits_of_float32(encoding: str, tmp_path: Path) -> None:
    if not small_weights.work():
        pytest.skip("no 4-bit operator here")
    path = write_model(tmp_path / "model.gguf", encoding)
    model = load_model(str(path), cache_dir=tmp_path)
    assert (model.facts.path, model.facts.precision) == ("own llama", encoding)
    assert "KL " in model.facts.path_reason
    exact = load_model(str(path), precision="float32", cache_dir=tmp_path)
    ids = torch.arange(24)[None] * 17 % 512
    ours, theirs = (
        loaded.network.forward(ids, loaded.network.cache(24, [0]), all_logits=True).all_logits()
        for loaded in (model, exact)
    )
    assert divergence(theirs, ours) < 0.01


def held(value: object, seen: set[int]) -> int:
    """Bytes of all tensors that an object holds, those of a mapped file apart."""
    opaque = isinstance(value, torch.Tensor) and value.is_mkldnn  # in a layout that only oneDNN reads
    stored = isinstance(value, torch.Tensor) and not opaque
    place = value.untyped_storage().data_ptr() if stored else id(value)
    if place in seen:
        return 0
    seen.add(place)
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size() if opaque else value.untyped_storage().nbytes()
    if isinstance(value, small_weights.FileRows):
        return 0
    if isinstance(value, dict | list | tuple | set):
        return sum(held(item, seen) for item in (value.values() if isinstance(value, dict) else value))
    if type(value).__module__.startswith("engine.networks"):
        slots = [getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)]
        return sum(held(item, seen) for item in [*getattr(value, "__dict__", {}).values(), *slots])
    return 0


@pytest.mark.parametrize(("encoding", "most"), [("Q4_K", 1.6), ("Q8_0", 1.6), ("Q6_K", 1.6), ("Q2_K", 4.0)])
def test_memory_is_about_the_files_and_no_more_than_was_said(
    encoding: str, most: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (small_weights.work() and kernels.int8_rows_work()):
        pytest.skip("no operators for few bits here")
    from engine.networks import weights

    monkeypatch.setattr(weights, "ROOMY_FILE", 0)
    monkeypatch.setattr(weights, "WORKING", 0)
    source = open_source(write_model(tmp_path / "model.gguf", encoding, layers=24, vocabulary=1024))
    taken = held(source.own(torch.bfloat16, native=True), set())
    blocks = sum(blocks.stored.nbytes for blocks in source.contents.tensors.values())
    assert taken <= most * blocks
    assert taken <= source.native_bytes <= 1.3 * taken


def test_what_does_not_fit_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(tmp_path / "model.gguf", "Q4_K")
    needed = open_source(path).native_bytes
    monkeypatch.setattr("engine.models.local.free_memory", lambda: needed - 1)
    with pytest.raises(OutOfMemoryError):
        load_model(str(path), precision="native", cache_dir=tmp_path)
    monkeypatch.setattr("engine.models.local.free_memory", lambda: needed)
    assert load_model(str(path), precision="native", cache_dir=tmp_path).facts.precision == "Q4_K"
