"""Shares against transformer-lens, where somebody has installed it (`pip install transformer-lens`)."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from engine.inside.attribution import attribution
from engine.inside.record import record
from tests.engine.inside_families import Folders, Models, ids_of

bridge = pytest.importorskip("transformer_lens.model_bridge", reason="transformer-lens is not installed")


def tokenizer(folder: Path, saved: Path) -> object:
    """transformers' own, which transformer-lens wants to have."""
    special = {"eos_token": "<|end|>", "bos_token": "<|end|>"}
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special).save_pretrained(saved)
    return AutoTokenizer.from_pretrained(saved, add_bos_token=True)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_shares_are_those_of_transformer_lens(name: str, model_of: Models, folder_of: Folders, tmp_path: Path) -> None:
    ids = ids_of(model_of(name))
    theirs = AutoModelForCausalLM.from_pretrained(folder_of(name), attn_implementation="eager")
    hooked = bridge.TransformerBridge.boot_transformers(
        str(folder_of(name)), hf_model=theirs, tokenizer=tokenizer(folder_of(name), tmp_path), device="cpu"
    )
    with torch.inference_mode():
        _logits, cache = hooked.run_with_cache(torch.tensor([ids]))
        stack, labels = cache.decompose_resid(return_labels=True)
        shares = cache.logit_attrs(stack, 11, incorrect_tokens=12)[:, 0, 7].tolist()
    expected = dict.fromkeys(["embedding"], 0.0)
    for label, share in zip(labels, shares, strict=True):
        layer, _, part = label.partition("_")
        key = f"{'attention' if part == 'attn_out' else 'mlp'} {layer}" if layer.isdigit() else "embedding"
        expected[key] = expected.get(key, 0) + share
    found = attribution(record(model_of(name), ids), 7, 11, 12)
    assert {part.name: part.share for part in found.parts if part.name != "bias"} == pytest.approx(expected, abs=1e-4)
