"""`diff`: how far one model's predictions of a text are from another's."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.base import plain
from engine.base.errors import InputError
from engine.base.files import check_writable, write_text
from engine.base.language import _, counted
from engine.cli.inputs import text_or_file
from engine.cli.options import Json, Options, shares_options
from engine.cli.output import ProgressBar, print_json, remark
from engine.export.sheet import csv_text
from engine.models import catalog
from engine.models.progress import Loading
from engine.text.token import visible
from engine.text.tokenizer import Tokenizer
from engine.text.vocabularies import first_other_token

if TYPE_CHECKING:
    from engine.export.difference import Cut
    from engine.inside.difference import Difference, Reader, Reading, Windows
    from engine.models.local import LocalModel

BEFORE_CELLS = 30  # of a worst position's context on a terminal


@shares_options
def diff(
    text: Annotated[str, typer.Argument(help="A text or a file; - reads standard input.")],
    a: Annotated[str, typer.Option(help="MODEL[@PRECISION], the one that is trusted.")],
    b: Annotated[str, typer.Option(help="MODEL[@PRECISION], the one that is compared with it.")],
    window: Annotated[int | None, typer.Option(help="Tokens read at once; 512 or the contexts.")] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens from one window to the next; half of one.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write every position to this file.")] = None,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """How far model B's predictions of TEXT are from model A's: KL divergence, perplexities, the worst positions."""
    sides = _named(a, b, options)
    source = text_or_file(text)
    if not source:
        raise InputError(_("the text is empty; type at least one character"))
    if source == text and _looks_like_a_path(text):
        remark(_("there is no file {name}: the name itself is read as the text", name=text))
    check_writable(csv, read=[] if source == text else [Path(text)])
    models = _loaded(sides)
    from engine.export import difference as results
    from engine.inside.difference import windows_of

    readers = [_reader(model) for model in models]
    windows = windows_of(readers, window, stride)
    cuts = [results.Cut.of(source, model.tokenizer) for model in models]
    apart = _why_apart(models, cuts)
    found: list[Difference] = []
    for some in [[reader] for reader in readers] if apart else [readers]:
        found.append(_read(some, cuts[len(found)], windows))
    if apart:
        remark(_("{why}: there is no KL divergence; compare bits per byte", why=apart))
    else:
        _remark_what_differs(readers)
    if csv is not None:
        write_text(csv, csv_text(results.columns(found), results.rows(found, cuts)))
    if json:
        print_json(
            {"models": {"a": asdict(models[0].facts), "b": asdict(models[1].facts)}, **results.to_dict(found, cuts)}
        )
    else:
        _print(models, found, cuts)


def _named(a: str, b: str, options: Options) -> list[Options]:
    """How each model is loaded; what cannot be used is said before anything is."""
    if options.model is not None:
        raise InputError(_("diff has two models: name them with --a and --b instead of --model"))
    from engine.models.local import LoadOptions
    from engine.models.pair import name_and_precision

    sides = []
    for text in (a, b):
        name, precision = name_and_precision(text, options.precision)
        if options.server is not None or catalog.is_address(name):
            raise InputError(_("diff needs all of a model's own numbers, which no server tells; name models here"))
        catalog.find(name, options.cache_dir)
        sides.append(replace(options, model=name, precision=precision))
        LoadOptions(**sides[-1].how)
    return sides


def _loaded(sides: Sequence[Options]) -> "list[LocalModel]":
    """Both models; one that is named twice is loaded once."""
    from engine.models.local import LoadOptions
    from engine.models.pair import check_both_fit

    first, second = sides
    if first == second:
        return [first.load_local()] * 2
    with ProgressBar() as report:
        a, b = ((str(one.model), LoadOptions(**one.how, report=report)) for one in sides)
        check_both_fit(a, b)
    return [first.load_local(), second.load_local()]


def _reader(model: "LocalModel") -> "Reader":
    from engine.inside.difference import Reader

    return Reader(model.facts.title, model.network, model.tokenizer.beginning)


def _why_apart(models: "Sequence[LocalModel]", cuts: "Sequence[Cut]") -> str:
    """Why the models' probabilities cannot be compared token by token; empty where they can."""
    a, b = (model.tokenizer for model in models)
    if a is b:
        return ""
    other = first_other_token(a, b)
    if other is not None:
        words = {"a": _word(a, other), "b": _word(b, other)}
        return _("the vocabularies differ, token {id:,} is “{a}” in one and “{b}” in the other", id=other, **words)
    if cuts[0].ids != cuts[1].ids:
        return _("the vocabularies are the same, but the two cut this text into different tokens")
    return ""


def _remark_what_differs(readers: "Sequence[Reader]") -> None:
    """Say in what models of one vocabulary are read in different ways."""
    first, second = readers
    if first.network.vocabulary_size != second.network.vocabulary_size:
        count = min(first.network.vocabulary_size, second.network.vocabulary_size)
        remark(_("the models have different numbers of ids: compared are the {count:,} that both have", count=count))
    if first.beginning != second.beginning:
        remark(
            _(
                "before each window A reads the ids {a} and B {b}, as their tokenizers say",
                a=list(first.beginning),
                b=list(second.beginning),
            )
        )


def _word(tokenizer: Tokenizer, id: int) -> str:
    return plain.one_line(tokenizer.label(id))


def _read(readers: "Sequence[Reader]", cut: "Cut", windows: "Windows") -> "Difference":
    from engine.inside.difference import difference

    with ProgressBar() as report:

        def progress(one: "Reading") -> None:
            note = _("positions read")
            if one.mean is not None:
                note = _("positions compared, mean KL {mean:.4f}", mean=one.mean)
            report(Loading("read", one.done, one.positions, note))

        return difference(readers, cut.ids, windows, report=progress)


def _looks_like_a_path(text: str) -> bool:
    path = Path(text)
    return not any(char.isspace() for char in text) and text != "-" and bool("/" in text or path.suffix[1:].isalpha())


def _print(models: "Sequence[LocalModel]", found: "Sequence[Difference]", cuts: "Sequence[Cut]") -> None:
    from engine.export import difference as results

    windows = found[0].windows
    print(
        _(
            "{size:,} bytes in windows of {length:,} tokens, one every {stride:,}",
            size=len(cuts[0].data),
            length=windows.length,
            stride=windows.stride,
        )
    )
    print()
    rows = []
    for letter, model, (one, side, cut) in zip("AB", models, results.sides(found, cuts)):
        fit = results.fit(one, side, cut)
        name = f"{model.facts.title} · {model.facts.precision}"
        rows.append((letter, name, f"{fit.tokens:,}", f"{fit.perplexity:.4f}", f"{fit.bits_per_byte:.4f}"))
    headers = ("", _("model"), _("tokens"), _("perplexity"), _("bits per byte"))
    print(plain.table(headers, rows, right=(2, 3, 4)))
    if len(found) > 1:
        return
    kl = results.spread(found[0])
    print()
    print(
        plain.table(
            (_("KL in nats"), _("mean"), _("median"), _("99th percentile"), _("largest"), _("same top token")),
            [
                (
                    "A ‖ B",
                    *(f"{value:.6f}" for value in (kl.mean, kl.median, kl.p99, kl.max)),
                    plain.percent(found[0].same_top),
                )
            ],
            right=(1, 2, 3, 4, 5),
        )
    )
    _print_worst(found[0], cuts[0])


def _print_worst(found: "Difference", cut: "Cut") -> None:
    from engine.export import difference as results

    worst = [(at, int(found.places[at])) for at in found.worst(results.WORST)]
    if not worst:
        return
    print()
    print(counted("{count} position where they differ most:", "{count} positions where they differ most:", len(worst)))
    assert found.kl is not None
    rows = []
    for at, place in worst:
        expected = []
        for one in found.expected:
            top = _word(cut.tokenizer, int(one.top[at]))
            expected += [_share(one.log_probability[at]), f"{top} {_share(one.top_log_probability[at])}"]
        before = _end_of(visible(cut.before(place)), BEFORE_CELLS)
        rows.append((place + cut.position, before, cut.label(place), f"{found.kl[at]:.4f}", *expected))
    headers = (_("position"), _("before"), _("token"), "KL", "A", _("A's first"), "B", _("B's first"))
    print(plain.table(headers, rows, right=(0, 1, 3, 4, 6)))


def _share(log_probability: float) -> str:
    return plain.percent(math.exp(log_probability))


def _end_of(text: str, width: int) -> str:
    """The end of a text, of at most `width` columns."""
    if plain.cells(text) <= width:
        return text
    while plain.cells(text) > width - 1:
        text = text[1:]
    return f"…{text}"
