"""Whether a model's answers here are transformers' own, computed over whole texts with nothing kept."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.base.errors import LogitlabError
from engine.generation.config import GenerationConfig
from engine.generation.events import Start, Stepped
from engine.generation.loop import generate, logits_after
from engine.generation.memory import LaneState
from engine.generation.scoring import score
from engine.loading import load_model
from engine.models.local import LocalModel
from engine.text.token import Token
from tests.tiny_models import more_than_text

CHECKS = ("greedy", "batch", "contrastive", "score", "chunks", "branch")
NEW = 6
CANDIDATES = 5
ALPHA = 0.6
# Of probabilities, scores and logits, all computed in float32.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class Judged:
    """What a model gave.

    Attributes:
        way: through which network and how, or why it is refused.
        outcomes: of `CHECKS`: empty for right, else what differs; none for a refused model.
    """

    way: str
    outcomes: dict[str, str]

    @property
    def loads(self) -> bool:
        return bool(self.outcomes)

    @property
    def wrong(self) -> dict[str, str]:
        return {check: outcome for check, outcome in self.outcomes.items() if outcome}


class Oracle:
    """transformers' module, that of the whole model with pictures and sound, given a whole text at every question."""

    def __init__(self, folder: Path) -> None:
        import transformers

        config = transformers.AutoConfig.from_pretrained(folder)
        options = {"local_files_only": True, "dtype": torch.float32}
        auto = transformers.AutoModelForCausalLM
        if config.model_type in more_than_text():
            auto = transformers.AutoModelForMultimodalLM
        try:
            self.module = auto.from_pretrained(folder, **options).eval()
        except ImportError:  # of what its other parts need: the text part alone
            part = transformers.AutoModelForCausalLM.from_config(config.get_text_config(), dtype=torch.float32)
            found = load_file(folder / "model.safetensors")
            part.load_state_dict(
                {name.replace("language_model.", ""): weight for name, weight in found.items()}, strict=False
            )
            part.tie_weights()
            self.module = part.eval()
        self._head: list[Tensor] = []
        self.module.get_output_embeddings().register_forward_pre_hook(
            lambda layer, inputs: self._head.append(inputs[0])
        )
        self._hidden = self._gives_hidden(text(100))

    @torch.inference_mode()
    def _gives_hidden(self, ids: list[int]) -> bool:
        states = self.module(torch.tensor([ids]), use_cache=False, output_hidden_states=True, return_dict=True)
        return bool(states.hidden_states[-1].shape[:-1] == (1, len(ids)))

    @torch.inference_mode()
    def whole(self, ids: list[int]) -> tuple[Tensor, Tensor]:
        """Logits `[positions, vocabulary]` and last hidden states `[positions, hidden]` of a text."""
        self._head.clear()
        result = self.module(
            input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=True, return_dict=True
        )
        hidden = result.hidden_states[-1]  # of some modules in another shape: then what goes into the head
        if not self._hidden:
            hidden = self._head[-1]
        return result.logits[0].float(), hidden[0].float()

    def probabilities(self, ids: list[int]) -> Tensor:
        return self.whole(ids)[0][-1].softmax(-1)

    def contrast(self, ids: list[int]) -> tuple[Tensor, Tensor]:
        """The most probable tokens after a text and their similarities to it, one by one, each in a text of its own."""
        logits, hidden = self.whole(ids)
        tops = logits[-1].topk(CANDIDATES).indices
        ends = torch.stack([self.whole([*ids, int(top)])[1][-1] for top in tops])
        unit = torch.nn.functional.normalize
        return tops, (unit(ends, dim=-1) @ unit(hidden, dim=-1).T).amax(dim=1)


def judge(folder: Path, cache_dir: Path, *, long: int = 600) -> Judged:
    """Load a model from a folder and compare what it answers with transformers' own answers.

    Args:
        long: tokens of the text that goes through in several chunks.
    """
    try:
        model = load_model(str(folder), precision="float32", cache_dir=cache_dir, threads=1)
    except LogitlabError as error:
        return Judged(str(error), {})
    assert isinstance(model, LocalModel)
    oracle = Oracle(folder)
    checks: dict[str, Callable[[LocalModel, Oracle, int], str]] = {
        "greedy": _greedy,
        "batch": _batch,
        "contrastive": _contrastive,
        "score": _score,
        "chunks": _chunks,
        "branch": _branch,
    }
    return Judged(model.facts.path, {name: check(model, oracle, long) for name, check in checks.items()})


def text(count: int, seed: int = 1, vocabulary: int = 320) -> list[int]:
    """Ids that no token of control is among."""
    return torch.randint(3, vocabulary, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def tokens(ids: list[int]) -> tuple[Token, ...]:
    return tuple(Token(position, id, "", "", 0, 0, "") for position, id in enumerate(ids))


def config(**changes: Any) -> GenerationConfig:
    return GenerationConfig(**({"strategy": "greedy", "max_new_tokens": NEW, "ignore_eos": True} | changes))


def steps(model: LocalModel, starts: list[Start], settings: GenerationConfig, **options: Any) -> list[list[Stepped]]:
    """Every lane's steps."""
    lanes: list[list[Stepped]] = [[] for _ in starts]
    for event in generate(model.network, model.tokenizer, starts, [settings] * len(starts), **options):
        if isinstance(event, Stepped):
            lanes[event.lane].append(event)
    return lanes


def _follows(oracle: Oracle, ids: list[int], found: list[Stepped]) -> str:
    """Whether each step took the most probable token with its probability; a tie within rounding may go either way."""
    ids = list(ids)
    for place, step in enumerate(found):
        right = oracle.probabilities(ids)
        if abs((step.raw_probability or 0.0) - float(right[step.token.id])) > TOLERANCE:
            return f"step {place}: {step.raw_probability:.4f} instead of {float(right[step.token.id]):.4f}"
        if float(right.max() - right[step.token.id]) > TOLERANCE:
            return f"step {place}: token {step.token.id} instead of {int(right.argmax())}"
        ids.append(step.token.id)
    return "" if len(found) == NEW else f"{len(found)} steps instead of {NEW}"


def _greedy(model: LocalModel, oracle: Oracle, long: int) -> str:
    ids = text(37)
    return _follows(oracle, ids, steps(model, [Start(tokens(ids))], config())[0])


def _batch(model: LocalModel, oracle: Oracle, long: int) -> str:
    texts = [text(37), text(9, seed=2), text(21, seed=3)]
    found = steps(model, [Start(tokens(ids)) for ids in texts], config())
    return "; ".join(filter(None, (_follows(oracle, ids, lane) for ids, lane in zip(texts, found))))


def _contrastive(model: LocalModel, oracle: Oracle, long: int) -> str:
    texts = [text(33), text(12, seed=4)]
    settings = config(strategy="contrastive", top_k=CANDIDATES, alpha=ALPHA)
    for ids, lane in zip(texts, steps(model, [Start(tokens(ids)) for ids in texts], settings)):
        for place, step in enumerate(lane):
            tops, similarities = oracle.contrast(ids)
            right = dict(zip(tops.tolist(), similarities.tolist()))
            shown = {one.id: one.similarity for one in step.candidates if one.similarity is not None}
            for id in right.keys() & shown.keys():
                if abs(right[id] - shown[id]) > TOLERANCE:
                    return f"step {place}: similarity {shown[id]:.4f} instead of {right[id]:.4f}"
            if len(right.keys() & shown.keys()) < CANDIDATES - 1:
                return f"step {place}: other candidates"
            scores = (1 - ALPHA) * oracle.probabilities(ids)[tops] - ALPHA * similarities
            chosen = (tops == step.token.id).nonzero().flatten().tolist()
            if not chosen or float(scores.max() - scores[chosen[0]]) > TOLERANCE:
                return f"step {place}: token {step.token.id} instead of {int(tops[scores.argmax()])}"
            ids = [*ids, step.token.id]
    return ""


def _score(model: LocalModel, oracle: Oracle, long: int) -> str:
    ids = text(long, seed=5)
    right = oracle.whole(ids[:-1])[0].log_softmax(-1)
    found = list(score(model.network, tokens(ids)))
    for place in range(1, len(ids)):
        shown, expected = found[place].surprisal_bits or 0.0, -float(right[place - 1, ids[place]]) / 0.6931471805599453
        if abs(shown - expected) > TOLERANCE * max(1.0, expected):
            return f"token {place}: {shown:.3f} bits instead of {expected:.3f}"
    return ""


def _chunks(model: LocalModel, oracle: Oracle, long: int) -> str:
    ids = text(long, seed=6)
    right = oracle.whole(ids)[0][-1].log_softmax(-1)
    found = logits_after(model.network, ids).log_softmax(-1)
    off = float((right - found).abs().max())
    return "" if off <= 5 * TOLERANCE else f"{off:.3f} nats off"


def _branch(model: LocalModel, oracle: Oracle, long: int) -> str:
    ids = text(30, seed=7)
    kept: list[LaneState] = []
    written = [step.token.id for step in steps(model, [Start(tokens(ids))], config(), keep_state=kept.append)[0]]
    other = (written[2] + 7) % 300 + 3
    outcomes = []
    for state in kept or [None]:
        start = Start(tokens(ids), tuple(written[:2]), (other,), state)
        lane = steps(model, [start], config())[0]
        outcomes.append(_follows(oracle, [*ids, *written[:2], other], lane[1:]))
        # The lane that was left stays as it was.
        again = steps(model, [Start(tokens(ids), tuple(written[:3]), (), state)], config())[0]
        outcomes.append(_follows(oracle, [*ids, *written[:3]], again))
    return "; ".join(filter(None, outcomes))
