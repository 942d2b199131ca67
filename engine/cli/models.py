"""`models`: what there is, and where it lies."""

from dataclasses import asdict
from typing import Annotated

import typer

from engine import catalog, export, plain
from engine.cli.options import Json, Options, shares_options
from engine.cli.output import ProgressBar, megabytes
from engine.errors import InputError

models_app = typer.Typer(help="Which models there are, and where they lie.", no_args_is_help=True)


@models_app.command("list")
@shares_options
def models_list(json: Json = False, *, options: Options) -> None:
    """Models in the cache, and some that can be fetched."""
    from engine import networks_used

    entries = catalog.available(options.cache_dir)
    used = networks_used.recorded(options.cache_dir)
    if json:
        print(
            export.to_json(
                [
                    asdict(e)
                    | {
                        "path": str(e.path) if e.path else None,
                        "cached": e.cached,
                        "networks": [asdict(outcome) for outcome in used if outcome.name == e.name],
                    }
                    for e in entries
                ]
            )
        )
        return
    shown = [(e.name, "here" if e.cached else "to fetch", megabytes(e.size), e.license, e.source) for e in entries]
    print(plain.table(("name", "", "size", "licence", "source"), shown, right=(2,)))
    if used:
        print()
        ran = [(o.name, o.precision, o.device, o.network, o.why) for o in used]
        print(plain.table(("ran here", "precision", "device", "through", "why"), ran))


@models_app.command("get")
@shares_options
def models_get(name: str, *, options: Options) -> None:
    """Fetch NAME into the cache."""
    from engine.model_files import load_tokenizer

    entry = catalog.find(name, options.cache_dir)
    path = options.fetched(entry)
    load_tokenizer(entry, path, options.cache_dir)
    print(path)


@models_app.command("remove")
@shares_options
def models_remove(name: str, *, options: Options) -> None:
    """Delete NAME from the cache."""
    print(f"removed {name}, {megabytes(catalog.remove(name, options.cache_dir))} freed")


@models_app.command("path")
@shares_options
def models_path(
    name: Annotated[str | None, typer.Argument(help="A model; without it, the cache itself.")] = None,
    *,
    options: Options,
) -> None:
    """Where NAME, or the cache, lies."""
    from engine import paths

    if name is None:
        print(paths.cache_dir(options.cache_dir))
        return
    entry = catalog.find(name, options.cache_dir)
    if entry.path is None:
        raise InputError(f"{name} is not in the cache; fetch it with: logitlab models get {name}")
    print(entry.path)


@models_app.command("verify")
@shares_options
def models_verify(name: str, *, options: Options) -> None:
    """Compare NAME with its published checksum."""
    from engine.fetch import verify

    entry = catalog.find(name, options.cache_dir)
    if entry.kind != "embedded":
        raise InputError(f"only {catalog.EMBEDDED_NAME} has a published checksum to compare with")
    with ProgressBar() as report:
        size = verify(entry, report)
    print(f"{name} is whole: {megabytes(size)}, SHA-256 {catalog.EMBEDDED_WHEEL.gguf_sha256}")
