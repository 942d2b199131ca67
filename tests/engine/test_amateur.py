"""Contrastive decoding, against its definition by hand on the logits of transformers' two modules in float32."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.base.errors import ContextError, InputError
from engine.generation.amateur import Amateur, amateur_after
from engine.generation.config import GenerationConfig, load_config, save_config
from engine.generation.distribution import distribution
from engine.generation.events import Finished, Start, Stepped
from engine.generation.inspection import Inspection
from engine.generation.loop import generate
from engine.generation.memory import KeptLogits, LogitsMemory, StateMemory
from engine.generation.stages.amateur import less_amateur
from engine.loading import load_model
from engine.models.amateurs import amateur_for
from engine.models.capabilities import Capabilities
from engine.models.local import LocalModel
from engine.sessions.session import Session, SessionLane, from_json, to_json
from tests.conftest import EMBEDDED
from tests.engine.inside_families import TEXT, Folders, Models, ids_of
from tests.engine.test_lane_models import other_words as other_words

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 6
PAIRS = [("llama", "gpt2"), ("gpt2", "gpt-neox"), ("gemma3", "llama"), ("gpt-neox", "gemma3")]


@cache
def reference(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)


def config(**changes: Any) -> GenerationConfig:
    usual: dict[str, Any] = {"max_new_tokens": STEPS, "ignore_eos": True, "amateur": "second"}
    return GenerationConfig(**(usual | changes))


def by_hand(expert: Tensor, amateur: Tensor, weight: float = 1.0, cut: float = 0.1) -> Tensor:
    """Li et al. 2022, equations 2 and 3, in float64: tokens below α · max p are gone, of the others the difference."""
    p, q = expert.double().softmax(-1), amateur.double().softmax(-1)
    return torch.where(p >= cut * p.max(), p.log() - weight * q.log(), -math.inf)


def ran(
    model: LocalModel,
    amateur: Amateur | None,
    configs: Sequence[GenerationConfig],
    starts: Sequence[Start] | None = None,
) -> tuple[list[list[Stepped]], list[list[KeptLogits]]]:
    """Of each lane its steps, and the logits that they come from."""
    begun = starts or [Start(tuple(model.tokenizer.encode(TEXT)))]
    seconds = [None if one.amateur is None else amateur for one in configs]
    steps: list[list[Stepped]] = [[] for _config in configs]
    for event in generate(model.network, model.tokenizer, begun, configs, keep_logits=KeptLogits, amateurs=seconds):
        if isinstance(event, Stepped):
            steps[event.lane].append(event)
    return steps, [[step.logits for step in lane if step.logits is not None] for lane in steps]


def ids(steps: Sequence[Stepped]) -> list[int]:
    return [step.token.id for step in steps]


def second(model: LocalModel) -> Amateur:
    return Amateur(model.network, "second", StateMemory())


@torch.inference_mode()
def greedy_by_hand(expert: Any, amateur: Any, prompt: Sequence[int], steps: int, **how: float) -> list[Tensor]:
    """The scores of each step of greedy decoding; both modules read the whole text anew at each."""
    text, scores = list(prompt), []
    for _step in range(steps):
        read = torch.tensor([text])
        scores.append(by_hand(expert(read).logits[0, -1], amateur(read).logits[0, -1], **how))
        text.append(int(scores[-1].argmax()))
    return scores


@pytest.mark.parametrize(("weight", "cut"), [(1.0, 0.1), (0.5, 0.02), (1.0, 1.0), (2.0, 0.3)])
@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_tokens_and_scores_are_those_of_the_definition(
    name: str, other: str, weight: float, cut: float, model_of: Models, folder_of: Folders
) -> None:
    model = model_of(name)
    (steps,), (kept,) = ran(model, second(model_of(other)), [config(amateur_weight=weight, amateur_cut=cut)])
    modules = reference(folder_of(name)), reference(folder_of(other))
    right = greedy_by_hand(*modules, ids_of(model), STEPS, weight=weight, cut=cut)
    assert ids(steps) == [int(scores.argmax()) for scores in right]
    for one, scores in zip(kept, right, strict=True):
        assert one.row is not None
        assert one.amateur is not None
        found = less_amateur(one.row, one.amateur, weight, cut)
        assert torch.equal(found.isneginf(), scores.isneginf())
        plausible = ~scores.isneginf()
        torch.testing.assert_close(found[plausible], scores[plausible].float(), atol=1e-4, rtol=1e-4)
    first, chances = steps[0], right[0].softmax(0)
    assert first.kept == int((~right[0].isneginf()).sum())
    for candidate in first.candidates:
        assert candidate.minus_amateur_probability == pytest.approx(float(chances[candidate.id]), abs=1e-5)
        assert candidate.cut_by == ("amateur" if right[0][candidate.id].isneginf() else None)


def test_the_embedded_model_less_a_tiny_one_of_its_vocabulary(
    embedded: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from engine.networks.sources import open_source

    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    small = LlamaConfig(vocab_size=embedded.network.vocabulary_size, initializer_range=0.2, **sizes)
    LlamaForCausalLM(small).save_pretrained(tmp_path)
    source = open_source(tmp_path)
    amateur = Amateur(source.own(torch.float32), "tiny")
    assert embedded.facts.name == EMBEDDED
    prompt = "The capital of France is"
    (steps,), _kept = ran(
        embedded, amateur, [config(max_new_tokens=8)], [Start(tuple(embedded.tokenizer.encode(prompt)))]
    )
    from engine.models.local import load_reference

    modules = load_reference(EMBEDDED).model, source.reference(torch.float32).model
    right = greedy_by_hand(*modules, embedded.tokenizer.encode_ids(prompt), 8)
    assert ids(steps) == [int(scores.argmax()) for scores in right]
    chosen = float(right[0].softmax(0).max())
    assert steps[0].probability == pytest.approx(chosen, abs=1e-4)


@settings(max_examples=60)
@given(
    st.lists(st.floats(-8, 8), min_size=6, max_size=6),
    st.lists(st.floats(-8, 8), min_size=6, max_size=6),
    st.floats(0, 3),
    st.floats(0, 1),
)
def test_the_stage_is_the_definition_for_any_numbers(
    own: list[float], other: list[float], weight: float, cut: float
) -> None:
    expert, amateur = torch.tensor(own), torch.tensor(other)
    p = expert.double().softmax(0)
    if bool((((p / p.max()) - cut).abs() < 1e-5).any()):
        return  # on the edge, where rounding decides
    found, right = less_amateur(expert, amateur, weight, cut), by_hand(expert, amateur, weight, cut)
    assert torch.equal(found.isneginf(), right.isneginf())
    torch.testing.assert_close(found.double().softmax(0), right.softmax(0), atol=1e-5, rtol=1e-4)


def test_numbers_stay_numbers() -> None:
    """Rows that one model lacks, an amateur that rules a token out, a ban of the most probable one, an empty cut."""
    expert, amateur = torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([0.0, -math.inf, 0.0])
    found = less_amateur(expert, amateur, 1.0, 0.0)
    assert found.tolist()[3] == -math.inf, "no token stands behind a row that the amateur lacks"
    assert found.softmax(0).tolist() == [0.0, 1.0, 0.0, 0.0]
    assert less_amateur(torch.tensor([1.0, 2.0]), torch.zeros(4), 1.0, 0.0).isfinite().all()
    settings = config(amateur_cut=1.0, banned=(0,))
    stage = distribution(expert, None, settings, amateur=torch.zeros(4))
    assert stage.probabilities.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert stage.cut_by(torch.arange(4)) == ["banned", None, "amateur", "amateur"]
    assert (stage.kept, stage.top) == (1, 1)
    with pytest.raises(InputError, match="every token is banned"):
        distribution(expert, None, config(banned=(0, 1, 2, 3)), amateur=torch.zeros(4))
    with pytest.raises(InputError, match="cannot be biased"):
        distribution(expert, None, config(banned=(9,)), amateur=torch.zeros(4))
    cut = distribution(expert, None, config(amateur_cut=0.3, strategy="sample", top_k=3, top_p=0.9), amateur=expert)
    assert cut.kept == 2
    assert cut.probabilities.sum() == pytest.approx(1)
    assert cut.final_entropy_bits == pytest.approx(1.0, abs=1e-6), "expert less itself is even"


def test_guidance_comes_before_and_the_other_stages_behind() -> None:
    generator = torch.Generator().manual_seed(1)
    expert, negative, amateur = (3 * torch.randn(50, generator=generator) for _one in range(3))
    context = torch.tensor([3, 4, 4])
    whole = config(
        guidance_scale=2.0,
        repetition_penalty=1.3,
        temperature=0.7,
        logit_bias=((7, 1.5),),
        strategy="sample",
        top_p=0.9,
    )
    stage = distribution(expert, context, whole, negative, amateur)
    pushed = 2.0 * (expert.log_softmax(0) - negative.log_softmax(0)) + negative.log_softmax(0)
    less = by_hand(pushed, amateur)
    torch.testing.assert_close(stage.less_amateur.softmax(0), less.softmax(0).float(), atol=1e-5, rtol=1e-4)
    less[7] += 1.5
    present = torch.tensor([3, 4])
    less[present] = torch.where(less[present] < 0, less[present] * 1.3, less[present] / 1.3)
    less = (less / 0.7).softmax(0)
    torch.testing.assert_close(stage.tempered_probability(torch.arange(50)), less.float(), atol=1e-5, rtol=1e-4)


def test_lanes_with_an_amateur_beside_others_are_what_they_are_alone(model_of: Models) -> None:
    """Two of different lengths in one batch, without, guided, contrastive search, interventions, sampled."""
    model, amateur = model_of("llama"), second(model_of("gpt2"))
    prompts = [TEXT, "rain asked", TEXT, TEXT, TEXT, TEXT, "the sky"]
    starts = [Start(tuple(model.tokenizer.encode(text))) for text in prompts]
    configs = [
        config(),
        config(max_new_tokens=3),
        config(amateur=None),
        config(guidance_scale=2.0, negative_prompt="rain"),
        config(strategy="contrastive", top_k=4),
        config(interventions=("head 1.1 mean", "mlp 2 off")),
        config(strategy="sample", seed=4, temperature=0.9, repetition_penalty=1.2, amateur_cut=0.01),
    ]
    together, kept = ran(model, amateur, configs, starts)
    for lane, (one, start) in enumerate(zip(configs, starts)):
        (alone,), (own,) = ran(model, amateur, [one], [start])
        assert ids(together[lane]) == ids(alone)
        for mine, right in zip(kept[lane], own, strict=True):
            torch.testing.assert_close(mine.row, right.row, atol=1e-4, rtol=1e-4)
            assert (mine.amateur is None) == (one.amateur is None)
            if mine.amateur is not None:
                torch.testing.assert_close(mine.amateur, right.amateur, atol=1e-4, rtol=1e-4)
    (_less, beside), _kept = ran(model, amateur, [config(), config(amateur=None)])
    (plain,), _kept = ran(model, None, [config(amateur=None)])
    assert [step.candidates for step in beside] == [step.candidates for step in plain], "bit for bit"


def test_contrastive_search_takes_nothing_that_is_cut_or_banned(model_of: Models) -> None:
    model, amateur = model_of("llama"), second(model_of("gpt2"))
    search = config(strategy="contrastive", top_k=8, alpha=1.0, amateur_cut=0.5, max_new_tokens=12)
    (steps,), (kept,) = ran(model, amateur, [search])
    for step, one in zip(steps, kept, strict=True):
        assert (step.probability or 0) > 0
        assert one.row is not None
        assert len(step.candidates) == min(8, step.kept or 0)
        assert {candidate.cut_by for candidate in step.candidates} == {None}
        view = Inspection(one.row, model.tokenizer, [1], search, step, amateur=one.amateur, amateur_name="second")
        assert view.choice is not None
        assert view.choice.id == step.token.id
    allowed = (5, 6)
    banned = tuple(id for id in range(model.network.vocabulary_size) if id not in allowed)
    (steps,), _kept = ran(model, None, [config(strategy="contrastive", top_k=8, amateur=None, banned=banned)])
    assert set(ids(steps)) <= set(allowed)


def test_a_branch_goes_on_with_what_the_amateur_knows(model_of: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    model, amateur = model_of("llama"), second(model_of("gpt2"))
    prompt = tuple(model.tokenizer.encode(TEXT))
    (steps,), (kept,) = ran(model, amateur, [config()])
    read: list[int] = []
    forward = amateur.network.forward
    monkeypatch.setattr(
        amateur.network,
        "forward",
        lambda ids, cache, **more: (read.append(ids.numel()), forward(ids, cache, **more))[1],
    )
    (rest,), (own,) = ran(model, amateur, [config()], [Start(prompt, written=tuple(ids(steps)[:3]))])
    assert read[0] == 1, "all but the last token is known"
    assert ids(rest)[: STEPS - 3] == ids(steps)[3:]
    for mine, right in zip(own, kept[3:]):
        torch.testing.assert_close(mine.amateur, right.amateur, atol=1e-4, rtol=1e-4)
    forced = Start(prompt, written=tuple(ids(steps)[:2]), forced=(5, 6))
    (branch,), (known,) = ran(model, amateur, [config()], [forced])
    assert ids(branch)[:2] == [5, 6]
    anew = replace(amateur, states=None)
    text = [*ids(steps)[:2], 5, 6]
    again = amateur_after(config(), anew, [token.id for token in prompt], text)
    torch.testing.assert_close(known[2].amateur, again, atol=1e-4, rtol=1e-4)
    (alone,), _kept = ran(model, anew, [config()], [forced])
    assert ids(branch) == ids(alone)


def test_a_run_that_is_stopped_while_the_amateur_reads_ends(model_of: Models) -> None:
    model, amateur = model_of("llama"), second(model_of("gpt2"))
    asked = iter([False, True])  # the lane's prompt goes through
    events = list(
        generate(
            model.network, model.tokenizer, [TEXT], [config()], amateurs=[amateur], cancelled=lambda: next(asked, True)
        )
    )
    assert events[-1] == Finished(0, "cancelled")
    assert not any(isinstance(event, Stepped) for event in events)


def test_the_inspector_shows_the_stage_and_moves_it_without_the_model(model_of: Models) -> None:
    model = model_of("llama")
    settings = config(guidance_scale=2.0, negative_prompt="rain")
    (steps,), (kept,) = ran(model, second(model_of("gpt2")), [settings])
    one = kept[0]
    assert one.row is not None
    assert one.others is not None
    assert one.amateur is not None
    view = Inspection(
        one.row, model.tokenizer, ids_of(model), settings, steps[0], one.others, "rain", one.amateur, "second"
    )
    assert view.stages == ("raw", "guidance", "amateur", "pick")
    assert view.movable == ("guidance_scale", "amateur_weight", "amateur_cut")
    for scale, weight, cut in ((2.0, 1.0, 0.1), (1.0, 0.5, 0.01), (3.0, 0.0, 0.0)):
        moved = view.under(replace(settings, guidance_scale=scale, amateur_weight=weight, amateur_cut=cut))
        own, other = one.row.log_softmax(0), one.others.log_softmax(0)
        right = by_hand(scale * (own - other) + other, one.amateur, weight, cut).softmax(0)
        for candidate in moved.at(0, 10):
            assert candidate.after("amateur") == pytest.approx(float(right[candidate.id]), abs=1e-5)
        assert moved.mass(0, "amateur") == pytest.approx(1, abs=1e-5)
        assert moved.mass(5, "amateur") == pytest.approx(
            1 - sum(c.after("amateur") or 0 for c in moved.at(0, 5)), abs=1e-5
        )
    assert view.under(replace(settings, amateur=None)).stages == ("raw", "guidance", "pick")
    for unknown in (replace(settings, amateur="third"), config(amateur="third")):
        with pytest.raises(InputError, match="run the lane with it"):
            view.under(unknown)
    with pytest.raises(InputError, match="run the lane with it"):
        Inspection(one.row, model.tokenizer, [1], config(amateur=None)).under(config())


def test_what_the_memory_of_logits_holds_counts_the_amateurs_too() -> None:
    memory = LogitsMemory(limit=130)
    first = memory.keep(torch.zeros(10), torch.zeros(10), torch.zeros(10))
    assert memory.bytes == 120
    memory.keep(torch.zeros(10))
    assert (first.row, first.others, first.amateur, memory.bytes) == (None, None, None, 40)


def test_settings_are_written_and_read_alike(tmp_path: Path) -> None:
    named = load_config("sampled,amateur=org/gpt2@bfloat16,amateur_weight=0.5,amateur-cut=0.05")
    assert (named.amateur, named.amateur_weight, named.amateur_cut) == ("org/gpt2@bfloat16", 0.5, 0.05)
    save_config(named, tmp_path / "own.toml")
    assert replace(load_config(str(tmp_path / "own.toml")), name=named.name) == named
    assert "0.5·gpt2@bfloat16" in named.summary
    assert "contrastive" not in named.summary, "which is another thing"
    session = Session(lanes=(SessionLane(named), SessionLane(GenerationConfig())))
    assert from_json(to_json(session)).lanes == session.lanes
    older = json.loads(to_json(session))
    for lane in older["lanes"]:
        for name in ("amateur", "amateur_weight", "amateur_cut"):
            lane["config"].pop(name, None)
    assert from_json(json.dumps(older)).lanes[1].config == GenerationConfig()
    for wrong in ({"amateur": " "}, {"amateur": 3}, {"amateur_weight": -1.0}, {"amateur_cut": 1.1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            GenerationConfig(**wrong)  # type: ignore[arg-type]


def test_what_cannot_be_is_said_in_one_sentence(model_of: Models, other_words: Path) -> None:
    model = model_of("llama")
    with pytest.raises(InputError, match="is not loaded here; leave it out"):
        ran(model, None, [config()])
    small = load_model(str(other_words), precision="float32", threads=1)
    with pytest.raises(ContextError, match="exceed the amateur's context"):
        ran(model, Amateur(small.network, "small"), [config(max_new_tokens=600)])  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="has another vocabulary: token"):
        amateur_for(model, small)
    with pytest.raises(InputError, match="no server tells; run locally"):
        Capabilities("vLLM").check(config())
