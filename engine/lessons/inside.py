"""Answers to a lesson's questions about what happens inside the model."""

from collections.abc import Callable, Sequence

from engine.base.errors import InputError
from engine.base.language import _
from engine.base.plain import one_line, percent
from engine.inside.attention import attention
from engine.inside.attribution import Part, attribution, first_and_second
from engine.inside.lens import lens
from engine.inside.record import Record, record
from engine.lessons.lesson import WROTE, Answer, Question
from engine.models.local import with_network
from engine.models.model import Model
from engine.text.token import Token

SHOWN_PARTS = 3


def answer_inside(model: Model, question: Question, text: str, at: int, cancelled: Callable[[], bool]) -> Answer:
    """The answer to `decided`, `looks_at` or `wrote`.

    Args:
        at: the position of the text that is asked about, below zero from its end.

    Raises:
        InputError: this model cannot answer the question.
        Cancelled: `cancelled` returned True.
    """
    with_network(model, _("no server tells what happens inside; choose a model that runs here, which does"))
    tokens = model.tokenizer.encode(text)
    made = record(model, [token.id for token in tokens], cancelled=cancelled)
    match question.ask:
        case "decided":
            return _decided(model, made, at, len(question.choices), cancelled)
        case "looks_at":
            return _looks_at(made, text, tokens, at, question.choices, cancelled)
        case _:
            return _wrote(model, made, at)


def _decided(model: Model, made: Record, at: int, parts: int, cancelled: Callable[[], bool]) -> Answer:
    """In which of equal parts of the rows, lowest first, the top token is the final one for good."""
    found = lens(made, positions=[at], top=1, cancelled=cancelled)
    tops = [found.rows[row].cells[0].top[0].id for row in range(made.blocks + 1)]
    (row,) = found.decided_at
    assert row is not None
    said = [
        _(
            "“{token}” stays on top from row {row} on; row 0 is the embedding, row {last} the model's answer",
            token=_label(model, tops[-1]),
            row=row,
            last=made.blocks,
        )
    ]
    if row:
        said.append(_("in row {row} “{token}” was on top", row=row - 1, token=_label(model, tops[row - 1])))
    return Answer(row * parts // (made.blocks + 1), tuple(said))


def _looks_at(
    made: Record,
    text: str,
    tokens: Sequence[Token],
    at: int,
    choices: Sequence[str],
    cancelled: Callable[[], bool],
) -> Answer:
    """Which choice gets the most weight, the mean of all heads; of a word in several tokens their sum."""
    looks = attention(made, at, cancelled=cancelled)
    weights = [weight or 0.0 for weight in looks.weights]
    places = [_places(text, choice, tokens) for choice in choices]
    for choice, found in zip(choices, places):
        if 0 in found:
            raise InputError(
                _("“{choice}” is in the first token, which is left out of the question", choice=one_line(choice))
            )
    sums = [sum(weights[place] for place in found) for found in places]
    said = [
        f"“{one_line(choice)}” {percent(weight)}" + (_(", {count} tokens", count=len(found)) if len(found) > 1 else "")
        for choice, weight, found in zip(choices, sums, places)
    ]
    said.append(_("“{token}”, which looks, {weight}", token=tokens[looks.at].label, weight=percent(weights[looks.at])))
    if looks.at:
        said.append(
            _("left out: the first token, “{token}”, {weight}", token=tokens[0].label, weight=percent(weights[0]))
        )
    return Answer(sums.index(max(sums)) if max(sums) > 0 else None, tuple(said))


def _places(text: str, choice: str, tokens: Sequence[Token]) -> list[int]:
    """The tokens that hold a piece of the text, without the spaces around it."""
    bare = choice.strip()
    first = text.index(choice) + choice.index(bare)
    start = len(text[:first].encode())
    end = start + len(bare.encode())
    return [token.position for token in tokens if token.start < end and start < token.end]


def _wrote(model: Model, made: Record, at: int) -> Answer:
    """Of which kind the part is that adds most to the most probable token over its runner-up."""
    a, b = first_and_second(made, at)
    shares = attribution(made, at, a, b)
    most = sorted(shares.parts, key=lambda part: part.share, reverse=True)
    said = [
        _(
            "“{a}” leads “{b}” by {difference:.2f}",
            a=_label(model, a),
            b=_label(model, b),
            difference=shares.difference,
        ),
        *(f"{_name(part)} {part.share:+.2f}" for part in most[:SHOWN_PARTS]),
        _(
            "all {count} parts together {sum:+.2f}, remainder {remainder:+.2f}",
            count=len(most),
            sum=shares.sum,
            remainder=round(shares.remainder, 2) + 0.0,  # never −0.00
        ),
    ]
    kind = most[0].kind
    return Answer(WROTE.index(kind) if kind in WROTE else None, tuple(said))


def _name(part: Part) -> str:
    match part.kind:
        case "attention":
            return _("attention of layer {layer}", layer=part.layer)
        case "mlp":
            return _("feed-forward of layer {layer}", layer=part.layer)
        case "embedding":
            return _("embedding")
        case _:
            return _("biases")


def _label(model: Model, id: int) -> str:
    return one_line(model.tokenizer.label(id))
