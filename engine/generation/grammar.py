"""Grammars: what a lane may write at all, as a JSON schema, a regular expression, a Lark grammar or a list of choices.

All four run through llguidance (a lazy Earley parser over derivatives of regular expressions): see `constraint`.

Blanks within JSON are those of llama.cpp's grammars, at most two line breaks and twenty blanks, so that no lane writes
blanks without end; a schema's own `x-guidance` may say otherwise.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import ConfigError, first_line
from engine.base.files import read_text
from engine.base.language import _
from engine.base.plain import one_line

if TYPE_CHECKING:
    from llguidance import LLParserLimits

# In this order they are named; a configuration has one of them.
KINDS = ("schema", "regex", "grammar", "choices")
MAX_GRAMMAR = 200_000  # characters
# What keeps building below two seconds, memory below some hundred megabytes, and a step below some milliseconds.
LEXER_FUEL, LEXER_STATES, SYMBOLS = 200_000, 50_000, 20_000
BLANKS = r"( |\n{1,2}[ \t]{0,20})?"


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a lane may write.

    Attributes:
        kind: one of `KINDS`.
        source: the schema, expression or grammar; for choices a JSON list.
    """

    kind: str
    source: str

    def compiled(self) -> str:
        """It in llguidance's form. Raises `ValueError`."""
        from llguidance import LLMatcher

        if self.kind == "schema":
            return LLMatcher.grammar_from_json_schema(self.source, defaults={"whitespace_pattern": BLANKS})
        if self.kind == "regex":
            return LLMatcher.grammar_from_regex(self.source)
        if self.kind == "grammar":
            return LLMatcher.grammar_from_lark(self.source)
        choices = (json.dumps(choice, ensure_ascii=False) for choice in json.loads(self.source))
        return LLMatcher.grammar_from_lark("start: " + " | ".join(choices))


def gbnf_choices(choices: Sequence[str]) -> str:
    """Choices in the form of llama.cpp's grammars."""
    return "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)


def checked_grammar(given: Mapping[str, object]) -> Grammar | None:
    """The grammar that settings name; `None` where they name none.

    Args:
        given: each of `KINDS` and its value; `None`, or no choices, where it is not used.

    Raises:
        ConfigError: it cannot be used, or there are two.
    """
    named = [kind for kind in KINDS if given[kind] not in (None, (), [])]
    if not named:
        return None
    kind = named[0]
    value = given[kind]
    if len(named) > 1:
        allowed = _("not together with {other}; give one of both", other=kind)
        raise ConfigError(named[1], _short(given[named[1]]), allowed)
    if kind == "choices":
        if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) and text for text in value):
            raise ConfigError(kind, value, _("a list of texts, none of them empty"))
        grammar = Grammar(kind, json.dumps(value, ensure_ascii=False))
    elif isinstance(value, str) and value.strip("" if kind == "regex" else None):
        grammar = Grammar(kind, value)
    else:
        raise ConfigError(kind, value, _("a text that is not empty (or none)"))
    if len(grammar.source) > MAX_GRAMMAR:
        raise ConfigError(kind, _short(value), _("at most {most:,} characters", most=MAX_GRAMMAR))
    if why := _why_not(grammar):
        raise ConfigError(kind, _short(value), why)
    return grammar


def with_sources(data: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """Settings of which schema and grammar hold their text: a schema may be given as data, both as a file's name.

    Args:
        folder: that names of files begin in; without it none is read.

    Raises:
        InputError: a file cannot be read.
    """
    found = dict(data)
    if isinstance(found.get("schema"), (dict, list)):
        found["schema"] = json.dumps(found["schema"], ensure_ascii=False)
    for kind, sign in (("schema", "{"), ("grammar", ":")):
        value = found.get(kind)
        if folder is not None and isinstance(value, str) and value and (sign not in value or _is_file(folder / value)):
            found[kind] = read_text(folder / value, 4 * MAX_GRAMMAR)
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _short(value: object) -> str:
    text = one_line(str(value))
    return text if len(text) <= 40 else f"{text[:39]}…"


@lru_cache(maxsize=64)
def _why_not(grammar: Grammar) -> str:
    """What would be allowed in place of a grammar that no vocabulary can use; empty where it can be used."""
    if grammar.kind == "schema":
        try:
            schema = json.loads(grammar.source)
        except (ValueError, RecursionError) as error:
            return _("a JSON schema ({why})", why=first_line(error))
        if not isinstance(schema, dict):
            return _("a JSON schema, which begins with a brace")
    from llguidance import LLMatcher

    try:
        found = LLMatcher.validate_grammar(grammar.compiled(), limits=limits())
    except (ValueError, RecursionError) as error:
        found = first_line(error)
    names = {
        "schema": _("a JSON schema that can be followed"),
        "regex": _("a regular expression"),
        "grammar": _("a Lark grammar"),
        "choices": _("a list of texts"),
    }
    return f"{names[grammar.kind]} ({reason(found)})" if found else ""


def limits() -> "LLParserLimits":
    """How far a grammar may go."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=LEXER_FUEL, max_lexer_states=LEXER_STATES, max_grammar_size=SYMBOLS, verbose_errors=False
    )


def reason(report: str) -> str:
    """The line of llguidance's report that says what is wrong."""
    lines = [line.strip() for line in report.splitlines()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return one_line((errors or lines)[0])
