"""Two models in this process at once."""

from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.errors import InputError, OutOfMemoryError
from engine.base.language import _
from engine.base.machine import free_memory
from engine.models import catalog
from engine.models.model import PRECISIONS

if TYPE_CHECKING:
    from engine.models.local import LoadOptions


def name_and_precision(text: str, otherwise: str) -> tuple[str, str]:
    """What `MODEL[@PRECISION]` says. Raises `InputError`.

    A file or a folder whose own name holds an `@` is a model.

    Args:
        otherwise: the precision where the text names none.
    """
    name, at, precision = text.rpartition("@")
    if not text:
        raise InputError(_("the model's name is empty; give a name, a hub id, a folder or a .gguf file"))
    if not at or not name or _is_there(text) or (catalog.is_address(text) and precision not in PRECISIONS):
        return text, otherwise
    if precision in PRECISIONS:
        return name, precision
    if "/" in precision or precision.endswith(".gguf"):
        return text, otherwise
    names = ", ".join(PRECISIONS)
    raise InputError(_("precision is {precision!r}; allowed: {names}", precision=precision, names=names))


def _is_there(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # no name that a file can have
        return False


def check_both_fit(first: "tuple[str, LoadOptions]", second: "tuple[str, LoadOptions]") -> None:
    """Raise `OutOfMemoryError` where there is no room for two models at once; their files are fetched where needed."""
    from engine.models.local import needed_bytes

    needed = [needed_bytes(name, options) for name, options in (first, second)]
    free = free_memory()
    if free is None or sum(needed) <= free:
        return
    raise OutOfMemoryError(
        _(
            "{first} takes about {a:.1f} GB and {second} {b:.1f} GB, and {free:.1f} GB of memory are free for both; "
            "choose smaller ones, or @bfloat16",
            first=first[0],
            second=second[0],
            a=needed[0] / 1e9,
            b=needed[1] / 1e9,
            free=free / 1e9,
        )
    )
