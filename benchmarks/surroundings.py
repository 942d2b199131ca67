"""What the lab finds around it in a benchmark: nothing of the user's, whatever is set."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.terminal


@contextmanager
def own_state() -> Iterator[Path]:
    """An empty state folder, English, and no server, for this process and those it starts."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"LOGITLAB_STATE_DIR": folder, "LANGUAGE": "en"}
        os.environ.pop("LOGITLAB_SERVER", None)
        try:
            yield Path(folder)
        finally:
            os.environ.clear()
            os.environ.update(before)
