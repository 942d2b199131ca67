"""GGUF files of every architecture that can be read, against the modules they were written from."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from engine.base.errors import ModelFileError
from engine.loading import load_model
from engine.networks import kernels, small_weights
from engine.networks.agreement import divergence
from engine.networks.gguf_families import FAMILIES
from tests.gguf_converted import VOCABULARY, family_settings, write_family

PYTHON = os.environ.get("LOGITLAB_LLAMA_PYTHON", "")
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
HEAD = {"head_dim": 32}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "long_factor": [4.0, 3.5, 3.0, 2.5, 2.0, 1.5],
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "partial_rotary_factor": 0.75,
}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
FEW = {"num_hidden_layers": 2, "num_experts_per_tok": 2}  # few places where a router may choose otherwise
MOE = FEW | {"moe_intermediate_size": 48}
# By name: the family, transformers' name, and what is not as in `SIZES`.
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "llama", {"attention_bias": True, "mlp_bias": True}),
    "llama linear": ("llama", "llama", HEAD | {"rope_parameters": LINEAR}),
    "qwen2": ("qwen2", "qwen2", {}),
    "qwen3": ("qwen3", "qwen3", HEAD),
    "gemma": ("gemma", "gemma", HEAD),
    "gemma2": ("gemma2", "gemma2", HEAD | {"query_pre_attn_scalar": 32, "sliding_window": 24,
                                           "attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0}),
    "gemma3": ("gemma3", "gemma3_text", HEAD | {"query_pre_attn_scalar": 32, "sliding_window": 24}),
    "gemma3 4B": ("gemma3", "gemma3_text", HEAD | {
        "query_pre_attn_scalar": 32, "sliding_window": 24, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0}}}),
    "granite": ("granite", "granite", {"attention_multiplier": 0.2, "embedding_multiplier": 3.0,
                                       "residual_multiplier": 0.5, "logits_scaling": 4.0}),
    "phi2": ("phi2", "phi", {"num_key_value_heads": 4}),
    "phi2, joined": ("phi2", "phi", {"num_key_value_heads": 4}),
    "phi3": ("phi3", "phi3", {"original_max_position_embeddings": 256, "sliding_window": None}),
    "phi3 128k, beyond": ("phi3", "phi3", {"original_max_position_embeddings": 64, "sliding_window": 512,
                                           "rope_parameters": LONGROPE}),
    "phi3 128k, within": ("phi3", "phi3", {"original_max_position_embeddings": 256, "sliding_window": 512,
                                           "max_position_embeddings": 512, "rope_parameters": LONGROPE,
                                           "tie_word_embeddings": True}),
    "gpt2": ("gpt2", "gpt2", {"num_key_value_heads": None, "intermediate_size": None, "n_inner": 128}),
    "gptneox": ("gptneox", "gpt_neox", {"num_key_value_heads": None}),
    "gptneox in turn": ("gptneox", "gpt_neox", {"num_key_value_heads": None, "use_parallel_residual": False}),
    "falcon 7B": ("falcon", "falcon", {"num_key_value_heads": None}),
    "falcon 40B": ("falcon", "falcon", {"num_key_value_heads": None, "num_kv_heads": 2, "multi_query": False,
                                        "new_decoder_architecture": True}),
    "falcon 11B": ("falcon", "falcon", {"num_key_value_heads": None, "num_kv_heads": 2, "multi_query": False,
                                        "new_decoder_architecture": True, "num_ln_in_parallel_attn": 1}),
    "stablelm": ("stablelm", "stablelm", {"use_qkv_bias": True}),
    "stablelm 12B": ("stablelm", "stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
    "smollm3": ("smollm3", "smollm3", {}),
    "olmo": ("olmo", "olmo", {"clip_qkv": 1.0}),
    "olmo2": ("olmo2", "olmo2", {}),
    "olmoe": ("olmoe", "olmoe", {"num_key_value_heads": 4, "num_experts": 4, **FEW}),
    "starcoder2": ("starcoder2", "starcoder2", {"sliding_window": None}),
    "command-r": ("command-r", "cohere", {"logit_scale": 0.25}),
    "command-r plus": ("command-r", "cohere", {"logit_scale": 0.25, "use_qk_norm": True,
                                                "num_hidden_layers": 64}),
    "cohere2": ("cohere2", "cohere2", {"logit_scale": 0.25, "sliding_window": 24}),
    "mixtral": ("mixtral", "mixtral", FEW | {"num_local_experts": 4}),
    "mixtral linear": ("mixtral", "mixtral", FEW | {"num_local_experts": 4, "rope_parameters": LINEAR}),
    "qwen2moe": ("qwen2moe", "qwen2_moe", MOE | {"num_experts": 4, "shared_expert_intermediate_size": 80}),
    "qwen2moe yarn": ("qwen2moe", "qwen2_moe", MOE | {"num_experts": 4, "shared_expert_intermediate_size": 80,
                                                      "rope_parameters": YARN}),
    "qwen3moe": ("qwen3moe", "qwen3_moe", HEAD | MOE | {"num_local_experts": 4, "norm_topk_prob": True}),
    "qwen3moe yarn": ("qwen3moe", "qwen3_moe", HEAD | MOE | {"num_local_experts": 4, "norm_topk_prob": True,
                                                             "rope_parameters": YARN}),
    "lfm2": ("lfm2", "lfm2", {"block_auto_adjust_ff_dim": False, "layer_types": [
        "conv", "conv", "full_attention", "conv", "full_attention", "conv", "conv"]}),
}  # fmt: skip
OWN = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3")
IDS = torch.arange(80)[None] * 7 % VOCABULARY


def write(case: str, path: Path, more: dict[str, Any] | None = None) -> Any:
    """A random model in a file. Returns the module."""
    import transformers

    family, kind, changes = CASES[case]
    sizes = {name: value for name, value in (SIZES | changes).items() if value is not None or name == "sliding_window"}
    config = transformers.AutoConfig.for_model(kind, **sizes)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # norms begin with ones, biases with zeros
        if parameter.dim() == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    settings = family_settings(model.config) | (more or {})
    write_family(model, path, FAMILIES[family].architecture or family, settings, joined="joined" in case)
    return model


def ours(path: Path, cache_dir: Path) -> tuple[Any, torch.Tensor]:
    loaded = load_model(str(path), precision="float32", cache_dir=cache_dir)
    network = loaded.network  # type: ignore[attr-defined]
    return loaded, network.forward(IDS, network.cache(IDS.shape[1], [0]), all_logits=True).all_logits()


def test_every_family_is_tried() -> None:
    assert {family for family, _kind, _changes in CASES.values()} == FAMILIES.keys()


@pytest.mark.parametrize("case", CASES)
def test_a_family_has_the_logits_of_its_source(case: str, tmp_path: Path) -> None:
    model = write(case, tmp_path / "model.gguf")
    loaded, got = ours(tmp_path / "model.gguf", tmp_path)
    own = CASES[case][0] in OWN
    assert loaded.facts.path.startswith("own llama" if own else "transformers")
    close = 1e-4 if own else 1e-3
    torch.testing.assert_close(got, model(IDS).logits, atol=close, rtol=close)


IN_LLAMA = """
import sys
import numpy as np
from llama_cpp import Llama
ids = np.load(sys.argv[2])
model = Llama(sys.argv[1], n_ctx=256, logits_all=True, n_threads=1, n_threads_batch=1, verbose=False)
model.eval(ids.tolist())
np.save(sys.argv[3], np.array(model.scores[: len(ids)]))
"""


@pytest.mark.skipif(not PYTHON, reason="llama-cpp-python is not there: make test-remote")
@pytest.mark.parametrize("case", CASES)
def test_a_family_has_the_logits_of_llama_cpp(case: str, tmp_path: Path) -> None:
    write(case, tmp_path / "model.gguf")
    _loaded, got = ours(tmp_path / "model.gguf", tmp_path)
    np.save(tmp_path / "ids.npy", IDS[0].numpy())
    command: list[str | Path] = [
        PYTHON,
        "-c",
        IN_LLAMA,
        tmp_path / "model.gguf",
        tmp_path / "ids.npy",
        tmp_path / "logits.npy",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    expected = torch.from_numpy(np.load(tmp_path / "logits.npy"))[None]
    if "expert_used_count" in FAMILIES[CASES[case][0]].settings:  # where its choice turns, a position differs
        assert float(((got - expected).norm(dim=-1) / expected.norm(dim=-1)).nanmedian()) < 0.005
    else:
        assert float((got - expected).norm() / expected.norm()) < 0.005


@pytest.mark.parametrize(
    ("architecture", "more", "named"),
    [
        ("gemma3", {"final_something": 2.0}, r"gemma3\.final_something to 2\.0"),
        ("granite", {"expert_count": 8}, r"granite\.expert_count to 8"),
        ("phi3", {"rope.scaling.original_context_length": 64}, r"phi3\.rope\.scaling\.original_context_length to 64"),
        ("olmo2", {"rope.dimension_count": 8}, r"olmo2\.rope\.dimension_count to 8"),
        ("olmo2", {"rope.scaling.factor": 4.0}, r"olmo2\.rope\.scaling\.factor to 4\.0"),
        ("lfm2", {"attention.causal": False}, r"lfm2\.attention\.causal to False"),
        ("lfm2", {"attention.sliding_window": 16}, r"lfm2\.attention\.sliding_window to 16"),
        ("qwen3moe", {"expert_gating_func": 2}, r"qwen3moe\.expert_gating_func to 2"),
        ("qwen2moe", {"expert_weights_scale": 2.5}, r"qwen2moe\.expert_weights_scale to 2\.5"),
        ("phi3", {"rope.scaling.attn_factor": 1.25}, r"phi3\.rope\.scaling\.attn_factor to 1\.25"),
        ("olmo", {"attention.layer_norm_epsilon": 1e-6}, r"olmo\.attention\.layer_norm_epsilon to 9\.99"),
        ("olmo2", {"rope.scaling.type": "yarn"}, r"olmo2\.rope\.scaling\.type to yarn"),
    ],
)
def test_what_cannot_be_followed_is_named(architecture: str, more: dict[str, Any], named: str, tmp_path: Path) -> None:
    write(architecture, tmp_path / "model.gguf", more)
    with pytest.raises(ModelFileError, match=named):
        load_model(str(tmp_path / "model.gguf"), cache_dir=tmp_path)


def test_settings_that_change_nothing_are_taken(tmp_path: Path) -> None:
    more = {"vocab_size": VOCABULARY, "pooling_type": 0, "attention.causal": True, "expert_gating_func": 1,
            "expert_weights_scale": 1.0, "rope.scaling.type": "none", "rope.scaling.finetuned": False}  # fmt: skip
    model = write("qwen3moe", tmp_path / "model.gguf", more)
    torch.testing.assert_close(ours(tmp_path / "model.gguf", tmp_path)[1], model(IDS).logits, atol=1e-3, rtol=1e-3)


def test_a_list_of_layers_with_a_window_is_followed(tmp_path: Path) -> None:
    pattern = [True, False, True, False, True, False, False]
    model = write("gemma3", tmp_path / "model.gguf", {"attention.sliding_window_pattern": pattern})
    got = ours(tmp_path / "model.gguf", tmp_path)[1]
    assert not torch.allclose(got, model(IDS).logits, atol=1e-2)
    kinds = ["sliding_attention" if slides else "full_attention" for slides in pattern]
    for layer, kind in zip(model.model.layers, kinds, strict=True):
        layer.attention_type = layer.self_attn.layer_type = kind
        layer.self_attn.is_sliding = kind == "sliding_attention"
        layer.self_attn.sliding_window = 24 if layer.self_attn.is_sliding else None
    model.config.layer_types = kinds
    torch.testing.assert_close(got, model(IDS).logits, atol=1e-3, rtol=1e-3)


def test_the_page_of_models_names_every_family() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("| a `.gguf` file |"))
    named = set(re.findall(r"[\w-]+", line))
    assert named >= FAMILIES.keys()


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0"])
@pytest.mark.parametrize("case", ["gemma", "gemma2", "gemma3 4B", "phi3", "phi3 128k, beyond"])
def test_ours_stay_as_small_as_in_their_file(
    case: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not small_weights.work():
        pytest.skip("no 4-bit operator here")
    encoding = gguf.GGMLQuantizationType[kind]
    written = gguf.GGUFWriter.add_tensor

    def packed(self: Any, name: str, tensor: Any) -> None:
        if tensor.ndim < 2:
            return written(self, name, tensor)
        return written(self, name, gguf.quants.quantize(tensor, encoding), raw_dtype=encoding)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", packed)
    write(case, tmp_path / "model.gguf")
    native = load_model(str(tmp_path / "model.gguf"), precision="native", cache_dir=tmp_path)
    assert (native.facts.path, native.facts.precision) == ("own llama", kind)
    products = {type(layer.qkv) for layer in _layers(native.network)}  # type: ignore[attr-defined]
    assert products <= {kernels.Int4, kernels.Int8Rows, kernels.Sliced}
    few = native.network.forward(IDS, native.network.cache(80, [0]), all_logits=True).all_logits()  # type: ignore[attr-defined]
    steps = native.network.cache(80, [0])  # type: ignore[attr-defined]
    one = torch.cat([native.network.forward(IDS[:, i : i + 1], steps).logits() for i in range(80)])  # type: ignore[attr-defined]
    exact = ours(tmp_path / "model.gguf", tmp_path)[1]
    far = divergence(exact, exact.flip(-1))
    assert divergence(exact, few) < 0.02 * far
    begin = 64 if "beyond" in case else 0  # shorter texts turn otherwise
    assert divergence(exact[0, begin:], one[begin:]) < 0.02 * far


def _layers(network: Any) -> Any:
    """Of a network of ours, under what makes its steps fast."""
    inner = getattr(network, "_networks", {False: network})[False]
    return getattr(inner, "_inner", inner)._layers


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "F16"])
def test_quantized_experts_are_unpacked_exactly(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = gguf.GGMLQuantizationType[kind]
    written = gguf.GGUFWriter.add_tensor

    def packed(self: Any, name: str, tensor: Any) -> None:
        if "_exps" not in name:
            return written(self, name, tensor)
        return written(self, name, gguf.quants.quantize(tensor, encoding), raw_dtype=encoding)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", packed)
    sizes = {"moe_intermediate_size": 64}
    monkeypatch.setitem(CASES, "qwen3moe", ("qwen3moe", "qwen3_moe", CASES["qwen3moe"][2] | sizes))
    model = write("qwen3moe", tmp_path / "model.gguf")
    for layer in model.model.layers:
        for weight in (layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj):
            values = gguf.quants.dequantize(gguf.quants.quantize(weight.detach().numpy(), encoding), encoding)
            weight.data = torch.from_numpy(np.array(values, dtype=np.float32))
    torch.testing.assert_close(ours(tmp_path / "model.gguf", tmp_path)[1], model(IDS).logits, atol=1e-3, rtol=1e-3)
