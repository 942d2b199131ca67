"""What the pictures of the Inside view share: what they look at, and the work that one is waiting for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.containers import Vertical
from textual.widget import Widget

from engine.base.errors import InputError
from engine.base.language import N_, _
from engine.job import Job
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer
from tui.panes.lane_lab import LaneLab

if TYPE_CHECKING:
    from engine.inside.record import Record


ANEW = N_("the text is just being looked at anew; try again")


@dataclass(frozen=True, eq=False)
class LookedAt:
    """A lane's text so far, at one position.

    Attributes:
        tokens: of prompt and continuation.
        position: the last token that is read; the one after it is the picked one.
        record: what the model did with them.
        label: of a token by its id.
    """

    tokens: Sequence[Token]
    position: int
    record: "Record"
    label: Callable[[int], str]

    @property
    def place(self) -> int:
        """The position, counted from the first one that is kept."""
        return self.position - self.record.first_position

    @property
    def picked(self) -> int | None:
        """The id that follows in the text; `None` at its end."""
        return self.tokens[self.position + 1].id if self.position + 1 < len(self.tokens) else None


class Picture(Vertical):
    """One way to look.

    Args:
        lab: asked for what is seen.
        name: its class in the style sheet.
        pointed: called with the position of the text that the cursor goes to; another look follows in the same frame.
    """

    def __init__(self, lab: LaneLab, name: str, pointed: Callable[[int], object]) -> None:
        super().__init__(classes=f"picture {name}")
        self._lab = lab
        self._point_at = pointed
        self._job: Job[Any] | None = None

    @property
    def _tokenizer(self) -> Tokenizer:
        """Of the lane's model; raises `InputError` while there is none."""
        if self._lab.tokenizer is None:
            raise InputError(_(ANEW))
        return self._lab.tokenizer

    @property
    def busy(self) -> bool:
        return self._job is not None and not self._job.done

    def stop(self) -> bool:
        """Stop what is computed; whether anything was."""
        job, self._job = self._job, None
        if job is None or job.done:
            return False
        job.cancel()
        return True


def first_token(asked_by: Widget, tokenizer: Tokenizer, text: str) -> int:
    """The id that a text is as a continuation; of several the first, which is said. Raises `InputError`."""
    ids = tokenizer.encode_continuation(text)
    if len(ids) > 1:
        words = _("“{text}” is {count} tokens, not one; its first one is taken.", text=text, count=len(ids))
        asked_by.notify(words, markup=False)
    return ids[0]
