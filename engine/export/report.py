"""A session as a lab report: Markdown, with its charts as pictures or as text."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.base import plain
from engine.base.errors import LogitlabError
from engine.base.language import _, counted
from engine.export.looked import Look
from engine.export.sheet import Sheet, markdown_text
from engine.export.sheets import lane_sheet, lengths_sheet, measurement_sheet, tokens_sheet
from engine.generation.branches import BranchTree
from engine.generation.events import ended
from engine.sessions.session import Session, VariantResult, to_trees
from engine.text.lengths import count
from engine.text.tokenizer import Tokenizer
from engine.timing import charts
from engine.timing.measurement import Measurement

# Rows of a table at most; longer tables say how many rows they leave out.
ROWS = 200


class Drawn(Protocol):
    """A picture of the report; `name` is its file's name without the ending, `text` what stands for it in a text."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    def svg(self) -> str: ...
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart of the report. `name` is its file's name without the ending; `chart` is a key of `charts.CHARTS`."""

    name: str
    title: str
    chart: str
    measurements: tuple[Measurement, ...]

    def svg(self) -> str:
        return charts.as_svg(charts.as_text(self.chart, self.measurements), self.title)

    def text(self) -> str:
        """As lines of text without colours."""
        from rich.text import Text

        return Text.from_ansi(charts.as_text(self.chart, self.measurements, 96, 22)).plain


def report(
    session: Session,
    tokenizer: Tokenizer | None = None,
    show: Callable[[Drawn], str] = lambda drawn: fenced(drawn.text()) if drawn.text() else "",
    looks: Mapping[str, Iterable[Look]] | None = None,
) -> str:
    """The report in Markdown.

    Args:
        tokenizer: the session's model's, for the lengths of prompts; without it they are left out.
        show: makes the Markdown of a chart; a text chart by default.
        looks: inside the model at the last step of each lane, by the lane's letter.
    """
    model = session.model
    parts = ["# " + _("Lab report") + f": {markdown_text(session.prompt[:80]) or _('no prompt')}"]
    made = (
        _(
            "{title} ({precision}), weights `{identity}`",
            title=model.title,
            precision=model.precision,
            identity=model.identity,
        )
        if model
        else _("no model")
    )
    parts.append(_("Saved {saved} · model: {made}", saved=session.saved or _("never"), made=made))
    if not session.threads or session.prompt_alone:
        parts += ["## " + _("Prompt"), fenced(plain.safe(session.prompt))]
    parts += _threads(session)
    trees = to_trees(session)
    prompt = next((tree.shown.prompt for tree in trees if tree.shown is not None), ())
    if prompt:
        parts.append(_limited(tokens_sheet(prompt)).to_markdown(3))
    for letter, lane, tree in zip("AB", session.lanes, trees):
        parts += (
            _lane(letter, tree)
            if tree.shown is not None
            else ["## " + _("Lane {letter}", letter=letter), _("It has not run.")]
        )
        parts.append(
            _(
                "Its next run: {summary}, at most {max_new_tokens} tokens.",
                summary=markdown_text(lane.config.summary),
                max_new_tokens=lane.config.max_new_tokens,
            )
        )
        for look in (looks or {}).get(letter, ()):
            parts += _look(look, show)
    if tokenizer is not None and session.prompts:
        try:
            parts.append(_limited(lengths_sheet(count(tokenizer, session.prompts))).to_markdown())
        except LogitlabError as error:
            parts += ["## " + _("Lengths of prompts"), markdown_text(str(error))]
    if session.results:
        parts.append("## " + _("Variants"))
        parts += [_variant(result) for result in session.results]
    for number, measurement in enumerate(session.measurements, start=1):
        parts.append(measurement_sheet(measurement).to_markdown())
        parts += [show(picture) for picture in _pictures(number, measurement)]
    if len(session.measurements) > 1:
        title = _("Measurements over one another")
        parts += [f"## {title}", show(Picture("overlay", title, "overlay", session.measurements))]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def fenced(text: str) -> str:
    """Text as a Markdown code block, whose fence is longer than any in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


def _threads(session: Session) -> Iterator[str]:
    """The conversation, message by message."""
    for letter, thread in zip("AB", session.threads):
        both = len(session.threads) < 2
        yield "## " + (_("Conversation") if both else _("Conversation of lane {letter}", letter=letter))
        if session.prompt_alone:
            yield _("It is set aside: the prompt goes to the model as it is.")
        if thread.options:
            options = json.dumps(dict(thread.options), ensure_ascii=False, indent=1)
            yield _("Options of the chat template:") + "\n\n" + fenced(plain.safe(options))
        for number, message in enumerate(thread.messages[:ROWS], start=1):
            yield f"### {number} · {message.role}"
            if message.thinking:
                yield _("It thought:") + "\n\n" + fenced(plain.safe(message.thinking))
            yield fenced(plain.safe(message.content)) if message.content else _("empty")
            if message.extra:
                yield fenced(plain.safe(json.dumps(dict(message.extra), ensure_ascii=False, indent=1)))
        if len(thread.messages) > ROWS:
            yield _("The first {rows} of {count:,} messages.", rows=ROWS, count=len(thread.messages))


def _lane(letter: str, tree: BranchTree) -> list[str]:
    shown = tree.shown
    assert shown is not None
    sheet = lane_sheet(letter, shown.config, shown.steps, shown.prefill_seconds)
    speed = sheet.data["timing"]["tokens_per_second"] if isinstance(sheet.data, dict) else 0
    parts = [
        "## " + _("Lane {letter}: {summary}", letter=letter, summary=markdown_text(shown.config.summary)),
        fenced(plain.safe(shown.text())),
        counted(
            "{count} token, ended by: {reason}, {speed:.0f} tokens/s.",
            "{count} tokens, ended by: {reason}, {speed:.0f} tokens/s.",
            len(shown.steps),
            reason=ended(shown.reason),
            speed=speed,
        ),
    ]
    if len(tree.branches) > 1:
        lines = [
            "- "
            + (f"**{_('shown')}** " if branch.id == tree.current else "")
            + _(
                "from token {token}: {text}",
                token=branch.fork + 1,
                text=markdown_text(branch.text(branch.fork).strip()[:120]),
            )
            for branch in tree
        ]
        parts += [counted("{count} branch:", "{count} branches:", len(tree.branches)), "\n".join(lines)]
    parts.append(
        _limited(Sheet(_("Every token of lane {letter}", letter=letter), sheet.columns, sheet.rows)).to_markdown(3)
    )
    return parts


def _look(look: Look, show: Callable[[Drawn], str]) -> list[str]:
    if look.sheet is None:
        return ["### " + markdown_text(look.title), markdown_text(look.problem)]
    return [_limited(look.sheet).to_markdown(3), show(look)]


def _variant(result: VariantResult) -> str:
    seed = _(", seed {seed}", seed=result.config.seed) if result.config.strategy == "sample" else ""
    title = f"### {markdown_text(result.variant)} ({markdown_text(result.config.summary)}{seed})"
    numbers = counted(
        "{count} token in, {written} out",
        "{count} tokens in, {written} out",
        result.prompt_tokens,
        written=len(result.steps),
    )
    system = _("system: {text}", text=result.system) + "\n" if result.system else ""
    return "\n\n".join((title, numbers, fenced(plain.safe(f"{system}{result.prompt}\n→{result.text}"))))


def _pictures(number: int, measurement: Measurement) -> Sequence[Picture]:
    shown = ["length", "token"]
    if "without cache" in measurement.sweep.runners and len(measurement.sweep.runners) > 1:
        shown.append("cache")
    if "transformers" in measurement.sweep.runners:
        shown.append("transformers")
    title = measurement.title
    return [Picture(f"timing-{number}-{chart}", f"{title}: {chart}", chart, (measurement,)) for chart in shown]


def _limited(sheet: Sheet) -> Sheet:
    if len(sheet.rows) <= ROWS:
        return sheet
    note = _("The first {rows} of {count:,} rows.", rows=ROWS, count=len(sheet.rows))
    return Sheet(sheet.title, sheet.columns, sheet.rows[:ROWS], (*sheet.notes, note))
