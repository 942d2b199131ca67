"""Errors with a message for people: what happened and what to do, in one line.

Two families, one for each exit code of the command line: `InputError` (2) for a mistake in the
input, `MachineError` (1) for a failure of the machine.
"""

from engine.base.language import _
from engine.base.plain import one_line


class LogitlabError(Exception):
    """The base of every error that logitlab raises on purpose. `str(error)` is one line, for people."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))  # names of files and tensors may contain any character


class InputError(LogitlabError):
    """An input, typed or chosen, cannot be used."""

    exit_code = 2


class MachineError(LogitlabError):
    """The machine, the network or a file failed."""


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
    """A prompt and its continuation do not fit into the model's context."""


class ModelNameError(InputError):
    """No model has this name."""


class ModelFileError(InputError):
    """A model's files cannot be used."""


class FetchError(MachineError):
    """A model could not be fetched."""


class OutOfMemoryError(MachineError):
    """The machine has too little memory for the request."""


def first_line(error: Exception) -> str:
    """The first line of a library's error message, at most 200 characters; the error's class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class Cancelled(Exception):
    """The caller asked to stop; what was fetched so far can be resumed, or is removed."""
