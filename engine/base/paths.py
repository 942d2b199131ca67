"""Every path logitlab reads or writes comes from here."""

import os
from pathlib import Path

import platformdirs

APP = "logitlab"


def cache_dir(override: Path | None = None) -> Path:
    """The folder of fetched models: `override`, else `LOGITLAB_CACHE_DIR`, else the user's cache directory."""
    if override is not None:
        return override
    if configured := os.environ.get("LOGITLAB_CACHE_DIR"):
        return Path(configured)
    return platformdirs.user_cache_path(APP)


def models_dir(override: Path | None = None) -> Path:
    """The folder of the embedded model."""
    return cache_dir(override) / "models"


def hub_dir(override: Path | None = None) -> Path | None:
    """The folder of Hugging Face models; `None` means huggingface_hub's own rule (`HF_HOME`)."""
    return override / "hub" if override is not None else None


def state_dir() -> Path:
    """The folder of sessions, settings, the log and the name of the last used model."""
    if configured := os.environ.get("LOGITLAB_STATE_DIR"):
        return Path(configured)
    return platformdirs.user_state_path(APP)


def sessions_dir() -> Path:
    """The folder of saved sessions."""
    return state_dir() / "sessions"


def lesson_progress() -> Path:
    """The file with the page and the answers of each lesson."""
    return state_dir() / "lesson.json"


def models_used() -> Path:
    """The file with the names of the models that were used, the last one first."""
    return state_dir() / "models-used.json"


def settings() -> Path:
    """The file with `settings.Preferences`."""
    return state_dir() / "settings.json"


def config_dir() -> Path:
    """The folder of what people write themselves: `LOGITLAB_CONFIG_DIR`, else the user's configuration directory."""
    if configured := os.environ.get("LOGITLAB_CONFIG_DIR"):
        return Path(configured)
    return platformdirs.user_config_path(APP)


def keys_file() -> Path:
    """The file that gives actions of the screen other keys."""
    return config_dir() / "keys.toml"
