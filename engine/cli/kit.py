"""`kit`: everything for machines without a network."""

from pathlib import Path
from typing import Annotated

import typer

from engine.base.language import _
from engine.cli.options import Options, shares_options
from engine.cli.output import ProgressBar
from engine.models import catalog


@shares_options
def kit(
    folder: Annotated[Path, typer.Argument(help="Where to; a new folder, or a kit to bring up to date.")],
    *,
    options: Options,
) -> None:
    """Gather wheels and the model in FOLDER, from which machines without a network install and open the lab."""
    from engine.install import kit as making

    names = [catalog.EMBEDDED_NAME, *([options.model] if options.model not in (None, catalog.EMBEDDED_NAME) else [])]
    with ProgressBar() as report:
        making.make(folder, [name for name in names if name], report, offline=options.offline)
    print(
        _("{folder} is ready: on any machine like this one, sh {script}", folder=folder, script=folder / "install.sh")
    )
