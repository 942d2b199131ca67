"""When Python looks through its objects for garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Nothing is looked through while libraries are imported, nor are they later: they stay.

    Looking takes a tenth of the time of torch's import, in which it finds nothing.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
