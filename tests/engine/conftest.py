"""What several of the engine's tests share."""

from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import cast

import pytest
import torch

from engine.lab import Lab
from engine.models.local import LocalModel
from engine.models.model import ModelFacts
from engine.networks.sources import open_source
from engine.text.tokenizer import Tokenizer
from tests.engine.inside_families import FAMILIES, NARROW, Folders, Models
from tests.tiny_models import save_model


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny products are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
async def lab(tiny_llama: Path) -> AsyncIterator[Lab]:
    """A tiny model in a lab, whose worker ends with it."""
    lab = Lab(precision="float32", threads=1)
    async for _ in lab.load(str(tiny_llama)):
        pass
    yield lab
    await lab.close()
    assert not lab.working


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    base = tmp_path_factory.mktemp("inside")

    @cache
    def folder(name: str) -> Path:
        kind, changes = (FAMILIES | NARROW).get(name, (name, {}))
        return save_model(base / name.replace(" ", "-"), kind, **changes)

    return folder


@pytest.fixture(scope="session")
def model_of(folder_of: Folders) -> Models:
    """Models as they are loaded, without the comparisons that loading makes the first time."""

    @cache
    def model(name: str) -> LocalModel:
        source = open_source(folder_of(name))
        network = source.own(torch.float32) if source.uncovered() is None else source.reference(torch.float32)
        tokenizer = Tokenizer.from_file(folder_of(name) / "tokenizer.json")
        return LocalModel(cast(ModelFacts, None), tokenizer, network)

    return model
