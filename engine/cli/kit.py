"""`kit`: everything for machines without a network."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from engine.base.errors import ConfigError
from engine.base.language import _
from engine.cli.options import Options, shares_options
from engine.cli.output import ProgressBar
from engine.models import catalog


@shares_options
def kit(
    folder: Annotated[Path, typer.Argument(help="Where to; a new folder, or a kit to bring up to date.")],
    torch: Annotated[
        str | None,
        typer.Option(
            help="torch's build, cpu (installed 1.6 GB) or cuda (5.3 GB); without it the NVIDIA driver decides."
        ),
    ] = None,
    *,
    options: Options,
) -> None:
    """Gather wheels and the model in FOLDER, from which machines without a network install and open the lab."""
    from engine.install import kit as making
    from engine.install import torch_build

    if torch not in (None, "cpu", "cuda"):
        raise ConfigError("torch", torch, "cpu, cuda")
    build = torch_build.TorchBuild() if options.offline else torch_build.choose(torch)
    if build.why:
        print(_(build.why, index=build.asked), file=sys.stderr)
    names = [catalog.EMBEDDED_NAME, *([options.model] if options.model not in (None, catalog.EMBEDDED_NAME) else [])]
    with ProgressBar() as report:
        making.make(folder, [name for name in names if name], report, torch_index=build.index, offline=options.offline)
    print(
        _("{folder} is ready: on any machine like this one, sh {script}", folder=folder, script=folder / "install.sh")
    )
