"""What a setting may hold: numbers within a range, token ids, lists."""

import math

from engine.base.errors import ConfigError
from engine.base.language import _


def is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_int(field: str, value: object, least: int, most: int, *, optional: bool = False) -> None:
    """Raise `ConfigError` for what is no whole number from `least` to `most`."""
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        allowed = (
            _("a whole number from {least:,} to {most:,}", least=least, most=most)
            if most < 2**40
            else _("a whole number from {least}", least=least)
        )
        raise ConfigError(field, value, allowed + (_(" (or none)") if optional else ""))


def check_float(
    field: str,
    value: object,
    least: float,
    most: float,
    *,
    above: bool = False,
    optional: bool = False,
) -> None:
    """Raise `ConfigError` for what is no number from `least` to `most`.

    Args:
        above: `least` itself is not allowed.
    """
    if optional and value is None:
        return
    if not is_number(value) or not least <= value <= most or (above and value == least):  # type: ignore[operator]
        allowed = (
            _("above {least:g} up to {most:g}", least=least, most=most)
            if above
            else _("from {least:g} up to {most:g}", least=least, most=most)
        )
        hint = _("; for no randomness use strategy greedy") if field == "temperature" and value == 0 else ""
        raise ConfigError(field, value, allowed + (_(" (or none)") if optional else "") + hint)
