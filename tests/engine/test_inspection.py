"""One step under any settings: the mass of its tail."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.generation.config import GenerationConfig
from engine.generation.distribution import distribution
from engine.generation.events import STAGES
from engine.generation.inspection import Inspection

CONFIGS = (
    GenerationConfig(strategy="sample", temperature=1.7),
    GenerationConfig(strategy="sample", temperature=0.5, top_k=7),
    GenerationConfig(strategy="sample", top_p=0.6, repetition_penalty=1.4),
    GenerationConfig(strategy="sample", typical_p=0.4),
    GenerationConfig(strategy="sample", min_p=0.1, logit_bias=((3, 2.0),), banned=(5,)),
)


@given(st.integers(0, 2**31), st.sampled_from(CONFIGS), st.integers(0, 500), st.sampled_from([1.0, 4.0, 30.0]))
def test_the_mass_of_a_tail_is_that_of_all_candidates_in_it(
    seed: int, config: GenerationConfig, start: int, spread: float
) -> None:
    """Each stage's probabilities by torch in double precision, summed in the order of the raw ones."""
    logits = torch.randn(500, generator=torch.Generator().manual_seed(seed)) * spread
    context = [1, 3, 9]
    stage = distribution(logits, torch.tensor(context), config)
    found = Inspection(logits, None, context, config)  # type: ignore[arg-type]
    order = logits.argsort(descending=True, stable=True)[start:]
    after = {"raw": stage.raw, "penalty": stage.penalised, "temperature": stage.tempered}
    for name in STAGES:
        expected = after.get(name, stage.final).double().softmax(0)[order].sum()
        assert found.mass(start, name) == pytest.approx(float(expected), rel=1e-4, abs=1e-12)
