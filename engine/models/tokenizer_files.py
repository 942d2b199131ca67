"""A model's tokenizer and chat template, from its folder or its .gguf file."""

from pathlib import Path

from engine.base.errors import LogitlabError, ModelFileError, first_line
from engine.base.language import _
from engine.models import catalog
from engine.models.gguf_tokenizer import gguf_tokenizer
from engine.networks.pretrained import import_quietly, read_json
from engine.text.tokenizer import Tokenizer


def load_tokenizer(entry: catalog.Entry, path: Path) -> Tokenizer:
    """The tokenizer of a model whose files are here; without torch.

    Args:
        path: the model's folder or .gguf file.

    Raises:
        ModelFileError: the tokenizer is damaged or missing, or of an unknown kind.
    """
    try:
        return _load_tokenizer(path)
    except LogitlabError:
        raise
    except Exception as error:  # libraries raise many kinds for a file that they did not expect
        raise ModelFileError(
            _("{name} has no tokenizer that can be used: {error}", name=entry.name, error=first_line(error))
        ) from error


def _load_tokenizer(path: Path) -> Tokenizer:
    if path.is_file():
        return gguf_tokenizer(path)
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
