"""How a run tells its watchers of each step: the event of one token of one lane, and what is kept beside it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from engine.generation.candidates import describe
from engine.generation.distribution import Distribution
from engine.generation.events import Draft, Stepped
from engine.generation.lanes import Lane, Pick
from engine.generation.memory import KeptLogits, LaneState
from engine.generation.stages.carried import carried_at
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Telling:
    """What becomes of each step and each lane: see the arguments of `loop.generate`."""

    tokenizer: Tokenizer
    candidates: int
    keep_logits: Callable[..., KeptLogits] | None
    keep_state: Callable[[LaneState], None] | None


def stepped(
    lane: Lane, token: Token, stage: Distribution, pick: Pick, telling: Telling, draft: Draft | None = None
) -> Stepped:
    """The event of a lane's newest token, which `lane.picked` ends with."""
    picked = torch.tensor(token.id)
    now = time.perf_counter()
    seconds, lane.last_time = now - lane.last_time, now
    carried, probability = lane.carried, float(stage.probability(picked))
    lane.carried = carried_at(lane.config, len(lane.picked), carried, probability)
    return Stepped(
        lane=lane.index,
        index=len(lane.picked) - 1,
        token=token,
        candidates=describe(stage, telling.tokenizer, telling.candidates, pick.contrast),
        probability=probability,
        raw_probability=float(stage.raw_probability(picked)),
        rank=stage.rank(token.id),
        entropy_bits=stage.entropy_bits,
        final_entropy_bits=stage.final_entropy_bits,
        kept=stage.kept,
        cut_mass=stage.cut_mass,
        seconds=seconds,
        forced=pick.forced,
        carried=carried,
        logits=_kept(stage, telling),
        draft=draft,
        by_grammar=stage.by_grammar,
    )


def _kept(stage: Distribution, telling: Telling) -> KeptLogits | None:
    if telling.keep_logits is None:
        return None
    known = [stage.raw, stage.others, stage.amateur]
    while known[-1] is None:
        known.pop()
    return telling.keep_logits(*known)
