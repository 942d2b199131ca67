"""`steer make`: a direction from two sets of prompts."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from engine.base import plain
from engine.base.errors import InputError
from engine.base.files import check_writable, read_text
from engine.base.language import _, counted
from engine.cli.inputs import start_of
from engine.cli.options import Chat, Json, Options, shares_options
from engine.cli.output import ProgressBar, print_json
from engine.models.progress import Loading

MOST_BYTES = 16_000_000

steer_app = typer.Typer(help="Directions that steer a model.", no_args_is_help=True, rich_markup_mode=None)


@steer_app.command("make")
@shares_options
def make(
    layer: Annotated[list[int], typer.Option(help="Of the stream: 0 is the embedding; from 2 on; repeatable.")],
    toward: Annotated[Path, typer.Option(help="Prompts to steer toward, one a line.")],
    away: Annotated[Path, typer.Option(help="Prompts to steer away from, one a line.")],
    out: Annotated[Path, typer.Option(help="The GGUF file to write, which llama.cpp reads too.")],
    chat: Chat = False,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """Make a direction: the mean of the stream over one file's prompts less that over the other's."""
    texts = [_lines(path) for path in (toward, away)]
    check_writable(out, read=[toward, away])
    if len(set(layer)) < len(layer):
        raise InputError(_("--layer is given twice with the same number; give each once"))
    model = options.load_local()
    from engine.inside.steering import Reading, directions
    from engine.networks.control_vector import check_rows, write_directions

    blocks = model.network.size().blocks  # type: ignore[attr-defined]
    check_rows(layer, blocks)
    toward_ids, away_ids = ([start_of(model.tokenizer, text, chat).ids for text in lines] for lines in texts)
    with ProgressBar() as report:

        def progress(one: Reading) -> None:
            report(Loading("read", one.done, one.prompts, _("prompts")))

        found = directions(model, toward_ids, away_ids, layer, report=progress)
    write_directions(out, {one.row: one.vector for one in found}, hint=model.facts.architecture, blocks=blocks)
    if json:
        print_json(
            {
                "model": asdict(model.facts),
                "out": str(out),
                "prompts": {"toward": len(toward_ids), "away": len(away_ids)},
                "directions": [
                    {"layer": one.row, "length": one.length, "stream_length": one.stream_length} for one in found
                ],
            }
        )
        return
    rows = [(one.row, f"{one.length:.3g}", f"{one.stream_length:.3g}") for one in found]
    print(plain.table((_("layer"), _("length"), _("length of the stream there")), rows, right=(0, 1, 2)))
    print(
        counted("{path}: {count} direction", "{path}: {count} directions", len(found), path=plain.one_line(str(out)))
        + " · "
        + _("use it: {intervene}", intervene=f"--intervene 'steer {layer[0]} by {plain.one_line(str(out))} × 1'")
    )


def _lines(path: Path) -> list[str]:
    """A file's prompts. Raises `InputError` where there are none."""
    lines = [line.strip() for line in read_text(path, MOST_BYTES).splitlines()]
    found = [line for line in lines if line]
    if not found:
        raise InputError(_("{path} holds no prompts; write one a line", path=path))
    return found
