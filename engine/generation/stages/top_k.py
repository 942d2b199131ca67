"""Top-k (Fan, Lewis and Dauphin 2018): the k most probable tokens stay."""

from engine.base.language import N_
from engine.generation.stages.ordered import Ordered
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage


def keep(left: Ordered, reading: Reading, top_k: int) -> int:
    """Tokens that tie with the last one stay, as in transformers."""
    if top_k >= left.kept:
        return left.kept
    values = left.sorted(top_k + 1)
    return int((values >= values[top_k - 1]).sum())


STAGE = Stage(
    name="top_k",
    title=N_("top-k"),
    group="truncation",
    definition="the k most probable tokens stay (Fan, Lewis and Dauphin 2018, arXiv:1805.04833)",
    explanation=N_("only the k most probable stay"),
    strategies=("greedy", "sample"),
    keep=keep,
    sampler="top_k",
    parameters=(
        Parameter(
            name="top_k",
            type=int,
            least=1,
            most=1_000_000,
            off=(None,),
            ladder=(1, 2, 3, 5, 10, 20, 40, 80, 200, 1000, None),
            usual=True,
            label="top-k",
            symbol="k",
            hint=N_("keep the k most probable; contrastive: how many are compared, 4 calm, 40 wild"),
            help="Keep the k most probable tokens.",
            servers={"vLLM": Sent("top_k", -1), "llama.cpp": Sent("top_k", 0), "llama-cpp-python": Sent("top_k", 0)},
        ),
    ),
)
