"""Prompts to begin with: the default, examples to compare the lengths of, and ways to put the same request."""

from dataclasses import dataclass

from engine.base.errors import InputError
from engine.base.language import _

DEFAULT_PROMPT = "The sky above the city looked calm, but"
EXAMPLE_PROMPTS = (
    DEFAULT_PROMPT,
    "Elixir is pleasant for interactive experiments because",
    "A robot entered the library and asked",
    "Write a short poem about rain and memory.",
)
PLACE = "{prompt}"
MAX_PROMPTS = 20_000


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to put a prompt: `template` holds `{prompt}` where it goes."""

    name: str
    template: str

    def __post_init__(self) -> None:
        if PLACE not in self.template:
            raise InputError(
                _("the variant {name!r} has no {place}; say where the prompt goes", name=self.name, place=PLACE)
            )

    def fill(self, prompt: str) -> str:
        """The prompt, put this way; braces in it stay as they are."""
        return self.template.replace(PLACE, prompt)


def lines(text: str) -> list[str]:
    """The prompts in a text of one a line; blank lines are none."""
    return [line for line in text.splitlines() if line.strip()]


VARIANTS: tuple[Variant, ...] = (
    Variant("plain", PLACE),
    Variant("mystery", f"Continue this as a mystery story: {PLACE}"),
    Variant("cheerful", f"Continue this as a cheerful children's story: {PLACE}"),
)
