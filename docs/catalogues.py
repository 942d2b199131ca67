"""Bring the catalogues of the interface's texts up to date with the code, and compile them: `make catalogues`, which is

    .venv/bin/python docs/catalogues.py

Texts that are new come in untranslated, those that are gone are left out.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import typer.main
from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from engine.base import language
from engine.cli import app
from engine.cli.help import texts as texts_of

ROOT = Path(__file__).parents[1]
# Which arguments of a call are texts.
MARKS = {"_": slice(0, 1), "N_": slice(0, 1), "counted": slice(0, 2), "Binding": slice(2, 3)}
# What Typer says by itself, through the same catalogue.
OF_TYPER = ("No such command {name!r}.", "default: {default}", "required", "(dynamic)", "env var: {var}")


def messages() -> Catalog:
    """Every text that is to be translated, with the files it is in."""
    template = Catalog(project=language.DOMAIN, charset="utf-8")
    for package in ("engine", "tui"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for message in marked(file.read_text(encoding="utf-8")):
                template.add(message, locations=[(file.relative_to(ROOT).as_posix(), None)])
    for text in (*sorted(texts_of(typer.main.get_command(app))), *OF_TYPER):
        template.add(text, locations=[("engine/cli", None)])
    return template


def marked(code: str) -> Iterator[str | tuple[str, ...]]:
    """The texts that a file marks, those within f-strings too, which Babel finds from Python 3.12 on alone."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        marks = MARKS.get(call.func.id, slice(0)) if isinstance(call.func, ast.Name) else slice(0)
        texts = [one.value for one in call.args[marks] if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        if texts and all(texts):
            yield texts[0] if len(texts) == 1 else tuple(texts)


def catalogues() -> Iterator[tuple[Path, Catalog]]:
    """Every language's catalogue and where it lies."""
    for path in sorted(language.LOCALE.glob(f"*/LC_MESSAGES/{language.DOMAIN}.po")):
        with path.open("rb") as file:
            yield path, read_po(file, locale=path.parents[1].name, domain=language.DOMAIN)


def strings(message: Message) -> tuple[str, ...]:
    """A message's translations, one for each form."""
    return (message.string or "",) if isinstance(message.id, str) else tuple(message.string or ("",))


def main() -> None:
    """Update and compile, and say what is missing."""
    template = messages()
    for path, catalogue in catalogues():
        catalogue.update(template, no_fuzzy_matching=True, update_creation_date=False)
        catalogue.obsolete.clear()
        with path.open("wb") as file:
            write_po(file, catalogue, width=120, sort_by_file=True)
        with path.with_suffix(".mo").open("wb") as file:
            write_mo(file, catalogue)
        missing = [message.id for message in catalogue if message.id and not all(strings(message))]
        print(f"{path.relative_to(ROOT)}: {len(catalogue)} texts, {len(missing)} missing")


if __name__ == "__main__":
    main()
