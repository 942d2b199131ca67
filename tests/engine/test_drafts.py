"""Speculative decoding: against decoding without it, transformers' assisted generation, and the exact distributions."""

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

from engine.base.errors import ConfigError, ContextError, InputError
from engine.generation.config import GenerationConfig
from engine.generation.distribution import distribution
from engine.generation.drafts import DraftModel, Guess, Lookup, Second, fitted, sampled_verdict
from engine.generation.events import Event, Finished, Noted, Start, Stepped
from engine.generation.loop import generate
from engine.generation.memory import StateMemory
from engine.generation.result import RunResult, drafted
from engine.loading import load_model
from engine.models.amateurs import draft_for
from engine.models.local import LocalModel
from tests.conftest import save_tiny
from tests.engine.test_lane_models import other_words as other_words
from tests.tiny_models import save_model

pytestmark = pytest.mark.usefixtures("one_thread")

AGAIN = "the sky above the city, the sky above the city, the sky above"
STEPS = 24


@cache
def loaded(folder: Path) -> LocalModel:
    return load_model(str(folder), precision="float32")  # type: ignore[return-value]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, tiny_gpt2: Path) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("drafts")
    others = {name: save_model(made / name, name) for name in ("gpt_neox", "mamba")}
    return {"llama": tiny_llama, "gpt2": tiny_gpt2} | others


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """The tiny Llama with a little noise on its weights: it guesses right often, and not always."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("near") / "model"
    shutil.copytree(tiny_llama, folder)
    torch.manual_seed(1)
    weights = load_file(folder / "model.safetensors")
    noisy = {name: one + 0.004 * torch.randn_like(one) for name, one in weights.items()}
    save_file(noisy, folder / "model.safetensors")
    return folder


def config(**changes: Any) -> GenerationConfig:
    return GenerationConfig(**({"max_new_tokens": STEPS, "ignore_eos": True, "draft": "lookup"} | changes))


def second(folder: Path, states: StateMemory | None = None) -> DraftModel:
    return DraftModel(loaded(folder).network, "second", states)


def run(
    model: LocalModel, one: GenerationConfig, prompt: str | Start = AGAIN, draft: DraftModel | None = None, **how: Any
) -> list[Event]:
    return list(generate(model.network, model.tokenizer, [prompt], [one], drafts=[draft], **how))


def steps_of(events: Sequence[Event]) -> list[Stepped]:
    return [event for event in events if isinstance(event, Stepped)]


def ids(events: Sequence[Event]) -> list[int]:
    return [step.token.id for step in steps_of(events)]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "mamba"])
@pytest.mark.parametrize("changes", [{}, {"strategy": "sample", "seed": 4, "top_p": 0.9, "repetition_penalty": 1.2}])
def test_lookup_writes_what_is_written_without_a_draft(
    name: str, changes: dict[str, Any], folders: dict[str, Path]
) -> None:
    model = loaded(folders[name])
    plain, ours = run(model, config(draft=None, **changes)), run(model, config(**changes))
    assert ids(ours) == ids(plain)
    for step, other in zip(steps_of(ours), steps_of(plain)):
        assert (step.rank, step.kept) == (other.rank, other.kept)
        assert step.probability == pytest.approx(other.probability, abs=1e-5)
        assert step.entropy_bits == pytest.approx(other.entropy_bits, abs=1e-4)
    noted = [event.text for event in ours if isinstance(event, Noted)]
    found = drafted(steps_of(ours))
    if name == "mamba":
        assert len(noted) == 1
        assert "no draft" in noted[0]
        assert (found.drafted, found.forwards, found.tokens_per_forward) == (0, STEPS, 1)
    else:
        assert not noted
        assert found.drafted > 0


def test_greedy_with_a_second_model_is_greedy_without(folders: dict[str, Path], near: Path) -> None:
    model = loaded(folders["llama"])
    plain = ids(run(model, config(draft=None)))
    for folder in (near, folders["llama"], folders["gpt2"]):
        ours = run(model, config(draft="second", draft_tokens=5), draft=second(folder))
        assert ids(ours) == plain
        assert drafted(steps_of(ours)).drafted > 0
    same = drafted(steps_of(run(model, config(draft="second"), draft=second(folders["llama"]))))
    assert same.accepted == same.drafted
    assert same.tokens_per_forward > 3


def test_greedy_is_that_of_transformers_with_an_assistant(folders: dict[str, Path], near: Path) -> None:
    model = loaded(folders["llama"])
    modules = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (folders["llama"], near)]
    prompt = torch.tensor([model.tokenizer.encode_ids(AGAIN)])
    how: dict[str, Any] = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(prompt)
    with_model = modules[0].generate(prompt, attention_mask=mask, assistant_model=modules[1], **how)
    with_lookup = modules[0].generate(prompt, attention_mask=mask, prompt_lookup_num_tokens=8, **how)
    start = prompt.shape[1]
    eos = sorted(model.tokenizer.eos_ids)
    for ours, theirs in (
        (run(model, config(draft="second", banned=eos), draft=second(near)), with_model),
        (run(model, config(banned=eos)), with_lookup),
    ):
        assert ids(ours) == theirs[0, start:].tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=24), st.integers(1, 4), st.integers(1, 12))
def test_lookup_finds_what_transformers_finds(text: list[int], ngram: int, count: int) -> None:
    oracle = PromptLookupCandidateGenerator(
        num_output_tokens=count, max_matching_ngram_size=ngram, max_length=len(text) + count + 1
    )
    lookup = Lookup(count, ngram)
    for length in range(1, len(text) + 1):  # as a text that grows
        found, _logits = oracle.get_candidates(torch.tensor([text[:length]]))
        assert lookup.continuation(text[:length], count) == found[0, length:].tolist()


def stage(weights: Tensor) -> Any:
    return distribution(weights.log(), None, GenerationConfig(strategy="sample"))


def test_the_rule_leaves_the_distribution_exactly_as_it_is() -> None:
    """Summed over every guess and a fine grid of draws, what comes is distributed as p."""
    p, q = torch.tensor([0.5, 0.2, 0.2, 0.1]), torch.tensor([0.1, 0.6, 0.0, 0.3])
    grid = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    came = torch.zeros(4, dtype=torch.float64)
    stayed = 0.0
    for guess in (0, 1, 3):
        verdicts = [sampled_verdict(Guess(guess, stage(q)), stage(p), draw) for draw in grid[::20]]
        for verdict in verdicts:
            came[verdict.id] += q[guess] / len(verdicts)
            stayed += float(q[guess]) * verdict.stays / len(verdicts)
    assert came.tolist() == pytest.approx(p.tolist(), abs=2e-3)
    assert stayed == pytest.approx(float(torch.minimum(p, q).sum()), abs=2e-3)  # Leviathan et al., corollary 3.6


@pytest.fixture(scope="module")
def few_words(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny models that are unlike enough for guesses to be turned down."""
    made = tmp_path_factory.mktemp("few")
    return save_tiny(made / "one", "gpt2"), save_tiny(made / "two", "llama")


@pytest.mark.parametrize("draft", ["lookup", "second"])
def test_sampled_texts_are_distributed_as_without_a_draft(draft: str, few_words: tuple[Path, Path]) -> None:
    """The third token of many texts, against its exact distribution summed over all that may stand before it."""
    model = loaded(few_words[0])
    prompt = tuple(model.tokenizer.encode("the sky the sky the"))
    start = [token.id for token in prompt]
    changes: dict[str, Any] = {"strategy": "sample", "top_k": 3, "temperature": 0.8, "max_new_tokens": 3}
    expected: Counter[int] = Counter()

    @cache
    def after(text: tuple[int, ...]) -> dict[int, float]:
        cache_of = model.network.cache(len(text), [0])
        with torch.inference_mode():
            logits = model.network.forward(torch.tensor([text]), cache_of).logits()[0].float()
        kept, which = distribution(logits, None, config(draft=None, **changes)).survivors
        assert kept is not None
        return dict(zip(kept.tolist(), which.tolist()))

    for one, p in after(tuple(start)).items():
        for two, q in after((*start, one)).items():
            for three, r in after((*start, one, two)).items():
                expected[three] += p * q * r
    runs = 400
    second_model = second(few_words[1]) if draft == "second" else None
    came: Counter[int] = Counter()
    for first in range(0, runs, 50):
        configs = [config(draft=draft, draft_tokens=3, seed=seed, **changes) for seed in range(first, first + 50)]
        events = generate(
            model.network, model.tokenizer, [Start(prompt)], configs, candidates=1, drafts=[second_model] * 50
        )
        came.update(step.token.id for step in events if isinstance(step, Stepped) and step.index == 2)
    common = [id for id, p in expected.items() if p * runs >= 5]
    counts = [came[id] for id in common]
    rest = runs - sum(counts), runs * (1 - sum(expected[id] for id in common))
    assert set(came) <= set(expected)
    wanted = [expected[id] * runs for id in common]
    if rest[1] > 1e-6:
        counts, wanted = [*counts, rest[0]], [*wanted, rest[1]]
    statistic = sum((count - one) ** 2 / one for count, one in zip(counts, wanted))
    freedom = torch.tensor((len(wanted) - 1) / 2, dtype=torch.float64)
    assert torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=torch.float64)) > 0.001


def test_the_same_seed_and_draft_give_the_same_text_however_it_is_cut(folders: dict[str, Path], near: Path) -> None:
    """Guesses at a time, a branch, a state that is still known, and stepping change nothing."""
    model = loaded(folders["llama"])
    sampled: dict[str, Any] = {"strategy": "sample", "seed": 11, "temperature": 1.2, "draft": "second"}
    states, lanes = StateMemory(), StateMemory()
    whole = run(model, config(**sampled), draft=second(near, states), keep_state=lanes.keep)
    text = ids(whole)
    found = drafted(steps_of(whole))
    assert 0 < found.accepted < found.drafted
    for count in (1, 3, 20):
        assert ids(run(model, config(draft_tokens=count, **sampled), draft=second(near))) == text
    prompt = tuple(model.tokenizer.encode(AGAIN))
    for fork in (1, 7, 15):
        left = config(**sampled | {"max_new_tokens": STEPS - fork})
        start = Start(prompt, tuple(text[:fork]))
        state = lanes.find(start.ids, hidden=False)
        again = Start(prompt, tuple(text[:fork]), state=state)
        assert state is not None
        for one in (start, again):
            assert ids(run(model, left, one, second(near, states), keep_state=lanes.keep)) == text[fork:]


def test_a_forced_token_is_not_the_drafts(folders: dict[str, Path], near: Path) -> None:
    model = loaded(folders["llama"])
    prompt = tuple(model.tokenizer.encode(AGAIN))
    forced = tuple(model.tokenizer.encode_ids(" robot library"))
    plain = ids(run(model, config(draft=None, max_new_tokens=8), Start(prompt, forced=forced)))
    ours = run(model, config(draft="second", max_new_tokens=8), Start(prompt, forced=forced), second(near))
    assert ids(ours) == plain
    steps = steps_of(ours)
    assert [step.forced for step in steps] == [True] * len(forced) + [False] * 8
    assert all(step.draft is not None and step.draft.id is None for step in steps[: len(forced)])


def test_lanes_end_in_the_middle_of_what_was_verified(folders: dict[str, Path]) -> None:
    """At a stop text, at the end of text and at their length; what is kept of them is of their text alone."""
    model = loaded(folders["llama"])
    same = second(folders["llama"])
    text = ids(run(model, config(draft=None)))
    tokens = [model.tokenizer.label(id) for id in text]
    for changes in ({"max_new_tokens": 3}, {"stop": ("".join(step.token.text for step in _plain(model)[2:4]),)}):
        states = StateMemory()
        one = config(draft="second", draft_tokens=20, **changes)
        events = run(model, one, draft=same, keep_state=states.keep)
        plain = run(model, config(draft=None, **changes))
        assert ids(events) == ids(plain), tokens
        assert [e.reason for e in events if isinstance(e, Finished)] == [
            e.reason for e in plain if isinstance(e, Finished)
        ]
        (state,) = states._states.values()
        written = [*model.tokenizer.encode_ids(AGAIN), *ids(events)]
        assert list(state.ids) == written[: len(state.ids)]
        assert state.cache.length == len(state.ids)


def _plain(model: LocalModel) -> list[Stepped]:
    return steps_of(run(model, config(draft=None)))


def test_what_was_verified_waits_for_a_step_and_goes_with_a_stop(folders: dict[str, Path]) -> None:
    model = loaded(folders["llama"])
    asked = 0

    def proceed() -> bool:
        nonlocal asked
        asked += 1
        return asked <= 3

    events = run(model, config(draft="second"), draft=second(folders["llama"]), proceed=proceed)
    assert len(steps_of(events)) == 3  # each was asked for, though more were verified
    assert [event.reason for event in events if isinstance(event, Finished)] == ["cancelled"]


def test_beside_other_lanes_each_writes_its_own_text(folders: dict[str, Path], near: Path) -> None:
    model = loaded(folders["llama"])
    configs = [
        config(draft=None),
        config(),
        config(draft="second"),
        config(draft=None, strategy="contrastive", top_k=4),
    ]
    alone = [ids(run(model, one, draft=second(near) if one.draft == "second" else None)) for one in configs]
    guessing = [second(near) if one.draft == "second" else None for one in configs]
    for in_step in (False, True):
        result = RunResult()
        how: dict[str, Any] = {"drafts": guessing, "in_step": [bool, lambda: True][in_step]}
        for event in generate(model.network, model.tokenizer, [AGAIN], configs, **how):
            result.add(event)
        assert [[step.token.id for step in lane.steps] for lane in result.lanes] == alone


def test_a_step_says_what_became_of_its_guess(folders: dict[str, Path], near: Path) -> None:
    model = loaded(folders["llama"])
    sampled = config(strategy="sample", seed=11, temperature=1.2, draft="second")
    steps = steps_of(run(model, sampled, draft=second(near)))
    outcomes = Counter(step.draft.outcome for step in steps if step.draft is not None)
    assert set(outcomes) == {"accepted", "corrected"}  # each position of a sampled lane is guessed
    for step in steps:
        draft = step.draft
        assert draft is not None
        assert draft.acceptance is not None
        assert draft.draw is not None
        assert (draft.draw < draft.acceptance) == (draft.outcome == "accepted")
        assert (draft.id == step.token.id) or draft.outcome == "corrected"
    result = RunResult()
    for event in run(model, sampled, draft=second(near)):
        result.add(event)
    lane = json.loads(json.dumps(result.lane_dict(0)))
    assert lane["draft"]["tokens_per_forward"] == pytest.approx(STEPS / lane["draft"]["forwards"])
    assert lane["draft"]["forwards"] == sum(token["draft"]["forward"] for token in lane["tokens"])
    assert lane["draft"]["accepted"] == outcomes["accepted"]


def test_a_text_that_does_not_repeat_is_left_alone() -> None:
    """After guesses of which none stay, ever fewer are made."""
    lookup, text = Lookup(8, 3), [1, 2, 1]
    made = 0
    for _token in range(400):
        guesses = lookup.propose(text, 8)
        if guesses:
            made += len(guesses)
            lookup.learn(len(guesses), 0)
        text.append(1 if len(text) % 2 else 2)
    assert made < 40
    for _token in range(80):  # and more again where they do
        if guesses := lookup.propose(text, 8):
            lookup.learn(len(guesses), len(guesses))
    assert lookup.length == 8


def test_a_draft_of_another_vocabulary_is_refused_in_one_sentence(folders: dict[str, Path], other_words: Path) -> None:
    with pytest.raises(InputError, match=r"the draft .* has another vocabulary: token") as caught:
        draft_for(loaded(folders["llama"]), loaded(other_words))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy": "contrastive"}, "only with strategy greedy or sample"),
        ({"guidance_scale": 1.5}, "only without guidance"),
        ({"amateur": "gpt2"}, "only without guidance and without an amateur"),
        ({"draft_tokens": 0}, "from 1 to 64"),
        ({"draft_ngram": 17}, "from 1 to 16"),
        ({"draft": " "}, "lookup, or a name"),
    ],
)
def test_what_goes_with_no_draft_is_said_in_one_sentence(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**changes)


def test_a_draft_that_is_not_there_or_too_short_is_said(folders: dict[str, Path]) -> None:
    model = loaded(folders["llama"])
    with pytest.raises(InputError, match="the draft second is not loaded here"):
        run(model, config(draft="second"))
    short = DraftModel(loaded(folders["llama"]).network, "second")
    object.__setattr__(short, "network", _Short(short.network))
    with pytest.raises(ContextError, match="exceed the draft's context of 20"):
        run(model, config(draft="second"), draft=short)


class _Short:
    """A network whose context ends early."""

    context_length = 20

    def __init__(self, inner: Any) -> None:
        self.vocabulary_size = inner.vocabulary_size


def test_rows_that_one_vocabulary_lacks_stand_for_no_token() -> None:
    assert fitted(torch.tensor([1.0, 2.0, 3.0]), 2).tolist() == [1.0, 2.0]
    assert fitted(torch.tensor([1.0]), 3).tolist() == [1.0, -torch.inf, -torch.inf]


def test_a_text_with_a_token_that_the_draft_lacks_is_not_guessed(folders: dict[str, Path]) -> None:
    network = loaded(folders["llama"]).network
    guesser = Second(network, config(draft="second"), network.cache(8, [0]), (), 0, network.vocabulary_size)
    assert guesser.propose([1, network.vocabulary_size], 4) == []
    assert len(guesser.propose([1, 2], 4)) == 2


def test_the_embedded_model_reads_on_from_its_own_words(embedded: LocalModel) -> None:
    prompt = "Row, row, row your boat\nGently down the stream\n" * 4
    plain = run(embedded, config(draft=None, max_new_tokens=20), prompt)
    ours = run(embedded, config(max_new_tokens=20), prompt)
    assert ids(ours) == ids(plain)
    assert drafted(steps_of(ours)).tokens_per_forward > 2
