"""Stages beside llama.cpp's own samplers on the same logits, alone and in its default order.

`make test-remote` runs it; it is skipped without `LOGITLAB_LLAMA_PYTHON`, a Python with llama-cpp-python.
"""

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.generation.config import GenerationConfig
from engine.generation.distribution import Distribution, distribution
from engine.generation.stages import mirostat
from engine.generation.stages.carried import carried_at
from engine.models import catalog
from engine.models.fetch import fetch
from engine.models.tokenizer_files import load_tokenizer
from engine.text.tokenizer import Tokenizer
from tests.conftest import EMBEDDED

PYTHON = os.environ.get("LOGITLAB_LLAMA_PYTHON", "")
SIZE = 400
# Each case's samplers on its logits, after they accepted its text; several rounds for one that keeps state.
RUN = """
import ctypes, json, sys
import llama_cpp as c
cases = json.load(open(sys.argv[2]))
params = c.llama_model_default_params()
params.vocab_only = True
model = c.llama_model_load_from_file(sys.argv[1].encode(), params)
vocab = c.llama_model_get_vocab(model)

def dry(multiplier, base, allowed, last, breakers):
    texts = (ctypes.c_char_p * len(breakers))(*[text.encode() for text in breakers])
    return c.llama_sampler_init_dry(vocab, multiplier, base, allowed, last, texts, len(breakers))

kinds = {
    "penalties": c.llama_sampler_init_penalties, "dry": dry, "top_n_sigma": c.llama_sampler_init_top_n_sigma,
    "top_k": c.llama_sampler_init_top_k, "typical": c.llama_sampler_init_typical, "top_p": c.llama_sampler_init_top_p,
    "min_p": c.llama_sampler_init_min_p, "xtc": c.llama_sampler_init_xtc, "temp": c.llama_sampler_init_temp_ext,
    "mirostat": c.llama_sampler_init_mirostat_v2,
}
found = []
for case in cases:
    samplers = [kinds[name](*rest) for name, *rest in case["samplers"]]
    for sampler in samplers:
        for id in case["text"]:
            c.llama_sampler_accept(sampler, id)
    rounds = []
    for logits in case["logits"]:
        data = (c.llama_token_data * len(logits))(*[c.llama_token_data(i, x, 0.0) for i, x in enumerate(logits)])
        array = c.llama_token_data_array(data, len(logits), -1, False)
        for sampler in samplers:
            c.llama_sampler_apply(sampler, ctypes.byref(array))
        rounds.append({
            "left": [[array.data[i].id, array.data[i].logit] for i in range(array.size)],
            "selected": array.data[array.selected].id if array.selected >= 0 else None,
        })
    found.append(rounds)
json.dump(found, open(sys.argv[3], "w"))
"""

pytestmark = pytest.mark.skipif(not PYTHON, reason="llama-cpp-python is not there: make test-remote")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    entry = catalog.find(EMBEDDED)
    return load_tokenizer(entry, fetch(entry, lambda _progress: None))


def of_llama_cpp(cases: list[dict[str, Any]], folder: Path) -> list[list[dict[str, Any]]]:
    """What llama.cpp's samplers leave of each case's logits."""
    (folder / "run.py").write_text(RUN)
    (folder / "cases.json").write_text(json.dumps(cases))
    path = fetch(catalog.find(EMBEDDED), lambda _progress: None)
    command = [PYTHON, folder / "run.py", path, folder / "cases.json", folder / "found.json"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads((folder / "found.json").read_text())


def case(config: GenerationConfig, seed: int) -> dict[str, Any]:
    """Logits and a text that repeats itself, in the ids that a configuration's samplers see."""
    generator, chance = torch.Generator().manual_seed(seed), random.Random(seed)
    logits = (torch.randperm(SIZE, generator=generator) / 40.0 + torch.rand(SIZE, generator=generator) / 1000).tolist()
    text: list[int] = []
    while len(text) < 80:
        start = chance.randrange(len(text) + 1)
        again = text[start : start + chance.randint(0, 12)]
        text += again if again and chance.random() < 0.7 else [chance.randrange(SIZE)]
    rows = [logits]
    samplers: list[list[Any]] = []
    for name in ("penalties", "dry", "top_n_sigma", "top_k", "typical", "top_p", "min_p", "xtc", "temp"):
        samplers += SAMPLERS[name](config)
    return {"samplers": samplers, "text": text, "logits": rows}


def _penalties(config: GenerationConfig) -> list[list[Any]]:
    window = config.penalty_window or 4096
    return [["penalties", SIZE, window, config.repetition_penalty, config.frequency_penalty, config.presence_penalty]]


def _dry(config: GenerationConfig) -> list[list[Any]]:
    if not config.dry_multiplier:
        return []
    window = config.dry_window or 4096
    breakers = list(config.dry_breakers)
    return [["dry", config.dry_multiplier, config.dry_base, config.dry_allowed_length, window, breakers]]


SAMPLERS: dict[str, Any] = {
    "penalties": _penalties,
    "dry": _dry,
    "top_n_sigma": lambda config: [["top_n_sigma", config.top_n_sigma]] if config.top_n_sigma else [],
    "top_k": lambda config: [["top_k", config.top_k]] if config.top_k else [],
    "typical": lambda config: [["typical", config.typical_p, 1]] if config.typical_p else [],
    "top_p": lambda config: [["top_p", config.top_p, 1]] if config.top_p else [],
    "min_p": lambda config: [["min_p", config.min_p, 1]] if config.min_p else [],
    "xtc": lambda config: [["xtc", 1.0, config.xtc_threshold, 1, 0]] if config.xtc_probability else [],
    "temp": lambda config: [["temp", config.temperature, config.dynatemp_range, config.dynatemp_exponent]],
}


def configs() -> list[GenerationConfig]:
    """Each stage with several settings by itself, then random ones together."""
    alone: list[dict[str, Any]] = [
        {"frequency_penalty": 0.3, "presence_penalty": -0.4},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.5, "penalty_window": 7},
        *({"dry_multiplier": 0.8, "dry_allowed_length": allowed} for allowed in (1, 2, 5)),
        {"dry_multiplier": 2.0, "dry_base": 1.0, "dry_window": 20},
        {"dry_multiplier": 1.0, "dry_base": 3.0, "dry_breakers": ()},
        {"dry_multiplier": 1.0, "dry_breakers": ("the", " and", "q", "\n\n")},
        *({"top_n_sigma": n} for n in (0.2, 1.0, 2.5)),
        *({"xtc_probability": 1.0, "xtc_threshold": threshold} for threshold in (0.0, 0.01, 0.1, 0.5)),
        *({"dynatemp_range": reach, "temperature": 0.8} for reach in (0.5, 2.0)),
        {"dynatemp_range": 0.5, "dynatemp_exponent": 2.5},
    ]
    chance = random.Random(1)
    ranges: dict[str, tuple[Any, ...]] = {
        "repetition_penalty": (1.0, 1.2),
        "frequency_penalty": (0.0, 0.3),
        "dry_multiplier": (0.0, 0.8),
        "top_n_sigma": (None, 1.5, 0.5),
        "top_k": (None, 40, 5),
        "typical_p": (None, 0.7),
        "top_p": (None, 0.9, 0.5),
        "min_p": (None, 0.02),
        "xtc_probability": (0.0, 1.0),
        "xtc_threshold": (0.05, 0.2),
        "temperature": (0.6, 1.0, 1.5),
        "dynatemp_range": (0.0, 0.4),
    }
    # llama.cpp keeps what top-nσ cuts at −inf, of which its typical sampler makes 0 · −inf, and which its dynamic
    # temperature counts: neither stands beside top-nσ here.
    together = [{name: chance.choice(values) for name, values in ranges.items()} for _one in range(60)]
    together = [one | ({"typical_p": None, "dynatemp_range": 0.0} if one["top_n_sigma"] else {}) for one in together]
    return [GenerationConfig(strategy="sample", order=("llama.cpp",), **one) for one in (*alone, *together)]


def ours(config: GenerationConfig, one: dict[str, Any], tokenizer: Tokenizer) -> Distribution:
    """llama.cpp's penalties read all of the text that it is given, ours what is written of it: here that is all."""
    text = torch.tensor(one["text"])
    carried = {"xtc": 0.0}
    return distribution(torch.tensor(one["logits"][0]), text, config, prompt=0, carried=carried, tokenizer=tokenizer)


def test_each_stage_leaves_what_llama_cpps_sampler_leaves(tokenizer: Tokenizer, tmp_path: Path) -> None:
    every = configs()
    cases = [case(config, seed) for seed, config in enumerate(every)]
    for config, one, (theirs,) in zip(every, cases, of_llama_cpp(cases, tmp_path), strict=True):
        left = {id: logit for id, logit in theirs["left"] if logit > -1e30}
        final = ours(config, one, tokenizer).final
        kept = final.isfinite().nonzero()[:, 0].tolist()
        assert sorted(left) == kept, config.summary
        expected = torch.tensor([left[id] for id in kept])
        torch.testing.assert_close(final[kept], expected, atol=1e-5, rtol=1e-5, msg=str(config))


def test_mirostat_follows_what_llama_cpp_picked(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = GenerationConfig(strategy="sample", mirostat_tau=3.0, mirostat_eta=0.3)
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randn(SIZE, generator=generator) * 3 for _step in range(30)]
    samplers = [["mirostat", 7, config.mirostat_tau, config.mirostat_eta]]
    (rounds,) = of_llama_cpp([{"samplers": samplers, "text": [], "logits": [row.tolist() for row in rows]}], tmp_path)
    carried = carried_at(config, 0)
    assert carried == {"mirostat": mirostat.begin(config)}
    sizes = set()
    for index, (row, theirs) in enumerate(zip(rows, rounds, strict=True)):
        stage = distribution(row, None, config, carried=carried, tokenizer=tokenizer)
        ids, probabilities = stage.survivors
        assert ids is not None
        assert sorted(ids.tolist()) == sorted(id for id, _logit in theirs["left"])
        sizes.add(len(ids))
        picked = ids.tolist().index(theirs["selected"])
        carried = carried_at(config, index + 1, carried, float(probabilities[picked]))
    assert len(sizes) > 3
