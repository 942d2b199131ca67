"""What can be done with a model, so that only that is offered, and no number is invented."""

from dataclasses import dataclass, fields

from engine.base.errors import InputError
from engine.base.language import N_, _
from engine.generation.config import GenerationConfig
from engine.generation.stages.registry import PARAMETERS, STAGES, supported, wanted

# Settings of every server's completions, beside those of stages.
COMMON = frozenset({"seed", "stop"})

# How each kind of server is started so that it does more than by default.
OPTIONS = {
    ("llama-cpp-python", "interrupts"): "--interrupt_requests False",
    ("llama-cpp-python", "top"): "--logits_all True",
    ("llama.cpp", "at_once"): "--parallel {lanes}",
    ("vLLM", "at_once"): "--max-num-seqs {lanes}",
    ("vLLM", "top"): "--max-logprobs 20",
    ("vLLM", "raw"): "--logprobs-mode raw_logprobs",
    ("Ollama", "at_once"): "OLLAMA_NUM_PARALLEL={lanes}",
}
# What changes the others.
CHANGES = {
    ("llama.cpp", "drafts"): N_("; start it without --model-draft to change that"),
    ("llama.cpp", "top"): N_("; those of the model itself came with the builds of December 2024"),
    ("Ollama", "continues"): N_("; a Modelfile with TEMPLATE {{ .Prompt }} changes that"),
    ("Ollama", "top"): N_("; Ollama's came with version 0.12.11"),
    ("LM Studio", "at_once"): N_("; Max Concurrent Predictions, where it loads a model, changes that"),
}
USUAL_LANES = 4  # that a server is started for, at least
MOST_CANDIDATES = 20  # that a server is asked for


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What can be done with a model: everything where its network is in this process, else what its server offers.

    Attributes:
        dialect: `vLLM`, `llama.cpp`, `llama-cpp-python`, `Ollama`, `LM Studio` or `OpenAI`; empty for a network in
            this process.
        version: name and version, in the server's words.
        top: candidates of a step that it sends at most; 0 where it sends none, or no probabilities of them.
        raw: whether their probabilities are the model's own, before any setting acts; else those after all settings.
        min_p_first: whether min-p cuts before top-k and top-p; elsewhere it cuts after them.
        token_ids: prompts can be token ids, and ids come back, so that a lane goes on exactly where it was.
        tokenizer: texts can be cut into tokens.
        chat: a message can be put into the model's chat template.
        prompt_scores: the probability of each token of a prompt can be computed.
        settings: fields of `GenerationConfig` that are applied.
        context_length, vocabulary_size: in tokens; 0 where a server does not send them.
        at_once: texts that it writes at once; 0 where no limit was found.
        interrupts: it breaks a text off when something else is asked for.
        drafts: it guesses tokens ahead, and gives no probabilities for those that were right.
        continues: it goes on from a prompt as it is; else it puts the prompt into a chat template.
        messages: it has no completions: it takes messages alone, and a prompt as a user's message.
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
    settings: frozenset[str] = COMMON | supported("OpenAI")
    context_length: int = 0
    vocabulary_size: int = 0
    at_once: int = 0
    interrupts: bool = False
    drafts: bool = False
    continues: bool = True
    messages: bool = False
    network: bool = False

    def check(self, config: GenerationConfig) -> None:
        """Raise `InputError`, in one sentence, for settings that need the local engine or another server."""
        if self.network:
            return
        if config.strategy == "contrastive":
            raise InputError(
                _("contrastive search compares hidden states, which no server tells; choose greedy or sample")
            )
        if config.strategy == "beam":
            raise InputError(_("beams are followed by the model's own numbers, which no server tells; run locally"))
        if config.interventions:
            raise InputError(_("interventions act inside the network, which no server lets in; run locally"))
        if config.draft is not None:
            raise InputError(_("a draft is checked by the model's own numbers, which no server tells; run locally"))
        for stage in STAGES:
            if stage.refused and stage.is_on(config):
                raise InputError(_(stage.refused))
        # llama-server takes an order; vLLM has one, which can be named; the others have one that they do not say.
        if config.order and self.dialect != "llama.cpp" and (self.dialect, config.order) != ("vLLM", ("vllm",)):
            raise InputError(
                _("{dialect} servers have an order of their own; leave order out, or run locally", dialect=self.dialect)
            )
        for name in [*wanted(config), *(["ignore_eos"] if config.ignore_eos else [])]:
            if name in PARAMETERS and self.dialect in PARAMETERS[name].unlike:
                raise InputError(_(PARAMETERS[name].unlike[self.dialect], dialect=self.dialect))
            name = "logit_bias" if name == "banned" else name  # a ban goes to servers as a bias
            if name not in self.settings:
                raise InputError(
                    _("{dialect} servers know no {name}; leave it out, or run locally", dialect=self.dialect, name=name)
                )

    def coverage(self, known: int, mass: float) -> str:
        """How much of a step is known, in words, such as `top 20 of 151,936, 98.7 % of the mass`.

        Args:
            known: number of candidates.
            mass: sum of their probabilities.
        """
        if not known and self.drafts:
            return _("a draft model guessed this token: the server gives no probabilities for it")
        if not known and self.top:
            return _("the candidates of this step are not kept; run the lane again to see them")
        if not known:
            return _("this server tells no probabilities")
        of = _(" of {count:,}", count=self.vocabulary_size) if self.vocabulary_size else ""
        return _("top {known}{of}, {mass:.1%} of the mass", known=known, of=of, mass=min(mass, 1.0))

    def in_turn(self, lanes: int) -> str:
        """Why some of this number of lanes wait for others, in one sentence; empty where none does."""
        if not self.at_once or lanes <= self.at_once:
            return ""
        if self.interrupts:
            said = _("this server breaks off a text when another is asked for, so lanes go one after the other")
        elif self.at_once == 1:
            said = _("this server writes one text at a time, so lanes go one after the other")
        else:
            said = _("this server writes {count} texts at a time, so the other lanes wait", count=self.at_once)
        return said + self._unless("interrupts" if self.interrupts else "at_once", lanes)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is less than it could be in front of this server, and the option that changes it, a sentence each."""
        said = [self.in_turn(2)]
        if self.network:
            return ()
        if self.messages:
            said.append(
                _(
                    "this server takes messages alone: a prompt goes as one user's message, and a lane cannot go on "
                    "from its middle: let it run without pauses, steps and branches"
                )
            )
        elif not self.continues:
            said.append(
                _(
                    "this server puts prompts into its chat template, so a lane cannot go on from its middle: "
                    "let it run without pauses, steps and branches"
                )
                + self._unless("continues")
            )
        if not self.top:
            said.append(_("this server tells no probabilities") + self._unless("top" if self.raw else "raw"))
        elif not self.raw:
            said.append(_("this server gives probabilities after its settings, not the model's") + self._unless("raw"))
        elif self.top < MOST_CANDIDATES and (self.dialect, "top") in OPTIONS:
            said.append(_("this server lists {count} candidates a token", count=self.top) + self._unless("top"))
        if self.drafts:
            said.append(
                _("this server has a draft model guess tokens ahead, and gives no probabilities for what it takes")
                + self._unless("drafts")
            )
        return tuple(one for one in said if one)

    def _unless(self, what: str, lanes: int = 1) -> str:
        option = OPTIONS.get((self.dialect, what))
        if option:
            return _("; start it with {option} to change that", option=option.format(lanes=max(lanes, USUAL_LANES)))
        return _(CHANGES.get((self.dialect, what), ""))


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
