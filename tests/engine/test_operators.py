"""Our operators in C++: against exact arithmetic, against transformers, and where they cannot be made."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from gguf.constants import GGMLQuantizationType as GGML
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.base import language
from engine.base.state import keep
from engine.generation.config import PRESETS
from engine.generation.events import Stepped
from engine.inside.lens import lens
from engine.inside.record import record
from engine.loading import load_local
from engine.models import catalog, local
from engine.networks import agreement, operators, operators_build
from engine.networks.agreement import divergence
from engine.networks.attention import KVCache, attend
from engine.networks.blocks import Blocks, dequantize
from engine.networks.kernels import RmsNorm, fast_bfloat16
from engine.networks.operators import ENCODINGS, Measured
from engine.networks.operators_build import random_blocks
from engine.networks.sources import Source, open_source
from engine.networks.stored import Stored, of_gated, of_normed, plus, takes
from engine.networks.summary import Summary
from tests.conftest import EMBEDDED
from tests.engine.test_gguf_weights import held, write_model

TEXT = "The lighthouse keeper's robot asked for a quiet story about rain, and the library was closed. "


@pytest.fixture(scope="session")
def made() -> Path:
    """The operators, made for this machine where they are not yet: kept where the lab keeps them."""
    if operators.compiler() is None:
        pytest.skip("no C++ compiler for this processor")
    where = operators.folder()
    subprocess.run([sys.executable, "-m", "engine.networks.operators_build", str(where)], check=True)
    with FileLock(where / "lock"):  # another process of the tests may be at it
        return where


@pytest.fixture
def compiled(made: Path) -> Iterator[Measured]:
    """Networks loaded in a test use every operator that is right, however fast it is on a busy machine."""
    operators.begin("auto")
    known = dict.fromkeys(operators.used().products, 2.0)
    right = replace(operators.used(), products=known, many=known, attention=2.0, summary=2.0)
    operators._used[0] = right
    yield right
    operators.begin("torch")


def test_they_share_torchs_threads(made: Path) -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("the loaded libraries cannot be listed here")
    listed = f"""
import torch
def pools():
    return {{line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line or "libomp" in line}}
before = pools()
torch.ops.load_library({str(made / operators.LIBRARY)!r})
print(len(before), pools() - before)
"""
    printed = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["1", "set()"]


def test_processors_without_wide_vectors_have_the_same_operators(made: Path, tmp_path: Path) -> None:
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("those of this processor are the ones without")
    code = """
import sys
from pathlib import Path
import torch
from engine.networks import operators, operators_build
operators.FLAGS = ("-O3", "-march=haswell", "-fopenmp")
torch.backends.cpu.get_cpu_capability = lambda: "AVX2"
torch.ops.load_library(operators_build.compiled(Path(sys.argv[1])))
torch.set_num_threads(1)
operators_build.REPEATS = 1
found = operators_build.measure()
print(*found.products, found.attention > 0, found.summary > 0)
"""
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == [*ENCODINGS, "True", "True"]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    if operators.compiler() is None:
        pytest.skip("no C++ compiler for this processor")
    (tmp_path / "operators").write_text("a file where the folder should be")
    operators.begin("auto", tmp_path)
    assert operators.used() == Measured()


def test_every_encoding_is_right_here(made: Path, compiled: Measured) -> None:
    assert set(compiled.products) == set(ENCODINGS)


@pytest.mark.parametrize("name", operators.BLOCKS)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 41])
@pytest.mark.parametrize("blocks", [1, 2, 3, 6])
def test_products_are_those_of_the_exact_weights(compiled: Measured, name: str, rows: int, blocks: int) -> None:
    size = gguf.GGML_QUANT_SIZES[GGML[name]][0]
    matrix = random_blocks(GGML[name], (37, blocks * size))
    x = torch.randn(rows, blocks * size) * torch.randn(blocks * size).exp()
    expected = x.double() @ matrix.dequantize().double().T
    assert _off(Stored([matrix], None)(x), expected) < 5e-4


@pytest.mark.parametrize("name", operators.FLOATS)
@pytest.mark.parametrize("width", [1, 8, 37, 576])
def test_floats_are_multiplied_in_float32_and_every_row_alike(compiled: Measured, name: str, width: int) -> None:
    matrix = random_blocks(GGML[name], (37, width))
    x = torch.randn(41, width) * torch.randn(width).exp()
    product = Stored([matrix], None)
    alone = torch.cat([product(row[None]) for row in x])
    assert _off(alone, x.double() @ dequantize(matrix).double().T) < 1e-6
    for rows in (2, 3, 4, 8, 9, 41):
        assert torch.equal(product(x[:rows]), alone[:rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_floats_of_a_tensor_are_those_of_a_file(compiled: Measured, dtype: torch.dtype) -> None:
    weight, x = torch.randn(24, 64).to(dtype), torch.randn(2, 64)
    assert takes(weight)
    assert not takes(weight.double())
    assert not takes(weight[0])
    assert _off(Stored([weight, weight[:8]], None)(x), x @ torch.cat([weight, weight[:8]]).float().T) < 1e-6


def test_what_is_no_number_in_floats_stays_none(compiled: Measured) -> None:
    weight = torch.randn(16, 64).half()
    weight[3, 5], weight[4, 63] = torch.nan, torch.inf
    got = Stored([weight], None)(torch.randn(2, 64))
    assert got.isfinite().all(0).logical_not().nonzero().flatten().tolist() == [3, 4]


def test_matrices_of_several_encodings_lie_below_each_other_with_biases(compiled: Measured) -> None:
    named = (("Q4_K", 40), ("Q6_K", 16), ("F16", 8), ("Q5_0", 8))
    matrices = [random_blocks(GGML[name], (rows, 256)) for name, rows in named]
    bias, x = torch.randn(72), torch.randn(3, 256)
    expected = x.double() @ torch.cat([dequantize(matrix) for matrix in matrices]).double().T + bias
    assert _off(Stored(matrices, bias)(x), expected) < 5e-4


@pytest.mark.parametrize("name", operators.BLOCKS)
def test_a_row_does_not_depend_on_those_beside_it(compiled: Measured, name: str) -> None:
    width = 3 * gguf.GGML_QUANT_SIZES[GGML[name]][0]
    product = Stored([random_blocks(GGML[name], (64, width))], None)
    x = torch.randn(41, width)
    alone = torch.cat([product(row[None]) for row in x])
    for rows in (2, 3, 4, 5):
        assert torch.equal(product(x[:rows]), alone[:rows])
    # Many rows may be summed up in another order, the same for all of them.
    many = product(x)
    for rows in (9, 16, 40):
        assert torch.equal(product(x[:rows]), many[:rows])
    assert _off(many, alone) < 1e-6


def test_nothing_is_lost_in_rows_of_zeros_and_of_large_numbers(compiled: Measured) -> None:
    matrix = random_blocks(GGML.Q8_0, (16, 64))
    x = torch.stack([torch.zeros(64), torch.full((64,), 3e30), torch.full((64,), 1e-30)])
    expected = x.double() @ dequantize(matrix).double().T
    got = Stored([matrix], None)(x)
    assert torch.equal(got[0], torch.zeros(16))
    assert all(_off(ours, theirs) < 5e-4 for ours, theirs in zip(got[1:], expected[1:]))


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q8_0", "Q3_K", "Q4_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_what_is_no_number_stays_none_and_what_is_smallest_is_zero(compiled: Measured, name: str) -> None:
    matrix = random_blocks(GGML[name], (16, 256))
    x = torch.randn(3, 256)
    x[0, 100], x[1, 100], x[2] = torch.nan, torch.inf, 1e-42
    got = Stored([matrix], None)(x)
    assert not got[:2].isfinite().any()
    assert torch.equal(got[2], torch.zeros(16))


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("kind", [GGML.Q4_0, GGML.F16])
def test_norm_gate_and_sum_are_computed_in_the_product(compiled: Measured, kind: GGML, gelu: bool) -> None:
    matrix = random_blocks(kind, (48, 160))
    dense, stored = _Dense(matrix), Stored([matrix], None)
    norm = RmsNorm(torch.rand(160) + 0.5, 1e-5)
    x, gate_up, stream = torch.randn(2, 160), torch.randn(2, 320), torch.randn(2, 48)
    for ours, theirs in (
        (of_normed(stored, norm, x), of_normed(dense, norm, x)),
        (of_gated(stored, gate_up, gelu=gelu), of_gated(dense, gate_up, gelu=gelu)),
        (
            of_gated(stored, gate_up, gelu=gelu, added=stream),
            of_gated(dense, gate_up, gelu=gelu, added=stream),
        ),
        (plus(stream, stored, x), plus(stream, dense, x)),
    ):
        assert _off(ours, theirs) < 5e-4


class _Dense:
    """The same product with float32 weights."""

    def __init__(self, matrix: Blocks) -> None:
        self._weight = dequantize(matrix)

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self._weight.T


@pytest.mark.parametrize("length", [1, 5, 127, 128, 129, 700])
@pytest.mark.parametrize(("heads", "group", "size"), [(3, 3, 64), (1, 8, 32), (2, 1, 16), (4, 5, 80)])
def test_attention_is_torchs(compiled: Measured, length: int, heads: int, group: int, size: int) -> None:
    kept = torch.randn(2, 2 * heads, length + 9, size)
    keys, values = kept[:, :, 4 : length + 4].chunk(2, 1)
    queries = 3 * torch.randn(2, heads, group, size)
    hidden = torch.zeros(2, length)
    hidden[1, : length // 2] = torch.finfo(torch.float32).min
    for mask in (None, hidden[:1, None, None].expand(-1, 1, group, -1), hidden[:, None, None].expand(-1, 1, group, -1)):
        expected = F.scaled_dot_product_attention(
            queries.double(), keys.double(), values.double(), None if mask is None else mask.double(), scale=0.2
        )
        got = operators.attention(queries, keys, values, mask, 0.2)
        assert torch.allclose(got.double(), expected.reshape(2, -1), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
@pytest.mark.parametrize("length", [0, 1, 127, 128, 300])
@pytest.mark.parametrize(("heads", "group", "size"), [(3, 3, 64), (1, 8, 32), (2, 4, 16), (4, 1, 80)])
def test_siblings_see_the_text_and_themselves(
    compiled: Measured, length: int, count: int, heads: int, group: int, size: int
) -> None:
    padding = length // 2
    cache = KVCache(1, heads, size, length + count, [0, padding], torch.zeros(1))
    cache.length = length
    queries, new = 3 * torch.randn(2, count, heads * group, size), torch.randn(2, count, 2 * heads, size)
    cache.layers[0].normal_()
    keys, values = cache.append(0, new)
    mask = cache.mask(count, group, torch.float32, siblings=True)
    got = attend(queries, keys, values, mask, 0.2, siblings=count > 1)
    operators.begin("torch")
    expected = attend(
        queries.double(), keys.double(), values.double(), None if mask is None else mask.double(), 0.2, siblings=True
    )
    assert torch.allclose(got.double(), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["Q8_0", "Q6_K", "Q4_1", "F16", "F32"])
@pytest.mark.parametrize("rows", [1, 3, 9, 60])
@pytest.mark.parametrize("vocabulary", [5, 256, 333, 1000])
def test_what_is_said_of_logits_is_what_they_say(compiled: Measured, name: str, rows: int, vocabulary: int) -> None:
    matrix = random_blocks(GGML[name], (vocabulary, 256))
    product = Stored([matrix], None)
    x, asked = torch.randn(rows, 256) / 8, torch.randint(vocabulary, (rows, 3))
    for cap in (None, 2.0):
        logits = product(x) if cap is None else cap * torch.tanh(product(x) / cap)
        got, expected = product.summary(x, asked, 10, cap), Summary.of(logits, asked, 10)
        for one in ("values", "own", "log_mass", "nats"):
            assert torch.allclose(getattr(got, one), getattr(expected, one), rtol=1e-5, atol=1e-5)
        assert torch.allclose(logits.gather(1, got.ids), expected.values, rtol=1e-5, atol=1e-5)
        # Caps bring logits so close to each other that rounding puts them in another order.
        assert torch.equal(got.above, expected.above) or cap is not None


def test_what_is_no_number_is_said_to_be_none(compiled: Measured) -> None:
    weight = torch.randn(300, 64).half()
    weight[77, 5] = torch.nan
    got = Stored([weight], None).summary(torch.randn(2, 64), torch.tensor([[3], [4]]), 4, None)
    assert got.nats.isnan().all()
    assert got.ids.min() >= 0


def test_the_lens_says_the_same_where_logits_are_not_kept(compiled: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_local(EMBEDDED, kernels="auto")
    if "Q8_0" not in operators.used().encodings:
        pytest.skip("the product of the output layer is not faster on this machine")
    operators._used[0] = replace(operators.used(), summary=2.0)
    kept = record(model, model.tokenizer.encode_ids(TEXT * 3))
    assert kept.anatomy.summary is not None
    tracked = model.tokenizer.encode_ids(" rain story")[:2]
    ours = lens(kept, tracked=tracked)
    torchs = lens(replace(kept, anatomy=replace(kept.anatomy, summary=None)), tracked=tracked)
    assert ours.decided_at == torchs.decided_at
    for row in range(kept.blocks + 1):
        for one, other in zip(ours.rows[row].cells, torchs.rows[row].cells, strict=True):
            assert one.entropy_bits == pytest.approx(other.entropy_bits, abs=1e-4)
            assert (one.final.id, one.final.rank) == (other.final.id, other.final.rank)
            assert [said.id for said in one.tracked] == [said.id for said in other.tracked] == tracked
            assert [said.probability for said in (*one.top, *one.tracked)] == pytest.approx(
                [said.probability for said in (*other.top, *other.tracked)], abs=1e-5
            )


def test_a_file_runs_from_its_own_blocks_as_float32_does(compiled: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    native = load_local(EMBEDDED, kernels="auto")
    # `load_local` has chosen again what is used: by speed, which is not what is tested.
    if native.facts.kernels != "compiled":
        pytest.skip("the operators are not faster on this machine")
    exact = load_local(EMBEDDED, precision="float32", kernels="torch")
    assert (native.facts.precision, exact.facts.kernels) == ("Q4_1", "torch")
    ids = torch.tensor([[token.id for token in exact.tokenizer.encode(TEXT * 4)]])
    logits = [
        model.network.forward(ids, model.network.cache(ids.shape[1], [0]), all_logits=True).all_logits()[0]
        for model in (native, exact)
    ]
    assert divergence(logits[1], logits[0]) < 1e-3
    used = operators.used()
    if not {"Q4_1", "Q8_0"} <= used.encodings or (fast_bfloat16() and "Q4_1" not in used.for_many_rows):
        pytest.skip("many rows, or the output layer, are rounded where the processor is faster with that")
    assert divergence(logits[1], logits[0]) < 1e-5
    assert torch.equal(logits[0].argmax(-1), logits[1].argmax(-1))
    configs = [replace(PRESETS["greedy"], max_new_tokens=30), replace(PRESETS["creative"], max_new_tokens=6)]
    written = [
        [(event.lane, event.token.id) for event in model.generate([TEXT], configs) if isinstance(event, Stepped)]
        for model in (native, exact)
    ]
    assert sorted(written[0]) == sorted(written[1])


@pytest.mark.parametrize("encoding", ["F16", "BF16"])
@pytest.mark.parametrize("precision", ["auto", "native"])
def test_a_file_of_floats_runs_as_float32_in_its_own_size(
    compiled: Measured, encoding: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.networks.sources.fast_bfloat16", lambda: False)
    monkeypatch.setattr("engine.networks.weights.WORKING", 0)
    source = open_source(write_model(tmp_path / "model.gguf", encoding, layers=24, vocabulary=1024))
    assert source.dtype(precision, "cpu") == (torch.float32, True)
    _runs_as_float32(source, blocks := sum(one.stored.nbytes for one in source.contents.tensors.values()))
    assert blocks <= source.native_bytes <= 1.3 * blocks


@pytest.mark.parametrize("encoding", ["IQ4_NL", "IQ4_XS", "Q3_K", "Q2_K"])
def test_a_file_of_few_bits_runs_as_float32_in_its_own_size(
    compiled: Measured, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.networks.weights.WORKING", 0)
    monkeypatch.setattr("engine.networks.weights.ROOMY_FILE", 0)
    source = open_source(write_model(tmp_path / "model.gguf", encoding, layers=24, vocabulary=1024))
    blocks = sum(one.stored.nbytes for one in source.contents.tensors.values())
    _runs_as_float32(source, blocks, nearly=1e-3)
    assert blocks <= source.native_bytes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("precision", ["auto", "native"])
def test_a_folder_of_floats_runs_as_float32_in_its_own_size(
    compiled: Measured, dtype: str, precision: str, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.networks.sources.fast_bfloat16", lambda: False)
    folder = _in_two_bytes(tiny_llama, tmp_path / "folder", dtype)
    source = open_source(folder)
    assert source.dtype(precision, "cpu") == (torch.float32, True)
    assert source.dtype("bfloat16", "cpu") == (torch.bfloat16, False)
    assert source.dtype("float32", "cpu") == (torch.float32, False)
    _runs_as_float32(source, source.native_bytes)
    # A processor that multiplies bfloat16 is faster with that.
    monkeypatch.setattr("engine.networks.sources.fast_bfloat16", lambda: True)
    assert source.dtype(precision, "cpu") == (torch.bfloat16, False)


def _runs_as_float32(source: Source, size: int, nearly: float = 1e-5) -> None:
    """A prompt's logits are float32's, and nothing is kept beside what lies in the file."""
    network = source.own(torch.float32, native=True)
    ids = torch.arange(40)[None] * 17 % network.vocabulary_size
    ours, exact = (
        one.forward(ids, one.cache(ids.shape[1], [0]), all_logits=True).all_logits()[0]
        for one in (network, source.own(torch.float32))
    )
    assert _off(ours, exact) < nearly
    assert held(network, set()) <= 1.1 * size


def _in_two_bytes(model: Path, folder: Path, dtype: str) -> Path:
    """A folder's copy with its weights in another precision."""
    shutil.copytree(model, folder)
    for file in folder.glob("*.safetensors"):
        weights = {name: weight.to(getattr(torch, dtype)) for name, weight in load_file(file).items()}
        save_file(weights, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": dtype}))
    return folder


def test_what_was_measured_of_a_network_is_known_in_every_language(
    compiled: Measured, spoken: Callable[..., str]
) -> None:
    path = catalog.find(EMBEDDED).path
    assert path is not None
    source, keys = open_source(path), set()
    for name in language.languages():
        spoken(name)
        keys.add(agreement._key(source, "cpu"))
    assert len(keys) == 1
    operators.begin("torch")
    assert agreement._key(source, "cpu") not in keys


def test_a_gpu_has_torchs_operators(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_device", lambda wanted: "cuda")
    operators.begin("auto")
    assert local.needed_bytes(EMBEDDED, local.LoadOptions(kernels="auto")) == 0
    assert not operators.used().encodings
    path = catalog.find(EMBEDDED).path
    assert path is not None
    assert open_source(path).dtype("auto", "cuda")[0] == torch.bfloat16


def test_torchs_operators_are_used_where_they_are_asked_for(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operators.begin("torch")
    assert not operators.used().encodings
    monkeypatch.setenv("LOGITLAB_KERNELS", "torch")
    operators.begin()
    assert not operators.used().encodings


def test_what_is_measured_as_slower_is_not_used() -> None:
    measured = Measured({"Q4_0": 0.5, "Q8_0": 1.5, "Q6_K": 1.5}, {"Q4_0": 1.5, "Q8_0": 0.5, "Q6_K": 0.9}, 0.9)
    assert measured.encodings == {"Q8_0", "Q6_K"}
    assert measured.for_many_rows == {"Q6_K"}


def test_a_library_that_others_can_write_is_not_loaded(tmp_path: Path) -> None:
    where = operators.folder(tmp_path)
    where.mkdir(parents=True)
    library = where / operators.LIBRARY
    library.write_bytes(b"not a library")
    keep(where / operators.MEASURED, Measured({"Q4_1": 2.0}, attention=2.0))
    library.chmod(0o666)
    operators.begin("auto", tmp_path)
    assert not operators.used().encodings


def test_without_a_compiler_everything_runs_on_torchs_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    operators.begin("auto", tmp_path)
    assert not operators.used().encodings
    assert "no C++ compiler" in operators.note()
    assert not (tmp_path / "operators").exists()


def test_a_compiler_that_fails_is_asked_once_and_the_reason_kept(tmp_path: Path) -> None:
    where = tmp_path / "made"
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'c++: out of ideas' >&2\nexit 1\n")
    broken.chmod(0o755)
    build = [sys.executable, "-m", "engine.networks.operators_build", str(where)]
    subprocess.run(build, check=True, env=os.environ | {"CXX": str(broken)}, capture_output=True)
    assert sorted(file.name for file in where.iterdir()) == ["lock", operators.MEASURED]
    found = operators._found(where)
    assert not found.encodings
    assert found.why_not


def test_a_wrong_product_is_measured_as_none(compiled: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators_build, "TOLERANCE", 0.0)
    assert operators_build._product(GGML.Q4_1) == 0


def _off(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())
