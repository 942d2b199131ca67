"""A grammar: of all tokens, those stay with which the text can still follow it.

`engine.generation.grammar` has the kinds; `engine.generation.constraint` says at each step which tokens these are.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.base.language import N_
from engine.base.plain import one_line, shortened
from engine.generation.grammar import KINDS, checked_grammar
from engine.generation.stages.stage import Parameter, Reading, Sent, Stage

if TYPE_CHECKING:
    from torch import Tensor

TITLE_CELLS = 16  # of a grammar in a lane's title


def change(
    logits: "Tensor",
    reading: Reading,
    schema: str | None,
    regex: str | None,
    grammar: str | None,
    choices: Sequence[str],
) -> "Tensor":
    allowed = reading.beside["grammar"]
    assert allowed is not None
    return logits.masked_fill(~allowed, -math.inf)


def _check(field: str, value: object) -> None:
    checked_grammar(dict.fromkeys(KINDS) | {field: value})


def _summary(config: Any) -> str:
    if config.choices:
        return shortened("|".join(map(one_line, config.choices)), TITLE_CELLS)
    if config.regex:
        return f"/{shortened(one_line(config.regex), TITLE_CELLS)}/"
    return "{schema}" if config.schema else "grammar" if config.grammar else ""


STAGE = Stage(
    name="grammar",
    title=N_("grammar"),
    group="grammar",
    definition="tokens with which no text of the grammar goes on are cut (llguidance)",
    explanation=N_("only what the grammar allows there stays"),
    first=True,
    needs=True,
    cuts=True,
    change=change,
    summary=_summary,
    parameters=(
        Parameter(
            name="schema",
            type=None,
            check=_check,
            off=(None,),
            hint=N_("a JSON schema that the text is to follow, as JSON or a .json file"),
            help="A file with a JSON schema for the text.",
            servers={"vLLM": Sent("json"), "llama.cpp": Sent("json_schema")},
        ),
        Parameter(
            name="regex",
            type=None,
            check=_check,
            off=(None,),
            hint=N_("a regular expression that the text is to match, such as [0-9]{4}-[0-9]{2}"),
            help="A regular expression for the text.",
            servers={"vLLM": Sent("regex")},
        ),
        Parameter(
            name="grammar",
            type=None,
            check=_check,
            off=(None,),
            hint=N_("a Lark grammar that the text is to follow, or a .lark file; ⏎ is a line break"),
            help="A file with a Lark grammar for the text.",
            servers={"vLLM": Sent("grammar")},
        ),
        Parameter(
            name="choices",
            default=(),
            type=None,
            check=_check,
            off=((),),
            hint=N_("texts of which the answer is to be one, separated by |; \\n is a line break"),
            help="One of the texts it may be; repeatable.",
            option="--choice",
            servers={"vLLM": Sent("choice"), "llama.cpp": Sent("grammar"), "llama-cpp-python": Sent("grammar")},
        ),
    ),
)
