"""What a GGUF file says of its tokens, and what llama.cpp takes as given where it says nothing.

The file's list of tokens is the vocabulary: nothing is appended and nothing respelled. Source: llama.cpp,
`src/llama-vocab.cpp` (`llama_vocab::impl::load`), as in llama-cpp-python 0.3.36.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from engine.base.errors import ModelFileError
from engine.base.language import _
from engine.models.pre_tokenizers import DEFAULT, PRE_TOKENIZERS, PreTokenizer


class Kind(IntEnum):
    """What a token is (`tokenizer.ggml.token_type`)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


SPECIAL = (Kind.CONTROL, Kind.UNKNOWN)
MODELS = ("gpt2", "gemma4", "llama", "t5", "bert")

# Tokens for text that is filled in, found by name where the file does not give them. The last three end a text.
_INFILLING: Mapping[str, Sequence[str]] = {
    "fim_pre": (
        *("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>"),
        "<|prefix|>",
    ),
    "fim_suf": (
        *("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>"),
        "<|suffix|>",
    ),
    "fim_mid": (
        *("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>"),
        "<|middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
_INFILLING_ENDS = ("fim_pad", "fim_rep", "fim_sep")
_ENDS = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
    *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
    *("<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
)
_ALWAYS_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
# What the special tokens are where a file does not name them.
_DEFAULT_IDS: Mapping[str, Mapping[str, int]] = {
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "bert": {"bos": 101, "unknown": 100, "seperator": 102, "padding": 0, "mask": 103},
    "t5": {"eos": 1, "unknown": 2, "padding": 0},
    "gpt2": {"bos": 11, "eos": 11},
}


@dataclass(frozen=True)
class Vocabulary:
    """What a file says of its tokens.

    Attributes:
        model: the kind of tokenizer, `tokenizer.ggml.model`.
        rule: how a byte pair vocabulary cuts words.
        texts: of all tokens, by id.
        ids: by text; of equal texts the last.
        kinds: by id, corrected as llama.cpp corrects them.
        scores: by id.
        named: ids of the special tokens (`bos`, `eos`, `eot` …).
        ends: ids that end a text.
        warning: why its tokens may be others than those the model learned with.
    """

    fields: Mapping[str, Any]
    model: str
    rule: PreTokenizer
    texts: Sequence[str]
    ids: Mapping[str, int]
    kinds: Sequence[int]
    scores: Sequence[float]
    named: Mapping[str, int]
    ends: frozenset[int]
    warning: str | None

    def flag(self, name: str, default: bool) -> bool:
        return bool(self.fields.get(f"tokenizer.ggml.{name}", default))

    @property
    def marks_spaces(self) -> bool:
        """Whether its entries spell a space as `▁`."""
        return self.model not in ("gpt2", "gemma4") or self.rule.marks_spaces


def read_vocabulary(name: str, fields: Mapping[str, Any]) -> Vocabulary:
    """What the fields of a file say of its tokens; `name` is the file's. Raises `ModelFileError`."""
    model = fields.get("tokenizer.ggml.model", "none")
    listed = fields.get("tokenizer.ggml.tokens")
    if model in ("none", "no_vocab") or not listed:
        raise ModelFileError(_("{name} holds no tokenizer; use a file that does", name=name))
    if model not in MODELS:
        raise ModelFileError(
            _(
                "{name} has a tokenizer of the kind {kind!r}; those that can be read are {kinds}",
                name=name,
                kind=model,
                kinds=", ".join(MODELS),
            )
        )
    texts = [text or f"[EMPTY_{id}]" for id, text in enumerate(listed)]
    ids = {text: id for id, text in enumerate(texts)}
    kinds = list(fields.get("tokenizer.ggml.token_type") or [Kind.NORMAL] * len(texts))
    scores = fields.get("tokenizer.ggml.scores") or [0.0] * len(texts)
    if len(kinds) < len(texts) or len(scores) < len(texts):
        raise ModelFileError(_("{name} is damaged: its tokens lack kinds or scores; fetch it again", name=name))
    rule, warning = _rule(fields, model)
    named = _named(fields, model, kinds)
    ends = _ends(named, ids, kinds)
    return Vocabulary(fields, model, rule, texts, ids, kinds, scores, named, ends, warning)


def _rule(fields: Mapping[str, Any], model: str) -> tuple[PreTokenizer, str | None]:
    if model not in ("gpt2", "gemma4"):
        return DEFAULT, None
    name = "gemma4" if model == "gemma4" else fields.get("tokenizer.ggml.pre")
    if rule := PRE_TOKENIZERS.get(str(name)):
        return rule, None
    if not name:
        return DEFAULT, _(
            "the file does not say how it cuts texts into words (tokenizer.ggml.pre), so llama.cpp's default is used: "
            "tokens may be others than those the model learned with"
        )
    return DEFAULT, _(
        "the file cuts texts into words by {name!r} (tokenizer.ggml.pre), which is not known here, so llama.cpp's "
        "default is used: tokens may be others than those the model learned with",
        name=name,
    )


def _named(fields: Mapping[str, Any], model: str, kinds: Sequence[int]) -> dict[str, int]:
    """Ids of the special tokens, as the file names them, else as its kind of tokenizer has them."""
    named = {name: id for name, id in _DEFAULT_IDS.get(model, {}).items() if id < len(kinds)}
    if model == "gpt2":  # 11 was Falcon's, and is an exclamation mark or a comma elsewhere
        named = {name: id for name, id in named.items() if kinds[id] == Kind.CONTROL}
    for field, value in fields.items():
        name = field.removeprefix("tokenizer.ggml.").removesuffix("_token_id")
        if field == f"tokenizer.ggml.{name}_token_id" and isinstance(value, int) and 0 <= value < len(kinds):
            named[name] = value
    return named


def _ends(named: Mapping[str, int], ids: Mapping[str, int], kinds: list[int]) -> frozenset[int]:
    """Tokens that end a text; corrects the kinds of tokens that are known by their name."""
    infilling = dict(named)
    for field, names in _INFILLING.items():
        if field not in named and (found := next((ids[name] for name in names if name in ids), None)) is not None:
            infilling[field] = found
            kinds[found] = Kind.CONTROL
    ends = {infilling[name] for name in ("eos", "eot", "eom", *_INFILLING_ENDS) if name in infilling}
    by_name = {name: ids[name] for name in _ENDS if name in ids}
    for id in by_name.values():
        kinds[id] = Kind.CONTROL
    ends.update(by_name.values())
    for name in _ALWAYS_SHOWN:
        if name in ids:
            kinds[ids[name]] = Kind.USER_DEFINED
    calls, returns = {"<|call|>", "<|calls|>"}, {"<|return|>", "<|flush|>"}
    if "<|end|>" in by_name and calls & by_name.keys() and returns & by_name.keys():
        # It ends a message of several, in gpt-oss and Solar.
        ends.discard(by_name["<|end|>"])
        kinds[by_name["<|end|>"]] = Kind.USER_DEFINED
    if "</s>" in by_name and "<|tool_response>" in by_name:  # Gemma 4's `</s>` is HTML
        ends.discard(by_name["</s>"])
        kinds[by_name["</s>"]] = Kind.NORMAL
    return frozenset(ends)
