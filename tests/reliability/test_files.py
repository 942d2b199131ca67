"""Damaged and adversarial model files: each is used or refused in one line, and none takes memory it does not have."""

import json
import random
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.base.errors import InputError, LogitlabError
from engine.loading import load_model
from engine.models import catalog
from engine.models.tokenizer_files import load_tokenizer
from engine.networks.sources import open_source
from engine.text.template import render
from tests.conftest import EMBEDDED, save_tiny
from tests.engine.test_networks import write_gguf
from tests.reliability.conftest import Figure, scale

MOST_GROWTH = 400_000  # kilobytes of memory that a whole series may take
WORDS = (0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**63, 2**64 - 1)


def peak() -> int:
    """Most memory this process has taken so far, in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Bytes flipped, numbers made absurd, parts cut, doubled or moved."""
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 4, 16))):
        place = generator.randrange(len(changed))
        match generator.randrange(7):
            case 0:
                changed[place] ^= 1 << generator.randrange(8)
            case 1:
                changed[place] = generator.randrange(256)
            case 2:
                changed[place : place + 8] = struct.pack("<Q", generator.choice(WORDS))
            case 3:
                changed[place : place + 4] = struct.pack("<I", generator.choice(WORDS) & 0xFFFFFFFF)
            case 4:
                del changed[place:]
            case 5:
                del changed[place : place + generator.randrange(1, 64)]
            case 6:
                other = generator.randrange(len(changed))
                changed[place:place] = changed[other : other + generator.randrange(1, 64)]
        if not changed:
            return b""
    return bytes(changed)


def tried(inputs: int, attempt: Callable[[random.Random], object]) -> tuple[int, int]:
    """How many of so many inputs were used, and how many refused in one line; anything else is raised."""
    used = refused = 0
    for seed in range(inputs):
        try:
            attempt(random.Random(seed))
            used += 1
        except LogitlabError as error:
            if "\n" in str(error):
                raise AssertionError(f"input {seed} was refused in several lines: {error}") from error
            refused += 1
        except Exception as error:
            raise AssertionError(f"input {seed} was neither used nor refused") from error
    return used, refused


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file of 60 kB."""
    folder = tmp_path_factory.mktemp("gguf")
    return write_gguf(save_tiny(folder, "llama", hidden_size=16, intermediate_size=16), folder / "small.gguf", "llama")


def test_damaged_gguf_files(small: Path, tmp_path: Path, figure: Figure) -> None:
    whole, target = small.read_bytes(), tmp_path / "damaged.gguf"
    header = whole.index(b"blk.0") + 3000  # where there is most to get wrong
    inputs, before = scale(600, 20_000), peak()

    def attempt(generator: random.Random) -> None:
        target.write_bytes(mutated(whole[:header], generator) + whole[header:])
        open_source(target)

    used, refused = tried(inputs, attempt)
    assert refused > inputs / 5
    assert peak() - before < MOST_GROWTH
    figure("GGUF headers, mutated: opened", tried=inputs, used=used, refused=refused, lost=0)


GGUF_HEADS = (b"", b"GGUF", b"GGUF" + struct.pack("<I", 3), b"GGUF" + struct.pack("<IQQ", 3, 1, 1))


@pytest.mark.parametrize("kind", ["gguf", "safetensors", "tokenizer.json", "config.json"])
def test_files_of_any_bytes(tiny_llama: Path, tmp_path: Path, figure: Figure, kind: str) -> None:
    """Whatever hypothesis thinks of: of each kind's own beginnings, or of none."""
    folder, counted, before = tmp_path / "any", {"used": 0, "refused": 0}, peak()
    said: list[str] = []
    shutil.copytree(tiny_llama, folder)
    numbers = st.integers(0, 2**64 - 1).map(lambda number: struct.pack("<Q", number))
    if kind == "gguf":
        contents = st.builds(lambda *parts: b"".join(parts), st.sampled_from(GGUF_HEADS), numbers, st.binary())
    elif kind == "safetensors":
        texts = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner))
        headers = (texts.map(json.dumps) | st.text()).map(lambda text: text.encode("utf-8", "surrogatepass"))
        whole = headers.map(lambda data: struct.pack("<Q", len(data)) + data)
        contents = whole | st.builds(lambda size, data: size + data, numbers, headers)
    else:
        known = json.loads((folder / kind).read_text())
        values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())
        changed = st.dictionaries(st.sampled_from(sorted(known)), values, min_size=1)
        contents = changed.map(lambda change: json.dumps(known | change).encode()) | st.binary()

    @settings(max_examples=scale(40, 500), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(contents)
    def any_bytes(data: bytes) -> None:
        try:
            if kind == "gguf":
                (tmp_path / "any.gguf").write_bytes(data)
                open_source(tmp_path / "any.gguf")
            else:
                name = "model.safetensors" if kind == "safetensors" else kind
                (folder / name).write_bytes(data)
                load_model(str(folder), precision="float32", threads=1, cache_dir=tmp_path / "cache")
            counted["used"] += 1
        except LogitlabError as error:
            said.append(str(error))
            counted["refused"] += 1

    any_bytes()
    assert not [line for line in said if "\n" in line]
    assert counted["refused"]
    assert peak() - before < MOST_GROWTH
    figure(f"Files of any bytes, as {kind}", tried=sum(counted.values()), **counted, lost=0)


def test_the_real_files_header_damaged(tmp_path: Path, figure: Figure) -> None:
    path = catalog.find(EMBEDDED).path
    assert path is not None
    with path.open("rb") as file:
        head = file.read(2 << 20)
    target, inputs, before = tmp_path / "real.gguf", scale(15, 400), peak()
    size = path.stat().st_size

    def attempt(generator: random.Random) -> None:
        cut = 40_000  # counts, keys and the first strings; what comes after only moves
        target.write_bytes(mutated(head[:cut], generator) + head[cut:])
        with target.open("r+b") as file:
            file.truncate(size)  # a hole, as large as the weights
        open_source(target)

    used, refused = tried(inputs, attempt)
    assert peak() - before < MOST_GROWTH
    figure("The embedded model's header, mutated: opened", tried=inputs, used=used, refused=refused, lost=0)


def test_damaged_files_that_are_loaded_and_run(tiny_llama: Path, tmp_path: Path, figure: Figure) -> None:
    """Headers and weights of safetensors, configurations and tokenizers, all the way to a token."""
    inputs, before = scale(60, 1_500), peak()
    folder = tmp_path / "damaged"
    names = ("model.safetensors", "config.json", "tokenizer.json")

    def attempt(generator: random.Random) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tiny_llama, folder)
        file = folder / generator.choice(names)
        data = file.read_bytes()
        cut = 3_000 if file.suffix == ".safetensors" else len(data)
        file.write_bytes(mutated(data[:cut], generator) + data[cut:])
        model = load_model(str(folder), precision="float32", threads=1, cache_dir=tmp_path / "cache")
        ids = torch.tensor([model.tokenizer.encode_ids("the sky")])
        model.network.forward(ids, model.network.cache(8, [0])).logits()

    used, refused = tried(inputs, attempt)
    assert refused > inputs / 5
    assert peak() - before < MOST_GROWTH
    figure("Model folders, mutated: loaded and run", tried=inputs, used=used, refused=refused, lost=0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_size": 2**40}, "cannot be loaded|does not fit"),
        ({"num_hidden_layers": 10**9}, "cannot be loaded|does not fit|lack"),
        ({"vocab_size": 2**50}, "cannot be loaded|does not fit"),
        ({"num_attention_heads": 0}, "cannot be loaded"),
        ({"head_dim": 10**9}, "cannot be loaded"),
        ({"head_dim": 3_055_632}, "cannot be loaded"),
        ({"num_key_value_heads": -3}, "cannot be loaded"),
        ({"max_position_embeddings": 2**60}, ""),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": "x"}}, "cannot be loaded"),
        ({"model_type": "evil", "auto_map": {"AutoModel": "evil.Evil"}}, "code from its repository"),
        ({"model_type": "../../evil"}, "has the architecture"),
    ],
)
def test_absurd_configurations(tiny_llama: Path, tmp_path: Path, change: dict[str, object], says: str) -> None:
    folder = tmp_path / "absurd"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    before = peak()
    if not says:
        model = load_model(str(folder), precision="float32", cache_dir=tmp_path / "cache")
        assert model.network.forward(torch.tensor([[1, 2]]), model.network.cache(4, [0])).logits().isfinite().all()
    else:
        with pytest.raises(LogitlabError, match=says) as raised:
            load_model(str(folder), precision="float32", cache_dir=tmp_path / "cache")
        assert "\n" not in str(raised.value)
    assert peak() - before < MOST_GROWTH


def test_files_that_try_to_be_more_than_text(tiny_llama: Path, tmp_path: Path) -> None:
    """Deep JSON, a tokenizer that grows what it reads, pickles beside or instead of the weights."""
    bombs: dict[str, tuple[str, str]] = {
        "deep": ("config.json", "[" * 200_000),
        "deep tokenizer": ("tokenizer.json", '{"a":' * 100_000),
        "number": ("config.json", '{"hidden_size": ' + "9" * 5_000 + "}"),
        "not an object": ("tokenizer.json", "3"),
        "not text": ("config.json", "\udcff"),
    }
    for name, (file, content) in bombs.items():
        folder = tmp_path / name
        shutil.copytree(tiny_llama, folder)
        (folder / file).write_text(content, encoding="utf-8", errors="surrogateescape")
        with pytest.raises(LogitlabError) as raised:
            load_model(str(folder), cache_dir=tmp_path / "cache")
        assert "\n" not in str(raised.value)
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_llama, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(LogitlabError, match="pickled ones are never loaded"):
        load_model(str(folder), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("part", ["normalizer", "decoder"])
@pytest.mark.parametrize("pattern", [{"String": "a"}, {"Regex": "a*"}])
def test_tokenizers_that_grow_what_they_read_are_refused(
    tiny_llama: Path, tmp_path: Path, part: str, pattern: dict[str, str]
) -> None:
    """Forty replacements, each of which doubles a text, would take a terabyte of one letter."""
    folder = tmp_path / "growing"
    shutil.copytree(tiny_llama, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    doubled = [{"type": "Replace", "pattern": pattern, "content": "aa"}] * 40
    tokenizer[part] = {"type": "Sequence", f"{part}s": doubled}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(LogitlabError, match="characters of one; choose another"):
        load_tokenizer(catalog.find(str(folder)), folder)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10000000000 }}",
        "{{ 10000000000 * 'a' }}",
        "{{ [1] * 10000000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}aaaaaaaaaaaaaaaa{% endfor %}{% endfor %}",
        "{% for i in range(10 * 1000000000) %}{% endfor %}",
        "{{ ''.__class__.__mro__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% include '/etc/passwd' %}",
        "{{",
    ],
)
def test_chat_templates_are_programs_that_get_nowhere(template: str) -> None:
    before = peak()
    with pytest.raises(InputError, match="chat template cannot be used") as raised:
        render(template, [{"role": "user", "content": "hello"}], {}, {}, add_generation_prompt=True)
    assert "\n" not in str(raised.value)
    assert peak() - before < MOST_GROWTH


def test_a_tokenizer_of_another_vocabulary_is_refused_where_it_matters(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(tiny_llama, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {piece: id + 10_000 for piece, id in tokenizer["model"]["vocab"].items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    entry = catalog.find(str(folder))
    assert load_tokenizer(entry, folder).encode_ids("the")[0] >= 10_000
    with pytest.raises(LogitlabError, match="vocabulary"):
        load_model(str(folder), cache_dir=tmp_path / "cache")
