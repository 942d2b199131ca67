"""GGUF files in parts, and settings and tensors that must not be passed over."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.base.errors import ModelFileError
from engine.loading import load_model
from engine.models import catalog
from engine.networks.gguf_parts import gguf_parts
from engine.networks.sources import GgufSource, open_source
from tests.conftest import save_tiny
from tests.engine.test_networks import write_gguf


def tiny(tmp_path: Path, kind: str = "llama", **changes: Any) -> Path:
    (tmp_path / "folder").mkdir(exist_ok=True)
    return save_tiny(tmp_path / "folder", kind, **changes)


def logits(source: GgufSource | Any, ids: torch.Tensor, *, own: bool = True) -> torch.Tensor:
    network = source.own(torch.float32) if own else source.reference(torch.float32)
    return network.forward(ids, network.cache(ids.shape[1], [0]), all_logits=True).all_logits()


IDS = torch.arange(40)[None] * 7 % 256


def test_a_file_in_parts_is_the_file(tmp_path: Path) -> None:
    folder = tiny(tmp_path)
    whole = write_gguf(folder, tmp_path / "whole.gguf", "llama")
    write_gguf(folder, tmp_path / "model.gguf", "llama", split_max_tensors=8)
    parts = sorted(tmp_path.glob("model-*.gguf"))
    assert len(parts) == 3
    for part in parts:
        entry = catalog.find(str(part))
        assert (entry.title, entry.path) == ("model", parts[0])
        assert entry.size == sum(file.stat().st_size for file in parts)
    torch.testing.assert_close(logits(open_source(parts[1]), IDS), logits(open_source(whole), IDS), atol=0, rtol=0)
    before = catalog.identity(entry, parts[0])
    assert load_model(str(parts[2]), precision="float32", cache_dir=tmp_path).facts.title == "model"
    with parts[2].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    assert catalog.identity(entry, parts[0]) != before


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write_gguf(tiny(tmp_path), tmp_path / "model.gguf", "llama", split_max_tensors=8)
    (tmp_path / "model-00002-of-00003.gguf").unlink()
    with pytest.raises(ModelFileError, match=r"3 parts, and model-00002-of-00003\.gguf is not beside it"):
        load_model(str(tmp_path / "model-00001-of-00003.gguf"))
    (tmp_path / "model-00003-of-00003.gguf").rename(tmp_path / "other.gguf")
    with pytest.raises(ModelFileError, match="is a part of 3"):
        open_source(tmp_path / "other.gguf")
    with pytest.raises(ModelFileError, match="00001-of-00009"):
        gguf_parts(tmp_path / "model-00010-of-00009.gguf")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"attention.sliding_window": 16}, r"llama\.attention\.sliding_window to 16"),
        ({"rope.dimension_count": 6}, r"llama\.rope\.dimension_count to 6"),
        ({"attention.value_length": 8}, r"llama\.attention\.value_length to 8"),
        ({"expert_shared_count": 4}, r"llama\.expert_shared_count to 4"),
        ({"rope.scaling.original_context_length": 64, "rope.scaling.yarn_beta_fast": 8.0}, r"yarn_beta_fast to 8\.0"),
        ({"logit_scale": 0.5}, r"llama\.logit_scale to 0\.5"),
        ({"rope.scaling.type": "longrope"}, r"llama\.rope\.scaling\.type to longrope"),
        ({"attention.causal": False}, r"llama\.attention\.causal to False"),
        ({"attention.something_new": 1.5}, r"llama\.attention\.something_new to 1\.5"),
    ],
)
def test_settings_that_cannot_be_followed_are_named(settings: dict[str, Any], named: str, tmp_path: Path) -> None:
    path = write_gguf(tiny(tmp_path), tmp_path / "model.gguf", "llama", settings)
    with pytest.raises(ModelFileError, match=named):
        open_source(path)


def test_settings_that_change_nothing_are_taken(tmp_path: Path) -> None:
    settings = {
        "rope.dimension_count": 12,
        "vocab_size": 256,
        "expert_count": 0,
        "attention.sliding_window": 512,
        "rope.scaling.type": "none",
    }
    path = write_gguf(tiny(tmp_path), tmp_path / "model.gguf", "llama", settings)
    assert open_source(path).config["head_dim"] == 12


@pytest.mark.parametrize("name", ["blk.0.attn_q_norm.weight", "blk.1.ffn_gate.bias"])
def test_a_tensor_that_the_model_does_not_have_is_named(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    import gguf

    written = gguf.GGUFWriter.write_header_to_file

    def with_one_more(self: Any, *args: Any) -> None:
        self.add_tensor(name, np.ones(12 if "norm" in name else 96, dtype=np.float32))
        written(self, *args)

    monkeypatch.setattr(gguf.GGUFWriter, "write_header_to_file", with_one_more)
    path = write_gguf(tiny(tmp_path), tmp_path / "model.gguf", "llama")
    with pytest.raises(ModelFileError, match=name):
        load_model(str(path), precision="float32", cache_dir=tmp_path)


def test_a_factor_without_a_kind_is_linear_as_in_llama_cpp(tmp_path: Path) -> None:
    path = write_gguf(tiny(tmp_path), tmp_path / "model.gguf", "llama", {"rope.scaling.factor": 4.0})
    rope = open_source(path).config["rope_parameters"]
    assert (rope["rope_type"], rope["factor"]) == ("linear", 4.0)


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 128}


@pytest.mark.parametrize(
    ("changes", "settings", "path"),
    [
        ({"mlp_bias": True, "attention_bias": True}, {}, "own llama"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0,
                              "original_max_position_embeddings": 128}}, YARN, "transformers"),
    ],
)  # fmt: skip
def test_variants_have_the_logits_of_transformers(
    changes: dict[str, Any], settings: dict[str, Any], path: str, tmp_path: Path
) -> None:
    import transformers

    folder = tiny(tmp_path, **changes)
    if "mlp_bias" in changes:  # transformers begins with zeros
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter.data, std=0.5)
        model.save_pretrained(folder)
    file = write_gguf(folder, tmp_path / "model.gguf", "llama", settings)
    loaded = load_model(str(file), precision="float32", cache_dir=tmp_path)
    assert loaded.facts.path == path
    expected = transformers.AutoModelForCausalLM.from_pretrained(folder)(IDS).logits
    network = loaded.network  # type: ignore[attr-defined]
    got = network.forward(IDS, network.cache(40, [0]), all_logits=True).all_logits()
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-4)


def test_more_layers_than_tensors_are_not_written_out(tmp_path: Path) -> None:
    folder = tiny(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 10**9}
    (folder / "config.json").write_text(json.dumps(config))
    file = write_gguf(folder, tmp_path / "many.gguf", "llama")
    with pytest.raises(ModelFileError, match=r"llama\.block_count to 1000000000, which cannot be followed"):
        open_source(file)
