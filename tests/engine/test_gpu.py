"""A model on a GPU gives what it gives on the processor: on a real GPU where there is one, else on a pretended one."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from engine.base.errors import MachineError, OutOfMemoryError
from engine.generation.config import GenerationConfig
from engine.generation.events import Event, Prefilled, Prefilling, Start, Stepped
from engine.generation.memory import LaneState
from engine.inside.attention import attention
from engine.inside.attribution import attribution, first_and_second
from engine.inside.lens import lens
from engine.inside.occlusion import occlusion
from engine.inside.record import record
from engine.install import doctor
from engine.loading import load_model
from engine.models.local import LocalModel, load_reference, reference_precision
from engine.networks import agreement, gpus, llama, operators
from engine.networks.graphs import ROOM, GraphedNetwork, _Step
from engine.networks.sources import open_source
from engine.networks.used import recorded
from engine.timing.runs import time_runs
from engine.timing.sweep import Sweep
from tests.conftest import save_tiny
from tests.pretend_gpu import Gpu, pretended

REAL = torch.cuda.is_available()
NONE = "no GPU here that torch can compute on"
GREEDY = GenerationConfig(max_new_tokens=14, ignore_eos=True)
SAMPLED = dataclasses.replace(GREEDY, strategy="sample", temperature=0.9, top_p=0.95, seed=3, repetition_penalty=1.2)
CONTRASTIVE = dataclasses.replace(GREEDY, strategy="contrastive", top_k=5, alpha=0.6, max_new_tokens=8)
PROMPTS = ("the sky above the city looked calm", "but rain", "and the robot asked")
TEXT = "the sky above the city looked calm, but rain asked the robot"
# The last one through transformers' module.
KINDS: dict[str, dict[str, object]] = {
    "llama": {},
    "gpt2": {},
    "gemma2": {"sliding_window": 5, "head_dim": 16},
    "gpt_neox": {},
}
SAME = {"abs": 2e-4, "rel": 2e-3}


@pytest.fixture(scope="module", params=["pretended", "real"])
def gpu(request: pytest.FixtureRequest) -> Iterator[Gpu | None]:
    """The pretended GPU, or `None` for the real one."""
    if request.param == "real":
        if not REAL:
            pytest.skip(NONE)
        yield None
    elif REAL:
        pytest.skip("there is a real GPU, on which the same is tried")
    else:
        with pytest.MonkeyPatch.context() as patch, pretended(patch) as made:
            yield made


@pytest.fixture
def pretend(gpu: Gpu | None) -> Gpu:
    """Where what a GPU is asked to do is to be counted or to fail."""
    if gpu is None:
        pytest.skip("what a real GPU does is not counted")
    return gpu


@pytest.fixture(scope="module", params=list(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp(request.param), request.param, **KINDS[request.param])


def load(folder: Path, tmp_path: Path, device: str = "cuda", precision: str = "float32") -> LocalModel:
    return load_model(str(folder), precision=precision, device=device, threads=1, cache_dir=tmp_path)


@pytest.fixture(scope="module")
def pair(gpu: Gpu | None, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalModel, LocalModel]:
    """A model on the processor, and on the GPU."""
    cache_dir = tmp_path_factory.mktemp("cache")
    return load(folder, cache_dir, "cpu"), load(folder, cache_dir)


def steps(events: Sequence[Event]) -> list[object]:
    """In the order of lanes: what was picked and with which numbers, as far as two kinds of kernels agree."""
    found = [event for event in events if isinstance(event, Stepped)]
    found.sort(key=lambda step: (step.lane, step.index))
    return [(s.lane, s.token.id, pytest.approx(s.probability, **SAME), s.kept) for s in found]


def written(model: LocalModel, starts: Sequence[str | Start], configs: Sequence[GenerationConfig]) -> list[object]:
    return steps(list(model.generate(starts, configs)))


def test_lanes_of_every_strategy_and_length_write_the_same_tokens(pair: tuple[LocalModel, LocalModel]) -> None:
    here, there = pair
    assert there.facts.device == "cuda"
    assert there.facts.path.endswith(", CUDA graph") or here.facts.path.startswith("transformers")
    configs = [GREEDY, SAMPLED, CONTRASTIVE]
    assert written(there, PROMPTS, configs) == written(here, PROMPTS, configs)
    # A text alone, whose steps are replayed most of the way.
    assert written(there, ["the"], [GREEDY]) == written(here, ["the"], [GREEDY])


def test_forced_tokens_and_what_is_kept_of_a_lane_go_on_the_same(pair: tuple[LocalModel, LocalModel]) -> None:
    configs = [GREEDY, CONTRASTIVE]
    both = []
    for model in pair:
        prompt = tuple(model.tokenizer.encode("the sky"))
        forced = tuple(model.tokenizer.encode_ids("calm but"))
        kept: list[LaneState] = []
        events = list(model.generate([Start(prompt, forced=forced)], configs, keep_state=kept.append))
        first = steps(events)
        at = len(forced) + 2
        again = []
        for state, config in zip(sorted(kept, key=lambda one: one.hidden is not None), configs):
            start = Start(prompt, written=state.ids[len(prompt) : len(prompt) + at], state=state)
            again += steps(list(model.generate([start], [config])))
        both.append((first, again))
    assert both[0] == both[1]


def test_scores_and_inspections_are_the_same(pair: tuple[LocalModel, LocalModel]) -> None:
    here, there = pair
    tokens = here.tokenizer.encode(TEXT)
    ours, theirs = list(here.score(tokens)), list(there.score(tokens))
    assert [one.rank for one in ours] == [one.rank for one in theirs]
    assert [one.surprisal_bits for one in theirs[1:]] == pytest.approx([o.surprisal_bits for o in ours[1:]], **SAME)
    start = Start(tuple(tokens))
    for config in (GREEDY, SAMPLED):
        one, other = (model.inspect(start, config).at(0, 10) for model in (here, there))
        assert [c.id for c in one] == [c.id for c in other]
        assert [c.probability for c in other] == pytest.approx([c.probability for c in one], **SAME)


def test_looking_inside_shows_the_same(pair: tuple[LocalModel, LocalModel]) -> None:
    found = []
    for model in pair:
        ids = model.tokenizer.encode_ids(TEXT)
        kept = record(model, ids)
        cells = [cell for row in lens(kept).rows.values() for cell in row.cells]
        a, b = first_and_second(kept, -1)
        shares = attribution(kept, -1, a, b, layer=0)
        occluded = occlusion(model, ids)
        numbers = [cell.entropy_bits for cell in cells]
        numbers += [value for value in attention(kept, -1).weights if value is not None]
        numbers += [value for value in attention(kept, -1, by_value=True).weights if value is not None]
        numbers += [part.share for part in shares.parts] + [one.log_probability for one in occluded.without]
        found.append(([cell.final.id for cell in cells], a, b, [part.name for part in shares.parts], numbers))
    (*names, numbers), (*others, more) = found
    assert names == others
    assert more == pytest.approx(numbers, abs=2e-3, rel=2e-3)


def test_bfloat16_agrees_with_transformers_there(gpu: Gpu | None, tiny_llama: Path, tmp_path: Path) -> None:
    facts = load(tiny_llama, tmp_path, precision="auto").facts
    assert (facts.precision, facts.path) == ("bfloat16", "own llama, CUDA graph")
    assert facts.path_reason.startswith("agrees with transformers to ")


def test_memory_is_that_of_the_gpus_in_use(gpu: Gpu | None, tiny_llama: Path, tmp_path: Path) -> None:
    here, there = load(tiny_llama, tmp_path, "cpu"), load(tiny_llama, tmp_path)
    assert (here.facts.memory_used, here.facts.memory_free) == (None, None)
    assert (there.facts.memory_used or 0) > 100_000
    assert there.facts.memory_free == pytest.approx(gpus.free(torch.cuda.current_device()), rel=0.2)


def test_a_step_is_captured_once_and_serves_every_text_of_its_size(
    pretend: Gpu, tiny_llama: Path, tmp_path: Path
) -> None:
    model = load(tiny_llama, tmp_path)
    captured = pretend.graphs
    for prompt in PROMPTS:
        replays = pretend.replays
        written(model, [prompt], [GREEDY])
        assert pretend.replays - replays >= GREEDY.max_new_tokens - 2  # the last token goes nowhere
    assert pretend.graphs == captured
    written(model, ["calm, but " * (ROOM // 2)], [GREEDY])
    assert pretend.graphs == captured + 1


def test_a_capture_that_fails_leaves_steps_as_they_are_and_is_not_said(
    pretend: Gpu, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = load(tiny_llama, tmp_path, "cpu")

    def fail() -> None:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    replays = pretend.replays
    monkeypatch.setattr(pretend, "fails", fail)
    there = load(tiny_llama, tmp_path)
    assert there.facts.path == "own llama"
    assert written(there, PROMPTS[:1], [GREEDY]) == written(here, PROMPTS[:1], [GREEDY])
    assert pretend.replays == replays


def test_a_graph_that_computes_something_else_is_not_used(
    pretend: Gpu, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = _Step.replay

    def wrong(self: _Step, ids: torch.Tensor, position: int) -> object:
        output = right(self, ids, position)
        return dataclasses.replace(output, hidden=output.hidden.flip(-1))

    monkeypatch.setattr(_Step, "replay", wrong)
    assert load(tiny_llama, tmp_path).facts.path == "own llama"


@torch.inference_mode()
def test_going_back_and_the_end_of_a_cache_are_as_without_a_graph(gpu: Gpu | None, tiny_llama: Path) -> None:
    usual = open_source(tiny_llama).own(torch.float32, device="cuda")
    graphed = GraphedNetwork(usual, after=0)
    ids = (torch.arange(ROOM - 2) * 7919 % usual.vocabulary_size)[None]
    caches = [network.cache(ROOM, [0]) for network in (usual, graphed)]
    for network, cache in zip((usual, graphed), caches):
        network.forward(ids, cache)
        network.forward(torch.tensor([[11]]), cache)
        for layer in cache.layers:  # as a text leaves it whose numbers were too large
            layer[:, :, ROOM - 4 :] = torch.nan
        cache.truncate(ROOM - 4)
    for id in (12, 13, 14, 15):
        one, other = (n.forward(torch.tensor([[id]]), c).logits() for n, c in zip((usual, graphed), caches))
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)
    with pytest.raises(RuntimeError):
        graphed.forward(torch.tensor([[16]]), caches[1])


def test_seconds_of_the_prefill_are_those_of_its_work(pretend: Gpu, tiny_llama: Path, tmp_path: Path) -> None:
    waits: dict[type, int] = {}
    for event in load(tiny_llama, tmp_path).generate([TEXT], [GREEDY]):
        waits[type(event)] = waits.get(type(event), pretend.waits)
    assert waits[Prefilled] > waits[Prefilling]


def test_transformers_is_timed_on_the_same_gpu_in_the_same_precision(
    gpu: Gpu | None, tiny_llama: Path, tmp_path: Path
) -> None:
    model = load(tiny_llama, tmp_path, precision="bfloat16")
    how = reference_precision(model.facts)
    reference = load_reference(str(tiny_llama), precision=how, device=model.facts.device, cache_dir=tmp_path)
    assert (reference.device.type, reference.model.dtype) == ("cuda", torch.bfloat16)
    runs = list(time_runs(model, Sweep("the sky", (3,), repeats=1)))
    assert [run.max_new_tokens for run in runs] == [3]


@pytest.mark.skipif(not REAL, reason=NONE)
def test_a_sweep_against_transformers_runs(tiny_llama: Path, tmp_path: Path) -> None:
    model = load(tiny_llama, tmp_path)
    reference = load_reference(str(tiny_llama), device="cuda", cache_dir=tmp_path)
    sweep = Sweep("the sky", (3, 5), repeats=1, runners=("logitlab", "transformers"))
    assert [run.by for run in time_runs(model, sweep, reference=reference)] == ["logitlab", "transformers"] * 2


def test_a_gguf_file_is_bfloat16_there_whatever_the_processor_has(
    gpu: Gpu | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.models.catalog import embedded_path

    source = open_source(embedded_path())
    monkeypatch.setattr(
        operators, "_used", [operators.Measured({"Q4_1": 2.0, "Q6_K": 2.0, "Q8_0": 2.0}, attention=2.0)]
    )
    for precision in ("auto", "native", "bfloat16"):
        assert source.dtype(precision, "cuda") == (torch.bfloat16, False)
    assert source.dtype("float32", "cuda") == (torch.float32, False)
    assert source.dtype("auto", "cpu") == (torch.float32, True)


def test_nothing_is_compiled_for_a_gpu(
    gpu: Gpu | None, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGITLAB_KERNELS", "auto")
    monkeypatch.setattr(operators, "_make", lambda where: pytest.fail("compiled"))
    monkeypatch.setattr(operators, "_used", [operators.used()])
    assert load(tiny_llama, tmp_path).facts.kernels == "torch"


def test_the_agreement_is_that_of_this_gpu(
    gpu: Gpu | None, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tiny_llama, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(agreement, "compare", lambda *_: pytest.fail("measured again"))
        load(tiny_llama, tmp_path)
    measured: list[int] = []
    compare = agreement.compare
    monkeypatch.setattr(agreement, "compare", lambda *given: measured.append(1) or compare(*given))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=0: "another GPU")
    load(tiny_llama, tmp_path)
    assert measured == [1]


def test_too_little_memory_is_a_sentence_and_is_not_remembered(
    gpu: Gpu | None, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, ids: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1")

    with monkeypatch.context() as patch:
        patch.setattr(llama.LlamaNetwork, "_embedded", fail)
        with pytest.raises(OutOfMemoryError, match=r"does not fit into the GPU's memory; .* --device cpu"):
            load(tiny_llama, tmp_path)
        assert recorded(tmp_path) == []
    assert load(tiny_llama, tmp_path).facts.path == "own llama, CUDA graph"


def test_a_model_larger_than_the_gpus_is_refused_before_it_is_read(
    gpu: Gpu | None, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(gpus, "free", lambda gpu: 200_000)  # of 280,000 in float32
    with pytest.raises(OutOfMemoryError, match=r"the GPUs have 0.0 GB free; .* --device cpu"):
        load(tiny_llama, tmp_path)
    assert load(tiny_llama, tmp_path, precision="bfloat16" if gpu is None else "auto").facts.precision == "bfloat16"


def test_a_model_larger_than_one_gpu_is_for_several(gpu: Gpu | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(gpus, "free", lambda gpu: 1_000_000)
    monkeypatch.setattr(gpus.importlib.util, "find_spec", lambda name: None)
    assert gpus.placement(900_000) == {}
    with pytest.raises(MachineError, match="pip install accelerate"):
        gpus.placement(1_500_000)
    with pytest.raises(OutOfMemoryError):
        gpus.placement(1_500_000, spreads=False)
    with pytest.raises(OutOfMemoryError):
        gpus.placement(1_900_000)
    monkeypatch.setattr(gpus.importlib.util, "find_spec", lambda name: object())
    assert gpus.placement(1_500_000) == {"device_map": "auto"}


def test_a_gpu_that_fails_is_not_taken_for_a_wrong_answer(
    gpu: Gpu | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.networks.transformers import TransformersNetwork

    def fail(self: object, *args: object, **options: object) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    folder = save_tiny(tmp_path / "neox", "gpt_neox")
    monkeypatch.setattr(TransformersNetwork, "whole", fail)
    with pytest.raises(MachineError, match=r"the GPU fails: CUDA error: device-side assert triggered; .*--device cpu"):
        load(folder, tmp_path)


def test_doctor_names_the_gpu_and_says_what_keeps_torch_from_it(
    gpu: Gpu | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, good = doctor._gpus()
    assert (name, good) == (", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())), True)

    def fail(index: int = 0) -> str:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).")

    monkeypatch.setattr(torch.cuda, "get_device_name", fail)
    said, good = doctor._gpus()
    assert said.startswith("torch cannot use it: The NVIDIA driver on your system is too old")
    assert not good


@pytest.mark.skipif(not REAL or torch.cuda.device_count() < 2, reason="no two GPUs here")
def test_a_model_spread_over_two_gpus_gives_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = load(folder, tmp_path, "cpu")
    monkeypatch.setattr(gpus, "placement", lambda needed, spreads=True: {"device_map": "balanced"})
    there = load(folder, tmp_path)
    assert there.facts.path.startswith("transformers")
    assert len({weight.device for weight in there.network.model.parameters()}) == 2  # type: ignore[attr-defined]
    configs = [GREEDY, SAMPLED, CONTRASTIVE]
    assert written(there, PROMPTS, configs) == written(here, PROMPTS, configs)
    ids = here.tokenizer.encode_ids(TEXT)
    one, other = (lens(record(model, ids)) for model in (here, there))
    for row in one.rows:
        for mine, theirs in zip(one.rows[row].cells, other.rows[row].cells, strict=True):
            assert theirs.entropy_bits == pytest.approx(mine.entropy_bits, abs=2e-3)


@pytest.mark.skipif(not REAL, reason=NONE)
def test_a_text_too_long_for_the_memory_is_a_sentence(tiny_long: Path, tmp_path: Path) -> None:
    from engine.base.machine import as_ours

    model = load(tiny_long, tmp_path)
    with pytest.raises(RuntimeError) as raised:
        model.network.cache(10**12, [0])
    assert isinstance(as_ours(raised.value), OutOfMemoryError)


def test_the_pretended_gpu_refuses_what_a_gpu_refuses(pretend: Gpu) -> None:
    there, here = torch.ones(2, 3, device="cuda"), torch.ones(3)
    for mixed in (lambda: there + here, lambda: torch.cat([there[0], here]), lambda: there @ here, lambda: here[there]):
        with pytest.raises((RuntimeError, IndexError)):
            mixed()
    assert (there + torch.tensor(1.0)).device.type == "cuda"  # a number may come along
    assert there[torch.tensor([1])].device.type == "cuda"  # and indexes may
    graph = torch.cuda.CUDAGraph()
    for waits in (
        lambda: there.cpu(),
        lambda: float(there.sum()),
        lambda: here.to("cuda"),
        lambda: torch.equal(there, there),
    ):
        with pytest.raises(RuntimeError, match="stream is capturing"), torch.cuda.graph(graph):
            waits()
    with torch.cuda.graph(graph):
        doubled = there * 2
    there.fill_(5)
    graph.replay()  # on the same memory, with what lies there now
    assert doubled.tolist() == [[10.0] * 3] * 2
