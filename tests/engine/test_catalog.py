"""What is offered to choose from: in which order, and with which facts."""

import json
from pathlib import Path

import pytest

from engine.base.machine import room_for
from engine.models import catalog
from engine.models.suggested import SUGGESTED, suggested

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Shapes as the models' `config.json` have them; transformers' own modules count their parameters.
LLAMA = {"model_type": "llama", "tie_word_embeddings": True}
SHAPES = {
    "openai-community/gpt2": {"model_type": "gpt2"},
    "openai-community/gpt2-medium": {"model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16},
    "openai-community/gpt2-large": {"model_type": "gpt2", "n_embd": 1280, "n_layer": 36, "n_head": 20},
    "openai-community/gpt2-xl": {"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25},
    "HuggingFaceTB/SmolLM2-135M": LLAMA | {"shape": (49152, 576, 1536, 30, 9, 3)},
    "HuggingFaceTB/SmolLM2-360M": LLAMA | {"shape": (49152, 960, 2560, 32, 15, 5)},
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": LLAMA | {"shape": (49152, 2048, 8192, 24, 32, 32)},
    "Qwen/Qwen3-0.6B": LLAMA | {"model_type": "qwen3", "head_dim": 128, "shape": (151936, 1024, 3072, 28, 16, 8)},
    "Qwen/Qwen3-1.7B": LLAMA | {"model_type": "qwen3", "head_dim": 128, "shape": (151936, 2048, 6144, 28, 16, 8)},
    "google/gemma-3-270m-it": LLAMA
    | {"model_type": "gemma3_text", "head_dim": 256, "shape": (262144, 640, 2048, 18, 4, 1)},
    "google/gemma-3-1b-it": LLAMA
    | {"model_type": "gemma3_text", "head_dim": 256, "shape": (262144, 1152, 6912, 26, 4, 1)},
    "meta-llama/Llama-3.2-1B-Instruct": LLAMA | {"shape": (128256, 2048, 8192, 16, 32, 8)},
    "allenai/OLMo-2-0425-1B": {
        "model_type": "olmo2",
        "tie_word_embeddings": False,
        "shape": (100352, 2048, 8192, 16, 16, 16),
    },
    "EleutherAI/pythia-160m": {
        "model_type": "gpt_neox",
        "vocab_size": 50304,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
}
FIELDS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_published_shapes(name: str) -> None:
    import torch
    import transformers

    given = dict(SHAPES[name])
    if "shape" in given:
        given |= dict(zip((*FIELDS, "num_key_value_heads"), given.pop("shape"), strict=True))
    config = transformers.AutoConfig.for_model(**given)
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
    one = suggested(name)
    assert one is not None
    assert one.parameters == sum(parameter.numel() for parameter in module.parameters())
    stored_twice = module.get_output_embeddings().weight.numel()
    # Files hold each number at least once, and at most the embedding, or GPT-2's and Pythia's masks, besides.
    assert one.parameters <= one.weights * 1.001
    assert one.weights <= one.parameters * 1.001 + stored_twice


def test_every_suggestion_has_all_facts_and_an_id_of_the_hub() -> None:
    assert len({one.name for one in SUGGESTED}) == len(SUGGESTED)
    for one in SUGGESTED:
        assert catalog.find(one.name).kind == "hub"
        assert one.license
        assert one.tuned in ("base", "chat")
    assert {one.name.replace("-Instruct", "") for one in SUGGESTED} >= {
        name.replace("-Instruct", "") for name in SHAPES
    }


def test_a_model_has_the_same_facts_by_the_name_the_hub_leads_on(tmp_path: Path) -> None:
    assert (found := catalog.find("gpt2", tmp_path)).license == "mit"
    assert found.size == 548_000_000
    assert catalog.find("somebody/else", tmp_path).license == "unknown"


def cached(cache_dir: Path, name: str) -> None:
    folder = cache_dir / "hub" / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (snapshot / "model.safetensors").write_bytes(b"x")


def test_what_is_here_comes_first_then_what_was_used_last(tmp_path: Path, tiny_gpt2: Path) -> None:
    for name in ("a/one", "b/two", "gpt2"):
        cached(tmp_path, name)
    for name in ("Qwen/Qwen3-0.6B", str(tiny_gpt2), "gone/from-here", "/no/such/folder", "b/two", "b/two"):
        catalog.remember(name)
    assert catalog.last_used()[:2] == ["b/two", "/no/such/folder"]
    names = [entry.name for entry in catalog.offered(tmp_path)]
    assert names[:5] == ["smollm2-135m", "b/two", str(tiny_gpt2), "a/one", "gpt2"]
    assert names[5:7] == ["gone/from-here", "Qwen/Qwen3-0.6B"]
    assert names[7] == "openai-community/gpt2-medium"  # gpt2 itself is in the cache, by its other name
    assert len(set(names)) == len(names)


def test_models_used_are_remembered_within_bounds() -> None:
    for number in range(50):
        catalog.remember(f"a/{number}")
    assert len(catalog.last_used()) == catalog.USED_LIMIT
    assert catalog.default_name() == catalog.last_used()[0] == "a/49"


def test_room_is_that_of_the_weights_in_each_precision() -> None:
    assert [room_for(100, free) for free in (400, 399, 200, 199, None)] == [
        "float32",
        "bfloat16",
        "bfloat16",
        "none",
        "unknown",
    ]
    assert room_for(0, 10) == "unknown"
    embedded = catalog.find(catalog.EMBEDDED_NAME)
    assert catalog.room(embedded, catalog.EMBEDDED_WHEEL.gguf_bytes) == "float32"
    assert catalog.room(embedded, 1_000) == "none"
