"""What went wrong, as one line on the screen."""

import os
from typing import Any

from textual.app import App

from engine.base.errors import LogitlabError
from engine.base.language import _


def tell(app: App[Any], error: Exception) -> None:
    """Show an error; with `--debug` one that was not foreseen is raised, so that its traceback is seen."""
    if isinstance(error, LogitlabError):
        message = str(error)
    elif os.environ.get("LOGITLAB_DEBUG"):
        raise error
    else:
        message = _("unexpected {name}: {error}", name=type(error).__name__, error=error)
    app.notify(message, severity="error", timeout=10, markup=False)
