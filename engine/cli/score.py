"""`score`: how well a model expected a text, or each message of a conversation."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from engine.base import plain
from engine.base.language import _, counted
from engine.cli.inputs import text_or_file
from engine.cli.options import Json, Options, shares_options, takes
from engine.cli.output import ProgressBar, print_json
from engine.cli.talk import Talk
from engine.models.progress import Loading

if TYPE_CHECKING:
    from engine.generation.score import ConversationTotals


@shares_options
@takes(talk=Talk)
def score(
    text: Annotated[str | None, typer.Argument(help="A text or a file; - reads standard input.")] = None,
    json: Json = False,
    *,
    talk: Talk,
    options: Options,
) -> None:
    """How well the model expected each token of TEXT: surprisal, rank, and the perplexity of the whole.

    Of a conversation also message by message, and of the assistant's answers alone.
    """
    from engine.generation import score as scoring

    asked = talk.read(text, "TEXT", take=text_or_file, answered=True)
    model = options.load()
    (begun,) = asked.begin_all([model], [0])
    prompt, conversation = begun.start.prompt, begun.start.conversation
    scores = []
    with ProgressBar() as report:
        for one in model.score(prompt):
            scores.append(one)
            report(Loading("read", len(scores), len(prompt), _("tokens scored")))
    total = scoring.total(scores)
    rendered = begun.rendered
    messages = () if rendered is None else rendered.messages
    each = None if conversation is None else scoring.by_message(scores, messages, conversation)
    if json:
        places = [{"message": place} for place in messages] or [{}] * len(scores)
        print_json(
            {
                "model": asdict(model.facts),
                "tokens": [scoring.to_dict(one) | place for one, place in zip(scores, places, strict=True)],
                "bits": total.bits,
                "mean_bits": total.mean_bits,
                "perplexity": total.perplexity,
            }
            | ({} if each is None else each.to_dict())
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
            counted(
                "{bits:.1f} bits in {count:,} scored token: perplexity {perplexity:.2f}",
                "{bits:.1f} bits in {count:,} scored tokens: perplexity {perplexity:.2f}",
                total.tokens,
                bits=total.bits,
                perplexity=total.perplexity,
            )
        )
    if each is not None:
        print()
        print_totals(each)


def print_totals(each: "ConversationTotals") -> None:
    """A row for each message, then what the template wrote, then the answers alone."""
    named = [(str(one.message + 1), one.role, one.total) for one in each.messages]
    shown = [*named, ("", _("template"), each.template), ("", _("answers alone"), each.answers)]
    print(
        plain.table(
            (_("message"), _("role"), _("tokens"), _("bits"), _("perplexity")),
            [
                (
                    number,
                    role,
                    whole.tokens,
                    f"{whole.bits:.1f}",
                    "–" if whole.perplexity is None else f"{whole.perplexity:.2f}",
                )
                for number, role, whole in shown
            ],
            right=(0, 2, 3, 4),
        )
    )
