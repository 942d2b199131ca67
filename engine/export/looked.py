"""Looks inside a model at the last step of a lane, for the lab report."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from engine.base.errors import LogitlabError
from engine.base.language import _
from engine.export import inside as sheets
from engine.export.sheet import Sheet
from engine.generation.branches import Branch
from engine.models.model import Model
from engine.text.token import Token

if TYPE_CHECKING:
    from engine.inside.record import Record
    from engine.models.local import LocalModel

POSITIONS = 16  # of the lens in its picture
TOP = 3


@dataclass(frozen=True, slots=True)
class Look:
    """One look: its table, or the sentence that says why there is none, and its heat map."""

    name: str
    title: str
    sheet: Sheet | None
    problem: str
    draw: Callable[[], str]

    def svg(self) -> str:
        return self.draw()

    def text(self) -> str:
        """Nothing: the table says the same."""
        return ""


def looks(model: Model, branch: Branch, letter: str) -> Iterator[Look]:
    """The lens, attention and attribution where a branch's last token was chosen; nothing of a branch without one.

    Raises:
        InputError: a model behind a server, or a token that the model lacks.
    """
    if not branch.steps:
        return
    from engine.inside.lens import check_tokens
    from engine.inside.record import record

    tokens = [*branch.prompt, *(step.token for step in branch.steps[:-1])]
    ids, picked = [token.id for token in tokens], branch.steps[-1].token.id
    check_tokens([*ids, picked], model.facts.vocabulary_size)
    if done := branch.config.interventions:  # what is looked at is the model as the lane ran it
        model = cast("LocalModel", model).treated(done, [token.id for token in branch.prompt])
    kept = record(model, ids)
    for name, title, look in (
        ("lens", _("Logit lens"), _lens),
        ("attention", _("Attention"), _attention),
        ("attribution", _("Attribution"), _attribution),
    ):
        try:
            sheet, draw = look(model, kept, tokens, picked)
        except LogitlabError as error:
            yield Look(f"lane-{letter.lower()}-{name}", title, None, str(error), str)
        else:
            yield Look(f"lane-{letter.lower()}-{name}", sheet.title, sheet, "", draw)


Found = tuple[Sheet, Callable[[], str]]


def _lens(model: Model, kept: "Record", tokens: Sequence[Token], picked: int) -> Found:
    """The rows of the last position, and the grid of the last few."""
    from engine.inside.lens import Lens, LensRow, lens

    shown = list(kept.positions)[-POSITIONS:]
    grid = lens(kept, positions=shown, top=TOP, tracked=[picked])
    last = Lens(grid.blocks, {number: LensRow(number, row.cells[-1:]) for number, row in grid.rows.items()})
    return sheets.lens_sheet(last, tokens, model.tokenizer), lambda: sheets.lens_svg(grid, tokens, model.tokenizer)


def _attention(_model: Model, kept: "Record", tokens: Sequence[Token], _picked: int) -> Found:
    from engine.inside.attention import attention

    found = attention(kept, -1)
    return sheets.attention_sheet(found, tokens), lambda: sheets.attention_svg(found, tokens)


def _attribution(model: Model, kept: "Record", tokens: Sequence[Token], picked: int) -> Found:
    from engine.inside.attribution import attribution, first_and_second

    found = attribution(kept, -1, *first_and_second(kept, -1, picked))
    sheet = sheets.attribution_sheet(found, tokens, model.tokenizer)
    return sheet, lambda: sheets.attribution_svg(found, model.tokenizer)
