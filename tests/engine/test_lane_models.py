"""A model for each lane: what each writes beside another is what it writes alone, and memory holds what lanes name."""

import gc
import itertools
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import ConfigError, InputError, ModelNameError, OutOfMemoryError
from engine.generation.config import PRECISIONS, GenerationConfig, config_from_dict, load_config
from engine.generation.events import (
    Event,
    Failed,
    Finished,
    Prefilled,
    Prompt,
    Start,
    Started,
    Stepped,
)
from engine.generation.result import RunResult
from engine.lab import Lab
from engine.loading import load_model
from engine.models.local import LocalModel
from engine.models.model import Model
from engine.models.progress import Loading
from engine.models.side_by_side import generate
from engine.shelf import Shelf
from tests.conftest import save_tiny
from tests.model_server import serve

PROMPT = "the sky above the city"
GREEDY = GenerationConfig(max_new_tokens=20, ignore_eos=True)
SAMPLED = GenerationConfig(strategy="sample", temperature=1.3, seed=3, max_new_tokens=20, ignore_eos=True)
CONTRASTIVE = GenerationConfig(strategy="contrastive", top_k=6, max_new_tokens=16, ignore_eos=True)


@pytest.fixture(scope="module")
def llama(tiny_llama: Path) -> LocalModel:
    return load_model(str(tiny_llama), precision="float32", threads=1)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def gpt2(tiny_gpt2: Path) -> LocalModel:
    return load_model(str(tiny_gpt2), precision="float32", threads=1)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def other_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose vocabulary is another one, of the same size."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    folder = save_tiny(tmp_path_factory.mktemp("other-words"), "llama")
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(["zebras zigzag beyond quiet oceans"] * 20, trainer)
    backend.save(str(folder / "tokenizer.json"))
    return folder


def steps_of(events: Sequence[Event], lane: int) -> list[Stepped]:
    return [event for event in events if isinstance(event, Stepped) and event.lane == lane]


def numbers(step: Stepped) -> tuple[Any, ...]:
    """All of a step that is the model's, without its time and its lane."""
    probabilities = (step.probability, step.raw_probability, step.entropy_bits, step.final_entropy_bits)
    return step.index, step.token, step.candidates, *probabilities, step.rank, step.kept, step.cut_mass


def assert_as_alone(models: Sequence[Model], events: Sequence[Event], configs: Sequence[GenerationConfig]) -> None:
    for lane, (model, config) in enumerate(zip(models, configs)):
        alone = list(model.generate([PROMPT], [config]))
        assert [numbers(step) for step in steps_of(events, lane)] == [numbers(step) for step in steps_of(alone, 0)]


# A run of two models.


@pytest.mark.parametrize(
    "configs",
    [(GREEDY, GREEDY), (SAMPLED, CONTRASTIVE), (CONTRASTIVE, GREEDY)],
    ids=["greedy", "sampled beside contrastive", "contrastive beside greedy"],
)
@pytest.mark.parametrize("in_step", [False, True], ids=["free", "in step"])
def test_each_lane_writes_bit_for_bit_what_it_writes_alone(
    llama: LocalModel, gpt2: LocalModel, configs: tuple[GenerationConfig, GenerationConfig], in_step: bool
) -> None:
    events = list(generate([llama, gpt2], [PROMPT], configs, in_step=lambda: in_step))
    assert_as_alone((llama, gpt2), events, configs)
    first, second = ([step.token.id for step in steps_of(events, lane)] for lane in (0, 1))
    assert first != second, "the models are the same: nothing is shown"


def test_lanes_of_one_model_share_its_batches_beside_another(
    llama: LocalModel, gpt2: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    forward = llama.network.forward
    monkeypatch.setattr(
        llama.network, "forward", lambda ids, cache, **more: (rows.append(len(ids)), forward(ids, cache, **more))[1]
    )
    configs, models = (GREEDY, SAMPLED, GREEDY), (llama, gpt2, llama)
    events = list(generate(models, [PROMPT], configs))
    assert rows == [1, *[2] * 19], "the prompt once, then both lanes in each step"
    assert_as_alone(models, events, configs)


def test_the_events_are_those_of_one_run(llama: LocalModel, gpt2: LocalModel) -> None:
    prompts = [Start(tuple(model.tokenizer.encode(PROMPT))) for model in (llama, gpt2)]
    events = list(generate([llama, gpt2], prompts, [GREEDY, SAMPLED]))
    assert [type(event) for event in events].count(Started) == 1
    assert events[0] == Started((prompts[0].prompt, prompts[1].prompt), (GREEDY, SAMPLED))
    read = [event for event in events if isinstance(event, Prefilled)]
    assert [event.lanes for event in read] == [(0,), (1,)]
    assert [event.tokens for event in read] == [len(prompts[0].prompt), len(prompts[1].prompt)]
    first = next(place for place, event in enumerate(events) if isinstance(event, Stepped))
    assert not any(isinstance(event, Prefilled) for event in events[first:])
    assert {event.lane for event in events[-2:] if isinstance(event, Finished)} <= {0, 1}
    for lane in (0, 1):
        own = [event for event in events if getattr(event, "lane", None) == lane]
        assert [type(event) for event in own] == [Stepped] * 20 + [Finished]


def test_in_step_the_lanes_of_two_models_alternate(llama: LocalModel, gpt2: LocalModel) -> None:
    events = generate([llama, gpt2], [PROMPT], [GREEDY, GREEDY], in_step=lambda: True)
    order = [(event.lane, event.index) for event in events if isinstance(event, Stepped)]
    assert order == [(lane, index) for index in range(20) for lane in (0, 1)]


def test_the_seconds_of_a_lane_are_those_since_the_run_began(llama: LocalModel, gpt2: LocalModel) -> None:
    """Prefill and first step together: the other's prefill is in them, whichever was first."""
    result, begun = RunResult(), []
    for event in generate([llama, gpt2], [PROMPT], [GREEDY, GREEDY]):
        result.add(event)
        if isinstance(event, Stepped) and event.index == 0:
            begun.append(event.lane)
    first = [lane.prefill_seconds + lane.steps[0].seconds for lane in result.lanes]
    prefills = sum(lane.prefill_seconds for lane in result.lanes)
    assert min(first) >= prefills
    assert first[begun[0]] <= first[begun[1]]


@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_a_run_that_is_stopped_ends_each_lane_once(llama: LocalModel, gpt2: LocalModel, rounds: int) -> None:
    asked = itertools.count()
    events = list(
        generate([llama, gpt2], [PROMPT], [GREEDY, GREEDY], proceed=lambda: next(asked) < rounds, in_step=lambda: True)
    )
    assert [event for event in events if isinstance(event, Finished)] == [
        Finished(0, "cancelled"),
        Finished(1, "cancelled"),
    ]
    assert len(steps_of(events, 0)) == len(steps_of(events, 1)) == rounds


@pytest.mark.parametrize("at", [0, 1])
def test_a_run_that_is_cancelled_in_either_prefill_ends_each_lane_once(
    llama: LocalModel, gpt2: LocalModel, at: int
) -> None:
    asked = itertools.count()
    events = list(generate([llama, gpt2], [PROMPT], [GREEDY, GREEDY], cancelled=lambda: next(asked) >= at))
    assert sorted(event.lane for event in events if isinstance(event, Finished)) == [0, 1]
    assert not steps_of(events, 0) + steps_of(events, 1)


def test_a_prompt_too_long_for_one_of_the_models_is_said_before_anything_runs(
    llama: LocalModel, gpt2: LocalModel
) -> None:
    with pytest.raises(InputError, match="context"):
        list(generate([llama, gpt2], [PROMPT], [GREEDY, GenerationConfig(max_new_tokens=600)]))


@pytest.mark.parametrize("embedded_first", [True, False])
def test_the_embedded_model_writes_beside_another_what_it_writes_alone(
    embedded: LocalModel, gpt2: LocalModel, embedded_first: bool
) -> None:
    models = (embedded, gpt2) if embedded_first else (gpt2, embedded)
    configs = (GREEDY, SAMPLED)
    assert_as_alone(models, list(generate(models, [PROMPT], configs)), configs)


# A server beside a model in this process.


@pytest.fixture
def beside(llama: LocalModel, gpt2: LocalModel) -> Iterator[tuple[Any, list[Model]]]:
    """A server of the tiny Llama, and the models of two lanes: it, and the tiny GPT-2 here."""
    pytest.importorskip("openai")
    with serve(llama) as server:
        served = load_model(server.url)
        yield server, [served, gpt2]
        served.close()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("in_step", [False, True], ids=["free", "in step"])
def test_a_server_and_a_model_here_write_side_by_side(
    beside: tuple[Any, list[Model]], llama: LocalModel, in_step: bool, turned: bool
) -> None:
    _server, models = beside
    served, own = (1, 0) if turned else (0, 1)
    models = models[::-1] if turned else models
    events = list(generate(models, [PROMPT], [GREEDY, GREEDY], in_step=lambda: in_step))
    alone = [list(model.generate([PROMPT], [GREEDY])) for model in (llama, models[own])]
    for lane, run in ((served, alone[0]), (own, alone[1])):
        assert [step.token.id for step in steps_of(events, lane)] == [step.token.id for step in steps_of(run, 0)]
    assert sorted(event.lanes for event in events if isinstance(event, Prefilled)) == [(0,), (1,)]
    if in_step:
        order = [event.index for event in events if isinstance(event, Stepped)]
        assert order == sorted(order)


def test_a_server_that_goes_ends_its_lane_and_the_other_goes_on(beside: tuple[Any, list[Model]]) -> None:
    server, models = beside

    def gone(_server: Any, request: Any, _path: str, body: dict[str, Any]) -> bool:
        request.close_connection = bool(body.get("stream"))
        return bool(body.get("stream"))

    server.fault = gone
    events = list(generate(models, [PROMPT], [GREEDY, GREEDY]))
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.lane == 0
    assert "\n" not in str(failed.error)
    assert len(steps_of(events, 1)) == 20
    assert {event for event in events if isinstance(event, Finished)} == {
        Finished(0, "cancelled"),
        Finished(1, "length"),
    }


# What a lane names.


def test_a_configuration_names_a_model_and_a_precision(tmp_path: Path) -> None:
    config = load_config("greedy,model=gpt2,precision=float32")
    assert (config.model, config.precision, config.strategy) == ("gpt2", "float32", "greedy")
    assert config.summary == "greedy T0.7 · gpt2@float32"
    (tmp_path / "lane.toml").write_text('model = "http://host:8000#lab/tiny"\nprecision = "none"')
    with pytest.raises(ConfigError, match="precision is 'none'; allowed: auto, native, bfloat16, float32"):
        load_config(str(tmp_path / "lane.toml"))
    with pytest.raises(ConfigError, match="model is ' '"):
        config_from_dict({"model": " "})
    assert load_config('greedy,model="a, b/c.gguf"').model_label == "c.gguf"
    assert GenerationConfig(model="http://host:8000#lab/tiny").model_label == "tiny"
    assert GenerationConfig(precision=PRECISIONS[-1]).summary == "greedy · @float32"
    assert GenerationConfig().summary == "greedy"


@pytest.fixture
def shelf(tiny_llama: Path) -> Iterator[Shelf]:
    shelf = Shelf(str(tiny_llama), precision="float32", threads=1)
    yield shelf
    shelf.let_go([])


def lane(model: Path | str | None = None, precision: str | None = None, **more: Any) -> GenerationConfig:
    named = None if model is None else str(model)
    return GenerationConfig(model=named, precision=precision, max_new_tokens=5, ignore_eos=True, **more)


def test_a_model_that_two_lanes_name_is_there_once(shelf: Shelf, tiny_llama: Path, tiny_gpt2: Path) -> None:
    first, second, third = shelf.bring([lane(), lane(tiny_gpt2), lane(tiny_llama, "float32")])
    assert first is third
    assert (first.facts.architecture, second.facts.architecture) == ("llama", "gpt2")
    assert shelf.bring([lane(tiny_gpt2, strategy="sample")]) == [second]
    assert [model.facts.precision for model in shelf.bring([lane(precision="bfloat16"), lane()])] == [
        "bfloat16",
        "float32",
    ]
    assert len(shelf.models) == 3


def test_the_labs_model_serves_lanes_that_name_it(shelf: Shelf, llama: LocalModel, tiny_llama: Path) -> None:
    shelf.own = llama
    assert (
        shelf.bring([lane(), lane(tiny_llama), lane(precision="float32"), lane(tiny_llama, "float32")]) == [llama] * 4
    )
    assert shelf.models == [llama]


def test_a_model_that_no_lane_names_goes(shelf: Shelf, tiny_gpt2: Path) -> None:
    shelf.bring([lane(), lane(tiny_gpt2)])
    network = weakref.ref(shelf.find(lane(tiny_gpt2)).network)  # type: ignore[union-attr]
    assert not shelf.spares([lane(), lane(tiny_gpt2)])
    assert shelf.spares([lane()])
    shelf.let_go([lane()])
    gc.collect()
    assert network() is None
    assert shelf.lacks([lane(tiny_gpt2)])


def test_two_models_that_do_not_fit_together_are_both_named(
    shelf: Shelf, llama: LocalModel, tiny_llama: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.models.local import LoadOptions, needed_bytes

    sizes = [needed_bytes(str(path), LoadOptions(precision="float32")) for path in (tiny_llama, tiny_gpt2)]
    for free, there in ((sum(sizes) - 1, None), (sizes[1] - 1, llama)):
        for module in ("engine.models.pair", "engine.models.local", "engine.shelf"):
            monkeypatch.setattr(f"{module}.free_memory", lambda free=free: free)
        shelf.own = there
        with pytest.raises(OutOfMemoryError) as refused:
            shelf.bring([lane(), lane(tiny_gpt2)])
        assert str(tiny_llama) in str(refused.value)
        assert str(tiny_gpt2) in str(refused.value)
        assert shelf.models == ([] if there is None else [llama]), "neither is loaded"
    monkeypatch.setattr("engine.shelf.free_memory", lambda: sizes[1])
    monkeypatch.setattr("engine.models.local.free_memory", lambda: sizes[1])
    assert len(shelf.bring([lane(), lane(tiny_gpt2)])) == 2


def test_what_cannot_be_brought_is_one_sentence_and_nothing_is_loaded(shelf: Shelf, tiny_llama: Path) -> None:
    with pytest.raises(ModelNameError, match="no model 'no such model!'"):
        shelf.bring([lane(), lane("no such model!")])
    with pytest.raises(InputError, match="leave precision out"):
        shelf.bring([lane(), lane("http://127.0.0.1:9", "float32")])
    assert shelf.models == []


# In the lab.


async def collect(job: Any) -> list[Any]:
    return [event async for event in job]


async def test_the_lab_loads_the_model_of_a_lane_and_runs_both(
    lab: Lab, llama: LocalModel, gpt2: LocalModel, tiny_gpt2: Path
) -> None:
    configs = [GREEDY, config_from_dict({"model": str(tiny_gpt2)}, GREEDY)]
    assert lab.needs(configs)
    events = await collect(lab.generate(Prompt(PROMPT), configs))
    began = next(place for place, event in enumerate(events) if isinstance(event, Started))
    assert {"read", "ready"} <= {event.stage for event in events[:began] if isinstance(event, Loading)}
    assert not any(isinstance(event, Loading) for event in events[began:])
    assert_as_alone((llama, gpt2), events, [GREEDY, GREEDY])
    assert not lab.needs(configs)
    again = await collect(lab.generate(Prompt(PROMPT), configs))
    assert not any(isinstance(event, Loading) for event in again)


async def test_what_one_model_knows_of_a_text_is_never_the_others(lab: Lab, gpt2: LocalModel, tiny_gpt2: Path) -> None:
    """The same ids have been through the lab's model: the lane's begins with its own state, or anew."""
    named = config_from_dict({"model": str(tiny_gpt2)}, GREEDY)
    start = Start(tuple(gpt2.tokenizer.encode(PROMPT)))
    await collect(lab.generate(start, [GREEDY]))
    events = await collect(lab.generate(start, [named]))
    assert_as_alone([gpt2], events, [GREEDY])
    longer = Start(start.prompt, tuple(step.token.id for step in steps_of(events, 0)[:10]))
    branch = steps_of(await collect(lab.generate(longer, [named])), 0)
    alone = [event for event in gpt2.generate([longer], [GREEDY]) if isinstance(event, Stepped)]
    assert [step.token.id for step in branch] == [step.token.id for step in alone]


async def test_a_lanes_step_is_inspected_and_recalled_with_its_own_model(
    lab: Lab, gpt2: LocalModel, tiny_gpt2: Path
) -> None:
    named = config_from_dict({"model": str(tiny_gpt2)}, GREEDY)
    await collect(lab.use([GREEDY, named]))
    step = steps_of(await collect(lab.generate(Prompt(PROMPT), [named])), 0)[3]
    context = [*gpt2.tokenizer.encode_ids(PROMPT)]
    context += [one.token.id for one in steps_of(list(gpt2.generate([PROMPT], [GREEDY])), 0)[:3]]
    shown = lab.inspect(step, context, named)
    assert shown is not None
    assert shown.at(0, 3) == step.candidates[:3]
    assert step.logits is not None
    step.logits.row = None
    (recalled,) = await collect(lab.recall(step, context, named))
    assert [one.id for one in recalled.at(0, 3)] == [one.id for one in step.candidates[:3]]
    assert recalled.at(0, 1)[0].raw_probability == pytest.approx(step.candidates[0].raw_probability, rel=1e-4)


async def test_a_lanes_model_goes_when_no_lane_names_it(lab: Lab, tiny_gpt2: Path) -> None:
    named = config_from_dict({"model": str(tiny_gpt2)}, GREEDY)
    await collect(lab.use([GREEDY, named]))
    await collect(lab.generate(Prompt(PROMPT), [GREEDY, named]))
    network = weakref.ref(lab.model_of(named).network)  # type: ignore[union-attr]
    step = steps_of(await collect(lab.generate(Prompt(PROMPT), [named])), 0)[0]
    await collect(lab.generate(Prompt(PROMPT), [GREEDY]))  # of the other lane alone, as a branch
    assert network() is not None
    await collect(lab.use([GREEDY, GREEDY]))
    assert network() is None
    step.logits.row = None  # type: ignore[union-attr]
    (failed,) = await collect(lab.recall(step, [1, 2], named))
    assert "is not loaded; a lane that names it loads it" in str(failed.error)


async def test_a_model_that_cannot_be_loaded_leaves_the_lab_as_it_is(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in ("no such model!", str(tmp_path)):
        named = config_from_dict({"model": name}, GREEDY)
        for job in (lab.use([GREEDY, named]), lab.generate(Prompt(PROMPT), [GREEDY, named])):
            *_before, failed = await collect(job)
            assert isinstance(failed, Failed)
            assert isinstance(failed.error, InputError)
            assert "\n" not in str(failed.error)
    assert Finished(0, "length") in await collect(lab.generate(Prompt(PROMPT), [GREEDY]))


async def test_a_load_that_is_stopped_starts_nothing_and_can_be_asked_for_again(lab: Lab, tiny_gpt2: Path) -> None:
    named = config_from_dict({"model": str(tiny_gpt2)}, GREEDY)
    job = lab.generate(Prompt(PROMPT), [GREEDY, named])
    job.cancel()
    assert not any(isinstance(event, (Started, Failed)) for event in await collect(job))
    using = lab.use([GREEDY, named])
    lab.cancel_loading()
    assert not any(isinstance(event, Failed) for event in await collect(using))
    assert lab.model_of(named) is None
    await collect(lab.use([GREEDY, named]))
    assert lab.model_of(named) is not None


async def test_vocabularies_that_differ_are_said_in_one_sentence(lab: Lab, tiny_gpt2: Path, other_words: Path) -> None:
    same, other = (config_from_dict({"model": str(path)}, GREEDY) for path in (tiny_gpt2, other_words))
    await collect(lab.use([same, other]))
    assert lab.why_apart([GREEDY, same]) == ""
    said = lab.why_apart([GREEDY, other])
    assert "texts are compared, not tokens" in said
    assert "\n" not in said


# The other's opinion.


def test_the_others_opinion_is_that_of_torch_on_transformers_logits(
    llama: LocalModel, gpt2: LocalModel, tiny_llama: Path, tiny_gpt2: Path
) -> None:
    import torch

    from engine.inside.opinion import opinions
    from engine.networks.sources import open_source

    ids = llama.tokenizer.encode_ids("the sky above the city looked calm and rain asked the robot")
    found = opinions(llama, gpt2, ids)
    assert found[0] is None
    logs = []
    for folder in (tiny_llama, tiny_gpt2):
        with torch.inference_mode():
            module = open_source(folder).reference(torch.float32).model
            logs.append(module(torch.tensor([ids])).logits[0].double().log_softmax(-1))
    own, other = logs
    expected = torch.nn.functional.kl_div(other, own, log_target=True, reduction="none").sum(-1)
    for place in range(1, len(ids)):
        one = found[place]
        assert one is not None
        assert one.kl == pytest.approx(float(expected[place - 1]), rel=1e-4, abs=1e-6)
        said = float(other[place - 1, ids[place]])
        assert one.difference == pytest.approx(said - float(own[place - 1, ids[place]]), abs=1e-4)
        assert one.doubt == max(0.0, -one.difference)


def test_an_opinion_that_cannot_be_had_is_one_sentence(
    llama: LocalModel, gpt2: LocalModel, other_words: Path, beside: tuple[Any, list[Model]]
) -> None:
    from engine.inside.opinion import opinions

    ids = llama.tokenizer.encode_ids(PROMPT)
    apart = load_model(str(other_words), precision="float32", threads=1)
    for models, text, words in (
        ((llama, llama), ids, "both lanes have the same model"),
        ((llama, apart), ids, "the vocabularies differ"),
        ((llama, beside[1][0]), ids, "no server tells"),
        ((llama, gpt2), ids * 200, "one of the models holds 512"),
    ):
        with pytest.raises(InputError, match=words) as refused:
            opinions(*models, text)
        assert "\n" not in str(refused.value)
    assert opinions(llama, gpt2, ids[:1]) == [None]


# On the command line.


def parsed(process: Any) -> Any:
    import json

    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_compare_tells_each_lanes_model(run_cli: Any, tiny_llama: Path, tiny_gpt2: Path) -> None:
    common = ("--precision", "float32", "--max-new-tokens", "6", "--ignore-eos", "--json", "--threads", "1")
    both = parsed(
        run_cli(
            "compare", PROMPT, "--model", str(tiny_llama), "--a", "greedy", "--b", f"greedy,model={tiny_gpt2}", *common
        )
    )
    assert both["model"]["name"] == str(tiny_llama)
    assert [lane["model"]["name"] for lane in both["lanes"]] == [str(tiny_llama), str(tiny_gpt2)]
    assert [lane["config"]["model"] for lane in both["lanes"]] == [None, str(tiny_gpt2)]
    assert not any("prompt_tokens" in lane for lane in both["lanes"]), "both cut the prompt alike"
    for lane in both["lanes"]:
        (alone,) = parsed(run_cli("generate", PROMPT, "--config", "greedy", "--model", lane["model"]["name"], *common))[
            "lanes"
        ]
        assert [token["id"] for token in lane["tokens"]] == [token["id"] for token in alone["tokens"]]


def test_compare_says_that_vocabularies_differ(
    run_cli: Any, tiny_llama: Path, other_words: Path, tmp_path: Path
) -> None:
    (tmp_path / "b.toml").write_text(f'model = "{other_words}"\nmax_new_tokens = 3\nignore_eos = true')
    process = run_cli(
        *("compare", PROMPT, "--model", str(tiny_llama), "--a", "greedy,max_new_tokens=3"),
        *("--b", str(tmp_path / "b.toml"), "--precision", "float32", "--json", "--threads", "1"),
    )
    data = parsed(process)
    assert "texts are compared, not tokens" in process.stderr
    assert [token["id"] for token in data["lanes"][1]["prompt_tokens"]] != [
        token["id"] for token in data["prompt"]["tokens"]
    ]


def test_a_configurations_model_comes_before_the_options_and_that_is_said(
    run_cli: Any, tiny_llama: Path, tiny_gpt2: Path
) -> None:
    process = run_cli(
        *("generate", PROMPT, "--model", str(tiny_llama), "--config", f"greedy,model={tiny_gpt2},max_new_tokens=2"),
        *("--json", "--threads", "1"),
    )
    assert parsed(process)["model"]["name"] == str(tiny_gpt2)
    assert f"{tiny_llama} is not used" in process.stderr


def test_the_jobs_of_a_batch_may_name_models(
    run_cli: Any, llama: LocalModel, gpt2: LocalModel, tiny_llama: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    import json

    short = {"max_new_tokens": 4, "ignore_eos": True}
    named = {"model": str(tiny_gpt2), "precision": "float32"}
    jobs = [
        {"id": "own", "prompt": PROMPT, "config": short},
        {"id": "other", "prompt": PROMPT, "config": short | named},
        {"id": "none", "prompt": PROMPT, "config": short | {"model": "no such model!"}},
    ]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    out = tmp_path / "out.jsonl"
    ended = run_cli(
        *("batch", str(tmp_path / "jobs.jsonl"), "--out", str(out), "--model", str(tiny_llama)),
        *("--precision", "float32", "--threads", "1"),
    )
    assert (ended.returncode, "1 job failed" in ended.stderr) == (1, True)
    rows = {row["id"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert [rows[id]["model"] for id in ("own", "other")] == [str(tiny_llama), str(tiny_gpt2)]
    assert "no model 'no such model!'" in rows["none"]["error"]
    for id, model in (("own", llama), ("other", gpt2)):
        alone = model.generate([PROMPT], [config_from_dict(short)])
        assert rows[id]["text"] == "".join(event.token.text for event in alone if isinstance(event, Stepped))
