"""Answers to a lesson's questions, computed by the model."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from statistics import mean

from engine.base.errors import Cancelled, InputError
from engine.base.language import _, counted
from engine.base.plain import number, one_line, percent
from engine.generation.config import PUBLISHED_TOP_K, GenerationConfig
from engine.generation.events import Prompt, Stepped
from engine.generation.result import RunResult
from engine.generation.wide import improbable
from engine.lessons.lesson import Answer, Live, Question, number_in, settings
from engine.models.local import with_network
from engine.models.model import Model
from engine.text.conversation import Conversation
from engine.timing.runs import time_runs
from engine.timing.sweep import Sweep

SHORT, LONG = 12, 48


def answer(
    model: Model, question: Question, live: Live | None, proceed: Callable[[], bool] = lambda: True
) -> Iterator[Answer]:
    """Yield the answer; nothing where `proceed` returned False before it was found.

    Raises:
        InputError: this model cannot answer the question.
    """
    text = question.of if question.of is not None else (live.prompt if live is not None else None) or ""
    a = settings(question.a if question.a is not None else live.a if live is not None else None, "greedy")
    b = settings(question.b if question.b is not None else live.b if live is not None else None, "creative")
    match question.ask:
        case "next":
            yield _next(model, text, question.choices, question.system)
        case "count":
            count = len(model.tokenizer.encode_ids(text))
            right = next((i for i, choice in enumerate(question.choices) if int(choice) == count), None)
            pieces = " ".join(f"[{token.label}]" for token in model.tokenizer.encode(text)[:40])
            yield Answer(
                right,
                (
                    counted(
                        "“{text}” is {count} token: {pieces}",
                        "“{text}” is {count} tokens: {pieces}",
                        count,
                        text=one_line(text),
                        pieces=pieces,
                    ),
                ),
            )
        case "more":
            counts = model.tokenizer.count(question.choices)
            said = tuple(
                counted("“{choice}”: {count} token", "“{choice}”: {count} tokens", n, choice=one_line(choice))
                for choice, n in zip(question.choices, counts)
            )
            yield Answer(counts.index(max(counts)), said)
        case "agree":
            yield from _same(model, text, (a, b), proceed)
        case "repeat":
            yield from _same(model, text, (b, b), proceed)
        case "surer":
            yield from _surer(model, text, question.choices, (a, b), proceed)
        case "times":
            yield from _times(model, question.choices, proceed)
        case "decided" | "looks_at" | "wrote":
            from engine.lessons.inside import answer_inside

            with suppress(Cancelled):
                yield answer_inside(model, question, text, _at(question, live), lambda: not proceed())


def _at(question: Question, live: Live | None) -> int:
    """The position that a question about the inside is about: its own, the live part's, or the text's last one."""
    if question.at is not None:
        return question.at
    return live.at if live is not None and live.view == "inside" and live.at is not None else -1


def _next(model: Model, text: str, choices: Sequence[str], system: str | None) -> Answer:
    from engine.models.continuation import continuation

    ids = list(Prompt(text, None if system is None else Conversation.of(text, system)).start(model.tokenizer).ids)
    if not ids:
        raise InputError(_("the question's text is empty for this model"))
    found = []
    for choice in choices:
        chosen = model.tokenizer.encode_continuation(choice)
        found.append(continuation(model, ids, choice, chosen))
    said = tuple(
        f"“{one_line(one.text)}” {percent(one.probability)}"
        + (
            _(", rank {rank}", rank=number(one.tokens[0].rank))
            if len(one.tokens) == 1
            else _(", {count} tokens", count=len(one.tokens))
        )
        for one in found
    )
    best = max(range(len(found)), key=lambda index: found[index].probability)
    return Answer(best, said)


def _same(
    model: Model,
    text: str,
    configs: tuple[GenerationConfig, GenerationConfig],
    proceed: Callable[[], bool],
) -> Iterator[Answer]:
    """Whether two runs write the same tokens: the second begins when the first has ended."""
    written: list[list[Stepped]] = []
    for config in configs:
        run = RunResult()
        for event in model.generate([text], [config], candidates=1, proceed=proceed):
            run.add(event)
        if not proceed():
            return
        written.append(run.lanes[0].steps)
    ids = [[step.token.id for step in steps] for steps in written]
    if ids[0] == ids[1]:
        yield Answer(0, (counted("both write the same token", "both write the same {count} tokens", len(ids[0])),))
        return
    place = next((i for i, (x, y) in enumerate(zip(*ids)) if x != y), min(map(len, ids)))
    pair = [one_line(steps[place].token.label) if place < len(steps) else _("the end") for steps in written]
    yield Answer(
        1, (_("they part at token {place}: “{one}” against “{other}”", place=place + 1, one=pair[0], other=pair[1]),)
    )


def _surer(
    model: Model,
    text: str,
    choices: Sequence[str],
    configs: tuple[GenerationConfig, GenerationConfig],
    proceed: Callable[[], bool],
) -> Iterator[Answer]:
    """Which of two runs writes tokens that the model finds more probable, by their mean surprisal."""
    found, said = [], []
    for choice, config in zip(choices, configs):
        steps = [
            event
            for event in model.generate([text], [config], candidates=1, proceed=proceed)
            if isinstance(event, Stepped)
        ]
        if not proceed():
            return
        probabilities = [step.raw_probability for step in steps if step.raw_probability is not None]
        if not steps or len(probabilities) < len(steps):
            raise InputError(_("this model does not say how probable the tokens are that it writes"))
        bits = mean(-math.log2(max(one, sys.float_info.min)) for one in probabilities)
        found.append(bits)
        said.append(
            _(
                "“{choice}”: {bits:.1f} bits of surprisal a token; {low} of {count} rank below {rank}",
                choice=one_line(choice),
                bits=bits,
                low=improbable(steps),
                count=len(steps),
                rank=PUBLISHED_TOP_K,
            )
        )
    yield Answer(found.index(min(found)), tuple(said))


def _times(model: Model, choices: Sequence[str], proceed: Callable[[], bool]) -> Iterator[Answer]:
    local = with_network(model, _("no server runs without its cache; choose a model that runs here, which can"))
    sweep = replace(Sweep(), lengths=(SHORT, LONG), repeats=3, warmup=1, runners=("without cache",))
    runs = list(time_runs(local, sweep, proceed))
    if len(runs) < len(sweep.plan()):
        return
    short, long = (sorted(run.seconds for run in runs if run.max_new_tokens == n)[1] for n in (SHORT, LONG))
    times = long / short
    nearest = min(range(len(choices)), key=lambda index: abs(number_in(choices[index]) - times))
    yield Answer(
        nearest,
        (
            _(
                "measured here: {long} tokens took {times:.1f} times as long as {short}",
                long=LONG,
                times=times,
                short=SHORT,
            ),
        ),
    )
