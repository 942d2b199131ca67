"""Errors with a message for people: what happened and what to do, in one line.

Two families, one per exit code of the command line: `InputError` (2) for what the
user typed, `MachineError` (1) for what the machine did.
"""

from engine.base.language import _
from engine.base.plain import one_line


class LogitlabError(Exception):
    """Every error logitlab raises on purpose. `str(error)` is one line fit for a status bar."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))  # names of files and tensors can hold anything


class InputError(LogitlabError):
    """Something the user typed or chose cannot be used."""

    exit_code = 2


class MachineError(LogitlabError):
    """The machine, the network or a file did not do its part."""


class ConfigError(InputError):
    """A generation setting is out of range.

    Attributes:
        field: name of the offending setting, as in `GenerationConfig`.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(_("{field} is {value!r}; allowed: {allowed}", field=field, value=value, allowed=allowed))
        self.field = field


class TextError(InputError):
    """A text cannot be turned into tokens."""


class ContextError(InputError):
    """A prompt and what is to be generated do not fit the model's context."""


class ModelNameError(InputError):
    """A model name points at nothing."""


class ModelFileError(InputError):
    """A model's files cannot be used."""


class FetchError(MachineError):
    """A model could not be fetched."""


class OutOfMemoryError(MachineError):
    """The machine has too little memory for what was asked."""


def first_line(error: Exception) -> str:
    """What a library's error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class Cancelled(Exception):
    """The caller asked to stop; what was fetched so far stays resumable or is removed."""
