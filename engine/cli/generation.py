"""`generate`, `compare`, `next`, `score`: what a model makes of a text."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, cast

import typer

from engine.base import plain
from engine.base.errors import InputError
from engine.base.language import _
from engine.cli.inputs import require, start_of, text_of, text_or_file
from engine.cli.options import (
    Chat,
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
    takes_settings,
)
from engine.cli.output import (
    ProgressBar,
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
from engine.generation.config import GenerationConfig
from engine.generation.events import STAGE_NAMES, Finished, Start, Stepped, ended
from engine.generation.result import RunResult
from engine.generation.step_view import StepView
from engine.models.model import Model
from engine.models.progress import Loading
from engine.text.prompts import VARIANTS, Variant

if TYPE_CHECKING:
    from engine.models.continuation import Continuation
    from engine.models.local import LocalModel


@shares_options
@takes_settings
def generate(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.")],
    candidates: Annotated[int, typer.Option(help="Candidates a step to report in JSON, stage by stage.")] = 0,
    chat: Chat = False,
    json: Json = False,
    jsonl: JsonLines = False,
    config: Config = None,
    *,
    settings: Settings,
    options: Options,
) -> None:
    """Continue PROMPT, streaming to the terminal."""
    known = settings.config(config)  # what cannot be used is said before the model is loaded
    if candidates < 0 or candidates > 100_000:
        raise InputError(_("candidates is {candidates}; allowed: from 0 to 100,000", candidates=candidates))
    text = text_of(prompt)
    require(text)
    (model,), amateurs, drafts = options.load_lanes([known])
    chosen = settings.config_for(config, model)
    start = start_of(model.tokenizer, text, chat)
    events = events_of([model], [start], [chosen], max(candidates, 1), amateurs, drafts)
    if json or jsonl:
        print_run([model], text, events, jsonl=jsonl, candidates=candidates > 0)
        return
    result = RunResult()
    for event in events:
        result.add(event)
        if isinstance(event, Stepped):
            sys.stdout.write(plain.safe(event.token.text))
            sys.stdout.flush()
    print()
    lane = result.lanes[0]
    note(f"{count(len(lane.steps))} · {speed(result, 0)} · {ended(lane.finish_reason)}")
    remark(draft_line(lane))
    for line in beam_lines(lane):
        note(line)


@shares_options
@takes_settings
def compare(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.")],
    a: LaneA = "greedy",
    b: LaneB = "creative",
    chat: Chat = False,
    json: Json = False,
    jsonl: JsonLines = False,
    *,
    settings: Settings,
    options: Options,
) -> None:
    """Continue PROMPT under two configurations at once, side by side. Settings given as options are for both.

    A configuration may name a model: greedy,model=gpt2,precision=float32.
    """
    known = lane_configs(a, b, settings)
    text = text_of(prompt)
    require(text)
    models, amateurs, drafts = options.load_lanes(known)
    configs = [settings.biased(*lane) for lane in zip(lane_configs(a, b, settings, models), models)]
    remark_own(models, configs)
    starts = [start_of(model.tokenizer, text, chat) for model in models]
    remark_vocabularies(models)
    events = events_of(models, starts, configs, 1, amateurs, drafts)
    if json or jsonl:
        print_run(models, text, events, jsonl=jsonl)
        return
    result = RunResult()
    with SideBySide() as show:
        for event in events:
            result.add(event)
            if isinstance(event, (Stepped, Finished)):
                show(result)


@shares_options
@takes_settings
def variants(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.")],
    template: Annotated[
        list[str] | None, typer.Option(help="Another way to put it, with {prompt} in its place; repeatable.")
    ] = None,
    json: Json = False,
    config: Config = "creative",
    *,
    settings: Settings,
    options: Options,
) -> None:
    """Continue PROMPT put in different ways, all at once: plain, as a mystery, as a cheerful children's story."""
    known = settings.config(config)  # what cannot be used is said before the model is loaded
    ways = [
        Variant(_("variant {index}", index=index), text) for index, text in enumerate(template or (), start=1)
    ] or VARIANTS
    text = text_of(prompt)
    require(text)
    (model,), (amateur,), (draft,) = options.load_lanes([known])
    chosen = settings.config_for(config, model)
    prompts = [way.fill(text) for way in ways]
    result = RunResult()
    starts = [start_of(model.tokenizer, prompt, False) for prompt in prompts]
    with ProgressBar() as report:
        every = len(ways)
        beside = [amateur] * every, [draft] * every
        for event in events_of([model] * every, starts, [chosen] * every, 1, *beside):
            result.add(event)
            report(Loading("read", sum(len(lane.steps) for lane in result.lanes), 0, _("tokens written")))
    if json:
        lanes = [
            {"name": way.name, "prompt": prompt, "prompt_tokens": len(result.prompts[index])} | result.lane_dict(index)
            for index, (way, prompt) in enumerate(zip(ways, prompts))
        ]
        print_json({"model": asdict(model.facts), "variants": lanes})
        return
    for index, (way, prompt) in enumerate(zip(ways, prompts)):
        lane = result.lanes[index]
        print(
            _(
                "{name} · {count} in, {written} out",
                name=way.name,
                count=count(len(result.prompts[index])),
                written=count(len(lane.steps)),
            )
        )
        print(f"  {plain.one_line(prompt)}")
        print(f"  → {plain.one_line(lane.text).strip()}\n")


@shares_options
@takes_settings
def next_token(
    text: Annotated[str, typer.Argument(help="The text; - reads standard input.")],
    top: Annotated[int, typer.Option(help="How many candidates to show.")] = 20,
    token: Annotated[list[str] | None, typer.Option(help="Also this text's rank and probability; repeatable.")] = None,
    chat: Chat = False,
    json: Json = False,
    config: Config = None,
    *,
    settings: Settings,
    options: Options,
) -> None:
    """What may come after TEXT: every candidate, stage by stage; and any token, however unlikely."""
    known = settings.config(config)  # what cannot be used is said before the model is loaded
    if not 1 <= top <= 1_000_000:
        raise InputError(_("top is {top}; allowed: from 1 to 1,000,000", top=top))
    if "" in (token or ()):
        raise InputError(_("--token is empty: give it the text that could follow"))
    text = text_of(text)
    require(text)
    (model,), (amateur,), _drafts = options.load_lanes([known])
    chosen = settings.config_for(config, model)
    start = start_of(model.tokenizer, text, chat)
    inspection, asked = _inspected(model, amateur, start, chosen, token or ())
    prompt, shown = start.prompt, inspection.at(0, top)
    if json:
        print_json(
            {
                "model": asdict(model.facts),
                "prompt": {"text": text, "tokens": [asdict(one) for one in prompt]},
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


@shares_options
def score(
    text: Annotated[str, typer.Argument(help="A text or a file; - reads standard input.")],
    chat: Chat = False,
    json: Json = False,
    *,
    options: Options,
) -> None:
    """How well the model expected each token of TEXT: surprisal, rank, and the perplexity of the whole."""
    from engine.generation import score as scoring

    text = text_or_file(text)
    if not text:
        raise InputError(_("the text is empty; type at least one character"))
    model = options.load()
    prompt = start_of(model.tokenizer, text, chat).prompt
    scores = []
    with ProgressBar() as report:
        for one in model.score(prompt):
            scores.append(one)
            report(Loading("read", len(scores), len(prompt), _("tokens scored")))
    total = scoring.total(scores)
    if json:
        print_json(
            {
                "model": asdict(model.facts),
                "tokens": [scoring.to_dict(one) for one in scores],
                "bits": total.bits,
                "mean_bits": total.mean_bits,
                "perplexity": total.perplexity,
            }
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
            "–" if one.probability is None else plain.percent(one.probability),
        )
        for one in scores
    ]
    print(
        plain.table(
            (_("position"), "id", _("token"), _("bits"), "", _("rank"), _("probability")), rows, right=(0, 1, 3, 5, 6)
        )
    )
    if total.perplexity is not None:
        print(
            _(
                "{bits:.1f} bits in {tokens:,} scored tokens: perplexity {perplexity:.2f}",
                bits=total.bits,
                tokens=total.tokens,
                perplexity=total.perplexity,
            )
        )
