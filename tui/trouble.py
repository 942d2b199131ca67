"""What went wrong, as one line on the screen."""

import os
from collections.abc import Sequence
from typing import Any

from textual.app import App

from engine.base import paths
from engine.base.errors import LogitlabError
from engine.base.language import _

# Of those about the file of keys, when the lab opens.
COMPLAINTS = 4


def tell(app: App[Any], error: Exception) -> None:
    """Show an error; with `--debug` one that was not foreseen is raised, so that its traceback is seen."""
    if isinstance(error, LogitlabError):
        message = str(error)
    elif os.environ.get("LOGITLAB_DEBUG"):
        raise error
    else:
        message = _("unexpected {name}: {error}", name=type(error).__name__, error=error)
    app.notify(message, severity="error", timeout=10, markup=False)


def tell_of_keys(app: App[Any], complaints: Sequence[object]) -> None:
    """What is wrong with the file of keys, once."""
    if complaints:
        lines = [str(one) for one in complaints[:COMPLAINTS]]
        lines.append(_("logitlab keys --check {path} says all of it", path=paths.keys_file()))
        app.notify("\n".join(lines), title=_("Keys"), severity="warning", timeout=20, markup=False)
