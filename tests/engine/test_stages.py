"""What every stage declares, and the traps that stages have fallen into elsewhere."""

import math
import runpy
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.base.errors import InputError
from engine.export.sheets import candidates_sheet
from engine.generation.config import SETTINGS, GenerationConfig
from engine.generation.distribution import distribution
from engine.generation.events import Finished, Start, Stepped
from engine.generation.inspection import Inspection
from engine.generation.loop import generate
from engine.generation.memory import KeptLogits
from engine.generation.stages import dry, mirostat
from engine.generation.stages.order import ORDERS
from engine.generation.stages.registry import PARAMETERS, STAGES
from engine.models.capabilities import Capabilities
from engine.models.local import LocalModel
from engine.sessions.session import saved_step
from tests.engine.inside_families import Models, ids_of

pytestmark = pytest.mark.usefixtures("one_thread")

# One setting with which each stage acts.
ON: dict[str, dict[str, Any]] = {
    "bias": {"logit_bias": ((3, 2.0),), "banned": (4,)},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "presence_penalty": {"presence_penalty": 0.5},
    "dry": {"dry_multiplier": 0.8, "dry_breakers": ()},
    "no_repeat_ngram": {"no_repeat_ngram": 2},
    "length_decay": {"length_decay": 1.1},
    "temperature": {"temperature": 0.7, "dynatemp_range": 0.2},
    "top_h": {"top_h": 0.5},
    "top_n_sigma": {"top_n_sigma": 1.0},
    "top_k": {"top_k": 20},
    "top_p": {"top_p": 0.9},
    "min_p": {"min_p": 0.01},
    "typical_p": {"typical_p": 0.9},
    "epsilon_cutoff": {"epsilon_cutoff": 0.001},
    "eta_cutoff": {"eta_cutoff": 0.001},
    "xtc": {"xtc_probability": 0.5},
    "mirostat": {"mirostat_tau": 3.0},
}
NAMES = ORDERS["transformers"]
END = SimpleNamespace(eos_ids=frozenset({2}))


def test_the_page_of_stages_is_true() -> None:
    pages = Path(__file__).parents[2] / "docs"
    script = runpy.run_path(str(pages / "stages.py"))
    assert (pages / "stages.md").read_text(encoding="utf-8") == script["page"](), "run: python docs/stages.py"


def test_every_stage_says_what_it_is() -> None:
    held = {field.name: field.default for field in fields(GenerationConfig)}
    assert len({stage.name for stage in STAGES}) == len(STAGES)
    assert {stage.name for stage in STAGES} == {"grammar", "guidance", "amateur", *ON}
    assert {name for names in ORDERS.values() for name in names} == {s.name for s in STAGES if not s.first}
    for stage in STAGES:
        assert (stage.change is None) != (stage.keep is None)
        assert stage.title
        assert stage.definition
        assert stage.explanation
        for one in stage.parameters:
            assert held[one.name] == one.default
            assert one.hint, one.name
            assert 0 < len(one.help) <= 60, one.name
            assert one.label or not one.ladder, one.name
            kind = SETTINGS[one.name]
            assert one.type is None or (kind.type is one.type and kind.optional is one.optional), one.name
            for value in one.ladder:
                if value is not None:
                    one.checked(value)


@pytest.mark.parametrize("name", ON)
def test_each_stage_acts_when_it_is_set_and_the_inspector_walks_to_it(name: str) -> None:
    config = GenerationConfig(strategy="sample", seed=1, **ON[name])
    logits = torch.randn(300, generator=torch.Generator().manual_seed(1)) * 4
    context = [1, 5, 6, 8, 7, 5, 6]
    step = SimpleNamespace(index=4, carried={"xtc": 0.0, "mirostat": 2.0}, candidates=())
    view = Inspection(logits, END, context, config, step)  # type: ignore[arg-type]
    assert view.stages == ("raw", name, "pick")
    assert "pick" in view.under(GenerationConfig()).stages
    stage = view._stage
    assert not torch.equal(stage.final, logits)
    count = int((stage.final.isneginf() & ~logits.isneginf()).sum())
    cut = view.cut_at(name)
    assert (cut[0] if cut else 0) == count
    if cut:
        gone = float(logits.softmax(0)[stage.final.isneginf()].sum())
        assert cut[1] == pytest.approx(gone, abs=1e-5)


settings_of = st.fixed_dictionaries({name: st.booleans() for name in ON}).map(
    lambda chosen: {key: value for name, on in chosen.items() if on for key, value in ON[name].items()}
)


@settings(max_examples=80, deadline=None)
@given(settings_of, st.permutations(NAMES), st.integers(0, 999), st.floats(0.0, 1.0), st.floats(-3.0, 9.0))
def test_what_is_banned_never_comes_back_and_something_is_always_left(
    chosen: dict[str, Any], order: list[str], seed: int, drawn: float, mu: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(60, generator=generator) * 3
    logits[7] = 30.0  # by far the best, and banned
    config = GenerationConfig(strategy="sample", order=tuple(order), **(chosen | {"banned": (7, 2)}))
    context = torch.randint(0, 60, (20,), generator=generator)
    carried = {"xtc": drawn, "mirostat": mu}
    try:
        stage = distribution(logits, context, config, prompt=6, carried=carried, tokenizer=END)  # type: ignore[arg-type]
    except InputError as error:  # n-grams may ban what others left
        if "n-grams leaves no token" not in str(error):
            raise
        return
    probabilities = stage.probabilities
    assert probabilities[[7, 2]].tolist() == [0.0, 0.0]
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-5)
    assert stage.kept == int((probabilities > 0).sum()) > 0
    assert set(stage.cut_by(torch.tensor([7, 2]))) == {"banned"}


def test_sigma_is_that_of_finite_logits() -> None:
    logits = torch.tensor([5.0, 4.0, 1.0, 0.0, -math.inf, -math.inf])
    config = GenerationConfig(strategy="sample", top_n_sigma=1.0)
    sigma = float(logits[:4].std(correction=0))
    kept = [id for id, logit in enumerate(logits.tolist()) if logit >= 5.0 - sigma]
    assert distribution(logits, None, config).final.isfinite().nonzero()[:, 0].tolist() == kept == [0, 1]
    banned = replace(config, banned=(0,))
    assert distribution(logits, None, banned).final.isfinite().nonzero()[:, 0].tolist() == [1]


def test_xtc_leaves_the_least_of_the_best_and_nothing_where_there_is_one() -> None:
    config = GenerationConfig(strategy="sample", xtc_probability=0.5, xtc_threshold=0.2)
    logits = torch.tensor([0.4, 0.3, 0.25, 0.05]).log()

    def left(drawn: float, config: GenerationConfig = config) -> list[int]:
        found = distribution(logits, None, config, carried={"xtc": drawn}).final
        return found.isfinite().nonzero()[:, 0].tolist()

    assert left(0.4) == [2, 3]
    assert left(0.6) == [0, 1, 2, 3]
    assert left(0.4, replace(config, xtc_threshold=0.35)) == [0, 1, 2, 3]


def test_a_breaker_ends_what_dry_sees() -> None:
    spelled = [b"a", b"b", b"c", b"x\n", b"y\n", b"\n", b"ne", b"w l", b"w"]
    texts = {"w l": (7,), "w": (8,), " l": (1,)}
    tokenizer = SimpleNamespace(
        vocabulary_size=len(spelled), bytes_of=spelled.__getitem__, encode_continuation=lambda text: list(texts[text])
    )
    heads = dry.heads_of.__wrapped__(tokenizer, ("\n", "new l"))
    assert {id: list(tails) for id, tails in heads.items()} == {3: [()], 4: [()], 5: [()], 6: [(7,)]}
    assert dry.limit([0, 1, 5, 1, 2], heads) == 2
    assert dry.limit([0, 6, 7, 1, 2], heads) == 2
    assert dry.limit([0, 6, 8, 1, 2], heads) == 5
    ids, lengths = dry.repeats(torch.tensor([0, 1, 2, 0, 1]), 9)
    assert (ids.tolist(), lengths.tolist()) == ([2], [2])


def test_only_what_is_written_counts_for_presence_and_frequency() -> None:
    logits = torch.zeros(10)
    config = GenerationConfig(presence_penalty=1.0, frequency_penalty=0.25, repetition_penalty=1.0)
    text = torch.tensor([1, 2, 3, 3, 4])
    written = distribution(logits, text, config, prompt=2).final
    assert written.tolist() == [0, 0, 0, -1.5, -1.25, 0, 0, 0, 0, 0]
    last = distribution(logits, text, replace(config, penalty_window=1), prompt=2).final
    assert last.tolist() == [0, 0, 0, 0, -1.25, 0, 0, 0, 0, 0]
    none = distribution(logits, text, config, prompt=5).final
    assert none.tolist() == logits.tolist()


def steps_of(model: LocalModel, config: GenerationConfig, start: Start) -> list[Stepped]:
    events = generate(
        model.network, model.tokenizer, [start], [config], candidates=3, keep_logits=lambda row: KeptLogits(row)
    )
    return [event for event in events if isinstance(event, Stepped | Finished) and isinstance(event, Stepped)]


@pytest.mark.parametrize("chosen", [{"mirostat_tau": 2.0, "mirostat_eta": 0.5}, {"xtc_probability": 0.5}])
def test_state_is_carried_through_branches_sessions_and_the_inspector(model_of: Models, chosen: dict[str, Any]) -> None:
    model = model_of("llama")
    config = GenerationConfig(
        strategy="sample", seed=5, max_new_tokens=9, ignore_eos=True, xtc_threshold=0.001, **chosen
    )
    prompt = tuple(model.tokenizer.encode("The sky above"))
    whole = steps_of(model, config, Start(prompt))
    assert len({tuple(step.carried.items()) for step in whole}) == 9
    ids = tuple(step.token.id for step in whole)
    for index in (1, 5):
        kept = saved_step(whole[index - 1])
        last = replace(whole[index - 1], candidates=(), carried=kept.carried, probability=kept.probability)
        again = steps_of(model, replace(config, max_new_tokens=9 - index), Start(prompt, ids[:index], last=last))
        for one, right in zip(again, whole[index:], strict=True):
            assert one.carried == pytest.approx(right.carried, abs=1e-4)
        assert [step.token.id for step in again] == list(ids[index:])
    context = ids_of(model)[: len(prompt)]
    for index, step in enumerate(whole):
        assert step.logits is not None
        assert step.logits.row is not None
        view = Inspection(step.logits.row, model.tokenizer, [*context, *ids[:index]], config, step)
        assert view.kept == step.kept
        assert view.of([step.token.id])[0].probability == pytest.approx(step.probability, abs=1e-6)


def test_mirostat_follows_the_surprise_of_what_was_picked() -> None:
    config = GenerationConfig(strategy="sample", mirostat_tau=3.0, mirostat_eta=0.5)
    assert mirostat.begin(config) == 6.0
    assert mirostat.follow(6.0, 0.25, config) == pytest.approx(6.5)
    assert mirostat.follow(6.0, 0.0, config) == 6.0, "a forced token that was cut says nothing"


def test_what_a_server_lacks_is_refused_in_one_sentence() -> None:
    llama = Capabilities("llama.cpp", settings=frozenset(PARAMETERS))
    for chosen, complaint in (
        ({"mirostat_tau": 3.0, "strategy": "sample"}, "mirostat of llama.cpp servers drops all other stages"),
        ({"presence_penalty": 0.5}, "reads the prompt too"),
    ):
        with pytest.raises(InputError, match=complaint):
            llama.check(GenerationConfig(**chosen))
    vllm = Capabilities("vLLM", settings=frozenset({"repetition_penalty", "logit_bias"}))
    vllm.check(GenerationConfig(repetition_penalty=1.2, order=("vllm",), banned=(3,)))
    with pytest.raises(InputError, match="know no penalty_window"):
        vllm.check(GenerationConfig(repetition_penalty=1.2, penalty_window=5))
    with pytest.raises(InputError, match="have an order of their own"):
        vllm.check(GenerationConfig(order=("llama.cpp",)))


def test_the_inspector_marks_what_the_penalties_touch_and_where_it_stands() -> None:
    config = GenerationConfig(repetition_penalty=1.3, presence_penalty=0.5, temperature=0.7)
    logits = torch.linspace(1, 2, 20)
    step = SimpleNamespace(index=2, carried={}, candidates=())
    view = Inspection(logits, END, [1, 2, 3, 3, 4], config, step)  # type: ignore[arg-type]
    assert [view.touched(id, "repetition_penalty") for id in range(6)] == ["", *["prompt"] * 2, *["written"] * 2, ""]
    assert [view.touched(id, "presence_penalty") for id in range(6)] == ["", "", "", "written", "written", ""]
    assert view.touched(3, "temperature") == ""


def test_what_each_stage_left_is_exported() -> None:
    config = GenerationConfig(strategy="sample", temperature=0.7, top_k=3, presence_penalty=0.5)
    tokenizer = SimpleNamespace(eos_ids=frozenset(), label=str)
    view = Inspection(torch.linspace(1, 2, 20), tokenizer, [1, 2, 3], config, prompt=1)  # type: ignore[arg-type]
    sheet = candidates_sheet("step", view.at(0, 5))
    columns = dict(zip(sheet.columns, zip(*sheet.rows), strict=True))
    for stage in ("presence_penalty", "top_k"):
        assert columns[f"after_{stage}"] == tuple(one.after(stage) for one in view.at(0, 5))
    assert columns["after_top_k"] == columns["probability"]
    assert columns["after_presence_penalty"] == columns["penalised"] != columns["tempered"]


def test_a_stage_is_looked_at_where_it_stands_in_the_order() -> None:
    config = GenerationConfig(strategy="sample", temperature=0.5, presence_penalty=2.0, top_k=3)
    config = replace(config, order=("top_k", "temperature", "presence_penalty"))
    logits = torch.linspace(1, 3, 10)
    tokenizer = SimpleNamespace(eos_ids=frozenset(), label=str)
    view = Inspection(logits, tokenizer, [1, 9], config, prompt=1)  # type: ignore[arg-type]
    assert view.stages == ("raw", "top_k", "temperature", "presence_penalty", "pick")
    top = logits[7:].softmax(0).tolist()
    tempered = (logits[7:] / 0.5).softmax(0).tolist()
    last = (logits[7:] / 0.5 - torch.tensor([0.0, 0.0, 2.0])).softmax(0).tolist()
    for stage, right in (("top_k", top), ("temperature", tempered), ("presence_penalty", last), ("pick", last)):
        assert [one.after(stage) for one in view.of([7, 8, 9])] == pytest.approx(right, abs=1e-6)
        assert view.mass(0, stage) == pytest.approx(1, abs=1e-6)
    assert view.cut_at("top_k") == pytest.approx((7, float(logits.softmax(0)[:7].sum())), abs=1e-6)
