"""`keys`: what every key of the lab does, and checking a file that gives them others."""

from pathlib import Path
from typing import Annotated

import typer

from engine.base import paths, plain
from engine.base.errors import InputError
from engine.base.language import _, counted
from engine.cli.options import Json
from engine.cli.output import print_json


def keys(
    check: Annotated[Path | None, typer.Option("--check", metavar="FILE", help="Check a file of keys.")] = None,
    json: Json = False,
) -> None:
    """What every key of the lab does."""
    from engine.cli.screen import lab_keys

    if check is not None and not check.exists():
        raise InputError(_("{path} is not there; check its name", path=check))
    rows, complaints = lab_keys(check)
    if check is None:
        if json:
            print_json(rows)
            return
        header = (_("pane"), _("action"), _("keys"), _("what it does"))
        print(plain.table(header, [(row["pane"], row["action"], "  ".join(row["keys"]), row["does"]) for row in rows]))
        print(_("{path} gives them other keys; docs/keys.md says how", path=paths.keys_file()))
        if complaints:
            print(_("it has faults: logitlab keys --check {path} says which", path=paths.keys_file()))
        return
    if json:
        print_json(complaints)
    for one in complaints if not json else ():
        print(": ".join(filter(None, (f"{one['at']} {one['key']}".strip(), one["says"]))))
    refused = sum(not one["used"] for one in complaints)
    if refused:
        raise InputError(
            counted(
                "{path}: {count} line cannot be used; correct it",
                "{path}: {count} lines cannot be used; correct them",
                refused,
                path=check,
            )
        )
    if not json:
        changed = sum(row["changed"] for row in rows)
        print(counted("{count} action has other keys", "{count} actions have other keys", changed))
