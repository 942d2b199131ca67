"""`lens`, `attention`, `attribute`, `occlude`: what happens inside a model on the way to the next token."""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.base import plain
from engine.base.errors import InputError
from engine.base.files import check_writable, write_text
from engine.base.language import _, counted
from engine.cli.coloured import print_coloured
from engine.cli.inputs import require, start_of, text_of
from engine.cli.options import Chat, Json, Options, shares_options, single, takes
from engine.cli.output import ProgressBar, print_json, remark
from engine.export import inside as sheets
from engine.export.heat import Scale
from engine.export.sheet import Sheet
from engine.models.model import Model
from engine.models.progress import Loading
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.inside.attention import Attention
    from engine.inside.attribution import Attribution
    from engine.inside.lens import Lens, LensCell, Said
    from engine.inside.occlusion import Occlusion
    from engine.inside.record import Record
    from engine.models.local import LocalModel

MOST_TOP = 1_000
MOST_WEIGHTS = 12  # rows of the table of weights

Text = Annotated[str, typer.Argument(help="The text; - reads standard input.")]


@dataclass(frozen=True)
class Shown:
    """The options that say where a result goes."""

    csv: Annotated[Path | None, typer.Option(help="Also write the table to this file.")] = None
    svg: Annotated[Path | None, typer.Option(help="Also draw it to this file, for print.")] = None
    json: Json = False

    def check(self) -> None:
        """Raise `InputError` or `MachineError` for files that cannot be written, before a model is loaded."""
        check_writable(self.csv, self.svg)

    def show(self, model: Model, sheet: Sheet, picture: Callable[[], str], print_it: Callable[[], None]) -> None:
        """Write the files, and print JSON or what `print_it` prints. Raises `MachineError`."""
        if self.csv is not None:
            write_text(self.csv, sheet.to_csv())
        if self.svg is not None:
            write_text(self.svg, picture())
        if self.json:
            data = sheet.data
            assert isinstance(data, dict)
            print_json({"model": asdict(model.facts), **data})
        else:
            print_it()
            for note in sheet.notes:
                print(note)

    @property
    def whole(self) -> bool:
        """Whether more is wanted than a terminal shows."""
        return self.json or self.csv is not None or self.svg is not None


@shares_options
@takes(shown=Shown)
def lens(
    text: Text,
    at: Annotated[
        int | None, typer.Option(help="One position, below 0 from the end. Else: the last one; all in files and JSON.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many tokens of each layer.")] = 5,
    track: Annotated[
        list[str] | None, typer.Option(help="Also this token's rank and probability, by text or id; repeatable.")
    ] = None,
    chat: Chat = False,
    *,
    shown: Shown,
    options: Options,
) -> None:
    """What the output layer would say to each layer: where on its way the next token is decided."""
    if not 1 <= top <= MOST_TOP:
        raise InputError(_("top is {top}; allowed: from 1 to {most:,}", top=top, most=MOST_TOP))
    model, tokens = _begun(text, chat, shown, options)
    from engine.inside.lens import Lens, lens_rows

    tracked = [single(model.tokenizer, one) for one in track or ()]
    alone = at is not None or not shown.whole
    place = -1 if at is None else at
    record = _recorded(model, tokens, place if alone else None)
    rows = {}
    with ProgressBar() as report:
        for row in lens_rows(record, positions=[place] if alone else None, top=top, tracked=tracked):
            rows[row.row] = row
            report(Loading("read", len(rows), record.blocks + 1, _("layers")))
    found, position = Lens(record.blocks, rows), record.at(place) + record.first_position
    shown.show(
        model,
        sheets.lens_sheet(found, tokens, model.tokenizer),
        lambda: sheets.lens_svg(found, tokens, model.tokenizer),
        lambda: _print_lens(found, tokens, position, model.tokenizer),
    )


@shares_options
@takes(shown=Shown)
def attention(
    text: Text,
    at: Annotated[int, typer.Option(help="The position that looks, below 0 from the end.")] = -1,
    layer: Annotated[int | None, typer.Option(help="One layer, from 0: the mean of its heads.")] = None,
    head: Annotated[int | None, typer.Option(help="One head of --layer, from 0.")] = None,
    mean: Annotated[bool, typer.Option("--mean", help="The mean of all heads, of --layer or of all layers.")] = False,
    rollout: Annotated[bool, typer.Option("--rollout", help="Multiplied through all layers.")] = False,
    by_value: Annotated[bool, typer.Option("--by-value", help="What each weight moves, not the weight.")] = False,
    leave_first: Annotated[bool, typer.Option("--leave-first", help="Without the text's first token.")] = False,
    chat: Chat = False,
    *,
    shown: Shown,
    options: Options,
) -> None:
    """What the token at a position looks at: the weights on all tokens before it."""
    if mean and (head is not None or rollout):
        raise InputError(_("--mean is of all heads; leave out --head and --rollout"))
    model, tokens = _begun(text, chat, shown, options)
    from engine.inside.attention import attention as weigh

    record = _recorded(model, tokens, None if rollout else at)
    found = weigh(record, at, layer=layer, head=head, rollout=rollout, by_value=by_value, leave_first=leave_first)
    shown.show(
        model,
        sheets.attention_sheet(found, tokens),
        lambda: sheets.attention_svg(found, tokens),
        lambda: _print_attention(found, tokens),
    )


@shares_options
@takes(shown=Shown)
def attribute(
    text: Text,
    token: Annotated[str | None, typer.Option(help="A: one token's text or id; the most probable without it.")] = None,
    against: Annotated[str | None, typer.Option(help="B: another one; the runner-up without it.")] = None,
    layer: Annotated[int | None, typer.Option(help="Head by head in this layer, from 0.")] = None,
    chat: Chat = False,
    *,
    shown: Shown,
    options: Options,
) -> None:
    """Why token A comes after TEXT and not token B: what each part adds to the difference of their logits."""
    model, tokens = _begun(text, chat, shown, options)
    from engine.inside.attribution import attribution, first_and_second

    a, b = (None if one is None else single(model.tokenizer, one) for one in (token, against))
    if a is not None and a == b:
        raise InputError(_("--token and --against are the same token; give two"))
    record = _recorded(model, tokens, -1)
    if a is None or b is None:
        first, second = first_and_second(record, -1, a)
        a, b = (first, second) if b is None else (second if first == b else first, b)
    found = attribution(record, -1, a, b, layer=layer)
    shown.show(
        model,
        sheets.attribution_sheet(found, tokens, model.tokenizer),
        lambda: sheets.attribution_svg(found, model.tokenizer),
        lambda: _print_attribution(found, model.tokenizer),
    )


@shares_options
@takes(shown=Shown)
def occlude(
    text: Text,
    token: Annotated[
        str | None, typer.Option(help="The token after it: one token's text or id; the most probable without it.")
    ] = None,
    chat: Chat = False,
    *,
    shown: Shown,
    options: Options,
) -> None:
    """Which tokens of TEXT mattered: how the next token's log-probability changes with each one left out."""
    text = text_of(text)
    require(text)
    shown.check()
    model = options.load()
    from engine.inside.occlusion import Occluding, occlusion

    tokens = start_of(model.tokenizer, text, chat).prompt
    picked = None if token is None else single(model.tokenizer, token)
    with ProgressBar() as report:

        def progress(one: Occluding) -> None:
            report(Loading("read", one.done, one.variants, _("tokens left out in turn")))

        found = occlusion(model, [one.id for one in tokens], picked, report=progress)
    shown.show(
        model,
        sheets.occlusion_sheet(found, tokens, model.tokenizer),
        lambda: sheets.occlusion_svg(found, tokens, model.tokenizer),
        lambda: _print_occlusion(found, tokens, model.tokenizer),
    )


def _begun(text: str, chat: bool, shown: Shown, options: Options) -> "tuple[LocalModel, Sequence[Token]]":
    """The model and the tokens of the text; what cannot be used is said before the model is loaded."""
    text = text_of(text)
    require(text)
    shown.check()
    model = options.load_local()
    return model, start_of(model.tokenizer, text, chat).prompt


def _recorded(model: "LocalModel", tokens: Sequence[Token], at: int | None) -> "Record":
    """The record of a text, from the position `at` on, or of all positions that there is room for."""
    from engine.inside.record import Recording, record

    count = len(tokens)
    wanted = None
    if at is not None and -count <= at < count:  # another one is refused when it is looked at
        wanted = -at if at < 0 else count - at
    with ProgressBar() as report:

        def progress(one: Recording) -> None:
            report(Loading("read", one.done, one.blocks, _("layers")))

        kept = record(model, [token.id for token in tokens], positions=wanted, report=progress)
    if at is None and kept.first_position:
        remark(
            _(
                "the text has {count:,} tokens; looked at are those from position {first:,} on",
                count=count,
                first=kept.first_position,
            )
        )
    return kept


def _print_lens(found: "Lens", tokens: Sequence[Token], position: int, tokenizer: Tokenizer) -> None:
    """The rows at one position, the last one at the top."""
    cells = {row: cell for row in sorted(found.rows, reverse=True) if (cell := found.cell(row, position)) is not None}
    last = cells[found.blocks]
    decided = found.decided_at[[cell.position for cell in found.rows[found.blocks].cells].index(position)]
    tracked = [_token(tokenizer, one) for one in last.tracked]
    headers = (_("layer"), _("token"), _("probability"), "", _("bits"), "")
    names = [name for one in tracked for name in (f"“{one}”", "")]
    print(_("position {position}, after “{token}”", position=position, token=tokens[position].label))
    rows = [
        (
            row,
            _token(tokenizer, cell.top[0]),
            plain.percent(cell.top[0].probability),
            plain.bar(cell.top[0].probability, 1, 12),
            f"{cell.entropy_bits:.2f}",
            _("decided") if row == decided else "",
            *(value for one in cell.tracked for value in (f"{one.rank:,}.", plain.percent(one.probability))),
            _others(tokenizer, cell),
        )
        for row, cell in cells.items()
    ]
    right = (0, 2, 4, *range(len(headers), len(headers) + len(names)))
    lines = plain.table((*headers, *names, _("then") if len(last.top) > 1 else ""), rows, right=right).splitlines()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines:
        print(cropped(line, width))


def _token(tokenizer: Tokenizer, one: "Said") -> str:
    return plain.one_line(tokenizer.label(one.id))


def _others(tokenizer: Tokenizer, cell: "LensCell") -> str:
    return "  ".join(f"{_token(tokenizer, one)} {plain.percent(one.probability)}" for one in cell.top[1:])


def cropped(line: str, width: int | None) -> str:
    if width is None or plain.cells(line) <= width:
        return line
    from rich.cells import set_cell_size

    return set_cell_size(line, max(1, width - 1)).rstrip() + "…"


def _print_attention(found: "Attention", tokens: Sequence[Token]) -> None:
    """The text coloured by weight, and the highest weights as a table."""
    weights = [weight if place <= found.at else None for place, weight in enumerate(found.weights)]
    known = sorted(
        ((weight, place) for place, weight in enumerate(weights) if weight is not None), key=lambda one: -one[0]
    )
    most = known[0][0] if known else 0.0
    print(sheets.attention_title(found))
    print_coloured(tokens, weights, Scale("", most), found.at)
    show: Callable[[float], str] = sheets.plain_number if found.by_value else plain.percent
    rows = [
        (place, tokens[place].id, tokens[place].label, show(weight), plain.bar(weight, most, 24))
        for weight, place in known[:MOST_WEIGHTS]
    ]
    print(plain.table((_("position"), "id", _("token"), _("weight"), ""), rows, right=(0, 1, 3)))
    if rest := known[MOST_WEIGHTS:]:
        print(
            counted(
                "{count} more token: {weight} in all",
                "{count} more tokens: {weight} in all",
                len(rest),
                weight=show(sum(weight for weight, _place in rest)),
            )
        )


def _print_attribution(found: "Attribution", tokenizer: Tokenizer) -> None:
    print(sheets.attribution_title(found, tokenizer))
    most = max((abs(part.share) for part in found.parts), default=0.0)
    rows = [
        (part.name, sheets.signed(part.share), plain.signed_bar(part.share, most, 16))
        for part in sheets.largest_first(found)
    ]
    print(plain.table((_("part"), _("share"), ""), rows, right=(1,)))


def _print_occlusion(found: "Occlusion", tokens: Sequence[Token], tokenizer: Tokenizer) -> None:
    """The text coloured by what leaving each token out takes away, and a bar for each."""
    print(sheets.occlusion_title(found, tokenizer))
    most = max((abs(one.change) for one in found.without), default=0.0)
    print_coloured(tokens, [-one.change for one in found.without], Scale("", most, diverging=True))
    rows = [
        (
            one.position,
            tokens[one.position].id,
            tokens[one.position].label,
            sheets.signed(one.log_probability),
            sheets.signed(one.change),
            plain.signed_bar(one.change, most, 12),
        )
        for one in found.without
    ]
    headers = (_("left out"), "id", _("token"), _("log-probability"), _("change"), "")
    print(plain.table(headers, rows, right=(0, 1, 3, 4)))
