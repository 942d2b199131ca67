"""GGUF files of other architectures than ours, against the modules they were written from."""

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.base.errors import ModelFileError
from engine.loading import load_model
from engine.networks.gguf_families import FAMILIES
from tests.gguf_converted import VOCABULARY, family_settings, write_family

PYTHON = os.environ.get("LOGITLAB_LLAMA_PYTHON", "")
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
HEAD = {"head_dim": 32}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("gemma2", HEAD | {"query_pre_attn_scalar": 32, "sliding_window": 24, "attn_logit_softcapping": 20.0,
                                 "final_logit_softcapping": 10.0}),
    "gemma3": ("gemma3_text", HEAD | {"query_pre_attn_scalar": 32, "sliding_window": 24}),
    "granite": ("granite", {"attention_multiplier": 0.2, "embedding_multiplier": 3.0, "residual_multiplier": 0.5,
                            "logits_scaling": 4.0}),
    "phi3": ("phi3", {"original_max_position_embeddings": 256, "sliding_window": None}),
    "gpt2": ("gpt2", {"num_key_value_heads": None, "intermediate_size": None, "n_inner": 128}),
    "smollm3": ("smollm3", {}),
    "olmo2": ("olmo2", {}),
    "starcoder2": ("starcoder2", {"sliding_window": None}),
}  # fmt: skip
IDS = torch.arange(80)[None] * 7 % VOCABULARY


def write(architecture: str, path: Path, more: dict[str, Any] | None = None) -> Any:
    """A random model in a file. Returns the module."""
    import transformers

    kind, changes = CASES[architecture]
    sizes = {name: value for name, value in (SIZES | changes).items() if value is not None or name == "sliding_window"}
    config = transformers.AutoConfig.for_model(kind, **sizes)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # norms begin with ones, biases with zeros
        if parameter.dim() == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    settings = family_settings(config)
    if architecture == "gpt2":
        settings["feed_forward_length"] = 128
    write_family(model, path, architecture, settings | (more or {}))
    return model


def ours(path: Path, cache_dir: Path) -> tuple[Any, torch.Tensor]:
    loaded = load_model(str(path), precision="float32", cache_dir=cache_dir)
    network = loaded.network  # type: ignore[attr-defined]
    return loaded, network.forward(IDS, network.cache(IDS.shape[1], [0]), all_logits=True).all_logits()


def test_every_family_is_tried() -> None:
    assert CASES.keys() == FAMILIES.keys()


@pytest.mark.parametrize("architecture", CASES)
def test_a_family_has_the_logits_of_its_source(architecture: str, tmp_path: Path) -> None:
    model = write(architecture, tmp_path / "model.gguf")
    loaded, got = ours(tmp_path / "model.gguf", tmp_path)
    assert loaded.facts.path == "transformers"
    torch.testing.assert_close(got, model(IDS).logits, atol=1e-3, rtol=1e-3)


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
@pytest.mark.parametrize("architecture", CASES)
def test_a_family_has_the_logits_of_llama_cpp(architecture: str, tmp_path: Path) -> None:
    write(architecture, tmp_path / "model.gguf")
    _loaded, got = ours(tmp_path / "model.gguf", tmp_path)
    np.save(tmp_path / "ids.npy", IDS[0].numpy())
    command = [PYTHON, "-c", IN_LLAMA, tmp_path / "model.gguf", tmp_path / "ids.npy", tmp_path / "logits.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    expected = torch.from_numpy(np.load(tmp_path / "logits.npy"))[None]
    assert float((got - expected).norm() / expected.norm()) < 0.005


@pytest.mark.parametrize(
    ("architecture", "more", "named"),
    [
        ("gemma3", {"final_something": 2.0}, r"gemma3\.final_something to 2\.0"),
        ("granite", {"expert_count": 8}, r"granite\.expert_count to 8"),
        ("phi3", {"rope.scaling.original_context_length": 64}, r"phi3\.rope\.scaling\.original_context_length to 64"),
        ("olmo2", {"rope.dimension_count": 8}, r"olmo2\.rope\.dimension_count to 8"),
        ("olmo2", {"rope.scaling.type": "yarn"}, r"olmo2\.rope\.scaling\.type to yarn"),
    ],
)
def test_what_cannot_be_followed_is_named(architecture: str, more: dict[str, Any], named: str, tmp_path: Path) -> None:
    write(architecture, tmp_path / "model.gguf", more)
    with pytest.raises(ModelFileError, match=named):
        load_model(str(tmp_path / "model.gguf"), cache_dir=tmp_path)
