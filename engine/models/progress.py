"""Events of a model that is being loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engine.base.language import N_
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.models.model import ModelFacts


LoadStage = Literal["fetch", "read", "check", "pack", "ready"]
LOAD_STAGES: dict[LoadStage, str] = {
    "fetch": N_("fetch"),
    "read": N_("read"),
    "check": N_("check"),
    "pack": N_("pack"),
    "ready": N_("ready"),
}


@dataclass(frozen=True, slots=True)
class Loading:
    """The progress of a model that is being loaded.

    Attributes:
        done, total: bytes in the `fetch` and `read` stages, tensors in `pack`; total 0 when unknown.
        note: what is happening, in a few words.
    """

    stage: LoadStage
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class TokenizerLoaded:
    """The tokenizer can be used; the network is still loading."""

    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """The model can generate."""

    facts: "ModelFacts"


Report = Callable[[Loading], None]
