"""A model's tokenizer and chat template, from its folder or its .gguf file."""

import hashlib
import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base import paths
from engine.base.errors import LogitlabError, ModelFileError, first_line
from engine.base.language import _
from engine.models import catalog
from engine.networks.pretrained import import_quietly, read_json
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

TOKENIZER_FORMAT = 2
FACTS = "facts.json"


def load_tokenizer(entry: catalog.Entry, path: Path, cache_dir: Path | None = None) -> Tokenizer:
    """The tokenizer of a model whose files are on disk. The first time takes seconds for a .gguf file.

    Args:
        path: the model's folder or .gguf file.

    Raises:
        ModelFileError: the tokenizer is damaged or missing, or of an unknown kind.
    """
    try:
        return _load_tokenizer(path, cache_dir)
    except LogitlabError:
        raise
    except Exception as error:  # libraries raise many kinds for a file that they did not expect
        raise ModelFileError(
            _("{name} has no tokenizer that can be used: {error}", name=entry.name, error=first_line(error))
        ) from error


def _load_tokenizer(path: Path, cache_dir: Path | None) -> Tokenizer:
    if path.is_file():
        return _tokenizer_from_gguf(path, cache_dir)
    config = read_json(path / "config.json")
    generation = read_json(path / "generation_config.json") if (path / "generation_config.json").is_file() else {}
    eos_ids = _eos_ids(generation.get("eos_token_id", config.get("eos_token_id")))
    if (path / "tokenizer.json").is_file() and _plain(path):
        return Tokenizer.from_file(path / "tokenizer.json", eos_ids, _chat_template(path), _special_tokens(path))
    import_quietly()
    import transformers

    loaded = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    return Tokenizer(loaded.backend_tokenizer, eos_ids, _chat_template(path), _special_tokens(path))


def _plain(folder: Path) -> bool:
    """Whether `tokenizer.json` is enough: no flag of `tokenizer_config.json` changes the template."""
    file = folder / "tokenizer_config.json"
    flags = read_json(file) if file.is_file() else {}
    return not any(key in flags for key in ("add_bos_token", "add_eos_token", "add_prefix_space"))


def _chat_template(folder: Path) -> str | None:
    if (file := folder / "chat_template.jinja").is_file():
        return file.read_text(encoding="utf-8", errors="replace")
    file = folder / "tokenizer_config.json"
    template = read_json(file).get("chat_template") if file.is_file() else None
    return template if isinstance(template, str) else None


def _special_tokens(folder: Path) -> dict[str, str]:
    """Texts of the special tokens by the names that chat templates use, from `tokenizer_config.json`."""
    file = folder / "tokenizer_config.json"
    config = read_json(file) if file.is_file() else {}
    named = {name: value for name, value in config.items() if name.endswith("_token")}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in named.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _eos_ids(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [id for id in values if isinstance(id, int)]


def _tokenizer_from_gguf(path: Path, cache_dir: Path | None) -> Tokenizer:
    """Read the converted tokenizer; the first time transformers converts it, which takes seconds, and it is kept."""
    with path.open("rb") as file:
        head = file.read(4 << 20)
    name = f"{hashlib.sha256(head).hexdigest()[:24]}-{TOKENIZER_FORMAT}"
    # Beside the models, for all users; in the user's state folder where the cache is read-only.
    places = [folder / name for folder in (paths.tokenizers_dir(cache_dir), paths.state_dir() / "tokenizers")]
    for folder in places:
        if (folder / FACTS).is_file():
            return _kept_tokenizer(folder)
    backend, facts = _converted_tokenizer(path)
    for folder in places:
        with suppress(OSError):
            _keep_tokenizer(backend, facts, folder)
            return _kept_tokenizer(folder)
    return Tokenizer(backend, facts["eos_ids"], facts["chat_template"], facts["special_tokens"])


def _converted_tokenizer(path: Path) -> "tuple[Backend, dict[str, Any]]":
    import_quietly()
    import transformers
    from tokenizers import pre_tokenizers

    from engine.networks.gguf_file import open_gguf

    metadata = open_gguf(path).metadata
    loaded = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    backend = loaded.backend_tokenizer
    if metadata.get("tokenizer.ggml.pre") == "smollm":
        # transformers' converter leaves out that this vocabulary was learned with single digits.
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    named = {name: metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
    return backend, {
        "special_tokens": {f"{name}_token": backend.id_to_token(id) for name, id in named.items() if id is not None},
        "eos_ids": _eos_ids([metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]),
        "chat_template": metadata.get("tokenizer.chat_template"),
    }


def _kept_tokenizer(folder: Path) -> Tokenizer:
    facts = read_json(folder / FACTS)
    return Tokenizer.from_file(
        folder / "tokenizer.json", facts["eos_ids"], facts["chat_template"], facts["special_tokens"]
    )


def _keep_tokenizer(backend: "Backend", facts: dict[str, Any], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    partial.chmod(0o755)  # mkdtemp would keep other users out of a shared cache
    try:
        (partial / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
        (partial / FACTS).write_text(json.dumps(facts), encoding="utf-8")
        try:
            partial.rename(folder)
        except OSError:
            if not (folder / FACTS).is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
