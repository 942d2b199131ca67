"""In which way transformers' module is used. No torch in it: listings show it."""

from dataclasses import dataclass
from typing import Literal

from engine.base.language import _


@dataclass(frozen=True, slots=True)
class Way:
    """How transformers' module is used, from the fastest way on to safer ones: see `engine.networks.door`.

    Attributes:
        cached: whether what it keeps of a text's beginning is used; else the whole text goes through at every step.
        chunks: whether several tokens may follow what is kept.
        rows: lanes go through together, `padded` to one length; or only those of `equal` length; or one by one.
        siblings: alternatives for the next position go through as `positions` that do not see each other, or as
            `lanes`.
        boundary: a text of more tokens is computed whole at every step, for its positions turn otherwise from there.
        head: whether hidden states are what goes into the output layer, for the module gives them in another shape.
    """

    cached: bool = True
    chunks: bool = True
    rows: Literal["padded", "equal", "single"] = "padded"
    siblings: Literal["positions", "lanes"] = "positions"
    boundary: int | None = None
    head: bool = False

    @property
    def words(self) -> str:
        """What is slower than usual, and why; empty where nothing is."""
        said = []
        if not self.cached:
            said.append(_("without a cache: with one this model's answers change"))
        elif self.boundary is not None:
            said.append(_("without a cache beyond {count:,} tokens: its positions change there", count=self.boundary))
        if self.cached and not self.chunks:
            said.append(_("prompts in one piece: in several its answers change"))
        if self.rows == "single":
            said.append(_("lanes one by one: together their answers change"))
        elif self.rows == "equal" and self.boundary is None:
            said.append(_("lanes of different lengths one by one: with padding their answers change"))
        return "; ".join(said)
