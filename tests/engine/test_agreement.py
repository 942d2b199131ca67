"""Our own networks are used only where they agree with transformers."""

import gc
import weakref
from pathlib import Path

import pytest
import torch

from engine.loading import load_model
from engine.networks import agreement, kernels
from engine.networks.attention import FixedStep
from engine.networks.sources import open_source
from engine.networks.traced import PAYS_AFTER, TracedNetwork
from engine.networks.used import recorded
from tests.conftest import save_tiny


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_outcome_is_measured_once_and_remembered(
    tiny_llama: Path, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(str(tiny_llama), precision=precision, cache_dir=tmp_path)
    assert model.facts.path == "own llama"
    assert model.facts.path_reason.startswith("agrees with transformers to ")
    monkeypatch.setattr(agreement, "compare", lambda *_: pytest.fail("measured again"))
    assert load_model(str(tiny_llama), precision=precision, cache_dir=tmp_path).facts == model.facts


def test_a_wrong_product_sends_the_model_through_transformers(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = load_model(str(tiny_llama), precision="float32", cache_dir=tmp_path)
    monkeypatch.setattr(
        kernels.Packed, "__call__", lambda self, x: kernels.F.linear(x, self.weight.to_dense()).flip(-1)
    )
    elsewhere = tmp_path / "other"
    wrong = load_model(str(tiny_llama), precision="float32", cache_dir=elsewhere)
    assert wrong.facts.path == "transformers"
    assert "logits differ by" in wrong.facts.path_reason
    assert [(used.own, used.network) for used in recorded(elsewhere)] == [(False, "transformers")]
    ids = torch.tensor([[7, 8, 9]])
    monkeypatch.undo()
    torch.testing.assert_close(
        wrong.network.forward(ids, wrong.network.cache(9, [0])).logits(),
        right.network.forward(ids, right.network.cache(9, [0])).logits(),
        atol=1e-4,
        rtol=1e-4,
    )


def test_an_own_network_that_fails_is_not_used(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("illegal instruction\nmore")

    monkeypatch.setattr(kernels.Packed, "__call__", fail)
    model = load_model(str(tiny_gpt2), precision="float32", cache_dir=tmp_path)
    assert model.facts.path == "transformers"
    assert model.facts.path_reason == "our own network fails on this machine: illegal instruction"


def test_an_architecture_without_a_network_of_ours_says_so(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "gpt-neox", "gpt_neox", intermediate_size=64)
    facts = load_model(str(folder), precision="float32", cache_dir=tmp_path).facts
    assert (facts.path, facts.path_reason) == ("transformers", "architecture gpt_neox")
    assert [used.why for used in recorded(tmp_path)] == ["architecture gpt_neox"]


def test_a_damaged_record_is_measured_again(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "networks.json").write_text('{"x": [1')
    assert load_model(str(tiny_llama), precision="float32", cache_dir=tmp_path).facts.path == "own llama"
    assert len(recorded(tmp_path)) == 1


KINDS: dict[str, dict[str, object]] = {
    "llama": {},
    "gpt2": {},
    "mistral": {"sliding_window": 5},
    "gemma3_text": {"sliding_window": 5, "head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "phi3": {"pad_token_id": 0},
}


@pytest.fixture(scope="module", params=list(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp(request.param), request.param, **KINDS[request.param])


def test_a_step_of_fixed_shapes_gives_the_same_logits(folder: Path) -> None:
    """What a CUDA graph replays, run here without one."""
    network = open_source(folder).own(torch.float32)
    prompts = torch.tensor([[5, 9, 7, 3], [0, 0, 8, 2]])
    usual, fixed = network.cache(12, [0, 2]), network.cache(12, [0, 2])
    network.forward(prompts, usual)
    network.forward(prompts, fixed)
    step = FixedStep(fixed)  # type: ignore[arg-type]
    for id in (11, 12, 13):
        ids = torch.tensor([[id], [id + 20]])
        expected = network.forward(ids, usual).logits()
        got = network.forward(ids, step).logits()
        step.position += 1
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("padding", [[0], [0, 0], [0, 2]])
def test_a_traced_step_gives_the_same_hidden_states_at_any_length(padding: list[int], folder: Path) -> None:
    inner = open_source(folder).own(torch.float32)
    traced = TracedNetwork(inner)
    traced._taken[len(padding), any(padding)] = PAYS_AFTER
    for capacity, prompt in ((8, 4), (30, 17)):
        ids = torch.arange(3, 3 + prompt).repeat(len(padding), 1)
        usual, quick = inner.cache(capacity, padding), traced.cache(capacity, padding)
        inner.forward(ids, usual)
        traced.forward(ids, quick)
        for id in (11, 12, 13):
            step = torch.full((len(padding), 1), id)
            expected, got = inner.forward(step, usual), traced.forward(step, quick)
            torch.testing.assert_close(got.hidden, expected.hidden, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(got.logits(), expected.logits(), atol=1e-5, rtol=1e-5)
    assert all(step is not None for step in traced._steps.values())


def test_a_trace_that_computes_something_else_is_not_used(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = TracedNetwork(open_source(tiny_llama).own(torch.float32))
    make = torch._C._create_function_from_graph
    monkeypatch.setattr(
        torch._C, "_create_function_from_graph", lambda name, graph: lambda *inputs: make(name, graph)(*inputs) + 1
    )
    traced.prepare()
    assert set(traced._steps.values()) == {None}
    assert traced.forward(torch.tensor([[5]]), traced.cache(4, [0])).logits().shape == (1, traced.vocabulary_size)


def test_a_trace_goes_with_its_network(tiny_llama: Path) -> None:
    network = TracedNetwork(open_source(tiny_llama).own(torch.float32))
    network.prepare()
    weight = weakref.ref(network._inner._embedding.weight)  # type: ignore[attr-defined]
    del network
    gc.collect()
    assert weight() is None
