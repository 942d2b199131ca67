"""Mistral's `tekken.json`: bytes by rank, special tokens before them.

Source: mistral-common 1.13, `mistral_common/tokens/tokenizers/tekken.py`, whose ids these are.
"""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import ModelFileError
from engine.base.language import _
from engine.networks.pretrained import read_json
from engine.text.spelling import byte_alphabet

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

# What a file without a list of them means (`Tekkenizer.DEPRECATED_SPECIAL_TOKENS`).
_SPECIAL = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
)


def tekken_backend(file: Path) -> "tuple[Backend, dict[str, str]]":
    """The tokenizer that a file describes, and what its special tokens are called. Raises `ModelFileError`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    data = read_json(file)
    try:
        special = _special_tokens(data)
        config = data["config"]
        size = int(config.get("default_vocab_size") or len(data["vocab"]) + len(special))
        ranked = [base64.b64decode(entry["token_bytes"]) for entry in data["vocab"][: size - len(special)]]
        pattern = str(config["pattern"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(_("{path} is no usable tokenizer: {error}", path=file, error=repr(error))) from error
    names = {byte: char for char, byte in byte_alphabet().items()}
    spelled = ["".join(names[byte] for byte in token) for token in ranked]
    ids = {text: rank + len(special) for rank, text in enumerate(spelled)} | {
        text: id for id, text in enumerate(special)
    }
    backend = Tokenizer(models.BPE(ids, _merges(ids, spelled), ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    if "<s>" in special:
        backend.post_processor = processors.TemplateProcessing(
            single=["<s>", "$A"], special_tokens=[("<s>", special.index("<s>"))]
        )
    return backend, {name: text for name, text in named.items() if text in special}


def _special_tokens(data: dict[str, Any]) -> list[str]:
    """Texts by id; places without a token of their own have names, too."""
    listed = data.get("special_tokens")
    texts = (
        dict(enumerate(_SPECIAL))
        if listed is None
        else {int(entry["rank"]): str(entry["token_str"]) for entry in listed}
    )
    count = int(data["config"].get("default_num_special_tokens") or len(texts))
    return [texts.get(id, f"<SPECIAL_{id}>") for id in range(count)]


def _merges(ids: dict[str, int], spelled: list[str]) -> list[tuple[str, str]]:
    """All pairs of tokens that make a token, by the token's rank: tiktoken joins the pair of the lowest rank first."""
    merges = []
    for text in spelled:
        pairs = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        known = [(left, right) for left, right in pairs if left in ids and right in ids]
        merges += sorted(known, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return merges
