"""`generate`, `compare`, `next`: what a model makes of a text, or of a conversation."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from engine.base import plain
from engine.base.errors import InputError
from engine.base.files import check_writable
from engine.base.language import _
from engine.cli.options import (
    Config,
    Json,
    JsonLines,
    LaneA,
    LaneB,
    Options,
    Settings,
    lane_configs,
    remark_own,
    remark_vocabularies,
    shares_options,
    takes,
    takes_settings,
)
from engine.cli.output import (
    SideBySide,
    beam_lines,
    count,
    draft_line,
    events_of,
    note,
    print_json,
    print_run,
    remark,
    speed,
)
from engine.cli.talk import Talk, save_answer
from engine.generation.config import GenerationConfig
from engine.generation.events import STAGE_NAMES, Finished, Start, Stepped, ended
from engine.generation.result import RunResult
from engine.generation.step_view import StepView
from engine.models.model import Model

if TYPE_CHECKING:
    from engine.models.continuation import Continuation
    from engine.models.local import LocalModel


@shares_options
@takes_settings
@takes(talk=Talk)
def generate(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; - reads standard input.")] = None,
    candidates: Annotated[int, typer.Option(help="Candidates a step to report in JSON, stage by stage.")] = 0,
    write_messages: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the conversation with its answer: JSON, or a line more of .jsonl."),
    ] = None,
    json: Json = False,
    jsonl: JsonLines = False,
    config: Config = None,
    *,
    talk: Talk,
    settings: Settings,
    options: Options,
) -> None:
    """Continue PROMPT, streaming to the terminal."""
    known = settings.config(config)  # what cannot be used is said before the model is loaded
    if candidates < 0 or candidates > 100_000:
        raise InputError(_("candidates is {candidates}; allowed: from 0 to 100,000", candidates=candidates))
    asked = talk.read(prompt, "PROMPT")
    if write_messages is not None:
        if asked.conversation is None:
            raise InputError(_("--write-messages is for conversations; give --chat or --messages FILE"))
        check_writable(write_messages)
    (model,), amateurs, drafts = options.load_lanes([known])
    chosen = settings.config_for(config, model)
    (begun,) = asked.begin_all([model], [chosen.max_new_tokens])
    events = events_of([model], [begun.start], [chosen], max(candidates, 1), amateurs, drafts)
    if json or jsonl:
        result = print_run([model], [begun], events, jsonl=jsonl, candidates=candidates > 0)
        save_answer(write_messages, model, begun, result.lanes[0])
        return
    result = RunResult()
    for event in events:
        result.add(event)
        if isinstance(event, Stepped):
            sys.stdout.write(plain.safe(event.token.text))
            sys.stdout.flush()
    print()
    lane = result.lanes[0]
    save_answer(write_messages, model, begun, lane)
    note(f"{count(len(lane.steps))} · {speed(result, 0)} · {ended(lane.finish_reason)}")
    remark(draft_line(lane))
    for line in beam_lines(lane):
        note(line)


@shares_options
@takes_settings
@takes(talk=Talk)
def compare(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; - reads standard input.")] = None,
    a: LaneA = "greedy",
    b: LaneB = "creative",
    json: Json = False,
    jsonl: JsonLines = False,
    *,
    talk: Talk,
    settings: Settings,
    options: Options,
) -> None:
    """Continue PROMPT under two configurations at once, side by side. Settings given as options are for both.

    A configuration may name a model: greedy,model=gpt2,precision=float32.
    """
    known = lane_configs(a, b, settings)
    asked = talk.read(prompt, "PROMPT")
    models, amateurs, drafts = options.load_lanes(known)
    configs = [settings.biased(*lane) for lane in zip(lane_configs(a, b, settings, models), models)]
    remark_own(models, configs)
    begun = asked.begin_all(models, [config.max_new_tokens for config in configs])
    remark_vocabularies(models)
    events = events_of(models, [one.start for one in begun], configs, 1, amateurs, drafts)
    if json or jsonl:
        print_run(models, begun, events, jsonl=jsonl)
        return
    result = RunResult()
    with SideBySide() as show:
        for event in events:
            result.add(event)
            if isinstance(event, (Stepped, Finished)):
                show(result)


@shares_options
@takes_settings
@takes(talk=Talk)
def next_token(
    text: Annotated[str | None, typer.Argument(help="The text; - reads standard input.")] = None,
    top: Annotated[int, typer.Option(help="How many candidates to show.")] = 20,
    token: Annotated[list[str] | None, typer.Option(help="Also this text's rank and probability; repeatable.")] = None,
    json: Json = False,
    config: Config = None,
    *,
    talk: Talk,
    settings: Settings,
    options: Options,
) -> None:
    """What may come after TEXT: every candidate, stage by stage; and any token, however unlikely."""
    known = settings.config(config)  # what cannot be used is said before the model is loaded
    if not 1 <= top <= 1_000_000:
        raise InputError(_("top is {top}; allowed: from 1 to 1,000,000", top=top))
    if "" in (token or ()):
        raise InputError(_("--token is empty: give it the text that could follow"))
    asked_for = talk.read(text, "TEXT")
    (model,), (amateur,), _drafts = options.load_lanes([known])
    chosen = settings.config_for(config, model)
    (begun,) = asked_for.begin_all([model], [0])
    inspection, asked = _inspected(model, amateur, begun.start, chosen, token or ())
    shown = inspection.at(0, top)
    if json:
        print_json(
            {
                "model": asdict(model.facts),
                "prompt": begun.to_dict(begun.start.prompt),
                "config": chosen.to_dict(),
                "entropy_bits": inspection.entropy_bits,
                "final_entropy_bits": inspection.final_entropy_bits,
                "kept": inspection.kept,
                "cut_mass": inspection.cut_mass,
                "candidates": [asdict(candidate) for candidate in shown],
                "tokens": [asdict(one) for one in asked],
            }
        )
        return
    most = max(candidate.raw_probability or 0 for candidate in shown)
    acted = [stage for stage in inspection.stages if stage not in ("raw", "truncation", "pick")]
    print(
        plain.table(
            (
                *(_("rank"), "id", _("token"), _("raw"), "", *(_(STAGE_NAMES[stage]) for stage in acted)),
                *(_("final"), ""),
            ),
            [
                (
                    c.rank,
                    c.id,
                    c.text,
                    plain.percent(c.raw_probability),
                    plain.bar(c.raw_probability or 0, most, 16),
                    *(plain.percent(c.after(stage)) for stage in acted),
                    plain.percent(c.probability),
                    f"✂ {c.cut_by}" if c.cut_by else plain.bar(c.probability or 0, most, 16),
                )
                for c in shown
            ],
            right=(0, 1, 3, *range(5, 6 + len(acted))),
        )
    )
    print(
        "; ".join(part for part in (inspection.coverage, inspection.lacking) if part)
        or _(
            "entropy {entropy_bits:.2f} bits, after all stages {final_entropy_bits:.2f} · {kept:,} of {count:,} "
            "tokens left · {cut_mass:.1%} of the mass cut",
            entropy_bits=inspection.entropy_bits,
            final_entropy_bits=inspection.final_entropy_bits,
            kept=inspection.kept,
            count=len(inspection),
            cut_mass=inspection.cut_mass,
        )
    )
    for one in asked:
        print()
        rows = [(t.token, t.id, plain.number(t.rank), plain.percent(t.probability)) for t in one.tokens]
        print(plain.table((f"“{plain.one_line(one.text)}”", "id", _("rank"), _("probability")), rows, right=(1, 2, 3)))
        if len(rows) > 1:
            print(
                _(
                    "as a whole: {probability}, {bits:.2f} bits",
                    probability=plain.percent(one.probability),
                    bits=one.bits,
                )
            )


def _inspected(
    model: Model, amateur: Model | None, start: Start, config: GenerationConfig, tokens: Sequence[str]
) -> "tuple[StepView, list[Continuation]]":
    """The step after a text, and what the model thinks of each of `tokens` in its place."""
    from engine.models.amateurs import amateur_for
    from engine.models.continuation import continuation

    ids = list(start.ids)
    texts = {wanted: model.tokenizer.encode_continuation(wanted) for wanted in tokens}
    inspection = model.inspect(start, config, amateur_for(model, amateur))
    if config.interventions:
        model = cast("LocalModel", model).treated(config.interventions, [one.id for one in start.prompt])
    asked = [continuation(model, ids, wanted, found) for wanted, found in texts.items()]
    return inspection, asked
