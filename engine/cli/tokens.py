"""`tokens`, `template`, `lengths`: how texts and conversations are cut."""

from dataclasses import asdict
from json import dumps
from typing import Annotated

import typer

from engine.base import plain
from engine.base.language import _
from engine.cli.inputs import lines_of
from engine.cli.options import Json, Options, shares_options, takes
from engine.cli.output import print_json
from engine.cli.talk import Talk, say_remarks
from engine.text import lengths as counting
from engine.text.conversation import Conversation
from engine.text.layout import TEMPLATE
from engine.text.prompts import EXAMPLE_PROMPTS


@shares_options
@takes(talk=Talk)
def tokens(
    text: Annotated[str | None, typer.Argument(help="The text; - reads standard input.")] = None,
    json: Json = False,
    *,
    talk: Talk,
    options: Options,
) -> None:
    """Cut TEXT into tokens, one row each; of a conversation the text that the model's template makes of it."""
    asked = talk.read(text, "TEXT", answered=True, empty=True)
    begun = asked.begin(options.tokenizer())
    say_remarks([begun])
    found = begun.start.prompt
    if json:
        print_json(begun.token_dicts(found))
        return
    titles: tuple[str, ...] = (_("position"), "id", _("piece"), _("bytes"))
    rows: list[tuple[object, ...]] = [(t.position, t.id, t.label, f"{t.start}–{t.end}") for t in found]
    if begun.rendered is not None and begun.start.conversation is not None:
        turns = begun.start.conversation.messages
        special = _("control")
        titles = (*titles, "", _("message"))
        rows = [
            (*row, special if token.special else "", _("template") if m is None else f"{m + 1} {turns[m].role}")
            for row, token, m in zip(rows, found, begun.rendered.messages, strict=True)
        ]
    print(plain.table(titles, rows, right=(0, 1)))


@shares_options
def template(
    source: Annotated[bool, typer.Option("--source", help="Print the template itself.")] = False,
    name: Annotated[str | None, typer.Option(help="Of several templates, the one called so.")] = None,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """The model's chat template: the variables that it reads, to be set with --chat-option."""
    tokenizer = options.tokenizer()
    conversation = Conversation((), {} if name is None else {TEMPLATE: name})
    known, text = tokenizer.template_variables(conversation), tokenizer.template_of(conversation)
    others = sorted(tokenizer.other_templates)
    if json:
        print_json({"variables": [asdict(one) for one in known], "templates": others, "source": text})
        return
    if source:
        print(plain.safe(text))
        return
    if not known:
        print(_("this template reads nothing beside the messages"))
    else:
        kinds = {"flag": _("yes or no"), "text": _("text"), "number": _("number"), "json": _("JSON, or a file of it")}
        print(
            plain.table(
                (_("variable"), _("takes"), _("default"), _("compared with")),
                [
                    (
                        one.name,
                        kinds[one.kind],
                        "" if one.default is None else dumps(one.default, ensure_ascii=False),
                        ", ".join(one.values),
                    )
                    for one in known
                ],
            )
        )
    if others:
        print(_("other templates, for --chat-option chat_template=NAME: {names}", names=", ".join(others)))


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
