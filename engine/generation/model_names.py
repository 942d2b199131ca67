"""Names of models as a configuration holds them."""

import re

from engine.base.errors import ConfigError
from engine.base.language import _


def check_name(field: str, value: object, allowed: str) -> None:
    """Raise `ConfigError` for what names no model."""
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ConfigError(field, value, allowed + _(" (or none)"))


def label(model: str) -> str:
    """A model's name without the folders or the server it is in."""
    return re.split(r"[/\\#]", model.rstrip("/\\"))[-1] or model
