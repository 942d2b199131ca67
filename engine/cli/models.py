"""`models`: those that can be used, and where they lie."""

from dataclasses import asdict
from typing import Annotated

import typer

from engine.base import plain
from engine.base.errors import InputError
from engine.base.language import _
from engine.base.machine import free_memory
from engine.cli.help import show_help
from engine.cli.options import Json, Options, shares_options
from engine.cli.output import ProgressBar, megabytes, print_json
from engine.models import catalog

models_app = typer.Typer(help="Which models there are, and where they lie.")
models_app.callback(invoke_without_command=True)(show_help)


@models_app.command("list")
@shares_options
def models_list(json: Json = False, *, options: Options) -> None:
    """Models in the cache, and some that can be fetched."""
    from engine.networks import used as networks_used

    entries, free = catalog.offered(options.cache_dir), free_memory()
    used = networks_used.recorded(options.cache_dir)
    if json:
        print_json(
            [
                asdict(e)
                | {
                    "path": str(e.path) if e.path else None,
                    "cached": e.cached,
                    "fits": catalog.room(e, free),
                    "networks": [asdict(outcome) for outcome in used if outcome.name == e.name],
                }
                for e in entries
            ]
        )
        return
    shown = [
        (
            e.name,
            _("here") if e.cached else _("to fetch"),
            _(catalog.TUNED[e.tuned]),
            ("" if e.cached or e.kind != "hub" else "≈ ") + megabytes(e.size),
            _(catalog.ROOMS[catalog.room(e, free)]),
            catalog.licence(e),
            _(e.source),
        )
        for e in entries
    ]
    titles = (_("name"), "", _("for"), _("size"), _("memory"), _("licence"), _("source"))
    print(plain.table(titles, shown, right=(3,)))
    if used:
        print()
        ran = [(o.name, o.precision, o.device, o.network, o.reason) for o in used]
        print(plain.table((_("ran here"), _("precision"), _("device"), _("through"), _("why")), ran))


@models_app.command("get")
@shares_options
def models_get(name: str, *, options: Options) -> None:
    """Fetch NAME into the cache."""
    from engine.models.tokenizer_files import load_tokenizer

    entry = catalog.find(name, options.cache_dir)
    path = options.fetched(entry)
    load_tokenizer(entry, path)
    print(path)


@models_app.command("remove")
@shares_options
def models_remove(name: str, *, options: Options) -> None:
    """Delete NAME from the cache."""
    print(_("removed {name}, {size} freed", name=name, size=megabytes(catalog.remove(name, options.cache_dir))))


@models_app.command("path")
@shares_options
def models_path(
    name: Annotated[str | None, typer.Argument(help="A model; without it, the cache itself.")] = None,
    *,
    options: Options,
) -> None:
    """Where NAME, or the cache, lies."""
    from engine.base import paths

    if name is None:
        print(paths.cache_dir(options.cache_dir))
        return
    entry = catalog.find(name, options.cache_dir)
    if entry.path is None:
        raise InputError(_("{name} is not in the cache; fetch it with: logitlab models get {name}", name=name))
    print(entry.path)


@models_app.command("verify")
@shares_options
def models_verify(name: str, *, options: Options) -> None:
    """Compare NAME with its published checksum."""
    from engine.models.embedded import verify

    entry = catalog.find(name, options.cache_dir)
    if entry.kind != "embedded":
        raise InputError(_("only {name} has a published checksum to compare with", name=catalog.EMBEDDED_NAME))
    with ProgressBar() as report:
        size = verify(entry, report)
    print(
        _(
            "{name} is whole: {size}, SHA-256 {gguf_sha256}",
            name=name,
            size=megabytes(size),
            gguf_sha256=catalog.EMBEDDED_WHEEL.gguf_sha256,
        )
    )
