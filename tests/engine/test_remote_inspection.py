"""What is said of a step of which a server tells some candidates is what the whole distribution says."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.base.errors import InputError
from engine.generation.config import GenerationConfig
from engine.generation.distribution import distribution
from engine.generation.events import STAGES, Candidate, Stage, Stepped
from engine.generation.stages.registry import supported
from engine.models.capabilities import COMMON, Capabilities
from engine.remote.inspection import ServedInspection
from engine.text.token import Token

SIZE, TOP = 60, 12
SETTINGS = COMMON | {"top_k", "min_p", "typical_p", "repetition_penalty"}
TELLS = Capabilities("llama.cpp", top=TOP, settings=SETTINGS, token_ids=True, vocabulary_size=SIZE)
PLAIN = GenerationConfig(strategy="sample")


def step_of(logits: torch.Tensor, top: int = TOP) -> Stepped:
    """What a server tells of a step with these logits."""
    best = logits.log_softmax(0).topk(top)
    told = tuple(
        Candidate(rank, id, str(id), math.exp(value), None, None, None)
        for rank, (id, value) in enumerate(zip(best.indices.tolist(), best.values.tolist()), start=1)
    )
    token = Token(0, told[0].id, "a", "a", 0, 1, "a")
    return Stepped(0, 0, token, told, None, told[0].raw_probability, 1, None, None, None, None, 0.1)


def inspected(logits: torch.Tensor, config: GenerationConfig, told: Capabilities = TELLS) -> ServedInspection:
    return ServedInspection(step_of(logits), config, told)


def check(inspection: ServedInspection, logits: torch.Tensor) -> None:
    """Compare every number that is told with the whole distribution's."""
    whole = distribution(logits, None, replace(inspection.config, repetition_penalty=1.0))
    candidates = inspection.at(0, len(inspection))
    ids = torch.tensor([candidate.id for candidate in candidates])
    columns: dict[Stage, tuple[str, torch.Tensor]] = {
        "raw": ("raw_probability", whole.raw_probability(ids)),
        "penalty": ("penalised_probability", whole.penalised_probability(ids)),
        "temperature": ("tempered_probability", whole.tempered_probability(ids)),
        "pick": ("probability", whole.probability(ids)),
    }
    for stage, (name, expected) in columns.items():
        values = [getattr(candidate, name) for candidate in candidates]
        if stage in inspection.stages:
            assert values == pytest.approx(expected.tolist(), abs=1e-5), stage
        else:
            assert values == [None] * len(values), stage
    if "truncation" in inspection.stages:
        assert [candidate.cut_by for candidate in candidates] == whole.cut_by(ids)
        if inspection.kept is not None:
            assert inspection.kept == whole.kept


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.integers(-4000, 4000), min_size=SIZE, max_size=SIZE, unique=True),
    st.sampled_from([0.5, 1.0, 1.0, 1.7]),
    st.sampled_from([None, None, 1, 3, TOP - 1, TOP, TOP + 1, 20, SIZE, SIZE + 2]),
    st.sampled_from([None, None, 0.03, 0.5, 0.8, 0.97, 1.0]),
    st.sampled_from([None, None, 0.0, 0.001, 0.02, 0.05, 0.3]),
    st.lists(st.tuples(st.integers(0, SIZE - 1), st.sampled_from([-9.0, -1.0, 0.5, 5.0])), max_size=2),
    st.lists(st.integers(0, SIZE - 1), max_size=2),
)
def test_every_number_that_is_told_is_the_whole_distributions(
    values: list[int],
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    biases: list[tuple[int, float]],
    banned: list[int],
) -> None:
    logits = torch.tensor(values) / 400
    biases = [(id, bias) for id, bias in dict(biases).items() if id not in banned]
    config = GenerationConfig(
        *("a", "sample", 8, temperature, top_k, top_p, min_p),
        logit_bias=tuple(biases),
        banned=tuple(dict.fromkeys(banned)),
    )
    check(inspected(logits, config), logits)


@pytest.mark.parametrize(
    ("config", "stages"),
    [
        (PLAIN, STAGES),
        (replace(PLAIN, temperature=0.7), ("raw", "penalty")),
        (replace(PLAIN, temperature=0.7, top_k=5), ("raw", "penalty", "truncation", "pick")),
        (replace(PLAIN, temperature=0.7, top_k=5, top_p=0.8), ("raw", "penalty", "truncation", "pick")),
        (replace(PLAIN, temperature=0.7, top_k=50), ("raw", "penalty")),
        (replace(PLAIN, temperature=0.7, min_p=0.3), ("raw", "penalty", "truncation", "pick")),
        (replace(PLAIN, temperature=0.7, top_p=0.8), ("raw", "penalty")),
        (replace(PLAIN, top_p=0.8), STAGES),
        (replace(PLAIN, top_p=0.9999), ("raw", "penalty", "temperature")),
        (replace(PLAIN, typical_p=0.9), ("raw", "penalty", "temperature")),
        (replace(PLAIN, repetition_penalty=1.2), ("raw",)),
        (replace(PLAIN, logit_bias=((59, 2.0),)), STAGES),
        (replace(PLAIN, logit_bias=((0, 2.0),)), ("raw",)),
    ],
)
def test_stages_are_shown_where_the_candidates_decide_them(config: GenerationConfig, stages: tuple[Stage, ...]) -> None:
    logits = torch.arange(SIZE) / 5.0  # the last ids are the most probable
    inspection = inspected(logits, config)
    assert inspection.stages == stages
    assert bool(inspection.lacking) == (stages != STAGES)
    check(inspection, logits)


def test_a_vocabulary_that_is_told_whole_leaves_nothing_open() -> None:
    logits = torch.arange(TOP) / 5.0
    told = replace(TELLS, vocabulary_size=TOP)
    for config in (replace(PLAIN, temperature=0.7), replace(PLAIN, temperature=2.0, top_p=0.5)):
        inspection = inspected(logits, config, told)
        assert inspection.stages == STAGES
        check(inspection, logits)


def test_where_min_p_comes_first_top_p_shares_out_what_it_left() -> None:
    """vLLM's order; the whole distribution is cut here in that order by hand."""
    logits = torch.arange(SIZE) / 5.0
    config = replace(PLAIN, temperature=0.7, min_p=0.3, top_p=0.6)
    inspection = inspected(logits, config, replace(TELLS, min_p_first=True))
    tempered = (logits / 0.7).softmax(0)
    left = tempered.where(tempered >= 0.3 * tempered.max(), 0.0)
    left, order = (left / left.sum()).sort(descending=True)
    count = int((left.cumsum(0) - left < 0.6).sum())
    expected = dict(zip(order[:count].tolist(), (left[:count] / left[:count].sum()).tolist()))
    assert {c.id: c.probability for c in inspection.at(0, TOP) if c.probability} == pytest.approx(expected)
    assert {c.cut_by for c in inspection.at(0, TOP)} == {None, "min_p", "top_p"}


@pytest.mark.parametrize("temperature", [0.0001, 0.01, 100.0])
def test_temperatures_however_extreme_are_followed(temperature: float) -> None:
    logits = torch.arange(SIZE) / 5.0
    for config in (
        replace(PLAIN, temperature=temperature, top_k=5, top_p=0.9),
        replace(PLAIN, temperature=temperature, top_k=5, logit_bias=((59, 100.0),)),
    ):
        inspection = inspected(logits, config)
        assert "pick" in inspection.stages
        check(inspection, logits)
    whole = inspected(logits[-TOP:], replace(PLAIN, temperature=temperature), replace(TELLS, vocabulary_size=TOP))
    assert whole.stages == STAGES
    check(whole, logits[-TOP:])


def test_a_top_k_beyond_what_is_told_leaves_top_p_open() -> None:
    """Top-p shares out the mass of the top-k, which is not known: two tokens would be kept here, not three."""
    probabilities = [0.5, 0.29, 0.05] + [0.05 / 10] * 10 + [0.11 / (SIZE - 13)] * (SIZE - 13)
    logits = (torch.tensor(probabilities) + torch.linspace(1e-6, 0, SIZE)).log()
    config = replace(PLAIN, top_k=TOP + 1, top_p=0.8)
    assert distribution(logits, None, config).kept == 2
    assert inspected(logits, config).stages == ("raw", "penalty", "temperature")


def test_what_the_server_does_not_know_is_refused_in_a_sentence() -> None:
    inspection = inspected(torch.arange(SIZE) / 5.0, PLAIN, replace(TELLS, settings=COMMON | supported("OpenAI")))
    with pytest.raises(InputError, match="top_k"):
        inspection.under(replace(PLAIN, top_k=3))
    assert inspection.under(replace(PLAIN, top_p=0.5)).kept is not None


def test_processed_log_probabilities_are_the_pick_and_nothing_else() -> None:
    """vLLM with `--logprobs-mode processed_logprobs` tells what is left after its settings."""
    told = tuple(Candidate(rank, rank, str(rank), None, None, None, p) for rank, p in ((1, 0.7), (2, 0.3)))
    step = replace(step_of(torch.arange(SIZE) / 5.0), candidates=told)
    inspection = ServedInspection(step, replace(PLAIN, top_k=2), replace(TELLS, raw=False))
    assert inspection.stages == ("pick",)
    assert inspection.at(0, 9) == told
    assert (inspection.mass(0, "pick"), inspection.mass(1, "pick"), inspection.mass(2, "pick")) == (1.0, 0.3, 0)
    with pytest.raises(InputError, match="raw log-probabilities"):
        inspection.under(replace(PLAIN, top_k=3))


def test_greedy_is_the_most_probable_where_it_is_known() -> None:
    logits = torch.arange(SIZE) / 5.0
    greedy = GenerationConfig()
    choice = inspected(logits, greedy).choice
    assert choice is not None
    assert choice.id == SIZE - 1
    moved = inspected(logits, replace(greedy, logit_bias=((55, 9.0),))).choice
    assert moved is not None
    assert moved.id == 55
    assert inspected(logits, replace(greedy, repetition_penalty=1.2)).choice is None
