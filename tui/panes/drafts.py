"""What is said of a lane's draft: how much of it stayed, and what became of one guess."""

from engine.base.language import _
from engine.base.plain import percent
from engine.generation.events import DRAFT_OUTCOMES, Draft
from engine.generation.result import Drafted
from engine.text.token import drawn


def draft_words(found: Drafted) -> str:
    """`draft 71 %, 3.4 tokens a forward`."""
    rate = "–" if found.rate is None else f"{found.rate:.0%}"
    return _("draft {rate}, {each:.1f} tokens a forward", rate=rate, each=found.tokens_per_forward)


def guess_words(draft: Draft) -> str:
    """What became of a step's guess, in the rule's numbers; empty where nothing was guessed, and none before it."""
    if draft.id is None or draft.probability is None:
        return _(DRAFT_OUTCOMES["bonus"]) if draft.outcome == "bonus" else ""
    text = drawn(draft.text or "")
    said = _("guess “{text}” stays", text=text) if draft.outcome == "accepted" else _("guess “{text}” goes", text=text)
    p, q = percent(draft.probability), percent(draft.draft_probability)
    if draft.draw is None:
        return f"{said}: p {p}"
    sign = "<" if draft.outcome == "accepted" else "≥"
    return f"{said}: {draft.draw:.2f} {sign} p/q = {p} / {q}"
