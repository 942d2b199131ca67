"""Every stage against transformers' own logits processors."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    ExponentialDecayLengthPenalty,
    LogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from engine.base.errors import ConfigError, InputError
from engine.generation.config import GenerationConfig
from engine.generation.distribution import distribution
from engine.generation.stages.order import ORDERS, ordered

PROMPT = 5  # tokens of the context
END = SimpleNamespace(eos_ids=frozenset({2, 17}))  # a tokenizer, as far as stages read one here
NAMES = ORDERS["transformers"]
configs = st.builds(
    GenerationConfig,
    strategy=st.just("sample"),
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.7]),
    top_k=st.sampled_from([None, 1, 5, 40, 200, 10_000]),
    top_p=st.sampled_from([None, 0.1, 0.5, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([None, 0.0, 0.001, 0.1, 1.0]),
    typical_p=st.sampled_from([None, 0.2, 0.9, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    logit_bias=st.sampled_from([(), ((3, -2.5),), ((0, 4.0), (19, -1.0))]),
    banned=st.sampled_from([(), (5,), (1, 2, 3)]),
    penalty_window=st.sampled_from([None, None, 1, 4]),
    no_repeat_ngram=st.sampled_from([None, None, 1, 2]),
    length_decay=st.sampled_from([1.0, 1.0, 1.05, 0.9]),
    length_decay_start=st.sampled_from([0, 3, 20]),
    top_h=st.sampled_from([None, None, 0.1, 0.5]),
    epsilon_cutoff=st.sampled_from([None, None, 0.0003, 0.02, 0.9]),
    eta_cutoff=st.sampled_from([None, None, 0.0003, 0.3]),
    order=st.sampled_from([(), NAMES]) | st.permutations(NAMES).map(tuple),
)


def distinct(size: int, generator: torch.Generator) -> torch.Tensor:
    """Normally distributed logits in random order, no two alike: between equals the order is nobody's promise."""
    quantiles = torch.erfinv(torch.linspace(-0.999, 0.999, size))
    return quantiles[torch.randperm(size, generator=generator)]


def processors(config: GenerationConfig) -> dict[str, LogitsProcessor]:
    """Transformers' own, by the names of ours, as far as a configuration asks for them."""
    found: dict[str, LogitsProcessor] = {"temperature": TemperatureLogitsWarper(config.temperature)}
    if config.repetition_penalty != 1:
        found["repetition_penalty"] = RepetitionPenaltyLogitsProcessor(config.repetition_penalty)
    if config.no_repeat_ngram is not None:
        found["no_repeat_ngram"] = NoRepeatNGramLogitsProcessor(config.no_repeat_ngram)
    if config.length_decay != 1:
        start = (config.length_decay_start, config.length_decay)
        found["length_decay"] = ExponentialDecayLengthPenalty(start, sorted(END.eos_ids), PROMPT)
    if config.top_h is not None:
        found["top_h"] = TopHLogitsWarper(config.top_h)
    if config.epsilon_cutoff is not None:
        found["epsilon_cutoff"] = EpsilonLogitsWarper(config.epsilon_cutoff)
    if config.eta_cutoff is not None:
        found["eta_cutoff"] = EtaLogitsWarper(config.eta_cutoff)
    if config.top_k is not None:
        found["top_k"] = TopKLogitsWarper(config.top_k)
    if config.top_p is not None and config.top_p < 1:
        found["top_p"] = TopPLogitsWarper(config.top_p)
    if config.min_p is not None:
        found["min_p"] = MinPLogitsWarper(config.min_p)
    if config.typical_p is not None and config.typical_p < 1:
        found["typical_p"] = TypicalLogitsWarper(config.typical_p)
    return found


def reference(logits: torch.Tensor, context: torch.Tensor, config: GenerationConfig) -> torch.Tensor:
    """Final logits by transformers' processors, in the configuration's order."""
    scores = logits[None]
    if config.logit_bias:
        scores = SequenceBiasLogitsProcessor({(id,): bias for id, bias in config.logit_bias})(context[None], scores)
    if config.banned:
        scores = NoBadWordsLogitsProcessor([[id] for id in config.banned], eos_token_id=None)(context[None], scores)
    theirs = processors(config)
    for stage in ordered(config.order):
        if stage.name in theirs and scores.isfinite().any():
            window = config.penalty_window if stage.name == "repetition_penalty" else None
            read = context if window is None else context[-window:]
            scores = theirs[stage.name](read[None], scores)
    return scores[0]


@settings(max_examples=300, deadline=None)
@given(configs, st.integers(0, 2**20), st.sampled_from([20, 300, 5_000]), st.sampled_from([0.1, 1.0, 8.0]))
def test_stages_equal_transformers_processors(config: GenerationConfig, seed: int, size: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = distinct(size, generator) * spread
    context = torch.randint(0, size, (12,), generator=generator)
    final = reference(logits, context, config)
    if not final.isfinite().any():
        with pytest.raises(InputError, match="leaves no token that could come"):
            distribution(logits, context, config, prompt=PROMPT, tokenizer=END)  # type: ignore[arg-type]
        return
    stage = distribution(logits, context, config, prompt=PROMPT, tokenizer=END)  # type: ignore[arg-type]
    expected = final.softmax(0)
    every = torch.arange(size)

    torch.testing.assert_close(stage.probabilities, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(stage.probability(every), expected, atol=1e-5, rtol=0)
    ids, probabilities = stage.survivors
    spread_out = probabilities if ids is None else torch.zeros(size).index_put((ids,), probabilities)
    torch.testing.assert_close(spread_out, expected, atol=1e-5, rtol=0)
    cut = torch.tensor([rule is not None for rule in stage.cut_by(every)])
    assert stage.kept == int((~cut).sum())
    # Sums of thousands of float32 numbers differ in their last digits: a token on the very edge may fall either way.
    disputed = cut != final.isneginf()
    assert float(expected[disputed].sum()) < 1e-5
    assert stage.top == int(expected.argmax()) or config.typical_p is not None

    kept = expected[expected > 0]
    assert stage.final_entropy_bits == pytest.approx(-float((kept * kept.log2()).sum()), abs=2e-3)
    raw = logits.log_softmax(0)
    torch.testing.assert_close(stage.raw_probability(every), raw.exp(), atol=1e-5, rtol=0)
    assert stage.entropy_bits == pytest.approx(-float((raw.exp() * raw).sum()) / math.log(2), abs=2e-3)
    if not config.order:
        uncut = (stage.tempered.softmax(0) * (~final.isneginf())).sum()
        assert stage.cut_mass == pytest.approx(1 - float(uncut), abs=1e-4)


@given(st.integers(0, 2**20))
@settings(deadline=None)
def test_rank_counts_the_more_probable_tokens(seed: int) -> None:
    logits = distinct(500, torch.Generator().manual_seed(seed))
    stage = distribution(logits, None, GenerationConfig())
    order = logits.argsort(descending=True).tolist()
    for rank in (1, 2, 64, 65, 500):
        assert stage.rank(order[rank - 1]) == rank
    assert stage.most_probable(80).tolist() == order[:80]


def test_a_cut_is_named_by_the_first_rule_that_acts() -> None:
    logits = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    config = GenerationConfig(strategy="sample", top_k=4, min_p=0.1)
    stage = distribution(logits, None, config)
    assert stage.cut_by(torch.arange(5)) == [None, None, None, "min_p", "top_k"]


def test_temperature_never_changes_the_order() -> None:
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    tops = {distribution(logits, None, GenerationConfig(temperature=t)).top for t in (0.01, 0.7, 1.0, 5.0, 100.0)}
    assert tops == {int(logits.argmax())}


def test_equal_logits_give_the_lowest_id() -> None:
    assert distribution(torch.zeros(200), None, GenerationConfig()).top == 0


def test_masked_logits_keep_entropy_finite() -> None:
    logits = torch.tensor([1.0, 1.0, -math.inf])
    assert distribution(logits, None, GenerationConfig()).entropy_bits == pytest.approx(1.0)


def test_contrastive_candidates_are_not_a_truncation() -> None:
    stage = distribution(torch.randn(300), None, GenerationConfig(strategy="contrastive", top_k=5))
    assert (stage.kept, stage.cut_mass) == (300, 0.0)
    ids, probabilities = stage.most_probable_tempered(100)
    torch.testing.assert_close(probabilities, stage.probabilities[ids])


def test_a_bias_outside_the_vocabulary_and_a_ban_of_everything_are_refused() -> None:
    logits = torch.tensor([1.0, 2.0])
    with pytest.raises(InputError, match="token 7 cannot be biased: the vocabulary has 2 entries"):
        distribution(logits, None, GenerationConfig(logit_bias=((7, 1.0),)))
    with pytest.raises(InputError, match="every token is banned"):
        distribution(logits, None, GenerationConfig(banned=(0, 1)))


@given(st.integers(0, 2**20), configs)
@settings(deadline=None)
def test_a_bias_set_and_taken_back_leaves_the_configuration_as_it_was(seed: int, config: GenerationConfig) -> None:
    id = seed % 1000 + 50
    assert config.biased(id, 2.0).bias_of(id) == 2.0
    assert config.biased(id, -math.inf).bias_of(id) == -math.inf
    assert config.biased(id, -math.inf).biased(id, 0.0) == config
    assert config.biased(id, 3.0).biased(id, -math.inf).biased(id, 0.0) == config


@pytest.mark.parametrize("bias", [((1,),), ((-1, 2.0),), ((1, math.inf),), ((1, 1e6),), (("a", 1.0),)])
def test_wrong_biases_are_refused(bias: object) -> None:
    with pytest.raises(ConfigError, match="logit_bias"):
        GenerationConfig(logit_bias=bias)  # type: ignore[arg-type]
