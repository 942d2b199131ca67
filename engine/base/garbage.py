"""When Python looks through its objects for garbage."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing(library: str) -> Iterator[None]:
    """Nothing is looked through while a large library is imported, nor is the library later: it stays.

    Looking takes a tenth of the time of torch's import, in which it finds nothing.
    """
    if library in sys.modules:
        yield
        return
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
