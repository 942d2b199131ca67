"""The contents of each pane as a table that can be exported."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from engine.base.clock import minute
from engine.base.language import _
from engine.export.sheet import Sheet
from engine.generation.config import GenerationConfig
from engine.generation.events import Candidate, Stepped
from engine.generation.result import step_dict, timing
from engine.sessions.session import VariantResult
from engine.text.lengths import Length
from engine.text.token import Token
from engine.timing.measurement import Measurement
from engine.timing.tables import run_columns, words


def tokens_sheet(tokens: Sequence[Token]) -> Sheet:
    """The prompt's tokens."""
    rows = [(t.position, t.id, t.label, t.start, t.end, t.special) for t in tokens]
    columns = ("position", "id", "token", "start", "end", "special")
    return Sheet(_("Tokens of the prompt"), columns, rows, data=[asdict(token) for token in tokens])


def lengths_sheet(lengths: Sequence[Length], others: Sequence[tuple[str, Sequence[int | None]]] = ()) -> Sheet:
    """Lengths of prompts; `others` are token counts of more tokenizers, each with its model's name."""
    columns = ("prompt", "characters", "bytes", "words", "tokens", "tokens_per_word")
    rows = [
        (
            *(one.prompt, one.characters, one.bytes, one.words, one.tokens, one.tokens_per_word),
            *(counts[index] for _, counts in others),
        )
        for index, one in enumerate(lengths)
    ]
    return Sheet(
        _("Lengths of prompts"), (*columns, *(_("tokens of {name}", name=name) for name, _counts in others)), rows
    )


def lane_sheet(name: str, config: GenerationConfig, steps: Sequence[Stepped], prefill_seconds: float) -> Sheet:
    """The tokens of a lane with their probabilities; `prefill_seconds` go into the JSON's timing."""
    columns = ("step", "id", "token", "probability", "raw_probability", "rank", "entropy_bits", "seconds", "forced")
    rows = [
        (
            *(index, step.token.id, step.token.label, step.probability, step.raw_probability, step.rank),
            *(step.entropy_bits, step.seconds, step.forced),
        )
        for index, step in enumerate(steps, start=1)
    ]
    text = "".join(step.token.text for step in steps)
    data: dict[str, Any] = {
        "config": config.to_dict(),
        "text": text,
        "tokens": [step_dict(step, candidates=bool(step.candidates)) for step in steps],
        "timing": timing(prefill_seconds, steps),
    }
    return Sheet(
        _("Lane {name}: {summary}", name=name, summary=config.summary), columns, rows, (text,) if text else (), data
    )


def candidates_sheet(title: str, candidates: Sequence[Candidate]) -> Sheet:
    """The candidates of a step, with their probability after each stage."""
    guided = any(c.guided_probability is not None for c in candidates)
    less = any(c.minus_amateur_probability is not None for c in candidates)
    named = ("guidance", "amateur", "temperature")  # which have columns by other names
    stages = [stage for stage in (candidates[0].by_stage if candidates else ()) if stage not in named]
    columns = (
        *("rank", "id", "token", "raw", *(["guided"] if guided else []), *(["minus_amateur"] if less else [])),
        *("penalised", "tempered", *(f"after_{stage}" for stage in stages)),
        *("probability", "cut_by", "similarity", "score"),
    )
    rows = [
        (
            *(c.rank, c.id, c.text, c.raw_probability),
            *([c.guided_probability] if guided else []),
            *([c.minus_amateur_probability] if less else []),
            *(c.penalised_probability, c.tempered_probability, *(c.by_stage[stage] for stage in stages)),
            *(c.probability, c.cut_by, c.similarity, c.score),
        )
        for c in candidates
    ]
    return Sheet(title, columns, rows, data=[asdict(candidate) for candidate in candidates])


def variants_sheet(results: Sequence[VariantResult]) -> Sheet:
    """The results of the prompt variants."""
    columns = (
        "variant",
        "strategy",
        "seed",
        "prompt_tokens",
        "new_tokens",
        "finish_reason",
        "system",
        "prompt",
        "text",
    )
    rows = [
        (
            *(one.variant, one.config.strategy, one.config.seed, one.prompt_tokens, len(one.steps), one.reason),
            *(one.system, one.prompt, one.text),
        )
        for one in results
    ]
    return Sheet(_("Variants"), columns, rows, data=[asdict(one) for one in results])


def measurement_sheet(measurement: Measurement) -> Sheet:
    """A measurement's statistics by runner and length."""
    columns = (
        *("by", "lanes", "max_new_tokens", "runs", "median_seconds", "min_seconds", "max_seconds"),
        *("tokens_per_second", "first_token_seconds", "prefill_seconds", "decode_seconds"),
        *("token_median_seconds", "token_p95_seconds", "token_p99_seconds"),
    )
    rows = []
    for row in measurement.rows():
        first, between = row.time_to_first_token, row.inter_token_seconds
        rows.append(
            (
                *(row.by, row.lanes, row.max_new_tokens, len(row.runs), row.median),
                *(min(row.seconds), max(row.seconds), row.tokens_per_second, first and first.median),
                *(row.prefill_seconds, row.decode_seconds),
                *((between.median, between.p95, between.p99) if between else (None,) * 3),
            )
        )
    title = _("Timing: {title}, {at}", title=measurement.title, at=minute(measurement.at))
    return Sheet(title, columns, rows, tuple(words(measurement)), measurement.to_dict())


def runs_sheet(measurement: Measurement) -> Sheet:
    """Every run of a measurement."""
    rows = run_columns(measurement)
    columns = tuple(rows[0]) if rows else ()
    return Sheet(_("Runs: {title}", title=measurement.title), columns, [tuple(row.values()) for row in rows])
