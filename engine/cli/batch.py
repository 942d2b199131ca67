"""`batch`: prompts × configurations, from a file into a file."""

import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from engine.base.errors import InputError, MachineError
from engine.base.files import check_writable
from engine.base.language import _, counted
from engine.cli.options import Config, Options, own_of, remark_own, shares_options, takes
from engine.cli.output import ProgressBar, note, remark
from engine.cli.talk import InTemplate, with_options
from engine.export.parquet import check_parquet, to_parquet
from engine.generation.config import GenerationConfig, load_config
from engine.models.amateurs import amateur_for, draft_for
from engine.models.progress import Loading
from engine.shelf import Shelf


@shares_options
@takes(inside=InTemplate)
def batch(
    jobs: Annotated[
        Path,
        typer.Argument(help='A file with one job a line: {"prompt": "…", "config": "greedy"} or {"messages": […]}.'),
    ],
    out: Annotated[
        Path, typer.Option(help="Where results go: .jsonl, or .parquet. What is there already is not done again.")
    ],
    concurrency: Annotated[int, typer.Option(help="Texts that are written at once.")] = 8,
    attempts: Annotated[int, typer.Option(help="How often a job is tried.")] = 5,
    config: Config = None,
    *,
    inside: InTemplate,
    options: Options,
) -> None:
    """Do every job of JOBS, under --config or its own. Stopped or killed, the same command goes on where it was."""
    from engine import batch as work

    if not 1 <= concurrency <= 512:
        raise InputError(_("concurrency is {concurrency}; allowed: from 1 to 512", concurrency=concurrency))
    if not 1 <= attempts <= 100:
        raise InputError(_("attempts is {attempts}; allowed: from 1 to 100", attempts=attempts))
    typed = inside.options
    work.read_jobs(jobs, None if config is None else load_config(config))
    check_writable(out, read=[jobs])
    lines = out
    if out.suffix == ".parquet":
        check_parquet()
        lines = out.with_name(out.name + ".jsonl")  # which can be gone on with, line by line
        check_writable(lines, read=[jobs])
    base = None if config is None else load_config(config)
    (model,), *_seconds = options.load_lanes([replace(base or GenerationConfig(), amateur=None, draft=None)])
    shelf = Shelf(options.name, **options.how)
    if config is not None:
        base = replace(load_config(config, own=own_of(model, config)), model=None, precision=None)
    asked = work.read_jobs(jobs, base, model.own)
    if inside.wanted:
        asked = [
            replace(job, conversation=with_options(inside.put(work.talked(job)), typed, model.tokenizer))
            for job in asked
        ]
    remark_own([model] * len(asked), [job.config for job in asked if not job.config.names_model])
    remark(model.capabilities.in_turn(min(concurrency, len(asked))))
    stopped = threading.Event()
    before = signal.signal(signal.SIGINT, lambda number, frame: stopped.set())
    progress = None
    try:
        with ProgressBar() as report:

            def bring(config: GenerationConfig) -> work.Brought:
                """The model of some jobs, and their second ones; those of the jobs before go."""
                shelf.let_go([config])
                shelf.own = model
                (found,) = shelf.bring([config], report=report)
                amateur, draft = amateur_for(found, shelf.amateur(config)), draft_for(found, shelf.draft(config))
                return found, {"amateurs": amateur, "drafts": draft}

            for progress in work.run(
                model, asked, lines, concurrency=concurrency, attempts=attempts, stopped=stopped.is_set, bring=bring
            ):
                left = progress.seconds_left or 0
                report(Loading("read", progress.done, progress.total, _("jobs, {seconds:.0f} s left", seconds=left)))
    finally:
        signal.signal(signal.SIGINT, before)
        shelf.let_go([])
        model.close()
    if stopped.is_set():
        note(_("stopped; the same command goes on where it was"))
        raise typer.Exit(130)
    if lines != out:
        to_parquet(lines, out)
    failed = progress.failed if progress is not None else 0
    print(out)
    if failed:
        raise MachineError(
            counted(
                "{count} job failed: see its error in the file",
                "{count} jobs failed: see their errors in the file",
                failed,
            )
        )
