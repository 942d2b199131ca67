"""How long prompts are: in characters, bytes, words and tokens."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Length:
    """One prompt's; words are what whitespace parts."""

    prompt: str
    characters: int
    bytes: int
    words: int
    tokens: int

    @property
    def tokens_per_word(self) -> float | None:
        """`None` for a prompt without words."""
        return self.tokens / self.words if self.words else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"tokens_per_word": self.tokens_per_word}


def count(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[Length]:
    """The lengths of prompts. Raises `TextError` for one that is no valid Unicode."""
    return [
        Length(prompt, len(prompt), len(prompt.encode()), len(prompt.split()), tokens)
        for prompt, tokens in zip(prompts, tokenizer.count(prompts))
    ]
