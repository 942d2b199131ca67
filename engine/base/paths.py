"""Every path logitlab reads or writes comes from here."""

import os
from pathlib import Path

import platformdirs

APP = "logitlab"


def cache_dir(override: Path | None = None) -> Path:
    """Where fetched models lie: `override`, else `LOGITLAB_CACHE_DIR`, else the user's cache directory."""
    if override is not None:
        return override
    if configured := os.environ.get("LOGITLAB_CACHE_DIR"):
        return Path(configured)
    return platformdirs.user_cache_path(APP)


def models_dir(override: Path | None = None) -> Path:
    return cache_dir(override) / "models"


def tokenizers_dir(override: Path | None = None) -> Path:
    return cache_dir(override) / "tokenizers"


def hub_dir(override: Path | None = None) -> Path | None:
    """Where Hugging Face models lie; `None` means huggingface_hub's own rule (`HF_HOME`)."""
    return override / "hub" if override is not None else None


def state_dir() -> Path:
    """Where small things that outlive a session lie, such as the last used model."""
    if configured := os.environ.get("LOGITLAB_STATE_DIR"):
        return Path(configured)
    return platformdirs.user_state_path(APP)


def sessions_dir() -> Path:
    return state_dir() / "sessions"


def lesson_progress() -> Path:
    return state_dir() / "lesson.json"


def settings() -> Path:
    return state_dir() / "settings.json"
