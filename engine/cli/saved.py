"""`sessions`: what labs have saved."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from engine.base import plain
from engine.base.clock import minute
from engine.base.errors import InputError, LogitlabError
from engine.base.files import check_writable, write_text
from engine.base.language import _, counted
from engine.cli.help import show_help
from engine.cli.options import Json, Options, shares_options
from engine.cli.output import print_json, write_json
from engine.export import sheet as export
from engine.models.model import PRECISIONS
from engine.sessions import session
from engine.sessions import store as sessions
from engine.sessions.session import Session

if TYPE_CHECKING:
    from engine.export.looked import Look

sessions_app = typer.Typer(help="Sessions of the lab: saved all the time, opened again.")
sessions_app.callback(invoke_without_command=True)(show_help)


@sessions_app.command("list")
def sessions_list(json: Json = False) -> None:
    """All sessions, the newest first."""
    found = sessions.listed()
    if json:
        print_json([asdict(one) | {"path": str(one.path)} for one in found])
        return
    shown = [
        (one.name, minute(one.saved), one.model, f"{one.size / 1000:,.0f} kB", one.problem or one.prompt)
        for one in found
    ]
    print(plain.table((_("name"), _("saved"), _("model"), _("size"), _("prompt")), shown, right=(3,)))


@sessions_app.command("show")
def sessions_show(name: str, json: Json = False) -> None:
    """What is in a session: NAME of the list, or a file."""
    opened = session.read(sessions.find(name))
    if json:
        write_json(session.to_json(opened, indent=2))
        return
    model = opened.model
    print(
        _(
            "saved {saved} · {model}",
            saved=opened.saved or "–",
            model=f"{model.title} {model.precision}" if model else _("no model"),
        )
    )
    print(_("prompt  {prompt}", prompt=plain.one_line(opened.prompt)))
    for letter, lane, tree in zip("AB", opened.lanes, session.to_trees(opened)):
        print(
            counted(
                "lane {letter}  {summary} · {count} branch",
                "lane {letter}  {summary} · {count} branches",
                len(tree.branches),
                letter=letter,
                summary=lane.config.summary,
            )
        )
        if tree.shown is not None:
            print(f"  → {plain.one_line(tree.shown.text()).strip()}")


@sessions_app.command("export")
def sessions_export(
    name: str, file: Annotated[Path, typer.Argument(help="Where to; others open it with logitlab open.")]
) -> None:
    """Write a session to a file that can be given away."""
    saved = sessions.find(name)
    check_writable(file, read=[saved])
    opened = session.read(saved)
    write_text(file, session.to_json(opened, indent=1) + "\n")
    print(file)


@sessions_app.command("remove")
def sessions_remove(name: str) -> None:
    """Delete a session of the list."""
    sessions.remove(name)
    print(_("removed {name}", name=name))


@shares_options
def report(
    file: Annotated[str, typer.Argument(help="A session's file, or its name in the list.")],
    md: Annotated[bool, typer.Option("--md", hidden=True)] = True,  # what it is without it,
    out: Annotated[Path | None, typer.Option(help="Into this file, with its charts as SVG files beside it.")] = None,
    inside: Annotated[
        bool, typer.Option("--inside", help="Also look inside the model at each lane's last step.")
    ] = False,
    *,
    options: Options,
) -> None:
    """A readable lab report of a session: prompt, lanes with their probabilities, variants, timing and charts."""
    from engine.export import report as writing

    saved = sessions.find(file)
    check_writable(out, read=[saved])
    opened = session.read(saved)
    tokenizer = None
    if opened.model is not None:
        with suppress(LogitlabError):  # the model is not here: the report does without lengths
            tokenizer = replace(options, model=options.model or opened.model.name, offline=True).tokenizer()
    looks = _looks(opened, options) if inside else {}
    if out is None:
        print(writing.report(opened, tokenizer, looks=looks), end="")
        return

    def beside(picture: writing.Drawn) -> str:
        target = out.with_name(f"{out.stem}-{picture.name}.svg")
        write_text(target, picture.svg())
        return f"![{export.markdown_text(picture.title)}]({quote(target.name)})"

    write_text(out, writing.report(opened, tokenizer, beside, looks))
    print(out)


def _looks(opened: Session, options: Options) -> "dict[str, Iterator[Look]]":
    """Looks inside the session's own model, in its precision, at the last step of each lane that has run."""
    from engine.export.looked import looks

    made_by = opened.model
    if made_by is None:
        raise InputError(_("this session has no model to look inside; leave --inside out"))
    same = options.precision == "auto" and made_by.precision in PRECISIONS
    model = replace(
        options,
        model=options.model or made_by.name,
        precision=made_by.precision if same else options.precision,
    ).load_local()
    if model.facts.identity != made_by.identity:
        raise InputError(
            _(
                "{name} has other weights here than the session was made with; leave --inside out, or name the same "
                "ones with --model",
                name=model.facts.name,
            )
        )
    lanes = zip("AB", session.to_trees(opened))
    return {letter: looks(model, tree.shown, letter) for letter, tree in lanes if tree.shown is not None}


@sessions_app.command("schema")
def sessions_schema() -> None:
    """The JSON schema of a session's file."""
    print_json(session.schema())
