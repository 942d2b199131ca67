"""Beam search, against transformers' `generate(num_beams=…)`: tokens and scores."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.base.errors import ConfigError
from engine.generation.config import GenerationConfig
from engine.generation.events import Beamed, Event, Finished, Start, Stepped, Survived
from engine.generation.inspection import Inspection
from engine.generation.loop import generate
from engine.generation.memory import KeptLogits, StateMemory
from engine.generation.result import RunResult
from engine.loading import load_model
from engine.models.local import LocalModel, load_reference
from tests.conftest import EMBEDDED
from tests.tiny_models import save_model

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT = "the sky above the city"


@cache
def loaded(folder: Path) -> LocalModel:
    return load_model(str(folder), precision="float32")  # type: ignore[return-value]


@cache
def module(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def neox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("beams") / "neox", "gpt_neox")


def config(**changes: Any) -> GenerationConfig:
    return GenerationConfig(**({"strategy": "beam", "max_new_tokens": 12, "beams": 3} | changes))


def run(model: LocalModel, one: GenerationConfig, prompt: str | Start = PROMPT, **how: Any) -> list[Event]:
    return list(generate(model.network, model.tokenizer, [prompt], [one], **how))


def ids(events: list[Event]) -> list[int]:
    return [event.token.id for event in events if isinstance(event, Stepped)]


def beams_of(events: list[Event]) -> list[Beamed]:
    return [event for event in events if isinstance(event, Beamed)]


def oracle(model: LocalModel, theirs: Any, one: GenerationConfig, ends: list[int], **more: Any) -> tuple[Any, Any]:
    prompt = torch.tensor([model.tokenizer.encode_ids(PROMPT)])
    found = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        num_beams=one.beams,
        num_return_sequences=one.beams,
        max_new_tokens=one.max_new_tokens,
        length_penalty=one.length_penalty,
        early_stopping={"no": False, "yes": True, "never": "never"}[one.early_stopping],
        do_sample=False,
        eos_token_id=ends or None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
        **more,
    )
    return found.sequences[:, prompt.shape[1] :], found.sequences_scores


def agrees(model: LocalModel, theirs: Any, one: GenerationConfig, **more: Any) -> None:
    ends = [] if one.ignore_eos else sorted(model.tokenizer.eos_ids)
    sequences, scores = oracle(model, theirs, one, ends, **more)
    events = run(model, one)
    text = ids(events)
    assert text == sequences[0, : len(text)].tolist()
    ended = sorted((b.score for b in beams_of(events)[-1].beams if b.state == "ended"), reverse=True)
    count = len(scores)
    assert ended[:1] == pytest.approx(scores[:1].tolist(), rel=1e-5, abs=1e-5)
    assert len(ended) >= count
    for score in scores.tolist():  # each of theirs ended here too
        assert min(abs(score - other) for other in ended) < 1e-4


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("early_stopping", ["no", "yes", "never"])
def test_tokens_and_scores_are_those_of_transformers(
    length_penalty: float, early_stopping: str, tiny_llama: Path, tiny_gpt2: Path, neox: Path
) -> None:
    for folder in (tiny_llama, tiny_gpt2, neox) if early_stopping == "no" else (tiny_llama,):
        model = loaded(folder)
        for bias in ((), tuple((id, 2.5) for id in sorted(model.tokenizer.eos_ids))):  # ends early, or hardly
            one = config(length_penalty=length_penalty, early_stopping=early_stopping, logit_bias=bias)
            agrees(model, module(folder), one, sequence_bias={(id,): value for id, value in bias} or None)


def test_stages_act_on_log_probabilities_as_in_transformers(tiny_llama: Path) -> None:
    model = loaded(tiny_llama)
    for changes, more in (
        ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
        ({"no_repeat_ngram": 2}, {"no_repeat_ngram_size": 2}),
        ({"banned": (40, 41)}, {"suppress_tokens": [40, 41]}),
    ):
        agrees(model, module(tiny_llama), config(ignore_eos=True, beams=5, **changes), **more)


@pytest.mark.long
def test_the_embedded_models_beams_are_transformers(embedded: LocalModel) -> None:
    theirs = load_reference(EMBEDDED).model
    for length_penalty in (0.0, 2.0):
        agrees(embedded, theirs, config(length_penalty=length_penalty, max_new_tokens=6))


def test_one_beam_is_greedy(tiny_llama: Path) -> None:
    model = loaded(tiny_llama)
    greedy = ids(run(model, GenerationConfig(max_new_tokens=12)))
    events = run(model, config(beams=1))
    assert ids(events) == greedy
    assert len({event.seconds for event in events if isinstance(event, Stepped)}) == 1, "a share of the search's time"


def test_every_beam_is_told_where_it_left_and_by_which_it_died(tiny_llama: Path) -> None:
    rounds = beams_of(run(loaded(tiny_llama), config(beams=4, ignore_eos=True)))
    assert [one.round for one in rounds] == list(range(1, 13))
    last = {beam.id: beam for beam in rounds[-1].beams}
    assert sum(beam.state == "ended" for beam in last.values()) == 4
    died = [beam for beam in last.values() if beam.state == "died"]
    assert died
    for beam in last.values():
        if beam.parent is not None:
            assert beam.fork <= len(beam.ids)
    for beam in died:
        assert beam.by in last
        assert beam.died is not None
        assert beam.died > len(beam.ids) - 1
        assert last[beam.by].state != "died" or last[beam.by].died > beam.died  # type: ignore[index,operator]
    for one in rounds:  # as many run at once as there are beams, at most
        assert sum(beam.state == "running" for beam in one.beams) <= 4
    result = RunResult()
    for event in run(loaded(tiny_llama), config(beams=4, ignore_eos=True)):
        result.add(event)
    lane = json.loads(json.dumps(result.lane_dict(0)))
    assert [beam["id"] for beam in lane["beams"]] == sorted(last)


@pytest.mark.parametrize("stops", [False, True])
def test_the_beams_that_survive_bring_their_steps(stops: bool, tiny_llama: Path) -> None:
    """Each step is that of the same text given to a lane that is forced to write it."""
    model, rounds = loaded(tiny_llama), iter(range(5))
    one = config(beams=4, ignore_eos=True, repetition_penalty=1.3)
    events = run(model, one, proceed=(lambda: next(rounds, None) is not None) if stops else lambda: True)
    last = beams_of(events)[-1]
    survived = [event for event in events if isinstance(event, Survived)]
    known = {beam.id: beam for beam in last.beams}
    assert last.leader is not None
    alive = {beam.id for beam in last.beams if beam.state == ("running" if stops else "ended")}
    assert {event.beam for event in survived} == alive - {last.leader.id}
    assert {event.reason for event in survived} == {"cancelled" if stops else "length"}
    prompt = tuple(model.tokenizer.encode(PROMPT))
    for event in survived:
        beam = known[event.beam]
        assert tuple(step.token.id for step in event.steps) == beam.ids
        assert "".join(step.token.text for step in event.steps[beam.fork :]) == beam.text
        forced = run(model, one, Start(prompt, forced=beam.ids))
        steps = [step for step in forced if isinstance(step, Stepped)][: len(beam.ids)]
        for mine, theirs in zip(event.steps, steps, strict=True):
            assert (mine.token, mine.index) == (theirs.token, theirs.index)
            assert mine.raw_probability == pytest.approx(theirs.raw_probability, rel=1e-3)
            assert mine.probability == pytest.approx(theirs.probability, rel=1e-3)


def test_its_steps_are_those_of_a_branch(tiny_llama: Path) -> None:
    """Numbers of each step, a state to go on from, forced tokens, stop texts, and the inspector."""
    model, states = loaded(tiny_llama), StateMemory()
    prompt = tuple(model.tokenizer.encode(PROMPT))
    whole = run(model, config(ignore_eos=True, repetition_penalty=1.3), keep_state=states.keep, keep_logits=KeptLogits)
    steps = [event for event in whole if isinstance(event, Stepped)]
    one = steps[4]
    assert one.logits is not None
    assert one.logits.row is not None
    before = [token.id for token in prompt] + [step.token.id for step in steps[:4]]
    view = Inspection(one.logits.row, model.tokenizer, before, config(repetition_penalty=1.3), one)
    assert view.of([one.token.id])[0].probability == pytest.approx(one.probability, abs=1e-6)
    on = Start(prompt, tuple(step.token.id for step in steps), state=states.find(before, hidden=False))
    assert ids(run(model, config(max_new_tokens=3), on)) == ids(
        run(model, config(max_new_tokens=3), Start(prompt, on.written))
    )
    forced = Start(prompt, forced=tuple(model.tokenizer.encode_ids(" robot")))
    found = [
        event for event in run(model, config(max_new_tokens=4, ignore_eos=True), forced) if isinstance(event, Stepped)
    ]
    assert [step.forced for step in found] == [True] * len(forced.forced) + [False] * 4
    stop = steps[2].token.text
    ended = run(model, config(ignore_eos=True, stop=(stop,), early_stopping="yes", length_penalty=0.0))
    reasons = [event.reason for event in ended if isinstance(event, Finished)]
    assert reasons[0] in ("stop_sequence", "length")


def test_a_stop_gives_the_best_text_so_far(tiny_llama: Path) -> None:
    asked = 0

    def proceed() -> bool:
        nonlocal asked
        asked += 1
        return asked <= 4

    events = run(loaded(tiny_llama), config(ignore_eos=True), proceed=proceed)
    assert len(ids(events)) == 4
    assert [event.reason for event in events if isinstance(event, Finished)] == ["cancelled"]
    assert [token.id for token in beams_of(events)[-1].best] == ids(events)


@pytest.mark.parametrize(
    "changes", [{"beams": 0}, {"early_stopping": "perhaps"}, {"guidance_scale": 2.0}, {"regex": "a+"}]
)
def test_what_cannot_be_searched_is_one_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="allowed"):
        config(**changes)
