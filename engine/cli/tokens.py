"""`tokens`, `lengths`: how texts are cut."""

from dataclasses import asdict
from typing import Annotated

import typer

from engine.base import plain
from engine.base.language import _
from engine.cli.inputs import lines_of, start_of, text_of
from engine.cli.options import Chat, Json, Options, shares_options
from engine.cli.output import print_json
from engine.text import lengths as counting
from engine.text.prompts import EXAMPLE_PROMPTS


@shares_options
def tokens(
    text: Annotated[str, typer.Argument(help="The text; - reads standard input.")],
    chat: Chat = False,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """Cut TEXT into tokens, one row each."""
    tokenizer = options.tokenizer()
    found = start_of(tokenizer, text_of(text), chat).prompt
    if json:
        print_json([asdict(token) for token in found])
    else:
        print(
            plain.table(
                (_("position"), "id", _("piece"), _("bytes")),
                [(t.position, t.id, t.label, f"{t.start}–{t.end}") for t in found],
                right=(0, 1),
            )
        )


@shares_options
def lengths(
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Prompts, or files with one a line; four examples when none is given.")
    ] = None,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """Count the tokens of prompts: table and bar chart."""
    texts = [line for argument in prompts or EXAMPLE_PROMPTS for line in lines_of(argument)]
    counted = counting.count(options.tokenizer(), texts)
    if json:
        print_json([one.to_dict() for one in counted])
        return
    most = max(one.tokens for one in counted)
    shown = [(one.tokens, plain.bar(one.tokens, most, 24), one.characters, one.words, one.prompt) for one in counted]
    print(plain.table((_("tokens"), "", _("characters"), _("words"), _("prompt")), shown, right=(0, 2, 3)))
