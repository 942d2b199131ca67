"""`tokens`, `lengths`, `bench`: what a text costs."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine import export, plain
from engine.cli.options import Chat, Json, Options, shares_options
from engine.cli.output import ProgressBar
from engine.cli.text import lines_of, require, start_of, text_of
from engine.errors import InputError
from engine.events import Loading
from engine.prompts import EXAMPLE_PROMPTS
from engine.timing import TIMING_PROMPT, Sweep, line_fit, parse_lengths, r_squared, rows, speedup, time_runs

if TYPE_CHECKING:
    pass


@shares_options
def tokens(
    text: Annotated[str, typer.Argument(help="The text; - reads standard input.")],
    chat: Chat = False,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """Cut TEXT into tokens, one row each."""
    tokenizer = options.tokenizer()
    found = start_of(tokenizer, text_of(text), chat).prompt
    if json:
        print(export.to_json([asdict(token) for token in found]))
    else:
        print(
            plain.table(
                ("position", "id", "piece", "bytes"),
                [(t.position, t.id, t.label, f"{t.start}–{t.end}") for t in found],
                right=(0, 1),
            )
        )


@shares_options
def lengths(
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Prompts, or files with one a line; four examples when none is given.")
    ] = None,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """Count the tokens of prompts: table and bar chart."""
    tokenizer = options.tokenizer()
    counted: list[dict[str, Any]] = [
        {
            "prompt": text,
            "characters": len(text),
            "bytes": len(text.encode("utf-8", errors="replace")),
            "words": (words := len(text.split())),
            "tokens": (tokens := len(tokenizer.encode_ids(text))),
            "tokens_per_word": tokens / words if words else None,
        }
        for text in (line for argument in prompts or EXAMPLE_PROMPTS for line in lines_of(argument))
    ]
    if json:
        print(export.to_json(counted))
        return
    most = max(row["tokens"] for row in counted)
    shown = [
        (row["tokens"], plain.bar(row["tokens"], most, 24), row["characters"], row["words"], row["prompt"])
        for row in counted
    ]
    print(plain.table(("tokens", "", "characters", "words", "prompt"), shown, right=(0, 2, 3)))


@shares_options
def bench(
    prompt: Annotated[str, typer.Option(help="What to continue.")] = TIMING_PROMPT,
    lengths: Annotated[str, typer.Option(help="Output lengths, separated by commas.")] = "10,20,40,60",
    temperature: Annotated[float, typer.Option(help="As in the seed; it does not change the speed.")] = 0.9,
    repeats: Annotated[int, typer.Option(help="Runs of each length.")] = 5,
    warmup: Annotated[int, typer.Option(help="Runs before, that are not counted.")] = 1,
    cache: Annotated[bool, typer.Option(help="Keep keys and values, or read everything again.")] = True,
    csv: Annotated[Path | None, typer.Option(help="Also write every run to this file.")] = None,
    against: Annotated[str | None, typer.Option(help="transformers: the same sweep through its generate().")] = None,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """Time generation at several output lengths."""
    sweep = Sweep(prompt, parse_lengths(lengths), temperature, repeats, warmup, cache)
    require(prompt)
    if against not in (None, "transformers"):
        raise InputError(f"against is {against!r}; allowed: transformers")
    if against is not None and not cache:
        raise InputError("transformers runs with its cache; leave out --no-cache or --against")
    model = options.load()
    model.network.prepare()
    reference = None
    if against is not None:
        from engine.loading import load_reference

        reference = load_reference(model.facts.name, cache_dir=options.cache_dir)
    runs = []
    with ProgressBar() as report:
        for run in time_runs(model, sweep, reference=reference):
            runs.append(run)
            report(
                Loading(
                    "read",
                    len(runs),
                    sweep.total * (1 if reference is None else 2),
                    f"{run.max_new_tokens} tokens: {run.seconds:.3f} s",
                )
            )
    table = rows(runs)
    if csv is not None:
        columns = [{"by": r.by, "max_new_tokens": r.max_new_tokens, "seconds": r.seconds} for r in runs]
        export.write_csv(csv, columns)
    peers = rows(runs, by="transformers")
    ratio = speedup(runs, "transformers") if peers else None
    points = [(float(run.max_new_tokens), run.seconds) for run in runs if run.by == "logitlab"]
    fit = {**dict(zip(("first_seconds", "per_token_seconds"), line_fit(points))), "r_squared": r_squared(points)}
    if json:
        import importlib.metadata

        peer = {"name": against, "version": importlib.metadata.version("transformers")} if peers else None
        print(
            export.to_json(
                {
                    "model": asdict(model.facts),
                    "cache": cache,
                    "rows": [row.to_dict() for row in table],
                    "latency": [row.latency() for row in table],
                    "fit": fit if len(table) > 1 else None,
                    "against": peer and peer | {"rows": [row.to_dict() for row in peers]},
                    "speedup": ratio and {"median": ratio},
                }
            )
        )
        return
    most = max(row.median for row in (*table, *peers))
    shown = [
        (
            by,
            row.max_new_tokens,
            f"{row.median:.3f}",
            f"{min(row.seconds):.3f}",
            f"{max(row.seconds):.3f}",
            f"{row.tokens_per_second:.1f}",
            plain.bar(row.median, most, 24),
        )
        for by, measured in (("logitlab", table), ("transformers", peers))
        for row in measured
    ]
    print(plain.table(("by", "tokens", "median s", "min s", "max s", "tokens/s", ""), shown, right=(1, 2, 3, 4, 5)))
    if len(table) > 1:
        per_token = fit["per_token_seconds"] * 1e3
        bends = "" if cache else "; without a cache it bends"
        print(f"a line through all runs: {fit['first_seconds']:.3f} s, then {per_token:.1f} ms a token", end=" ")
        print(f"(R² {fit['r_squared']:.4f}){bends}")
    if ratio is not None:
        print(f"{ratio:.1f} times as fast as transformers' generate() in float32 (median of all pairs)")
