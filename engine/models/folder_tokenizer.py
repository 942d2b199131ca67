"""The tokenizer of a transformers folder, as its files have it.

`tokenizer.json` says everything but names: transformers (5.23, `PreTrainedTokenizerBase._from_pretrained`) reads it as
it is and adds the tokens that the files beside it name. Without it, SentencePiece's and Mistral's own files are
converted here, and all others by transformers.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import ModelFileError
from engine.base.language import _
from engine.models.chat_templates import chat_templates
from engine.models.sentencepiece_file import sentencepiece_backend
from engine.models.tekken import tekken_backend
from engine.networks.pretrained import import_quietly, read_json
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

_STANDARD = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_ENDS = ("bos_token", "eos_token", "unk_token", "pad_token")
# What transformers' classes call them where no file does.
_DEFAULTS: dict[str, tuple[str, ...]] = {
    "LlamaTokenizer": ("<s>", "</s>", "<unk>"),
    "CodeLlamaTokenizer": ("<s>", "</s>", "<unk>"),
    "GemmaTokenizer": ("<bos>", "<eos>", "<unk>", "<pad>"),
    "GPT2Tokenizer": ("<|endoftext|>",) * 3,
}
# The classes that take SentencePiece's ids as they are; others have tables of their own.
_PLAIN_PIECES = {
    "",
    "LlamaTokenizer",
    "CodeLlamaTokenizer",
    "GemmaTokenizer",
    "MistralTokenizer",
    "MistralCommonBackend",
    "MistralCommonTokenizer",
    "PreTrainedTokenizer",
    "TokenizersBackend",
}

# What transformers makes a tokenizer of; without any of them it makes one of three words.
_VOCABULARIES = ("vocab*", "*.model", "*.tiktoken", "*.vocab", "bpe.codes", "tokenizer*.py")


def folder_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder. Raises `ModelFileError`, or what a library says of a damaged file."""
    settings = _settings(folder)
    named = _named(folder, settings)
    backend = _backend(folder, settings, named)
    _add_named(backend, folder, settings, named)
    templates = chat_templates(folder, settings)
    tokenizer = Tokenizer(backend, _eos_ids(folder, backend, named), templates.default, named)
    tokenizer.other_templates = templates.others
    return tokenizer


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    return read_json(file) if file.is_file() else {}


def _class(folder: Path, settings: Mapping[str, Any]) -> str:
    config = folder / "config.json"
    name = settings.get("tokenizer_class") or (read_json(config).get("tokenizer_class") if config.is_file() else None)
    return str(name or "").removesuffix("Fast")


def _named(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """What chat templates call special tokens: `tokenizer_config.json`'s names, or `special_tokens_map.json`'s."""
    given = dict(settings)
    map_file = folder / "special_tokens_map.json"
    if "added_tokens_decoder" not in settings and map_file.is_file():
        given |= read_json(map_file)
    defaults = _DEFAULTS.get(_class(folder, settings), ())
    found = dict(zip(_ENDS, defaults)) if defaults and not _byte_level(folder, settings) else {}
    for name, value in given.items():
        if name in _STANDARD:
            if (text := _content(value)) is None:
                found.pop(name, None)
            else:
                found[name] = text
        elif name.endswith("_token") and isinstance(value, str):
            found[name] = value
    extra = given.get("extra_special_tokens")
    if isinstance(extra, dict):
        found |= {name: text for name, value in extra.items() if (text := _content(value)) is not None}
    return found


def _byte_level(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a `tokenizer.json` spells bytes, as no SentencePiece vocabulary does, whatever class is named."""
    file = _tokenizer_file(folder, settings)
    return file is not None and '"ByteLevel"' in file.read_text(encoding="utf-8", errors="replace")


def _content(value: object) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _backend(folder: Path, settings: Mapping[str, Any], named: dict[str, str]) -> "Backend":
    """The rules and the vocabulary; `named` learns what a converted file names."""
    import tokenizers

    if (file := _tokenizer_file(folder, settings)) is not None:
        return Tokenizer.from_file(file).backend
    if (file := folder / "tekken.json").is_file():
        backend, names = tekken_backend(file)
        _name(named, settings, names)
        return backend
    pieces = _pieces_file(folder)
    if pieces is not None and _class(folder, settings) in _PLAIN_PIECES:
        renamed = {
            int(id): text
            for id, token in dict(settings.get("added_tokens_decoder") or {}).items()
            if (text := _content(token)) is not None
        }
        backend, names = sentencepiece_backend(
            pieces,
            renamed,
            add_bos=bool(settings.get("add_bos_token", True)),
            add_eos=bool(settings.get("add_eos_token", False)),
        )
        _name(named, settings, names)
        return backend
    if pieces is not None and not _has_converters():
        raise ModelFileError(
            _(
                "the tokenizer in {file} is converted with sentencepiece and protobuf, which are not installed; "
                "install them with: pip install 'logitlab[tokenizers]'",
                file=pieces.name,
            )
        )
    if pieces is None and not any(file for pattern in _VOCABULARIES for file in folder.glob(pattern)):
        read_json(folder / "config.json")  # what is no model's folder is refused as that
        raise ModelFileError(
            _("{folder} holds no tokenizer; put the model's tokenizer.json or tokenizer.model into it", folder=folder)
        )
    import_quietly()
    import transformers

    loaded = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for name, text in loaded.special_tokens_map.items():
        named.setdefault(name, text)
    backend = loaded.backend_tokenizer
    assert isinstance(backend, tokenizers.Tokenizer)
    return backend


def _tokenizer_file(folder: Path, settings: Mapping[str, Any]) -> Path | None:
    """`tokenizer.json`, or the newest of those that `tokenizer_config.json` names for newer libraries."""
    names = [str(name) for name in settings.get("fast_tokenizer_files") or ()]
    newer = {found[1]: name for name in names if (found := re.fullmatch(r"tokenizer\.(.+)\.json", name))}
    files = [folder / name for _version, name in sorted(newer.items(), reverse=True)]
    return next((file for file in [*files, folder / "tokenizer.json"] if file.is_file()), None)


def _name(named: dict[str, str], settings: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Take the names that a tokenizer's own file gives, where no other file does."""
    for name, text in names.items():
        if name not in settings:
            named[name] = text


def _pieces_file(folder: Path) -> Path | None:
    """SentencePiece's file. tiktoken's, lines of base64 text, may have the same name."""
    for file in sorted(folder.glob("*.model"), key=lambda file: (file.name != "tokenizer.model", file.name)):
        with file.open("rb") as opened:
            if not re.match(rb"[A-Za-z0-9+/]+=* \d+\r?\n", opened.read(200)):
                return file
    return None


def _has_converters() -> bool:
    from importlib.util import find_spec

    return find_spec("sentencepiece") is not None and find_spec("google.protobuf") is not None


def _add_named(backend: "Backend", folder: Path, settings: Mapping[str, Any], named: Mapping[str, str]) -> None:
    """Add the tokens that stand beside the vocabulary, as transformers does."""
    from tokenizers import AddedToken

    present = {token.content for token in backend.get_added_tokens_decoder().values()}
    special = {*named.values(), *_extras(settings)}
    beside: list[AddedToken] = []
    if "added_tokens_decoder" in settings:
        numbered = sorted(settings["added_tokens_decoder"].items(), key=lambda pair: int(pair[0]))
        beside = [_added_token(token) for _id, token in numbered]
    elif (file := folder / "added_tokens.json").is_file():
        by_id = sorted(read_json(file).items(), key=lambda pair: pair[1])
        beside = [AddedToken(text, normalized=text not in special, special=text in special) for text, _id in by_id]
    backend.add_tokens([token for token in beside if token.content not in present])
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in named.values()])
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in _extras(settings)])


def _added_token(value: Mapping[str, Any]) -> "AddedToken":
    from tokenizers import AddedToken

    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(value["content"], **{flag: bool(value[flag]) for flag in flags if flag in value})


def _extras(settings: Mapping[str, Any]) -> list[str]:
    """Special tokens that have no name."""
    given = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or ()
    return [text for one in given if (text := _content(one)) is not None] if isinstance(given, list) else []


def _eos_ids(folder: Path, backend: "Backend", named: Mapping[str, str]) -> list[int]:
    """What ends a text: as generation and model are configured, else as the tokenizer names it."""
    for file in ("generation_config.json", "config.json"):
        if (folder / file).is_file():
            config = read_json(folder / file)
            inner = config.get("text_config")
            for place in (config, inner if isinstance(inner, dict) else {}):
                if ids := as_ids(place.get("eos_token_id")):
                    return ids
    eos = backend.token_to_id(named["eos_token"]) if "eos_token" in named else None
    return [] if eos is None else [eos]


def as_ids(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [id for id in values if isinstance(id, int)]
