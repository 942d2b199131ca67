"""Prompts to begin with: the default, examples to compare the lengths of, and ways to put the same request."""

from dataclasses import dataclass

from engine.base.errors import InputError
from engine.base.language import _
from engine.text.conversation import Conversation

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
    """One way to put a prompt: `template` holds `{prompt}` where it goes.

    Attributes:
        system: a message before it in the model's chat template; empty where the prompt goes as it is.
    """

    name: str
    template: str
    system: str = ""

    def __post_init__(self) -> None:
        if PLACE not in self.template:
            raise InputError(
                _("the variant {name!r} has no {place}; say where the prompt goes", name=self.name, place=PLACE)
            )

    def fill(self, prompt: str) -> str:
        """The prompt, put this way; braces in it stay as they are."""
        return self.template.replace(PLACE, prompt)

    def conversation(self, prompt: str) -> Conversation | None:
        """The prompt, put this way, under the system message; `None` where it goes as it is."""
        return Conversation.of(self.fill(prompt), self.system) if self.system else None


def lines(text: str) -> list[str]:
    """The prompts in a text of one a line; blank lines are none."""
    return [line for line in text.splitlines() if line.strip()]


VARIANTS: tuple[Variant, ...] = (
    Variant("plain", PLACE),
    Variant("mystery", f"Continue this as a mystery story: {PLACE}"),
    Variant("cheerful", f"Continue this as a cheerful children's story: {PLACE}"),
)
# The same prompt under three system messages.
SYSTEM_VARIANTS: tuple[Variant, ...] = (
    Variant("one word", PLACE, "Answer in one word."),
    Variant("pirate", PLACE, "You are a pirate. Answer as a pirate does."),
    Variant("children", PLACE, "You explain things to small children, in short sentences."),
)
