"""What the penalties on tokens that are there already share."""

from typing import TYPE_CHECKING

from engine.generation.stages.stage import Reading

if TYPE_CHECKING:
    from torch import Tensor


def less_written(logits: "Tensor", reading: Reading, window: int | None, each: float, once: float) -> "Tensor":
    """Logits less `each` for every time that a token was written, and `once` for having been.

    Args:
        window: of the last so many tokens of the text; of all of them when `None`.
    """
    written = reading.written_within(window)
    if not len(written):
        return logits
    ids, counts = written.unique(return_counts=True)
    return logits.index_add(0, ids, -(each * counts + once))
