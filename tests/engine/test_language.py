"""Every text is there in every language, and fits where it goes."""

import importlib.util
import inspect
import re
import string
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import read_mo

from engine.base import language
from engine.base.plain import cells

ROOT = Path(__file__).parents[2]
OTHERS = [one for one in language.languages() if one != language.SOURCE]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("catalogues", ROOT / "docs" / "catalogues.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def catalogues(script) -> dict[str, Catalog]:
    return {path.parents[1].name: catalogue for path, catalogue in script.catalogues()}


def forms(text: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


def places(text: str) -> set[tuple[str, str, str]]:
    """The places of a text to be filled, with their formats."""
    return {(name, spec or "", kind or "") for _text, name, spec, kind in string.Formatter().parse(text) if name}


def test_there_is_japanese() -> None:
    assert OTHERS == ["ja"]


def test_a_text_is_found_wherever_it_is_marked(script) -> None:
    code = """
        title = N_("a title")
        print(f"**{_('shown')}** {counted('one', 'many', f'{len(x)}'):>5}")
        Binding("f5", "run", "Run it"); Binding("f6", "step", show=False)
        print(_(title), _("two " "parts", name=_("within")), other("not marked"))
    """
    found = set(script.marked(inspect.cleandoc(code)))
    assert found == {"a title", "shown", ("one", "many"), "Run it", "two parts", "within"}


@pytest.mark.parametrize("name", OTHERS)
def test_no_text_is_missing(script, catalogues, name: str) -> None:
    there = {forms(message.id)[0]: message for message in catalogues[name] if message.id}
    wanted = {forms(message.id)[0] for message in script.messages() if message.id}
    assert len(wanted) > 700
    assert wanted == set(there), "make catalogues brings them up to date"
    assert not [id for id, message in there.items() if message.fuzzy or not all(forms(message.string))]


@pytest.mark.parametrize("name", OTHERS)
def test_places_spaces_and_line_breaks_stay(catalogues, name: str) -> None:
    for message in catalogues[name]:
        if message.id:
            source = forms(message.id)[-1]
            for text in forms(message.string):
                assert places(text) == places(source), source
                assert re.match(" *", text)[0] == re.match(" *", source)[0], source  # type: ignore[index]
                assert re.search(" *$", text)[0] == re.search(" *$", source)[0], source  # type: ignore[index]
                assert text.count("\n") == source.count("\n"), source


@pytest.mark.parametrize("name", OTHERS)
def test_the_compiled_catalogue_is_that_of_the_source(catalogues, name: str) -> None:
    path = language.LOCALE / name / "LC_MESSAGES" / f"{language.DOMAIN}.mo"
    with path.open("rb") as file:
        compiled = {forms(message.id)[0]: forms(message.string) for message in read_mo(file) if message.id}
    written = {forms(message.id)[0]: forms(message.string) for message in catalogues[name] if message.id}
    assert compiled == written, "make catalogues compiles it"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "ja_JP"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "LANGUAGE": "fr:en"}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "fr_FR.UTF-8"}, "en"),
        ({}, "en"),
    ],
)
def test_the_locale_chooses(monkeypatch: pytest.MonkeyPatch, spoken, variables: dict[str, str], expected: str) -> None:
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert spoken() == expected == language.current()


def test_a_language_that_is_not_there(spoken, run_cli) -> None:
    with pytest.raises(LookupError, match=r"lang is 'xx'; allowed: en, ja"):
        spoken("xx")
    process = run_cli("tokens", "x", "--lang", "xx")
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == "logitlab: lang is 'xx'; allowed: en, ja\n"


def test_what_is_filled_in_is_never_taken_for_a_place(spoken) -> None:
    spoken("ja")
    assert language._("removed {name}", name="{error} {0}") == "{error} {0} を削除しました"


def test_numbers_choose_their_form(spoken) -> None:
    spoken("en")
    assert language.counted("{count} token", "{count} tokens", 1) == "1 token"
    assert language.counted("{count} token", "{count} tokens", 2) == "2 tokens"
    spoken("ja")
    assert language.counted("{count} token", "{count} tokens", 1) == "1 トークン"


COMMANDS = ["", "tokens", "generate", "compare", "bench", "bench run", "models list", "sessions show", "lesson", "kit"]


@pytest.mark.parametrize("name", ["en", "ja"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_in_the_language_and_fits(spoken, name: str, command: str) -> None:
    import typer.main

    from engine.cli import app
    from engine.cli.help import translate

    spoken(name)
    group = typer.main.get_command(app)
    translate(group)
    context = group.make_context("logitlab", [], resilient_parsing=True)  # type: ignore[attr-defined]
    for part in command.split():
        if part not in group.commands:  # type: ignore[attr-defined]
            break
        group = group.commands[part]  # type: ignore[attr-defined]
        context = group.make_context(part, [], parent=context, resilient_parsing=True)  # type: ignore[attr-defined]
    text = context.get_help()
    assert ("使い方:" in text) == (name == "ja")
    assert ("Usage:" in text) == (name == "en")
    assert max(map(cells, text.splitlines())) <= 80
    if name == "ja":
        assert not re.search(r"\b(the|of|and|this)\b", text), text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--lang", "ja", "generate", "--top-k", "x", "a"), "logitlab: --top-k は使えません: 整数を指定してください"),
        (("--lang=ja", "nothing"), "logitlab: 'nothing' というコマンドはありません"),
        (("generate", "a", "--bla", "--lang", "ja"), "logitlab: オプション --bla はありません"),
        (("next", "--lang", "ja"), "logitlab: TEXT がありません"),
        (("generate", "a", "b", "--lang", "ja"), "logitlab: 引数が多すぎます: b"),
        (("models", "path", "no/such", "--lang", "ja"), "logitlab: no/such はキャッシュにありません"),
        (("generate", "--top-k"), "logitlab: --top-k needs a value"),
        (("--lang", "xx"), "logitlab: lang is 'xx'; allowed: en, ja"),
    ],
)
def test_complaints_are_in_the_language(run_cli, arguments: tuple[str, ...], said: str) -> None:
    process = run_cli(*arguments)
    assert process.stderr.startswith(said)
    assert process.stderr.count("\n") == 1
    assert process.returncode == 2
