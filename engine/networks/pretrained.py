"""Reading what lies in a model's folder."""

import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

from engine.base.errors import ModelFileError, first_line
from engine.base.language import _

MAX_JSON_BYTES = 64_000_000


def import_quietly() -> None:
    """Import torch and transformers without a word on the terminal."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="transformers|torch|huggingface_hub")
    import transformers

    transformers.utils.logging.disable_progress_bar()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model's folder. Raises `ModelFileError`."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelFileError(_("{path} is larger than any model's settings; choose another model", path=path))
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFileError(
            _("cannot read {path}: {reason}; give a folder of a transformers model", path=path, reason=error.strerror)
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(_("{path} is not valid JSON: {error}", path=path, error=first_line(error))) from error
    if not isinstance(data, dict):
        raise ModelFileError(_("{path} holds no JSON object", path=path))
    return data
