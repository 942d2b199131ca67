"""Whether tokens exist."""

from collections.abc import Sequence

from engine.base.errors import InputError
from engine.base.language import _


def check_tokens(ids: Sequence[int], size: int) -> None:
    """Raise `InputError` for an id that a vocabulary of `size` entries lacks."""
    for id in ids:
        if not 0 <= id < size:
            raise InputError(_("there is no token {id:,}: the vocabulary has {size:,} entries", id=id, size=size))
