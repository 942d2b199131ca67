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
    warnings.filterwarnings("ignore", module="transformers|torch|huggingface_hub|peft")
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


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a model's weights are loaded from, of all that lie in its folder.

    A folder may hold the same weights again, as `consolidated.safetensors` or `model.fp16.safetensors`.

    Raises:
        ModelFileError: there are none, or one is missing.
    """
    if (whole := folder / "model.safetensors").is_file():
        return [whole]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise ModelFileError(
            _("{path} has no model.safetensors, and pickled weights are never loaded", path=folder)
            if any(folder.glob("*.safetensors"))
            else _("{path} has no safetensors weights, and pickled ones are never loaded", path=folder)
        )
    listed = read_json(index).get("weight_map")
    names = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
    files = [folder / Path(name).name for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        raise ModelFileError(_("{path} lacks {file}; fetch it again", path=folder, file=missing[0]))
    if not files:
        raise ModelFileError(_("{path} lists no weights; fetch it again", path=index))
    return files


def adapter_config(folder: Path) -> dict[str, Any] | None:
    """What a PEFT adapter in a folder says about itself; `None` where there is none."""
    file = folder / "adapter_config.json"
    return read_json(file) if file.is_file() else None


def adapted_model(folder: Path) -> str | None:
    """The model that a folder with nothing but an adapter is for, as its adapter names it.

    Raises:
        ModelFileError: it names none.
    """
    if not folder.is_dir() or (folder / "config.json").is_file() or (adapter := adapter_config(folder)) is None:
        return None
    if not (base := str(adapter.get("base_model_name_or_path") or "")):
        raise ModelFileError(_("the adapter in {path} does not name the model it is for", path=folder))
    return str(near) if (near := folder / base).is_dir() else base
