"""`diff` beside llama.cpp's `llama-perplexity --kl-divergence`, on an F16 and a Q8_0 file of the embedded model.

`make test-remote` runs these; they are skipped where llama.cpp is not there, which is named in `LOGITLAB_LLAMA_PYTHON`
(a Python with llama-cpp-python) and `LOGITLAB_LLAMA_PERPLEXITY` (`llama-perplexity`).
"""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.inside.difference import Difference, Reader, Windows, difference
from engine.loading import load_local
from engine.models import catalog
from engine.networks.network import Network, Output
from engine.networks.sources import open_source
from tests.conftest import EMBEDDED

PYTHON = os.environ.get("LOGITLAB_LLAMA_PYTHON", "")
PERPLEXITY = os.environ.get("LOGITLAB_LLAMA_PERPLEXITY", "")
WINDOW = 128
TEXT = (Path(__file__).parents[2] / "docs" / "tour.md").read_text(encoding="utf-8")[:5000]
# llama.cpp's tokens of a text, and for each window of them its logits, by its own programs' functions.
MAKE = """
import sys
import llama_cpp
def quantised(source, out, kind):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = kind, True
    assert llama_cpp.llama_model_quantize(source.encode(), out.encode(), params) == 0
quantised(sys.argv[1], sys.argv[2], llama_cpp.LLAMA_FTYPE_MOSTLY_F16)
quantised(sys.argv[2], sys.argv[3], llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0)
"""
LOGITS = """
import sys
import numpy
from llama_cpp import Llama
window = int(sys.argv[4])
model = Llama(sys.argv[1], n_ctx=window, n_batch=window, logits_all=True, verbose=False)
ids = model.tokenize(open(sys.argv[2], "rb").read(), add_bos=False)
found = []
for first in range(0, len(ids) // window * window, window):
    model.reset()
    model.eval(ids[first : first + window])
    found.append(model.scores[:window].copy())
numpy.savez(sys.argv[3], ids=ids, logits=numpy.array(found, numpy.float32))
"""

pytestmark = pytest.mark.skipif(not (PYTHON and PERPLEXITY), reason="llama-perplexity is not there: make test-remote")


@dataclass(frozen=True)
class Files:
    """The model with 16 and with 8 bits, the text, and what llama.cpp says of them."""

    f16: Path
    q8: Path
    text: Path
    printed: str

    def figure(self, name: str) -> float:
        """A figure that `llama-perplexity` printed."""
        found = re.search(rf"^{re.escape(name)}\s*:\s*(-?[\d.]+)", self.printed, re.MULTILINE)
        assert found, self.printed
        return float(found[1])

    def uncertainty(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)}\s*:\s*-?[\d.]+ ±\s*([\d.]+)", self.printed, re.MULTILINE)
        assert found, self.printed
        return float(found[1])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("kl")
    f16, q8, text, base = (folder / name for name in ("f16.gguf", "q8.gguf", "text", "base"))
    text.write_text(TEXT, encoding="utf-8")
    embedded = catalog.find(EMBEDDED).path
    ran(PYTHON, "-c", MAKE, str(embedded), str(f16), str(q8))
    # One window at a time and its plain attention, as the logits below are made.
    options = ("-c", str(WINDOW), "-b", str(WINDOW), "-fa", "off", "--kl-divergence-base", str(base))
    ran(PERPLEXITY, "-m", str(f16), "-f", str(text), *options)
    return Files(f16, q8, text, ran(PERPLEXITY, "-m", str(q8), *options, "--kl-divergence"))


def ran(*command: str) -> str:
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout + process.stderr


class LlamaCpp:
    """llama.cpp's logits of one window after the other, as a network."""

    path, parameters, context_length = "llama.cpp", 0, WINDOW

    def __init__(self, model: Path, files: Files, out: Path) -> None:
        ran(PYTHON, "-c", LOGITS, str(model), str(files.text), str(out), str(WINDOW))
        saved = np.load(out)
        self.ids: list[int] = saved["ids"].tolist()
        self._logits = saved["logits"]
        self._next = 0
        self.windows, _length, self.vocabulary_size = self._logits.shape

    def at_once(self, length: int, usual: int) -> int:
        return length + usual  # a window as a whole

    def cache(self, capacity: int, padding: Sequence[int]) -> Any:
        return None

    def forward(self, ids: Tensor, cache: Any, *, siblings: bool = False, all_logits: bool = False) -> Output:
        logits = torch.from_numpy(self._logits[self._next, : ids.shape[1]])
        self._next += 1
        return Output(torch.arange(ids.shape[1])[None, :, None], lambda hidden: logits[hidden[:, 0]])


def second_halves(found: Difference) -> np.ndarray:
    """The positions that `llama-perplexity` counts: what the second half of each window predicts."""
    return found.places % WINDOW > WINDOW // 2


def kept(logits: np.ndarray) -> np.ndarray:
    """The first model's log-probabilities as `llama-perplexity` keeps them: `[positions, vocabulary]`, float32.

    Each is one of 65,536 between the highest and the lowest, or 16 nats below it (`log_softmax` in perplexity.cpp).
    """
    highest = logits.max(1, keepdims=True)
    lowest = np.maximum(logits.min(1, keepdims=True), highest - np.float32(16))
    mass = np.log(np.exp(logits - highest).sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)
    step = (highest - lowest) / np.float32(65535)
    return step * np.where(logits > lowest, np.rint((logits - lowest) / step), 0) + (lowest - highest - mass)


def printed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """KL of each position as it computes it: of what was kept of the first, without what is below e^-16."""
    base = kept(first)
    highest = second.max(1, keepdims=True)
    mass = np.log(np.exp(second - highest).sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return np.where(base > -16, np.exp(base) * (base - second + highest + mass), 0).sum(1, dtype=np.float64)


QUANTILES = {"Median  KLD": 0.5, "90.0%   KLD": 0.9, "99.0%   KLD": 0.99, "Maximum KLD": 1.0}


def test_the_figures_of_llama_cpps_logits_are_those_that_it_prints(files: Files, tmp_path: Path) -> None:
    """To the last digits that it prints, with its 16 bits; without them each position is within two of their steps.

    Both programs have to be of one build of llama.cpp: those of two differ by more.
    """
    networks = [LlamaCpp(model, files, tmp_path / f"{model.stem}.npz") for model in (files.f16, files.q8)]
    ids = networks[0].ids[: networks[0].windows * WINDOW]
    found = difference([Reader("", cast(Network, one)) for one in networks], ids, Windows(WINDOW, WINDOW))
    counted = second_halves(found)
    assert found.kl is not None
    theirs = []
    for first, second in zip(*(network._logits[:, WINDOW // 2 : -1] for network in networks), strict=True):
        theirs.append(printed(first, second))
    rounded, kl = np.concatenate(theirs), found.kl[counted]
    assert rounded.mean() == pytest.approx(files.figure("Mean    KLD"), abs=2e-6)
    for name, share in QUANTILES.items():
        assert np.quantile(rounded, share) == pytest.approx(files.figure(name), abs=2e-6), name
    # Half a step from rounding, the rest from what is below e^-16 in the first model, which it leaves out.
    assert np.abs(rounded - kl).max() < 2 * 16 / 65535
    same = (found.expected[0].top == found.expected[1].top)[counted].mean()
    assert 100 * same == pytest.approx(files.figure("Same top p"), abs=0.2)  # two tokens may be as good in 16 bits
    perplexity = np.exp(-found.expected[1].log_probability[counted].mean())
    assert perplexity == pytest.approx(files.figure("Mean PPL(Q)"), rel=1e-4)


def test_our_networks_beside_llama_cpps(files: Files) -> None:
    """Ours round the weights alone; llama.cpp rounds what goes into a product to eight bits too, which adds to KL."""
    models = [load_local(str(file), precision="float32") for file in (files.f16, files.q8)]
    ids = models[0].tokenizer.encode_ids(TEXT)
    ids = ids[: len(ids) // WINDOW * WINDOW]
    found = difference([Reader("", one.network) for one in models], ids, Windows(WINDOW, WINDOW))
    counted = second_halves(found)
    perplexity = np.exp(-found.expected[1].log_probability[counted].mean())
    assert perplexity == pytest.approx(files.figure("Mean PPL(Q)"), rel=5e-3)
    assert found.kl is not None
    mean = found.kl[counted].mean()
    assert files.figure("Mean    KLD") / 8 < mean <= files.figure("Mean    KLD") + files.uncertainty("Mean    KLD")


def eight_bits(value: Tensor) -> Tensor:
    """What goes into a product with a Q8_0 weight in llama.cpp: each 32 numbers as whole ones times a scale."""
    blocks = value.unflatten(-1, (-1, 32))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    whole = (blocks / scale.clamp_min(1e-30)).round()
    return (whole * scale.half().float()).flatten(-2)


def sixteen_bits(value: Tensor) -> Tensor:
    """What goes into a product with an F16 weight."""
    return value.half().float()


def rounding(file: Path, rounded: Callable[[Tensor], Tensor]) -> Network:
    """transformers' module in float32 with what goes into each of its products rounded before."""
    network = open_source(file).reference(torch.float32)
    for module in network.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _module, given: (rounded(given[0]), *given[1:]))
    return cast(Network, network)


def test_the_rest_is_that_llama_cpp_rounds_what_goes_into_a_product(files: Files) -> None:
    """With its rounding in transformers' module, and nothing else of it, the figures are llama.cpp's.

    What is left is of sums in another order and of keys and values in 16 bits, which is small beside 8: a standard
    error that it prints covers the means, 3 % the median, 2 in a thousand the perplexities.
    """
    networks = [rounding(files.f16, sixteen_bits), rounding(files.q8, eight_bits)]
    ids = load_local(str(files.f16), precision="float32").tokenizer.encode_ids(TEXT)
    ids = ids[: len(ids) // WINDOW * WINDOW]
    found = difference([Reader("", one) for one in networks], ids, Windows(WINDOW, WINDOW))
    counted = second_halves(found)
    assert found.kl is not None
    kl = found.kl[counted]
    assert kl.mean() == pytest.approx(files.figure("Mean    KLD"), abs=files.uncertainty("Mean    KLD"))
    assert np.median(kl) == pytest.approx(files.figure("Median  KLD"), rel=0.03)
    for expected, name in zip(found.expected, ("Mean PPL(base)", "Mean PPL(Q)"), strict=True):
        perplexity = np.exp(-expected.log_probability[counted].mean())
        assert perplexity == pytest.approx(files.figure(name), rel=2e-3), name
