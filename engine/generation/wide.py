"""Whether a wide contrastive search let in improbable tokens, and how many."""

from collections.abc import Sequence

from engine.generation.branches import Branch
from engine.generation.config import PUBLISHED_TOP_K, WIDE_TOP_K
from engine.generation.events import Stepped

NOTABLE_SHARE = 0.1


def improbable(steps: Sequence[Stepped], rank: int = PUBLISHED_TOP_K) -> int:
    """How many of the tokens that a strategy picked rank below `rank`."""
    return sum(not step.forced and step.rank is not None and step.rank > rank for step in steps)


def let_in(branch: Branch) -> tuple[int, int] | None:
    """How many tokens of a branch only its many candidates let in, and of how many.

    `None` where the search is not contrastive, its candidates are few, or hardly any such token was picked. Only what
    the branch itself has written counts: its beginning may be another configuration's.
    """
    config, steps = branch.config, branch.steps[branch.fork :]
    if config.strategy != "contrastive" or (config.top_k or 0) <= WIDE_TOP_K:
        return None
    count = improbable(steps)
    return (count, len(steps)) if steps and count >= NOTABLE_SHARE * len(steps) else None
