"""A lane's amateur in memory, in the lab and on the command line."""

import gc
import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.base.errors import InputError, ModelNameError, OutOfMemoryError
from engine.generation.events import Event, Failed, Finished, Prompt, Start, Started, Stepped
from engine.lab import Lab
from engine.loading import load_model
from engine.models.local import LoadOptions, needed_bytes
from engine.models.progress import Loading
from engine.shelf import Shelf
from tests.engine.inside_families import TEXT
from tests.engine.test_amateur import by_hand, config, ids, ran, second
from tests.engine.test_lane_models import other_words as other_words

pytestmark = pytest.mark.usefixtures("one_thread")


# The models in memory.


@pytest.fixture
def shelf(tiny_llama: Path) -> Iterator[Shelf]:
    shelf = Shelf(str(tiny_llama), precision="float32", threads=1)
    yield shelf
    shelf.let_go([])


def test_an_amateur_is_brought_beside_the_lanes_and_goes_with_them(
    shelf: Shelf, tiny_llama: Path, tiny_gpt2: Path
) -> None:
    lane = config(amateur=str(tiny_gpt2))
    assert shelf.lacks([lane])
    assert not shelf.lacks([config(amateur=None)])
    (model,) = shelf.bring([lane])
    amateur = shelf.amateur(lane)
    assert amateur is not None
    assert (model.facts.architecture, amateur.facts.architecture) == ("llama", "gpt2")
    assert not shelf.lacks([lane])
    named = config(amateur=None, model=str(tiny_gpt2))
    assert shelf.bring([named, lane])[0] is amateur, "one model, whatever it is for"
    assert shelf.bring([config(amateur=f"{tiny_llama}@float32")]) == [model]
    assert shelf.amateur(config(amateur=f"{tiny_llama}@float32")) is model
    network = weakref.ref(amateur.network)  # type: ignore[attr-defined]
    del amateur
    assert shelf.spares([config(amateur=None)])
    assert not shelf.spares([lane])
    shelf.let_go([config(amateur=None)])
    gc.collect()
    assert network() is None


def test_an_amateur_that_cannot_be_one_is_refused_and_not_kept(
    shelf: Shelf, tiny_gpt2: Path, other_words: Path
) -> None:
    for name, words in (
        (str(other_words), "has another vocabulary"),
        ("no such model!", "no model 'no such model!'"),
        ("http://127.0.0.1:9", "no server tells"),
        (f"{tiny_gpt2}@int3", "precision is 'int3'"),
    ):
        with pytest.raises((InputError, ModelNameError), match=words) as refused:
            shelf.bring([config(amateur=name)])
        assert "\n" not in str(refused.value)
        assert all(str(other_words) != model.facts.name for model in shelf.models), "its weights are not read"
    lane = config(amateur=None, model=str(other_words))
    shelf.bring([config(amateur=None), lane])
    with pytest.raises(InputError, match="has another vocabulary"):
        shelf.bring([config(amateur=str(other_words))])


def test_all_models_together_are_estimated_before_any_is_loaded(
    shelf: Shelf, tiny_llama: Path, tiny_gpt2: Path, tiny_deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = (tiny_llama, tiny_deep, tiny_gpt2)
    sizes = [needed_bytes(str(path), LoadOptions(precision="float32")) for path in paths]
    lanes = [config(amateur=str(tiny_gpt2)), config(amateur=None, model=str(tiny_deep))]
    free = sum(sizes) - 1
    for module in ("engine.models.pair", "engine.models.local", "engine.shelf"):
        monkeypatch.setattr(f"{module}.free_memory", lambda: free)
    with pytest.raises(OutOfMemoryError) as refused:
        shelf.bring(lanes)
    assert all(str(path) in str(refused.value) for path in paths)
    assert "\n" not in str(refused.value)
    assert shelf.models == []
    shelf.own = load_model(str(tiny_llama), precision="float32", threads=1)
    free = sizes[2] - 1
    with pytest.raises(OutOfMemoryError, match="beside"):
        shelf.bring(lanes[:1])
    assert shelf.models == [shelf.own]
    free = sum(sizes)
    assert len(shelf.bring(lanes)) == 2


# In the lab.


async def collect(job: Any) -> list[Any]:
    return [event async for event in job]


def steps_of(events: Sequence[Event]) -> list[Stepped]:
    return [event for event in events if isinstance(event, Stepped)]


async def test_the_lab_loads_it_runs_inspects_and_recalls(lab: Lab, tiny_llama: Path, tiny_gpt2: Path) -> None:
    lane = config(amateur=str(tiny_gpt2), guidance_scale=1.5, negative_prompt="rain", interventions=("mlp 1 off",))
    assert lab.needs([lane])
    events = await collect(lab.generate(Prompt(TEXT), [lane]))
    began = next(place for place, event in enumerate(events) if isinstance(event, Started))
    assert any(isinstance(event, Loading) for event in events[:began])
    assert not lab.needs([lane])
    model, other = lab.model_of(lane), lab.amateur_of(lane)
    assert model is not None
    assert other is not None
    steps = steps_of(events)
    (alone,), _kept = ran(model, second(other), [lane])  # type: ignore[arg-type]
    assert ids(steps) == ids(alone)
    context = [*model.tokenizer.encode_ids(TEXT), *ids(steps)[:3]]
    shown = lab.inspect(steps[3], context, lane)
    assert shown is not None
    assert shown.stages == ("raw", "guidance", "amateur", "pick")
    assert steps[3].logits is not None
    before = shown.at(0, 5)
    steps[3].logits.let_go()
    (again,) = await collect(lab.recall(steps[3], context, lane, len(context) - 3))
    for one, right in zip(again.at(0, 5), before, strict=True):
        assert one.id == right.id
        assert one.minus_amateur_probability == pytest.approx(right.minus_amateur_probability, abs=1e-5)
    start = Start(tuple(model.tokenizer.encode(TEXT)), written=tuple(ids(steps)[:3]))
    branch = steps_of(await collect(lab.generate(start, [lane])))
    assert ids(branch)[:3] == ids(steps)[3:]
    network = weakref.ref(other.network)  # type: ignore[attr-defined]
    del other
    await collect(lab.use([config(amateur=None)]))
    assert network() is None, "no lane needs it"
    (failed,) = await collect(lab.recall(steps[3], context, lane, len(context) - 3))
    assert "is not loaded" in str(failed.error)


async def test_what_it_cannot_have_leaves_the_lab_as_it_is(lab: Lab, other_words: Path, tiny_gpt2: Path) -> None:
    for name in (str(other_words), "no such model!", "http://127.0.0.1:9"):
        for job in (lab.use([config(amateur=name)]), lab.generate(Prompt(TEXT), [config(amateur=name)])):
            *_before, failed = await collect(job)
            assert isinstance(failed, Failed)
            assert "\n" not in str(failed.error)
    stopped = lab.use([config(amateur=str(tiny_gpt2))])
    lab.cancel_loading()
    assert not any(isinstance(event, Failed) for event in await collect(stopped))
    assert lab.amateur_of(config(amateur=str(tiny_gpt2))) is None
    assert Finished(0, "length") in await collect(lab.generate(Prompt(TEXT), [config(amateur=str(tiny_gpt2))]))


# On the command line.


def test_commands_take_it(run_cli: Callable[..., Any], tiny_llama: Path, tiny_gpt2: Path, tmp_path: Path) -> None:
    common = ("--model", str(tiny_llama), "--precision", "float32", "--threads", "1")
    options = ("--amateur", str(tiny_gpt2), "--amateur-cut", "0.02", "--amateur-weight", "0.5", *common)
    shown = run_cli("next", TEXT, *options)
    assert shown.returncode == 0, shown.stderr
    assert "amateur" in shown.stdout.splitlines()[0]
    data = json.loads(run_cli("next", TEXT, "--top", "400", *options, "--json").stdout)
    modules = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (tiny_llama, tiny_gpt2))
    text = torch.tensor([[token["id"] for token in data["prompt"]["tokens"]]])
    with torch.inference_mode():
        right = by_hand(*(module(text).logits[0, -1] for module in modules), weight=0.5, cut=0.02).softmax(0)
    for one in data["candidates"]:
        assert one["minus_amateur_probability"] == pytest.approx(float(right[one["id"]]), abs=1e-5)
    written = json.loads(run_cli("generate", TEXT, "--max-new-tokens", "1", "--json", *options).stdout)
    assert written["lanes"][0]["tokens"][0]["id"] == int(right.argmax())
    assert "amateur" not in run_cli("next", TEXT, *common).stdout.splitlines()[0]
    setting = f"greedy,amateur={tiny_gpt2},amateur_cut=0.02,amateur_weight=0.5,max_new_tokens=3"
    both = json.loads(
        run_cli("compare", TEXT, "--a", "greedy,max_new_tokens=3", "--b", setting, "--json", *common).stdout
    )
    assert both["lanes"][1]["tokens"][0]["id"] == int(right.argmax())
    jobs = tmp_path / "jobs.jsonl"
    named = {"amateur": str(tiny_gpt2), "amateur_cut": 0.02, "amateur_weight": 0.5, "max_new_tokens": 3}
    lines = [{"id": "less", "prompt": TEXT, "config": named}, {"id": "bad", "prompt": TEXT, "config": {"amateur": "?"}}]
    jobs.write_text("\n".join(map(json.dumps, lines)))
    ended = run_cli("batch", str(jobs), "--out", str(tmp_path / "out.jsonl"), *common)
    assert "1 job failed" in ended.stderr
    rows = {row["id"]: row for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())}
    assert rows["less"]["text"] == both["lanes"][1]["text"]
    assert "error" in rows["bad"]
    variants = json.loads(
        run_cli("variants", TEXT, "--template", "{prompt}", "--config", setting, "--json", *common).stdout
    )
    assert variants["variants"][0]["text"] == both["lanes"][1]["text"]


def test_commands_refuse_in_one_sentence(run_cli: Callable[..., Any], tiny_llama: Path, other_words: Path) -> None:
    for options, words in (
        (("--amateur", str(other_words)), "has another vocabulary"),
        (("--amateur", "http://127.0.0.1:9"), "no server tells"),
        (("--amateur", str(tiny_llama), "--amateur-cut", "2"), "amateur_cut is 2.0; allowed: from 0 up to 1"),
    ):
        process = run_cli("generate", TEXT, "--model", str(tiny_llama), *options)
        assert process.returncode == 2
        assert words in process.stderr
        assert len(process.stderr.strip().splitlines()) == 1


def test_a_lane_of_its_own_model_under_interventions_is_what_the_model_writes_under_them(
    run_cli: Callable[..., Any], tiny_llama: Path, tiny_deep: Path, tiny_gpt2: Path
) -> None:
    """With an amateur too: all of a configuration at once, beside a lane that has none of it."""
    common = ("--model", str(tiny_llama), "--precision", "float32", "--threads", "1", "--json")
    done = ("mlp 3 off", "head 1.1 mean")
    short = "max_new_tokens=6,ignore_eos=true"
    named = f"greedy,{short},model={tiny_deep},precision=float32," + ",".join(f"interventions={one}" for one in done)
    for lane, amateur in ((named, None), (f"{named},amateur={tiny_gpt2}", tiny_gpt2)):
        both = json.loads(run_cli("compare", TEXT, "--a", f"greedy,{short}", "--b", lane, *common).stdout)
        deep = load_model(str(tiny_deep), precision="float32", threads=1)
        other = None if amateur is None else load_model(str(amateur), precision="float32", threads=1)
        beside = None if other is None else second(other)  # type: ignore[arg-type]
        settings = config(amateur=None if amateur is None else str(amateur), interventions=done)
        (steps,), _kept = ran(deep, beside, [settings])  # type: ignore[arg-type]
        (plain,), _kept = ran(deep, beside, [config(amateur=settings.amateur)])  # type: ignore[arg-type]
        written = [[token["id"] for token in one["tokens"]] for one in both["lanes"]]
        assert written[1] == ids(steps) != ids(plain)
        alone = json.loads(run_cli("generate", TEXT, "--config", f"greedy,{short}", *common).stdout)
        assert written[0] == [token["id"] for token in alone["lanes"][0]["tokens"]]
