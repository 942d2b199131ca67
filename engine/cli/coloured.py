"""The tokens of a text on coloured grounds, for terminals."""

from collections.abc import Sequence
from typing import Any

from engine.base import plain
from engine.export.heat import Scale, ink
from engine.text.token import Token

# For terminals of 16 colours, by name with letters that are read on them, from weak to strong.
FEW = (("white", "black"), ("cyan", "black"), ("blue", "white"))
FEW_AGAINST = (("white", "black"), ("yellow", "black"), ("red", "white"))
# Weaker than this share of the strongest value, a token has no ground.
WEAKEST = 0.06


def print_coloured(
    tokens: Sequence[Token], values: Sequence[float | None], scale: Scale, at: int | None = None
) -> None:
    """Print a text, each token on the ground of its value; nothing where there are no colours to say anything.

    Args:
        values: one for each token; one without a value has no ground.
        at: the position of a token that is underlined.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal or console.no_color or console.color_system is None:
        return
    few = console.color_system in ("standard", "windows")
    line = Text()
    for place, (token, value) in enumerate(zip(tokens, values)):
        style = _style(value, scale, few)
        shown = plain.one_line(token.text) if token.text else token.label
        line.append(shown, style=f"{style} underline" if place == at else style)
        if token.text.endswith("\n"):
            line.append("\n")
    console.print(line)


def _style(value: float | None, scale: Scale, few: bool) -> str:
    """Letters on a ground, in rich's words."""
    if value is None or scale.most <= 0 or (share := abs(value) / scale.most) < WEAKEST:
        return ""
    if few:
        grounds: Any = FEW_AGAINST if value < 0 else FEW
        ground, letters = grounds[min(int(share * len(grounds)), len(grounds) - 1)]
        return f"{letters} on {ground}"
    ground = scale.colour(value)
    return f"{ink(ground)} on {ground}"
