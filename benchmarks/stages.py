"""One step's stages over a vocabulary of 49,152 entries, beside transformers' processors doing the same.

    .venv/bin/python benchmarks/stages.py
    .venv/bin/python benchmarks/stages.py --repeats 20        # whether it runs

Each row is the median time of what a lane does with a step's logits, from the network's to one drawn token: all
stages, the survivors' probabilities and the draw. Theirs is a softmax over all scores behind their processors, and
`multinomial`. Ours also has the numbers that a step is shown with, entropy and mass among them.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from engine.base.plain import table
from engine.generation.config import GenerationConfig
from engine.generation.distribution import distribution
from engine.generation.strategies import sample

VOCABULARY = 49_152
CHAINS = {
    "temperature, top-p": {"temperature": 0.9, "top_p": 0.95},
    "temperature, top-k, top-p": {"temperature": 0.9, "top_k": 40, "top_p": 0.95},
    "temperature, top-p, min-p": {"temperature": 0.9, "top_p": 0.95, "min_p": 0.05},
    "penalty, temperature, top-p": {"repetition_penalty": 1.1, "temperature": 0.9, "top_p": 0.95},
}
THEIRS = {
    "repetition_penalty": RepetitionPenaltyLogitsProcessor,
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
}


def microseconds(step: Callable[[], object], repeats: int) -> float:
    """The median of some runs."""
    for _warm in range(5):
        step()
    taken = []
    for _repeat in range(repeats):
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return 1e6 * median(taken)


def ours(logits: torch.Tensor, context: torch.Tensor, config: GenerationConfig, generator: torch.Generator) -> None:
    """What a lane does with a step's logits."""
    stage = distribution(logits, context, config)
    ids, probabilities = stage.survivors
    drawn = sample(probabilities, generator)
    picked = torch.tensor(drawn if ids is None else int(ids[drawn]))
    stage.probability(picked), stage.raw_probability(picked), stage.rank(int(picked))
    _shown = stage.kept, stage.entropy_bits, stage.final_entropy_bits, stage.cut_mass


def theirs(
    logits: torch.Tensor, context: torch.Tensor, processors: LogitsProcessorList, generator: torch.Generator
) -> None:
    """What `generate` does with them."""
    scores = processors(context[None], logits[None])
    torch.multinomial(scores.softmax(-1), 1, generator=generator)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    # As peaked as a language model's: a few tokens hold most of the mass.
    logits = 3 * torch.randn(VOCABULARY, generator=generator)
    logits[torch.randint(0, VOCABULARY, (30,), generator=generator)] += 8
    context = torch.randint(0, VOCABULARY, (60,), generator=generator)
    rows = []
    for name, settings in CHAINS.items():
        config = GenerationConfig(strategy="sample", **settings)
        processors = LogitsProcessorList([THEIRS[one](value) for one, value in settings.items()])
        mine = microseconds(partial(ours, logits, context, config, generator), wanted.repeats)
        other = microseconds(partial(theirs, logits, context, processors, generator), wanted.repeats)
        rows.append({"stages": name, "ours_us": mine, "transformers_us": other, "ratio": other / mine})
    if wanted.json:
        print(json.dumps(rows))
        return
    print(
        table(
            ("stages", "µs a step", "transformers", "times as fast"),
            [
                (one["stages"], f"{one['ours_us']:.0f}", f"{one['transformers_us']:.0f}", f"{one['ratio']:.1f}")
                for one in rows
            ],
            right=(1, 2, 3),
        )
    )


if __name__ == "__main__":
    main()
