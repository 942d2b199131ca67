"""`patch`: where a model holds what decides between two answers."""

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from engine.base import plain
from engine.base.errors import InputError
from engine.base.language import _
from engine.cli.inputs import require, start_of
from engine.cli.inside import Shown, cropped
from engine.cli.options import Chat, Options, shares_options, single, takes
from engine.cli.output import ProgressBar
from engine.export.inside import signed
from engine.export.patching import pair, patch_sheet, patch_svg, patch_title
from engine.models.progress import Loading
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.inside.patching import PatchMap


@shares_options
@takes(shown=Shown)
def patch(
    clean: Annotated[str, typer.Argument(help="The prompt whose vectors are put in.")],
    corrupt: Annotated[str, typer.Argument(help="The prompt that runs; as many tokens.")],
    token: Annotated[
        str | None, typer.Option(help="A: one token's text or id; the clean prompt's most probable one without it.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="B: another one; the corrupt prompt's without it.")] = None,
    chat: Chat = False,
    *,
    shown: Shown,
    options: Options,
) -> None:
    """Which layer at which token of CORRUPT decides between two answers: the one that CLEAN's vector turns."""
    for text in (clean, corrupt):
        require(text)
    shown.check()
    model = options.load_local()
    from engine.inside.patching import Answers, Patching, check_lengths, patch_map, patching

    ours, theirs = (start_of(model.tokenizer, text, chat) for text in (clean, corrupt))
    check_lengths(ours.ids, theirs.ids)
    a, b = (None if one is None else single(model.tokenizer, one) for one in (token, against))
    if a is not None and a == b:
        raise InputError(_("--token and --against are the same token; give two"))
    columns: list[Patching] = []
    answers: Answers | None = None
    with ProgressBar() as report:
        for event in patching(model, ours.ids, theirs.ids, a, b):
            if isinstance(event, Answers):
                answers = event
            else:
                columns.append(event)
                report(Loading("read", event.done, event.positions, _("positions")))
    assert answers is not None
    found = patch_map(answers, columns)
    shown.show(
        model,
        patch_sheet(found, ours.prompt, theirs.prompt, model.tokenizer),
        lambda: patch_svg(found, ours.prompt, theirs.prompt, model.tokenizer),
        lambda: _print(found, ours.prompt, theirs.prompt, model.tokenizer),
    )


def _print(found: "PatchMap", clean: Sequence[Token], corrupt: Sequence[Token], tokenizer: Tokenizer) -> None:
    """The map, the last layer at the top."""
    print(patch_title(found, tokenizer))
    headers = (_("layer"), *(pair(one, other) for one, other in zip(clean, corrupt, strict=True)))
    rows = [(row, *(signed(effect, ".2f") for effect in effects)) for row, effects in reversed(found.rows)]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in plain.table(headers, rows, right=range(len(headers))).splitlines():
        print(cropped(line, width))
