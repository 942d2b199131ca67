"""What can be done with a model, so that only that is offered, and no number is invented."""

from dataclasses import dataclass, fields

from engine.base.errors import InputError
from engine.base.language import _
from engine.generation.config import GenerationConfig

# Settings of OpenAI's own completions.
COMMON = frozenset({"temperature", "top_p", "seed", "stop", "logit_bias"})


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What can be done with a model: everything where its network is in this process, else what its server offers.

    Attributes:
        dialect: `vLLM`, `llama.cpp`, `llama-cpp-python` or `OpenAI`; empty for a network in this process.
        version: name and version, in the server's words.
        top: candidates of a step that it sends at most; 0 where it sends none.
        raw: whether their probabilities are the model's own, before any setting acts; else those after all settings.
        min_p_first: whether min-p cuts before top-k and top-p; elsewhere it cuts after them.
        token_ids: prompts can be token ids, and ids come back, so that a lane goes on exactly where it was.
        tokenizer: texts can be cut into tokens.
        chat: a message can be put into the model's chat template.
        prompt_scores: the probability of each token of a prompt can be computed.
        settings: fields of `GenerationConfig` that are applied.
        context_length, vocabulary_size: in tokens; 0 where a server does not send them.
        network: the network is in this process: all logits, hidden states, other precisions, runs without a cache.
    """

    dialect: str
    version: str = ""
    top: int = 0
    raw: bool = True
    min_p_first: bool = False
    token_ids: bool = False
    tokenizer: bool = False
    chat: bool = False
    prompt_scores: bool = False
    settings: frozenset[str] = COMMON
    context_length: int = 0
    vocabulary_size: int = 0
    network: bool = False

    def check(self, config: GenerationConfig) -> None:
        """Raise `InputError`, in one sentence, for settings that need the local engine or another server."""
        if self.network:
            return
        if config.strategy == "contrastive":
            raise InputError(
                _("contrastive search compares hidden states, which no server tells; choose greedy or sample")
            )
        asked = {
            "top_k": config.top_k is not None,
            "min_p": config.min_p is not None,
            "typical_p": config.typical_p is not None,
            "repetition_penalty": config.repetition_penalty != 1,
            "logit_bias": bool(config.logit_bias or config.banned),
            "ignore_eos": config.ignore_eos,
        }
        for name, wanted in asked.items():
            if wanted and name not in self.settings:
                raise InputError(
                    _("{dialect} servers know no {name}; leave it out, or run locally", dialect=self.dialect, name=name)
                )

    def told(self, known: int, mass: float) -> str:
        """How much of a step is known, in words, such as `top 20 of 151,936, 98.7 % of the mass`.

        Args:
            known: number of candidates.
            mass: sum of their probabilities.
        """
        if not known and self.top:
            return _("the candidates of this step are not kept; run the lane again to see them")
        if not known:
            return _("this server tells no probabilities")
        of = _(" of {count:,}", count=self.vocabulary_size) if self.vocabulary_size else ""
        return _("top {known}{of}, {mass:.1%} of the mass", known=known, of=of, mass=min(mass, 1.0))


# A model whose network is in this process.
LOCAL = Capabilities(
    dialect="",
    network=True,
    token_ids=True,
    tokenizer=True,
    chat=True,
    prompt_scores=True,
    settings=frozenset(field.name for field in fields(GenerationConfig)),
)
