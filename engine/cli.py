"""The command line. Every command calls what the screen calls; `--json` is the dataclasses serialised."""

import functools
import inspect
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine import catalog, export, plain
from engine.config import PRESETS, GenerationConfig, config_from_dict, load_config
from engine.errors import InputError, LogitlabError
from engine.events import Event, Finished, Loading, Start, Stepped
from engine.timing import TIMING_PROMPT, Sweep, parse_lengths, rows, speedup, time_runs
from engine.tokens import Tokenizer

if TYPE_CHECKING:
    from engine.loading import Model

DEFAULT_PROMPT = "The sky above the city looked calm, but"
EXAMPLE_PROMPTS = (
    DEFAULT_PROMPT,
    "Elixir is pleasant for interactive experiments because",
    "A robot entered the library and asked",
    "Write a short poem about rain and memory.",
)
MAX_TEXT_BYTES = 16_000_000

app = typer.Typer(
    name="logitlab",
    help="See how a language model turns a prompt into text, one token at a time. Without a command: the lab.",
    add_completion=True,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(help="Which models there are, and where they lie.", no_args_is_help=True)
app.add_typer(models_app, name="models")


@dataclass(frozen=True)
class Options:
    """The options every command shares."""

    model: str | None
    precision: str
    device: str
    threads: int | None
    offline: bool
    cache_dir: Path | None
    lang: str | None

    def load(self) -> "Model":
        """Load the model, with a progress bar on a terminal."""
        from engine.loading import load_model

        with _progress() as report:
            return load_model(
                self.model,
                precision=self.precision,
                device=self.device,
                threads=self.threads,
                offline=self.offline,
                cache_dir=self.cache_dir,
                report=report,
            )


_SHARED = inspect.signature(
    lambda model=None, precision="auto", device="auto", threads=None, offline=False, cache_dir=None, lang=None: None
).replace(
    parameters=[
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in (
            ("model", None, Annotated[str | None, typer.Option(help="A name, a hub id, a folder or a .gguf file.")]),
            ("precision", "auto", Annotated[str, typer.Option(help="auto, native, bfloat16 or float32.")]),
            ("device", "auto", Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]),
            ("threads", None, Annotated[int | None, typer.Option(help="Processor threads; all when not given.")]),
            ("offline", False, Annotated[bool, typer.Option("--offline", help="Never use the network.")]),
            ("cache_dir", None, Annotated[Path | None, typer.Option(help="Where models are kept.")]),
            ("lang", None, Annotated[str | None, typer.Option(help="en or ja.")]),
        )
    ]
)


@dataclass(frozen=True)
class Settings:
    """The options that make a configuration."""

    given: dict[str, Any]
    ban: Sequence[str]
    logit_bias: Sequence[str]
    base: str | None

    def config(self) -> GenerationConfig:
        """The configuration as far as it needs no tokenizer; invalid values raise `InputError`."""
        strategy = self.given["strategy"]
        base = load_config(self.base) if self.base else PRESETS["greedy"] if strategy is None else GenerationConfig()
        return config_from_dict({name: value for name, value in self.given.items() if value not in (None, [])}, base)

    def biased(self, config: GenerationConfig, tokenizer: Tokenizer) -> GenerationConfig:
        """The configuration with bans and biases, whose tokens are given by text or id."""
        for text in self.ban:
            config = config.biased(_single(tokenizer, text), -math.inf)
        for pair in self.logit_bias:
            text, equals, number = pair.rpartition("=")
            try:
                bias = float(number)
            except ValueError:
                equals = ""
            if not equals or not math.isfinite(bias):
                raise InputError(f"logit-bias is {pair!r}; allowed: TOKEN=NUMBER, such as ' the=-2.5' or 2240=3")
            config = config.biased(_single(tokenizer, text), bias)
        return config


def _single(tokenizer: Tokenizer, text: str) -> int:
    """The token that a text or a number names."""
    if text.isdecimal() and int(text) < tokenizer.vocabulary_size:
        return int(text)
    ids = tokenizer.encode_ids(text, template=False) if text else []
    if len(ids) != 1:
        raise InputError(f"{text!r} is {len(ids)} tokens, not one; give one token's text or its id")
    return ids[0]


_SETTINGS = inspect.Signature(
    [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in (
            ("config", None, Annotated[str | None, typer.Option(help="greedy, creative, sampled, or a .toml file.")]),
            ("strategy", None, Annotated[str | None, typer.Option(help="greedy, sample or contrastive.")]),
            ("max_new_tokens", None, Annotated[int | None, typer.Option(help="Tokens to generate at most.")]),
            ("temperature", None, Annotated[float | None, typer.Option(help="Below 1 sharpens, above 1 flattens.")]),
            ("top_k", None, Annotated[int | None, typer.Option(help="Keep the k most probable tokens.")]),
            ("top_p", None, Annotated[float | None, typer.Option(help="Keep the most probable up to this mass.")]),
            ("min_p", None, Annotated[float | None, typer.Option(help="Drop tokens below this part of the top one.")]),
            ("typical_p", None, Annotated[float | None, typer.Option(help="Keep typical tokens up to this mass.")]),
            ("alpha", None, Annotated[float | None, typer.Option(help="Contrastive search: weight of the penalty.")]),
            (
                "repetition_penalty",
                None,
                Annotated[float | None, typer.Option(help="Above 1 discourages repetition.")],
            ),
            ("logit_bias", None, Annotated[list[str] | None, typer.Option(help="TOKEN=NUMBER, added; repeatable.")]),
            ("ban", None, Annotated[list[str] | None, typer.Option(help="A token that never comes; repeatable.")]),
            ("seed", None, Annotated[int | None, typer.Option(help="Seed of the random draws.")]),
            ("stop", None, Annotated[list[str] | None, typer.Option(help="End once this is written; repeatable.")]),
            ("ignore_eos", False, Annotated[bool, typer.Option("--ignore-eos", help="Go on after end-of-text.")]),
        )
    ]
)


def takes_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a configuration to a command that takes `settings: Settings`."""

    def settings(values: dict[str, Any]) -> Settings:
        own = {name: values.pop(name) for name in _SETTINGS.parameters}
        base, bans, biases = own.pop("config"), own.pop("ban"), own.pop("logit_bias")
        own["ignore_eos"] = own["ignore_eos"] or None
        return Settings(own, bans or (), biases or (), base)

    return _with_more(command, "settings", _SETTINGS, settings)


def shares_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a command that takes `options: Options`."""

    def options(values: dict[str, Any]) -> Options:
        shared = {name: values.pop(name) for name in _SHARED.parameters}
        if shared["lang"] not in (None, "en", "ja"):
            raise InputError(f"lang is {shared['lang']!r}; allowed: en, ja")
        return Options(**shared)

    return _with_more(command, "options", _SHARED, options)


def _with_more(
    command: Callable[..., Any], name: str, added: inspect.Signature, gather: Callable[[dict[str, Any]], Any]
) -> Callable[..., Any]:
    """A command whose parameter `name` is gathered from options of its own."""
    own = [p for p in inspect.signature(command).parameters.values() if p.name != name]
    parameters = [*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *added.parameters.values()]

    @functools.wraps(command)
    def wrapper(**values: Any) -> Any:
        gathered = gather(values)
        return command(**values, **{name: gathered})

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Chat = Annotated[bool, typer.Option("--chat", help="Wrap the text in the model's chat template.")]


@app.callback(invoke_without_command=True)
@shares_options
def lab(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Option(help="Open with this prompt.")] = None,
    a: Annotated[str, typer.Option(help="Configuration of lane A: a preset or a .toml file.")] = "greedy",
    b: Annotated[str, typer.Option(help="Configuration of lane B.")] = "creative",
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    *,
    options: Options,
) -> None:
    if context.invoked_subcommand is not None:
        return
    if version:
        from importlib.metadata import version as installed

        print(f"logitlab {installed('logitlab')}")
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError("the lab needs a terminal; for scripts use logitlab generate, see logitlab --help")
    if os.environ.get("TERM", "") in ("dumb", ""):
        raise InputError("this terminal (TERM=dumb) cannot show the lab; use logitlab generate, see logitlab --help")
    if options.model is not None:
        catalog.find(options.model, options.cache_dir)
    configs = [load_config(a), load_config(b)]
    from tui.app import LogitlabApp

    lab_app = LogitlabApp(
        prompt=DEFAULT_PROMPT if prompt is None else prompt,
        model=options.model,
        precision=options.precision,
        device=options.device,
        threads=options.threads,
        offline=options.offline,
        cache_dir=options.cache_dir,
        configs=configs,
    )
    lab_app.run()
    raise typer.Exit(lab_app.return_code or 0)


@app.command()
@shares_options
def tokens(
    text: Annotated[str, typer.Argument(help="The text; - reads standard input.")],
    chat: Chat = False,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """Cut TEXT into tokens, one row each."""
    from engine.model_files import load_tokenizer

    entry = catalog.find(options.model or catalog.default_name(), options.cache_dir)
    tokenizer = load_tokenizer(entry, _fetched(entry, options), options.cache_dir)
    found = _start(tokenizer, _text(text), chat).prompt
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


@app.command()
@shares_options
@takes_settings
def generate(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.")],
    candidates: Annotated[int, typer.Option(help="Candidates a step to report in JSON, stage by stage.")] = 0,
    chat: Chat = False,
    json: Json = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One event a line, as they happen.")] = False,
    *,
    settings: Settings,
    options: Options,
) -> None:
    """Continue PROMPT, streaming to the terminal."""
    config = settings.config()
    if candidates < 0 or candidates > 100_000:
        raise InputError(f"candidates is {candidates}; allowed: from 0 to 100,000")
    text = _text(prompt)
    _require(text)
    model = options.load()
    config = settings.biased(config, model.tokenizer)
    start = _start(model.tokenizer, text, chat)
    events = _events(model, start, [config], max(candidates, 1))
    if json or jsonl:
        _print_run(model, text, events, jsonl=jsonl, candidates=candidates > 0)
        return
    result = export.RunResult()
    for event in events:
        result.add(event)
        if isinstance(event, Stepped):
            sys.stdout.write(plain.safe(event.token.text))
            sys.stdout.flush()
    print()
    lane = result.lanes[0]
    _note(f"{_count(len(lane.steps))} · {_speed(result, 0)} · {_reason(lane.finish_reason)}")


@app.command("next")
@shares_options
@takes_settings
def next_token(
    text: Annotated[str, typer.Argument(help="The text; - reads standard input.")],
    top: Annotated[int, typer.Option(help="How many candidates to show.")] = 20,
    token: Annotated[list[str] | None, typer.Option(help="Also this text's rank and probability; repeatable.")] = None,
    chat: Chat = False,
    json: Json = False,
    *,
    settings: Settings,
    options: Options,
) -> None:
    """What may come after TEXT: every candidate, stage by stage; and any token, however unlikely."""
    config = settings.config()
    if not 1 <= top <= 1_000_000:
        raise InputError(f"top is {top}; allowed: from 1 to 1,000,000")
    text = _text(text)
    _require(text)
    model = options.load()
    config = settings.biased(config, model.tokenizer)

    from engine.inspection import Inspection
    from engine.loop import logits_after
    from engine.score import continuation

    prompt = _start(model.tokenizer, text, chat).prompt
    _check_length(len(prompt), model)
    ids = [one.id for one in prompt]
    inspection = Inspection(logits_after(model.network, ids), model.tokenizer, ids, config)
    shown = inspection.at(0, top)
    texts = {wanted: model.tokenizer.encode_ids(wanted, template=False) for wanted in token or () if wanted}
    asked = [continuation(model.network, model.tokenizer, ids, wanted, found) for wanted, found in texts.items()]
    if json:
        print(
            export.to_json(
                {
                    "model": asdict(model.facts),
                    "prompt": {"text": text, "tokens": [asdict(one) for one in prompt]},
                    "config": config.to_dict(),
                    "entropy_bits": inspection.entropy_bits,
                    "final_entropy_bits": inspection.final_entropy_bits,
                    "kept": inspection.kept,
                    "cut_mass": inspection.cut_mass,
                    "candidates": [asdict(candidate) for candidate in shown],
                    "tokens": [asdict(one) for one in asked],
                }
            )
        )
        return
    most = max(candidate.raw_probability for candidate in shown)
    print(
        plain.table(
            ("rank", "id", "token", "raw", "", "penalty", "temperature", "final", ""),
            [
                (
                    c.rank,
                    c.id,
                    c.text,
                    _percent(c.raw_probability),
                    plain.bar(c.raw_probability, most, 16),
                    _percent(c.penalised_probability),
                    _percent(c.tempered_probability),
                    _percent(c.probability),
                    f"✂ {c.cut_by}" if c.cut_by else plain.bar(c.probability, most, 16),
                )
                for c in shown
            ],
            right=(0, 1, 3, 5, 6, 7),
        )
    )
    print(
        f"entropy {inspection.entropy_bits:.2f} bits, after all stages {inspection.final_entropy_bits:.2f} · "
        f"{inspection.kept:,} of {len(inspection):,} tokens left · {inspection.cut_mass:.1%} of the mass cut"
    )
    for one in asked:
        print()
        rows = [(t.token, t.id, f"{t.rank:,}", _percent(t.probability)) for t in one.tokens]
        print(plain.table((f"“{plain.one_line(one.text)}”", "id", "rank", "probability"), rows, right=(1, 2, 3)))
        if len(rows) > 1:
            print(f"as a whole: {_percent(one.probability)}, {one.bits:.2f} bits")


@app.command()
@shares_options
def score(
    text: Annotated[str, typer.Argument(help="A text or a file; - reads standard input.")],
    chat: Chat = False,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """How well the model expected each token of TEXT: surprisal, rank, and the perplexity of the whole."""
    from engine import score as scoring

    text = _text_or_file(text)
    if not text:
        raise InputError("the text is empty; type at least one character")
    model = options.load()
    prompt = _start(model.tokenizer, text, chat).prompt
    scores = []
    with _progress() as report:
        for one in scoring.score(model.network, prompt):
            scores.append(one)
            report(Loading("read", len(scores), len(prompt), "tokens scored"))
    total = scoring.total(scores)
    if json:
        print(
            export.to_json(
                {
                    "model": asdict(model.facts),
                    "tokens": [scoring.to_dict(one) for one in scores],
                    "bits": total.bits,
                    "mean_bits": total.mean_bits,
                    "perplexity": total.perplexity,
                }
            )
        )
        return
    most = max((one.surprisal_bits or 0.0 for one in scores), default=0.0)
    rows = [
        (
            one.token.position,
            one.token.id,
            one.token.label,
            "–" if one.surprisal_bits is None else f"{one.surprisal_bits:.2f}",
            plain.bar(one.surprisal_bits or 0.0, most, 24),
            "–" if one.rank is None else f"{one.rank:,}",
            "–" if one.probability is None else _percent(one.probability),
        )
        for one in scores
    ]
    print(plain.table(("position", "id", "token", "bits", "", "rank", "probability"), rows, right=(0, 1, 3, 5, 6)))
    if total.perplexity is not None:
        print(f"{total.bits:.1f} bits in {total.tokens:,} scored tokens: perplexity {total.perplexity:.2f}")


@app.command()
@shares_options
def compare(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.")],
    a: Annotated[str, typer.Option(help="Configuration of lane A.")] = "greedy",
    b: Annotated[str, typer.Option(help="Configuration of lane B.")] = "creative",
    chat: Chat = False,
    json: Json = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One event a line, as they happen.")] = False,
    *,
    options: Options,
) -> None:
    """Continue PROMPT under two configurations at once, side by side."""
    configs = [load_config(a), load_config(b)]
    text = _text(prompt)
    _require(text)
    model = options.load()
    events = _events(model, _start(model.tokenizer, text, chat), configs, 1)
    if json or jsonl:
        _print_run(model, text, events, jsonl=jsonl)
        return
    result = export.RunResult()
    with _live() as show:
        for event in events:
            result.add(event)
            if isinstance(event, (Stepped, Finished)):
                show(result)


@app.command()
@shares_options
def lengths(
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts; four examples when none is given.")] = None,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """Count the tokens of prompts: table and bar chart."""
    from engine.model_files import load_tokenizer

    entry = catalog.find(options.model or catalog.default_name(), options.cache_dir)
    tokenizer = load_tokenizer(entry, _fetched(entry, options), options.cache_dir)
    counted: list[dict[str, Any]] = [
        {
            "prompt": text,
            "characters": len(text),
            "bytes": len(text.encode("utf-8", errors="replace")),
            "words": len(text.split()),
            "tokens": len(tokenizer.encode_ids(text)),
        }
        for text in prompts or EXAMPLE_PROMPTS
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


@app.command()
@shares_options
def bench(
    prompt: Annotated[str, typer.Option(help="What to continue.")] = TIMING_PROMPT,
    lengths: Annotated[str, typer.Option(help="Output lengths, separated by commas.")] = "10,20,40,60",
    temperature: Annotated[float, typer.Option(help="As in the seed; it does not change the speed.")] = 0.9,
    repeats: Annotated[int, typer.Option(help="Runs of each length.")] = 5,
    csv: Annotated[Path | None, typer.Option(help="Also write every run to this file.")] = None,
    against: Annotated[str | None, typer.Option(help="transformers: the same sweep through its generate().")] = None,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """Time generation at several output lengths."""
    sweep = Sweep(prompt, parse_lengths(lengths), temperature, repeats)
    _require(prompt)
    if against not in (None, "transformers"):
        raise InputError(f"against is {against!r}; allowed: transformers")
    model = options.load()
    model.network.prepare()
    reference = None
    if against is not None:
        from engine.loading import load_reference

        reference = load_reference(model.facts.name, cache_dir=options.cache_dir)
    runs = []
    with _progress() as report:
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
    if json:
        import importlib.metadata

        peer = {"name": against, "version": importlib.metadata.version("transformers")} if peers else None
        print(
            export.to_json(
                {
                    "model": asdict(model.facts),
                    "rows": [row.to_dict() for row in table],
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
    if ratio is not None:
        print(f"{ratio:.1f} times as fast as transformers' generate() in float32 (median of all pairs)")


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
    shown = [(e.name, "here" if e.cached else "to fetch", _megabytes(e.size), e.license, e.source) for e in entries]
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
    path = _fetched(entry, options)
    load_tokenizer(entry, path, options.cache_dir)
    print(path)


@models_app.command("remove")
@shares_options
def models_remove(name: str, *, options: Options) -> None:
    """Delete NAME from the cache."""
    print(f"removed {name}, {_megabytes(catalog.remove(name, options.cache_dir))} freed")


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
    with _progress() as report:
        size = verify(entry, report)
    print(f"{name} is whole: {_megabytes(size)}, SHA-256 {catalog.EMBEDDED_WHEEL.gguf_sha256}")


def main() -> None:
    """Entry point: run a command; any error becomes one line on stderr and an exit code."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        sys.exit(app(arguments, standalone_mode=False, prog_name="logitlab") or 0)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if debug:
            raise
        message, code = _explain(error)
        print(f"logitlab: {plain.one_line(message)}", file=sys.stderr)
        sys.exit(code)


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, LogitlabError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):  # Typer's own, for what was typed
        return f"{error.format_message().rstrip('.')}; see logitlab --help", 2
    if type(error).__name__ == "Abort":
        return "stopped", 130
    return f"unexpected {type(error).__name__}: {error}; run again with --debug to see where", 1


def _text(argument: str) -> str:
    """An argument, or standard input for `-`."""
    if argument != "-":
        return argument
    data = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise InputError(f"standard input holds more than {MAX_TEXT_BYTES:,} bytes; give a shorter text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 (byte {error.start + 1:,}); convert it first") from error


def _text_or_file(argument: str) -> str:
    """A file's text if there is one of that name, else the argument, or standard input for `-`."""
    try:
        path = Path(argument)
        if argument == "-" or not path.is_file():
            return _text(argument)
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_TEXT_BYTES else b""
    except (OSError, ValueError):  # a text too long to be a name, or a file that cannot be read
        return _text(argument)
    if size > MAX_TEXT_BYTES:
        raise InputError(f"{argument} has {size:,} bytes; at most {MAX_TEXT_BYTES:,} can be read")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{argument} is not UTF-8 (byte {error.start + 1:,}); convert it first") from error


def _start(tokenizer: Tokenizer, text: str, chat: bool) -> Start:
    """A lane's beginning: the text as it is, or in the model's chat template."""
    return Start(tuple(tokenizer.encode_chat(text) if chat else tokenizer.encode(text)))


def _check_length(tokens: int, model: "Model") -> None:
    from engine.loop import check_context

    check_context(tokens, GenerationConfig(max_new_tokens=1), model.facts.context_length)


def _percent(probability: float) -> str:
    """`31.2 %`; very small ones as a power of ten."""
    return f"{probability:.1%}" if probability >= 0.0005 or probability == 0 else f"{probability:.1e}"


def _require(prompt: str) -> None:
    if not prompt:
        raise InputError("the prompt is empty; type at least one character")


def _events(model: "Model", prompt: Start, configs: Sequence[GenerationConfig], candidates: int) -> Iterator[Event]:
    from engine.loop import generate as run

    return run(model.network, model.tokenizer, [prompt], configs, candidates=candidates)


def _print_run(model: "Model", prompt: str, events: Iterator[Event], *, jsonl: bool, candidates: bool = False) -> None:
    result = export.RunResult()
    for event in events:
        result.add(event)
        if jsonl:
            print(export.to_json(export.event_dict(event), indent=None), flush=True)
    if not jsonl:
        print(
            export.to_json(
                {
                    "model": asdict(model.facts),
                    "prompt": {"text": prompt, "tokens": [asdict(token) for token in result.prompts[0]]},
                    "lanes": [result.lane_dict(lane, candidates=candidates) for lane in range(len(result.lanes))],
                }
            )
        )


def _fetched(entry: catalog.Entry, options: Options) -> Path:
    from engine.fetch import fetch

    with _progress() as report:
        return fetch(entry, report, cache_dir=options.cache_dir, offline=options.offline)


class _progress:
    """A progress bar on stderr for what takes over half a second; nothing where stderr is no terminal."""

    def __enter__(self) -> Callable[[Loading], None]:
        self._bar: Any = None
        self._began = time.monotonic()
        return self._report if sys.stderr.isatty() else lambda progress: None

    def _report(self, progress: Loading) -> None:
        if self._bar is None:
            if time.monotonic() - self._began < 0.3:
                return
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("")
        title = f"{progress.stage} {plain.one_line(progress.note)}"
        self._bar.update(self._task, description=title, completed=progress.done, total=progress.total or None)

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()


class _live:
    """Two lanes side by side: redrawn on a terminal, printed once at the end elsewhere."""

    def __enter__(self) -> Callable[[export.RunResult], None]:
        from rich.console import Console
        from rich.live import Live

        self._result: export.RunResult | None = None
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=20, vertical_overflow="visible")
        if self._console.is_terminal:
            self._live.start()
        return self._show

    def _show(self, result: export.RunResult) -> None:
        self._result = result
        if self._console.is_terminal:
            self._live.update(self._columns(result))

    def _columns(self, result: export.RunResult) -> Any:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(expand=True)
        panels = []
        for index, lane in enumerate(result.lanes):
            grid.add_column(ratio=1)
            title = f"{'ABCDEFGH'[index]} · {lane.config.summary} · {len(lane.steps)}/{lane.config.max_new_tokens}"
            foot = f"{_speed(result, index)} · {_reason(lane.finish_reason)}" if lane.finish_reason else "…"
            panels.append(Panel(Text(plain.safe(lane.text).strip()), title=Text(title), subtitle=Text(foot)))
        grid.add_row(*panels)
        return grid

    def __exit__(self, *exception: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
        elif self._result is not None:
            self._console.print(self._columns(self._result))


def _speed(result: export.RunResult, lane: int) -> str:
    return f"{export.timing(result.prefill_seconds, result.lanes[lane].steps)['tokens_per_second']:.0f} tokens/s"


def _reason(reason: str | None) -> str:
    return (reason or "running").replace("_", " ")


def _count(tokens: int) -> str:
    return f"{tokens} token{'' if tokens == 1 else 's'}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size else "?"


def _note(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr)
