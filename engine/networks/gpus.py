"""What the GPUs of this machine have room for, and how a model larger than one of them is spread over all."""

import importlib.util
from typing import Any

import torch

from engine.base.errors import MachineError, OutOfMemoryError
from engine.base.language import _

# Of the free memory, what weights may take: activations, keys and values want the rest.
SHARE = 0.9


def free(gpu: int) -> int:
    """Bytes of a GPU that this process may still take, with those that torch holds for it already."""
    held = torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)
    return int(torch.cuda.mem_get_info(gpu)[0] + held)


def fits_one(needed: int) -> bool:
    """Whether weights of so many bytes fit on the GPU that is used."""
    return needed <= SHARE * free(torch.cuda.current_device())


def placement(needed: int, *, spreads: bool = True) -> dict[str, Any]:
    """`device_map` where weights of so many bytes are too large for one GPU: layers are spread over all of them.

    Args:
        spreads: whether they can be; else they are to fit on one.

    Raises:
        OutOfMemoryError: the GPUs have too little room.
        MachineError: the library that spreads them is not installed.
    """
    if fits_one(needed):
        return {}
    gpus = range(torch.cuda.device_count()) if spreads else [torch.cuda.current_device()]
    room = sum(map(free, gpus))
    if needed > SHARE * room or not spreads:
        raise OutOfMemoryError(
            _(
                "the weights take {size:.1f} GB and the GPUs have {free:.1f} GB free; choose a smaller model or "
                "--device cpu",
                size=needed / 1e9,
                free=room / 1e9,
            )
        )
    if importlib.util.find_spec("accelerate") is None:
        raise MachineError(_("the model is larger than one GPU; to spread it over several: pip install accelerate"))
    return {"device_map": "auto"}


def memory() -> dict[str, int]:
    """Bytes that this process uses, and those still free, on the GPUs that it uses."""
    gpus = [gpu for gpu in range(torch.cuda.device_count()) if torch.cuda.memory_allocated(gpu)]
    return {
        "memory_used": sum(map(torch.cuda.memory_allocated, gpus)),
        "memory_free": sum(map(free, gpus)),
    }
