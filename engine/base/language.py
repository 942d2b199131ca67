"""The language of the interface: English in the code, others from catalogues.

A catalogue is `engine/locale/LANGUAGE/LC_MESSAGES/logitlab.po`, compiled beside it; `CONTRIBUTING.md` says how to add
one. Texts in the code are marked with `_`, those that are written down before the language is known with `N_`.
"""

import gettext
import os
from collections.abc import Sequence
from pathlib import Path

DOMAIN = "logitlab"
LOCALE = Path(__file__).parents[1] / "locale"
SOURCE = "en"

_catalogue: gettext.NullTranslations = gettext.NullTranslations()
_language = SOURCE


def languages() -> Sequence[str]:
    """The languages that can be chosen: English and those with a catalogue."""
    return sorted({SOURCE, *(file.parent.parent.name for file in LOCALE.glob(f"*/LC_MESSAGES/{DOMAIN}.mo"))})


def current() -> str:
    """The language in use."""
    return _language


def choose(wanted: str | None = None) -> str:
    """Use a language from now on: `wanted`, else the locale's, else English. Returns it.

    Raises:
        LookupError: there is no catalogue for `wanted`; the message lists the languages.
    """
    global _catalogue, _language
    there = languages()
    if wanted is not None and wanted not in there:
        raise LookupError(_("lang is {wanted!r}; allowed: {languages}", wanted=wanted, languages=", ".join(there)))
    _language = wanted or next((one for one in _of_the_locale() if one in there), SOURCE)
    _catalogue = gettext.translation(DOMAIN, LOCALE, [_language], fallback=True)
    # Typer takes its own texts from the process's default domain.
    gettext.bindtextdomain(DOMAIN, str(LOCALE))
    gettext.textdomain(DOMAIN)
    os.environ["LANGUAGE"] = _language
    return _language


def _(message: str, /, **values: object) -> str:
    """The text in the language in use, with the values in its `{places}`."""
    text = _catalogue.gettext(message) if message else ""
    return text.format(**values) if values else text


def counted(one: str, many: str, count: int, /, **values: object) -> str:
    """The text in the form that `count` needs; `{count}` is replaced by it."""
    return _catalogue.ngettext(one, many, count).format(count=count, **values)


def N_(message: str) -> str:
    """Mark a text that `_` translates later."""
    return message


def _of_the_locale() -> list[str]:
    """Languages that the environment names, by the rules of gettext: `ja_JP.UTF-8` is `ja`."""
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return [one.split(".")[0].split("@")[0].split("_")[0] for one in value.split(":")]
    return []
