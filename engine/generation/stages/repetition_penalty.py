"""Repetition penalty (Keskar et al. 2019, CTRL): tokens that the text has already become less probable."""

from typing import TYPE_CHECKING

from engine.base.language import N_
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage

if TYPE_CHECKING:
    from torch import Tensor


def change(logits: "Tensor", reading: Reading, repetition_penalty: float, penalty_window: int | None) -> "Tensor":
    """Positive logits are divided, negative ones multiplied."""
    import torch

    present = reading.within(penalty_window).unique()
    scores = logits[present]
    penalised = torch.where(scores < 0, scores * repetition_penalty, scores / repetition_penalty)
    return logits.index_put((present,), penalised)


STAGE = Stage(
    name="repetition_penalty",
    title=N_("penalty"),
    group="penalty",
    definition=(
        "positive logits of tokens in the prompt and in what is written are divided by the penalty, negative ones "
        "multiplied (Keskar et al. 2019, arXiv:1909.05858)"
    ),
    explanation=N_("what the prompt or the text has already becomes less probable"),
    reads="text",
    change=change,
    sampler="penalties",
    parameters=(
        Parameter(
            name="repetition_penalty",
            default=1.0,
            most=100.0,
            above=True,
            off=(1.0,),
            ladder=(0.8, 0.9, 1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 2.0),
            usual=True,
            label="penalty",
            symbol="rep ",
            hint=N_("above 1 makes tokens already written less probable"),
            help="Above 1 discourages repetition.",
            servers={
                "vLLM": Sent("repetition_penalty"),
                "llama.cpp": Sent("repeat_penalty"),
                "llama-cpp-python": Sent("repeat_penalty"),
            },
        ),
        Parameter(
            name="penalty_window",
            type=int,
            least=1,
            most=1_000_000,
            ladder=(1, 8, 16, 32, 64, 128, 256, 512, None),
            label=N_("window"),
            symbol="window ",
            hint=N_("how many of the last tokens the repetition, presence and frequency penalties read; empty: all"),
            help="Penalties read so many last tokens.",
            servers={"llama.cpp": Sent("repeat_last_n")},
        ),
    ),
)
