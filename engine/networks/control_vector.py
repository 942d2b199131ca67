"""Directions in GGUF files, as llama.cpp reads and writes them (`general.architecture = controlvector`).

llama.cpp adds `direction.N` to what block N leaves (`build_cvec` at the end of a block, `llama_adapter_cvec`), blocks
counted from 0, and has none for block 0: it belongs to row N + 1 of the stream, from row 2 to the last one.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import Tensor

from engine.base.errors import InputError
from engine.base.files import written_whole
from engine.base.language import _

ARCHITECTURE = "controlvector"
FIRST_ROW = 2
NAME = "direction."


def read_directions(path: Path) -> dict[int, Tensor]:
    """The directions of a file by the stream's row, `[hidden]` float32 each.

    Raises:
        InputError: it cannot be read, or is no control vector.
    """
    no_vector = _("{path} is no control vector (a GGUF file of directions); steer make writes one", path=path)
    try:
        reader = gguf.GGUFReader(path)
        field = reader.get_field("general.architecture")
        kind = None if field is None else field.contents()
    except OSError as error:
        raise InputError(_("cannot read {path}: {reason}", path=path, reason=error.strerror or error)) from error
    except Exception as error:  # whatever the library says of other files
        raise InputError(no_vector) from error
    if kind != ARCHITECTURE:
        raise InputError(no_vector)
    found: dict[int, Tensor] = {}
    for tensor in reader.tensors:
        number = tensor.name.removeprefix(NAME)
        usable = tensor.tensor_type == gguf.GGMLQuantizationType.F32 and len(tensor.shape) == 1
        if not tensor.name.startswith(NAME) or not number.isdecimal() or int(number) == 0 or not usable:
            raise InputError(_("{path}: {name} is no direction as llama.cpp has them", path=path, name=tensor.name))
        vector = torch.from_numpy(np.array(tensor.data, dtype=np.float32))
        row = int(number) + 1
        found[row] = found[row] + vector if row in found else vector  # as llama.cpp does
    if not found:
        raise InputError(_("{path} holds no direction", path=path))
    return found


def direction(path: Path, row: int, hidden: int) -> Tensor:
    """A file's direction for a row of the stream.

    Raises:
        InputError: the file cannot be used, has none for this row, or one of another width.
    """
    found = read_directions(path)
    if row not in found:
        raise InputError(
            _("{path} has no direction for layer {layer}, only for: {rows}", path=path, layer=row, rows=_rows(found))
        )
    if len(found[row]) != hidden:
        raise InputError(
            _(
                "the direction in {path} has {width:,} numbers, this model's vectors have {hidden:,}; make one with it",
                path=path,
                width=len(found[row]),
                hidden=hidden,
            )
        )
    if not bool(found[row].isfinite().all()):
        raise InputError(_("the direction in {path} holds numbers that are not finite", path=path))
    return found[row]


def check_rows(rows: Iterable[int], blocks: int) -> None:
    """Raise `InputError` for a row of the stream that llama.cpp has no direction for."""
    for row in rows:
        if not FIRST_ROW <= row <= blocks:
            raise InputError(
                _(
                    "layer is {layer}; allowed: from {first} to {last}, for which GGUF has directions",
                    layer=row,
                    first=FIRST_ROW,
                    last=blocks,
                )
            )


def write_directions(path: Path, directions: Mapping[int, Tensor], *, hint: str, blocks: int) -> None:
    """Write directions, `[hidden]` each, by the stream's row.

    Args:
        hint: the architecture of the model they are of.
        blocks: of that model.

    Raises:
        InputError: a row that llama.cpp has no direction for.
        MachineError: the file cannot be written.
    """
    check_rows(directions, blocks)
    with written_whole(path) as partial:
        writer = gguf.GGUFWriter(partial, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", hint)
        writer.add_int32(f"{ARCHITECTURE}.layer_count", blocks - 1)
        for row, vector in sorted(directions.items()):
            writer.add_tensor(f"{NAME}{row - 1}", vector.float().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _rows(rows: Mapping[int, object]) -> str:
    """Numbers in order, a run of them as its ends.

    >>> _rows({2: 0, 3: 0, 4: 0, 9: 0})
    '2–4, 9'
    """
    runs: list[list[int]] = []
    for row in sorted(rows):
        if runs and row == runs[-1][1] + 1:
            runs[-1][1] = row
        else:
            runs.append([row, row])
    return ", ".join(f"{first}–{last}" if last > first else str(first) for first, last in runs)
