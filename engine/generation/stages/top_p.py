"""Top-p, nucleus sampling (Holtzman et al. 2020): a token stays while the mass above it is below p."""

from engine.base.language import N_
from engine.generation.stages.ordered import Ordered
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage


def keep(left: Ordered, reading: Reading, top_p: float) -> int:
    while True:
        probabilities = left.probabilities()
        above = probabilities.cumsum(0) - probabilities
        count = max(1, int((above < top_p).sum()))
        if count < len(probabilities) or left.all_sorted:
            return count
        left.sort_deeper()


STAGE = Stage(
    name="top_p",
    title=N_("top-p"),
    group="truncation",
    definition="a token stays while the mass above it is below p (Holtzman et al. 2020, arXiv:1904.09751)",
    explanation=N_("the most probable stay until their mass reaches p"),
    keep=keep,
    sampler="top_p",
    parameters=(
        Parameter(
            name="top_p",
            above=True,
            off=(None, 1.0),
            ladder=(0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, None),
            usual=True,
            label="top-p",
            symbol="p",
            hint=N_("keep the most probable tokens until their mass reaches p"),
            help="Keep the most probable up to this mass.",
            servers={name: Sent("top_p", 1.0) for name in ("OpenAI", "vLLM", "llama.cpp", "llama-cpp-python")},
        ),
    ),
)
