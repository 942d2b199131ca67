"""A model's tokenizer and chat template, from its folder or its .gguf file."""

from pathlib import Path

from engine.base.errors import LogitlabError, ModelFileError, first_line
from engine.base.language import _
from engine.models import catalog
from engine.models.folder_tokenizer import folder_tokenizer
from engine.models.gguf_tokenizer import gguf_tokenizer
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
    return folder_tokenizer(path)
