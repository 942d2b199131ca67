"""`lesson`: the guided course, and checking one's own."""

from pathlib import Path
from typing import Annotated

import typer

from engine.base import language, plain
from engine.base.errors import InputError
from engine.base.language import _, counted
from engine.cli.options import Json, Options, shares_options
from engine.cli.output import print_json
from engine.lessons import lesson as lessons


@shares_options
def lesson(
    what: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE | check FILE]", help="A lesson of one's own; or check it.")
    ] = None,
    page: Annotated[int | None, typer.Option(help="Open at this page; without it where it was left.")] = None,
    teacher: Annotated[bool, typer.Option("--teacher", help="One thing at a time, in a wide panel.")] = False,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """The guided lesson beside the lab."""
    from engine.cli.screen import key_names, open_lab

    given = list(what or ())
    if given[:1] == ["check"]:
        if len(given) != 2:
            raise InputError(_("lesson check takes one file; logitlab lesson check FILE.md"))
        pages = lessons.described(lessons.read_lesson(Path(given[1]), key_names()))
        if json:
            print_json(pages)
        else:
            print(plain.table(tuple(pages[0]), [tuple(one.values()) for one in pages], right=(0, 5)))
            print(counted("{count} page, it can be opened", "{count} pages, all of them can be opened", len(pages)))
        return
    if json:
        raise InputError(_("--json is for lesson check; a lesson opens in the lab"))
    if len(given) > 1:
        raise InputError(_("lesson takes one file; logitlab lesson FILE.md"))
    from engine.sessions.session import Session

    path = Path(given[0]) if given else lessons.builtin(language.current(), otherwise=language.SOURCE)
    opened = lessons.read_lesson(path, key_names())
    number = None if page is None else lessons.page_of(opened, page)
    open_lab(options, Session(), lesson=opened, lesson_page=number, teacher=teacher)
