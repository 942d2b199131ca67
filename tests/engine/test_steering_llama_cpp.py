"""Steering with a direction's file beside llama.cpp with the same file, on an F32 file of the embedded model.

`make test-remote` runs it; it is skipped without `LOGITLAB_LLAMA_PYTHON`, a Python with llama-cpp-python.
"""

import os
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from engine.generation.config import GenerationConfig
from engine.generation.events import Stepped
from engine.generation.loop import generate
from engine.generation.memory import KeptLogits
from engine.models import catalog
from engine.models.local import LocalModel
from engine.networks.control_vector import write_directions
from tests.conftest import EMBEDDED

PYTHON = os.environ.get("LOGITLAB_LLAMA_PYTHON", "")
PROMPT = "The sky above the city looked calm, but"
STEPS = 8
# The prompt without the direction, and what is written with it, as a lane has it; logits after each.
RUN = """
import ctypes, sys
import llama_cpp, numpy
from llama_cpp import Llama
source, out, buffer, ids = sys.argv[1], sys.argv[2], numpy.load(sys.argv[3]), numpy.load(sys.argv[4]).tolist()
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
assert llama_cpp.llama_model_quantize(source.encode(), (out + ".gguf").encode(), params) == 0
model = Llama(out + ".gguf", n_ctx=256, n_batch=256, logits_all=True, verbose=False, type_k=0, type_v=0)
hidden, context = model.n_embd(), model._ctx.ctx
prompt, written = ids[: int(sys.argv[5])], ids[int(sys.argv[5]) :]
model.eval(prompt)
data = buffer.astype(numpy.float32)
pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
layers = len(data) // hidden
assert llama_cpp.llama_set_adapter_cvec(context, pointer, len(data), hidden, 1, layers) == 0
for id in written:
    model.eval([id])
numpy.save(out, model.scores[len(prompt) - 1 : len(ids)])
"""

pytestmark = pytest.mark.skipif(not PYTHON, reason="llama-cpp-python is not there: make test-remote")


def as_llama_cpp_loads(path: Path, strength: float) -> np.ndarray:
    """A file's directions as `common_control_vector_load_one` lays them out: from layer 1 on, zeros where none is."""
    reader = gguf.GGUFReader(path)
    numbers = {int(tensor.name.removeprefix("direction.")): np.array(tensor.data) for tensor in reader.tensors}
    hidden = len(next(iter(numbers.values())))
    buffer = np.zeros(hidden * max(numbers), np.float32)
    for number, vector in numbers.items():
        buffer[hidden * (number - 1) : hidden * number] += strength * vector
    return buffer


@pytest.mark.parametrize(("row", "strength"), [(2, 3.0), (14, 40.0), (14, -40.0), (30, 30.0)])
def test_the_same_file_steers_both(row: int, strength: float, embedded: LocalModel, tmp_path: Path) -> None:
    path = tmp_path / "direction.gguf"
    vector = torch.randn(embedded.facts.hidden_size, generator=torch.Generator().manual_seed(row))
    write_directions(path, {row: vector / vector.norm()}, hint="llama", blocks=30)
    configs = [
        GenerationConfig(max_new_tokens=STEPS, ignore_eos=True, interventions=texts)
        for texts in ((), (f"steer {row} by {path} × {strength}",))
    ]
    prompt = embedded.tokenizer.encode_ids(PROMPT)
    rows: list[list[torch.Tensor]] = [[], []]
    ids: list[list[int]] = [[], []]
    for event in generate(embedded.network, embedded.tokenizer, [PROMPT], configs, keep_logits=KeptLogits):
        if isinstance(event, Stepped):
            assert event.logits is not None
            assert event.logits.row is not None
            rows[event.lane].append(event.logits.row)
            ids[event.lane].append(event.token.id)
    np.save(tmp_path / "buffer.npy", as_llama_cpp_loads(path, strength))
    np.save(tmp_path / "ids.npy", np.array([*prompt, *ids[1][:-1]]))
    source, out = catalog.find(EMBEDDED).path, tmp_path / "logits.npy"
    files = [str(source), str(out), str(tmp_path / "buffer.npy"), str(tmp_path / "ids.npy"), str(len(prompt))]
    process = subprocess.run([PYTHON, "-c", RUN, *files], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    theirs = torch.from_numpy(np.load(out))
    assert len(theirs) == STEPS
    for own, their in zip(rows[1], theirs, strict=True):
        assert float((own - their).norm() / their.norm()) < 1e-3
        assert int(own.argmax()) == int(their.argmax())
    # It is steered at all, from the second token on.
    assert torch.equal(rows[0][0], rows[1][0])
    assert float((rows[0][1] - rows[1][1]).norm() / rows[0][1].norm()) > 5e-3 or ids[0] != ids[1]
