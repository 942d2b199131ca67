"""`doctor`: an installation, looked at."""

import typer

from engine.base import plain
from engine.cli.options import Json, Options, shares_options
from engine.cli.output import print_json


@shares_options
def doctor(json: Json = False, *, options: Options) -> None:
    """Versions, terminal, folders, machine, and a self-test that generates five tokens."""
    from engine.install.doctor import findings

    found = list(findings(options.cache_dir))
    if json:
        print_json([{"what": what, "is": how, "well": well} for what, how, well in found])
    else:
        print(plain.table(("", "", ""), [("" if well else "✗", what, how) for what, how, well in found]).lstrip("\n"))
    if not all(well for _what, _how, well in found):
        raise typer.Exit(1)
