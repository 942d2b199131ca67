"""Models to offer before they are fetched: small ones, of many families, of which pairs can be compared.

Written down by hand in November 2026: licences as published, parameters counted from the published shapes, sizes of the
safetensors files alone, rounded, which is why they are shown as such. What is fetched is what the hub lists then.
"""

from dataclasses import dataclass
from typing import Literal

Tuned = Literal["base", "chat", ""]

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Suggested:
    """A model on the hub.

    Attributes:
        parameters: how many numbers it has, each counted once.
        size: bytes to fetch.
        stored: bytes a number in the files.
        tuned: `chat` where it was trained to answer messages, `base` where it only continues texts.
        gated: whether its owners want their terms accepted on the hub before it can be fetched.
    """

    name: str
    parameters: int
    size: int
    stored: int
    license: str
    tuned: Tuned
    gated: bool = False

    @property
    def weights(self) -> int:
        """Numbers in the files, of which some are stored twice."""
        return self.size // self.stored


SUGGESTED = (
    Suggested("openai-community/gpt2", 124_439_808, 548 * MILLION, 4, "mit", "base"),
    Suggested("openai-community/gpt2-medium", 354_823_168, 1_520 * MILLION, 4, "mit", "base"),
    Suggested("openai-community/gpt2-large", 774_030_080, 3_247 * MILLION, 4, "mit", "base"),
    Suggested("openai-community/gpt2-xl", 1_557_611_200, 6_432 * MILLION, 4, "mit", "base"),
    Suggested("HuggingFaceTB/SmolLM2-135M", 134_515_008, 269 * MILLION, 2, "apache-2.0", "base"),
    Suggested("HuggingFaceTB/SmolLM2-360M", 361_821_120, 724 * MILLION, 2, "apache-2.0", "base"),
    Suggested("HuggingFaceTB/SmolLM2-360M-Instruct", 361_821_120, 724 * MILLION, 2, "apache-2.0", "chat"),
    Suggested("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1_711_376_384, 3_423 * MILLION, 2, "apache-2.0", "chat"),
    Suggested("Qwen/Qwen3-0.6B", 596_049_920, 1_503 * MILLION, 2, "apache-2.0", "chat"),
    Suggested("Qwen/Qwen3-1.7B", 1_720_574_976, 4_064 * MILLION, 2, "apache-2.0", "chat"),
    Suggested("google/gemma-3-270m-it", 268_098_176, 536 * MILLION, 2, "gemma", "chat", gated=True),
    Suggested("google/gemma-3-1b-it", 999_885_952, 2_000 * MILLION, 2, "gemma", "chat", gated=True),
    Suggested("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400, 2_472 * MILLION, 2, "llama3.2", "chat", gated=True),
    Suggested("allenai/OLMo-2-0425-1B", 1_484_916_736, 5_940 * MILLION, 4, "apache-2.0", "base"),
    Suggested("EleutherAI/pythia-160m", 162_322_944, 375 * MILLION, 2, "apache-2.0", "base"),
)

# What the hub calls them too.
ALIASES = {f"gpt2{size}": f"openai-community/gpt2{size}" for size in ("", "-medium", "-large", "-xl")}


def suggested(name: str) -> Suggested | None:
    """The suggestion of a name, also of one that the hub leads on to it."""
    wanted = ALIASES.get(name, name)
    return next((one for one in SUGGESTED if one.name == wanted), None)
