"""A patching map as a table and as a heat map."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.base import plain
from engine.base.language import _
from engine.export.heat import Cell, Scale, grid_svg
from engine.export.inside import CAUTIONS, signed
from engine.export.sheet import Sheet
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.inside.patching import PatchMap


def patch_title(found: "PatchMap", tokenizer: Tokenizer) -> str:
    a, b = (plain.one_line(tokenizer.label(id)) for id in (found.a, found.b))
    return _("Patched into the corrupt prompt: “{a}” over “{b}”", a=a, b=b)


def patch_sums(found: "PatchMap") -> str:
    """What 0 and 1 are, in words."""
    return _(
        "difference of their logits: clean {clean}, corrupt {corrupt}; 1 is the clean one, 0 the corrupt one",
        clean=signed(found.clean),
        corrupt=signed(found.corrupt),
    )


def patch_sheet(found: "PatchMap", clean: Sequence[Token], corrupt: Sequence[Token], tokenizer: Tokenizer) -> Sheet:
    """A row for each cell of the map."""
    rows = [
        (row, position, clean[position].label, corrupt[position].label, effect)
        for row, effects in found.rows
        for position, effect in enumerate(effects)
    ]
    return Sheet(
        patch_title(found, tokenizer),
        ("layer", "position", "clean", "corrupt", "effect"),
        rows,
        (patch_sums(found), _(CAUTIONS["patching"])),
        {
            "clean": {"tokens": [{"id": token.id, "text": token.text} for token in clean]},
            "corrupt": {"tokens": [{"id": token.id, "text": token.text} for token in corrupt]},
            **found.to_dict(tokenizer),
        },
    )


def patch_svg(found: "PatchMap", clean: Sequence[Token], corrupt: Sequence[Token], tokenizer: Tokenizer) -> str:
    """The grid: layers upwards, positions to the right; where the prompts differ, both tokens."""
    rows = [
        (str(row), [Cell(effect, f"{effect:.2f}".replace("-", "−")) for effect in effects])
        for row, effects in reversed(found.rows)
    ]
    return grid_svg(
        patch_title(found, tokenizer),
        [pair(one, other) for one, other in zip(clean, corrupt, strict=True)],
        rows,
        Scale(_("effect"), 1.0, lambda value: signed(value, "+.2f"), diverging=True),
        (patch_sums(found), _(CAUTIONS["patching"])),
        column_title=_("token"),
        row_title=_("layer"),
    )


def pair(clean: Token, corrupt: Token) -> str:
    """One token of both prompts, or both: `Rome→Paris` where Rome is put in Paris' place."""
    return corrupt.label if clean.id == corrupt.id else f"{clean.label}→{corrupt.label}"
