"""What is done to a model while a lane runs, as texts in its configuration: read, checked, and written back.

With `h_l` the stream's row l (0 the embedding, l + 1 what block l leaves), and `a_l` and `m_l` what attention and
feed-forward of block l add to it:

    head 12.4 off          what head 4 of block 12 adds is zero (Michel et al. 2019)
    head 12.4 mean         it is its mean over the positions so far, this one included
    attention 12 off       a_12 is zero; `mean` as above
    mlp 7 off              m_7 is zero; `mean` as above
    block 7 skipped        h_8 is h_7
    steer 14 by F.gguf × 4 h_14 += 4 · direction, at every position from the first generated token's on (Turner 2023)
    patch 10 at 5 from "…" h_10 at position 5 is that of another prompt, which has as many tokens (Meng et al. 2022)

A mean is over the positions before and the position's own, so that it is the same whether a text goes through at once
or token by token.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from engine.base.errors import ConfigError
from engine.base.language import _

Kind = Literal["head", "attention", "mlp", "block", "steer", "patch"]
FIELD = "interventions"
MOST = 64  # of one lane
MOST_LAYER = 9_999
MOST_STRENGTH = 1e6
NEVER = 2**62  # a position that no text has

EXAMPLES = (
    "head 12.4 off",
    "head 12.4 mean",
    "attention 12 off",
    "mlp 7 off",
    "block 7 skipped",
    "steer 14 by FILE.gguf × 4",
    'patch 10 at 5 from "other prompt"',
)

_HEAD = re.compile(r"head\s+(\d+)\.(\d+)\s+(off|mean)")
_PART = re.compile(r"(attention|mlp)\s+(\d+)\s+(off|mean)")
_BLOCK = re.compile(r"block\s+(\d+)\s+(skipped)")
_STEER = re.compile(r"steer\s+(\d+)\s+by\s+(\S.*?)(?:\s+[×xX*]\s*([-+−]?[\d.]+(?:[eE][-+]?\d+)?))?")
_PATCH = re.compile(r'patch\s+(\d+)\s+at\s+([-−]?\d+)\s+from\s+["“](.+)["”]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Intervention:
    """One thing that is done.

    Attributes:
        layer: a block's number; of `steer` and `patch` a row of the stream, 0 the embedding.
        mean: whether the mean takes the place, rather than nothing.
        file: with a direction, as it was typed.
        strength: what the direction is multiplied by; below zero it points the other way.
        position: of the prompt, below zero from its end.
        prompt: the other one.
    """

    kind: Kind
    layer: int
    head: int = 0
    mean: bool = False
    file: str = ""
    strength: float = 1.0
    position: int = 0
    prompt: str = ""

    def __str__(self) -> str:
        how = "mean" if self.mean else "off"
        match self.kind:
            case "head":
                return f"head {self.layer}.{self.head} {how}"
            case "attention" | "mlp":
                return f"{self.kind} {self.layer} {how}"
            case "block":
                return f"block {self.layer} skipped"
            case "steer":
                return f"steer {self.layer} by {self.file} × {self.strength:g}"
            case "patch":
                return f'patch {self.layer} at {self.position} from "{self.prompt}"'

    def plain(self, prompt_length: int) -> int:
        """How many positions at the beginning of a text are what they are without it."""
        if self.kind == "steer":
            return prompt_length
        if self.kind == "patch":
            return self.position + prompt_length if self.position < 0 else self.position
        return 0


def intervention(text: str) -> Intervention:
    """One of a configuration's texts. Raises `ValueError`, with what is allowed, for anything else."""
    text = text.strip()
    if found := _HEAD.fullmatch(text):
        return Intervention("head", _layer(found[1]), int(found[2]), found[3] == "mean")
    if found := _PART.fullmatch(text):
        kind: Kind = "attention" if found[1] == "attention" else "mlp"
        return Intervention(kind, _layer(found[2]), mean=found[3] == "mean")
    if found := _BLOCK.fullmatch(text):
        return Intervention("block", _layer(found[1]))
    if found := _STEER.fullmatch(text):
        return Intervention("steer", _layer(found[1]), file=found[2], strength=_strength(found[3] or "1"))
    if found := _PATCH.fullmatch(text):
        return Intervention("patch", _layer(found[1]), position=int(found[2].replace("−", "-")), prompt=found[3])
    raise ValueError(_("one of {examples}", examples=" · ".join(EXAMPLES)))


def checked(texts: object) -> tuple[str, ...]:
    """The texts of a configuration as they are kept. Raises `ConfigError`."""
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(FIELD, texts, _("a list of texts, such as {example}", example=[EXAMPLES[0]]))
    if len(texts) > MOST:
        raise ConfigError(FIELD, _("{count} of them", count=len(texts)), _("at most {most}", most=MOST))
    found = []
    for text in texts:
        try:
            found.append(str(intervention(text)))
        except ValueError as error:
            raise ConfigError(FIELD, text, str(error)) from error
    return tuple(found)


def interventions(texts: Sequence[str]) -> tuple[Intervention, ...]:
    """Those of a configuration, which has checked them."""
    return tuple(map(intervention, texts))


def split(text: str) -> list[str]:
    """The interventions in one line, `;` between them; a prompt in quotes may hold some."""
    return [part.strip() for part in re.findall(r'(?:["“][^"”]*["”]|[^;])+', text) if part.strip()]


def summary(texts: Sequence[str]) -> str:
    """For a lane's title: the first one, how many more there are, and that its steps are not the fast ones."""
    if not texts:
        return ""
    more = f" +{len(texts) - 1}" if len(texts) > 1 else ""
    first = texts[0] if len(texts[0]) <= 32 else f"{texts[0][:31]}…"
    return _("{first}{more}, plain steps", first=first, more=more)


@dataclass(frozen=True, slots=True)
class Treatment:
    """By what is kept of a lane's text, and who may go on from it.

    Attributes:
        interventions: of the lane; what is kept of a text belongs to them.
        plain: up to so many positions it is what it is without them.
        steered: the position from which on steering acts; 0 without it.
        vectors: a digest of the vectors that they add or put into the stream.
    """

    interventions: tuple[str, ...] = ()
    plain: int = NEVER
    steered: int = 0
    vectors: str = ""

    @classmethod
    def of(cls, texts: Sequence[str], prompt_length: int) -> "Treatment":
        """As far as it is known before files are read and prompts run."""
        found = interventions(texts)
        plain = min((one.plain(prompt_length) for one in found), default=NEVER)
        steered = prompt_length if any(one.kind == "steer" for one in found) else 0
        return cls(tuple(texts), max(0, plain), steered)

    def shares(self, other: "Treatment") -> int:
        """Up to how many positions what is kept under one of them serves the other."""
        return NEVER if self == other else min(self.plain, other.plain)

    def alike(self, other: "Treatment") -> int:
        """The same, before the vectors are known."""
        return replace(self, vectors="").shares(replace(other, vectors=""))


PLAIN = Treatment()


def _layer(text: str) -> int:
    if int(text) > MOST_LAYER:
        raise ValueError(_("layers up to {most:,}", most=MOST_LAYER))
    return int(text)


def _strength(text: str) -> float:
    try:
        value = float(text.replace("−", "-"))
    except ValueError:
        value = math.nan
    if not abs(value) <= MOST_STRENGTH:
        raise ValueError(_("a strength from {least:g} to {most:g}", least=-MOST_STRENGTH, most=MOST_STRENGTH))
    return value
