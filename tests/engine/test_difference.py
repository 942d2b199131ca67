"""Differences between models: torch's `kl_div` on transformers' logits, numpy's quantiles, windows, memory."""

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.base.errors import Cancelled, InputError, MachineError
from engine.export.difference import Cut, fit, rows, spread, to_dict
from engine.generation.score import total
from engine.inside import difference as reading
from engine.inside.difference import Expected, Reader, Windows, cut, difference, divergence, windows_of
from engine.loading import load_local
from engine.models import catalog
from engine.models.local import LocalModel
from engine.networks.kernels import fast_bfloat16
from engine.networks.network import Network, Output
from engine.networks.sources import open_source
from tests.conftest import EMBEDDED

TEXT = "the sky above the city looked calm, but rain asked the robot library – 語 🌍 and Straße.\n" * 24
SHORT = "The sky above the city looked calm, but nobody trusted it: rain had come on every day of the week."

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def llama(tiny_llama: Path) -> LocalModel:
    return load_local(str(tiny_llama), precision="float32", threads=1)


@pytest.fixture(scope="module")
def gpt2(tiny_gpt2: Path) -> LocalModel:
    return load_local(str(tiny_gpt2), precision="float32", threads=1)


@pytest.fixture(scope="module")
def modules(tiny_llama: Path, tiny_gpt2: Path) -> list[Any]:
    from transformers import AutoModelForCausalLM

    return [AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32) for one in (tiny_llama, tiny_gpt2)]


def reader(model: LocalModel, *beginning: int) -> Reader:
    return Reader("tiny", model.network, beginning)


@torch.no_grad()
def logs(module: Any, ids: Sequence[int]) -> Tensor:
    """transformers' log-probabilities after each token, `[tokens, vocabulary]`."""
    found: Tensor = module(torch.tensor([list(ids)])).logits[0].double().log_softmax(-1)
    return found


@pytest.mark.parametrize("beginning", [(), (0,)])
@pytest.mark.parametrize(("window", "stride"), [(None, None), (100, 30), (64, 63)])
def test_every_figure_is_torchs_on_transformers_logits(
    llama: LocalModel,
    gpt2: LocalModel,
    modules: list[Any],
    beginning: tuple[int, ...],
    window: int | None,
    stride: int | None,
) -> None:
    ids = llama.tokenizer.encode_ids(TEXT)
    readers = [reader(llama, *beginning), reader(gpt2, *beginning)]
    windows = windows_of(readers, window, stride)
    assert windows == Windows(window or 512, stride or 256)
    found = difference(readers, ids, windows)
    room, before = windows.length - len(beginning), len(beginning)
    counted, kl, own, tops = 1 - before, [], [], []
    for first in range(0, len(ids), windows.stride):
        if counted >= len(ids):
            break
        part = ids[first : first + room]
        a, b = (logs(module, [*beginning, *part]) for module in modules)
        counted = max(counted, first + 1 - before)
        for place in range(counted, first + len(part)):
            at = before + place - first - 1
            kl.append(float(torch.nn.functional.kl_div(b[at], a[at], reduction="sum", log_target=True)))
            own.append((float(a[at, ids[place]]), float(b[at, ids[place]])))
            tops.append((int(a[at].argmax()), int(b[at].argmax())))
        counted = first + len(part)
    assert found.kl == pytest.approx(np.array(kl), rel=1e-3, abs=1e-5)
    for side, expected in enumerate(found.expected):
        assert expected.log_probability == pytest.approx(np.array(own)[:, side], rel=1e-3, abs=1e-4)
        assert (expected.top == np.array(tops)[:, side]).mean() > 0.995  # two may be as good as equal
        assert expected.perplexity == pytest.approx(float(np.exp(-np.array(own)[:, side].mean())), rel=1e-4)
    assert found.same_top == pytest.approx(float(np.mean([a == b for a, b in tops])), abs=0.005)
    assert len(found.places) == len(ids) - 1 + before
    assert found.kl is not None
    assert found.kl.min() > 0.01, "two models of this size differ everywhere"


def test_one_window_is_what_score_says(llama: LocalModel, gpt2: LocalModel) -> None:
    tokens = llama.tokenizer.encode(SHORT)
    readers = [reader(llama), reader(gpt2)]
    found = difference(readers, [token.id for token in tokens], windows_of(readers))
    for side, model in enumerate((llama, gpt2)):
        whole = total(model.score(tokens))
        fitted = fit(found, side, Cut.of(SHORT, llama.tokenizer))
        assert (fitted.tokens, fitted.bytes) == (whole.tokens, len(SHORT.encode()) - tokens[0].end)
        assert fitted.perplexity == pytest.approx(whole.perplexity, rel=1e-5)
        assert fitted.bits_per_byte == pytest.approx(whole.bits / fitted.bytes, rel=1e-5)


def test_a_model_does_not_differ_from_itself(llama: LocalModel) -> None:
    ids = llama.tokenizer.encode_ids(TEXT)
    readers = [reader(llama), reader(llama)]
    found = difference(readers, ids, windows_of(readers))
    assert found.kl is not None
    assert (found.kl == 0.0).all()
    assert found.same_top == 1.0
    assert found.worst(10) == []
    assert found.expected[0].perplexity == found.expected[1].perplexity


def test_the_direction_is_from_the_first_to_the_second() -> None:
    a, b = (torch.tensor([values], dtype=torch.float64).log() for values in ([0.5, 0.5], [0.9, 0.1]))
    assert float(divergence(a, b)) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))
    assert float(divergence(b, a)) == pytest.approx(0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5))
    never = torch.tensor([[0.0, -torch.inf]], dtype=torch.float64)
    assert float(divergence(never, never)) == 0.0
    assert float(divergence(a, never)) == torch.inf


@given(st.lists(st.floats(0, 20), min_size=1, max_size=300))
def test_quantiles_are_numpys_over_all_positions(values: list[float]) -> None:
    kl = np.array(values)
    nothing = np.zeros(len(values))
    one = Expected(nothing, nothing, nothing)
    found = spread(reading.Difference(Windows(512, 256), np.arange(len(values)), (one, one), kl))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.median == pytest.approx(float(np.percentile(values, 50)))
    assert found.p99 == pytest.approx(float(np.percentile(values, 99)))
    assert found.max == max(values)


@given(st.integers(1, 400), st.integers(3, 60), st.integers(1, 60), st.booleans())
def test_every_token_is_counted_once(tokens: int, length: int, stride: int, begins: bool) -> None:
    readers = [Reader("", cast(Network, None), (7,) if begins else ())]
    room = length - begins
    windows = Windows(length, min(stride, room))
    cuts = list(cut(tokens, readers, windows))
    counted = [place for one in cuts for place in range(one.counted, one.end)]
    assert counted == sorted(set(counted))
    assert all(0 <= one.first <= one.counted < one.end <= min(one.first + room, tokens) for one in cuts)
    left_out = set(range(tokens)) - set(counted)
    if begins:
        assert not left_out
    elif windows.stride < room:
        assert left_out == {0}
    else:
        assert left_out == set(range(0, tokens, room)), "the first of each window, which nothing comes before"
    for one in cuts[1:]:
        assert one.counted - one.first >= room - windows.stride, "the rest of a window is context"


def test_what_windows_may_be(llama: LocalModel) -> None:
    readers = [reader(llama, 0), reader(llama)]
    for length, stride, words in (
        (2, None, "window is 2; allowed: from 3 to 512"),
        (513, None, "window is 513; allowed: from 3 to 512"),
        (100, 0, "stride is 0; allowed: from 1 to 99"),
        (100, 100, "stride is 100; allowed: from 1 to 99"),
    ):
        with pytest.raises(InputError, match=words):
            windows_of(readers, length, stride)
    assert windows_of(readers, 3) == Windows(3, 1)


class Stub:
    """A network of any vocabulary whose logits follow from the last id alone; it counts the bytes of those that are
    still held."""

    path, parameters, context_length = "stub", 0, 1 << 20

    def __init__(self, vocabulary: int, scale: float, *, whole: bool = False) -> None:
        self.vocabulary_size = vocabulary
        self.held = self.most = self.read = 0
        self._whole = whole
        self._table = torch.randn(64, vocabulary, generator=torch.Generator().manual_seed(1)) * scale

    def prepare(self) -> None: ...

    def at_once(self, length: int, usual: int) -> int:
        return length if self._whole else usual

    def cache(self, capacity: int, padding: Sequence[int]) -> Any:
        return capacity

    def forward(self, ids: Tensor, cache: Any, *, siblings: bool = False, all_logits: bool = False) -> Output:
        assert not self._whole or ids.shape[1] == cache, "a part of a text that is to go through whole"
        self.read += ids.shape[1]
        return Output(ids[..., None] % 64, self._head)

    def _head(self, hidden: Tensor) -> Tensor:
        logits = self._table[hidden[:, 0]]
        size = logits.nbytes
        self.held += size
        self.most = max(self.most, self.held)
        weakref.finalize(logits, self._let_go, size)
        return logits

    def _let_go(self, size: int) -> None:
        self.held -= size


@pytest.mark.parametrize("kilobytes", [50, pytest.param(1_000, marks=pytest.mark.long)])
def test_a_long_text_is_compared_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, llama: LocalModel, kilobytes: int
) -> None:
    """Of the logits of all its tokens, 300,000 of a megabyte, few are held at once, whatever the window."""
    monkeypatch.setattr(reading, "LOGITS", 32_000)
    text = ("rain and sky – 語\n" * 60_000)[: kilobytes * 1_000]
    assert len(text.encode()) > kilobytes * 1_000
    ids = llama.tokenizer.encode_ids(text)
    stubs = [Stub(500, 1.0), Stub(500, 1.1)]
    readers = [Reader("stub", cast(Network, stub)) for stub in stubs]
    done = []
    found = difference(readers, ids, Windows(512, 256), report=lambda one: done.append(one.done))
    assert len(ids) > 300 * kilobytes
    assert len(found.places) == len(ids) - 1 == done[-1]
    assert done == sorted(set(done))
    gc.collect()
    for stub in stubs:
        assert stub.held == 0
        assert 0 < stub.most <= 2 * 4 * 32_000 < 4 * 500 * 256, "one stretch, and the one before it"
        assert stub.read <= 2 * len(ids) + 512


@pytest.mark.parametrize("windows", [Windows(64, 32), Windows(20, 10)])
def test_stretches_of_networks_that_go_through_whole_are_the_same(
    monkeypatch: pytest.MonkeyPatch, windows: Windows
) -> None:
    monkeypatch.setattr(reading, "LOGITS", 3_000)
    monkeypatch.setattr(reading, "COMPARED", 900)
    ids = [place * 7 % 60 for place in range(300)]
    figures = []
    for whole in ((False, False), (False, True), (True, True)):
        stubs = [Stub(100, scale, whole=one) for scale, one in zip((1.0, 1.2), whole)]
        found = difference([Reader("", cast(Network, stub)) for stub in stubs], ids, windows)
        figures.append(found.kl)
    assert (figures[0] == figures[1]).all()
    assert (figures[0] == figures[2]).all()


def test_rows_that_only_one_network_has_are_left_out() -> None:
    ids = list(range(40))
    large, small = Stub(120, 1.0), Stub(100, 1.5)
    found = difference([Reader("", cast(Network, one)) for one in (large, small)], ids, Windows(64, 32))
    a = large._table[:39, :100].double().log_softmax(-1)
    b = small._table[:39].double().log_softmax(-1)
    expected = torch.nn.functional.kl_div(b, a, reduction="none", log_target=True).sum(-1)
    assert found.kl == pytest.approx(expected.numpy(), rel=1e-9)


def test_what_is_no_number_is_an_error_and_no_figure() -> None:
    stub = Stub(100, 1.0)
    stub._table[5, 3] = torch.nan
    with pytest.raises(MachineError, match=r"a model gives no numbers before token 6; try another precision"):
        difference([Reader("a model", cast(Network, stub))], list(range(20)), Windows(64, 32))


def test_what_cannot_be_compared_says_why(llama: LocalModel) -> None:
    with pytest.raises(InputError, match="text is empty"):
        difference([reader(llama)], [], Windows(64, 32))
    with pytest.raises(InputError, match="one token, which nothing comes before"):
        difference([reader(llama)], [5], Windows(64, 32))
    assert len(difference([reader(llama, 0)], [5], Windows(64, 32)).places) == 1
    with pytest.raises(Cancelled):
        difference([reader(llama)], [5] * 99, Windows(64, 32), cancelled=lambda: True)


@pytest.fixture(scope="module")
def reference() -> Any:
    """The embedded model in transformers' module."""
    path = catalog.find(EMBEDDED).path
    assert path is not None
    return open_source(path).reference(torch.float32).model


@pytest.mark.parametrize("precision", [pytest.param("bfloat16", marks=pytest.mark.long), "native"])
def test_the_embedded_model_in_two_precisions(embedded: LocalModel, reference: Any, precision: str) -> None:
    """Against transformers' logits for one, and for the other against its own logits of the whole text."""
    other = load_local(EMBEDDED, precision=precision)
    ids = embedded.tokenizer.encode_ids(SHORT)
    readers = [reader(embedded), reader(other)]
    found = difference(readers, ids, windows_of(readers, 16, 8))
    a, b = [], []
    for first in range(0, len(ids) - 8, 8):
        part = ids[first : first + 16]
        new = slice(0 if first == 0 else 7, len(part) - 1)
        a.append(logs(reference, part)[new])
        with torch.inference_mode():
            whole = other.network.forward(torch.tensor([part]), other.network.cache(16, [0]), all_logits=True)
        b.append(whole.all_logits()[0].double().log_softmax(-1)[new])
    kl = torch.nn.functional.kl_div(torch.cat(b), torch.cat(a), reduction="none", log_target=True).sum(-1).numpy()
    assert found.kl is not None
    assert len(found.kl) == len(kl) == len(ids) - 1
    # Where bfloat16 is fast, products of many rows and of few are rounded in other ways.
    assert found.kl.mean() == pytest.approx(kl.mean(), rel=0.5 if fast_bfloat16() else 0.1)
    assert 1e-5 < found.kl.mean() < 0.05
    own = torch.cat(a)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    assert found.expected[0].log_probability == pytest.approx(own.numpy(), abs=2e-3)


def test_positions_bytes_and_contexts_of_a_text_of_many_scripts(llama: LocalModel, gpt2: LocalModel) -> None:
    text = "語 🌍 the sky\r\n\tStraße é"
    one = Cut.of(text, llama.tokenizer)
    readers = [reader(llama), reader(gpt2)]
    found = difference(readers, one.ids, windows_of(readers))
    table = list(rows([found], [one, one]))
    tokens = llama.tokenizer.encode(text)
    assert [row[:2] for row in table] == [(token.position, token.id) for token in tokens[1:]]
    assert [row[2] for row in table] == [llama.tokenizer.label(token.id) for token in tokens[1:]]
    data = to_dict([found], [one, one])
    assert data["bytes"] == len(text.encode())
    kl = [row[3] for row in table]
    assert [worst["kl"] for worst in data["worst"]] == sorted(kl, reverse=True)[:10]
    for worst in data["worst"]:
        start = tokens[worst["position"]].start
        whole = text.encode()[:start]
        assert whole.decode(errors="replace").endswith(worst["before"])
        assert worst["a"]["top"]["probability"] >= worst["a"]["probability"] > 0
    assert one.before(len(one.ids) - 1, 3).decode(errors="replace")[0] != "�"
