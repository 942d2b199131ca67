"""The generation loop against transformers' `generate` and against its own promises."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.base.errors import ContextError, InputError
from engine.generation.config import PRESETS, GenerationConfig
from engine.generation.events import Event, Finished, Prefilled, Prefilling, Start, Started, Stepped
from engine.generation.loop import generate, logits_after
from engine.generation.memory import LaneState, LogitsMemory
from engine.generation.result import RunResult
from engine.generation.strategies import contrastive_scores
from engine.loading import load_model
from engine.models.local import LocalModel
from engine.networks.network import Network
from engine.networks.sources import open_source
from engine.networks.transformers import TransformersNetwork

PROMPT = "the sky above the city"
GREEDY = GenerationConfig(max_new_tokens=20, ignore_eos=True)
CONTRASTIVE = GenerationConfig(strategy="contrastive", top_k=6, alpha=0.6, max_new_tokens=16, ignore_eos=True)
SAMPLED = GenerationConfig(strategy="sample", temperature=1.3, seed=3, max_new_tokens=20, ignore_eos=True)


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_gpt2"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def model(folder: Path) -> LocalModel:
    return load_model(str(folder), precision="float32")


@pytest.fixture(scope="module")
def reference(folder: Path) -> TransformersNetwork:
    return open_source(folder).reference(torch.float32)  # type: ignore[return-value]


def run(
    model: LocalModel,
    prompts: str | Sequence[str | Start],
    configs: Sequence[GenerationConfig],
    network: Network | None = None,
) -> RunResult:
    result = RunResult()
    wanted = [prompts] if isinstance(prompts, str) else prompts
    for event in generate(network or model.network, model.tokenizer, wanted, configs):
        result.add(event)
    return result


def ids(result: RunResult, lane: int = 0) -> list[int]:
    return [step.token.id for step in result.lanes[lane].steps]


def naive_contrastive(reference: TransformersNetwork, prompt: list[int], config: GenerationConfig) -> list[int]:
    """Contrastive search as it is published: no cache, one full forward a candidate."""
    written = list(prompt)
    with torch.inference_mode():
        for _ in range(config.max_new_tokens):
            output = reference.model(torch.tensor([written]), output_hidden_states=True)
            probabilities = (output.logits[0, -1] / config.temperature).softmax(0)
            top = probabilities.topk(config.top_k or 1)
            hidden = [
                reference.model(torch.tensor([[*written, int(id)]]), output_hidden_states=True).hidden_states[-1][0]
                for id in top.indices
            ]
            scores, _ = contrastive_scores(
                top.values, torch.stack([h[-1] for h in hidden]), output.hidden_states[-1][0], config.alpha
            )
            written.append(int(top.indices[scores.argmax()]))
    return written[len(prompt) :]


def test_greedy_tokens_are_those_of_transformers(model: LocalModel, reference: TransformersNetwork) -> None:
    for prompt in (PROMPT, "rain", "a robot asked the library but"):
        prompt_ids = torch.tensor([model.tokenizer.encode_ids(prompt)])
        expected = reference.model.generate(
            prompt_ids,
            attention_mask=torch.ones_like(prompt_ids),
            max_new_tokens=20,
            min_new_tokens=20,
            do_sample=False,
        )
        # min_new_tokens bars end-of-text, which the tiny model picks at times
        config = GenerationConfig(max_new_tokens=20, ignore_eos=True)
        mine = ids(run(model, prompt, [config]))
        if 0 not in mine:
            assert mine == expected[0, prompt_ids.shape[1] :].tolist()


def test_contrastive_tokens_are_those_of_the_published_algorithm(
    model: LocalModel, reference: TransformersNetwork
) -> None:
    for prompt in (PROMPT, "rain and calm"):
        expected = naive_contrastive(reference, model.tokenizer.encode_ids(prompt), CONTRASTIVE)
        assert ids(run(model, prompt, [CONTRASTIVE])) == expected
        assert ids(run(model, prompt, [CONTRASTIVE], network=reference)) == expected


def test_the_module_without_our_mask_gives_the_same(model: LocalModel, folder: Path) -> None:
    network = open_source(folder).reference(torch.float32)
    assert isinstance(network, TransformersNetwork)
    network._siblings_as_positions = False
    assert ids(run(model, PROMPT, [CONTRASTIVE], network=network)) == ids(run(model, PROMPT, [CONTRASTIVE]))


def test_a_lane_does_not_depend_on_its_neighbours(model: LocalModel) -> None:
    lanes = [GREEDY, CONTRASTIVE, SAMPLED, GenerationConfig(strategy="sample", seed=9, max_new_tokens=7)]
    together = run(model, PROMPT, lanes)
    for index, config in enumerate(lanes):
        assert ids(together, index) == ids(run(model, PROMPT, [config]))


def test_prompts_of_different_lengths_share_a_batch(model: LocalModel) -> None:
    prompts = [PROMPT, "rain", "a robot entered the library and asked the rain"]
    for config in (GREEDY, CONTRASTIVE):
        together = run(model, prompts, [config] * 3)
        for index, prompt in enumerate(prompts):
            assert ids(together, index) == ids(run(model, prompt, [config]))


def test_same_seed_same_text_and_another_seed_another(model: LocalModel) -> None:
    other = GenerationConfig(strategy="sample", temperature=1.3, seed=4, max_new_tokens=20, ignore_eos=True)
    assert ids(run(model, PROMPT, [SAMPLED])) == ids(run(model, PROMPT, [SAMPLED]))
    assert ids(run(model, PROMPT, [SAMPLED])) != ids(run(model, PROMPT, [other]))


def test_a_drawn_seed_is_told_and_repeats_the_run(model: LocalModel) -> None:
    result = run(model, PROMPT, [GenerationConfig(strategy="sample", max_new_tokens=8)])
    config = result.lanes[0].config
    assert config.seed is not None
    assert ids(run(model, PROMPT, [config])) == ids(result)


def test_each_step_reports_the_engines_numbers(model: LocalModel, reference: TransformersNetwork) -> None:
    result = run(model, PROMPT, [SAMPLED])
    written = model.tokenizer.encode_ids(PROMPT)
    for step in result.lanes[0].steps:
        with torch.inference_mode():
            logits = reference.model(torch.tensor([written])).logits[0, -1]
        raw = logits.softmax(0)
        assert step.raw_probability == pytest.approx(float(raw[step.token.id]), abs=1e-4)
        assert step.probability == pytest.approx(float((logits / 1.3).softmax(0)[step.token.id]), abs=1e-4)
        assert step.rank == int((raw > raw[step.token.id]).sum()) + 1
        assert step.entropy_bits == pytest.approx(-float((raw * raw.log2()).sum()), abs=1e-2)
        assert [c.rank for c in step.candidates] == list(range(1, 21))
        assert step.candidates[0].id == int(raw.argmax())
        written.append(step.token.id)


def test_events_tell_the_run_in_order(model: LocalModel) -> None:
    events: list[Event] = list(generate(model.network, model.tokenizer, [PROMPT], [GREEDY, SAMPLED]))
    assert isinstance(events[0], Started)
    assert isinstance(events[1], Prefilling)
    assert isinstance(events[2], Prefilled)
    assert events[2].tokens == len(model.tokenizer.encode_ids(PROMPT))
    steps = [event for event in events if isinstance(event, Stepped)]
    assert [(step.lane, step.index) for step in steps] == [(lane, i) for i in range(20) for lane in (0, 1)]
    assert {event.lane: event.reason for event in events if isinstance(event, Finished)} == {0: "length", 1: "length"}


def test_contrastive_steps_carry_every_candidates_score(model: LocalModel) -> None:
    step = run(model, PROMPT, [CONTRASTIVE]).lanes[0].steps[3]
    assert len(step.candidates) == 6
    best = max(step.candidates, key=lambda candidate: candidate.score or -9)
    assert best.id == step.token.id
    for candidate in step.candidates:
        assert candidate.similarity is not None
        assert candidate.score == pytest.approx(0.4 * candidate.probability - 0.6 * candidate.similarity, abs=1e-5)


def test_repetition_penalty_ranks_stay_raw(model: LocalModel) -> None:
    config = GenerationConfig(repetition_penalty=2.0, max_new_tokens=12, ignore_eos=True)
    steps = run(model, PROMPT, [config]).lanes[0].steps
    assert any(step.rank > 1 for step in steps)
    assert all([c.rank for c in step.candidates] == list(range(1, 21)) for step in steps)


def test_end_of_text_ends_a_lane_unless_ignored(model: LocalModel) -> None:
    endless = run(model, PROMPT, [GREEDY])
    last = ids(endless)[4]
    model.tokenizer.eos_ids = frozenset([last])
    try:
        ended = run(model, PROMPT, [GenerationConfig(max_new_tokens=20)])
        assert ended.lanes[0].finish_reason == "end_of_text"
        assert ids(ended) == ids(endless)[: ids(endless).index(last) + 1]
        assert ids(run(model, PROMPT, [GREEDY])) == ids(endless)
    finally:
        model.tokenizer.eos_ids = frozenset([0])


def test_a_stop_text_ends_a_lane_even_across_tokens(model: LocalModel) -> None:
    text = run(model, PROMPT, [GREEDY]).lanes[0].text
    stop = text[6:9]
    stopped = run(model, PROMPT, [GenerationConfig(max_new_tokens=20, ignore_eos=True, stop=(stop,))]).lanes[0]
    assert stopped.finish_reason == "stop_sequence"
    assert stop in stopped.text
    assert stop not in stopped.text[: -len(stopped.steps[-1].token.text) or None]


def test_a_stop_text_may_name_a_special_token_whose_name_is_no_part_of_the_text(model: LocalModel) -> None:
    config = GenerationConfig(max_new_tokens=20, ignore_eos=True, stop=("<|end|>",))
    lane = run(model, PROMPT, [replace(config, logit_bias=((0, 100.0),))]).lanes[0]
    assert (lane.finish_reason, len(lane.steps), lane.text) == ("stop_sequence", 1, "")
    assert run(model, PROMPT, [replace(config, banned=(0,))]).lanes[0].finish_reason == "length"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 12))
def test_cancel_takes_effect_within_one_step(tiny_llama: Path, after: int) -> None:
    model = CANCELLED.setdefault("model", load_model(str(tiny_llama), precision="float32"))
    asked = 0

    def proceed() -> bool:
        nonlocal asked
        asked += 1
        return asked <= after

    result = RunResult()
    for event in generate(model.network, model.tokenizer, [PROMPT], [GREEDY, CONTRASTIVE], proceed=proceed):
        result.add(event)
    assert [lane.finish_reason for lane in result.lanes] == ["cancelled", "cancelled"]
    assert sum(len(lane.steps) for lane in result.lanes) == after
    for index, config in enumerate((GREEDY, CONTRASTIVE)):
        assert ids(result, index) == ids(run(model, PROMPT, [config]))[: len(result.lanes[index].steps)]


CANCELLED: dict[str, LocalModel] = {}


def test_cancel_during_the_prefill_ends_the_run(model: LocalModel) -> None:
    events = list(generate(model.network, model.tokenizer, [PROMPT], [GREEDY], cancelled=lambda: True))
    assert events[1:] == [Finished(0, "cancelled")]


def test_what_does_not_fit_is_said_with_both_numbers(model: LocalModel) -> None:
    with pytest.raises(ContextError, match=r"prompt has [\d,]+ tokens.*holds 512"):
        run(model, "sky" * 600, [GREEDY])
    with pytest.raises(ContextError, match=r"510 new ones exceed the context of 512; lower max_new_tokens to \d+"):
        run(model, PROMPT, [GenerationConfig(max_new_tokens=510)])
    with pytest.raises(InputError, match="prompt is empty"):
        run(model, "", [GREEDY])
    with pytest.raises(InputError, match="2 prompts for 1"):
        run(model, [PROMPT, PROMPT], [GREEDY])
    with pytest.raises(InputError, match="no configuration"):
        run(model, PROMPT, [])


def test_a_long_prompt_goes_through_in_chunks(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(model, "sky rain " * 20, [GREEDY])
    monkeypatch.setattr("engine.generation.loop.PREFILL_CHUNK", 7)
    assert ids(run(model, "sky rain " * 20, [GREEDY, CONTRASTIVE])) == ids(whole)


EXPECTED = json.loads((Path(__file__).parent / "contrastive_4_49.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("length", [12, pytest.param(EXPECTED["max_new_tokens"], marks=pytest.mark.long)])
@pytest.mark.parametrize("prompt", list(EXPECTED["greedy"]))
def test_the_embedded_models_tokens_are_those_of_transformers_4_49(
    embedded: LocalModel, prompt: str, length: int
) -> None:
    """4.49 is the last release with contrastive search; benchmarks/reference_4_49.py wrote the file."""
    greedy = GenerationConfig(max_new_tokens=length)
    contrastive = GenerationConfig(strategy="contrastive", top_k=40, alpha=0.6, max_new_tokens=length)
    result = run(embedded, prompt, [greedy, contrastive])
    assert ids(result, 0) == EXPECTED["greedy"][prompt][:length]
    assert ids(result, 1) == EXPECTED["contrastive"][prompt][:length]


def test_temperature_does_not_change_a_greedy_choice(embedded: LocalModel) -> None:
    texts = {
        run(embedded, "The sky", [GenerationConfig(temperature=t, max_new_tokens=8)]).lanes[0].text
        for t in (0.2, 1.0, 3.0)
    }
    assert len(texts) == 1


@pytest.mark.parametrize("length", [12, pytest.param(40, marks=pytest.mark.long)])
def test_presets_run_on_the_embedded_model(embedded: LocalModel, length: int) -> None:
    configs = [replace(config, max_new_tokens=length) for config in PRESETS.values()]
    result = run(embedded, "The sky above the city looked calm, but", configs)
    assert result.lanes[0].text.startswith(" the air was alive with the scent of blooming flowers.")
    assert len({lane.text for lane in result.lanes}) == len(PRESETS)


class Counting:
    """A network that counts the positions that go through it."""

    def __init__(self, inner: Network) -> None:
        self._inner = inner
        self.positions = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def forward(self, ids: torch.Tensor, cache: object, **options: bool) -> object:
        self.positions += ids.numel()
        return self._inner.forward(ids, cache, **options)


def first_run(
    model: LocalModel, config: GenerationConfig, prompt: str = PROMPT
) -> tuple[Start, RunResult, list[LaneState]]:
    start, states, result = Start(tuple(model.tokenizer.encode(prompt))), [], RunResult()
    for event in generate(model.network, model.tokenizer, [start], [config], keep_state=states.append):
        result.add(event)
    return start, result, states


@pytest.mark.parametrize("config", [GREEDY, SAMPLED, CONTRASTIVE], ids=["greedy", "sample", "contrastive"])
@pytest.mark.parametrize("fork", [0, 1, 9])
@pytest.mark.parametrize("kept", [True, False])
def test_a_lane_that_goes_on_from_a_fork_writes_what_one_run_would(
    model: LocalModel, config: GenerationConfig, fork: int, kept: bool
) -> None:
    start, whole, states = first_run(model, config)
    written = tuple(ids(whole)[:fork])
    again = replace(start, written=written, state=states[0] if kept else None)
    result = run(model, [again], [replace(config, max_new_tokens=config.max_new_tokens - fork)])
    assert ids(result) == ids(whole)[fork:]
    for mine, theirs in zip(result.lanes[0].steps, whole.lanes[0].steps[fork:]):
        assert (mine.index, mine.token) == (theirs.index, theirs.token)
        assert mine.raw_probability == pytest.approx(theirs.raw_probability, abs=1e-5)


@pytest.mark.parametrize("config", [GREEDY, SAMPLED, CONTRASTIVE], ids=["greedy", "sample", "contrastive"])
def test_forced_tokens_come_next_with_their_own_numbers(model: LocalModel, config: GenerationConfig) -> None:
    start, whole, states = first_run(model, config)
    forced = (ids(whole)[2] + 1, 33)
    result = run(model, [replace(start, written=tuple(ids(whole)[:2]), forced=forced, state=states[0])], [config])
    steps = result.lanes[0].steps
    assert [step.token.id for step in steps[:2]] == list(forced)
    assert [step.forced for step in steps[:3]] == [True, True, False]
    assert len(steps) == 2 + config.max_new_tokens
    context = [token.id for token in start.prompt] + ids(whole)[:2]
    raw = logits_after(model.network, context).log_softmax(0).exp()
    assert steps[0].raw_probability == pytest.approx(float(raw[forced[0]]), abs=1e-5)
    assert steps[0].rank == int((raw > raw[forced[0]]).sum()) + 1
    rest = run(model, [Start(start.prompt, (*ids(whole)[:2], *forced))], [config])
    assert [step.token.id for step in steps[2:]] == ids(rest)


def test_going_back_300_tokens_sends_only_what_is_new_through_the_network(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    config = replace(GREEDY, max_new_tokens=400)
    start, whole, states = first_run(model, config)
    network = Counting(model.network)
    branch = replace(start, written=tuple(ids(whole)[:100]), forced=(9,), state=states[0])
    result = RunResult()
    for event in generate(network, model.tokenizer, [branch], [replace(config, max_new_tokens=5)]):  # type: ignore[list-item]
        result.add(event)
    # The last position before the fork, for its logits; then each new token but the last.
    assert network.positions == 1 + 5
    assert len(result.lanes[0].steps) == 6


def test_many_lanes_may_go_on_from_one_state(model: LocalModel) -> None:
    start, whole, states = first_run(model, GREEDY)
    branch = replace(start, written=tuple(ids(whole)[:4]), state=states[0])
    configs = [replace(SAMPLED, seed=seed) for seed in range(5)]
    together = run(model, [branch] * 5, configs)
    for lane, config in enumerate(configs):
        assert ids(together, lane) == ids(run(model, [branch], [config]))


def test_a_state_without_hidden_states_does_for_all_but_contrastive_search(model: LocalModel) -> None:
    start, whole, states = first_run(model, GREEDY)
    assert states[0].hidden is None
    branch = replace(start, written=tuple(ids(whole)[:4]), state=states[0])
    anew = run(model, [replace(branch, state=None)], [CONTRASTIVE])
    assert ids(run(model, [branch], [CONTRASTIVE])) == ids(anew)


def test_cancelling_keeps_what_is_known(model: LocalModel) -> None:
    states: list[LaneState] = []
    rounds = iter([True] * 5 + [False])
    result = RunResult()
    for event in generate(
        model.network,
        model.tokenizer,
        [PROMPT],
        [GREEDY, CONTRASTIVE],
        proceed=lambda: next(rounds),
        in_step=lambda: True,
        keep_state=states.append,
    ):
        result.add(event)
    assert [len(lane.steps) for lane in result.lanes] == [5, 5]
    prompt = [token.id for token in model.tokenizer.encode(PROMPT)]
    assert [list(state.ids) for state in states] == [prompt + ids(result, lane) for lane in (0, 1)]


def test_each_steps_logits_can_be_kept(model: LocalModel) -> None:
    memory = LogitsMemory()
    events = generate(model.network, model.tokenizer, [PROMPT], [GREEDY], keep_logits=memory.keep)
    context = [token.id for token in model.tokenizer.encode(PROMPT)]
    for event in events:
        if isinstance(event, Stepped):
            assert event.logits is not None
            torch.testing.assert_close(event.logits.row, logits_after(model.network, context), atol=1e-4, rtol=1e-4)
            context.append(event.token.id)


def test_forced_tokens_count_against_the_context(tiny_llama: Path) -> None:
    model = load_model(str(tiny_llama), precision="float32")
    start = Start(tuple(model.tokenizer.encode(PROMPT)), forced=(9,) * 495)
    with pytest.raises(ContextError, match="exceed the context of 512"):
        run(model, [start], [replace(GREEDY, max_new_tokens=20)])
