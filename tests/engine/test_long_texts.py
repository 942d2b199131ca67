"""Positions that turn otherwise in long texts (Phi-3), and windows, against transformers' module over whole texts."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.loading import load_model
from engine.networks import turning
from engine.networks.door import fails
from engine.networks.network import Network
from engine.networks.turning import TurningNetwork
from tests.conftest import save_tiny
from tests.tiny_models import save_model

BOUNDARY = 20
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 0.5,
    "short_factor": [1.0, 1.1, 1.2],
    "long_factor": [4.0, 3.0, 1.5],
}
SIZES = {"rope_parameters": LONGROPE, "original_max_position_embeddings": BOUNDARY, "pad_token_id": 0}
IDS = torch.randint(3, 300, (3, 2 * BOUNDARY), generator=torch.Generator().manual_seed(0))


class Both:
    """Our network, and transformers' module asked for a whole text at every question."""

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        import transformers

        options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
        self.module = transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()
        loaded = load_model(str(folder), precision="float32", cache_dir=cache_dir)
        assert loaded.facts.path == "own llama", loaded.facts.path_reason
        self.network: Network = loaded.network  # type: ignore[attr-defined]

    @torch.inference_mode()
    def right(self, ids: Tensor) -> Tensor:
        """Logits after a text `[tokens]`, `[vocabulary]`."""
        return self.module(ids[None], use_cache=False).logits[0, -1]  # type: ignore[no-any-return]

    def check(self, logits: Tensor, texts: Sequence[Tensor]) -> None:
        for row, text in zip(logits, texts, strict=True):
            torch.testing.assert_close(row, self.right(text), atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = save_tiny(tmp_path_factory.mktemp("phi3"), "phi3", **SIZES)
    both = Both(folder, tmp_path_factory.mktemp("cache"))
    assert isinstance(both.network, TurningNetwork)
    return both


def test_the_boundary_changes_what_is_right(both: Both) -> None:
    """Else the tests below could not fail."""
    text = IDS[0, : BOUNDARY + 1]
    short = both.network._networks[False]  # type: ignore[attr-defined]
    logits = short.forward(text[None], short.cache(BOUNDARY + 1, [0])).logits()[0]
    assert not torch.allclose(logits, both.right(text), atol=1e-2)


def test_steps_over_the_boundary(both: Both) -> None:
    text = IDS[0, : BOUNDARY + 5]
    cache = both.network.cache(len(text), [0])
    both.network.forward(text[None, : BOUNDARY - 3], cache)
    for place in range(BOUNDARY - 3, len(text)):
        output = both.network.forward(text[None, place : place + 1], cache)
        both.check(output.logits(), [text[: place + 1]])


@pytest.mark.parametrize("cuts", [(3, 9, 28), (20, 1, 19), (19, 2, 19), (40,)])
def test_parts_of_any_size(both: Both, cuts: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turning, "AT_ONCE", 7)
    cache = both.network.cache(IDS.shape[1], [0])
    for part in IDS[:1].split(list(cuts), dim=1):
        output = both.network.forward(part, cache, all_logits=True)
    text = IDS[0, : cache.length]
    both.check(output.logits(), [text])
    with torch.inference_mode():
        whole = both.module(text[None], use_cache=False).logits[:, -part.shape[1] :]
    torch.testing.assert_close(output.all_logits(), whole, atol=1e-4, rtol=1e-4)


def test_lanes_on_both_sides(both: Both) -> None:
    """Of three lanes one is beyond the boundary from the beginning, one crosses it, one stays within."""
    padding = [0, 4, 15]
    rows = torch.stack([torch.cat([torch.zeros(pad, dtype=torch.long), row]) for pad, row in zip(padding, _rows(28))])
    cache = both.network.cache(28, padding)

    def texts(end: int, lanes: Sequence[int] = (0, 1, 2)) -> list[Tensor]:
        return [rows[lane, padding[lane] : end] for lane in lanes]

    both.check(both.network.forward(rows[:, :22], cache).logits(), texts(22))
    for place in range(22, 27):
        both.check(both.network.forward(rows[:, place : place + 1], cache).logits(), texts(place + 1))
    cache = cache.gather([2, 1])
    both.check(both.network.forward(rows[[2, 1], 27:28], cache).logits(), texts(28, (2, 1)))


def _rows(length: int) -> list[Tensor]:
    return [IDS[0, :length], IDS[1, : length - 4], IDS[2, : length - 15]]


def test_back_over_the_boundary_and_on(both: Both) -> None:
    text, other = IDS[0, : BOUNDARY + 6], IDS[1]
    cache = both.network.cache(IDS.shape[1], [0])
    both.network.forward(text[None], cache)
    copy = cache.gather([0], IDS.shape[1])
    copy.truncate(BOUNDARY - 5)
    for end in (BOUNDARY - 2, BOUNDARY, BOUNDARY + 1, BOUNDARY + 4):
        output = both.network.forward(other[None, copy.length : end], copy)
        both.check(output.logits(), [torch.cat([text[: BOUNDARY - 5], other[BOUNDARY - 5 : end]])])
    cache.truncate(BOUNDARY + 5)
    both.check(both.network.forward(text[None, -1:], cache).logits(), [text])


@pytest.mark.parametrize("length", [BOUNDARY - 1, BOUNDARY, BOUNDARY + 3])
def test_candidates_beside_each_other(both: Both, length: int) -> None:
    """For the place up to the boundary, the first beyond it, and one far beyond, in two lanes of different length."""
    padding = [0, 2]
    rows = torch.stack([IDS[0, :length], torch.cat([torch.zeros(2, dtype=torch.long), IDS[1, : length - 2]])])
    candidates = torch.tensor([[5, 6, 7], [8, 9, 10]])
    cache = both.network.cache(length + 4, padding)
    both.network.forward(rows, cache)
    output = both.network.forward(candidates, cache, siblings=True, all_logits=True)
    for which in range(3):
        texts = [torch.cat([rows[lane, padding[lane] :], candidates[lane, which : which + 1]]) for lane in range(2)]
        both.check(output.logits([which, which]), texts)
    cache.choose([2, 1])
    chosen = candidates[[0, 1], [2, 1]][:, None]
    more = torch.tensor([[11], [12]])
    texts = [torch.cat([rows[lane, padding[lane] :], chosen[lane], more[lane]]) for lane in range(2)]
    both.check(both.network.forward(more, cache).logits(), texts)


def test_the_door_measures_within_the_boundary(both: Both) -> None:
    assert fails(both.network, torch.float32) is None


def test_a_boundary_that_no_text_crosses_changes_nothing(tmp_path: Path) -> None:
    sizes = SIZES | {"original_max_position_embeddings": 512}
    within = Both(save_tiny(tmp_path / "phi3", "phi3", **sizes), tmp_path)
    assert not isinstance(within.network, TurningNetwork)
    cache = within.network.cache(40, [0])
    within.check(within.network.forward(IDS[:1], cache).logits(), [IDS[0]])


def _as_before(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], **renamed: str) -> Path:
    """A folder with the configuration, and names of weights, that earlier versions of transformers wrote."""
    path = folder / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    weights = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        for old, new in renamed.items():
            name = name.replace(old.replace("_of_", "."), new)
        weights[name] = weight
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def _gemma_before(config: dict[str, Any]) -> dict[str, Any]:
    for name in ("rope_parameters", "layer_types", "tie_word_embeddings", "hidden_activation", "head_dim"):
        config.pop(name, None)
    rope = {"rope_theta": 500_000, "rope_local_base_freq": 9_000.0, "sliding_window_pattern": 2}
    return config | rope | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}


def _phi3_before(config: dict[str, Any]) -> dict[str, Any]:
    rope = config.pop("rope_parameters")
    factors = {name: rope[name] for name in ("short_factor", "long_factor")}
    return config | {
        "rope_scaling": {"type": "longrope", **factors},
        "rope_theta": 9_000.0,
        "partial_rotary_factor": 0.5,
    }


GEMMA = {"head_dim": 256, "sliding_window": 8, "num_hidden_layers": 3, "query_pre_attn_scalar": 100}


@pytest.mark.parametrize("kind", ["gemma3_text", "phi3"])
def test_configurations_of_earlier_versions(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", kind, **(GEMMA if kind == "gemma3_text" else SIZES))
    both = Both(_as_before(folder, _gemma_before if kind == "gemma3_text" else _phi3_before), tmp_path)
    for length in (BOUNDARY, 2 * BOUNDARY):
        logits = both.network.forward(IDS[:1, :length], both.network.cache(length, [0])).logits()
        both.check(logits, [IDS[0, :length]])


def test_the_text_part_of_a_model_that_sees(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "gemma3", "gemma3", text_config=GEMMA | {"layer_types": "default"})

    def before(config: dict[str, Any]) -> dict[str, Any]:
        config.pop("tie_word_embeddings", None)
        return config | {"text_config": _gemma_before(config["text_config"])}

    names = {"model_of_language_model_of_": "language_model.model.", "model_of_vision_tower_of_": "vision_tower."}
    names |= {"model_of_multi_modal_projector_of_": "multi_modal_projector."}
    both = Both(_as_before(folder, before, **names), tmp_path)
    assert any(name.startswith("language_model.model.layers.0.") for name in load_file(folder / "model.safetensors"))
    assert both.module.config.get_text_config().rope_parameters["sliding_attention"]["rope_theta"] == 9_000.0
    both.check(both.network.forward(IDS[:1], both.network.cache(40, [0])).logits(), [IDS[0]])


def test_padding_that_a_prompts_later_part_holds_goes_into_no_state(tmp_path: Path) -> None:
    """Mamba-2 keeps states alone: a short text's padding beside a long one must not run into them."""
    model = load_model(str(save_model(tmp_path / "mamba2", "mamba2")), precision="float32")
    network = model.network  # type: ignore[attr-defined]
    assert network.at_once(40, 1) == 1
    assert network.way.rows == "padded"
    text, short = IDS[0], IDS[1, 30:]
    rows = torch.stack([text, torch.cat([torch.zeros(30, dtype=torch.long), short])])
    cache = network.cache(40, [0, 30])
    for part in rows.split(16, dim=1):
        logits = network.forward(part, cache).logits()
    for row, alone in zip(logits, (text, short), strict=True):
        torch.testing.assert_close(row, network.whole(alone[None]).logits()[0], atol=1e-4, rtol=1e-4)
